/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive.h"
#include "lib/store/late-redo.h"

#include "lib/store/crc32c.h"

#include <errno.h>
#include <stdarg.h>

#define SEGMENT_SIZE_DEFAULT (UINT64_C(64) << 20)
#define SEGMENT_SIZE_MIN (UINT64_C(256) << 10)
#define SEGMENT_SIZE_MAX (UINT64_C(2) << 30)
#define SEGMENTS_DEFAULT 8
#define SEGMENTS_MIN 3
#define SEGMENTS_MAX 100
#define QUEUE_DEFAULT (UINT64_C(64) << 20)
#define WAL_HEAP_DEFAULT (UINT64_C(16) << 20)
#define WAL_TOTAL_DEFAULT (UINT64_C(64) << 20)
#define SPILL_DEFAULT (UINT64_C(16) << 20)
#define CHECKPOINT_DEFAULT 128
#define COMPLAIN_NS (10 * UINT64_C(1000000000))
#define ARCHIVE_DAYS_DEFAULT 30
#define ARCHIVE_MAX_DEFAULT (UINT64_C(10) << 30)

#ifdef STORE_SABOTAGE
unsigned store_sabotage;
#endif

void store_log(Store *store, int priority, const char *format, ...)
{
        char line[1024];
        va_list args;

        if (!store->options.log)
                return;
        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        store->options.log(priority, line, store->options.data);
}

/* Of the lines that are known the oldest makes room. */
bool store_may_log(Store *store, const char *what)
{
        uint64_t now = disk_clock_monotonic(store->disk) | 1;
        uint32_t hash = crc32c(0, what, strlen(what));
        size_t at = 0;
        bool is_known;

        store_lock(store);
        for (size_t i = 0; i < ELEMENTSOF(store->logged_lines); i++) {
                if (store->logged_lines[i].what == hash) {
                        at = i;
                        break;
                }
                if (store->logged_lines[i].at < store->logged_lines[at].at)
                        at = i;
        }
        is_known = store->logged_lines[at].at && store->logged_lines[at].what == hash &&
                   now - store->logged_lines[at].at < COMPLAIN_NS;
        if (!is_known) {
                store->logged_lines[at].what = hash;
                store->logged_lines[at].at = now;
        }
        store_unlock(store);
        return !is_known;
}

void store_complain(Store *store, const char *path, const char *format, ...)
{
        char line[512];
        va_list args;

        if (!store_may_log(store, path))
                return;
        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        store_log(store, LOG_ERR, "%s: %s; other objects are not concerned", path, line);
}

void store_fail(Store *store, int error, const char *format, ...)
{
        char why[256];
        int expected = 0;
        va_list args;

        dd_assert(error < 0);
        if (!atomic_compare_exchange_strong(&store->failure, &expected, error))
                return;
        va_start(args, format);
        vsnprintf(why, sizeof why, format, args);
        va_end(args);
        store_log(store, LOG_CRIT, "%s; the store ends, its successor replays the journal", why);
        store_lock(store);
        pthread_cond_broadcast(&store->changed);
        pthread_cond_signal(&store->work);
        store_unlock(store);
        if (store->options.failed)
                store->options.failed(error, why, store->options.data);
}

void store_call_work(Store *store)
{
        if (store->options.work)
                store->options.work(store->options.data);
        store_lock(store);
        store->work_calls++;
        pthread_cond_signal(&store->work);
        store_unlock(store);
}

char *store_file_path(Store *store, const char *kind, uint64_t number)
{
        char *path;

        if (asprintf(&path, "%s/%s-%016llx", store->journal_path, kind,
                    (unsigned long long)number) < 0)
                return NULL;
        return path;
}

/*
 * Makes a folder and its missing parents, each name durable. One that is there may have been made
 * by a process that was killed before the name was durable, and so may the parent of one that was
 * missing.
 */
int store_make_folder(Disk *disk, const char *path)
{
        const char *slash = strrchr(path, '/');
        _cleanup_(free_p) char *parent = NULL;
        bool is_top = !slash || slash == path;
        int r = disk_mkdir(disk, path), made = r;

        parent = !slash ? strdup(".")
                        : slice_dup(slice_of(path, slash == path ? 1 : (size_t)(slash - path)));
        if (!parent)
                return -ENOMEM;
        if ((made == 0 || made == -ENOENT) && !is_top) {
                r = store_make_folder(disk, parent);
                if (!r && made)
                        r = disk_mkdir(disk, path);
        }
        if (r && r != -EEXIST)
                return r;
        return disk_sync_folder(disk, parent);
}

