/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store-private.h"

#include <errno.h>

/*
 * Writing an object's flushed commits to its database file
 *
 * As SQLite's own checkpoint does it, seen from another connection: the CKPT lock, no reader that
 * bypasses the log (READ0), frames up to the oldest reader's mark; of each page the last frame, and
 * only when it is among them. What is written is synced later (node_sync()).
 */

enum { LOCK_WRITE = 0, LOCK_CKPT = 1, LOCK_READ0 = 3 };

/* What CREATE made void goes first. */
static int clear_file(Node *node)
{
        int r;

        if (!node->needs_truncate)
                return 0;
        node->dirty = true;
        r = disk_truncate(node->file, 0);
        if (!r)
                node->needs_truncate = false;
        return r;
}

/* A commit may have come meanwhile whose page is newer; then this one is nobody's concern. */
static int write_page(Node *node, const PageFrame *at, unsigned char *buffer, bool *ret_written)
{
        bool is_there;
        int r = 0;

        node_lock(node);
        is_there = wal_has_page(&node->wal, at->frame);
        if (is_there)
                r = wal_read_page(&node->wal, at->frame, buffer);
        node->dirty = true;
        node_unlock(node);
        if (!r && is_there)
                r = disk_write(node->file, buffer, node->wal.page_size,
                        (uint64_t)(at->page - 1) * node->wal.page_size, 0);
        *ret_written = is_there;
        return r;
}

/* Most often it is right, and to ask is cheaper than to set. */
static int set_size(Node *node, uint64_t size)
{
        uint64_t now;
        int r = disk_get_size(node->file, &now);

        if (r || now == size)
                return r;
        return disk_truncate(node->file, size);
}

static int write_pages(
        Node *node, const WalIndex *index, uint32_t safe, bool *ret_first, uint64_t *ret_n)
{
        _cleanup_(free_p) unsigned char *buffer = malloc(node->wal.page_size);
        _cleanup_(free_p) PageFrame *pages = NULL;
        size_t n = 0;
        int r = -ENOMEM;

        if (buffer) {
                node_lock(node);
                r = wal_list_pages(&node->wal, index->backfilled + 1, index->max_frame, &pages, &n);
                node_unlock(node);
        }
        for (size_t i = 0; !r && i < n; i++) {
                bool written;

                if (pages[i].frame > safe || pages[i].page > index->n_pages)
                        continue;
                r = write_page(node, &pages[i], buffer, &written);
                *ret_first |= written && pages[i].page == 1;
                *ret_n += written;
        }
        if (!r && safe == index->max_frame)
                r = set_size(node, (uint64_t)index->n_pages * node->wal.page_size);
        return r;
}

/* Everything is in the file: the log may begin anew, which gives its memory back. */
static void end_log(Node *node)
{
        WalIndex index;
        bool begun, done;

        if (!node->captured || !wal_index_read(node, &index))
                return;
        /* SQLite has begun it anew and written nothing yet. */
        begun = index.max_frame == 0 && node->locks[LOCK_WRITE] == 0;
        done = index.backfilled == index.max_frame && index.max_frame == node->captured;
        if (begun || (done && wal_index_restart(node)))
                node_drop_wal(node);
}

/*
 * Under the node's mutex: takes the locks; 0 when there is something to write, else -EAGAIN or,
 * when all is done, -EALREADY. Invariant 2: never beyond what is durable.
 */
