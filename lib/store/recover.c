/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive.h"
#include "lib/store/late-redo.h"

#include <errno.h>
#include <stdarg.h>

/*
 * Finding the journal's tail
 *
 * One write is in flight at a time, so only the last batch can be torn, and nothing that counts
 * comes after it. A batch that does not check while a later one does is therefore no torn tail but
 * damage. To tell the two apart the search goes on behind a place that does not check, for as long
 * as a batch can be.
 */

/* Segments that must be free, or not there yet, for a journal to go on while it is redone. */
#define LATE_FREE 2u

int found_damage(Found *found, unsigned slot, uint64_t offset, const char *format, ...)
{
        FoundDamage *damage = &found->damage;
        va_list args;

        *damage = (FoundDamage){ .is_there = true, .slot = slot, .offset = offset };
        va_start(args, format);
        vsnprintf(damage->text, sizeof damage->text, format, args);
        va_end(args);
        if (found->cut)
                return -EUCLEAN;
        if (slot == FOUND_NO_SLOT)
                store_log(found->store, LOG_ERR,
                        "the journal %s is damaged: %s; nothing was changed. 'durabled --recover' "
                        "explains what can be done",
                        found->store->journal_path, damage->text);
        else
                store_log(found->store, LOG_ERR,
                        "the journal %s is damaged: segment-%02u at offset %llu: %s; nothing was "
                        "changed. 'durabled --recover' explains what can be done",
                        found->store->journal_path, slot, (unsigned long long)offset, damage->text);
        return -EUCLEAN;
}

char *found_segment_path(const Found *found, unsigned slot)
{
        char *path;

        return asprintf(&path, "%s/segment-%02u", found->store->journal_path, slot) < 0 ? NULL
                                                                                        : path;
}

static int reserve_buffer(Found *found, size_t size)
{
        unsigned char *buffer;

        if (size <= found->buffer_room)
                return 0;
        buffer = realloc(found->buffer, size);
        if (!buffer)
                return -ENOMEM;
        found->buffer = buffer;
        found->buffer_room = size;
        return 0;
}

int found_read(Found *found, const FoundBatch *batch, Slice *ret)
{
        uint32_t len = batch->header.len;
        size_t got;
        int r = reserve_buffer(found, len);

        if (!r && batch->is_copy) {
                memcpy(found->buffer, found->tail + TAIL_HEADER_SIZE, len);
                *ret = slice_of(found->buffer, len);
                return 0;
        }
        r = r ?: disk_read(found->segments[batch->slot], found->buffer, len, batch->offset, &got);
        if (r)
                return r;
        *ret = slice_of(found->buffer, got);
        return got == len && (SABOTAGED(SABOTAGE_CRC) || batch_check(&batch->header, *ret))
                       ? 0
                       : -EBADMSG;
}

int found_read_damaged(Found *found, Slice *ret)
{
        const FoundDamage *damage = &found->damage;
        size_t want = JOURNAL_BATCH_MAX, got = 0;
        int r;

        *ret = (Slice){};
        if (!damage->is_there || damage->slot == FOUND_NO_SLOT || !found->segments[damage->slot])
                return 0;
        for (size_t i = 0; i < found->n_all; i++) {
                const FoundBatch *batch = &found->batches[i];

                if (batch->slot == damage->slot && batch->offset >= damage->offset &&
                        batch->offset - damage->offset < want)
                        want = (size_t)(batch->offset - damage->offset);
        }
        r = reserve_buffer(found, want);
        if (!r && want)
                r = disk_read(
                        found->segments[damage->slot], found->buffer, want, damage->offset, &got);
        if (!r && got > BATCH_HEADER_SIZE)
                *ret = slice_of(found->buffer + BATCH_HEADER_SIZE, got - BATCH_HEADER_SIZE);
        return r;
}

EarlierEpoch found_get_era(const Found *found, unsigned era)
{
        const EpochFile *epoch = &found->epoch;

        if (era < epoch->n_earlier)
                return epoch->earlier[era];
        return (EarlierEpoch){
                .epoch = epoch->epoch,
                .first_lsn = epoch->first_lsn,
                .last_before = epoch->last_before,
                .first_segment = epoch->first_segment,
                .last_batch = UINT64_MAX,
                .flags = epoch->flags,
        };
}

