/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/salvage.h"

#include "lib/store/recover.h"

#include <errno.h>
#include <time.h>

#define COPY_CHUNK (UINT64_C(1) << 20)
#define TRIES_MAX 100
#define ARCHIVE_DAYS 36500

typedef struct Salvage {
        const SalvageOptions *options;
        Store *store;
        Disk *disk;
        char *folder;
        unsigned n_files;
} Salvage;

/* damaged-20261123T011500Z; a second one within a second gets a number. */
static int make_folder(Salvage *salvage)
{
        time_t now = (time_t)(disk_clock_realtime(salvage->disk) / 1000000000u);
        char text[24], suffix[8] = "";
        struct tm tm;
        int r = -EEXIST;

        if (!gmtime_r(&now, &tm) || !strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &tm))
                return -EINVAL;
        for (unsigned i = 2; r == -EEXIST && i < TRIES_MAX; i++) {
                free(TAKE_PTR(salvage->folder));
                if (asprintf(&salvage->folder, "%s/damaged-%s%s", salvage->store->journal_path,
                            text, suffix) < 0) {
                        salvage->folder = NULL;
                        return -ENOMEM;
                }
                r = disk_mkdir(salvage->disk, salvage->folder);
                snprintf(suffix, sizeof suffix, "-%u", i);
        }
        return r ?: disk_sync_folder(salvage->disk, salvage->store->journal_path);
}

static int copy_content(DiskFile *from, DiskFile *to)
{
        _cleanup_(free_p) char *chunk = malloc(COPY_CHUNK);
        uint64_t done = 0;
        size_t got = 1;
        int r = chunk ? 0 : -ENOMEM;

        while (!r && got) {
                r = disk_read(from, chunk, COPY_CHUNK, done, &got);
                if (!r && got)
                        r = disk_write(to, chunk, got, done, 0);
                done += got;
        }
        return r ?: disk_sync(to);
}

/* -ENOENT when there is no such file. */
static int copy_file(Salvage *salvage, const char *from_path, const char *to_path)
{
        _cleanup_(free_p) char *folder =
                slice_dup(slice_of(to_path, (size_t)(strrchr(to_path, '/') - to_path)));
        _cleanup_(disk_close_p) DiskFile *from = NULL, *to = NULL;
        int r = disk_open(salvage->disk, from_path, DISK_READ_ONLY, &from);

        if (!folder)
                return -ENOMEM;
        r = r ?: store_make_folder(salvage->disk, folder);
        r = r ?: disk_open(salvage->disk, to_path, DISK_CREATE, &to);
        r = r ?: copy_content(from, to);
        return r ?: disk_sync_folder(salvage->disk, folder);
}

static int keep_databases(Salvage *salvage)
{
        const SalvageOptions *options = salvage->options;
        int r = 0;

        for (size_t i = 0; !r && i < options->n_keep; i++) {
                _cleanup_(free_p) char *from = path_join(options->objects, options->keep[i]);
                _cleanup_(free_p) char *to = NULL;

                if (!from ||
                        asprintf(&to, "%s/objects/%s", salvage->folder, options->keep[i]) < 0) {
                        to = NULL;
                        return -ENOMEM;
                }
                r = copy_file(salvage, from, to);
                if (r == -ENOENT)
                        r = 0;
        }
        return r;
}

static int keep_epoch(Salvage *salvage)
{
        _cleanup_(free_p) char *from = path_join(salvage->store->journal_path, "epoch");
        _cleanup_(free_p) char *to = path_join(salvage->folder, "epoch");
        int r = from && to ? copy_file(salvage, from, to) : -ENOMEM;

        return r == -ENOENT ? 0 : r;
}

static int move_file(Salvage *salvage, const char *name)
{
        _cleanup_(free_p) char *from = path_join(salvage->store->journal_path, name);
        _cleanup_(free_p) char *to = path_join(salvage->folder, name);
        int r = from && to ? disk_rename(salvage->disk, from, to) : -ENOMEM;

        if (r)
                return r == -ENOENT ? 0 : r;
        salvage->n_files++;
        /* One after the other: what is left is refused, see below. */
        r = disk_sync_folder(salvage->disk, salvage->folder);
        return r ?: disk_sync_folder(salvage->disk, salvage->store->journal_path);
}

/*
 * The oldest first: a journal without its beginning is refused, until nothing of it is left. Then
 * those that hold nothing that counts, so that no number is left out.
 */
static int move_segments(Salvage *salvage, const Found *found)
{
        const unsigned n = ELEMENTSOF(found->segments);
        bool moved[ELEMENTSOF(found->segments)] = {};
        char name[16];
        int r = 0;

        for (size_t i = 0; !r && i < found->n_all + n; i++) {
                unsigned slot =
                        i < found->n_all ? found->batches[i].slot : (unsigned)(i - found->n_all);

                if (moved[slot] || !found->segments[slot])
                        continue;
                moved[slot] = true;
                snprintf(name, sizeof name, "segment-%02u", slot % n);
                r = move_file(salvage, name);
        }
        return r;
}

typedef struct Spills {
        char names[64][32];
        size_t n;
} Spills;

