/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/redo.h"

#include "lib/store/crc32c.h"
#include "lib/store/delta.h"

#include <errno.h>

/*
 * Redo: the records of the batches that count, into the database files
 *
 * Two passes over the journal. The first checks every record, learns the names, and which records a
 * CANCEL or a DELETE makes void. The second applies the rest in order to images of pages in memory,
 * which are written when there are too many of them, and at the end. It may be cut at any point and
 * done again: the first record of a page in a segment is a whole page.
 */

#define LOCK_OFFSET 0x40000000u
#define LOCK_LEN 512u
#define IMAGES_MAX (UINT64_C(64) << 20)
/* Several objects may be redone one by one at the same time. */
#define IMAGES_MAX_ONE (UINT64_C(8) << 20)
#define SYNC_ONE_BY_ONE 16u
/* Descriptors at a time; with more files than that all are closed in between. */
#define FILES_MAX 512u
/* Of a record: nothing from here on is applied. */
#define REDO_END 1
/* More than that, and the journal is redone as a whole. */
#define RECORDS_MAX (UINT64_C(4) << 20)
/* What is read of a record before its length is known. */
#define RECORD_FIRST 512u

typedef struct Image {
        MapNode map;
        uint32_t number;
        unsigned char bytes[];
} Image;

/* Objects have many more numbers than a journal has objects. */
typedef struct RedoNumber {
        MapNode map;
        uint32_t number;
        RedoFile *file;
} RedoNumber;

static void free_image(MapNode *map, void *data)
{
        free(CONTAINER_OF(map, Image, map));
}

static void drop_images(Redo *redo, RedoFile *file)
{
        redo->image_bytes -= (uint64_t)file->images.len * file->page_size;
        map_for_each(&file->images, free_image, NULL);
        map_done(&file->images);
        map_init(&file->images);
}

static void free_number(MapNode *map, void *data)
{
        free(CONTAINER_OF(map, RedoNumber, map));
}

void redo_drop_file(Redo *redo, RedoFile *file)
{
        list_unlink(&file->link);
        map_remove(&redo->files, &file->map);
        drop_images(redo, file);
        map_done(&file->images);
        disk_close(file->file);
        free(file->records);
        free(file->path);
        free(file);
}

void redo_init(Redo *redo, Found *found)
{
        *redo = (Redo){ .found = found, .store = found->store, .images_max = IMAGES_MAX };
        map_init(&redo->files);
        map_init(&redo->numbers);
        list_init(&redo->file_list);
        list_init(&redo->spills);
}

void redo_done(Redo *redo)
{
        List *link;

        while ((link = list_first(&redo->file_list)))
                redo_drop_file(redo, list_entry(link, RedoFile, link));
        map_done(&redo->files);
        map_for_each(&redo->numbers, free_number, NULL);
        map_done(&redo->numbers);
        free(redo->voids);
        while ((link = list_pop(&redo->spills)))
                free(list_entry(link, Spill, link));
}

#define BAD(_redo, ...) found_damage((_redo)->found, (_redo)->slot, (_redo)->offset, __VA_ARGS__)

static int get_file(Redo *redo, Slice name, RedoFile **ret)
{
        _cleanup_(free_p) char *path = NULL;
        RedoFile *file;
        MapNode *map;
        int r;

        if (asprintf(&path, "%s/%.*s", redo->store->objects_path, SLICE_FMT(name)) < 0)
                return -ENOMEM;
        map = map_find(&redo->files, slice_from(path));
        if (map) {
                *ret = CONTAINER_OF(map, RedoFile, map);
                return 0;
        }
        file = calloc(1, sizeof *file);
        if (!file)
                return -ENOMEM;
        r = map_insert(&redo->files, &file->map, slice_from(path));
        if (r) {
                free(file);
                return r;
        }
        file->path = TAKE_PTR(path);
        file->is_lost = redo->found->leave && redo->found->leave(file->path, redo->found->data);
        map_init(&file->images);
        list_init(&file->link);
        list_append(&redo->file_list, &file->link);
        redo->n_files++;
        *ret = file;
        return 0;
}

static bool is_safe_name(Slice name)
{
        _cleanup_(free_p) char *path = slice_dup(name);

        return path && path[0] != '/' && strcmp(path, "..") != 0 && strncmp(path, "../", 3) != 0 &&
               !strstr(path, "/../") && !slice_has_suffix(name, SLICE("/.."));
}