static int begin_checkpoint(Node *node, WalIndex *index, uint32_t *ret_safe)
{
        uint32_t safe;

        if (atomic_load(&node->store->failure))
                return -EIO;
        if (node->txn_first || node->deleted)
                return -EAGAIN;
        if (!node->captured) {
                if (atomic_load(&node->last_lsn) > atomic_load(&node->store->flushed))
                        return -EAGAIN;
                return clear_file(node) ?: -EALREADY;
        }
        if (node->locks[LOCK_CKPT] || !wal_index_read(node, index))
                return -EAGAIN;
        if (index->max_frame != node->captured)
                return index->max_frame == 0 ? -EALREADY : -EAGAIN;
        if (index->backfilled >= index->max_frame)
                return -EALREADY;
        safe = node_get_durable(node);
        if (safe <= index->backfilled || node->locks[LOCK_READ0])
                return -EAGAIN;
        safe = wal_index_get_safe(node, safe);
        if (safe <= index->backfilled)
                return -EAGAIN;
        *ret_safe = safe;
        node->locks[LOCK_CKPT] = node->locks[LOCK_READ0] = -1;
        node->checkpointing = true;
        return clear_file(node);
}

int node_checkpoint(Node *node, bool *ret_done)
{
        WalIndex index = {};
        bool has_first = false;
        uint32_t safe = 0;
        uint64_t n_pages = 0;
        int r;

        node_lock(node);
        r = begin_checkpoint(node, &index, &safe);
        if (r == -EALREADY)
                end_log(node);
        node_unlock(node);
        *ret_done = r == -EALREADY;
        if (!safe)
                return r == -EALREADY || r == -EAGAIN ? 0 : r;
        r = r ?: write_pages(node, &index, safe, &has_first, &n_pages);
        node_lock(node);
        if (!r) {
                wal_index_set_backfilled(node, safe);
                atomic_store(&node->backfilled, safe);
                node->is_new &= !has_first;
                if (safe == index.max_frame)
                        node->size = (uint64_t)index.n_pages * node->wal.page_size;
                node->page_size = node->wal.page_size;
                *ret_done = safe == node->captured;
        }
        node->locks[LOCK_CKPT] = node->locks[LOCK_READ0] = 0;
        node->checkpointing = false;
        if (*ret_done)
                end_log(node);
        node_unlock(node);
        store_lock(node->store);
        node->store->stats.checkpoints++;
        node->store->stats.checkpointed_pages += n_pages;
        store_unlock(node->store);
        return r ?: 1;
}

void node_begin_sync(Node *node, NodeSync *ret)
{
        WalIndex index;

        node_lock(node);
        *ret = (NodeSync){
                .generation = node->generation,
                .backfilled = node->captured && wal_index_read(node, &index) && index.max_frame
                                      ? index.backfilled
                                      : 0,
                .file = node->dirty,
                .entry = node->entry_dirty,
                .is_void = node->deleted || node->needs_truncate,
        };
        node_unlock(node);
}

void node_end_sync(Node *node, const NodeSync *sync)
{
        uint32_t done;

        node_lock(node);
        /* Nobody else writes the file: what was dirty is synced. */
        node->dirty = false;
        node->entry_dirty = false;
        /* A log that began anew since was in the file as a whole. */
        done = node->generation == sync->generation ? sync->backfilled : 0;
        store_lock(node->store);
        /* DELETE is needed until the file is gone, or empty and synced. */
        if (!sync->is_void && !node->deleted && !node->needs_truncate)
                node_set_first_segment(
                        node, done < node->captured ? node_segment_of(node, done + 1) : NO_SEGMENT);
        store_unlock(node->store);
        node_unlock(node);
}

static int sync_entry(Node *node)
{
        return SABOTAGED(SABOTAGE_FOLDER_SYNC) ? 0 : store_sync_name(node->store, node->path);
}

int node_sync(Node *node)
{
        Store *store = node->store;
        NodeSync sync;
        int r = 0;

        node_begin_sync(node, &sync);
        if (!SABOTAGED(SABOTAGE_RETIRE_SYNC)) {
                if (sync.file)
                        r = disk_sync(node->file);
                if (!r && sync.entry)
                        r = sync_entry(node);
        }
        if (r == -ENOMEM)
                return r;
        if (r) {
                store_fail(store, r, "%s: cannot be synced: %s", node->name, strerror(-r));
                return r;
        }
        store_lock(store);
        store->stats.syncs += sync.file;
        store_unlock(store);
        node_end_sync(node, &sync);
        return 0;
}
