/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/boot.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

typedef union Control {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(BOOT_FDS_MAX * sizeof(int))];
} Control;

static void fds_close(int *fds, size_t n_fds)
{
        for (size_t i = 0; i < n_fds; i++)
                close_p(&fds[i]);
}

int boot_send(int socket, json_t *message, const int *fds, size_t n_fds)
{
        _cleanup_(free_p) char *text = json_dumps(message, JSON_COMPACT);
        Control control = {};
        struct iovec vector;
        struct msghdr header = { .msg_iov = &vector, .msg_iovlen = 1 };
        ssize_t n;

        if (!text)
                return -ENOMEM;
        vector = (struct iovec){ text, strlen(text) };
        if (vector.iov_len > BOOT_MESSAGE_MAX || n_fds > BOOT_FDS_MAX)
                return -EMSGSIZE;
        if (n_fds > 0) {
                header.msg_control = &control;
                header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                control.header = (struct cmsghdr){
                        .cmsg_len = CMSG_LEN(n_fds * sizeof(int)),
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS,
                };
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
        }
        do
                n = sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        return (size_t)n == vector.iov_len ? 0 : -EIO;
}

/* The descriptors of all SCM_RIGHTS messages, at most BOOT_FDS_MAX: the kernel's room ends there.
 */
static size_t control_take_fds(struct msghdr *header, int fds[BOOT_FDS_MAX])
{
        size_t n_fds = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
                size_t n;

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                memcpy(&fds[n_fds], CMSG_DATA(c), n * sizeof(int));
                n_fds += n;
        }
        return n_fds;
}

static int boot_parse(const char *text, size_t len, json_t **ret)
{
        _cleanup_(json_decref_p) json_t *message = NULL;
        JsoncError error;
        int r;

        r = jsonc_parse(slice_of(text, len), &message, &error);
        if (r < 0)
                return r;
        if (r > 0 || !json_is_object(message))
                return -EPROTO;
        *ret = TAKE_PTR(message);
        return 0;
}

int boot_receive(int socket, json_t **ret, int *ret_fds, size_t max_fds, size_t *ret_n_fds)
{
        _cleanup_(free_p) char *text = malloc(BOOT_MESSAGE_MAX);
        Control control;
        struct iovec vector = { text, BOOT_MESSAGE_MAX };
        struct msghdr header = { .msg_iov = &vector,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof control };
        int fds[BOOT_FDS_MAX], r;
        size_t n_fds;
        ssize_t n;

        if (!text)
                return -ENOMEM;
        do
                n = recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        n_fds = control_take_fds(&header, fds);
        if (n == 0 && n_fds == 0)
                return -ECONNRESET;
        if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || n_fds > max_fds)
                r = -EPROTO;
        else
                r = boot_parse(text, (size_t)n, ret);
        if (r) {
                fds_close(fds, n_fds);
                return r;
        }
        if (n_fds > 0)
                memcpy(ret_fds, fds, n_fds * sizeof(int));
        if (ret_n_fds)
                *ret_n_fds = n_fds;
        return 0;
}

int boot_wait(int socket, int timeout_ms)
{
        struct pollfd poll_fd = { .fd = socket, .events = POLLIN };
        int r;

        do
                r = poll(&poll_fd, 1, timeout_ms);
        while (r < 0 && errno == EINTR);
        if (r < 0)
                return -errno;
        return r == 0 ? -ETIMEDOUT : 0;
}
