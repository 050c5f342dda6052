/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store/walk.h"

#include "lib/store/delta.h"

#include <stdlib.h>
#include <string.h>

Content content_of(sqlite3 *db)
{
        sqlite3_int64 size = 0;
        unsigned char *data = sqlite3_serialize(db, "main", &size, 0);
        Content content = { .data = malloc((size_t)size + 1), .size = (size_t)size };

        assert_true(data || !size);
        if (size)
                memcpy(content.data, data, (size_t)size);
        sqlite3_free(data);
        return content;
}

void content_free(Content *content)
{
        free(content->data);
        *content = (Content){};
}

void content_check(const Content *is, const Content *want, uint64_t lsn)
{
        size_t n = MIN(is->size, want->size);

        if (is->size != want->size)
                print_message("LSN %llu: %zu bytes instead of %zu\n", (unsigned long long)lsn,
                        is->size, want->size);
        for (size_t i = 0; i < n; i++) {
                if (is->data[i] == want->data[i])
                        continue;
                print_message("LSN %llu: byte %zu is %02x instead of %02x\n",
                        (unsigned long long)lsn, i, is->data[i], want->data[i]);
                break;
        }
        assert_int_equal(is->size, want->size);
        assert_memory_equal(is->data, want->data, n);
}

void notes_take(Notes *notes, World *world, const char *name, sqlite3 *db)
{
        uint64_t lsn = store_object_lsn(world->store, object_path(name));

        if (!lsn || (notes->n && notes->commits[notes->n - 1].lsn == lsn))
                return;
        assert_true(notes->n < ELEMENTSOF(notes->commits));
        notes->commits[notes->n++] = (Noted){ .lsn = lsn, .content = content_of(db) };
}

void notes_forget(Notes *notes, size_t kept)
{
        while (notes->n > kept)
                content_free(&notes->commits[--notes->n].content);
}

unsigned world_draw(World *world, unsigned limit)
{
        unsigned n;

        disk_random(world->disk, &n, sizeof n);
        return n % limit;
}

void walk_done(Walk *walk)
{
        for (size_t i = 0; i < walk->n; i++)
                free((void *)(uintptr_t)walk->records[i].payload.data);
        free(walk->records);
        *walk = (Walk){};
}

void walk_add(Walk *walk, const Record *record)
{
        Record copy = *record;
        unsigned char *payload = malloc(record->payload.len + 1);

        if (walk->n == walk->room) {
                walk->room = walk->room ? 2 * walk->room : 64;
                walk->records = realloc(walk->records, walk->room * sizeof *walk->records);
                assert_non_null(walk->records);
        }
        memcpy(payload, record->payload.data, record->payload.len);
        copy.payload = slice_of(payload, record->payload.len);
        walk->records[walk->n++] = copy;
}

static uint64_t find_epoch(World *world)
{
        size_t size;
        unsigned char *bytes = memory_disk_find(world->memory, JOURNAL "/epoch", &size);
        EpochFile epoch;

        assert_non_null(bytes);
        assert_int_equal(epoch_decode(slice_of(bytes, size), &epoch), 0);
        return epoch.epoch;
}

static int compare_records(const void *a, const void *b)
{
        const Record *x = a, *y = b;

        return x->lsn < y->lsn ? -1 : x->lsn > y->lsn;
}

/* All records of the epoch in a segment's file, whatever their object. */
static void read_segment(World *world, unsigned slot, uint64_t epoch, Walk *walk)
{
        char path[64];
        unsigned char *bytes;
        size_t size;

        snprintf(path, sizeof path, JOURNAL "/segment-%02u", slot);
        bytes = memory_disk_find(world->memory, path, &size);
        for (size_t at = 0; bytes && at + DISK_BLOCK <= size;) {
                BatchHeader header;
                Slice rest;
                Record record;

                if (batch_decode_header(slice_of(bytes + at, size - at), &header) ||
                        header.epoch != epoch || header.len > size - at ||
                        !batch_check(&header, slice_of(bytes + at, header.len))) {
                        at += DISK_BLOCK;
                        continue;
                }
                rest = slice_of(bytes + at + BATCH_HEADER_SIZE, header.len - BATCH_HEADER_SIZE);
                while (record_decode(&rest, &record) == 0)
                        walk_add(walk, &record);
                at += (header.len + DISK_BLOCK - 1) & ~(size_t)(DISK_BLOCK - 1);
        }
}