static RedoNumber *find_number(const Redo *redo, uint32_t number)
{
        MapNode *map = map_find(&redo->numbers, slice_of(&number, sizeof number));

        return map ? CONTAINER_OF(map, RedoNumber, map) : NULL;
}

/* NULL when it has no name. */
static RedoFile *find_file(const Redo *redo, const Record *record)
{
        RedoNumber *known = find_number(redo, record->object);

        return known ? known->file : NULL;
}

static int learn_name(Redo *redo, const Record *record)
{
        RedoNumber *known = find_number(redo, record->object);
        RedoFile *file;
        int r;

        if (!is_safe_name(record->payload))
                return BAD(redo, "a name leads out of the objects folder");
        r = get_file(redo, record->payload, &file);
        if (r)
                return r;
        if (!known) {
                known = calloc(1, sizeof *known);
                if (!known)
                        return -ENOMEM;
                known->number = record->object;
                r = map_insert(&redo->numbers, &known->map,
                        slice_of(&known->number, sizeof known->number));
                if (r) {
                        free(known);
                        return r;
                }
        }
        known->file = file;
        return 0;
}

static int learn_void(Redo *redo, const Record *record)
{
        VoidRange *voids = realloc(redo->voids, (redo->n_voids + 1) * sizeof *voids);
        VoidRange range = { .object = record->object, .to = record->lsn };

        if (!voids)
                return -ENOMEM;
        redo->voids = voids;
        if (cancel_decode(record->payload, &range.from) || range.from > range.to)
                return BAD(redo, "a CANCEL does not name an earlier record");
        redo->voids[redo->n_voids++] = range;
        return 0;
}

/* The spill file of a record is whole. */
static int check_spill(Redo *redo, const Record *record, DiskFile **ret)
{
        _cleanup_(free_p) char *path = NULL;
        _cleanup_(free_p) unsigned char *chunk = malloc(1 << 20);
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        SpillRef spill;
        uint64_t done = 0;
        uint32_t crc = 0;
        size_t got = 1;
        int r = spill_decode(record->payload, &spill);

        if (r)
                return BAD(redo, "a spill record does not decode");
        path = store_file_path(redo->store, "spill", spill.file);
        if (!path || !chunk)
                return -ENOMEM;
        r = disk_open(redo->store->disk, path, DISK_READ_ONLY, &file);
        if (r == -ENOENT)
                return BAD(redo, "its file %s is missing", path);
        for (; !r && done < spill.size && got; done += got) {
                r = disk_read(file, chunk, MIN(spill.size - done, UINT64_C(1) << 20), done, &got);
                if (!r)
                        crc = crc32c(crc, chunk, got);
        }
        if (r)
                return r;
        /* What follows the record's pages is what was before. */
        if (done != spill.size || crc != spill.crc ||
                spill.size % (4 + (uint64_t)record->page_size) ||
                spill.size / (4 + (uint64_t)record->page_size) < record->n_pages)
                return BAD(redo, "its file %s does not check", path);
        *ret = TAKE_PTR(file);
        return 0;
}

static int check_pages(Redo *redo, const Record *record)
{
        Slice rest = record->payload;
        Page page;

        for (uint32_t i = 0; i < record->n_pages; i++)
                if (page_decode(&rest, record->page_size, &page))
                        return BAD(redo, "page %u of LSN %llu does not decode", i,
                                (unsigned long long)record->lsn);
        return 0;
}

/* A cut leaves out what has this LSN by its place: what the record says may be what is wrong. */
static bool is_beyond(const Redo *redo, uint64_t lsn)
{
        return redo->found->cut_lsn && lsn >= redo->found->cut_lsn;
}

static int note_spill(Redo *redo, const Record *record)
{
        Spill *spill;
        SpillRef ref;

        if (!(record->flags & RECORD_SPILL) || spill_decode(record->payload, &ref))
                return 0;
        spill = calloc(1, sizeof *spill);
        if (!spill)
                return -ENOMEM;
        *spill = (Spill){
                .file = ref.file, .size = ref.size, .segment = redo->batch->header.segment
        };
        list_init(&spill->link);
        list_append(&redo->spills, &spill->link);
        return 0;
}

