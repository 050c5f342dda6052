/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store-private.h"

#include <errno.h>
#include <sys/mman.h>

/* SQLite's lock bytes: PENDING, RESERVED and the SHARED range. */
#define LOCK_OFFSET 0x40000000u
#define LOCK_LEN 512u
#define NEW_PAGE_SIZE 4096u
#define DB_HEADER_SIZE 100u
/* Pages of a log that stay in memory for the deltas to come, though they are in the file. */
#define PAGES_KEPT 64u
#define END_WAIT_NS 20000000

static void put_be16(unsigned char *out, unsigned value)
{
        out[0] = (unsigned char)(value >> 8);
        out[1] = (unsigned char)value;
}

/*
 * Page 1 of a database that has nothing in it, in WAL mode: the file header, and an empty table's
 * leaf for the schema (SQLite's "Database File Format", 1.3 and 1.6).
 */
void node_first_page(const Node *node, unsigned char *page, size_t len, size_t offset)
{
        unsigned char head[DB_HEADER_SIZE + 8] = "SQLite format 3";
        unsigned page_size = node->page_size;
        size_t n = offset < sizeof head ? MIN(len, sizeof head - offset) : 0;

        put_be16(head + 16, page_size == 65536 ? 1 : page_size);
        head[18] = head[19] = 2; /* WAL */
        head[21] = 64;           /* payload fractions, all fixed */
        head[22] = head[23] = 32;
        head[27] = 1; /* change counter */
        head[31] = 1; /* pages */
        head[95] = 1; /* "version valid for" equals the change counter */
        put_be16(head + 96, 0);
        head[100] = 13; /* leaf of a table */
        put_be16(head + 105, page_size == 65536 ? 0 : page_size);
        memset(page, 0, len);
        memcpy(page, head + MIN(offset, sizeof head), n);
}

int node_read(Node *node, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        size_t done = 0, got = 0;
        int r = 0;

        if (node->is_new && offset < node->page_size) {
                done = MIN(len, (size_t)(node->page_size - offset));
                node_first_page(node, data, done, offset);
        }
        if (done < len && !node->needs_truncate)
                r = disk_read(node->file, (char *)data + done, len - done, offset + done, &got);
        if (!r)
                *ret_len = done + got;
        return r;
}

static uint32_t first_long_log(const Store *store)
{
        return LONG_LOG * MIN(store->options.checkpoint_at, UINT32_MAX / LONG_LOG / 2);
}

static Node *node_alloc(Store *store, const char *path)
{
        Node *node = calloc(1, sizeof *node);

        if (!node)
                return NULL;
        node->path = strdup(path);
        if (!node->path) {
                free(node);
                return NULL;
        }
        node->name = node->path + store->objects_len + 1;
        node->store = store;
        node->first_segment = node->named_segment = NO_SEGMENT;
        node->page_size = NEW_PAGE_SIZE;
        node->long_log = first_long_log(store);
        list_init(&node->link);
        list_init(&node->due);
        list_init(&node->logged);
        list_init(&node->held);
        pthread_mutex_init(&node->mutex, NULL);
        wal_init(&node->wal, store->disk, store->options.wal_heap_max);
        return node;
}

void node_free(Node *node)
{
        uint64_t before = wal_memory(&node->wal);

        wal_reset(&node->wal);
        node_count_wal(node, before);
        wal_index_drop(node);
        page_map_clear(&node->newest);
        free(node->newest.entries);
        free(node->superseded);
        free(node->marks);
        disk_close(node->file);
        pthread_mutex_destroy(&node->mutex);
        free(node->overflow_path);
        free(node->path);
        free(node);
}

/* What the file's own header says; a file that is none is SQLite's to judge. */
static int read_page_size(Node *node)
{
        unsigned char head[DB_HEADER_SIZE];
        unsigned page_size;
        size_t len;
        int r = disk_read(node->file, head, sizeof head, 0, &len);

        if (r || len < sizeof head)
                return r;
        page_size = (unsigned)head[16] << 8 | head[17];
        if (page_size == 1)
                page_size = 65536;
        if (page_size >= 512 && (page_size & (page_size - 1)) == 0)
                node->page_size = page_size;
        return 0;
}