bool found_find_era(const Found *found, const BatchHeader *header, unsigned *ret)
{
        for (unsigned i = 0; i <= found->epoch.n_earlier; i++) {
                EarlierEpoch era = found_get_era(found, i);

                if (era.epoch != header->epoch)
                        continue;
                *ret = i;
                return header->batch <= era.last_batch;
        }
        return false;
}

/* 0: a batch of the epochs is there; -EBADMSG: none. */
static int read_batch(Found *found, unsigned slot, uint64_t offset, FoundBatch *ret)
{
        unsigned char head[BATCH_HEADER_SIZE];
        FoundBatch batch = { .slot = slot, .offset = offset };
        size_t got;
        Slice bytes;
        int r = disk_read(found->segments[slot], head, sizeof head, offset, &got);

        if (r)
                return r;
        r = batch_decode_header(slice_of(head, got), &batch.header);
        if (!r && !found_find_era(found, &batch.header, &batch.era))
                r = -EBADMSG;
        r = r ?: found_read(found, &batch, &bytes);
        if (!r)
                *ret = batch;
        return r;
}

int found_add_batch(Found *found, const FoundBatch *batch)
{
        if (found->n_batches == found->room) {
                size_t room = found->room ? 2 * found->room : 1024;
                FoundBatch *batches = realloc(found->batches, room * sizeof *batches);

                if (!batches)
                        return -ENOMEM;
                found->batches = batches;
                found->room = room;
        }
        found->batches[found->n_batches++] = *batch;
        return 0;
}

static int scan_segment(Found *found, unsigned slot)
{
        uint64_t size, offset = 0, checked = 0;
        int r = disk_get_size(found->segments[slot], &size);

        while (!r && offset + BATCH_HEADER_SIZE <= size &&
                offset - checked <= JOURNAL_BATCH_MAX + DISK_BLOCK) {
                FoundBatch batch;

                r = read_batch(found, slot, offset, &batch);
                if (r == -EBADMSG) {
                        offset += DISK_BLOCK;
                        r = 0;
                        continue;
                }
                r = r ?: found_add_batch(found, &batch);
                if (!r)
                        offset += (batch.header.len + DISK_BLOCK - 1) & ~(DISK_BLOCK - 1);
                checked = offset;
        }
        return r;
}

static int open_segments(Found *found)
{
        Store *store = found->store;

        for (unsigned i = 0; i < ELEMENTSOF(found->segments); i++) {
                _cleanup_(free_p) char *path = found_segment_path(found, i);
                int r;

                if (!path)
                        return -ENOMEM;
                r = disk_open(store->disk, path, DISK_READ_ONLY, &found->segments[i]);
                if (r && r != -ENOENT)
                        return r;
        }
        return 0;
}

void found_done(Found *found)
{
        for (size_t i = 0; i < ELEMENTSOF(found->segments); i++)
                disk_close(found->segments[i]);
        free(found->batches);
        free(found->buffer);
        free(found->tail);
}

static int compare_batches(const void *a, const void *b)
{
        const FoundBatch *x = a, *y = b;

        if (x->era != y->era)
                return x->era < y->era ? -1 : 1;
        return x->header.batch < y->header.batch ? -1 : x->header.batch > y->header.batch;
}

/* Where the batch that ought to follow would begin, for the report. */
static int report_gap(Found *found, const FoundBatch *before, const FoundBatch *after)
{
        uint64_t next =
                before->offset + ((before->header.len + DISK_BLOCK - 1) & ~(DISK_BLOCK - 1));
        bool same = before->slot == after->slot && before->header.segment == after->header.segment;

        bool is_end = before->era != after->era &&
                      before->header.batch == found_get_era(found, before->era).last_batch;
        uint64_t batch = is_end ? 1 : before->header.batch + 1;

        if (is_end && after->era > before->era + 1)
                return found_damage(found, before->slot, next,
                        "none of the batches behind it that the epoch file counts checks");
        if (before->era != after->era && !is_end)
                return found_damage(found, before->slot, next,
                        "batch %llu does not check, though the epoch file counts it",
                        (unsigned long long)batch);
        return found_damage(found, same ? before->slot : after->slot, same ? next : 0,
                "batch %llu does not check, but batch %llu after it (segment-%02u at offset %llu) "
                "does",
                (unsigned long long)batch, (unsigned long long)after->header.batch, after->slot,
                (unsigned long long)after->offset);
}