static int see_spill(const char *name, void *data)
{
        Spills *spills = data;

        if (strncmp(name, "spill-", 6) != 0 || strlen(name) >= sizeof spills->names[0])
                return 0;
        snprintf(spills->names[spills->n++], sizeof spills->names[0], "%s", name);
        return spills->n == ELEMENTSOF(spills->names);
}

static int move_spills(Salvage *salvage)
{
        int more = 1;

        while (more) {
                Spills spills = {};

                more = disk_list(salvage->disk, salvage->store->journal_path, see_spill, &spills);
                for (size_t i = 0; more >= 0 && i < spills.n; i++) {
                        int r = move_file(salvage, spills.names[i]);

                        if (r)
                                more = r;
                }
                if (more < 0)
                        return more;
        }
        return 0;
}

static bool is_left(const char *path, void *data)
{
        const Salvage *salvage = data;
        const SalvageOptions *options = salvage->options;
        const char *name = path + salvage->store->objects_len + 1;

        for (size_t i = 0; i < options->n_leave; i++)
                if (strcmp(options->leave[i], name) == 0)
                        return true;
        return false;
}

static int redo(Salvage *salvage, Found *found)
{
        /* What stands before damage is durable: a batch is written when those before it are. */
        int r = found->damage.is_there ? 0 : found_secure_tail(found);

        r = r ?: redo_run(found);
        if (r == -EUCLEAN)
                store_log(salvage->store, LOG_ERR, "%s: the redo met more damage than before",
                        salvage->store->journal_path);
        return r;
}

/*
 * The LSN that the new epoch says it follows: one that no record had, behind every bookmark. So no
 * file of the archive leads up to it, and no moment from before counts as one that it began with.
 */
static void leave_gap(const Salvage *salvage, Found *found)
{
        uint64_t now = disk_clock_realtime(salvage->disk) / 1000;

        found->last_lsn = MAX(found->last_lsn + 1, now);
}

/* Nothing is redone into a folder that only seems to hold the objects. */
static int check_objects(const Salvage *salvage, Found *found)
{
        int r = found_check_objects(found);

        if (r == -EUCLEAN)
                store_log(salvage->store, LOG_ERR, "%s: %s", salvage->store->journal_path,
                        found->damage.text);
        return r;
}

static int salvage_found(Salvage *salvage, Found *found)
{
        bool is_cut = salvage->options->mode == SALVAGE_CUT;
        EpochFile epoch;
        int r = found_open(found);

        if (r == -EUCLEAN && !found->has_epoch)
                r = is_cut ? r : found_guess(found);
        else if (r == -EUCLEAN)
                r = 0;
        if (!r && is_cut)
                r = check_objects(salvage, found);
        r = r ?: make_folder(salvage);
        r = r ?: keep_databases(salvage);
        r = r ?: keep_epoch(salvage);
        if (!r && is_cut)
                r = redo(salvage, found);
        r = r ?: move_segments(salvage, found);
        r = r ?: move_spills(salvage);
        r = r ?: move_file(salvage, "tail");
        leave_gap(salvage, found);
        return r ?: found_switch_epoch(found, false, &epoch);
}

static void no_log(int priority, const char *line, void *data)
{
}

static StoreOptions get_options(const SalvageOptions *options)
{
        return (StoreOptions){
                .disk = options->disk,
                .journal = options->journal,
                .objects = options->objects,
                .archive = options->archive,
                /* Nothing of it goes. */
                .archive_days = ARCHIVE_DAYS,
                .archive_max = UINT64_MAX,
                .log = options->log ?: no_log,
                .data = options->data,
        };
}

int store_salvage(const SalvageOptions *options, SalvageResult *ret)
{
        StoreOptions store_options = get_options(options);
        Salvage salvage = { .options = options };
        Found found = {
                .cut = true, .cut_lsn = options->cut_lsn, .leave = is_left, .data = &salvage
        };
        int r = store_new(&store_options, &salvage.store);

        if (r)
                return r;
        salvage.disk = salvage.store->disk;
        found.store = salvage.store;
        r = salvage_found(&salvage, &found);
        if (!r)
                *ret = (SalvageResult){
                        .commits = salvage.store->stats.redone_commits,
                        .objects = salvage.store->stats.redone_objects,
                        .n_files = salvage.n_files,
                        .folder = TAKE_PTR(salvage.folder),
                };
        found_done(&found);
        store_free(salvage.store);
        free(salvage.folder);
        return r;
}

int store_empty(const SalvageOptions *options, SalvageResult *ret)
{
        _cleanup_(store_close_p) Store *store = NULL;
        StoreOptions store_options = get_options(options);
        StoreStats stats;
        int r = store_open(&store_options, &store);

        if (r)
                return r;
        store_get_stats(store, &stats);
        store_set_draining(store, true);
        do {
                r = store_background_step(store);
                if (r >= 0 && store_loop_run(store) < 0)
                        r = store_get_failure(store);
        } while (r > 0);
        if (!r)
                *ret = (SalvageResult){ .commits = stats.redone_commits,
                        .objects = stats.redone_objects };
        return r;
}