static void node_begin_new(Node *node)
{
        node->is_new = node->needs_create = true;
        node->page_size = NEW_PAGE_SIZE;
        node->size = NEW_PAGE_SIZE;
}

/* It would pass for a new object, and what was in it would be gone without a word. */
static int refuse_emptied(Node *node)
{
        bool emptied;
        int r = disk_is_emptied(node->file, &emptied);

        if (!r && emptied) {
                store_complain(node->store, node->path,
                        "is empty, and was not emptied by this service: restore it, or remove it "
                        "if the object is to begin anew");
                r = -EUCLEAN;
        }
        return r;
}

/* Of an object's file: its folder, and the one of its class. */
enum { FOLDERS = 2 };

static size_t get_parent_len(const char *path, size_t len)
{
        while (len > 0 && path[len - 1] != '/')
                len--;
        return len > 0 ? len - 1 : 0;
}

static int note_folder(Store *store, Slice path)
{
        Folder *folder;
        int r;

        if (map_find(&store->folders, path))
                return 0;
        folder = calloc(1, sizeof *folder + path.len + 1);
        if (!folder)
                return -ENOMEM;
        memcpy(folder->path, path.data, path.len);
        r = map_insert(&store->folders, &folder->map, slice_from(folder->path));
        if (r)
                free(folder);
        return r;
}

int node_note_folders(Store *store, const char *path)
{
        size_t len = strlen(path);
        int r = 0;

        store_lock(store);
        for (int i = 0; !r && i < FOLDERS; i++) {
                len = get_parent_len(path, len);
                if (len > store->objects_len)
                        r = note_folder(store, slice_of(path, len));
        }
        store_unlock(store);
        return r;
}

static int complain_gone(Store *store, const char *folder)
{
        store_complain(
                store, folder, "this folder is gone: put it back; nothing is made in its place");
        return -ENOENT;
}

int node_check_folders(Store *store, const char *path)
{
        size_t len = strlen(path);
        uint64_t size;

        if (disk_stat_size(store->disk, store->objects_path, &size) == -ENOENT)
                return complain_gone(store, store->objects_path);
        for (int i = 0; i < FOLDERS; i++) {
                _cleanup_(free_p) char *folder = NULL;
                bool is_known;

                len = get_parent_len(path, len);
                if (len <= store->objects_len)
                        break;
                folder = slice_dup(slice_of(path, len));
                if (!folder)
                        return -ENOMEM;
                store_lock(store);
                is_known = map_find(&store->folders, slice_from(folder)) != NULL;
                store_unlock(store);
                if (is_known && disk_stat_size(store->disk, folder, &size) == -ENOENT)
                        return complain_gone(store, folder);
        }
        return 0;
}

static int look_into_file(Node *node)
{
        int r = disk_get_size(node->file, &node->size);

        r = r ?: node_note_folders(node->store, node->path);
        if (r)
                return r;
        if (node->size)
                return read_page_size(node);
        r = refuse_emptied(node);
        if (r)
                return r;
        /* Whose name that is, and whether it is durable, is not known: a creation that was never
         * acknowledged leaves an empty file. */
        node->entry_dirty = true;
        node_begin_new(node);
        return 0;
}

/* Opens and locks the file, and sees what is in it. */
static int node_open_file(Node *node, bool create)
{
        Disk *disk = node->store->disk;
        int r = disk_open(disk, node->path, 0, &node->file);

        if (r == -ENOENT && create) {
                r = disk_open(disk, node->path, DISK_CREATE, &node->file);
                node->entry_dirty = true;
        }
        r = r ?: disk_lock(node->file, LOCK_OFFSET, LOCK_LEN);
        r = r ?: look_into_file(node);
        if (r)
                node->file = disk_close(node->file);
        return r;
}
void node_ref(Node *node)
{
        node->store->n_closed -= node->n_refs == 0;
        node->n_refs++;
}

static Node *find_locked(Store *store, const char *path, unsigned handles)
{
        MapNode *map = map_find(&store->nodes, slice_from(path));
        Node *node = map ? CONTAINER_OF(map, Node, map) : NULL;

        if (node) {
                node_ref(node);
                node->n_handles += handles;
        }
        return node;
}

