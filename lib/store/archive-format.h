/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * An archive file's bytes
 *
 * One file holds what one segment of a slot's journal held: `<16 hex of first LSN>.archive` in the
 * slot's archive folder. It is written under a name that ends in ".new", synced, renamed, never
 * changed, and removed as a whole. All integers are little-endian. In order, without a gap:
 *
 *   header    128 bytes
 *   data      of one object after the other: chunks, then the table of them
 *   index     blocks of 4,096 bytes
 *   names     of the objects, one behind the other
 *   samples   16 bytes each
 *
 * Header:
 *
 *    0  8  magic "DDARCHIV"
 *    8  4  version: 1
 *   12  4  zero
 *   16  8  first LSN: of the segment's first record, and the file's name
 *   24  8  last LSN
 *   32  8  follows: LSN of the journal's record before the first; 0: the journal began here. A file
 *          goes on where another ends whose last LSN that is; else there is a gap between them.
 *   40  8  epoch
 *   48  8  segment number
 *   56  8  nanoseconds since 1970, when the first batch was sealed
 *   64  8  the same of the last batch
 *   72  8  offset of the index
 *   80  8  offset of the names
 *   88  8  offset of the samples
 *   96  8  size of the file
 *  104  4  number of objects
 *  108  4  number of samples
 *  112  4  crc32c of the names
 *  116  4  crc32c of the samples
 *  120  4  zero
 *  124  4  crc32c of bytes 0..123
 *
 * A chunk is a zstd frame. RECORDS chunks, one behind the other, are the object's records of the
 * segment as journal-format.h has them, in their order, without NAME and COPY; object numbers hold
 * within the epoch, and one object may have had several. A PAST chunk has pages as they were before
 * a record with flag SPILL: { number: 4, the page }*, as in its spill file; each page of a record
 * is in one chunk, whole.
 *
 * The chunk table, an entry of 24 bytes to a chunk, in the chunks' order:
 *
 *    0  4  kind: RECORDS 0, PAST 1
 *    4  4  len when unpacked, at most 256 KiB
 *    8  4  len as stored
 *   12  4  crc32c of the bytes as stored
 *   16  8  PAST: LSN of the record; else 0
 *
 * A block of the index: { crc32c of bytes 4..4095: 4, number of entries: 4, entries, zeros }. All
 * blocks but the last have 51 entries of 80 bytes, sorted by key over the whole index:
 *
 *    0 16  key of the name, from archive_name_key()
 *   16  8  LSN of the object's first record in the file
 *   24  8  of its last
 *   32  8  offset of its first chunk
 *   40  8  len of its chunks as stored; behind them is the chunk table
 *   48  8  len of its records when unpacked
 *   56  4  number of chunks
 *   60  4  crc32c of the chunk table
 *   64  4  offset of the name in the names
 *   68  4  len of the name
 *   72  4  number of commits: TXN that no CANCEL of this file makes void
 *   76  4  zero
 *
 * Samples, in the order of LSNs: { nanoseconds since 1970: 8, LSN: 8 }: records up to this LSN were
 * sealed by then. There is one for the last batch of every 10 ms. A clock that was set back shows
 * in them.
 *
 * Every block, table, chunk and area has a crc, and what finds it is covered by one: what decodes
 * was written.
 *
 * Decoding judges any bytes: -EBADMSG, never a read beyond what is given.
 */

#include "lib/store/journal-format.h"

#define ARCHIVE_HEADER_SIZE 128u
#define ARCHIVE_CHUNK_MAX (256u << 10)
#define ARCHIVE_CHUNK_ENTRY_SIZE 24u
#define ARCHIVE_BLOCK_SIZE 4096u
#define ARCHIVE_BLOCK_HEADER_SIZE 8u
#define ARCHIVE_ENTRY_SIZE 80u
#define ARCHIVE_BLOCK_ENTRIES 51u
#define ARCHIVE_SAMPLE_SIZE 16u
#define ARCHIVE_SAMPLE_NS UINT64_C(10000000)
#define ARCHIVE_KEY_SIZE 16u
#define ARCHIVE_SUFFIX ".archive"
#define ARCHIVE_NAME_LEN 24u /* 16 hex and the suffix */

typedef struct ArchiveHeader {
        uint64_t first_lsn, last_lsn, follows, epoch, segment, first_time, last_time;
        uint64_t index_offset, names_offset, samples_offset, size;
        uint32_t n_objects, n_samples, names_crc, samples_crc;
} ArchiveHeader;

typedef struct ArchiveEntry {
        unsigned char key[ARCHIVE_KEY_SIZE];
        uint64_t first_lsn, last_lsn, offset, stored_len, records_len;
        uint32_t n_chunks, table_crc, name_offset, name_len, n_commits;
} ArchiveEntry;

typedef enum ArchiveChunkKind {
        CHUNK_RECORDS,
        CHUNK_PAST,
} ArchiveChunkKind;

typedef struct ArchiveChunk {
        ArchiveChunkKind kind;
        uint32_t len, stored_len, crc;
        uint64_t lsn;
} ArchiveChunk;

typedef struct ArchiveSample {
        uint64_t time, lsn;
} ArchiveSample;

/* SipHash-2-4 of the name with two fixed keys: spreads names evenly, keeps no one from making two
 * with one key. The name is compared as well. */
void archive_name_key(Slice name, unsigned char ret[ARCHIVE_KEY_SIZE]);

void archive_header_encode(const ArchiveHeader *header, unsigned char out[ARCHIVE_HEADER_SIZE]);
/* The parts lie in order, within header.size. */
int archive_header_decode(Slice bytes, ArchiveHeader *ret);

static inline uint32_t archive_n_blocks(const ArchiveHeader *header)
{
        return header->n_objects / ARCHIVE_BLOCK_ENTRIES +
               (header->n_objects % ARCHIVE_BLOCK_ENTRIES != 0);
}

/* At most ARCHIVE_BLOCK_ENTRIES. */
void archive_block_encode(
        const ArchiveEntry *entries, uint32_t n, unsigned char out[ARCHIVE_BLOCK_SIZE]);
/* Each entry lies within the header's parts. */
int archive_block_decode(Slice bytes, const ArchiveHeader *header,
        ArchiveEntry ret[ARCHIVE_BLOCK_ENTRIES], uint32_t *ret_n);

void archive_chunk_encode(const ArchiveChunk *chunk, unsigned char out[ARCHIVE_CHUNK_ENTRY_SIZE]);
/* The table of an entry, its crc, and lengths that add up. ret has entry->n_chunks. */
int archive_table_decode(Slice bytes, const ArchiveEntry *entry, ArchiveChunk *ret);
/* A chunk's stored bytes into out, which has chunk->len. */
int archive_chunk_unpack(const ArchiveChunk *chunk, Slice stored, unsigned char *out);

void archive_sample_encode(const ArchiveSample *sample, unsigned char out[ARCHIVE_SAMPLE_SIZE]);
ArchiveSample archive_sample_decode(const unsigned char bytes[ARCHIVE_SAMPLE_SIZE]);

/* The name of a file, and its first LSN from a name: false for any other name. */
void archive_name_encode(uint64_t first_lsn, char out[ARCHIVE_NAME_LEN + 1]);
bool archive_name_decode(const char *name, uint64_t *ret);
