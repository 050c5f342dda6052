/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The journal's bytes
 *
 * All integers are little-endian. A slot's journal folder holds:
 *
 *   lock              empty; an OFD lock on it is the right to the folder
 *   epoch             the epoch file, 80 bytes
 *   segment-00 ...    segments, all of one size, written once round after round
 *   tail              a copy of the last batch, while a start writes it once more
 *   spill-<16 hex>    page sets too large for the journal
 *   overflow-<16 hex> the rest of a long WAL; of no use after a crash, removed at start
 *   restore-<16 hex>  a database that is being restored; the same
 *
 * The epoch file: which batches of the segments count. It is replaced by a rename. It names the
 * epoch that is written, and earlier ones of which something may still be to be redone.
 *
 *    0  8  magic "DDEPOCH2"
 *    8  8  epoch: random; a batch of an epoch that is not named here is as good as none
 *   16  8  generation: 1, 2, ... each time the epoch changes
 *   24  8  first LSN of the epoch: at least microseconds since 1970, so that the records of all
 *          journals of an app can be put in order
 *   32  8  first segment number of the epoch
 *   40  8  segment size in bytes
 *   48  8  nanoseconds since 1970, when it was written
 *   56  4  flags: UNDO 1: the epoch's records tell what was before (below)
 *   60  4  number n of earlier epochs, 0..7
 *   64  8  LSN of the journal's last record before the epoch, or 0; behind a decision on damage
 *          (salvage.h) one that no record had
 *   72  4  zero
 *   76  4  crc32c of bytes 0..75
 *   80     the earlier epochs, oldest first, n times 64 bytes:
 *
 *    0  8  epoch
 *    8  8  first LSN of the epoch
 *   16  8  LSN of the journal's last record before it, or 0
 *   24  8  first segment number of the epoch
 *   32  8  number of its last batch: what claims to be a later one is as good as none
 *   40  4  flags, as above
 *   44 16  zero
 *   60  4  crc32c of bytes 0..59, begun with the one before
 *
 * All of them have segments of one size.
 *
 * A segment is a row of batches, each on a fresh block of 4,096 bytes, the first at 0. A batch is
 * one write. It has batch number n only when the batches before it are durable, so at most the last
 * one can be torn:
 *
 *    0  4  magic 0x54424444 ("DDBT")
 *    4  4  crc32c of bytes 8..len-1
 *    8  8  epoch
 *   16  8  batch number: 1, 2, ... in the epoch
 *   24  8  segment number: grows by one each time a segment is begun, over epochs too
 *   32  8  low segment: what is in segments below it is in the database files, and synced
 *   40  4  len, of header and records; up to the next block the bytes are zero
 *   44  4  number of records
 *   48  8  LSN of the first record (or of the next, when there is none)
 *   56  8  nanoseconds since 1970, when it was sealed
 *
 * The tail file: a batch, for the case that the power fails while it is written anew where it is.
 * It is put in place by a rename, and of use only where a batch is missing that comes next:
 *
 *    0  8  magic "DDTAIL01"
 *    8  4  number of the segment's file
 *   12  4  zero
 *   16  8  offset in it
 *   24 36  zero
 *   60  4  crc32c of bytes 0..59
 *   64     the batch, len bytes
 *
 * A record, at a multiple of 8 in the batch:
 *
 *    0  1  type
 *    1  1  flags
 *    2  1  shift of the page size (9..16): TXN, and DELETE that tells what was before; else 0
 *    3  1  zero
 *    4  4  len, with this header and zeros up to a multiple of 8
 *    8  8  LSN; the records of an epoch are numbered without a gap
 *   16  4  object: a number that holds within the epoch
 *   20  4  TXN: pages of the database after it; NAME: length of the name; else 0
 *   24  4  TXN, DELETE: pages in this record (UNDO and BEFORE are counted too); else 0
 *   28  4  TXN, DELETE: pages of the database before it, where the epoch says UNDO; else 0
 *   32     what the type says
 *
 *   NAME 1    path of the object's file below the objects folder. It comes before the first other
 *             record of the object in each segment.
 *   CREATE 2  nothing. The file is there and empty; what it held before is void.
 *   TXN 3     a commit: pages. Each is { number: 4 bytes, kind and length: 4, bytes }; the length
 *             is in the low 28 bits, the kind in the high 4: RAW 0, the page; ZERO 1, a delta
 *             against zeros; DELTA 2, a delta against the object's page as the records before make
 *             it, which begin with a RAW or ZERO of the page in the same segment; UNDO 3 and
 *             BEFORE 4, below. RAW, ZERO or DELTA of a page is there once in a record.
 *             With flag COPY 2 it is no commit but pages of earlier ones, written anew so that
 *             their segment can go: what was before is not in it.
 *             With flag SPILL 1 the pages are in a file: { file: 8, size: 8, crc32c: 4, zero: 4 }.
 *   CANCEL 4  { lsn: 8 }: the object's TXN records from this LSN on, up to here, are void.
 *   DELETE 5  The file is gone. Where the epoch says UNDO, all its pages as UNDO or BEFORE, or with
 *             flag SPILL in a file; or nothing (shift 0), where there was no room for them: what
 * was before is lost.
 *
 * A spill file: { number: 4, the page }*. The first are as many as the record says, RAW; what
 * follows, up to the file's end, are pages as they were before (of DELETE: all).
 *
 * What was before. Where the epoch says UNDO, a record can be taken back: from the object's content
 * after it that before it is made, page by page:
 *   DELTA     the same XOR again.
 *   RAW, ZERO of a page up to the database's end before and after: the next entry is UNDO 3 of it,
 *             a delta that makes of the page just given the one before, or, where that would be no
 *             shorter than a page, BEFORE 4, the page as it was.
 *   A page up to the database's end before, but beyond the one after, has an UNDO, a delta against
 *   zeros, or BEFORE of its own, at the record's beginning; what else the record has of such a page
 *   says nothing of the one before.
 *   A page that is in the record and was beyond the database's end before was not there.
 * Last, the database has the pages that bytes 28..31 say. Before CREATE there was no object.
 *
 * Redo. Batches of the epochs are put in order, epoch by epoch. The last one's low segment says
 * where to begin. From there on batch numbers must have no gap, and each earlier epoch goes on to
 * its last batch. Records are applied in their order, those that a CANCEL makes void left out, UNDO
 * and BEFORE passed over; last, a file is cut to the pages that the last TXN says.
 *
 * Decoding judges any bytes: -EBADMSG, never a read beyond what is given.
 */

