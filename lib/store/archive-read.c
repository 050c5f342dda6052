/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive-read.h"

#include "lib/base/file.h"
#include "lib/store/crc32c.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Names and samples are read in pieces. */
#define PIECE (64u << 10)

typedef struct Block {
        uint32_t number, n;
        ArchiveEntry entries[ARCHIVE_BLOCK_ENTRIES];
} Block;

struct ArchiveFile {
        DiskFile *file;
        ArchiveDamage *damage;
        ArchiveHeader header;
        Block block; /* the one read last; n is 0 before */
};

struct ArchiveObject {
        ArchiveFile *file;
        ArchiveEntry entry;
        ArchiveChunk *chunks;
        unsigned char *records;
        size_t *offsets; /* of each record */
        size_t n_records, room;
};

static int _printf_(3, 4) bad(ArchiveFile *file, uint64_t offset, const char *format, ...)
{
        va_list args;

        file->damage->offset = offset;
        va_start(args, format);
        vsnprintf(file->damage->what, sizeof file->damage->what, format, args);
        va_end(args);
        return -EBADMSG;
}

typedef struct Names {
        uint64_t *lsns;
        size_t n, room;
} Names;

static int see_name(const char *name, void *data)
{
        Names *names = data;
        uint64_t lsn;

        if (!archive_name_decode(name, &lsn))
                return 0;
        if (names->n == names->room) {
                size_t room = MAX(2 * names->room, (size_t)64);
                uint64_t *lsns = realloc(names->lsns, room * sizeof *lsns);

                if (!lsns)
                        return -ENOMEM;
                names->lsns = lsns;
                names->room = room;
        }
        names->lsns[names->n++] = lsn;
        return 0;
}

