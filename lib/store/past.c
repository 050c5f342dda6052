/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/history.h"

#include <errno.h>

/*
 * Where an object's records are: first the live segments of this journal that are not archived yet,
 * then the archive files of all journals of the app, since an object may have lived in another slot
 *
 * Going back ends at a moment, by LSN or by time. Up to there no record may be missing: the files
 * of each journal must follow one another without a gap, and those of this one end where its
 * segments begin.
 */

#define ANY UINT64_MAX
#define LOST (UINT64_MAX - 1)

typedef struct Item {
        char *path; /* of the file */
        ArchiveEntry entry;
} Item;

typedef struct Past {
        Store *store;
        const char *name;
        bool by_time;
        uint64_t until; /* LSN, or nanoseconds since 1970 */
        /* This journal's records from it on have been seen. */
        uint64_t first_seen;
        uint64_t before; /* the last record of this journal up to the moment, once it is reached */
        uint64_t before_epoch; /* the record before the oldest epoch of its segments; 0: none */
        bool is_reached;       /* there is nothing more to see in this journal */
        Item *items;
        size_t n_items, room;
        Undo *undo;
        uint64_t found; /* by time: records up to it were sealed by then, as far as is known */
} Past;

static void past_done(Past *past)
{
        for (size_t i = 0; i < past->n_items; i++)
                free(past->items[i].path);
        free(past->items);
}

static bool reaches(const Past *past, uint64_t follows, uint64_t first_time)
{
        return past->by_time ? first_time <= past->until : follows <= past->until;
}

/* LSN of this journal's record before `lsn`; 0: it began there. */
static uint64_t get_before(const Past *past, uint64_t lsn)
{
        const Journal *journal = &past->store->journal;

        for (unsigned i = journal->n_eras; i > 1; i--)
                if (lsn >= journal->eras[i - 1].first_lsn)
                        return lsn > journal->eras[i - 1].first_lsn
                                       ? lsn - 1
                                       : journal->eras[i - 1].last_before;
        return lsn <= journal->eras[0].first_lsn ? past->before_epoch : lsn - 1;
}

/* By time: the first record of the object that was sealed later bounds what was found. */
static void bound_records(Past *past, const SegmentRecords *records)
{
        for (size_t i = 0; i < records->n; i++) {
                Record record;

                if (records->records[i].time <= past->until)
                        continue;
                segment_get_record(records, i, &record);
                past->found = MIN(past->found, record.lsn - 1);
                return;
        }
}

static int undo_records(Past *past, const SegmentRecords *records)
{
        int r = 0;

        for (size_t i = records->n; !r && i > 0; i--) {
                Record record;

                segment_get_record(records, i - 1, &record);
                r = undo_record(past->undo, &record, segment_read_past, past->store);
        }
        undo_end_part(past->undo);
        return r;
}

static int take_records(Past *past, const SegmentRecords *records)
{
        if (past->undo)
                return undo_records(past, records);
        bound_records(past, records);
        return 0;
}

static bool is_archived(Store *store, uint64_t first_lsn)
{
        _cleanup_(free_p) char *path = NULL;
        uint64_t size;

        path = store->archive_path ? archive_path(store->archive_path, first_lsn) : NULL;
        return path && disk_stat_size(store->disk, path, &size) == 0;
}

/* -EALREADY when this and the older segments are to be found in the archive. */
static int see_segment(Past *past, const LiveSegment *segment, bool is_current)
{
        Store *store = past->store;
        _cleanup_(segment_records_done_p) SegmentRecords records = {};
        uint64_t first;
        int r = is_current ? 0 : segment_read_first(store, segment, &first);

        if (!r && !is_current && is_archived(store, first))
                return -EALREADY;
        r = r == -ENOENT ? 0 : r;
        r = r ?: segment_read(store, segment, past->name, past->first_seen - 1, &records);
        if (!segment_is_live(store, segment))
                return -EALREADY;
        if (r || records.last_lsn < records.first_lsn)
                return r;
        /* There is no gap between segments. */
        if (records.last_lsn != get_before(past, past->first_seen))
                return -EAGAIN;
        r = take_records(past, &records);
        past->first_seen = records.first_lsn;
        past->before = get_before(past, records.first_lsn);
        past->is_reached = reaches(past, past->before, records.first_time);
        return r;
}

static int see_segments(Past *past)
{
        _cleanup_(free_p) LiveSegment *segments = NULL;
        size_t n;
        int r = segment_list(past->store, &segments, &n);

        for (size_t i = 0; !r && i < n && !past->is_reached; i++)
                r = see_segment(past, &segments[i], i == 0);
        return r == -EALREADY ? 0 : r;
}

static int add_item(Past *past, const char *path, const ArchiveEntry *entry)
{
        Item *item;

        if (past->n_items == past->room) {
                size_t room = past->room ? 2 * past->room : 16;
                Item *items = realloc(past->items, room * sizeof *items);

                if (!items)
                        return -ENOMEM;
                past->items = items;
                past->room = room;
        }
        item = &past->items[past->n_items];
        *item = (Item){ strdup(path), *entry };
        past->n_items += item->path != NULL;
        return item->path ? 0 : -ENOMEM;
}