int store_sync_name(Store *store, const char *path)
{
        _cleanup_(free_p) char *folder = strdup(path);
        size_t len = strlen(path);
        int r = folder ? 0 : -ENOMEM;

        while (!r && len > store->objects_len) {
                while (folder[--len] != '/')
                        ;
                folder[len] = '\0';
                r = disk_sync_folder(store->disk, folder);
                if (SABOTAGED(SABOTAGE_PARENTS))
                        break;
        }
        return r;
}

static int set_options(Store *store, const StoreOptions *options)
{
        StoreOptions *o = &store->options;

        *o = *options;
        o->segment_size = o->segment_size ?: SEGMENT_SIZE_DEFAULT;
        o->n_segments = o->n_segments ?: SEGMENTS_DEFAULT;
        o->queue_max = o->queue_max ?: QUEUE_DEFAULT;
        o->wal_heap_max = o->wal_heap_max ?: WAL_HEAP_DEFAULT;
        o->wal_total_max = o->wal_total_max ?: WAL_TOTAL_DEFAULT;
        o->spill_size = o->spill_size ?: SPILL_DEFAULT;
        o->checkpoint_at = o->checkpoint_at ?: CHECKPOINT_DEFAULT;
        o->archive_days = o->archive_days ?: ARCHIVE_DAYS_DEFAULT;
        o->archive_max = o->archive_max ?: ARCHIVE_MAX_DEFAULT;
        if (o->segment_size < SEGMENT_SIZE_MIN || o->segment_size > SEGMENT_SIZE_MAX ||
                o->segment_size % DISK_BLOCK || o->n_segments < SEGMENTS_MIN ||
                o->n_segments > SEGMENTS_MAX || !o->journal || !o->objects || o->objects[0] != '/')
                return -EINVAL;
        /* A record and a name must fit into what is left of an empty segment. */
        o->spill_size = MIN(o->spill_size, SPILL_DEFAULT);
        o->spill_size = MIN(o->spill_size, o->segment_size / 2);
        store->disk = o->disk ?: disk_real();
        store->journal_path = strdup(o->journal);
        store->objects_path = strdup(o->objects);
        store->archive_path = o->archive ? strdup(o->archive) : NULL;
        if (!store->journal_path || !store->objects_path || (o->archive && !store->archive_path))
                return -ENOMEM;
        store->objects_len = strlen(store->objects_path);
        return store->objects_path[store->objects_len - 1] == '/' ? -EINVAL : 0;
}

/* A journal that has been in use belongs to objects that have a folder. */
static int make_objects_folder(Store *store)
{
        _cleanup_(free_p) char *epoch = path_join(store->journal_path, "epoch");
        uint64_t size;

        if (!epoch)
                return -ENOMEM;
        if (disk_stat_size(store->disk, epoch, &size) == 0 &&
                disk_stat_size(store->disk, store->objects_path, &size) == -ENOENT) {
                store_log(store, LOG_ERR,
                        "the folder %s is gone, but the journal %s has been used with it: put it "
                        "back; nothing was changed",
                        store->objects_path, store->journal_path);
                return -ENOENT;
        }
        return store_make_folder(store->disk, store->objects_path);
}

static int take_lock(Store *store)
{
        _cleanup_(free_p) char *path = NULL;
        int r = store_make_folder(store->disk, store->journal_path);

        r = r ?: make_objects_folder(store);
        if (!r && asprintf(&path, "%s/lock", store->journal_path) < 0)
                r = -ENOMEM;
        r = r ?: disk_open(store->disk, path, DISK_CREATE, &store->lock);
        r = r ?: disk_lock(store->lock, 0, 1);
        if (r == -EAGAIN)
                store_log(store, LOG_ERR, "%s: another process has this journal",
                        store->journal_path);
        return r;
}

static Store *store_alloc(void)
{
        Store *store = calloc(1, sizeof *store);

        if (!store)
                return NULL;
        pthread_mutex_init(&store->mutex, NULL);
        pthread_cond_init(&store->changed, NULL);
        pthread_cond_init(&store->work, NULL);
        map_init(&store->nodes);
        map_init(&store->folders);
        map_init(&store->rooms);
        list_init(&store->node_list);
        list_init(&store->due);
        list_init(&store->logged);
        list_init(&store->held);
        list_init(&store->spills);
        list_init(&store->waiters);
        list_init(&store->room_queue);
        list_init(&store->room_waiters);
        list_init(&store->journal.ready);
        list_init(&store->journal.spare);
        store->loop_thread = pthread_self();
        store->retire_round = 1;
        return store;
}

