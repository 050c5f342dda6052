/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/storage.h"

#include "daemon/core/log.h"
#include "lib/base/file.h"
#include "lib/loop/disk-ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CLOSE_TIMEOUT_NS (10 * NSEC_PER_SEC)
#define CLOSE_STEP_NS NSEC_PER_MSEC
/* From a failure of the store to the end of the process: for the errors that clients are told. */
#define END_STEP_NS (20 * NSEC_PER_MSEC)
#define END_STEPS 10u
/* Of the descriptors, for objects that are still to be redone; and at most. */
#define LATE_SHARE 4u
#define LATE_MAX 65536u
/* Nothing of an archive goes when its journal is emptied. */
#define EMPTY_DAYS 36500

struct Storage {
        Ring *ring;
        DiskRing *disk;
        Store *store;
        char *journal;
        RingPost flush, failed;
        RingTimer end_timer;
        unsigned n_end_steps;
        atomic_bool flush_posted, failed_posted;
};

static void storage_flush(RingPost *post)
{
        Storage *storage = CONTAINER_OF(post, Storage, flush);

        atomic_store(&storage->flush_posted, false);
        if (storage->store)
                store_loop_flush(storage->store);
}

static void storage_wake(void *data)
{
        Storage *storage = data;

        if (!atomic_exchange(&storage->flush_posted, true))
                ring_post(storage->ring, &storage->flush);
}

/*
 * Nothing that is not durable leaves any more: each answer of an object that waits at the gate, or
 * comes to it, becomes a 503. A few of them later the process ends.
 */
static void storage_end(Storage *storage)
{
        store_loop_flush(storage->store);
        if (++storage->n_end_steps > END_STEPS || ring_timer_arm(storage->ring, &storage->end_timer,
                                                          ring_now(storage->ring) + END_STEP_NS))
                _exit(STORAGE_EXIT_FAILED);
}

static void storage_on_end_timer(RingTimer *timer)
{
        storage_end(CONTAINER_OF(timer, Storage, end_timer));
}

static void storage_on_failed(RingPost *post)
{
        storage_end(CONTAINER_OF(post, Storage, failed));
}

static void say_failed(int error, const char *why, void *data)
{
        log_error("the store has failed, the worker ends and its successor replays: %s (%s)", why,
                strerror(-error));
}

static void storage_failed(int error, const char *why, void *data)
{
        Storage *storage = data;

        say_failed(error, why, data);
        if (!storage->store)
                _exit(STORAGE_EXIT_FAILED);
        if (!atomic_exchange(&storage->failed_posted, true))
                ring_post(storage->ring, &storage->failed);
}

/* What the store said while it was opened. */
static char last_error[512];
static bool is_opening;

static void storage_log(int priority, const char *line, void *data)
{
        /* While a store is opened there is one thread. */
        if (is_opening && priority <= LOG_ERROR)
                snprintf(last_error, sizeof last_error, "%s", line);
        log_line((LogLevel)priority, "%s", line);
}

static unsigned long long get_free_mib(const char *path)
{
        struct statvfs st;

        return statvfs(path, &st) ? 0 : (unsigned long long)st.f_bavail * st.f_frsize >> 20;
}

/* What the room is for, and where it is missing. */
static int say_full(const char *journal, const char *objects, int error)
{
        char line[sizeof last_error];

        snprintf(line, sizeof line,
                "cannot open the journal '%s': the disk is full: what it holds must go into "
                "databases that have to grow, in '%s' with %llu MiB free, and a segment of up to "
                "64 MiB be there or be made, with %llu MiB free; make room",
                journal, objects, get_free_mib(objects), get_free_mib(journal));
        log_error("%s", line);
        if (!*last_error)
                memcpy(last_error, line, sizeof last_error);
        return error;
}

static int say(const char *journal, const char *objects, int error)
{
        static const struct {
                int error;
                const char *advice;
        } known[] = {
                { -EAGAIN, "another process has it" },
                { -EUCLEAN, "it is damaged; the line before says where" },
                { -EBUSY, "another process has a database of an object open" },
        };
        const char *advice = strerror(-error);

        if (error == -ENOSPC || error == -EDQUOT)
                return say_full(journal, objects, error);
        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (known[i].error == error)
                        advice = known[i].advice;
        log_error("cannot open the journal '%s': %s", journal, advice);
        if (!*last_error)
                snprintf(last_error, sizeof last_error, "cannot open the journal '%s': %s", journal,
                        advice);
        return error;
}

static void say_redone(const char *journal, const StoreStats *stats)
{
        if (stats->redone_commits)
                log_note("journal '%s': redid %llu commits of %llu objects in %llu ms", journal,
                        (unsigned long long)stats->redone_commits,
                        (unsigned long long)stats->redone_objects,
                        (unsigned long long)(stats->redo_ns / NSEC_PER_MSEC));
}

/* Objects that are redone while others are served: each has a descriptor meanwhile. */
static unsigned get_late_max(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit))
                return 0;
        return (unsigned)MIN(limit.rlim_cur / LATE_SHARE, (rlim_t)LATE_MAX);
}

