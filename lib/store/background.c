/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive.h"
#include "lib/store/page-pool.h"

#include <errno.h>
#include <malloc.h>

/*
 * What is done behind the commits, in steps: segments made ready, logs written to their files,
 * segments archived and retired, long readers' pages copied forward, files removed
 *
 * All of it runs on one thread, so that nobody else writes database files. A step looks for the
 * first thing to do. What must wait for a flush is left; its completion calls for work again.
 */

#define SYNC_ONE_BY_ONE 16u
/* Closed objects that wait for the sync which a segment's end brings anyway. */
#define CLOSED_MAX 1024u
/* A step of a retirement writes one in so many objects. */
#define WRITE_PART 64u
#define TRIM_BYTES (UINT64_C(32) << 20)
/* After something failed that may succeed later, such as a write without room. */
#define RETRY_NS (1000 * UINT64_C(1000000))
/* What is about to be published is looked at again soon, for a second. */
#define UNSETTLED_NS (20 * UINT64_C(1000000))
#define UNSETTLED_MAX 50u

/* The first of a list, which goes to its end, with a reference; NULL when the list is empty. */
static Node *take_logged(Store *store)
{
        List *link;
        Node *node = NULL;

        store_lock(store);
        link = list_first(&store->logged);
        if (link) {
                node = list_entry(link, Node, logged);
                list_unlink(link);
                list_append(&store->logged, link);
                node_ref(node);
        }
        store_unlock(store);
        return node;
}

/* The same for those that are due, which leave the list. */
static Node *take_due(Store *store, bool *ret_unused)
{
        List *link;
        Node *node = NULL;

        store_lock(store);
        link = list_pop(&store->due);
        if (link) {
                node = list_entry(link, Node, due);
                store->n_due--;
                *ret_unused = node->n_refs == 0;
                node_ref(node);
        }
        store_unlock(store);
        return node;
}

static int remove_file(Node *node)
{
        const char *slash = strrchr(node->path, '/');
        _cleanup_(free_p) char *folder =
                slice_dup(slice_of(node->path, (size_t)(slash - node->path)));
        Disk *disk = node->store->disk;
        int r = folder ? disk_unlink(disk, node->path) : -ENOMEM;

        if (r && r != -ENOENT)
                return r;
        /* The name is gone: what the handle leads to must not be written any more. */
        node->file = disk_close(node->file);
        r = disk_sync_folder(disk, folder);
        if (r)
                store_fail(node->store, r, "%s: its removal cannot be synced: %s", node->name,
                        strerror(-r));
        return r;
}

/* Invariant 2 for files that go: DELETE is durable. 1 when it is done. */
static int delete_node(Node *node)
{
        int r = 0;

        node_lock(node);
        /* It may have been opened again meanwhile. */
        if (node->deleted) {
                r = remove_file(node);
                if (!r) {
                        node->deleted = node->dirty = node->entry_dirty = false;
                        node->needs_truncate = node->is_new = node->needs_create = false;
                        store_lock(node->store);
                        node_set_first_segment(node, NO_SEGMENT);
                        store_unlock(node->store);
                }
        }
        node_unlock(node);
        if (r && !store_get_failure(node->store))
                store_log(node->store, LOG_ERR, "%s: cannot be removed: %s", node->name,
                        strerror(-r));
        return r ? 0 : 1;
}

static int step_segment(Store *store)
{
        int r = journal_prepare_segment(store);

        if (r >= 0) {
                store->no_segment_logged &= r == 0;
                return r;
        }
        if (!store->no_segment_logged)
                store_log(store, LOG_ERR, "no further segment of the journal can be made: %s",
                        strerror(-r));
        store->no_segment_logged = store->retry = true;
        return 0;
}

static bool is_spent(Store *store, const Spill *spill)
{
        return spill->segment < store->journal.durable_low;
}