static int say_damaged(Past *past, const char *path, const ArchiveDamage *damage)
{
        store_log(past->store, LOG_ERR,
                "%s is damaged at offset %llu: %s; history cannot be told beyond it", path,
                (unsigned long long)damage->offset, damage->what);
        return STORE_E_PRUNED;
}

/* By time: what the object has in a file of which a part was sealed later. */
static int bound_entry(Past *past, ArchiveFile *file, const ArchiveEntry *entry)
{
        uint64_t by_then;
        int r = archive_find_time(file, past->until, &by_then);

        if (r == ARCHIVE_E_ABSENT)
                by_then = 0;
        else if (r)
                return r;
        if (entry->first_lsn > by_then)
                past->found = MIN(past->found, entry->first_lsn - 1);
        else if (entry->last_lsn > by_then)
                past->found = MIN(past->found, by_then);
        return 0;
}

static int see_object(Past *past, const char *path, ArchiveFile *file)
{
        ArchiveEntry entry;
        int r = archive_find(file, slice_from(past->name), &entry);

        if (r)
                return r == ARCHIVE_E_ABSENT ? 0 : r;
        if (past->by_time)
                return bound_entry(past, file, &entry);
        return entry.last_lsn > past->until ? add_item(past, path, &entry) : 0;
}

/*
 * One file. *follows is the LSN that its last must be, or ANY; then that of the record before its
 * first. -EALREADY when there is no need to go on. A file that begins a journal though there are
 * older ones is of a journal that came in the place of one that was lost.
 */
static int see_file(
        Past *past, const char *folder, uint64_t first_lsn, bool is_oldest, uint64_t *follows)
{
        _cleanup_(free_p) char *path = archive_path(folder, first_lsn);
        _cleanup_(archive_close_p) ArchiveFile *file = NULL;
        ArchiveDamage damage = {};
        const ArchiveHeader *header;
        int r = path ? archive_open(past->store->disk, path, &damage, &file) : -ENOMEM;

        if (!r) {
                header = archive_get_header(file);
                if (*follows != ANY && header->last_lsn != *follows)
                        return STORE_E_PRUNED;
                if (past->by_time ? header->last_time <= past->until
                                  : header->last_lsn <= past->until)
                        return -EALREADY;
                r = see_object(past, path, file);
        }
        if (r == -ENOENT)
                return STORE_E_PRUNED;
        if (r)
                return r == -EBADMSG ? say_damaged(past, path, &damage) : r;
        *follows = header->follows ?: is_oldest ? 0 : LOST;
        if (*follows == LOST && !past->by_time && past->until >= first_lsn - 1)
                *follows = first_lsn - 1;
        return reaches(past, *follows, header->first_time) || *follows == 0 ? -EALREADY : 0;
}

static int see_folder(Past *past, const char *folder, bool is_own)
{
        _cleanup_(free_p) uint64_t *files = NULL;
        uint64_t follows = is_own ? get_before(past, past->first_seen) : ANY;
        size_t n = 0;
        int r = archive_list(past->store->disk, folder, &files, &n);

        while (!r && is_own && n && files[n - 1] >= past->first_seen)
                n--;
        for (size_t i = n; !r && i > 0; i--)
                r = see_file(past, folder, files[i - 1], i == 1, &follows);
        if (is_own)
                past->before = follows;
        if (r)
                return r == -EALREADY ? 0 : r;
        /* What is older is not there any more. Of a journal without files nothing is known. */
        return follows == ANY || follows == 0 ? 0 : STORE_E_PRUNED;
}

/*
 * The newest records up to the moment, where none of their file come after it: to see that they
 * lead to what is there now. Only where no other record can have come in between, from this journal
 * or another. What cannot be read is not checked.
 */
static int see_check(Past *past)
{
        const char *folder = past->store->archive_path;
        _cleanup_(free_p) uint64_t *files = NULL;
        _cleanup_(archive_close_p) ArchiveFile *file = NULL;
        _cleanup_(free_p) char *path = NULL;
        ArchiveDamage damage = {};
        ArchiveEntry entry;
        size_t n = 0, i = 0;

        if (archive_list(past->store->disk, folder, &files, &n))
                return 0;
        while (i < n && files[i] <= past->until)
                i++;
        path = i ? archive_path(folder, files[i - 1]) : NULL;
        if (!path || archive_open(past->store->disk, path, &damage, &file) ||
                (archive_get_header(file)->last_lsn != past->before &&
                        archive_get_header(file)->last_lsn < past->until) ||
                archive_find(file, slice_from(past->name), &entry) || entry.last_lsn > past->until)
                return 0;
        return add_item(past, path, &entry);
}

typedef struct Folders {
        const char *parent;
        char **paths;
        size_t n;
} Folders;

static void folders_done(Folders *folders)
{
        for (size_t i = 0; i < folders->n; i++)
                free(folders->paths[i]);
        free(folders->paths);
}