void node_note_due(Node *node)
{
        if (list_is_linked(&node->due))
                return;
        list_append(&node->store->due, &node->due);
        node->store->n_due++;
}

static void forget_due(Node *node)
{
        node->store->n_due -= list_is_linked(&node->due);
        list_unlink(&node->due);
}

void node_note_logged(Node *node, bool is_logged)
{
        if (is_logged == list_is_linked(&node->logged))
                return;
        if (is_logged)
                list_append(&node->store->logged, &node->logged);
        else
                list_unlink(&node->logged);
        node->store->n_logged += is_logged ? 1 : SIZE_MAX;
}

void node_set_first_segment(Node *node, uint64_t segment)
{
        List *head = &node->store->held, *at = head;

        list_unlink(&node->held);
        node->first_segment = segment;
        if (segment == NO_SEGMENT)
                return;
        /* It is the newest, or near. */
        while (at->prev != head && list_entry(at->prev, Node, held)->first_segment > segment)
                at = at->prev;
        list_link_before(at, &node->held);
}

void node_unlink(Node *node)
{
        list_unlink(&node->link);
        forget_due(node);
        node_note_logged(node, false);
        list_unlink(&node->held);
}

/* A deleted object that is opened again: its file's content is void, what is to come is new. */
static void node_revive(Node *node)
{
        node->deleted = false;
        node->needs_truncate = true;
        node_begin_new(node);
        store_lock(node->store);
        node_note_due(node);
        store_unlock(node->store);
}

static int node_insert(Store *store, Node *node)
{
        int r;

        if (store->last_object == UINT32_MAX)
                return -EOVERFLOW;
        node->object = store->last_object + 1;
        node->overflow_path = store_file_path(store, "overflow", node->object);
        if (!node->overflow_path)
                return -ENOMEM;
        node->wal.overflow_path = node->overflow_path;
        r = map_insert(&store->nodes, &node->map, slice_from(node->path));
        if (r)
                return r;
        store->last_object++;
        node->n_refs = 1;
        list_append(&store->node_list, &node->link);
        return 0;
}

Node *node_find(Store *store, const char *path)
{
        Node *node;

        store_lock(store);
        node = find_locked(store, path, 0);
        store_unlock(store);
        return node;
}

/* Takes up a node that is there; -ENOENT when it is deleted and nobody asks to create it. */
static int node_take_up(Node *node, bool create)
{
        int r = 0;

        node_lock(node);
        if (!node->file)
                r = node_open_file(node, create);
        else if (node->deleted && create)
                node_revive(node);
        else if (node->deleted)
                r = -ENOENT;
        node_unlock(node);
        return r;
}

static int run_checkpoint(const char *path)
{
        sqlite3 *db = NULL;
        int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix");

        if (rc == SQLITE_OK)
                rc = sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL);
        /* The last connection removes the log. */
        if (sqlite3_close(db) != SQLITE_OK && rc == SQLITE_OK)
                rc = SQLITE_BUSY;
        return rc == SQLITE_OK ? 0 : (rc & 0xff) == SQLITE_BUSY ? -EAGAIN : -EUCLEAN;
}

/*
 * A log beside a file that no journal knows of: the file comes from another program, or from a
 * service without a journal. What is in it goes into the file, and the log for good: if it came
 * back after a crash it would be written over newer commits.
 */
static int fold_foreign_log(Store *store, const char *path)
{
        _cleanup_(free_p) char *log = NULL, *folder = NULL;
        const char *slash = strrchr(path, '/');
        uint64_t size;
        int r;

        if (asprintf(&log, "%s-wal", path) < 0)
                return -ENOMEM;
        r = disk_stat_size(store->disk, log, &size);
        if (r)
                return r == -ENOENT ? 0 : r;
        folder = slice_dup(slice_of(path, (size_t)(slash - path)));
        if (!folder)
                return -ENOMEM;
        /* Beside no file it is a log of nothing. */
        if (size && disk_stat_size(store->disk, path, &size) != -ENOENT)
                r = run_checkpoint(path);
        if (r) {
                store_log(store, LOG_ERR,
                        "%s: a log of another program cannot be read into the "
                        "database: %s",
                        log, strerror(-r));
                return r;
        }
        r = disk_unlink(store->disk, log);
        if (r && r != -ENOENT)
                return r;
        return disk_sync_folder(store->disk, folder);
}

