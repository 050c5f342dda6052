/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive.h"

#include "lib/store/archive-read.h"
#include "lib/store/recover.h"

#include <errno.h>

/*
 * When segments are archived, and when archive files go
 *
 * A segment is written by the background as soon as it is not the current one and all of it is
 * durable, so that a retire need not wait; what recovery finds without a file it writes before the
 * epoch is switched. A disk without room stops that: in the background the journal fills meanwhile
 * and nothing is lost; recovery goes on with a gap.
 */

#define SUFFIX_NEW ".new"

typedef struct Kept {
        uint64_t first_lsn, size;
} Kept;

/* For so long a segment that the disk does not give back is tried again. */
#define UNREADABLE_NS (10 * UINT64_C(1000000000))

struct Archive {
        ArchiveWriter *writer; /* of segment next_segment */
        DiskFile *segment;
        uint64_t started;
        uint64_t next_segment;     /* the oldest that has no file; from archive_begin() on */
        uint64_t last_lsn;         /* of the one at hand */
        uint64_t unreadable_since; /* 0: it can be read */
        Kept *kept;                /* files, the oldest first */
        size_t n_kept, room;
        uint64_t bytes;
        uint64_t due; /* when the oldest is too old; 0: not known */
        bool has_failed, failure_logged, prune_logged;
};

void archive_done(Store *store)
{
        Archive *archive = store->archive;

        if (!archive)
                return;
        archive_writer_free(archive->writer);
        disk_close(archive->segment);
        free(archive->kept);
        free(archive);
        store->archive = NULL;
}

static void count_kept(Store *store)
{
        Archive *archive = store->archive;

        store_lock(store);
        store->stats.archive_files = archive->n_kept;
        store->stats.archive_bytes = archive->bytes;
        store_unlock(store);
}

/* A file that takes the place of one with the same name was there before. */
static Kept *find_kept(Archive *archive, uint64_t first_lsn)
{
        size_t n = archive->n_kept;

        while (n && archive->kept[n - 1].first_lsn > first_lsn)
                n--;
        return n && archive->kept[n - 1].first_lsn == first_lsn ? &archive->kept[n - 1] : NULL;
}

static int keep(Archive *archive, uint64_t first_lsn, uint64_t size)
{
        Kept *known = find_kept(archive, first_lsn);
        size_t at = archive->n_kept;

        if (known) {
                archive->bytes += size - known->size;
                known->size = size;
                return 0;
        }
        if (archive->n_kept == archive->room) {
                size_t room = MAX(2 * archive->room, (size_t)64);
                Kept *kept = realloc(archive->kept, room * sizeof *kept);

                if (!kept)
                        return -ENOMEM;
                archive->kept = kept;
                archive->room = room;
        }
        dd_assert(archive->kept);
        /* One that was pruned while its segment could not go yet is the oldest again. */
        while (at && archive->kept[at - 1].first_lsn > first_lsn)
                at--;
        memmove(archive->kept + at + 1, archive->kept + at,
                (archive->n_kept - at) * sizeof *archive->kept);
        archive->kept[at] = (Kept){ first_lsn, size };
        archive->n_kept++;
        archive->due = at ? archive->due : 0;
        archive->bytes += size;
        return 0;
}

static int see_new(const char *name, void *data)
{
        char **ret = data;

        if (!slice_has_suffix(slice_from(name), SLICE(ARCHIVE_SUFFIX SUFFIX_NEW)))
                return 0;
        *ret = strdup(name);
        return *ret ? 1 : -ENOMEM;
}

/* What a cut left of a file that was being written. */
static int remove_new(Store *store)
{
        int r;

        do {
                _cleanup_(free_p) char *name = NULL, *path = NULL;
                int removed;

                r = disk_list(store->disk, store->archive_path, see_new, &name);
                if (r <= 0)
                        return r;
                path = path_join(store->archive_path, name);
                removed = path ? disk_unlink(store->disk, path) : -ENOMEM;
                if (removed)
                        r = removed;
        } while (r == 1);
        return r;
}

