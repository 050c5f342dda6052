/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/disk.h"

#include "lib/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define FILE_MODE 0640
#define FOLDER_MODE 0750

typedef struct RealFile {
        DiskFile file;
        int fd;
} RealFile;

typedef struct RealDisk {
        Disk disk;
        DiskWrite *done, **done_tail; /* written, not yet told: the loop thread's */
} RealDisk;

static int get_fd(DiskFile *file)
{
        return ((RealFile *)file)->fd;
}

int disk_real_get_fd(DiskFile *file)
{
        return get_fd(file);
}

DiskFile *disk_close(DiskFile *file)
{
        if (file)
                file->disk->ops->close(file);
        return NULL;
}

static int real_open(Disk *disk, const char *path, unsigned flags, DiskFile **ret)
{
        int mode = (flags & DISK_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW;
        RealFile *file = malloc(sizeof *file);
        int r;

        if (!file)
                return -ENOMEM;
        if (flags & DISK_CREATE)
                mode |= O_CREAT | (flags & DISK_EXCLUSIVE ? O_EXCL : 0);
        if (flags & DISK_DIRECT)
                mode |= O_DIRECT;
        *file = (RealFile){ .file.disk = disk };
        file->fd = open(path, mode, FILE_MODE);
        /* A file system in memory has nothing to go past. */
        if (file->fd < 0 && errno == EINVAL && (flags & DISK_DIRECT))
                file->fd = open(path, mode & ~O_DIRECT, FILE_MODE);
        if (file->fd < 0) {
                r = -errno;
                free(file);
                return r;
        }
        *ret = &file->file;
        return 0;
}

static void real_close(DiskFile *file)
{
        close(get_fd(file));
        free(file);
}

static int real_read(DiskFile *file, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        size_t done = 0;

        while (done < len) {
                ssize_t n = pread(
                        get_fd(file), (char *)data + done, len - done, (off_t)(offset + done));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                done += (size_t)n;
        }
        *ret_len = done;
        return 0;
}

static int real_write(DiskFile *file, const void *data, size_t len, uint64_t offset, unsigned flags)
{
        size_t done = 0;

        while (done < len) {
                struct iovec part = { (char *)(uintptr_t)data + done, len - done };
                ssize_t n = pwritev2(get_fd(file), &part, 1, (off_t)(offset + done),
                        flags & DISK_DSYNC ? RWF_DSYNC : 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -EIO;
                done += (size_t)n;
        }
        return 0;
}

/* A file is made with the same time of birth and of last change. */
static int get_times(DiskFile *file, struct statx *ret)
{
        int r = statx(get_fd(file), "", AT_EMPTY_PATH, STATX_SIZE | STATX_MTIME | STATX_BTIME, ret);

        if (r)
                return -errno;
        return ret->stx_mask & STATX_BTIME ? 0 : -ENODATA;
}

static int real_is_emptied(DiskFile *file, bool *ret)
{
        struct statx times;
        int r = get_times(file, &times);

        if (r)
                return r == -ENODATA || r == -ENOSYS ? 0 : r;
        *ret = times.stx_size == 0 && (times.stx_mtime.tv_sec != times.stx_btime.tv_sec ||
                                              times.stx_mtime.tv_nsec != times.stx_btime.tv_nsec);
        return 0;
}

static int real_truncate(DiskFile *file, uint64_t size)
{
        struct statx times;

        if (ftruncate(get_fd(file), (off_t)size))
                return -errno;
        if (size == 0 && !get_times(file, &times)) {
                struct timespec birth = { times.stx_btime.tv_sec, times.stx_btime.tv_nsec };

                /* Empty by right: as if it were new. Where it fails nothing is lost. */
                (void)futimens(get_fd(file), (struct timespec[]){ birth, birth });
        }
        return 0;
}

static int real_sync(DiskFile *file)
{
        return fdatasync(get_fd(file)) ? -errno : 0;
}

/* Writes zeros, where the file system has no other way to reserve. */
static int allocate_by_writing(DiskFile *file, uint64_t offset, uint64_t end)
{
        static const char zeros[1 << 16];

        while (offset < end) {
                size_t n = MIN(end - offset, (uint64_t)sizeof zeros);
                int r = real_write(file, zeros, n, offset, 0);

                if (r)
                        return r;
                offset += n;
        }
        return 0;
}

static int real_allocate(DiskFile *file, uint64_t offset, uint64_t len)
{
        struct stat status;

        while (fallocate(get_fd(file), 0, (off_t)offset, (off_t)len)) {
                if (errno == EINTR)
                        continue;
                if (errno != EOPNOTSUPP)
                        return -errno;
                if (fstat(get_fd(file), &status))
                        return -errno;
                return allocate_by_writing(
                        file, MAX(offset, (uint64_t)status.st_size), offset + len);
        }
        return 0;
}

static int real_get_size(DiskFile *file, uint64_t *ret)
{
        struct stat status;

        if (fstat(get_fd(file), &status))
                return -errno;
        *ret = (uint64_t)status.st_size;
        return 0;
}

static int real_lock(DiskFile *file, uint64_t offset, uint64_t len)
{
        struct flock lock = {
                .l_type = F_WRLCK,
                .l_whence = SEEK_SET,
                .l_start = (off_t)offset,
                .l_len = (off_t)len,
        };

        if (fcntl(get_fd(file), F_OFD_SETLK, &lock) == 0)
                return 0;
        return errno == EACCES ? -EAGAIN : -errno;
}

static int real_submit(Disk *disk, DiskWrite *write)
{
        RealDisk *real = (RealDisk *)disk;

        write->result =
                real_write(write->file, write->data, write->len, write->offset, write->flags);
        write->next = NULL;
        *real->done_tail = write;
        real->done_tail = &write->next;
        return 0;
}

static int real_poll(Disk *disk)
{
        RealDisk *real = (RealDisk *)disk;
        DiskWrite *write = TAKE_PTR(real->done);
        int n = 0;

        real->done_tail = &real->done;
        while (write) {
                DiskWrite *next = write->next;

                write->fn(write, write->result);
                write = next;
                n++;
        }
        return n;
}

static int real_stat_size(Disk *disk, const char *path, uint64_t *ret)
{
        struct stat status;

        if (lstat(path, &status))
                return -errno;
        if (S_ISDIR(status.st_mode))
                return -EISDIR;
        *ret = (uint64_t)status.st_size;
        return 0;
}

static int real_mkdir(Disk *disk, const char *path)
{
        return mkdir(path, FOLDER_MODE) ? -errno : 0;
}

static int real_rename(Disk *disk, const char *from, const char *to)
{
        return rename(from, to) ? -errno : 0;
}

static int real_unlink(Disk *disk, const char *path)
{
        return unlink(path) ? -errno : 0;
}

static int real_list(Disk *disk, const char *path, DiskListFn fn, void *data)
{
        DIR *folder = opendir(path);
        struct dirent *entry;
        int r = 0;

        if (!folder)
                return -errno;
        while (!r) {
                errno = 0;
                entry = readdir(folder);
                if (!entry) {
                        r = -errno;
                        break;
                }
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                r = fn(entry->d_name, data);
        }
        closedir(folder);
        return r;
}

static int open_folder(const char *path)
{
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

static int real_sync_folder(Disk *disk, const char *path)
{
        _cleanup_(close_p) int fd = open_folder(path);

        if (fd < 0)
                return fd;
        return fsync(fd) ? -errno : 0;
}

static int real_sync_all(Disk *disk, const char *path)
{
        _cleanup_(close_p) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

        if (fd < 0)
                return -errno;
        return syncfs(fd) ? -errno : 0;
}

static uint64_t real_clock_realtime(Disk *disk)
{
        return clock_realtime_ns();
}

static uint64_t real_clock_monotonic(Disk *disk)
{
        return clock_monotonic_ns();
}

static void real_random(Disk *disk, void *data, size_t len)
{
        size_t done = 0;

        while (done < len) {
                ssize_t n = getrandom((char *)data + done, len - done, 0);

                /* Up to 256 bytes never fail once the kernel has booted. */
                dd_assert(n > 0 || errno == EINTR);
                done += n > 0 ? (size_t)n : 0;
        }
}

static const DiskOps real_ops = {
        .open = real_open,
        .close = real_close,
        .read = real_read,
        .write = real_write,
        .truncate = real_truncate,
        .sync = real_sync,
        .allocate = real_allocate,
        .get_size = real_get_size,
        .is_emptied = real_is_emptied,
        .lock = real_lock,
        .submit = real_submit,
        .poll = real_poll,
        .stat_size = real_stat_size,
        .mkdir = real_mkdir,
        .rename = real_rename,
        .unlink = real_unlink,
        .list = real_list,
        .sync_folder = real_sync_folder,
        .sync_all = real_sync_all,
        .clock_realtime = real_clock_realtime,
        .clock_monotonic = real_clock_monotonic,
        .random = real_random,
};

Disk *disk_real(void)
{
        static RealDisk real = { .disk.ops = &real_ops, .done_tail = &real.done };

        return &real.disk;
}