static int open_new(Store *store, const char *path, bool create, unsigned handles, Node **ret)
{
        Node *node;
        int r;

        if (strlen(path) - store->objects_len - 1 > JOURNAL_NAME_MAX)
                return -ENAMETOOLONG;
        node = node_alloc(store, path);
        if (!node)
                return -ENOMEM;
        node->n_handles = handles;
        r = fold_foreign_log(store, path);
        r = r ?: node_open_file(node, create);
        if (!r) {
                store_lock(store);
                r = node_insert(store, node);
                store_unlock(store);
        }
        if (r)
                node_free(node);
        else
                *ret = node;
        return r;
}

int node_adopt(Store *store, const char *path, DiskFile **file, uint64_t first_segment)
{
        Node *node = node_alloc(store, path);
        int r;

        if (!node)
                return -ENOMEM;
        node->file = *file;
        node->dirty = node->entry_dirty = !SABOTAGED(SABOTAGE_REDO_SYNC);
        r = look_into_file(node);
        if (!r) {
                store_lock(store);
                r = node_insert(store, node);
                if (!r)
                        node_set_first_segment(node, first_segment);
                store_unlock(store);
        }
        if (r) {
                node->file = NULL;
                node_free(node);
                return r;
        }
        *file = NULL;
        node_unref(node);
        return 0;
}

static int open_any(Store *store, const char *path, bool create, unsigned handles, Node **ret)
{
        Node *node;
        int r = late_ensure(store, path);

        if (r)
                return r;
        store_lock(store);
        node = find_locked(store, path, handles);
        store_unlock(store);
        if (!node) {
                r = open_new(store, path, create, handles, ret);
                if (r != -EAGAIN)
                        return r;
                /* The lock may be that of a node which another thread opened meanwhile. */
                store_lock(store);
                node = find_locked(store, path, handles);
                store_unlock(store);
                if (!node)
                        return r;
        }
        r = node_take_up(node, create);
        if (!r)
                *ret = node;
        else if (handles)
                node_close_handle(node);
        else
                node_unref(node);
        return r;
}

int node_open(Store *store, const char *path, bool create, Node **ret)
{
        return open_any(store, path, create, 0, ret);
}

int node_open_handle(Store *store, const char *path, bool create, Node **ret)
{
        return open_any(store, path, create, 1, ret);
}

/* Everything is in the file and the file is synced, or there never was anything. */
static bool node_is_clean(const Node *node)
{
        return node->first_segment == NO_SEGMENT && !node->captured && !node->dirty &&
               !node->deleted && !node->needs_truncate;
}

bool node_try_free(Node *node)
{
        if (node->n_refs || !node_is_clean(node))
                return false;
        map_remove(&node->store->nodes, &node->map);
        node_unlink(node);
        node->store->n_closed--;
        return true;
}

void node_unref(Node *node)
{
        Store *store = node->store;
        bool gone;

        store_lock(store);
        dd_assert(node->n_refs > 0);
        node->n_refs--;
        store->n_closed += node->n_refs == 0;
        if (node->n_refs == 0 && (node->deleted || node->needs_truncate || node->captured))
                node_note_due(node);
        if (node->n_refs == 1)
                pthread_cond_broadcast(&store->changed);
        gone = node_try_free(node);
        store_unlock(store);
        if (gone)
                node_free(node);
}

void node_close_handle(Node *node)
{
        store_lock(node->store);
        dd_assert(node->n_handles > 0);
        node->n_handles--;
        store_unlock(node->store);
        node_unref(node);
}

bool node_has_handles(Node *node)
{
        bool has;

        store_lock(node->store);
        has = node->n_handles > 0;
        store_unlock(node->store);
        return has;
}

