/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/asset.h"

#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static const char *const endings[_ASSET_CODINGS] = { "", ".br", ".gz" };

/* No empty, hidden or relative part; ".well-known" is for everybody (RFC 8615). */
static bool is_allowed(Slice file)
{
        bool first = true;

        do {
                Slice part = slice_cut(&file, '/');

                if (part.len == 0 || (part.data[0] == '.' &&
                                             !(first && slice_equal(part, SLICE(".well-known")))))
                        return false;
                first = false;
        } while (file.len);
        return true;
}

/* An encoded slash is a byte of a name, and no file's name has one. */
static bool has_encoded_slash(Slice path)
{
        for (size_t i = 0; i + 2 < path.len; i++)
                if (path.data[i] == '%' && path.data[i + 1] == '2' &&
                        (path.data[i + 2] == 'f' || path.data[i + 2] == 'F'))
                        return true;
        return false;
}

int asset_path_decode(Slice path, char **ret)
{
        Buf buf = BUF_INIT(0);
        int r = -EINVAL;

        if (path.len == 0 || path.len > ASSET_PATH_MAX || path.data[0] != '/' ||
                slice_find(path, '\0') >= 0 || has_encoded_slash(path))
                return -EINVAL;
        if (!http_path_decode(slice_skip(path, 1), &buf))
                goto out;
        r = 0;
        if (buf.len == 0 || buf_data(&buf)[buf.len - 1] == '/')
                r = buf_append_string(&buf, "index.html");
        if (!r && !is_allowed(buf_slice(&buf)))
                r = -EINVAL;
        if (!r) {
                char *file = buf_take(&buf);

                if (file)
                        *ret = file;
                else
                        r = -ENOMEM;
        }
out:
        buf_done(&buf);
        return r;
}

/* Where a descriptor's file is now. */
static int fd_path(int fd, char *ret, size_t size)
{
        char link[40];
        ssize_t n;

        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        n = readlink(link, ret, size - 1);
        if (n < 0)
                return -errno;
        if ((size_t)n == size - 1)
                return -ENAMETOOLONG;
        ret[n] = '\0';
        return 0;
}

/*
 * Without openat2(), which filters of system calls refuse where they have to see all flags
 * (systemd's RestrictSUIDSGID= among them): found first, judged by where it is, and then opened,
 * which can only be what was found.
 */
static int open_judged(int directory, const char *file, int flags, int *ret)
{
        char top[PATH_MAX], path[PATH_MAX], link[40];
        _cleanup_(close_p) int found = openat(directory, file, O_PATH | O_CLOEXEC);
        size_t len;
        int fd, r;

        if (found < 0)
                return -errno;
        r = fd_path(directory, top, sizeof top);
        if (!r)
                r = fd_path(found, path, sizeof path);
        if (r)
                return r;
        len = strcmp(top, "/") == 0 ? 0 : strlen(top);
        if (strncmp(path, top, len) != 0 || (path[len] != '/' && path[len] != '\0'))
                return -EXDEV;
        snprintf(link, sizeof link, "/proc/self/fd/%d", found);
        fd = open(link, flags | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret = fd;
        return 0;
}

int asset_open(int directory, const char *file, int flags, int *ret)
{
        struct open_how how = {
                .flags = (uint64_t)flags | O_CLOEXEC,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
        };
        long fd;

        /* -EAGAIN: a rename went on beside it, and the kernel could not be sure. */
        for (unsigned attempt = 0; attempt < 4; attempt++) {
                fd = syscall(SYS_openat2, directory, file, &how, sizeof how);
                if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
                        break;
        }
        if (fd < 0 && errno == ENOSYS)
                return open_judged(directory, file, flags, ret);
        if (fd < 0)
                return -errno;
        *ret = (int)fd;
        return 0;
}

void asset_describe(const struct stat *st, AssetFile *ret)
{
        *ret = (AssetFile){
                .exists = true,
                .size = (uint64_t)st->st_size,
                .inode = st->st_ino,
                .mtime_ns =
                        (int64_t)st->st_mtim.tv_sec * (int64_t)NSEC_PER_SEC + st->st_mtim.tv_nsec,
        };
        snprintf(ret->etag, sizeof ret->etag, "\"%llx-%llx-%llx\"", (unsigned long long)ret->size,
                (unsigned long long)ret->mtime_ns, (unsigned long long)ret->inode);
}

bool asset_is_same(const AssetFile *a, const AssetFile *b)
{
        return a->exists == b->exists && a->size == b->size && a->inode == b->inode &&
               a->mtime_ns == b->mtime_ns;
}

static int open_variant(
        int directory, const char *file, AssetCoding coding, int flags, int *ret, AssetFile *ret_f)
{
        char name[ASSET_PATH_MAX + 32];
        _cleanup_(close_p) int fd = -1;
        struct stat st;
        int r;

        if (snprintf(name, sizeof name, "%s%s", file, endings[coding]) >= (int)sizeof name)
                return -ENAMETOOLONG;
        r = asset_open(directory, name, flags, &fd);
        if (r)
                return r;
        if (fstat(fd, &st))
                return -errno;
        if (S_ISDIR(st.st_mode))
                return -EISDIR;
        if (!S_ISREG(st.st_mode))
                return -EPERM;
        asset_describe(&st, ret_f);
        if (ret)
                *ret = TAKE_FD(fd);
        return 0;
}

int asset_stat(int directory, const char *file, AssetCoding coding, AssetFile *ret)
{
        return open_variant(directory, file, coding, O_PATH, NULL, ret);
}

/* RWF_NOWAIT: from memory or not at all. Where a file system cannot tell, a small read is made. */
static ssize_t read_at_once(int fd, char *data, size_t len)
{
        size_t done = 0;
        int flags = RWF_NOWAIT;

        while (done < len) {
                struct iovec vector = { data + done, len - done };
                ssize_t n = preadv2(fd, &vector, 1, (off_t)done, flags);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EOPNOTSUPP && flags) {
                        flags = 0;
                        continue;
                }
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                done += (size_t)n;
        }
        return (ssize_t)done;
}

int asset_read(int directory, const char *file, AssetCoding coding, AssetFile *f, int *ret_fd)
{
        _cleanup_(close_p) int fd = -1;
        _cleanup_(free_p) char *data = NULL;
        AssetFile now = { 0 };
        ssize_t n;
        int r;

        r = open_variant(directory, file, coding, O_RDONLY | O_NONBLOCK | O_NOCTTY, &fd, &now);
        if (r)
                return r;
        if (!asset_is_same(f, &now))
                return -ESTALE;
        if (f->size <= ASSET_MEMORY_FILE) {
                data = malloc((size_t)f->size + 1);
                if (!data)
                        return -ENOMEM;
                n = read_at_once(fd, data, (size_t)f->size);
                if (n >= 0 && (uint64_t)n != f->size)
                        return -ESTALE;
                if (n >= 0)
                        f->data = TAKE_PTR(data);
        }
        /* It was for a FIFO that took the file's place. A ring's read of a file system that cannot
         * say whether it would block answers -EAGAIN for ever with it. */
        if (!f->data && fcntl(fd, F_SETFL, 0))
                return -errno;
        *ret_fd = TAKE_FD(fd);
        return 0;
}