bool found_follows(const Found *found, const FoundBatch *before, const FoundBatch *batch)
{
        if (before->era == batch->era)
                return batch->header.batch == before->header.batch + 1;
        return batch->era == before->era + 1 && batch->header.batch == 1 &&
               before->header.batch == found_get_era(found, before->era).last_batch;
}

/* What the epoch file counts must be there to its end. */
static int check_end(Found *found)
{
        const FoundBatch *last = found->n_batches ? &found->batches[found->n_batches - 1] : NULL;
        const EpochFile *epoch = &found->epoch;

        if (!epoch->n_earlier || (last && last->era == epoch->n_earlier))
                return 0;
        if (!last)
                return found_damage(found, FOUND_NO_SLOT, 0,
                        "the batches that its epoch file counts are missing");
        if (last->era + 1 == epoch->n_earlier &&
                last->header.batch == epoch->earlier[last->era].last_batch)
                return 0;
        return found_damage(found, last->slot,
                last->offset + ((last->header.len + DISK_BLOCK - 1) & ~(DISK_BLOCK - 1)),
                "batch %llu does not check, though the epoch file counts it",
                (unsigned long long)last->header.batch + 1);
}

/* Leaves those that count: from the low segment on, without a gap. */
static int choose_batches(Found *found)
{
        FoundBatch *batches = found->batches, *last, *first;
        size_t n = 0;
        uint64_t low;

        if (!found->n_batches)
                return check_end(found);
        qsort(batches, found->n_batches, sizeof *batches, compare_batches);
        last = &batches[found->n_batches - 1];
        low = last->header.low;
        found->last_segment = last->header.segment;
        for (size_t i = 0; i < found->n_batches; i++)
                if (batches[i].header.segment >= low)
                        batches[n++] = batches[i];
        found->n_batches = found->n_all = n;
        /* Marks alone have no record. */
        if (last->header.first_lsn + last->header.n_records > found->epoch.first_lsn)
                found->last_lsn = last->header.first_lsn + last->header.n_records - 1;
        first = &batches[0];
        if (first->header.segment != low || first->offset != 0 ||
                (low == found_get_era(found, first->era).first_segment &&
                        first->header.batch != 1)) {
                found->n_batches = 0;
                return found_damage(found, first->slot, 0,
                        "the journal ought to begin with segment %llu, but begins with batch %llu "
                        "of segment %llu at offset %llu",
                        (unsigned long long)low, (unsigned long long)first->header.batch,
                        (unsigned long long)first->header.segment,
                        (unsigned long long)first->offset);
        }
        for (size_t i = 1; i < n; i++)
                if (!found_follows(found, &batches[i - 1], &batches[i])) {
                        found->n_batches = i;
                        return report_gap(found, &batches[i - 1], &batches[i]);
                }
        return check_end(found);
}

static int read_epoch(Found *found)
{
        Store *store = found->store;
        _cleanup_(free_p) char *path = path_join(store->journal_path, "epoch");
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        unsigned char bytes[EPOCH_SIZE_MAX + 1];
        size_t got;
        int r = path ? disk_open(store->disk, path, DISK_READ_ONLY, &file) : -ENOMEM;

        if (r)
                return r == -ENOENT ? 0 : r;
        r = disk_read(file, bytes, sizeof bytes, 0, &got);
        r = r ?: epoch_decode(slice_of(bytes, got), &found->epoch);
        if (r == -EBADMSG)
                return found_damage(found, FOUND_NO_SLOT, 0, "its epoch file does not check");
        found->has_epoch = !r;
        return r;
}

/*
 * The mark that a journal was begun: an empty file in the objects folder, named by the last two
 * parts of the journal's path (app and slot). By it a folder whose file system is not mounted is
 * told from a new one: without, commits that are in the one or the other would be missing without a
 * word.
 */
static char *mark_path(const Store *store)
{
        const char *journal = store->journal_path, *slot = strrchr(journal, '/'), *app = slot;
        char *path;

        while (app && app > journal && app[-1] != '/')
                app--;
        if (asprintf(&path, "%s/.journal-%.*s-%s", store->objects_path, (int)(slot - app), app,
                    slot ? slot + 1 : journal) < 0)
                return NULL;
        return path;
}

static int leave_mark(Store *store)
{
        _cleanup_(free_p) char *path = mark_path(store);
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        int r = path ? disk_open(store->disk, path, DISK_CREATE, &file) : -ENOMEM;

        return r ?: disk_sync_folder(store->disk, store->objects_path);
}