/* For a late redo. */
static int note_record(Redo *redo, RedoFile *file, const Record *record)
{
        const unsigned char *at = (const unsigned char *)redo->record.data;

        /* What was before is void. */
        if (record->type == RECORD_DELETE)
                file->n_records = 0;
        if (!file->n_records)
                file->first_segment = redo->batch->header.segment;
        if (++redo->n_records > RECORDS_MAX)
                return -E2BIG;
        if (file->n_records == file->room) {
                size_t room = file->room + file->room / 2 + 4;
                RedoRecord *records = realloc(file->records, room * sizeof *records);

                if (!records)
                        return -ENOMEM;
                file->records = records;
                file->room = room;
        }
        file->records[file->n_records++] = (RedoRecord){
                .batch = (uint32_t)(redo->batch - redo->found->batches),
                .block = (uint32_t)((size_t)(at - redo->found->buffer) / RECORD_ALIGN),
                .crc = crc32c(0, redo->record.data, redo->record.len),
        };
        return note_spill(redo, record);
}

static int learn_one(Redo *redo, const Record *record)
{
        _cleanup_(disk_close_p) DiskFile *spill = NULL;
        RedoFile *file;
        int r = 0;

        if (record->lsn != redo->next_lsn)
                return BAD(redo, "LSN %llu where %llu ought to be", (unsigned long long)record->lsn,
                        (unsigned long long)redo->next_lsn);
        if (record->type == RECORD_NAME)
                return learn_name(redo, record);
        file = find_file(redo, record);
        if (!file)
                return BAD(redo, "object %u has no name", record->object);
        if (redo->is_late && record->type != RECORD_CANCEL)
                r = note_record(redo, file, record);
        if (r)
                return r;
        switch (record->type) {
        case RECORD_CREATE:
                file->is_made = true;
                return 0;
        case RECORD_TXN:
                file->is_needed |= !file->is_made;
                return record->flags & RECORD_SPILL ? check_spill(redo, record, &spill)
                                                    : check_pages(redo, record);
        case RECORD_CANCEL:
                return learn_void(redo, record);
        case RECORD_DELETE:
                if (!is_beyond(redo, record->lsn))
                        file->void_before = record->lsn;
                file->is_needed = false;
                file->is_made = true;
                return 0;
        default:
                return 0;
        }
}

static int learn_record(Redo *redo, const Record *record)
{
        int r = learn_one(redo, record);

        redo->next_lsn += r == 0;
        return r;
}

static bool is_void(const Redo *redo, const RedoFile *file, const Record *record)
{
        if (record->lsn < file->void_before)
                return true;
        for (size_t i = 0; i < redo->n_voids && record->type == RECORD_TXN; i++)
                if (redo->voids[i].object == record->object && record->lsn >= redo->voids[i].from &&
                        record->lsn < redo->voids[i].to)
                        return true;
        return false;
}

typedef struct ImageList {
        Image **images;
        size_t n;
} ImageList;

static void list_image(MapNode *map, void *data)
{
        ImageList *list = data;

        list->images[list->n++] = CONTAINER_OF(map, Image, map);
}

static int compare_images(const void *a, const void *b)
{
        uint32_t x = (*(Image *const *)a)->number, y = (*(Image *const *)b)->number;

        return x < y ? -1 : x > y;
}

/* Descriptors only: images stay. */
static void close_files(Redo *redo)
{
        list_for_each(link, &redo->file_list) {
                RedoFile *file = list_entry(link, RedoFile, link);

                file->file = disk_close(file->file);
        }
        redo->n_open = 0;
}

/* A log beside the file is an outsider's, who came while nobody held the lock. The journal is what
 * counts. */
static int remove_foreign_log(Redo *redo, const RedoFile *file)
{
        _cleanup_(free_p) char *path = NULL;
        int r;

        if (asprintf(&path, "%s-wal", file->path) < 0)
                return -ENOMEM;
        r = disk_unlink(redo->store->disk, path);
        if (!r)
                store_log(redo->store, LOG_WARNING,
                        "%s: another program's log, left while the service was down, is removed: "
                        "what it holds is not in the database",
                        path);
        return r == -ENOENT ? 0 : r;
}

static int make_file(Redo *redo, RedoFile *file)
{
        /* A copy: others look for the path meanwhile. */
        _cleanup_(free_p) char *folder =
                slice_dup(slice_of(file->path, (size_t)(strrchr(file->path, '/') - file->path)));
        int r = folder ? store_make_folder(redo->store->disk, folder) : -ENOMEM;

        return r ?: disk_open(redo->store->disk, file->path, DISK_CREATE, &file->file);
}

