/* SPDX-License-Identifier: Apache-2.0 */

/*
 * An archive file's bytes: whatever a disk gives back is judged without a read or write beyond it
 *
 * Input: any bytes, taken as an archive file. A first byte that is odd stands for a writer gone
 * mad: every crc and key of a name is made right before it is checked, so that what lies behind one
 * is seen as well. What decodes lies inside the file, and encodes to the same bytes; what is read
 * of the file then ends, with an error that names a place in it or with what it holds.
 */

#include "lib/store/archive-read.h"
#include "lib/store/crc32c.h"
#include "tests/unit/store/disk-memory.h"

#include <errno.h>
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

static void take_chunk(File *file, ArchiveChunk *chunk, uint64_t offset)
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

static void take_object(File *file, ArchiveEntry *entry)
{
        uint64_t len = (uint64_t)entry->n_chunks * ARCHIVE_CHUNK_ENTRY_SIZE, offset = entry->offset;
        Slice table = part(file, entry->offset + entry->stored_len, len);
        Slice name = part(file, file->header.names_offset + entry->name_offset, entry->name_len);
        ArchiveChunk chunks[CHUNKS_MAX];

        if (entry->n_chunks > CHUNKS_MAX)
                return;
        if (file->make_right) {
                entry->table_crc = crc32c(0, table.data, table.len);
                archive_name_key(name, entry->key);
        }
        if (archive_table_decode(table, entry, chunks))
                return;
        for (uint32_t i = 0; i < entry->n_chunks; i++) {
                unsigned char again[ARCHIVE_CHUNK_ENTRY_SIZE];

                archive_chunk_encode(&chunks[i], again);
                dd_assert(memcmp(again, table.data + (size_t)i * ARCHIVE_CHUNK_ENTRY_SIZE,
                                  sizeof again) == 0);
                take_chunk(file, &chunks[i], offset);
                if (file->make_right)
                        archive_chunk_encode(
                                &chunks[i], (unsigned char *)(uintptr_t)table.data +
                                                    (size_t)i * ARCHIVE_CHUNK_ENTRY_SIZE);
                offset += chunks[i].stored_len;
        }
        if (file->make_right)
                entry->table_crc = crc32c(0, table.data, table.len);
        dd_assert(offset == entry->offset + entry->stored_len);
}

static void take_block(File *file, uint32_t number)
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
        if (file->make_right)
                archive_block_encode(entries, n, file->data + offset);
}

static uint32_t crc_of(const File *file, uint64_t offset, uint64_t end)
{
        Slice bytes = part(file, offset, end - offset);

        return crc32c(0, bytes.data, bytes.len);
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
        if (file->make_right) {
                ArchiveHeader *header = &file->header;

                header->names_crc = crc_of(file, header->names_offset, header->samples_offset);
                header->samples_crc = crc_of(file, header->samples_offset, header->size);
                archive_header_encode(header, file->data);
        }
        for (uint32_t i = 0; i < file->header.n_samples; i++) {
                uint64_t at = file->header.samples_offset + (uint64_t)i * ARCHIVE_SAMPLE_SIZE;

                part(file, at, ARCHIVE_SAMPLE_SIZE);
                archive_sample_decode(file->data + at);
        }
}

static int see_page(uint32_t number, const unsigned char *page, void *data)
{
        const Record *record = data;

        dd_assert(number && crc32c(0, page, record->page_size) <= UINT32_MAX);
        return 0;
}

static void read_object(ArchiveFile *file, uint32_t index)
{
        _cleanup_(archive_object_close_p) ArchiveObject *object = NULL;
        char name[JOURNAL_NAME_MAX + 1];
        ArchiveEntry entry, found;
        int r = archive_get_entry(file, index, &entry);

        r = r ?: archive_read_name(file, &entry, name);
        /* Where the index is out of order it may not be found. */
        if (!r && archive_find(file, slice_from(name), &found) == 0)
                dd_assert(memcmp(found.key, entry.key, sizeof found.key) == 0);
        r = r ?: archive_object_open(file, &entry, &object);
        for (size_t i = 0; !r && i < archive_object_get_count(object); i++) {
                Record record;

                archive_object_get_record(object, i, &record);
                if (record.flags & RECORD_SPILL)
                        r = archive_object_read_past(object, &record, see_page, &record);
        }
        dd_assert(r == 0 || r == -EBADMSG || r == -ENOMEM);
}

#define PATH "/a"

static void read_file(const File *file)
{
        MemoryDisk *memory = memory_disk_new(1);
        Disk *disk = memory_disk_get(memory);
        _cleanup_(archive_close_p) ArchiveFile *archive = NULL;
        DiskFile *to = NULL;
        ArchiveDamage damage = {};
        uint64_t lsn;
        int r;

        dd_assert(disk_open(disk, PATH, DISK_CREATE, &to) == 0);
        dd_assert(!file->size || disk_write(to, file->data, file->size, 0, 0) == 0);
        disk_close(to);
        r = archive_open(disk, PATH, &damage, &archive);
        if (!r) {
                for (uint32_t i = 0; i < archive_get_header(archive)->n_objects; i++)
                        read_object(archive, i);
                r = archive_find_time(archive, archive_get_header(archive)->first_time, &lsn);
                dd_assert(r == 0 || r == -EBADMSG || r == ARCHIVE_E_ABSENT);
                r = archive_verify(archive);
        }
        dd_assert(r == 0 || r == -ENOMEM || (r == -EBADMSG && damage.what[0]));
        archive = archive_close(archive);
        memory_disk_free(memory);
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
        read_file(&file);
        free(file.data);
        return 0;
}