/* Its path, for a report; -ENOENT when there is none. */
static int find_mark(Store *store, char **ret)
{
        _cleanup_(free_p) char *path = mark_path(store);
        uint64_t size;
        int r = path ? disk_stat_size(store->disk, path, &size) : -ENOMEM;

        if (!r)
                *ret = TAKE_PTR(path);
        return r;
}

/* The epochs that batches are of, each up to its last one. */
static void keep_epochs(const Found *found, EpochFile *epoch)
{
        for (size_t i = 0; i < found->n_batches; i++) {
                const FoundBatch *batch = &found->batches[i];

                if (i + 1 < found->n_batches && found->batches[i + 1].era == batch->era)
                        continue;
                dd_assert(epoch->n_earlier < EPOCH_EARLIER_MAX);
                epoch->earlier[epoch->n_earlier] = found_get_era(found, batch->era);
                epoch->earlier[epoch->n_earlier++].last_batch = batch->header.batch;
        }
}

static int write_epoch(DiskFile *file, const EpochFile *epoch)
{
        unsigned char bytes[EPOCH_SIZE_MAX];
        size_t len = epoch_encode(epoch, bytes);
        int r = disk_truncate(file, 0);

        r = r ?: disk_write(file, bytes, len, 0, 0);
        return r ?: disk_sync(file);
}

int found_switch_epoch(Found *found, bool keep, EpochFile *ret)
{
        Store *store = found->store;
        _cleanup_(free_p) char *path = path_join(store->journal_path, "epoch");
        _cleanup_(free_p) char *new_path = path_join(store->journal_path, "epoch.new");
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        EpochFile epoch = {
                .epoch = found->epoch.epoch,
                .generation = found->epoch.generation + 1,
                .first_lsn = MAX(found->last_lsn + 1, found->epoch.first_lsn),
                .last_before = found->last_lsn,
                .first_segment = found->last_segment + 1,
                .segment_size = store->options.segment_size,
                .time = disk_clock_realtime(store->disk),
                .flags = store->archive_path ? EPOCH_UNDO : 0,
        };
        int r;

        if (!path || !new_path)
                return -ENOMEM;
        epoch.first_lsn = MAX(epoch.first_lsn, epoch.time / 1000);
        while (epoch.epoch == found->epoch.epoch || epoch.epoch == 0)
                disk_random(store->disk, &epoch.epoch, sizeof epoch.epoch);
        if (keep)
                keep_epochs(found, &epoch);
        /* Without an epoch file it would say that one has been taken away: the name of the one that
         * was found may be a killed process's and not durable yet. */
        r = found->has_epoch ? disk_sync_folder(store->disk, store->journal_path) : 0;
        if (!r && found->has_epoch)
                r = leave_mark(store);
        r = r ?: disk_open(store->disk, new_path, DISK_CREATE, &file);
        r = r ?: write_epoch(file, &epoch);
        r = r ?: disk_rename(store->disk, new_path, path);
        r = r ?: disk_sync_folder(store->disk, store->journal_path);
        if (!r && !found->has_epoch)
                r = leave_mark(store);
        if (!r)
                *ret = epoch;
        return r;
}

typedef struct Sweep {
        Store *store;
        const List *spills; /* that stay, or NULL */
        char *names[256];
        size_t n;
} Sweep;

/* Those that stay are never met again by a new one. */
static bool stays(Sweep *sweep, const char *name)
{
        if (!sweep->spills || strncmp(name, "spill-", 6) != 0)
                return false;
        list_for_each(link, sweep->spills) {
                const Spill *spill = list_entry(link, Spill, link);
                char own[32];

                snprintf(own, sizeof own, "spill-%016llx", (unsigned long long)spill->file);
                if (strcmp(own, name) != 0)
                        continue;
                sweep->store->last_file = MAX(sweep->store->last_file, spill->file);
                return true;
        }
        return false;
}

static int see_leftover(const char *name, void *data)
{
        Sweep *sweep = data;
        Slice slice = slice_from(name);

        if (!slice_has_prefix(slice, SLICE("spill-")) && !slice_has_prefix(slice, SLICE("tail")) &&
                !slice_has_prefix(slice, SLICE("overflow-")) &&
                !slice_has_prefix(slice, SLICE("restore-")))
                return 0;
        if (stays(sweep, name))
                return 0;
        sweep->names[sweep->n] = path_join(sweep->store->journal_path, name);
        if (!sweep->names[sweep->n])
                return -ENOMEM;
        return ++sweep->n == ELEMENTSOF(sweep->names);
}