static bool is_out_of_files(int error)
{
        return error == -EMFILE || error == -ENFILE;
}

static int open_file(Redo *redo, RedoFile *file, bool create)
{
        int r;

        if (file->file)
                return 0;
        if (redo->n_open >= FILES_MAX && !redo->is_late)
                close_files(redo);
        r = disk_open(redo->store->disk, file->path, create ? DISK_CREATE : 0, &file->file);
        if (r == -ENOENT && create)
                r = make_file(redo, file);
        if (r == -ENOENT && redo->found->cut) {
                file->is_lost = true;
                if (redo->found->lost)
                        redo->found->lost(file->path, redo->found->data);
                return r;
        }
        if (r == -ENOENT) {
                store_log(redo->store, LOG_ERR,
                        "%s is missing, but the journal has commits for it: put it back; nothing "
                        "was changed",
                        file->path);
                return -EUCLEAN;
        }
        if (r && !(redo->is_late && is_out_of_files(r)))
                store_log(redo->store, LOG_ERR,
                        "%s cannot be opened, but the journal has commits for it: %s; nothing was "
                        "changed",
                        file->path, strerror(-r));
        if (r)
                return r;
        r = disk_lock(file->file, LOCK_OFFSET, LOCK_LEN);
        if (r == -EAGAIN) {
                store_log(redo->store, LOG_ERR,
                        "%s is locked by another program; the journal must be replayed into it",
                        file->path);
                r = -EBUSY;
        }
        r = r ?: remove_foreign_log(redo, file);
        if (r)
                file->file = disk_close(file->file);
        redo->n_open += r == 0;
        file->was_opened |= r == 0;
        return r;
}

/* In the order of the file: for disks, and because a simulated one must see the same each time. */
static int write_images(Redo *redo, RedoFile *file)
{
        _cleanup_(free_p) Image **images = NULL;
        ImageList list;
        int r = 0;

        if (!file->images.len)
                return 0;
        r = open_file(redo, file, false);
        if (r)
                return r;
        images = malloc(file->images.len * sizeof(Image *));
        if (!images)
                return -ENOMEM;
        list = (ImageList){ .images = images };
        map_for_each(&file->images, list_image, &list);
        qsort(images, list.n, sizeof(Image *), compare_images);
        for (size_t i = 0; !r && i < list.n; i++) {
                r = disk_write(file->file, images[i]->bytes, file->page_size,
                        (uint64_t)(images[i]->number - 1) * file->page_size, 0);
                redo->n_pages += r == 0;
        }
        if (!r)
                drop_images(redo, file);
        return r;
}

static int write_all_images(Redo *redo)
{
        int r = 0;

        if (redo->only)
                return write_images(redo, redo->only);
        list_for_each(link, &redo->file_list) {
                r = write_images(redo, list_entry(link, RedoFile, link));
                if (r)
                        break;
        }
        return r;
}

/* The image of a page; a new one holds what the file has where `is_base` asks for it, else zeros.
 */
static int get_image(Redo *redo, RedoFile *file, uint32_t number, bool is_base, Image **ret)
{
        MapNode *map = map_find(&file->images, slice_of(&number, sizeof number));
        Image *image;
        size_t got = 0;
        int r = 0;

        if (map) {
                *ret = CONTAINER_OF(map, Image, map);
                return 0;
        }
        image = calloc(1, sizeof *image + file->page_size);
        if (!image)
                return -ENOMEM;
        image->number = number;
        if (is_base)
                r = open_file(redo, file, false);
        if (!r && is_base)
                r = disk_read(file->file, image->bytes, file->page_size,
                        (uint64_t)(number - 1) * file->page_size, &got);
        r = r
                    ?: map_insert(&file->images, &image->map,
                               slice_of(&image->number, sizeof image->number));
        if (r) {
                free(image);
                return r;
        }
        redo->image_bytes += file->page_size;
        *ret = image;
        return 0;
}

static int apply_page(Redo *redo, RedoFile *file, const Page *page)
{
        Image *image;
        int r;

        if (page_is_past(page->kind))
                return 0;
        r = get_image(redo, file, page->number, page->kind == PAGE_DELTA, &image);
        if (r)
                return r;
        if (page->kind == PAGE_RAW) {
                memcpy(image->bytes, page->bytes.data, file->page_size);
                return 0;
        }
        if (page->kind == PAGE_ZERO)
                memset(image->bytes, 0, file->page_size);
        if (delta_apply(page->bytes.data, page->bytes.len, image->bytes, file->page_size))
                return BAD(redo, "the delta of page %u does not apply", page->number);
        return 0;
}