/* A checkpoint holds a reference and counts on the log while it is without the mutex. */
void node_lock_idle(Node *node)
{
        Store *store = node->store;

        for (;;) {
                node_lock(node);
                if (!node->checkpointing || node_has_handles(node))
                        return;
                node_unlock(node);
                store_lock(store);
                if (node->n_refs > 1)
                        pthread_cond_wait(&store->changed, &store->mutex);
                store_unlock(store);
        }
}

void node_note_superseded(Node *node, const PageFrame *newer)
{
        uint32_t frame = page_map_find(&node->newest, newer->page);

        if (!frame || frame == newer->frame)
                return;
        if (node->n_superseded == node->superseded_room) {
                size_t room = MAX(2 * node->superseded_room, (size_t)4);
                uint32_t *frames = realloc(node->superseded, room * sizeof *frames);

                /* It goes with its log. */
                if (!frames)
                        return;
                node->superseded = frames;
                node->superseded_room = room;
        }
        node->superseded[node->n_superseded++] = frame;
}

void node_drop_pages(Node *node)
{
        uint64_t before = wal_memory(&node->wal);
        uint32_t backfilled = atomic_load(&node->backfilled);

        while (node->n_superseded)
                wal_drop_page(&node->wal, node->superseded[--node->n_superseded]);
        /* Who begins to read now does not look for what is in the file. */
        while (node->wal.n_pages > PAGES_KEPT && node->dropped < backfilled)
                wal_drop_page(&node->wal, ++node->dropped);
        node_count_wal(node, before);
}

uint64_t node_segment_of(const Node *node, uint32_t frame)
{
        uint64_t segment = NO_SEGMENT;

        for (size_t i = 0; i < node->n_marks && node->marks[i].frame <= frame; i++)
                segment = node->marks[i].segment;
        return segment;
}

void node_begin_log(Node *node)
{
        page_map_clear(&node->newest);
        node->newest_unknown = false;
        if (atomic_load(&node->captured)) {
                store_lock(node->store);
                node_note_logged(node, false);
                if (atomic_load(&node->captured) >= node->long_log)
                        pthread_cond_broadcast(&node->store->changed);
                atomic_store(&node->captured, 0);
                node->long_log = first_long_log(node->store);
                store_unlock(node->store);
        }
        atomic_store(&node->backfilled, 0);
        node->n_superseded = 0;
        node->dropped = 0;
        memset(node->durable, 0, sizeof node->durable);
        node->last_header = node->txn_first = 0;
        node->n_marks = 0;
        node->generation++;
}

void node_count_wal(Node *node, uint64_t before)
{
        atomic_fetch_add(&node->store->wal_bytes, wal_memory(&node->wal) - before);
}

/* The log is empty: nobody reads from it and all of it is in the file, or void. */
void node_drop_wal(Node *node)
{
        uint64_t before = wal_memory(&node->wal);

        wal_reset(&node->wal);
        node_count_wal(node, before);
        node_begin_log(node);
}

void node_wait_for_end(Node *node)
{
        Store *store = node->store;
        struct timespec until;
        int r;

        if (pthread_equal(pthread_self(), store->loop_thread) || !store->has_background)
                return;
        r = store_sync(store, atomic_load(&node->last_lsn));
        store_call_work(store);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += END_WAIT_NS;
        until.tv_sec += until.tv_nsec / NSEC_PER_SEC;
        until.tv_nsec %= NSEC_PER_SEC;
        store_lock(store);
        while (!r && atomic_load(&node->captured) >= node->long_log)
                r = atomic_load(&store->failure)
                            ? -EIO
                            : pthread_cond_timedwait(&store->changed, &store->mutex, &until);
        /* Somebody else reads: not again at once. */
        if (r && node->long_log < UINT32_MAX / 2)
                node->long_log *= 2;
        store_unlock(store);
}

uint32_t node_get_durable(const Node *node)
{
        uint64_t flushed = atomic_load(&node->store->flushed);

        if (flushed >= atomic_load(&node->last_lsn) || SABOTAGED(SABOTAGE_WAL_RULE))
                return atomic_load(&node->captured);
        for (int i = 1; i >= 0; i--)
                if (node->durable[i].lsn <= flushed)
                        return node->durable[i].frame;
        return 0;
}