/* Spill, overflow, scratch and tail files of the past: nothing names them any more, but for
 * `spills`. */
static int remove_leftovers(Store *store, const List *spills)
{
        int r;

        do {
                Sweep sweep = { .store = store, .spills = spills };
                int removed = 0;

                r = disk_list(store->disk, store->journal_path, see_leftover, &sweep);
                for (size_t i = 0; i < sweep.n; i++) {
                        if (removed == 0)
                                removed = disk_unlink(store->disk, sweep.names[i]);
                        free(sweep.names[i]);
                }
                if (removed)
                        r = removed;
        } while (r == 1);
        return r;
}

/* Without an epoch file there was never a batch; else it has been taken away. */
static int check_fresh(Found *found)
{
        _cleanup_(free_p) char *mark = NULL;
        int r;

        for (unsigned i = 0; i < ELEMENTSOF(found->segments); i++) {
                unsigned char head[BATCH_HEADER_SIZE];
                BatchHeader header;
                size_t got;

                if (!found->segments[i])
                        continue;
                r = disk_read(found->segments[i], head, sizeof head, 0, &got);
                if (r)
                        return r;
                if (batch_decode_header(slice_of(head, got), &header))
                        continue;
                return found_damage(found, FOUND_NO_SLOT, 0,
                        "its epoch file is missing, but segment-%02u holds batches", i);
        }
        r = find_mark(found->store, &mark);
        if (r)
                return r == -ENOENT ? 0 : r;
        return found_damage(found, FOUND_NO_SLOT, 0,
                "it is empty, but %s says that it was begun: is its file system mounted?", mark);
}

/* The mark comes before the first batch, and before the second epoch. */
int found_check_objects(Found *found)
{
        _cleanup_(free_p) char *mark = NULL;
        int r = 0;

        if (found->has_epoch && (found->epoch.generation > 1 || found->n_all))
                r = find_mark(found->store, &mark);
        if (r != -ENOENT)
                return r;
        return found_damage(found, FOUND_NO_SLOT, 0,
                "it belongs to objects that are not in %s: is its file system mounted?",
                found->store->objects_path);
}

static int scan_all(Found *found)
{
        int r = 0;

        for (unsigned i = 0; !r && i < ELEMENTSOF(found->segments); i++)
                if (found->segments[i])
                        r = scan_segment(found, i);
        return r;
}

int found_open(Found *found)
{
        int r = read_epoch(found);

        r = r ?: open_segments(found);
        if (r)
                return r;
        if (!found->has_epoch)
                return check_fresh(found);
        found->last_lsn = found->epoch.last_before;
        found->last_segment = found->epoch.first_segment - 1;
        r = scan_all(found);
        r = r ?: found_take_copy(found);
        return r ?: choose_batches(found);
}

int found_guess(Found *found)
{
        uint64_t newest = 0;
        bool is_open = false;
        int r = 0;

        for (unsigned i = 0; i < ELEMENTSOF(found->segments); i++)
                is_open = is_open || found->segments[i];
        if (!is_open)
                r = open_segments(found);
        for (unsigned i = 0; !r && i < ELEMENTSOF(found->segments); i++) {
                unsigned char head[BATCH_HEADER_SIZE];
                BatchHeader header;
                size_t got;

                if (!found->segments[i])
                        continue;
                r = disk_read(found->segments[i], head, sizeof head, 0, &got);
                if (r || batch_decode_header(slice_of(head, got), &header) || header.time < newest)
                        continue;
                newest = header.time;
                found->epoch.epoch = header.epoch;
        }
        r = r ?: scan_all(found);
        if (r || !found->n_batches)
                return r;
        qsort(found->batches, found->n_batches, sizeof *found->batches, compare_batches);
        found->n_all = TAKE(found->n_batches, 0);
        found->last_lsn = found->batches[found->n_all - 1].header.first_lsn +
                          found->batches[found->n_all - 1].header.n_records - 1;
        found->last_segment = found->batches[found->n_all - 1].header.segment;
        return 0;
}

static bool is_whole(const Found *found, unsigned slot)
{
        uint64_t size;

        return disk_get_size(found->segments[slot], &size) == 0 &&
               size == found->store->options.segment_size;
}