int storage_open(const StorageOptions *options, Storage **ret)
{
        _cleanup_(free_p) char *journal = NULL, *archive = NULL;
        _cleanup_(storage_close_p) Storage *storage = calloc(1, sizeof *storage);
        StoreOptions store = {
                .objects = options->objects,
                .archive_days = options->archive_days,
                .archive_max = options->archive_max,
                .late_max = get_late_max(),
                .wake = storage_wake,
                .failed = storage_failed,
                .log = storage_log,
                .data = storage,
        };
        StoreStats stats;
        int r;

        if (!storage || asprintf(&journal, "%s/journal/%s/%u", options->state, options->app,
                                options->slot) < 0) {
                journal = NULL;
                return -ENOMEM;
        }
        if (asprintf(&archive, "%s/archive/%s/%u", options->state, options->app, options->slot) <
                0) {
                archive = NULL;
                return -ENOMEM;
        }
        storage->ring = options->ring;
        storage->flush.fn = storage_flush;
        storage->failed.fn = storage_on_failed;
        ring_timer_init(&storage->end_timer, storage_on_end_timer);
        r = disk_ring_new(options->ring, &storage->disk);
        if (r)
                return r;
        r = dir_create(journal, 0750);
        if (r)
                return say(journal, options->objects, r);
        store.disk = disk_ring_get_disk(storage->disk);
        store.journal = journal;
        store.archive = options->archive_days ? archive : NULL;
        is_opening = true;
        r = store_open(&store, &storage->store);
        is_opening = false;
        if (r)
                return say(journal, options->objects, r);
        store_get_stats(storage->store, &stats);
        say_redone(journal, &stats);
        r = store_start_background(storage->store);
        if (r)
                return r;
        storage->journal = TAKE_PTR(journal);
        *ret = TAKE_PTR(storage);
        return 0;
}

/* Until the journal is empty, so that whoever takes the slot's objects finds them in their files.
 */
static void storage_drain(Storage *storage)
{
        uint64_t end = clock_monotonic_ns() + CLOSE_TIMEOUT_NS;
        int r = 1;

        store_stop_background(storage->store);
        store_set_draining(storage->store, true);
        while (clock_monotonic_ns() < end && !store_get_failure(storage->store)) {
                r = store_background_step(storage->store);
                if (r < 0 || (r == 0 && store_loop_is_idle(storage->store)))
                        break;
                store_loop_flush(storage->store);
                if (ring_run_once(storage->ring, r ? 0 : CLOSE_STEP_NS) < 0)
                        break;
        }
        if (r)
                log_note("the journal is not empty yet: the next start redoes the rest");
}

Storage *storage_close(Storage *storage)
{
        bool left = false;

        if (!storage)
                return NULL;
        if (storage->store) {
                storage_drain(storage);
                if (store_get_failure(storage->store))
                        _exit(STORAGE_EXIT_FAILED);
                left = store_count_connections(storage->store) > 0;
                store_close(storage->store);
        }
        /* A thread of the guest's may be inside with what it left open; the process ends. */
        if (left)
                return NULL;
        disk_ring_free(storage->disk);
        free(storage->journal);
        free(storage);
        return NULL;
}

const char *storage_get_error(void)
{
        return *last_error ? last_error : NULL;
}

Store *storage_get_store(Storage *storage)
{
        return storage->store;
}

const char *storage_get_journal(const Storage *storage)
{
        return storage->journal;
}

static void no_wake(void *data)
{
}

/* `<state>/journal/<app>/<slot>` has its archive in `<state>/archive/<app>/<slot>`, if it has one.
 */
static int find_archive(const char *journal, char **ret)
{
        const char *app = journal + strlen(journal);
        char *path;

        for (int i = 0; i < 2; i++)
                while (app > journal && *--app != '/')
                        ;
        if (app - journal < 8 || memcmp(app - 8, "/journal", 8) != 0)
                return 0;
        if (asprintf(&path, "%.*s/archive%s", (int)(app - 8 - journal), journal, app) < 0)
                return -ENOMEM;
        if (access(path, F_OK) == 0)
                *ret = path;
        else
                free(path);
        return 0;
}

int storage_empty(const char *journal, const char *objects)
{
        _cleanup_(store_close_p) Store *store = NULL;
        _cleanup_(free_p) char *archive = NULL;
        StoreOptions options = {
                .journal = journal,
                .objects = objects,
                .archive_days = EMPTY_DAYS,
                .archive_max = UINT64_MAX,
                .wake = no_wake,
                .failed = say_failed,
                .log = storage_log,
        };
        StoreStats stats;
        int r;

        r = find_archive(journal, &archive);
        options.archive = archive;
        r = r ?: store_open(&options, &store);
        if (r)
                return say(journal, objects, r);
        store_get_stats(store, &stats);
        say_redone(journal, &stats);
        store_set_draining(store, true);
        do {
                r = store_background_step(store);
                if (r >= 0 && store_loop_run(store) < 0)
                        r = store_get_failure(store);
        } while (r > 0);
        return r;
}