static void free_folder(MapNode *map, void *data)
{
        free(CONTAINER_OF(map, Folder, map));
}

void store_free(Store *store)
{
        List *link;

        store->late = late_free(store->late);
        archive_done(store);
        journal_close(store);
        while ((link = list_first(&store->node_list))) {
                Node *node = list_entry(link, Node, link);

                /* What is still in use would be used after it. */
                dd_assert(node->n_refs == 0);
                map_remove(&store->nodes, &node->map);
                node_unlink(node);
                node_free(node);
        }
        while ((link = list_pop(&store->spills)))
                free(list_entry(link, Spill, link));
        map_for_each(&store->folders, free_folder, NULL);
        map_done(&store->folders);
        map_done(&store->rooms);
        map_done(&store->nodes);
        disk_close(store->lock);
        free(store->journal_path);
        free(store->objects_path);
        free(store->archive_path);
        pthread_cond_destroy(&store->changed);
        pthread_cond_destroy(&store->work);
        pthread_mutex_destroy(&store->mutex);
        free(store);
}

int store_new(const StoreOptions *options, Store **ret)
{
        Store *store = store_alloc();
        int r;

        if (!store)
                return -ENOMEM;
        r = set_options(store, options);
        r = r ?: take_lock(store);
        if (r)
                store_free(store);
        else
                *ret = store;
        return r;
}

int store_open(const StoreOptions *options, Store **ret)
{
        Store *store = NULL;
        int r = store_new(options, &store);

        if (r)
                return r;
        r = archive_open_folder(store);
        r = r ?: store_recover(store);
        r = r ?: vfs_register(store);
        if (r) {
                store_free(store);
                return r;
        }
        *ret = store;
        return 0;
}

unsigned store_count_connections(Store *store)
{
        unsigned n = 0;

        store_lock(store);
        list_for_each(link, &store->node_list) {
                n += list_entry(link, Node, link)->n_handles;
        }
        store_unlock(store);
        return n;
}

/* Who left connections behind; a guest does that with a thread that never ends. */
static void log_left_open(Store *store)
{
        list_for_each(link, &store->node_list) {
                const Node *node = list_entry(link, Node, link);

                if (node->n_handles)
                        store_log(store, LOG_WARNING,
                                "%s: the app left %u connections open: what they have committed is "
                                "kept, they can do nothing more",
                                node->name, node->n_handles);
        }
}

/* From here on whatever a connection does fails, and nobody is told of anything. */
static void leave_behind(Store *store)
{
        int expected = 0;

        atomic_compare_exchange_strong(&store->failure, &expected, -ESHUTDOWN);
        store_lock(store);
        store->options.wake = NULL;
        store->options.work = NULL;
        store->options.failed = NULL;
        store_unlock(store);
        atomic_store(&store->left_behind, true);
}

void store_let_go(Store *store)
{
        if (!store_count_connections(store))
                store_free(store);
}

Store *store_close(Store *store)
{
        store_stop_background(store);
        vfs_unregister();
        if (store_count_connections(store)) {
                log_left_open(store);
                leave_behind(store);
        } else {
                store_free(store);
        }
        return NULL;
}

int store_get_failure(Store *store)
{
        return atomic_load(&store->failure);
}

void store_get_stats(Store *store, StoreStats *ret)
{
        store_lock(store);
        *ret = store->stats;
        ret->flushed_lsn = atomic_load(&store->flushed);
        ret->captured_lsn = atomic_load(&store->captured);
        ret->queued_bytes = store->journal.queued;
        ret->wal_bytes = atomic_load(&store->wal_bytes);
        list_for_each(link, &store->node_list) {
                Node *node = list_entry(link, Node, link);

                ret->objects++;
                ret->dirty_objects += node->first_segment != NO_SEGMENT;
        }
        for (unsigned i = 0; i < store->journal.n_segments; i++) {
                ret->segments_live += store->journal.segments[i].state == SEGMENT_LIVE;
                ret->segments_free += store->journal.segments[i].state == SEGMENT_FREE;
        }
        store_unlock(store);
}

uint64_t store_get_lsn(Store *store)
{
        return atomic_load(&store->captured);
}

uint64_t store_object_lsn(Store *store, const char *path)
{
        MapNode *map;
        uint64_t lsn = 0;

        store_lock(store);
        map = map_find(&store->nodes, slice_from(path));
        if (map)
                lsn = atomic_load(&CONTAINER_OF(map, Node, map)->last_lsn);
        store_unlock(store);
        return lsn;
}