static int apply_spill(Redo *redo, RedoFile *file, const Record *record)
{
        _cleanup_(disk_close_p) DiskFile *spill = NULL;
        size_t size = 4 + (size_t)record->page_size, got;
        _cleanup_(free_p) char *entry = malloc(size);
        int r = check_spill(redo, record, &spill);

        if (!entry)
                r = -ENOMEM;
        dd_assert(r || spill);
        for (uint32_t i = 0; !r && i < record->n_pages; i++) {
                Page page = { .kind = PAGE_RAW };

                r = disk_read(spill, entry, size, (uint64_t)i * size, &got);
                if (!r && got < size)
                        r = -EIO;
                if (r)
                        break;
                page.number = get_le32(entry);
                page.bytes = slice_of(entry + 4, record->page_size);
                r = page.number ? apply_page(redo, file, &page)
                                : BAD(redo, "a spill file has no page number");
                if (!r && redo->image_bytes > redo->images_max)
                        r = write_all_images(redo);
        }
        return r;
}

static int apply_txn(Redo *redo, RedoFile *file, const Record *record)
{
        Slice rest = record->payload;
        int r = file->was_opened ? 0 : open_file(redo, file, false);

        if (r)
                return r;
        if (file->page_size && file->page_size != record->page_size) {
                r = write_images(redo, file);
                if (r)
                        return r;
        }
        file->page_size = record->page_size;
        file->db_pages = record->db_pages;
        file->is_touched = true;
        if (record->flags & RECORD_SPILL)
                r = apply_spill(redo, file, record);
        for (uint32_t i = 0; !r && !(record->flags & RECORD_SPILL) && i < record->n_pages; i++) {
                Page page;

                r = page_decode(&rest, record->page_size, &page);
                r = r ?: apply_page(redo, file, &page);
        }
        redo->n_commits += !(record->flags & RECORD_COPY);
        return r;
}

static int apply_create(Redo *redo, RedoFile *file)
{
        int r = open_file(redo, file, true);

        drop_images(redo, file);
        file->page_size = file->db_pages = 0;
        file->is_touched = true;
        file->is_deleted = false;
        return r ?: disk_truncate(file->file, 0);
}

static int apply_delete(Redo *redo, RedoFile *file)
{
        drop_images(redo, file);
        file->db_pages = 0;
        file->is_deleted = true;
        return 0;
}

static int apply_record(Redo *redo, const Record *record)
{
        RedoFile *file;
        int r;

        if (is_beyond(redo, redo->apply_lsn++))
                return REDO_END;
        if (record->type == RECORD_NAME)
                return learn_name(redo, record);
        file = find_file(redo, record);
        if (!file)
                return BAD(redo, "object %u has no name", record->object);
        if (is_void(redo, file, record) || file->is_lost)
                return 0;
        switch (record->type) {
        case RECORD_CREATE:
                return apply_create(redo, file);
        case RECORD_TXN:
                r = apply_txn(redo, file, record);
                return file->is_lost ? 0 : r;
        case RECORD_DELETE:
                return apply_delete(redo, file);
        default:
                return 0;
        }
}

typedef int (*RecordFn)(Redo *redo, const Record *record);

static int walk_batch(Redo *redo, const FoundBatch *batch, RecordFn fn)
{
        Slice bytes, rest;
        Record record;
        uint32_t n = 0;
        int r = found_read(redo->found, batch, &bytes);

        redo->slot = batch->slot;
        redo->offset = batch->offset;
        redo->batch = batch;
        if (r)
                return r == -EBADMSG ? BAD(redo, "the batch has changed while it was read") : r;
        /* Epochs may have a gap between their numbers. */
        if (batch->era != redo->era && fn == learn_record &&
                batch->header.first_lsn < redo->next_lsn)
                return BAD(redo, "its epoch begins with LSN %llu, which is not new",
                        (unsigned long long)batch->header.first_lsn);
        if (batch->era != redo->era)
                redo->next_lsn = redo->apply_lsn = batch->header.first_lsn;
        redo->era = batch->era;
        rest = slice_skip(bytes, BATCH_HEADER_SIZE);
        for (;;) {
                Slice before = rest;

                r = record_decode(&rest, &record);
                if (r)
                        break;
                n++;
                redo->record = slice_head(before, before.len - rest.len);
                r = fn(redo, &record);
                if (r)
                        return r;
        }
        /* A cut may be here, between the last record that decodes and what comes then. */
        if (fn == apply_record && is_beyond(redo, redo->apply_lsn))
                return REDO_END;
        if (r != -ENODATA || n != batch->header.n_records)
                return BAD(redo, "record %u of batch %llu does not decode", n,
                        (unsigned long long)batch->header.batch);
        redo->n_bytes += batch->header.len;
        return redo->image_bytes > redo->images_max ? write_all_images(redo) : 0;
}

