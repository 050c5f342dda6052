/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store-private.h"

#include <errno.h>

/*
 * The methods of a database file on the VFS "durable"
 *
 * SQLite reads it, and never writes it: invariant 2 is kept by the background alone.
 */

#define VERSIONS_AT 18

static Node *get_node(sqlite3_file *file)
{
        return ((DurableFile *)file)->node;
}

static int main_close(sqlite3_file *base)
{
        DurableFile *file = (DurableFile *)base;
        Node *node = file->node;
        Store *store = node->store;

        if (file->has_shm)
                shm_unmap(base, 0);
        base->pMethods = NULL;
        node_close_handle(node);
        if (store->left_behind)
                store_let_go(store);
        else
                store_call_work(store);
        return SQLITE_OK;
}

/* A database in rollback mode, brought from elsewhere, is one in WAL mode here. */
static void show_wal_mode(unsigned char *data, size_t len, uint64_t offset)
{
        for (uint64_t at = VERSIONS_AT; at < VERSIONS_AT + 2; at++)
                if (at >= offset && at < offset + len && data[at - offset] == 1)
                        data[at - offset] = 2;
}

static int main_read(sqlite3_file *base, void *data, int len, sqlite3_int64 offset)
{
        Node *node = get_node(base);
        size_t got;
        int r;

        node_lock(node);
        r = node_read(node, data, (size_t)len, (uint64_t)offset, &got);
        node_unlock(node);
        if (r) {
                store_complain(node->store, node->path, "cannot be read at offset %lld: %s",
                        (long long)offset, strerror(-r));
                return vfs_map_error(r, SQLITE_IOERR_READ);
        }
        memset((char *)data + got, 0, (size_t)len - got);
        show_wal_mode(data, (size_t)len, (uint64_t)offset);
        return got < (size_t)len ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static int main_write(sqlite3_file *base, const void *data, int len, sqlite3_int64 offset)
{
        return SQLITE_IOERR_WRITE;
}

static int main_truncate(sqlite3_file *base, sqlite3_int64 size)
{
        return SQLITE_IOERR_TRUNCATE;
}

static int main_sync(sqlite3_file *base, int flags)
{
        return SQLITE_OK;
}

static int main_size(sqlite3_file *base, sqlite3_int64 *ret)
{
        Node *node = get_node(base);

        node_lock(node);
        *ret = (sqlite3_int64)node->size;
        node_unlock(node);
        return SQLITE_OK;
}

/* In WAL mode a connection holds SHARED, which keeps nobody out; what is more would mean a write of
 * the file, or the end of the log when the last connection closes. */
static int main_lock(sqlite3_file *base, int level)
{
        DurableFile *file = (DurableFile *)base;

        if (level > SQLITE_LOCK_SHARED)
                return SQLITE_BUSY;
        file->lock = MAX(file->lock, level);
        return SQLITE_OK;
}

static int main_unlock(sqlite3_file *base, int level)
{
        ((DurableFile *)base)->lock = level;
        return SQLITE_OK;
}

static int main_check_reserved(sqlite3_file *base, int *ret)
{
        *ret = 0;
        return SQLITE_OK;
}

/*
 * The modes are ours; who asks for another gets the answer that SQLite gives where it cannot change
 * one: the mode that stays.
 */
static int answer_pragma(char **pragma)
{
        const char *name = pragma[1], *value = pragma[2];
        static const struct {
                const char *name, *answer;
        } answers[] = {
                { "journal_mode", "wal" },
                { "locking_mode", "normal" },
                { "synchronous", "2" },
        };

        /* To what is always so SQLite answers itself, and with a number. */
        if (sqlite3_stricmp(name, "synchronous") == 0 &&
                (!value || sqlite3_stricmp(value, "full") == 0 || strcmp(value, "2") == 0))
                return SQLITE_NOTFOUND;
        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                if (sqlite3_stricmp(name, answers[i].name) != 0)
                        continue;
                /* Setting `synchronous` answers nothing elsewhere; but an answer without a text has
                 * a column without a name, which Python takes for a lack of memory. */
                pragma[0] = sqlite3_mprintf("%s", answers[i].answer);
                return pragma[0] ? SQLITE_OK : SQLITE_NOMEM;
        }
        return SQLITE_NOTFOUND;
}

static int main_control(sqlite3_file *base, int op, void *data)
{
        switch (op) {
        case SQLITE_FCNTL_PRAGMA:
                return answer_pragma(data);
        case SQLITE_FCNTL_VFSNAME:
                *(char **)data = sqlite3_mprintf("durable");
                return SQLITE_OK;
        case SQLITE_FCNTL_PERSIST_WAL: /* nothing is removed at close */
        case SQLITE_FCNTL_POWERSAFE_OVERWRITE:
                *(int *)data = 1;
                return SQLITE_OK;
        case SQLITE_FCNTL_HAS_MOVED:
                *(int *)data = 0;
                return SQLITE_OK;
        case SQLITE_FCNTL_LOCKSTATE:
                *(int *)data = ((DurableFile *)base)->lock;
                return SQLITE_OK;
        case SQLITE_FCNTL_SIZE_HINT:
        case SQLITE_FCNTL_CHUNK_SIZE:
                return SQLITE_OK;
        default:
                return SQLITE_NOTFOUND;
        }
}

static int main_sector_size(sqlite3_file *base)
{
        return (int)DISK_BLOCK;
}

static int main_characteristics(sqlite3_file *base)
{
        return SQLITE_IOCAP_POWERSAFE_OVERWRITE | SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN;
}

const sqlite3_io_methods durable_main_methods = {
        .iVersion = 2,
        .xClose = main_close,
        .xRead = main_read,
        .xWrite = main_write,
        .xTruncate = main_truncate,
        .xSync = main_sync,
        .xFileSize = main_size,
        .xLock = main_lock,
        .xUnlock = main_unlock,
        .xCheckReservedLock = main_check_reserved,
        .xFileControl = main_control,
        .xSectorSize = main_sector_size,
        .xDeviceCharacteristics = main_characteristics,
        .xShmMap = shm_map,
        .xShmLock = shm_lock,
        .xShmBarrier = shm_barrier,
        .xShmUnmap = shm_unmap,
};