/* When a file is too old; false when it cannot be read. */
static bool read_due(Store *store, const char *folder, uint64_t first_lsn, uint64_t *ret)
{
        _cleanup_(free_p) char *path = archive_path(folder, first_lsn);
        _cleanup_(archive_close_p) ArchiveFile *file = NULL;
        ArchiveDamage damage;

        if (!path || archive_open(store->disk, path, &damage, &file))
                return false;
        *ret = archive_get_header(file)->last_time +
               store->options.archive_days * UINT64_C(86400) * 1000000000;
        return true;
}

static void prune_folder(Store *store, const char *folder)
{
        _cleanup_(free_p) uint64_t *lsns = NULL;
        uint64_t now = disk_clock_realtime(store->disk), due;
        size_t n = 0;

        if (archive_list(store->disk, folder, &lsns, &n))
                return;
        for (size_t i = 0; i < n; i++) {
                _cleanup_(free_p) char *path = NULL;

                if (!read_due(store, folder, lsns[i], &due) || due > now)
                        return;
                path = archive_path(folder, lsns[i]);
                if (!path || disk_unlink(store->disk, path))
                        return;
        }
}

typedef struct Siblings {
        const char *own;
        char *names[128];
        size_t n;
} Siblings;

static int see_sibling(const char *name, void *data)
{
        Siblings *siblings = data;

        if (strcmp(name, siblings->own) == 0 || siblings->n == ELEMENTSOF(siblings->names))
                return 0;
        siblings->names[siblings->n] = strdup(name);
        siblings->n += siblings->names[siblings->n] != NULL;
        return 0;
}

/* A slot that no worker has any more leaves its archive: what is too old there goes at the start of
 * the others. Errors are of no account, the next start comes by again. */
static void prune_siblings(Store *store)
{
        const char *slash = strrchr(store->archive_path, '/');
        _cleanup_(free_p) char *parent = NULL;
        Siblings siblings = {};

        if (!slash || slash == store->archive_path)
                return;
        siblings.own = slash + 1;
        parent = slice_dup(slice_of(store->archive_path, (size_t)(slash - store->archive_path)));
        if (parent)
                disk_list(store->disk, parent, see_sibling, &siblings);
        for (size_t i = 0; i < siblings.n; i++) {
                _cleanup_(free_p) char *name = siblings.names[i];
                _cleanup_(free_p) char *folder = path_join(parent, name);

                if (folder)
                        prune_folder(store, folder);
        }
}

int archive_open_folder(Store *store)
{
        _cleanup_(free_p) uint64_t *lsns = NULL;
        Archive *archive;
        size_t n;
        int r;

        if (!store->archive_path)
                return 0;
        archive = store->archive = calloc(1, sizeof *archive);
        if (!archive)
                return -ENOMEM;
        r = store_make_folder(store->disk, store->archive_path);
        r = r ?: remove_new(store);
        r = r ?: archive_list(store->disk, store->archive_path, &lsns, &n);
        for (size_t i = 0; !r && i < n; i++) {
                _cleanup_(free_p) char *path = archive_path(store->archive_path, lsns[i]);
                uint64_t size;

                r = path ? disk_stat_size(store->disk, path, &size) : -ENOMEM;
                /* Another slot's start has pruned it meanwhile. */
                if (r == -ENOENT)
                        r = 0;
                else
                        r = r ?: keep(archive, lsns[i], size);
        }
        if (r)
                return r;
        count_kept(store);
        prune_siblings(store);
        return 0;
}

static void count_archived(Store *store, uint64_t started)
{
        uint64_t ns = disk_clock_monotonic(store->disk) - started;

        count_kept(store);
        store_lock(store);
        store->stats.archived_segments++;
        store->stats.archive_ns += ns;
        store_unlock(store);
}