/* Up to the last record that checks. */
static int learn_all(Redo *redo)
{
        Found *found = redo->found;
        int r = 0;

        if (!found->n_batches && found->n_all)
                redo->next_lsn = found->batches[0].header.first_lsn;
        for (size_t i = 0; !r && i < found->n_batches; i++)
                r = walk_batch(redo, &found->batches[i], learn_record);
        if (r == -EUCLEAN && found->cut && found->damage.is_there) {
                if (!found->cut_lsn || found->cut_lsn > redo->next_lsn)
                        found->cut_lsn = redo->next_lsn;
                return 0;
        }
        if (!r && found->damage.is_there && !found->cut_lsn)
                found->cut_lsn = redo->next_lsn;
        return r;
}

/* Cuts to size, or removes. */
static int finish_file(Redo *redo, RedoFile *file)
{
        int r;

        if (file->is_deleted) {
                r = disk_unlink(redo->store->disk, file->path);
                return r == -ENOENT ? 0 : r;
        }
        if (!file->is_touched || file->is_lost)
                return 0;
        redo->n_objects++;
        r = open_file(redo, file, false);
        r = r ?: write_images(redo, file);
        if (!r && file->db_pages)
                r = disk_truncate(file->file, (uint64_t)file->db_pages * file->page_size);
        return r;
}

/* Invariant 5: all of it is durable before the epoch is switched. */
static int sync_files(Redo *redo)
{
        Disk *disk = redo->store->disk;
        int r = 0;

        if (SABOTAGED(SABOTAGE_REDO_SYNC) || !redo->n_files)
                return 0;
        if (redo->n_files > SYNC_ONE_BY_ONE)
                return disk_sync_all(disk, redo->store->objects_path);
        list_for_each(link, &redo->file_list) {
                RedoFile *file = list_entry(link, RedoFile, link);

                if (file->file && !file->is_deleted)
                        r = disk_sync(file->file);
                r = r ?: store_sync_name(redo->store, file->path);
                /* Of a deleted object the folder may never have been there. */
                if (r == -ENOENT)
                        r = 0;
                if (r)
                        break;
        }
        return r;
}

static void begin(Redo *redo)
{
        const Found *found = redo->found;

        if (!found->n_batches)
                return;
        redo->next_lsn = redo->apply_lsn = found->batches[0].header.first_lsn;
        redo->era = found->batches[0].era;
}

static void note_last(Redo *redo)
{
        Found *found = redo->found;

        if (redo->next_lsn > found->epoch.first_lsn)
                found->last_lsn = MAX(found->last_lsn, redo->next_lsn - 1);
}

static void add_stats(const Redo *redo)
{
        Store *store = redo->store;
        StoreStats *stats = &store->stats;

        store_lock(store);
        stats->redone_commits += redo->n_commits;
        stats->redone_pages += redo->n_pages;
        stats->redone_objects += redo->n_objects;
        stats->redo_bytes += redo->n_bytes;
        store_unlock(store);
}

int redo_run(Found *found)
{
        _cleanup_(redo_done) Redo redo;
        int r;

        redo_init(&redo, found);
        begin(&redo);
        r = learn_all(&redo);
        begin(&redo);
        /* Numbers are names within the pass: an object has one from its first NAME on. */
        for (size_t i = 0; !r && i < found->n_batches; i++)
                r = walk_batch(&redo, &found->batches[i], apply_record);
        if (r == REDO_END)
                r = 0;
        list_for_each(link, &redo.file_list) {
                r = r ?: finish_file(&redo, list_entry(link, RedoFile, link));
        }
        r = r ?: sync_files(&redo);
        note_last(&redo);
        add_stats(&redo);
        return r;
}

/* Late */