#include "lib/base/slice.h"

#define EPOCH_SIZE 80u
#define EPOCH_EARLIER_SIZE 64u
#define EPOCH_EARLIER_MAX 7u
#define EPOCH_SIZE_MAX (EPOCH_SIZE + EPOCH_EARLIER_MAX * EPOCH_EARLIER_SIZE)
#define TAIL_HEADER_SIZE 64u
#define BATCH_HEADER_SIZE 64u
#define RECORD_HEADER_SIZE 32u
#define PAGE_HEADER_SIZE 8u
#define SPILL_REF_SIZE 24u
#define RECORD_ALIGN 8u
/* A record has at most a page set of 16 MiB in pages of 512 bytes; a batch ends with the record
 * that reaches 1 MiB. */
#define JOURNAL_BATCH_MAX (24u << 20)
#define JOURNAL_NAME_MAX 1024u

typedef enum EpochFlags {
        EPOCH_UNDO = 1,
} EpochFlags;

/* One whose batches are no longer written. */
typedef struct EarlierEpoch {
        uint64_t epoch, first_lsn, last_before, first_segment, last_batch, flags;
} EarlierEpoch;

typedef struct EpochFile {
        uint64_t epoch, generation, first_lsn, first_segment, segment_size, time;
        uint64_t last_before; /* LSN of the last record of the epochs before, or 0 */
        uint64_t flags;
        uint64_t n_earlier;
        EarlierEpoch earlier[EPOCH_EARLIER_MAX]; /* oldest first */
} EpochFile;

