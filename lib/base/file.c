/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

int file_read(const char *path, size_t max, Buf *buf)
{
        _cleanup_(close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
        size_t before = buf->len;

        if (fd < 0)
                return -errno;
        for (;;) {
                char *to;
                ssize_t n;
                int r;

                r = buf_reserve(buf, 16384, &to);
                if (r)
                        return r;
                n = read(fd, to, 16384);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return 0;
                buf_commit(buf, (size_t)n);
                if (buf->len - before > max)
                        return -EFBIG;
        }
}

int fd_write_all(int fd, const void *data, size_t len)
{
        const char *at = data;

        while (len) {
                ssize_t n = write(fd, at, len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -EIO;
                at += n;
                len -= (size_t)n;
        }
        return 0;
}

static int sync_parent(const char *path)
{
        const char *slash = strrchr(path, '/');
        _cleanup_(free_p) char *folder = NULL;
        _cleanup_(close_p) int fd = -1;

        if (!slash)
                folder = strdup(".");
        else
                folder = slice_dup(slice_of(path, slash == path ? 1 : (size_t)(slash - path)));
        if (!folder)
                return -ENOMEM;
        fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        return fsync(fd) ? -errno : 0;
}

static int write_temporary(const char *path, Slice data, mode_t mode)
{
        _cleanup_(close_p) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
        int r;

        if (fd < 0)
                return -errno;
        r = fd_write_all(fd, data.data, data.len);
        if (r)
                return r;
        if (fchmod(fd, mode) || fsync(fd))
                return -errno;
        return 0;
}

int file_write_atomic(const char *path, Slice data, mode_t mode)
{
        _cleanup_(free_p) char *temporary = NULL;
        int r;

        if (asprintf(&temporary, "%s.%d.tmp", path, (int)getpid()) < 0) {
                temporary = NULL;
                return -ENOMEM;
        }
        r = write_temporary(temporary, data, mode);
        if (!r && rename(temporary, path))
                r = -errno;
        if (r) {
                unlink(temporary);
                return r;
        }
        return sync_parent(path);
}

int dir_create(const char *path, mode_t mode)
{
        _cleanup_(free_p) char *copy = strdup(path);

        if (!copy)
                return -ENOMEM;
        for (char *at = copy + 1;; at++) {
                char c = *at;

                if (c != '/' && c != '\0')
                        continue;
                *at = '\0';
                if (mkdir(copy, mode) && errno != EEXIST)
                        return -errno;
                if (c == '\0')
                        break;
                *at = c;
        }
        return 0;
}

int fd_set_nonblocking(int fd)
{
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return -errno;
        return 0;
}

char *path_join(const char *folder, const char *name)
{
        char *path;

        if (asprintf(&path, "%s/%s", folder, name) < 0)
                return NULL;
        return path;
}

static uint64_t clock_ns(clockid_t clock)
{
        struct timespec now;

        clock_gettime(clock, &now);
        return (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
        return clock_ns(CLOCK_MONOTONIC);
}

uint64_t clock_realtime_ns(void)
{
        return clock_ns(CLOCK_REALTIME);
}

void random_hex(char *out, size_t n)
{
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < n; i++) {
                unsigned char byte;

                dd_assert(getrandom(&byte, 1, 0) == 1);
                out[2 * i] = digits[byte >> 4];
                out[2 * i + 1] = digits[byte & 15];
        }
        out[2 * n] = '\0';
}
