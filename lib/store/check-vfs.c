/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/check-private.h"

#include <errno.h>
#include <stdio.h>

#include <sqlite3.h>

/*
 * SQLite on a Disk whose files stand still: it is told that they are immutable, and so asks for
 * neither locks nor logs, not even where the header says WAL.
 */

typedef struct CheckFile {
        sqlite3_file base;
        DiskFile *file;
} CheckFile;

static sqlite3_vfs *root;

static int file_close(sqlite3_file *base)
{
        CheckFile *file = (CheckFile *)base;

        file->file = disk_close(file->file);
        return SQLITE_OK;
}

static int file_read(sqlite3_file *base, void *data, int len, sqlite3_int64 offset)
{
        CheckFile *file = (CheckFile *)base;
        size_t got;

        if (disk_read(file->file, data, (size_t)len, (uint64_t)offset, &got))
                return SQLITE_IOERR_READ;
        memset((char *)data + got, 0, (size_t)len - got);
        return got < (size_t)len ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static int file_write(sqlite3_file *base, const void *data, int len, sqlite3_int64 offset)
{
        return SQLITE_READONLY;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
        return SQLITE_READONLY;
}

static int file_sync(sqlite3_file *base, int flags)
{
        return SQLITE_OK;
}

static int file_get_size(sqlite3_file *base, sqlite3_int64 *ret)
{
        uint64_t size;

        if (disk_get_size(((CheckFile *)base)->file, &size))
                return SQLITE_IOERR_FSTAT;
        *ret = (sqlite3_int64)size;
        return SQLITE_OK;
}

static int file_lock(sqlite3_file *base, int lock)
{
        return SQLITE_OK;
}

static int file_check_lock(sqlite3_file *base, int *ret)
{
        *ret = 0;
        return SQLITE_OK;
}

static int file_control(sqlite3_file *base, int op, void *argument)
{
        return SQLITE_NOTFOUND;
}

static int file_get_sector(sqlite3_file *base)
{
        return (int)DISK_BLOCK;
}

static int file_get_traits(sqlite3_file *base)
{
        return SQLITE_IOCAP_IMMUTABLE;
}

static const sqlite3_io_methods methods = {
        .iVersion = 1,
        .xClose = file_close,
        .xRead = file_read,
        .xWrite = file_write,
        .xTruncate = file_truncate,
        .xSync = file_sync,
        .xFileSize = file_get_size,
        .xLock = file_lock,
        .xUnlock = file_lock,
        .xCheckReservedLock = file_check_lock,
        .xFileControl = file_control,
        .xSectorSize = file_get_sector,
        .xDeviceCharacteristics = file_get_traits,
};

static int vfs_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *base, int flags, int *ret)
{
        CheckFile *file = (CheckFile *)base;
        int r;

        /* SQLite's own temporary files. */
        if (!path || !(flags & SQLITE_OPEN_MAIN_DB))
                return root->xOpen(root, path, base, flags, ret);
        *file = (CheckFile){};
        r = disk_open(vfs->pAppData, path, DISK_READ_ONLY, &file->file);
        if (r)
                return r == -ENOMEM ? SQLITE_NOMEM : SQLITE_CANTOPEN;
        file->base.pMethods = &methods;
        if (ret)
                *ret = SQLITE_OPEN_READONLY;
        return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync)
{
        return SQLITE_READONLY;
}

static int vfs_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret)
{
        *ret = 0;
        return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *path, int len, char *out)
{
        return snprintf(out, (size_t)len, "%s", path) < len ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int vfs_random(sqlite3_vfs *vfs, int len, char *out)
{
        disk_random(vfs->pAppData, out, (size_t)len);
        return len;
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
        return us;
}

static int vfs_get_time(sqlite3_vfs *vfs, double *ret)
{
        return root->xCurrentTime(root, ret);
}

static int vfs_get_error(sqlite3_vfs *vfs, int len, char *out)
{
        return 0;
}

static sqlite3_vfs check_vfs = {
        .iVersion = 1,
        .mxPathname = 2048,
        .zName = CHECK_VFS,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_path,
        .xRandomness = vfs_random,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_get_time,
        .xGetLastError = vfs_get_error,
};

int check_vfs_register(Disk *disk)
{
        dd_assert(!sqlite3_vfs_find(CHECK_VFS));
        root = sqlite3_vfs_find("unix");
        if (!root)
                return -EIO;
        check_vfs.szOsFile = MAX((int)sizeof(CheckFile), root->szOsFile);
        check_vfs.pAppData = disk;
        return sqlite3_vfs_register(&check_vfs, 0) == SQLITE_OK ? 0 : -ENOMEM;
}

void check_vfs_unregister(void)
{
        sqlite3_vfs_unregister(&check_vfs);
}