static int step_spill(Store *store)
{
        Spill *spill = NULL;
        int r;

        store_lock(store);
        list_for_each_safe(link, &store->spills) {
                if (is_spent(store, list_entry(link, Spill, link))) {
                        spill = list_entry(link, Spill, link);
                        list_unlink(link);
                        store->stats.spill_bytes -= spill->size;
                        break;
                }
        }
        store_unlock(store);
        if (!spill)
                return 0;
        _cleanup_(free_p) char *path = store_file_path(store, "spill", spill->file);

        /* One that stays behind is removed at the next start. */
        r = path ? disk_unlink(store->disk, path) : -ENOMEM;
        if (r && r != -ENOENT)
                store_log(store, LOG_WARNING, "spill file %llu cannot be removed: %s",
                        (unsigned long long)spill->file, strerror(-r));
        free(spill);
        return 1;
}

static void log_checkpoint(Node *node, int error)
{
        bool known = node->checkpoint_failed;

        node->checkpoint_failed = error != 0;
        node->store->retry |= error != 0;
        if (error && !known && store_may_log(node->store, "not written"))
                store_log(node->store, LOG_ERR,
                        "%s: commits cannot be written to the file, they stay in the journal: %s",
                        node->name, strerror(-error));
        else if (!error && known && store_may_log(node->store, "written again"))
                store_log(node->store, LOG_NOTICE, "%s: commits are written to the file again",
                        node->name);
}

/* 1 when something was written. */
static int checkpoint(Node *node, bool *ret_done)
{
        int r = node_checkpoint(node, ret_done);

        if (r < 0 && atomic_load(&node->store->failure))
                return r;
        if (r)
                log_checkpoint(node, r < 0 ? r : 0);
        return r > 0;
}

static bool is_flushed(const Node *node)
{
        return atomic_load(&node->last_lsn) <= atomic_load(&node->store->flushed);
}

/*
 * A log is due when nobody has it open, when much of it is not in the file, and when it is long and
 * can be ended: what is never without a commit on its way to the disk cannot be.
 */
static bool wants_checkpoint(const Node *node, bool unused)
{
        uint32_t captured = atomic_load(&node->captured), at = node->store->options.checkpoint_at;

        if (node->needs_truncate)
                return is_flushed(node);
        return captured && (unused || captured - atomic_load(&node->backfilled) >= at ||
                                   (captured >= at && is_flushed(node)));
}

/* What a node that is due wants: 1 when something was done. */
static int serve_due(Node *node, bool unused)
{
        bool done;

        if (node->deleted)
                return unused && is_flushed(node) ? delete_node(node) : 0;
        return wants_checkpoint(node, unused) ? checkpoint(node, &done) : 0;
}

static int step_due(Store *store)
{
        size_t n;
        int r = 0;

        store_lock(store);
        n = store->n_due;
        store_unlock(store);
        for (size_t i = 0; i < n && r == 0; i++) {
                bool unused;
                Node *node = take_due(store, &unused);

                if (!node)
                        break;
                r = serve_due(node, unused);
                store_lock(store);
                if (node->deleted || node->needs_truncate ||
                        atomic_load(&node->captured) >= store->options.checkpoint_at)
                        node_note_due(node);
                store_unlock(store);
                node_unref(node);
        }
        return r;
}

/* All logs together are too much, or are to go: the one that was looked at longest ago. */
static int step_crowded(Store *store)
{
        size_t n;
        int r = 0;

        if (!atomic_load(&store->draining) &&
                atomic_load(&store->wal_bytes) <= store->options.wal_total_max)
                return 0;
        store_lock(store);
        n = store->n_logged;
        store_unlock(store);
        for (size_t i = 0; i < n && r == 0; i++) {
                Node *node = take_logged(store);
                bool done;

                if (!node)
                        break;
                r = checkpoint(node, &done);
                node_unref(node);
        }
        return r;
}

/* Of segments, and of the files that they name. Where no segment can be made those that are there
 * are all. */
static bool is_crowded(const Store *store, unsigned live)
{
        const Journal *journal = &store->journal;
        unsigned n = store->no_segment_logged ? live + journal_count_segments(journal, SEGMENT_FREE)
                                              : journal->n_segments;

        return live > n / 2 ||
               store->stats.spill_bytes > journal->n_segments / 2 * journal->segment_size;
}