typedef struct BatchHeader {
        uint64_t epoch, batch, segment, low, first_lsn, time;
        uint32_t crc, len, n_records;
} BatchHeader;

typedef enum RecordType {
        RECORD_NAME = 1,
        RECORD_CREATE,
        RECORD_TXN,
        RECORD_CANCEL,
        RECORD_DELETE,
} RecordType;

typedef enum RecordFlags {
        RECORD_SPILL = 1,
        RECORD_COPY = 2,
} RecordFlags;

typedef struct Record {
        RecordType type;
        unsigned flags;
        uint32_t page_size; /* TXN, and DELETE that tells what was before; else 0 */
        uint32_t object, db_pages, n_pages;
        uint32_t pages_before;
        uint64_t lsn;
        Slice payload; /* without the zeros at its end where the type tells its length */
} Record;

typedef enum PageKind {
        PAGE_RAW,
        PAGE_ZERO,
        PAGE_DELTA,
        PAGE_UNDO,
        PAGE_BEFORE,
} PageKind;

/* Tells nothing of the content after the record. */
static inline bool page_is_past(PageKind kind)
{
        return kind == PAGE_UNDO || kind == PAGE_BEFORE;
}

typedef struct Page {
        uint32_t number;
        PageKind kind;
        Slice bytes;
} Page;

typedef struct SpillRef {
        uint64_t file, size;
        uint32_t crc;
} SpillRef;

/* out has room for EPOCH_SIZE and the earlier ones; returns the size. */
size_t epoch_encode(const EpochFile *epoch, unsigned char *out);
int epoch_decode(Slice bytes, EpochFile *ret);

/* Fills in the header, its crc included, of a batch whose header.len bytes are at batch. */
void batch_seal(const BatchHeader *header, unsigned char *batch);
/* The header's own form alone (magic, lengths); bytes may be the batch's first block. */
int batch_decode_header(Slice bytes, BatchHeader *ret);
/* bytes: the len bytes of the batch. */
bool batch_check(const BatchHeader *header, Slice bytes);

static inline size_t record_size(size_t payload)
{
        return (RECORD_HEADER_SIZE + payload + RECORD_ALIGN - 1) & ~(size_t)(RECORD_ALIGN - 1);
}

/* The header of a record with payload bytes, whose padding it also writes: out has record_size().
 */
void record_encode(const Record *record, size_t payload, unsigned char *out);
void record_set_lsn(unsigned char *record, uint64_t lsn);
/* Of the tail file. */
void tail_encode(uint32_t slot, uint64_t offset, unsigned char out[TAIL_HEADER_SIZE]);
int tail_decode(Slice bytes, uint32_t *ret_slot, uint64_t *ret_offset);

/* Cuts the first record off *rest. -ENODATA at the end. */
int record_decode(Slice *rest, Record *ret);

/* The header of a page; its bytes follow. */
void page_encode(uint32_t number, PageKind kind, size_t len, unsigned char *out);
/* Cuts the first page off *rest. */
int page_decode(Slice *rest, uint32_t page_size, Page *ret);

void spill_encode(const SpillRef *spill, unsigned char out[SPILL_REF_SIZE]);
int spill_decode(Slice bytes, SpillRef *ret);
void cancel_encode(uint64_t lsn, unsigned char out[8]);
int cancel_decode(Slice bytes, uint64_t *ret);

/* Big-endian, as SQLite's files have them; little-endian, as ours. */
uint32_t get_be32(const void *data);
uint32_t get_le32(const void *data);
uint64_t get_le64(const void *data);
void put_le32(void *data, uint32_t value);
void put_le64(void *data, uint64_t value);
