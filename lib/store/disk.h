/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Disks: every operation that the storage engine makes on files, and its clock and chance
 *
 * One vtable. disk_real() makes plain system calls; the worker's loop wraps it and gives the
 * journal's write to io_uring (lib/loop/disk-ring); tests put a disk in memory under the engine
 * that forgets, tears and fails. The engine makes no system call on a file beside it, and has no
 * other source of time or random bytes, so that a simulated disk makes a run repeatable. SQLite's
 * temporary files alone, which nobody needs after a crash, go to SQLite's own unix VFS.
 *
 * What a disk promises (and what a simulated one may exploit, since nothing more is promised):
 * 1. write() and truncate() are seen by later reads at once; after a crash they are there for
 *    certain only when a later sync() of the file, or sync_all() of its file system, has returned
 *    0, or when the write carried DISK_DSYNC. Until then each 512-byte sector of them may be there
 *    or not, in any order. A write that failed may have written any part.
 * 2. A created, renamed or removed name is there (or gone) after a crash for certain only when
 *    sync_folder() of its folder, or sync_all(), has returned 0. rename() replaces atomically.
 * 3. sync() that failed has lost what it was to write: a later success says nothing about it.
 * 4. lock() ends with the handle and with the process, and is nothing that a crash leaves behind.
 *
 * All calls may block but submit() and poll(), and may come from any thread, several at once, on
 * one handle as well; submit() and poll() belong to one thread, the loop's. Errors are negative
 * errno. Offsets and lengths are bytes. With DISK_DIRECT, memory, offsets and lengths of reads and
 * writes are multiples of DISK_BLOCK.
 */

#include "lib/base/slice.h"

#include <sys/types.h>

#define DISK_BLOCK 4096u

typedef struct Disk Disk;
typedef struct DiskOps DiskOps;
typedef struct DiskWrite DiskWrite;

/* An implementation embeds these two as first member. */
struct Disk {
        const DiskOps *ops;
};

typedef struct DiskFile {
        Disk *disk;
} DiskFile;

typedef enum DiskOpenFlags {
        DISK_READ_ONLY = 1,
        DISK_CREATE = 2,    /* created when absent, mode 0640 */
        DISK_EXCLUSIVE = 4, /* with DISK_CREATE: -EEXIST when it is there */
        DISK_DIRECT = 8,    /* past the page cache where the file system can */
} DiskOpenFlags;

typedef enum DiskWriteFlags {
        DISK_DSYNC = 1, /* the data, and the size needed to read it, are durable at return */
} DiskWriteFlags;

/*
 * An asynchronous write of the journal. The memory and the structure stay until fn, which is
 * called exactly once, on the loop's thread, never from inside submit(): result is 0 when all len
 * bytes are written (and durable, with DISK_DSYNC), or a negative errno; a short write is -EIO or
 * -ENOSPC.
 */
struct DiskWrite {
        void (*fn)(DiskWrite *write, int result);
        DiskFile *file;
        const void *data;
        size_t len;
        uint64_t offset;
        unsigned flags;
        DiskWrite *next; /* the disk's own, while it is in flight */
        int result;      /* the disk's own */
};

/* Called for each name in a folder, in any order, without "." and ".."; non-zero stops and is
 * returned. */
typedef int (*DiskListFn)(const char *name, void *data);

struct DiskOps {
        int (*open)(Disk *disk, const char *path, unsigned flags, DiskFile **ret);
        void (*close)(DiskFile *file);
        /* *ret_len is less than len only where the file ends. */
        int (*read)(DiskFile *file, void *data, size_t len, uint64_t offset, size_t *ret_len);
        /* All of it, or an error. A hole before it reads as zeros. */
        int (*write)(DiskFile *file, const void *data, size_t len, uint64_t offset, unsigned flags);
        int (*truncate)(DiskFile *file, uint64_t size);
        /* fdatasync: the data, and the size needed to read it. */
        int (*sync)(DiskFile *file);
        /* Room for a range, which reads as zeros where nothing was written; grows the file. */
        int (*allocate)(DiskFile *file, uint64_t offset, uint64_t len);
        int (*get_size)(DiskFile *file, uint64_t *ret);
        /* Whether the file is empty and once was not, other than by truncate() here. NULL, and
         * false, where that cannot be told. */
        int (*is_emptied)(DiskFile *file, bool *ret);
        /* An exclusive lock of a range against other processes and other handles, as F_OFD_SETLK;
         * -EAGAIN when somebody else holds it. */
        int (*lock)(DiskFile *file, uint64_t offset, uint64_t len);
        /* Starts a write; 0 or, when it could not even be started, a negative errno (then fn is not
         * called). */
        int (*submit)(Disk *disk, DiskWrite *write);
        /* Calls fn of writes that are done; their number. For disks without a loop of their own;
         * elsewhere 0. */
        int (*poll)(Disk *disk);