/* A segment of the right size that holds nothing which counts; one is made where there is none. */
static bool get_free_segment(const Found *found, const bool *live)
{
        const StoreOptions *options = &found->store->options;
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        unsigned absent = options->n_segments;

        for (unsigned i = options->n_segments; i-- > 0;) {
                if (!found->segments[i])
                        absent = i;
                else if (!live[i] && is_whole(found, i))
                        return true;
        }
        return absent < options->n_segments &&
               journal_make_segment(found->store, absent, &file) == 0;
}

/*
 * Whether the journal can go on while it is redone: what is written then is of the same kind, and
 * has room.
 */
static bool may_be_late(const Found *found)
{
        const StoreOptions *options = &found->store->options;
        uint64_t flags = found->store->archive_path ? EPOCH_UNDO : 0;
        bool live[ELEMENTSOF(found->segments)] = {};
        unsigned n_live = 0, n_eras = 0;

        if (!options->late_max || !found->n_batches ||
                found->epoch.segment_size != options->segment_size)
                return false;
        for (size_t i = 0; i < found->n_batches; i++) {
                const FoundBatch *batch = &found->batches[i];

                /* One that a killed process had not made to its end may have got shorter. */
                if (batch->slot >= options->n_segments ||
                        (!live[batch->slot] && !is_whole(found, batch->slot)) ||
                        found_get_era(found, batch->era).flags != flags)
                        return false;
                n_eras += !i || batch->era != batch[-1].era;
                n_live += !live[batch->slot];
                live[batch->slot] = true;
        }
        return n_eras <= EPOCH_EARLIER_MAX && n_live + LATE_FREE <= options->n_segments &&
               get_free_segment(found, live);
}

static int redo_all(Store *store, Found *found)
{
        EpochFile epoch;
        int r = redo_run(found);

        r = r ?: archive_found(found);
        r = r ?: found_switch_epoch(found, false, &epoch);
        r = r ?: remove_leftovers(store, NULL);
        r = r ?: journal_open(store, &epoch, NULL);
        if (r || !store->stats.redone_commits)
                return r;
        store_log(store, LOG_INFO,
                "replayed %llu commits of %llu objects from the journal, up to LSN %llu",
                (unsigned long long)store->stats.redone_commits,
                (unsigned long long)store->stats.redone_objects,
                (unsigned long long)found->last_lsn);
        return 0;
}

static void take_spills(Store *store, Redo *redo)
{
        List *link;

        while ((link = list_pop(&redo->spills))) {
                store->stats.spill_bytes += list_entry(link, Spill, link)->size;
                list_append(&store->spills, link);
        }
}

/* -E2BIG: redo_all() it is. */
static int redo_late(Store *store, LateRedo *late)
{
        EpochFile epoch;
        int r = redo_plan(&late->redo);

        r = r ?: found_switch_epoch(&late->found, true, &epoch);
        r = r ?: remove_leftovers(store, &late->redo.spills);
        r = r ?: journal_open(store, &epoch, &late->found);
        if (r)
                return r;
        free(TAKE_PTR(late->found.buffer));
        late->found.buffer_room = 0;
        take_spills(store, &late->redo);
        store->stats.redo_left = late->redo.files.len;
        if (store->stats.redo_left)
                store_log(store, LOG_INFO,
                        "the journal has commits of %zu objects up to LSN %llu: each is replayed "
                        "before it is used",
                        late->redo.files.len, (unsigned long long)late->found.last_lsn);
        return 0;
}

int store_recover(Store *store)
{
        _cleanup_(late_free_p) LateRedo *late = calloc(1, sizeof *late);
        uint64_t started = disk_clock_monotonic(store->disk);
        Found *found;
        int r;

        if (!late)
                return -ENOMEM;
        found = &late->found;
        found->store = store;
        late->started = started;
        redo_init(&late->redo, found);
        r = found_open(found);
        r = r ?: found_check_objects(found);
        r = r ?: found_secure_tail(found);
        if (r)
                return r;
        r = may_be_late(found) ? redo_late(store, late) : -E2BIG;
        if (r == -E2BIG) {
                /* Its locks go first. */
                redo_done(&late->redo);
                redo_init(&late->redo, found);
                r = redo_all(store, found);
        } else if (!r) {
                late_begin(store, TAKE_PTR(late));
        }
        if (r)
                return r;
        archive_begin(store);
        store->stats.redo_ns = disk_clock_monotonic(store->disk) - started;
        return 0;
}