static int add_folder(const char *name, void *data)
{
        Folders *folders = data;
        char **paths = realloc(folders->paths, (folders->n + 1) * sizeof *paths);

        if (!paths)
                return -ENOMEM;
        folders->paths = paths;
        paths[folders->n] = path_join(folders->parent, name);
        if (!paths[folders->n])
                return -ENOMEM;
        folders->n++;
        return 0;
}

static int compare_items(const void *a, const void *b)
{
        uint64_t x = ((const Item *)a)->entry.last_lsn, y = ((const Item *)b)->entry.last_lsn;

        return x > y ? -1 : x < y;
}

/* The folders of the app's journals lie side by side. */
static int see_archive(Past *past)
{
        const char *own = past->store->archive_path, *slash = own ? strrchr(own, '/') : NULL;
        _cleanup_(free_p) char *parent = NULL;
        _cleanup_(folders_done) Folders folders = {};
        uint64_t size;
        int r = 0;

        if (!past->is_reached)
                r = own ? see_folder(past, own, true) : STORE_E_PRUNED;
        if (r || !slash)
                return r;
        parent = slice_dup(slice_of(own, MAX((size_t)(slash - own), (size_t)1)));
        if (!parent)
                return -ENOMEM;
        folders.parent = parent;
        r = disk_list(past->store->disk, parent, add_folder, &folders);
        r = r == -ENOENT ? 0 : r;
        for (size_t i = 0; !r && i < folders.n; i++)
                if (strcmp(folders.paths[i], own) != 0 &&
                        disk_stat_size(past->store->disk, folders.paths[i], &size) == -EISDIR)
                        r = see_folder(past, folders.paths[i], false);
        if (!r && !past->by_time && folders.n == 1 && past->undo->state == UNDO_BACK)
                r = see_check(past);
        if (past->n_items > 1)
                qsort(past->items, past->n_items, sizeof *past->items, compare_items);
        return r;
}

static int read_past(const Record *record, ArchivePageFn fn, void *fn_data, void *data)
{
        return archive_object_read_past(data, record, fn, fn_data);
}

static int undo_item(Past *past, const Item *item)
{
        _cleanup_(archive_close_p) ArchiveFile *file = NULL;
        _cleanup_(archive_object_close_p) ArchiveObject *object = NULL;
        ArchiveDamage damage = {};
        int r = archive_open(past->store->disk, item->path, &damage, &file);

        r = r ?: archive_object_open(file, &item->entry, &object);
        for (size_t i = r ? 0 : archive_object_get_count(object); !r && i > 0; i--) {
                Record record;

                archive_object_get_record(object, i - 1, &record);
                r = undo_record(past->undo, &record, read_past, object);
        }
        undo_end_part(past->undo);
        if (r == -ENOENT)
                return STORE_E_PRUNED;
        return r == -EBADMSG ? say_damaged(past, item->path, &damage) : r;
}

static int undo_items(Past *past)
{
        int r = 0;

        for (size_t i = 0; !r && i < past->n_items; i++) {
                const Item *item = &past->items[i];

                /* Two journals cannot have had the object at once. */
                if (item->entry.last_lsn >= past->undo->done) {
                        store_log(past->store, LOG_ERR,
                                "%s: %s has commits of the same time as another file of the "
                                "archive",
                                past->name, item->path);
                        return STORE_E_PRUNED;
                }
                r = undo_item(past, item);
        }
        return r;
}

/*
 * A journal that says it is new while there are files of an older one is one that was lost: what it
 * held last is in no file.
 */
static int begin(Past *past)
{
        Store *store = past->store;
        _cleanup_(free_p) uint64_t *files = NULL;
        size_t n = 0;
        int r;

        past->first_seen = atomic_load(&store->flushed) + 1;
        past->before = past->first_seen - 1;
        past->is_reached = !past->by_time && past->before <= past->until;
        if (!store->archive_path)
                return past->is_reached ? 0 : STORE_E_PRUNED;
        past->before_epoch = store->journal.eras[0].last_before;
        if (past->before_epoch)
                return 0;
        r = archive_list(store->disk, store->archive_path, &files, &n);
        if (!r && n && files[0] < store->journal.eras[0].first_lsn)
                past->before_epoch = LOST;
        return r;
}

int history_go_back(Image *image, const char *name, uint64_t lsn)
{
        _cleanup_(undo_done) Undo undo = {};
        _cleanup_(past_done)
                Past past = { .store = image->store, .name = name, .until = lsn, .undo = &undo };
        int r = begin(&past);

        undo_init(&undo, image, name, lsn);
        r = r ?: see_segments(&past);
        r = r ?: see_archive(&past);
        return r ?: undo_items(&past);
}

int history_find_time(
        Store *store, const char *name, uint64_t time, uint64_t present, uint64_t *ret)
{
        _cleanup_(past_done) Past past = {
                .store = store, .name = name, .by_time = true, .until = time, .found = present
        };
        int r = begin(&past);

        r = r ?: see_segments(&past);
        r = r ?: see_archive(&past);
        if (!r)
                *ret = past.found;
        return r;
}
