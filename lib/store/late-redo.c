/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/late-redo.h"

#include <errno.h>

LateRedo *late_free(LateRedo *late)
{
        if (!late)
                return NULL;
        redo_done(&late->redo);
        found_done(&late->found);
        free(late);
        return NULL;
}

void late_begin(Store *store, LateRedo *late)
{
        store->late = late;
        atomic_store(&store->is_late, true);
}

bool late_is_going(Store *store)
{
        return atomic_load(&store->is_late);
}

/* Of those that are left; the store's mutex is held. */
static RedoFile *find_left(const Store *store, const char *path)
{
        MapNode *map = store->late ? map_find(&store->late->redo.files, slice_from(path)) : NULL;

        return map ? CONTAINER_OF(map, RedoFile, map) : NULL;
}

/* Nothing of it is needed once the name is gone for good. */
static int end_deleted(Store *store, RedoFile *file)
{
        int r;

        file->file = disk_close(file->file);
        r = store_sync_name(store, file->path);
        /* The folder may never have been there. */
        if (!r || r == -ENOENT || r == -ENOMEM)
                return r == -ENOMEM ? r : 0;
        store_fail(store, r, "%s: its removal cannot be synced: %s", file->path, strerror(-r));
        return r;
}

static int redo_file(Store *store, RedoFile *file)
{
        int r = redo_one(&store->late->redo, file);

        if (r)
                return r;
        if (file->is_deleted)
                return end_deleted(store, file);
        if (file->is_touched)
                return node_adopt(store, file->path, &file->file, file->first_segment);
        /* All that is said of it is void. */
        file->file = disk_close(file->file);
        return 0;
}

/* One that is busy by the caller's doing. */
static int redo_claimed(Store *store, RedoFile *file)
{
        Redo *plan = &store->late->redo;
        bool is_last;
        int r = redo_file(store, file);

        store_lock(store);
        file->is_busy = false;
        store->late->n_failed = r ? store->late->n_failed + 1 : 0;
        if (r) {
                list_unlink(&file->link);
                list_append(&plan->file_list, &file->link);
        } else {
                redo_drop_file(plan, file);
                store->stats.redo_left--;
        }
        is_last = list_is_empty(&plan->file_list);
        pthread_cond_broadcast(&store->changed);
        store_unlock(store);
        /* The background ends it. */
        if (is_last)
                store_call_work(store);
        return r;
}

int late_ensure(Store *store, const char *path)
{
        RedoFile *file;
        int r;

        if (!late_is_going(store))
                return 0;
        store_lock(store);
        while ((file = find_left(store, path)) && file->is_busy)
                pthread_cond_wait(&store->changed, &store->mutex);
        if (file)
                file->is_busy = true;
        store_unlock(store);
        if (!file)
                return 0;
        r = redo_claimed(store, file);
        /* The background may have found nothing else to do meanwhile: it tries again. */
        if (r)
                store_call_work(store);
        return r == -EBUSY ? -EAGAIN : r;
}

/* The first that nobody has; *ret_empty: nothing is left. */
static RedoFile *claim_next(Store *store, bool *ret_empty)
{
        RedoFile *found = NULL;

        store_lock(store);
        *ret_empty = list_is_empty(&store->late->redo.file_list);
        list_for_each(link, &store->late->redo.file_list) {
                RedoFile *file = list_entry(link, RedoFile, link);

                if (file->is_busy)
                        continue;
                found = file;
                file->is_busy = true;
                break;
        }
        store_unlock(store);
        return found;
}

static int end(Store *store)
{
        _cleanup_(late_free_p) LateRedo *late = NULL;
        StoreStats stats;

        store_lock(store);
        atomic_store(&store->is_late, false);
        late = TAKE_PTR(store->late);
        store->stats.redo_ns = disk_clock_monotonic(store->disk) - late->started;
        stats = store->stats;
        pthread_cond_broadcast(&store->changed);
        store_unlock(store);
        if (stats.redone_commits)
                store_log(store, LOG_INFO,
                        "replayed %llu commits of %llu objects from the journal, up to LSN %llu, "
                        "in %llu "
                        "ms",
                        (unsigned long long)stats.redone_commits,
                        (unsigned long long)stats.redone_objects,
                        (unsigned long long)late->found.last_lsn,
                        (unsigned long long)(stats.redo_ns / 1000000));
        return 1;
}

int late_step(Store *store)
{
        bool is_empty, is_round;
        RedoFile *file;
        int r;

        if (!late_is_going(store))
                return 0;
        file = claim_next(store, &is_empty);
        if (is_empty)
                return end(store);
        if (!file) {
                /* Others are at work on what is left: who waits for room goes on waiting. */
                store->unsettled = store->retry = true;
                return 0;
        }
        r = redo_claimed(store, file);
        if (atomic_load(&store->failure))
                return atomic_load(&store->failure);
        if (!r)
                return 1;
        store_lock(store);
        /* Each has been tried: the rest is for another time. */
        is_round = store->late->n_failed > store->stats.redo_left;
        if (is_round)
                store->late->n_failed = 0;
        store_unlock(store);
        if (store_may_log(store, "not redone"))
                store_log(store, LOG_ERR,
                        "an object cannot be redone from the journal: %s; it stays there, and is "
                        "tried again",
                        strerror(-r));
        store->retry = true;
        return !is_round;
}