/* What is done is in the list; or there was nothing. */
static int keep_written(Store *store, const ArchiveWriter *writer, uint64_t started)
{
        const ArchiveHeader *header = archive_writer_get_header(writer);
        int r = header->size ? keep(store->archive, header->first_lsn, header->size) : 0;

        if (!r && header->size)
                count_archived(store, started);
        return r;
}

/* Recovery */

/* The file of these records is there, and whole: one with its name was synced before, though not
 * the name, if who gave it was killed then. */
static bool is_archived(Store *store, const ArchiveSource *source, uint64_t first_lsn)
{
        _cleanup_(free_p) char *path = archive_path(store->archive_path, first_lsn);
        _cleanup_(archive_close_p) ArchiveFile *file = NULL;
        ArchiveDamage damage;

        if (!path || archive_open(store->disk, path, &damage, &file))
                return false;
        return archive_get_header(file)->epoch == source->epoch &&
               archive_get_header(file)->segment == source->number &&
               archive_get_header(file)->last_lsn == source->last_lsn;
}

static int archive_source(Store *store, const ArchiveSource *source)
{
        _cleanup_(archive_writer_free_p) ArchiveWriter *writer = NULL;
        uint64_t started = disk_clock_monotonic(store->disk);
        int r = archive_writer_new(source, &writer);

        if (r)
                return r;
        do
                r = archive_writer_step(writer);
        while (r > 0);
        return r ?: keep_written(store, writer, started);
}

static bool is_full(int error)
{
        return error == -ENOSPC || error == -EDQUOT || error == -EFBIG;
}

/* Batches first..last are one segment's. */
static int archive_segment(Found *found, size_t first, size_t last)
{
        Store *store = found->store;
        const FoundBatch *end = &found->batches[last];
        EarlierEpoch era = found_get_era(found, end->era);
        ArchiveSource source = {
                .store = store,
                .segment = found->segments[end->slot],
                .number = end->header.segment,
                .epoch = era.epoch,
                .epoch_first_lsn = era.first_lsn,
                .last_before = era.last_before,
                .end = end->offset + end->header.len,
                .limit_lsn = found->cut_lsn ?: UINT64_MAX,
        };
        uint64_t first_lsn = 0;
        int r;

        if (!(era.flags & EPOCH_UNDO))
                return 0;

        for (size_t i = first; i <= last; i++) {
                const BatchHeader *header = &found->batches[i].header;

                if (!header->n_records)
                        continue;
                if (!first_lsn)
                        first_lsn = header->first_lsn;
                source.last_lsn = header->first_lsn + header->n_records - 1;
        }
        if (source.last_lsn >= source.limit_lsn)
                source.last_lsn = source.limit_lsn - 1;
        if (!first_lsn || first_lsn >= source.limit_lsn)
                return 0;
        if (!is_archived(store, &source, first_lsn))
                r = archive_source(store, &source);
        else
                r = disk_sync_folder(store->disk, store->archive_path);
        if (is_full(r))
                store_log(store, LOG_ERR,
                        "segment %llu of the journal cannot be archived: %s; objects cannot be "
                        "restored to moments before LSN %llu",
                        (unsigned long long)source.number, strerror(-r),
                        (unsigned long long)source.last_lsn);
        return is_full(r) || r == -EBADMSG ? 0 : r;
}

int archive_found(Found *found)
{
        Store *store = found->store;
        size_t first = 0;
        int r = 0;

        if (!store->archive || SABOTAGED(SABOTAGE_ARCHIVE) || !found->n_batches)
                return 0;
        if (!(found_get_era(found, found->batches[found->n_batches - 1].era).flags & EPOCH_UNDO)) {
                store_log(store, LOG_NOTICE,
                        "the journal was written without an archive: objects cannot be restored to "
                        "moments before now");
                return 0;
        }
        for (size_t i = 0; !r && i < found->n_batches; i++) {
                if (i + 1 < found->n_batches &&
                        found->batches[i + 1].header.segment == found->batches[i].header.segment)
                        continue;
                r = archive_segment(found, first, i);
                first = i + 1;
        }
        return r;
}