void walk_read_journal(World *world, const char *name, Walk *walk)
{
        const char *wanted = object_path(name) + sizeof OBJECTS;
        uint64_t epoch = find_epoch(world);
        Walk all = {};
        bool *is_it;

        for (unsigned i = 0; i < 100; i++)
                read_segment(world, i, epoch, &all);
        if (all.n)
                qsort(all.records, all.n, sizeof *all.records, compare_records);
        is_it = calloc(1 << 16, sizeof *is_it);
        for (size_t i = 0; i < all.n; i++) {
                const Record *record = &all.records[i];

                assert_true(record->object < 1 << 16);
                if (record->type == RECORD_NAME)
                        is_it[record->object] = slice_equal(record->payload, slice_from(wanted));
                else if (is_it[record->object])
                        walk_add(walk, record);
        }
        free(is_it);
        walk_done(&all);
}

void walk_read_spill(World *world, const Record *record, PastFn fn, void *data)
{
        size_t entry = 4 + (size_t)record->page_size, size;
        char path[64];
        unsigned char *bytes;
        SpillRef spill;

        assert_int_equal(spill_decode(record->payload, &spill), 0);
        snprintf(path, sizeof path, JOURNAL "/spill-%016llx", (unsigned long long)spill.file);
        bytes = memory_disk_find(world->memory, path, &size);
        assert_non_null(bytes);
        assert_int_equal(size, spill.size);
        for (size_t at = record->n_pages * entry; at < size; at += entry)
                fn(get_le32(bytes + at), bytes + at + 4, data);
}

typedef struct Back {
        Content *content;
        const Record *record;
} Back;

static unsigned char *page_at(Back *back, uint32_t number)
{
        size_t page_size = back->record->page_size;

        assert_true(number > 0 && (size_t)number * page_size <= back->content->size);
        return back->content->data + (size_t)(number - 1) * page_size;
}

static void take_back_whole(uint32_t number, const unsigned char *page, void *data)
{
        Back *back = data;

        memcpy(page_at(back, number), page, back->record->page_size);
}

/* Grows the content so that pages before and after both fit, with zeros. */
static void make_room(Back *back, size_t pages)
{
        size_t size = pages * back->record->page_size;

        if (size <= back->content->size)
                return;
        back->content->data = realloc(back->content->data, size);
        assert_non_null(back->content->data);
        memset(back->content->data + back->content->size, 0, size - back->content->size);
        back->content->size = size;
}

static void take_back_page(Back *back, const Page *page)
{
        const Record *record = back->record;
        bool is_gone = page->number > record->db_pages;

        if (page->number > record->pages_before)
                return;
        if (is_gone && !page_is_past(page->kind))
                return;
        switch (page->kind) {
        case PAGE_UNDO:
                if (is_gone)
                        memset(page_at(back, page->number), 0, record->page_size);
                __attribute__((fallthrough));
        case PAGE_DELTA:
                assert_int_equal(delta_apply(page->bytes.data, page->bytes.len,
                                         page_at(back, page->number), record->page_size),
                        0);
                break;
        case PAGE_BEFORE:
                memcpy(page_at(back, page->number), page->bytes.data, record->page_size);
                break;
        default:
                break;
        }
}

static void take_back(World *world, Back *back, ReadPastFn read_past)
{
        const Record *record = back->record;
        Slice rest = record->payload;
        Page *pages;

        make_room(back, MAX(record->pages_before, record->db_pages));
        if (record->flags & RECORD_SPILL) {
                read_past(world, record, take_back_whole, back);
        } else {
                pages = calloc((size_t)record->n_pages + 1, sizeof *pages);
                for (uint32_t i = 0; i < record->n_pages; i++)
                        assert_int_equal(page_decode(&rest, record->page_size, &pages[i]), 0);
                for (uint32_t i = record->n_pages; i-- > 0;)
                        take_back_page(back, &pages[i]);
                free(pages);
        }
        back->content->size = (size_t)record->pages_before * record->page_size;
}

void walk_back(World *world, Walk *walk, uint64_t lsn, Content *content, ReadPastFn read_past)
{
        uint64_t void_from = UINT64_MAX;

        while (walk->n && walk->records[walk->n - 1].lsn > lsn) {
                Record *record = &walk->records[--walk->n];
                Back back = { .content = content, .record = record };
                bool is_void = record->type == RECORD_TXN && record->lsn >= void_from;

                if (record->type == RECORD_CANCEL)
                        assert_int_equal(cancel_decode(record->payload, &void_from), 0);
                else if (!is_void && record->type == RECORD_CREATE)
                        walk->is_absent = true;
                else if (!is_void && !(record->flags & RECORD_COPY)) {
                        walk->is_absent = false;
                        take_back(world, &back, read_past);
                }
                if (record->lsn <= void_from)
                        void_from = UINT64_MAX;
                free((void *)(uintptr_t)record->payload.data);
        }
}