/* The newest segment that is to go now, or 0. */
static uint64_t choose_target(Store *store)
{
        Journal *journal = &store->journal;
        uint64_t oldest = NO_SEGMENT, current, earlier = 0;
        unsigned live = 0;
        bool crowded;

        /* What is still to be redone needs all of them. */
        if (late_is_going(store) && !SABOTAGED(SABOTAGE_LATE))
                return 0;
        store_lock(store);
        current = journal->last_segment;
        for (unsigned i = 0; i < journal->n_segments; i++) {
                if (journal->segments[i].state != SEGMENT_LIVE)
                        continue;
                live++;
                oldest = MIN(oldest, journal->segments[i].number);
                if (journal->segments[i].era + 1 < journal->n_eras)
                        earlier = MAX(earlier, journal->segments[i].number);
        }
        /* A mark that is under way is waited for. */
        if (live && journal->low > oldest)
                oldest = NO_SEGMENT;
        crowded = is_crowded(store, live);
        store_unlock(store);
        /* What recovery has found goes as soon as all of it is redone. */
        if (earlier && oldest != NO_SEGMENT)
                return earlier;
        if (atomic_load(&store->draining))
                return live && oldest != NO_SEGMENT ? current - (oldest < current) : 0;
        if (oldest == NO_SEGMENT || oldest == current || !crowded)
                return 0;
        return oldest;
}

typedef struct Retired {
        Node **nodes;
        NodeSync *syncs;
        size_t n;
} Retired;

static void retired_done(Retired *retired)
{
        for (size_t i = 0; i < retired->n; i++)
                node_unref(retired->nodes[i]);
        free(retired->nodes);
        free(retired->syncs);
}

/* The nodes that the target holds, at most max of those that `want` names, each with a reference.
 */
static int list_retired(
        Store *store, uint64_t target, bool (*want)(const Node *node), size_t max, Retired *ret)
{
        size_t n = 0;
        int r = 0;

        store_lock(store);
        list_for_each(link, &store->held) {
                if (list_entry(link, Node, held)->first_segment > target)
                        break;
                n++;
        }
        n = MIN(n, max);
        ret->nodes = calloc(n + 1, sizeof *ret->nodes);
        ret->syncs = calloc(n + 1, sizeof *ret->syncs);
        if (!ret->nodes || !ret->syncs)
                r = -ENOMEM;
        list_for_each(link, &store->held) {
                Node *node = list_entry(link, Node, held);

                if (r || node->first_segment > target || ret->n == n)
                        break;
                if (node->deleted || !want(node))
                        continue;
                node_ref(node);
                ret->nodes[ret->n++] = node;
        }
        store_unlock(store);
        return r;
}

static bool want_all(const Node *node)
{
        return true;
}

/* That a sync alone keeps. */
static bool want_closed(const Node *node)
{
        return node->n_refs == 0 && !node->captured;
}

/* Not written yet in this round. */
static bool want_round(const Node *node)
{
        return node->retire_round != node->store->retire_round;
}

/* Many files at once: one sync of the file system. */
static int sync_all(Store *store, Retired *retired)
{
        int r;

        for (size_t i = 0; i < retired->n; i++)
                node_begin_sync(retired->nodes[i], &retired->syncs[i]);
        r = SABOTAGED(SABOTAGE_RETIRE_SYNC) ? 0 : disk_sync_all(store->disk, store->objects_path);
        if (r) {
                store_fail(store, r, "the objects' file system cannot be synced: %s", strerror(-r));
                return r;
        }
        store_lock(store);
        store->stats.syncs++;
        store_unlock(store);
        for (size_t i = 0; i < retired->n; i++)
                node_end_sync(retired->nodes[i], &retired->syncs[i]);
        return 0;
}

static int sync_retired(Store *store, Retired *retired)
{
        int r = 0;

        if (retired->n > SYNC_ONE_BY_ONE)
                return sync_all(store, retired);
        for (size_t i = 0; !r && i < retired->n; i++)
                r = node_sync(retired->nodes[i]);
        return r;
}

static bool is_held(Node *node, uint64_t target)
{
        bool held;

        store_lock(node->store);
        held = node->first_segment <= target;
        store_unlock(node->store);
        return held;
}

/*
 * Its file is synced, and the target still holds something of it. Where a reader pins that, it is
 * written anew; 1 when it waits for a flush instead.
 */
