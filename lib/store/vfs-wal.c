/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store-private.h"

#include <errno.h>

/*
 * The methods of a write-ahead log on the VFS "durable"
 *
 * Frames arrive as a header of 24 bytes and a page. Those that SQLite writes before the commit,
 * when its cache overflows, may be written again, and a ROLLBACK TO goes back without a call: what
 * counts is the header that was written last when SQLite asks for the sync that is its commit. It
 * names the pages of the database, and is the log's last frame.
 */

/* Logs together take at most so many times wal_total_max of heap, where nothing can be written to
 * the files: what is beyond goes to overflow files, and a disk that is full refuses it. */
#define WAL_TOTAL_FACTOR 4u

static Node *get_node(sqlite3_file *file)
{
        return ((DurableFile *)file)->node;
}

static int wal_close(sqlite3_file *base)
{
        Node *node = get_node(base);

        base->pMethods = NULL;
        node_unref(node);
        return SQLITE_OK;
}

static int wal_file_read(sqlite3_file *base, void *data, int len, sqlite3_int64 offset)
{
        Node *node = get_node(base);
        size_t got = 0;
        int r;

        node_lock(node);
        r = wal_read(&node->wal, data, (size_t)len, (uint64_t)offset, &got);
        node_unlock(node);
        if (r)
                return vfs_map_error(r, SQLITE_IOERR_READ);
        return got < (size_t)len ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static void note_write(Node *node, size_t len, uint64_t offset)
{
        uint64_t at;

        /* The log begins anew: all of it before is in the file, or was never captured. */
        if (offset < WAL_HEADER_SIZE)
                return node_begin_log(node);
        at = offset - WAL_HEADER_SIZE;
        if (len == WAL_FRAME_HEADER_SIZE && at % wal_frame_size(&node->wal) == 0)
                node->last_header = (uint32_t)(at / wal_frame_size(&node->wal)) + 1;
}

static int wal_file_write(sqlite3_file *base, const void *data, int len, sqlite3_int64 offset)
{
        Node *node = get_node(base);
        uint64_t before;
        int r;

        node_lock(node);
        before = wal_memory(&node->wal);
        /* A captured commit that SQLite has not published would be written over. */
        if (offset < WAL_HEADER_SIZE && node->txn_first)
                capture_settle(node);
        node->wal.is_squeezed = atomic_load(&node->store->wal_bytes) >
                                WAL_TOTAL_FACTOR * node->store->options.wal_total_max;
        r = wal_write(&node->wal, data, (size_t)len, (uint64_t)offset);
        if (!r)
                note_write(node, (size_t)len, (uint64_t)offset);
        node_count_wal(node, before);
        node_unlock(node);
        return vfs_map_error(r, SQLITE_IOERR_WRITE);
}

static int wal_file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
        return SQLITE_OK;
}

/* The frame that a sync commits, or 0. */
static uint32_t find_commit(Node *node)
{
        uint32_t page, db_pages;

        if (node->last_header <= node->captured ||
                wal_read_header(&node->wal, node->last_header, &page, &db_pages) || !db_pages)
                return 0;
        return node->last_header;
}

/* Invariant 1. */
static int wal_file_sync(sqlite3_file *base, int flags)
{
        Node *node = get_node(base);
        int r;

        do {
                uint32_t frame;

                node_lock(node);
                frame = find_commit(node);
                /* A second commit under one WRITE lock: the first has been published. */
                if (frame && node->txn_first)
                        capture_settle(node);
                r = frame ? capture_commit(node, frame) : 0;
                node_unlock(node);
        } while ((r == -EAGAIN || r == -ENOSPC) && !room_wait(node, r));
        if (r == -EAGAIN)
                r = -ENOSPC;
        if (!r)
                journal_wake(node->store);
        return vfs_map_error(r, SQLITE_IOERR_FSYNC);
}

static int wal_file_size(sqlite3_file *base, sqlite3_int64 *ret)
{
        Node *node = get_node(base);

        node_lock(node);
        *ret = (sqlite3_int64)wal_size(&node->wal);
        node_unlock(node);
        return SQLITE_OK;
}

static int wal_lock(sqlite3_file *base, int level)
{
        return SQLITE_OK;
}

static int wal_check_reserved(sqlite3_file *base, int *ret)
{
        *ret = 0;
        return SQLITE_OK;
}

static int wal_control(sqlite3_file *base, int op, void *data)
{
        return SQLITE_NOTFOUND;
}

static int wal_sector_size(sqlite3_file *base)
{
        return (int)DISK_BLOCK;
}

static int wal_characteristics(sqlite3_file *base)
{
        return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

const sqlite3_io_methods durable_wal_methods = {
        .iVersion = 1,
        .xClose = wal_close,
        .xRead = wal_file_read,
        .xWrite = wal_file_write,
        .xTruncate = wal_file_truncate,
        .xSync = wal_file_sync,
        .xFileSize = wal_file_size,
        .xLock = wal_lock,
        .xUnlock = wal_lock,
        .xCheckReservedLock = wal_check_reserved,
        .xFileControl = wal_control,
        .xSectorSize = wal_sector_size,
        .xDeviceCharacteristics = wal_characteristics,
};