        /* -ENOENT when there is none; -EISDIR for a folder. */
        int (*stat_size)(Disk *disk, const char *path, uint64_t *ret);
        /* Mode 0750; -EEXIST when it is there. */
        int (*mkdir)(Disk *disk, const char *path);
        int (*rename)(Disk *disk, const char *from, const char *to);
        int (*unlink)(Disk *disk, const char *path);
        int (*list)(Disk *disk, const char *path, DiskListFn fn, void *data);
        int (*sync_folder)(Disk *disk, const char *path);
        /* syncfs: everything of the file system that holds path. */
        int (*sync_all)(Disk *disk, const char *path);

        /* Nanoseconds since 1970 and of a clock that never steps. */
        uint64_t (*clock_realtime)(Disk *disk);
        uint64_t (*clock_monotonic)(Disk *disk);
        void (*random)(Disk *disk, void *data, size_t len);
};

/* Plain system calls; the one instance of a process, never freed. Its submit() writes at once and
 * its poll() tells. */
Disk *disk_real(void);
/* The descriptor of a file of disk_real(). */
int disk_real_get_fd(DiskFile *file);

/* The calls, by name. */
static inline int disk_open(Disk *disk, const char *path, unsigned flags, DiskFile **ret)
{
        return disk->ops->open(disk, path, flags, ret);
}

/* NULL is allowed; always NULL. */
DiskFile *disk_close(DiskFile *file);
DEFINE_CLEANUP(DiskFile *, disk_close)

static inline int disk_read(
        DiskFile *file, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        return file->disk->ops->read(file, data, len, offset, ret_len);
}

static inline int disk_write(
        DiskFile *file, const void *data, size_t len, uint64_t offset, unsigned flags)
{
        return file->disk->ops->write(file, data, len, offset, flags);
}

static inline int disk_truncate(DiskFile *file, uint64_t size)
{
        return file->disk->ops->truncate(file, size);
}

static inline int disk_sync(DiskFile *file)
{
        return file->disk->ops->sync(file);
}

static inline int disk_allocate(DiskFile *file, uint64_t offset, uint64_t len)
{
        return file->disk->ops->allocate(file, offset, len);
}

static inline int disk_get_size(DiskFile *file, uint64_t *ret)
{
        return file->disk->ops->get_size(file, ret);
}

static inline int disk_is_emptied(DiskFile *file, bool *ret)
{
        *ret = false;
        return file->disk->ops->is_emptied ? file->disk->ops->is_emptied(file, ret) : 0;
}

static inline int disk_lock(DiskFile *file, uint64_t offset, uint64_t len)
{
        return file->disk->ops->lock(file, offset, len);
}

static inline int disk_submit(Disk *disk, DiskWrite *write)
{
        return disk->ops->submit(disk, write);
}

static inline int disk_poll(Disk *disk)
{
        return disk->ops->poll(disk);
}

static inline int disk_stat_size(Disk *disk, const char *path, uint64_t *ret)
{
        return disk->ops->stat_size(disk, path, ret);
}

static inline int disk_mkdir(Disk *disk, const char *path)
{
        return disk->ops->mkdir(disk, path);
}

static inline int disk_rename(Disk *disk, const char *from, const char *to)
{
        return disk->ops->rename(disk, from, to);
}

static inline int disk_unlink(Disk *disk, const char *path)
{
        return disk->ops->unlink(disk, path);
}

static inline int disk_list(Disk *disk, const char *path, DiskListFn fn, void *data)
{
        return disk->ops->list(disk, path, fn, data);
}

static inline int disk_sync_folder(Disk *disk, const char *path)
{
        return disk->ops->sync_folder(disk, path);
}

static inline int disk_sync_all(Disk *disk, const char *path)
{
        return disk->ops->sync_all(disk, path);
}

static inline uint64_t disk_clock_realtime(Disk *disk)
{
        return disk->ops->clock_realtime(disk);
}

static inline uint64_t disk_clock_monotonic(Disk *disk)
{
        return disk->ops->clock_monotonic(disk);
}

static inline void disk_random(Disk *disk, void *data, size_t len)
{
        disk->ops->random(disk, data, len);
}