uint64_t store_flushed(Store *store)
{
        return atomic_load(&store->flushed);
}

bool store_wait(Store *store, StoreWaiter *waiter, uint64_t lsn)
{
        dd_assert(!list_is_linked(&waiter->link));
        if (!atomic_load(&store->failure) && atomic_load(&store->flushed) >= lsn)
                return true;
        waiter->lsn = lsn;
        list_append(&store->waiters, &waiter->link);
        return false;
}

void store_wait_cancel(Store *store, StoreWaiter *waiter)
{
        list_unlink(&waiter->link);
}

/* Each fn may wait again, and cancel others: what is due goes to a list of its own first. */
void store_fire_waiters(Store *store)
{
        int failure = atomic_load(&store->failure);
        uint64_t flushed = atomic_load(&store->flushed);
        List due, *link;

        list_init(&due);
        list_for_each_safe(each, &store->waiters) {
                if (failure || list_entry(each, StoreWaiter, link)->lsn <= flushed) {
                        list_unlink(each);
                        list_append(&due, each);
                }
        }
        while ((link = list_pop(&due))) {
                StoreWaiter *waiter = list_entry(link, StoreWaiter, link);

                waiter->fn(waiter, failure ? -EIO : 0);
        }
}

int store_sync(Store *store, uint64_t lsn)
{
        int r = 0;

        if (atomic_load(&store->flushed) < lsn)
                journal_wake(store);
        store_lock(store);
        while (!r && atomic_load(&store->flushed) < lsn) {
                if (atomic_load(&store->failure))
                        r = -EIO;
                else
                        pthread_cond_wait(&store->changed, &store->mutex);
        }
        store_unlock(store);
        return r;
}

void store_loop_flush(Store *store)
{
        if (atomic_load(&store->failure))
                store_fire_waiters(store);
        else
                journal_fill(store);
        room_fire(store);
}

bool store_loop_is_idle(Store *store)
{
        return journal_is_idle(store);
}

int store_loop_run(Store *store)
{
        do
                journal_fill(store);
        while (disk_poll(store->disk) > 0 && !atomic_load(&store->failure));
        store_fire_waiters(store);
        room_fire(store);
        return atomic_load(&store->failure);
}

static int delete_node(Node *node, bool tells)
{
        int r;

        node_lock_idle(node);
        r = node_has_handles(node) ? -EBUSY : capture_delete(node, tells);
        if (!r) {
                node_drop_wal(node);
                wal_index_drop(node);
        }
        node_unlock(node);
        return r;
}

/* Whether it was the disk that had no room, or nobody makes any in the journal. */
static bool is_out_of_room(Store *store, const Node *node, int error)
{
        bool is_full;

        if (error != -ENOSPC && error != -EDQUOT && error != -EFBIG)
                return false;
        store_lock(store);
        is_full = !node->wanted || store->full;
        store_unlock(store);
        return is_full;
}

int store_delete(Store *store, const char *path)
{
        bool tells = store->archive_path;
        Node *node;
        uint64_t size;
        int r = late_ensure(store, path);

        r = r ?: disk_stat_size(store->disk, path, &size);
        r = r ?: node_open(store, path, false, &node);
        if (r)
                return r;
        do
                r = delete_node(node, tells);
        while ((r == -EAGAIN || r == -ENOSPC) && !room_wait(node, r));
        /* To delete makes room: it comes before what a restore would want. */
        if (tells && is_out_of_room(store, node, r)) {
                r = delete_node(node, false);
                store_lock(store);
                store->stats.deletes_untold += r == 0;
                store_unlock(store);
                if (!r)
                        store_log(store, LOG_WARNING,
                                "%s: deleted while the disk is full: there is no room to keep "
                                "what it held, so none of its past can be restored",
                                node->name);
        }
        node_unref(node);
        if (!r) {
                journal_wake(store);
                store_call_work(store);
        }
        return r == -EAGAIN ? -ENOSPC : r;
}

int store_find_object(Store *store, const char *path)
{
        uint64_t size = 0;
        int r = late_ensure(store, path);
        Node *node = r ? NULL : node_find(store, path);

        if (r)
                return r;
        if (node) {
                node_lock(node);
                size = !node->deleted && (!node->is_new || atomic_load(&node->captured));
                node_unlock(node);
                node_unref(node);
        } else {
                r = disk_stat_size(store->disk, path, &size);
        }
        return r ?: size ? 0 : -ENOENT;
}