static int copy_forward(Node *node)
{
        WalIndex index;
        int r = 0;

        node_lock(node);
        if (node->txn_first || !wal_index_read(node, &index) || index.max_frame != node->captured ||
                !node->captured ||
                (index.backfilled < index.max_frame && node_get_durable(node) <= index.backfilled))
                r = 1;
        else if (index.backfilled < index.max_frame && !SABOTAGED(SABOTAGE_COPY_FORWARD))
                r = capture_copy(node, index.backfilled, index.n_pages);
        node_unlock(node);
        return r;
}

/* The oldest segment that anybody needs. */
static uint64_t find_low(Store *store)
{
        uint64_t low;

        store_lock(store);
        low = journal_get_own(&store->journal);
        list_for_each(link, &store->held) {
                Node *node = list_entry(link, Node, held);

                if (SABOTAGED(SABOTAGE_COPY_FORWARD) && node->captured)
                        continue;
                low = MIN(low, node->first_segment);
                break;
        }
        store_unlock(store);
        return low;
}

static void wait_for_flush(Store *store)
{
        store_lock(store);
        store->work_waits = true;
        store_unlock(store);
        journal_wake(store);
}

static int write_part(Store *store, uint64_t target, size_t max, size_t *ret_n)
{
        _cleanup_(retired_done) Retired retired = {};
        int r = list_retired(store, target, want_round, max, &retired);

        for (size_t i = 0; r >= 0 && i < retired.n; i++) {
                bool done;
                int written;

                retired.nodes[i]->retire_round = store->retire_round;
                written = checkpoint(retired.nodes[i], &done);
                r = written < 0 ? written : r | written;
        }
        *ret_n = retired.n;
        return r;
}

/* Each node's log is written once a round, some of them in a step; 0 when all have been. */
static int write_retired(Store *store, uint64_t target)
{
        size_t max, n;
        int r;

        store_lock(store);
        max = store->nodes.len / WRITE_PART + 1;
        store_unlock(store);
        do
                r = write_part(store, target, max, &n);
        while (r == 0 && n);
        if (r == 0)
                store->retire_round++;
        return r;
}

static int retire_nodes(Store *store, uint64_t target, Retired *retired)
{
        bool wait = false;
        int r = sync_retired(store, retired);

        for (size_t i = 0; !r && i < retired->n; i++) {
                int copied;

                /* Forward is into the current segment. */
                if (!is_held(retired->nodes[i], target) || target >= journal_get_current(store))
                        continue;
                copied = copy_forward(retired->nodes[i]);
                wait |= copied > 0;
                store->retry |= copied < 0;
        }
        if (wait)
                wait_for_flush(store);
        store->unsettled |= wait;
        return r;
}

/* Invariant 3. */
static int step_retire(Store *store)
{
        _cleanup_(retired_done) Retired retired = {};
        uint64_t target = choose_target(store), low, before;
        int r;

        if (!target)
                return 0;
        r = write_retired(store, target);
        r = r ?: list_retired(store, target, want_all, SIZE_MAX, &retired);
        r = r ?: retire_nodes(store, target, &retired);
        if (r)
                return r == -ENOMEM ? 0 : r;
        store_lock(store);
        before = store->journal.low;
        store_unlock(store);
        low = MIN(find_low(store), archive_get_low(store));
        if (low <= before)
                return 0;
        journal_set_low(store, low);
        return 1;
}

/* Objects that nobody has open, and that only a sync keeps in memory with a descriptor each. */
static int step_closed(Store *store)
{
        _cleanup_(retired_done) Retired retired = {};
        unsigned n_closed;
        int r;

        store_lock(store);
        n_closed = store->n_closed;
        store_unlock(store);
        if (n_closed <= (atomic_load(&store->draining) ? 0 : CLOSED_MAX))
                return 0;
        r = list_retired(store, NO_SEGMENT - 1, want_closed, SIZE_MAX, &retired);
        if (r || !retired.n)
                return 0;
        r = sync_retired(store, &retired);
        return r == -ENOMEM ? 0 : r ?: 1;
}

