/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/history.h"

#include <errno.h>

/*
 * The methods of a scratch file on the VFS "durable": a database that one connection alone looks
 * at, on the Store's disk, without locks, syncs, journal or log
 */

#define SCRATCH_PREFIX "/restore-"
#define SCRATCH_DIGITS 16

bool vfs_is_scratch(Store *store, const char *path)
{
        size_t len = path ? strlen(store->journal_path) : 0;

        return path && strncmp(path, store->journal_path, len) == 0 &&
               strncmp(path + len, SCRATCH_PREFIX, sizeof SCRATCH_PREFIX - 1) == 0 &&
               strspn(path + len + sizeof SCRATCH_PREFIX - 1, "0123456789abcdef") == SCRATCH_DIGITS;
}

static DiskFile *get_file(sqlite3_file *file)
{
        return ((ScratchFile *)file)->file;
}

static int scratch_close(sqlite3_file *base)
{
        disk_close(get_file(base));
        base->pMethods = NULL;
        return SQLITE_OK;
}

static int scratch_read(sqlite3_file *base, void *data, int len, sqlite3_int64 offset)
{
        size_t got = 0;
        int r = disk_read(get_file(base), data, (size_t)len, (uint64_t)offset, &got);

        if (r)
                return vfs_map_error(r, SQLITE_IOERR_READ);
        memset((char *)data + got, 0, (size_t)len - got);
        return got < (size_t)len ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static int scratch_write(sqlite3_file *base, const void *data, int len, sqlite3_int64 offset)
{
        int r = disk_write(get_file(base), data, (size_t)len, (uint64_t)offset, 0);

        return vfs_map_error(r, SQLITE_IOERR_WRITE);
}

static int scratch_truncate(sqlite3_file *base, sqlite3_int64 size)
{
        return vfs_map_error(disk_truncate(get_file(base), (uint64_t)size), SQLITE_IOERR_TRUNCATE);
}

static int scratch_sync(sqlite3_file *base, int flags)
{
        return SQLITE_OK;
}

static int scratch_size(sqlite3_file *base, sqlite3_int64 *ret)
{
        uint64_t size;
        int r = disk_get_size(get_file(base), &size);

        if (r)
                return vfs_map_error(r, SQLITE_IOERR_FSTAT);
        *ret = (sqlite3_int64)size;
        return SQLITE_OK;
}

static int scratch_lock(sqlite3_file *base, int level)
{
        return SQLITE_OK;
}

static int scratch_check_reserved(sqlite3_file *base, int *ret)
{
        *ret = 0;
        return SQLITE_OK;
}

static int scratch_control(sqlite3_file *base, int op, void *data)
{
        return SQLITE_NOTFOUND;
}

static int scratch_sector_size(sqlite3_file *base)
{
        return (int)DISK_BLOCK;
}

static int scratch_characteristics(sqlite3_file *base)
{
        return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods scratch_methods = {
        .iVersion = 1,
        .xClose = scratch_close,
        .xRead = scratch_read,
        .xWrite = scratch_write,
        .xTruncate = scratch_truncate,
        .xSync = scratch_sync,
        .xFileSize = scratch_size,
        .xLock = scratch_lock,
        .xUnlock = scratch_lock,
        .xCheckReservedLock = scratch_check_reserved,
        .xFileControl = scratch_control,
        .xSectorSize = scratch_sector_size,
        .xDeviceCharacteristics = scratch_characteristics,
};

int vfs_open_scratch(Store *store, const char *path, sqlite3_file *base)
{
        ScratchFile *file = (ScratchFile *)base;
        DiskFile *opened;
        int r = disk_open(store->disk, path, 0, &opened);

        if (r)
                return r;
        *file = (ScratchFile){ .base.pMethods = &scratch_methods, .file = opened };
        return 0;
}