/* The background */

void archive_begin(Store *store)
{
        if (store->archive)
                store->archive->next_segment = store->journal.low;
}

uint64_t archive_get_low(Store *store)
{
        return store->archive && !SABOTAGED(SABOTAGE_ARCHIVE) ? store->archive->next_segment
                                                              : UINT64_MAX;
}

/* The store's mutex is held. */
static bool is_durable(const Journal *journal, uint64_t segment)
{
        if (journal->filling && journal->filling->segment == segment)
                return false;
        if (journal->in_flight && journal->in_flight->segment == segment)
                return false;
        list_for_each(link, &journal->ready) {
                if (list_entry(link, Batch, link)->segment == segment)
                        return false;
        }
        return true;
}

static void describe_source(
        const Journal *journal, const Segment *segment, ArchiveSource *source, uint64_t *ret_first)
{
        const EarlierEpoch *era = &journal->eras[segment->era];

        source->number = segment->number;
        source->epoch = era->epoch;
        source->epoch_first_lsn = era->first_lsn;
        source->last_before = era->last_before;
        source->last_lsn = segment->last_lsn;
        source->end = segment->end;
        *ret_first = segment->first_lsn;
}

/* The segment that is next and all durable; its slot, or -1. One without records needs no file.
 * *ret_first: its first LSN, where it may have a file already. */
static int find_segment(Store *store, ArchiveSource *source, uint64_t *ret_first)
{
        Archive *archive = store->archive;
        Journal *journal = &store->journal;
        int slot = -1;

        store_lock(store);
        while (slot < 0 && archive->next_segment < journal_get_own(journal) &&
                is_durable(journal, archive->next_segment)) {
                for (unsigned i = 0; i < journal->n_segments; i++) {
                        const Segment *segment = &journal->segments[i];

                        if (segment->state != SEGMENT_LIVE ||
                                segment->number != archive->next_segment || !segment->last_lsn)
                                continue;
                        slot = (int)i;
                        describe_source(journal, segment, source, ret_first);
                }
                archive->next_segment += slot < 0;
        }
        store_unlock(store);
        return slot;
}

enum { BEGIN_DONE = 2 }; /* the file is there */