int store_background_step(Store *store)
{
        static int (*const steps[])(Store *) = {
                step_due,
                step_segment,
                step_retire,
                step_crowded,
                step_closed,
                step_spill,
        };
        int r = atomic_load(&store->failure);
        uint64_t work_calls, room_calls;

        store_lock(store);
        work_calls = store->work_calls;
        room_calls = store->room_calls;
        store_unlock(store);
        store->unsettled = false;
        /* An archive file takes many steps: neither it nor the rest waits for the other's end. */
        store->archive_turn = !store->archive_turn;
        if (!r && store->archive_turn)
                r = archive_step(store);
        /* Nor does a journal that fills up wait for it for long. */
        store->late_turn = !store->late_turn;
        if (!r && store->late_turn)
                r = late_step(store);
        for (size_t i = 0; !r && i < ELEMENTSOF(steps); i++)
                r = steps[i](store);
        if (!r && !store->late_turn)
                r = late_step(store);
        if (!r && !store->archive_turn)
                r = archive_step(store);
        store->n_unsettled = r == 0 && store->unsettled ? store->n_unsettled + 1 : 0;
        if (r)
                return r;
        archive_note_idle(store);
        /* A commit that is durable is published in a moment: then the segment can go. */
        if (!store->n_unsettled || store->n_unsettled > UNSETTLED_MAX)
                room_note_stuck(store, work_calls, room_calls);
        return 0;
}

void store_set_draining(Store *store, bool draining)
{
        atomic_store(&store->draining, draining);
        store_call_work(store);
}

/* What logs that ended leave free is kept for the next, by the pool of their pages and, between
 * what lives long, by malloc; once much has come together it goes back. */
static void give_memory_back(Store *store)
{
        uint64_t now = atomic_load(&store->wal_bytes);

        store->wal_peak = MAX(store->wal_peak, now);
        if (store->wal_peak - now < TRIM_BYTES)
                return;
        page_pool_trim();
        malloc_trim(0);
        store->wal_peak = now;
}

static void get_time(uint64_t after_ns, struct timespec *ret)
{
        uint64_t ns;

        clock_gettime(CLOCK_REALTIME, ret);
        ns = (uint64_t)ret->tv_nsec + after_ns;
        ret->tv_sec += (time_t)(ns / UINT64_C(1000000000));
        ret->tv_nsec = (long)(ns % UINT64_C(1000000000));
}

/* Until there is work, or a while when something is to be tried again. */
static bool wait_for_work(Store *store)
{
        bool is_unsettled = store->n_unsettled && store->n_unsettled <= UNSETTLED_MAX;
        bool retry = store->retry || is_unsettled, stop;
        struct timespec until;
        int r = 0;

        store->retry = false;
        give_memory_back(store);
        get_time(is_unsettled ? UNSETTLED_NS : RETRY_NS, &until);
        store_lock(store);
        while (!r && !store->stop_background && store->work_seen == store->work_calls &&
                store->room_seen == store->room_calls)
                r = retry ? pthread_cond_timedwait(&store->work, &store->mutex, &until)
                          : pthread_cond_wait(&store->work, &store->mutex);
        store->work_seen = store->work_calls;
        store->room_seen = store->room_calls;
        stop = store->stop_background;
        store_unlock(store);
        return !stop;
}

static void *run_background(void *data)
{
        Store *store = data;
        bool go_on = true;

        while (go_on && !atomic_load(&store->failure)) {
                int r;

                store->wal_peak = MAX(store->wal_peak, atomic_load(&store->wal_bytes));
                r = store_background_step(store);
                if (r <= 0) {
                        go_on = wait_for_work(store);
                        continue;
                }
                store_lock(store);
                go_on = !store->stop_background;
                store_unlock(store);
        }
        return NULL;
}

int store_start_background(Store *store)
{
        int r = pthread_create(&store->background, NULL, run_background, store);

        if (r)
                return -r;
        store->has_background = true;
        return 0;
}

void store_stop_background(Store *store)
{
        if (!store->has_background)
                return;
        store_lock(store);
        store->stop_background = true;
        pthread_cond_signal(&store->work);
        store_unlock(store);
        pthread_join(store->background, NULL);
        store->has_background = store->stop_background = false;
}
