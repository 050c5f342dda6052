/* SPDX-License-Identifier: Apache-2.0 */

/*
 * An archive file's bytes: whatever a disk gives back is judged without a read or write beyond it
 *
 * Input: any bytes, taken as an archive file. A first byte that is odd stands for a writer gone
 * mad: every crc is made right before it is checked, so that what lies behind one is seen as well.
 * What decodes lies inside the file, and encodes to the same bytes.
 */

#include "lib/store/archive-format.h"
#include "lib/store/crc32c.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHUNKS_MAX 64u

typedef struct File {
        unsigned char *data;
        size_t size;
        bool make_right;
        ArchiveHeader header;
} File;

static Slice part(const File *file, uint64_t offset, uint64_t len)
{
        dd_assert(offset <= file->size && len <= file->size - offset);
        return slice_of(file->data + offset, len);
}

static void take_chunk(const File *file, ArchiveChunk *chunk, uint64_t offset)
{
        Slice stored = part(file, offset, chunk->stored_len);
        unsigned char *out = malloc(chunk->len);

        if (file->make_right)
                chunk->crc = crc32c(0, stored.data, stored.len);
        if (out && archive_chunk_unpack(chunk, stored, out) == 0 && chunk->kind == CHUNK_RECORDS) {
                Slice rest = slice_of(out, chunk->len);
                Record record;

                while (record_decode(&rest, &record) == 0)
                        ;
        }
        free(out);
}

static void take_object(const File *file, ArchiveEntry *entry)
{
        uint64_t len = (uint64_t)entry->n_chunks * ARCHIVE_CHUNK_ENTRY_SIZE, offset = entry->offset;
        Slice table = part(file, entry->offset + entry->stored_len, len);
        ArchiveChunk chunks[CHUNKS_MAX];

        part(file, file->header.names_offset + entry->name_offset, entry->name_len);
        if (entry->n_chunks > CHUNKS_MAX)
                return;
        if (file->make_right)
                entry->table_crc = crc32c(0, table.data, table.len);
        if (archive_table_decode(table, entry, chunks))
                return;
        for (uint32_t i = 0; i < entry->n_chunks; i++) {
                unsigned char again[ARCHIVE_CHUNK_ENTRY_SIZE];

                archive_chunk_encode(&chunks[i], again);
                dd_assert(memcmp(again, table.data + (size_t)i * ARCHIVE_CHUNK_ENTRY_SIZE,
                                  sizeof again) == 0);
                take_chunk(file, &chunks[i], offset);
                offset += chunks[i].stored_len;
        }
        dd_assert(offset == entry->offset + entry->stored_len);
}

static void take_block(const File *file, uint32_t number)
{
        uint64_t offset = file->header.index_offset + (uint64_t)number * ARCHIVE_BLOCK_SIZE;
        Slice block = part(file, offset, ARCHIVE_BLOCK_SIZE);
        ArchiveEntry entries[ARCHIVE_BLOCK_ENTRIES];
        uint32_t n;

        if (file->make_right)
                put_le32(file->data + offset, crc32c(0, block.data + 4, ARCHIVE_BLOCK_SIZE - 4));
        if (archive_block_decode(block, &file->header, entries, &n))
                return;
        dd_assert(n > 0 && n <= ARCHIVE_BLOCK_ENTRIES);
        for (uint32_t i = 0; i < n; i++)
                take_object(file, &entries[i]);
}

static void take_file(File *file)
{
        unsigned char again[ARCHIVE_HEADER_SIZE];
        ArchiveHeader same;

        if (file->size < ARCHIVE_HEADER_SIZE)
                return;
        if (file->make_right)
                put_le32(file->data + ARCHIVE_HEADER_SIZE - 4,
                        crc32c(0, file->data, ARCHIVE_HEADER_SIZE - 4));
        if (archive_header_decode(part(file, 0, ARCHIVE_HEADER_SIZE), &file->header) ||
                file->header.size != file->size)
                return;
        archive_header_encode(&file->header, again);
        dd_assert(archive_header_decode(slice_of(again, sizeof again), &same) == 0);
        dd_assert(memcmp(&same, &file->header, sizeof same) == 0);
        for (uint32_t i = 0; i < archive_n_blocks(&file->header); i++)
                take_block(file, i);
        for (uint32_t i = 0; i < file->header.n_samples; i++) {
                uint64_t at = file->header.samples_offset + (uint64_t)i * ARCHIVE_SAMPLE_SIZE;

                part(file, at, ARCHIVE_SAMPLE_SIZE);
                archive_sample_decode(file->data + at);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        File file = { .size = size ? size - 1 : 0 };
        char name[ARCHIVE_NAME_LEN + 1] = "", again[ARCHIVE_NAME_LEN + 1];
        uint64_t lsn;

        if (!size)
                return 0;
        file.make_right = data[0] & 1;
        file.data = malloc(size);
        if (!file.data)
                return 0;
        memcpy(file.data, data + 1, file.size);
        memcpy(name, file.data, MIN(file.size, (size_t)ARCHIVE_NAME_LEN));
        if (archive_name_decode(name, &lsn)) {
                archive_name_encode(lsn, again);
                dd_assert(strcmp(name, again) == 0);
        }
        take_file(&file);
        free(file.data);
        return 0;
}