/* 1 when there is a writer. */
static int begin_segment(Store *store)
{
        Archive *archive = store->archive;
        _cleanup_(free_p) char *path = NULL;
        ArchiveSource source = {
                .store = store,
                .limit_lsn = UINT64_MAX,
        };
        uint64_t first_lsn = 0;
        int slot = find_segment(store, &source, &first_lsn), r;

        if (slot < 0)
                return 0;
        if (first_lsn && is_archived(store, &source, first_lsn)) {
                r = disk_sync_folder(store->disk, store->archive_path);
                archive->next_segment += r == 0;
                return r ?: BEGIN_DONE;
        }
        if (asprintf(&path, "%s/segment-%02d", store->journal_path, slot) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        /* The journal's own handle is for whole blocks. */
        r = disk_open(store->disk, path, DISK_READ_ONLY, &archive->segment);
        if (r)
                return r;
        source.segment = archive->segment;
        archive->last_lsn = source.last_lsn;
        archive->started = disk_clock_monotonic(store->disk);
        return archive_writer_new(&source, &archive->writer) ?: 1;
}

static void end_segment(Archive *archive)
{
        archive->writer = archive_writer_free(archive->writer);
        archive->segment = disk_close(archive->segment);
}

static void note_failure(Store *store, int error)
{
        Archive *archive = store->archive;

        if (!archive->failure_logged)
                store_log(store, LOG_ERR,
                        "the journal cannot be archived, it keeps what it has and fills up; tried "
                        "again each second: %s: %s",
                        store->archive_path, strerror(-error));
        archive->failure_logged = archive->has_failed = true;
        store->retry = true;
}

/*
 * The segment at hand cannot be read. What it holds is in the databases or goes there, from memory;
 * it is their past alone that is lost with it, and if it stayed for ever the journal would fill up
 * behind it. True when it has been tried for long enough.
 */
static bool give_up_segment(Store *store, int error)
{
        Archive *archive = store->archive;
        uint64_t now = disk_clock_monotonic(store->disk) | 1;

        if (!archive->unreadable_since)
                archive->unreadable_since = now;
        if (now - archive->unreadable_since < UNREADABLE_NS)
                return false;
        store_log(store, LOG_CRIT,
                "segment %llu of the journal cannot be read: %s; no commit is lost, but objects "
                "cannot be restored to moments before LSN %llu: replace the disk of %s",
                (unsigned long long)archive->next_segment, strerror(-error),
                (unsigned long long)archive->last_lsn, store->journal_path);
        store_lock(store);
        store->stats.archive_gaps++;
        store_unlock(store);
        return true;
}

static void go_to_next(Archive *archive)
{
        archive->next_segment++;
        archive->due = 0;
        archive->unreadable_since = 0;
}

static int step_segment(Store *store)
{
        Archive *archive = store->archive;
        int r = archive->writer ? 1 : begin_segment(store);

        if (r == BEGIN_DONE)
                return 1;
        if (r > 0) {
                r = archive_writer_step(archive->writer);
                if (r > 0)
                        return 1;
                r = r ?: keep_written(store, archive->writer, archive->started);
                if (r < 0 && archive_writer_is_unreadable(archive->writer) &&
                        give_up_segment(store, r))
                        r = -EBADMSG;
                if (!r || r == -EBADMSG) {
                        go_to_next(archive);
                        if (!r && archive->failure_logged)
                                store_log(store, LOG_NOTICE, "the journal is archived again");
                        archive->failure_logged &= r != 0;
                        r = 1;
                }
        }
        if (r)
                end_segment(archive);
        if (r >= 0)
                return r;
        note_failure(store, r);
        return 0;
}

/* When the oldest file that can be read is too old: those before it go first. */
static uint64_t find_due(Store *store)
{
        const Archive *archive = store->archive;
        uint64_t due;

        for (size_t i = 0; i < archive->n_kept; i++)
                if (read_due(store, store->archive_path, archive->kept[i].first_lsn, &due))
                        return due;
        return UINT64_MAX;
}

static int step_prune(Store *store)
{
        Archive *archive = store->archive;
        _cleanup_(free_p) char *path = NULL;
        int r;

        if (!archive->n_kept)
                return 0;
        if (!archive->due)
                archive->due = find_due(store);
        if (archive->bytes <= store->options.archive_max &&
                disk_clock_realtime(store->disk) < archive->due)
                return 0;
        path = archive_path(store->archive_path, archive->kept[0].first_lsn);
        r = path ? disk_unlink(store->disk, path) : -ENOMEM;
        if (r && r != -ENOENT) {
                if (!archive->prune_logged)
                        store_log(store, LOG_ERR, "%s cannot be removed: %s", path ?: "a file",
                                strerror(-r));
                archive->prune_logged = archive->has_failed = store->retry = true;
                return 0;
        }
        archive->prune_logged = false;
        archive->bytes -= archive->kept[0].size;
        archive->n_kept--;
        memmove(archive->kept, archive->kept + 1, archive->n_kept * sizeof *archive->kept);
        archive->due = 0;
        count_kept(store);
        store_lock(store);
        store->stats.archive_pruned++;
        store_unlock(store);
        return 1;
}

int archive_step(Store *store)
{
        if (!store->archive || store->archive->has_failed)
                return 0;
        return step_segment(store) ?: step_prune(store);
}

void archive_note_idle(Store *store)
{
        if (!store->archive || !store->archive->has_failed)
                return;
        store->archive->has_failed = false;
        store->retry = true;
}
