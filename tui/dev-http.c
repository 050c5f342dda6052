/* SPDX-License-Identifier: Apache-2.0 */
#include "tui/dev-http.h"

#include "lib/base/buf.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>

#define ANSWER_TIMEOUT_S 60

static int connect_to(const char *listen, int *ret)
{
        const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
        const struct timeval timeout = { .tv_sec = ANSWER_TIMEOUT_S };
        const char *colon = strrchr(listen, ':');
        _cleanup_(free_p) char *host = NULL;
        _cleanup_(close_p) int fd = -1;
        struct addrinfo *found;
        Slice name;

        if (!colon)
                return -EINVAL;
        name = slice_of(listen, (size_t)(colon - listen));
        if (slice_has_prefix(name, SLICE("[")) && slice_has_suffix(name, SLICE("]")))
                name = slice_of(name.data + 1, name.len - 2);
        if (slice_equal(name, SLICE("0.0.0.0")) || slice_equal(name, SLICE("*")) || !name.len)
                name = SLICE("127.0.0.1");
        host = slice_dup(name);
        if (!host)
                return -ENOMEM;
        if (getaddrinfo(host, colon + 1, &hints, &found))
                return -EINVAL;
        fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) ||
                connect(fd, found->ai_addr, found->ai_addrlen)) {
                freeaddrinfo(found);
                return -errno;
        }
        freeaddrinfo(found);
        *ret = TAKE_FD(fd);
        return 0;
}

int dev_http_get(const char *listen, const char *path, unsigned *ret_status)
{
        _cleanup_(close_p) int fd = -1;
        const Slice prefix = SLICE("HTTP/1.1 ");
        char request[512], answer[4096];
        size_t len = 0;
        uint64_t status;
        ssize_t n;
        int r;

        r = connect_to(listen, &fd);
        if (r)
                return r;
        r = snprintf(request, sizeof request,
                "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\nConnection: "
                "close\r\n\r\n",
                path, listen);
        if ((size_t)r >= sizeof request)
                return -EINVAL;
        if (send(fd, request, (size_t)r, MSG_NOSIGNAL) != r)
                return -EIO;
        while (len < sizeof answer - 1 && (n = read(fd, answer + len, sizeof answer - 1 - len)) > 0)
                len += (size_t)n;
        answer[len] = '\0';
        if (!slice_has_prefix(slice_of(answer, len), prefix) ||
                !slice_to_u64(
                        slice_head(slice_skip(slice_of(answer, len), prefix.len), 3), &status))
                return -EPROTO;
        *ret_status = (unsigned)status;
        return 0;
}