/* Takes its lock, and sees that it is there. */
static int hold_file(Redo *redo, RedoFile *file)
{
        uint64_t size;
        int r = file->is_needed ? 0 : disk_stat_size(redo->store->disk, file->path, &size);

        if (r)
                return r == -ENOENT ? 0 : r;
        r = open_file(redo, file, false);
        return is_out_of_files(r) ? -E2BIG : r;
}

int redo_plan(Redo *redo)
{
        int r;

        redo->is_late = true;
        begin(redo);
        r = learn_all(redo);
        list_for_each_safe(link, &redo->file_list) {
                RedoFile *file = list_entry(link, RedoFile, link);

                if (r)
                        break;
                if (!file->n_records) {
                        redo_drop_file(redo, file);
                        continue;
                }
                r = redo->n_files <= redo->store->options.late_max ? hold_file(redo, file) : -E2BIG;
        }
        note_last(redo);
        if (!r)
                add_stats(redo);
        redo->n_bytes = 0;
        return r;
}

/* The bytes of a record, malloc'd. */
static int read_record(const Found *found, const RedoRecord *at, Slice *ret)
{
        const FoundBatch *batch = &found->batches[at->batch];
        uint64_t within = (uint64_t)at->block * RECORD_ALIGN;
        size_t room = MIN(batch->header.len - within, (uint64_t)RECORD_FIRST), got;
        char *bytes = malloc(room);
        DiskFile *segment = found->segments[batch->slot];
        uint32_t len;
        int r = bytes ? disk_read(segment, bytes, room, batch->offset + within, &got) : -ENOMEM;

        if (!r && got < RECORD_HEADER_SIZE)
                r = -EBADMSG;
        len = r ? 0 : get_le32(bytes + 4);
        if (!r && (len < RECORD_HEADER_SIZE || len > batch->header.len - within))
                r = -EBADMSG;
        if (!r && len > got) {
                char *more = realloc(bytes, len);

                bytes = more ?: bytes;
                r = more ? disk_read(segment, bytes, len, batch->offset + within, &got) : -ENOMEM;
        }
        if (!r && (got < len || crc32c(0, bytes, len) != at->crc))
                r = -EBADMSG;
        if (r) {
                free(bytes);
                return r;
        }
        *ret = slice_of(bytes, len);
        return 0;
}

static int apply_noted(Redo *redo, const Redo *plan, RedoFile *file, const RedoRecord *at)
{
        Slice bytes, rest;
        Record record;
        int r = read_record(plan->found, at, &bytes);

        redo->slot = plan->found->batches[at->batch].slot;
        redo->offset = plan->found->batches[at->batch].offset;
        if (r)
                return r == -EBADMSG ? BAD(redo, "the batch has changed while it was read") : r;
        rest = bytes;
        r = record_decode(&rest, &record);
        if (r)
                r = BAD(redo, "a record does not decode");
        else if (is_void(redo, file, &record))
                r = 0;
        else if (record.type == RECORD_CREATE)
                r = apply_create(redo, file);
        else if (record.type == RECORD_TXN)
                r = apply_txn(redo, file, &record);
        else if (record.type == RECORD_DELETE)
                r = apply_delete(redo, file);
        free((void *)(uintptr_t)bytes.data);
        return r ?: redo->image_bytes > redo->images_max ? write_images(redo, file) : 0;
}

int redo_one(const Redo *plan, RedoFile *file)
{
        Found found = { .store = plan->store, .cut = true };
        Redo redo;
        int r = 0;

        redo_init(&redo, &found);
        redo.only = file;
        redo.images_max = IMAGES_MAX_ONE;
        redo.voids = plan->voids;
        redo.n_voids = plan->n_voids;
        /* It may be the second try. */
        file->page_size = file->db_pages = 0;
        file->is_deleted = file->is_touched = file->is_lost = false;
        for (size_t i = 0; !r && i < file->n_records; i++)
                r = apply_noted(&redo, plan, file, &file->records[i]);
        r = r ?: finish_file(&redo, file);
        if (r)
                drop_images(&redo, file);
        if (r == -EUCLEAN)
                store_complain(plan->store, file->path,
                        "cannot be redone: segment-%02u at offset %llu: %s", found.damage.slot,
                        (unsigned long long)found.damage.offset, found.damage.text);
        if (!r)
                add_stats(&redo);
        redo.voids = NULL;
        redo_done(&redo);
        return r;
}