static int compare_lsns(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

int archive_list(Disk *disk, const char *folder, uint64_t **ret, size_t *ret_n)
{
        Names names = {};
        int r = disk_list(disk, folder, see_name, &names);

        if (r && r != -ENOENT) {
                free(names.lsns);
                return r;
        }
        if (names.n)
                qsort(names.lsns, names.n, sizeof *names.lsns, compare_lsns);
        *ret = names.lsns;
        *ret_n = names.n;
        return 0;
}

char *archive_path(const char *folder, uint64_t first_lsn)
{
        char name[ARCHIVE_NAME_LEN + 1];

        archive_name_encode(first_lsn, name);
        return path_join(folder, name);
}

/* All of it, or the file ends there. */
static int read_at(ArchiveFile *file, void *data, size_t len, uint64_t offset)
{
        size_t got;
        int r = disk_read(file->file, data, len, offset, &got);

        if (r)
                return r;
        return got == len ? 0 : bad(file, offset + got, "the file ends here");
}

static int read_header(ArchiveFile *file)
{
        unsigned char bytes[ARCHIVE_HEADER_SIZE];
        uint64_t size;
        int r = read_at(file, bytes, sizeof bytes, 0);

        r = r ?: disk_get_size(file->file, &size);
        if (r)
                return r;
        if (archive_header_decode(slice_of(bytes, sizeof bytes), &file->header))
                return bad(file, 0, "the header does not check");
        if (size != file->header.size)
                return bad(file, MIN(size, file->header.size),
                        "the file has %llu bytes, its header says %llu", (unsigned long long)size,
                        (unsigned long long)file->header.size);
        return 0;
}

int archive_open(Disk *disk, const char *path, ArchiveDamage *damage, ArchiveFile **ret)
{
        _cleanup_(archive_close_p) ArchiveFile *file = calloc(1, sizeof *file);
        int r;

        if (!file)
                return -ENOMEM;
        file->damage = damage;
        r = disk_open(disk, path, DISK_READ_ONLY, &file->file);
        r = r ?: read_header(file);
        if (r)
                return r;
        *ret = TAKE_PTR(file);
        return 0;
}

ArchiveFile *archive_close(ArchiveFile *file)
{
        if (file) {
                disk_close(file->file);
                free(file);
        }
        return NULL;
}

const ArchiveHeader *archive_get_header(const ArchiveFile *file)
{
        return &file->header;
}

static int read_block(ArchiveFile *file, uint32_t number)
{
        unsigned char bytes[ARCHIVE_BLOCK_SIZE];
        uint64_t offset = file->header.index_offset + (uint64_t)number * ARCHIVE_BLOCK_SIZE;
        uint32_t left = file->header.n_objects - number * ARCHIVE_BLOCK_ENTRIES;
        int r;

        if (file->block.n && file->block.number == number)
                return 0;
        file->block.n = 0;
        r = read_at(file, bytes, sizeof bytes, offset);
        if (r)
                return r;
        r = archive_block_decode(
                slice_of(bytes, sizeof bytes), &file->header, file->block.entries, &file->block.n);
        if (r || file->block.n != MIN(left, ARCHIVE_BLOCK_ENTRIES)) {
                file->block.n = 0;
                return bad(file, offset, "block %u of the index does not check", number);
        }
        file->block.number = number;
        return 0;
}

static int compare_keys(const unsigned char *a, const unsigned char *b)
{
        return memcmp(a, b, ARCHIVE_KEY_SIZE);
}

/*
 * Reads the first block whose last key is not below the key: with ever longer steps from where the
 * key's first bytes say it is, since keys are spread evenly, then by halves.
 */
static int find_block(ArchiveFile *file, const unsigned char *key)
{
        const Block *block = &file->block;
        uint32_t n = archive_n_blocks(&file->header), low = 0, high = n, step = 1;
        uint32_t at = (uint32_t)((uint64_t)get_be32(key) * n >> 32);

        while (low < high) {
                int r = read_block(file, at);

                if (r)
                        return r;
                if (compare_keys(block->entries[block->n - 1].key, key) < 0) {
                        low = at + 1;
                        at += step;
                } else {
                        high = at;
                        if (compare_keys(block->entries[0].key, key) < 0)
                                break;
                        at -= MIN(at, step);
                }
                step *= 2;
                if (at < low || at >= high)
                        at = low + (high - low) / 2;
        }
        return high == n ? ARCHIVE_E_ABSENT : read_block(file, high);
}

int archive_read_name(ArchiveFile *file, const ArchiveEntry *entry, char ret[JOURNAL_NAME_MAX + 1])
{
        uint64_t offset = file->header.names_offset + entry->name_offset;
        unsigned char key[ARCHIVE_KEY_SIZE];
        int r = read_at(file, ret, entry->name_len, offset);

        if (r)
                return r;
        ret[entry->name_len] = '\0';
        archive_name_key(slice_of(ret, entry->name_len), key);
        return compare_keys(key, entry->key) == 0 && strlen(ret) == entry->name_len
                       ? 0
                       : bad(file, offset, "the name is not the one that the index has");
}

int archive_get_entry(ArchiveFile *file, uint32_t index, ArchiveEntry *ret)
{
        int r;

        dd_assert(index < file->header.n_objects);
        r = read_block(file, index / ARCHIVE_BLOCK_ENTRIES);
        if (!r)
                *ret = file->block.entries[index % ARCHIVE_BLOCK_ENTRIES];
        return r;
}

int archive_find(ArchiveFile *file, Slice name, ArchiveEntry *ret)
{
        unsigned char key[ARCHIVE_KEY_SIZE];
        char found[JOURNAL_NAME_MAX + 1];
        uint32_t at;
        int r;

        if (!file->header.n_objects)
                return ARCHIVE_E_ABSENT;
        archive_name_key(name, key);
        r = find_block(file, key);
        if (r)
                return r;
        at = file->block.number * ARCHIVE_BLOCK_ENTRIES;
        for (uint32_t i = 0; i < file->block.n && compare_keys(file->block.entries[i].key, key) < 0;
                i++)
                at++;
        /* Two names may have one key. */
        for (; at < file->header.n_objects; at++) {
                ArchiveEntry entry;

                r = archive_get_entry(file, at, &entry);
                if (r)
                        return r;
                if (compare_keys(entry.key, key) != 0)
                        break;
                r = archive_read_name(file, &entry, found);
                if (r)
                        return r;
                if (slice_equal(slice_from(found), name)) {
                        *ret = entry;
                        return 0;
                }
        }
        return ARCHIVE_E_ABSENT;
}

/* Calls fn with each sample; non-zero stops. All of them are checked when none did. */
static int each_sample(
        ArchiveFile *file, int (*fn)(const ArchiveSample *sample, void *data), void *data)
{
        _cleanup_(free_p) unsigned char *bytes = malloc(PIECE);
        uint64_t size = (uint64_t)file->header.n_samples * ARCHIVE_SAMPLE_SIZE;
        uint32_t crc = 0;
        int r = 0;

        if (!bytes)
                return -ENOMEM;
        for (uint64_t done = 0; !r && done < size; done += PIECE) {
                size_t len = MIN(size - done, (uint64_t)PIECE);

                r = read_at(file, bytes, len, file->header.samples_offset + done);
                if (r)
                        return r;
                crc = crc32c(crc, bytes, len);
                for (size_t at = 0; !r && at < len; at += ARCHIVE_SAMPLE_SIZE) {
                        ArchiveSample sample = archive_sample_decode(bytes + at);

                        r = fn(&sample, data);
                }
        }
        if (!r && crc != file->header.samples_crc)
                r = bad(file, file->header.samples_offset, "the samples do not check");
        return r;
}

typedef struct TimeSearch {
        uint64_t time, lsn, first_lsn, last_lsn;
        bool found, out_of_range;
} TimeSearch;

static int see_sample(const ArchiveSample *sample, void *data)
{
        TimeSearch *search = data;

        search->out_of_range |= sample->lsn < search->first_lsn || sample->lsn > search->last_lsn;
        if (sample->time > search->time)
                return 0;
        search->lsn = sample->lsn;
        search->found = true;
        return 0;
}

int archive_find_time(ArchiveFile *file, uint64_t time_ns, uint64_t *ret)
{
        TimeSearch search = { .time = time_ns,
                .first_lsn = file->header.first_lsn,
                .last_lsn = file->header.last_lsn };
        int r = each_sample(file, see_sample, &search);

        if (!r && search.out_of_range)
                r = bad(file, file->header.samples_offset, "a sample is beyond the file's LSNs");
        if (r)
                return r;
        if (!search.found)
                return ARCHIVE_E_ABSENT;
        *ret = search.lsn;
        return 0;
}

ArchiveObject *archive_object_close(ArchiveObject *object)
{
        if (object) {
                free(object->chunks);
                free(object->records);
                free(object->offsets);
                free(object);
        }
        return NULL;
}

static int read_table(ArchiveObject *object)
{
        const ArchiveEntry *entry = &object->entry;
        size_t size = (size_t)entry->n_chunks * ARCHIVE_CHUNK_ENTRY_SIZE;
        uint64_t offset = entry->offset + entry->stored_len;
        _cleanup_(free_p) unsigned char *bytes = malloc(size + 1);
        int r;

        object->chunks = calloc((size_t)entry->n_chunks + 1, sizeof *object->chunks);
        if (!bytes || !object->chunks)
                return -ENOMEM;
        r = read_at(object->file, bytes, size, offset);
        if (!r && archive_table_decode(slice_of(bytes, size), entry, object->chunks))
                r = bad(object->file, offset, "the table of an object's chunks does not check");
        return r;
}

static int read_chunk(ArchiveObject *object, const ArchiveChunk *chunk, uint64_t offset,
        unsigned char *stored, unsigned char *out)
{
        int r = read_at(object->file, stored, chunk->stored_len, offset);

        if (!r && archive_chunk_unpack(chunk, slice_of(stored, chunk->stored_len), out))
                r = bad(object->file, offset, "a chunk does not check");
        return r;
}

static size_t longest_chunk(const ArchiveObject *object)
{
        uint32_t len = 1;

        for (uint32_t i = 0; i < object->entry.n_chunks; i++)
                len = MAX(len, object->chunks[i].stored_len);
        return len;
}

static int read_records(ArchiveObject *object)
{
        _cleanup_(free_p) unsigned char *stored = malloc(longest_chunk(object));
        uint64_t offset = object->entry.offset;
        size_t done = 0;
        int r = 0;

        object->records = malloc(object->entry.records_len + 1);
        if (!stored || !object->records)
                return -ENOMEM;
        for (uint32_t i = 0; !r && i < object->entry.n_chunks; i++) {
                const ArchiveChunk *chunk = &object->chunks[i];

                if (chunk->kind == CHUNK_RECORDS) {
                        r = read_chunk(object, chunk, offset, stored, object->records + done);
                        done += chunk->len;
                }
                offset += chunk->stored_len;
        }
        return r;
}

static int add_record(ArchiveObject *object, size_t offset)
{
        if (object->n_records == object->room) {
                size_t room = MAX(2 * object->room, (size_t)64);
                size_t *offsets = realloc(object->offsets, room * sizeof *offsets);

                if (!offsets)
                        return -ENOMEM;
                object->offsets = offsets;
                object->room = room;
        }
        object->offsets[object->n_records++] = offset;
        return 0;
}

static int list_records(ArchiveObject *object)
{
        const ArchiveEntry *entry = &object->entry;
        Slice rest = slice_of(object->records, entry->records_len);
        uint64_t last = 0;
        Record record;
        int r;

        while (rest.len) {
                size_t at = entry->records_len - rest.len;

                if (record_decode(&rest, &record) || record.lsn < entry->first_lsn ||
                        record.lsn > entry->last_lsn || record.lsn <= last)
                        return bad(object->file, entry->offset,
                                "record %zu of an object does not decode", object->n_records);
                last = record.lsn;
                r = add_record(object, at);
                if (r)
                        return r;
        }
        return 0;
}

int archive_object_open(ArchiveFile *file, const ArchiveEntry *entry, ArchiveObject **ret)
{
        _cleanup_(archive_object_close_p) ArchiveObject *object = calloc(1, sizeof *object);
        int r;

        if (!object)
                return -ENOMEM;
        object->file = file;
        object->entry = *entry;
        r = read_table(object);
        r = r ?: read_records(object);
        r = r ?: list_records(object);
        if (!r)
                *ret = TAKE_PTR(object);
        return r;
}

size_t archive_object_get_count(const ArchiveObject *object)
{
        return object->n_records;
}

void archive_object_get_record(const ArchiveObject *object, size_t index, Record *ret)
{
        size_t at;
        Slice rest;

        dd_assert(index < object->n_records);
        at = object->offsets[index];
        rest = slice_of(object->records + at, object->entry.records_len - at);
        /* It was decoded before. */
        dd_assert(record_decode(&rest, ret) == 0);
}

static int each_page(ArchiveObject *object, const Record *record, Slice pages, uint64_t offset,
        ArchivePageFn fn, void *data)
{
        size_t size = 4 + (size_t)record->page_size;

        if (pages.len % size)
                return bad(object->file, offset, "a chunk of pages ends within a page");
        for (; pages.len; pages = slice_skip(pages, size)) {
                uint32_t number = get_le32(pages.data);
                int r;

                if (!number)
                        return bad(object->file, offset, "a page has no number");
                r = fn(number, (const unsigned char *)pages.data + 4, data);
                if (r)
                        return r;
        }
        return 0;
}

int archive_object_read_past(
        ArchiveObject *object, const Record *record, ArchivePageFn fn, void *data)
{
        _cleanup_(free_p) unsigned char *stored = malloc(longest_chunk(object));
        _cleanup_(free_p) unsigned char *pages = malloc(ARCHIVE_CHUNK_MAX);
        uint64_t offset = object->entry.offset;
        int r = 0;

        if (!stored || !pages)
                return -ENOMEM;
        dd_assert(record->flags & RECORD_SPILL);
        for (uint32_t i = 0; !r && i < object->entry.n_chunks; i++) {
                const ArchiveChunk *chunk = &object->chunks[i];

                if (chunk->kind == CHUNK_PAST && chunk->lsn == record->lsn) {
                        r = read_chunk(object, chunk, offset, stored, pages);
                        r = r
                                    ?: each_page(object, record, slice_of(pages, chunk->len),
                                               offset, fn, data);
                }
                offset += chunk->stored_len;
        }
        return r;
}

static int check_names(ArchiveFile *file)
{
        _cleanup_(free_p) unsigned char *bytes = malloc(PIECE);
        uint64_t size = file->header.samples_offset - file->header.names_offset;
        uint32_t crc = 0;

        if (!bytes)
                return -ENOMEM;
        for (uint64_t done = 0; done < size; done += PIECE) {
                size_t len = MIN(size - done, (uint64_t)PIECE);
                int r = read_at(file, bytes, len, file->header.names_offset + done);

                if (r)
                        return r;
                crc = crc32c(crc, bytes, len);
        }
        return crc == file->header.names_crc
                       ? 0
                       : bad(file, file->header.names_offset, "the names do not check");
}

static int see_page(uint32_t number, const unsigned char *page, void *data)
{
        return 0;
}

static int check_pages(ArchiveObject *object, const Record *record)
{
        Slice rest = record->payload;

        if (record->flags & RECORD_SPILL)
                return archive_object_read_past(object, record, see_page, NULL);
        for (uint32_t i = 0; i < record->n_pages; i++) {
                Page page;

                if (page_decode(&rest, record->page_size, &page))
                        return bad(object->file, object->entry.offset,
                                "page %u of LSN %llu does not decode", i,
                                (unsigned long long)record->lsn);
        }
        return 0;
}

static int check_object(ArchiveFile *file, uint32_t index, unsigned char *key)
{
        _cleanup_(archive_object_close_p) ArchiveObject *object = NULL;
        char name[JOURNAL_NAME_MAX + 1];
        ArchiveEntry entry;
        int r = archive_get_entry(file, index, &entry);

        if (!r && index && compare_keys(entry.key, key) < 0)
                r = bad(file, file->header.index_offset, "entry %u of the index is out of order",
                        index);
        r = r ?: archive_read_name(file, &entry, name);
        r = r ?: archive_object_open(file, &entry, &object);
        for (size_t i = 0; !r && i < object->n_records; i++) {
                Record record;

                archive_object_get_record(object, i, &record);
                r = check_pages(object, &record);
        }
        if (!r)
                memcpy(key, entry.key, ARCHIVE_KEY_SIZE);
        return r;
}

int archive_verify(ArchiveFile *file)
{
        unsigned char key[ARCHIVE_KEY_SIZE] = {};
        uint64_t lsn;
        int r = archive_find_time(file, UINT64_MAX, &lsn);

        if (r == ARCHIVE_E_ABSENT || (!r && lsn != file->header.last_lsn))
                r = bad(file, file->header.samples_offset, "the last sample is not the last LSN");
        r = r ?: check_names(file);
        for (uint32_t i = 0; !r && i < file->header.n_objects; i++)
                r = check_object(file, i, key);
        return r;
}
