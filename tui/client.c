/* SPDX-License-Identifier: Apache-2.0 */
#include "tui/client.h"

#include "lib/base/file.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MSEC_PER_SEC UINT64_C(1000)

struct Client {
        int fd, received; /* received: a descriptor that came with a reply, or -1 */
        void (*on_wait)(unsigned seconds);
        Buf in;
};

char *client_default_path(void)
{
        static const char here[] = ".durabled/run/control";
        const char *given = getenv("DURABLED_SOCKET");

        if (given && *given)
                return strdup(given);
        return strdup(access(here, F_OK) == 0 ? here : "/run/durabled/control");
}

int client_open(const char *path, Client **ret)
{
        _cleanup_(client_close_p) Client *client = calloc(1, sizeof *client);
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        if (!client)
                return -ENOMEM;
        client->fd = client->received = -1;
        buf_init(&client->in, VARLINK_MESSAGE_MAX);
        if (strlen(path) >= sizeof address.sun_path)
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, strlen(path) + 1);
        client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (client->fd < 0)
                return -errno;
        if (connect(client->fd, (struct sockaddr *)&address, sizeof address))
                return -errno;
        *ret = TAKE_PTR(client);
        return 0;
}

Client *client_close(Client *client)
{
        if (!client)
                return NULL;
        close_p(&client->fd);
        close_p(&client->received);
        buf_done(&client->in);
        free(client);
        return NULL;
}

static int client_send(Client *client, Slice message)
{
        while (message.len) {
                ssize_t n = send(client->fd, message.data, message.len, MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                message = slice_skip(message, (size_t)n);
        }
        return 0;
}

/* Keeps the first descriptor; there should be one at most. */
static void client_keep_fds(Client *client, struct msghdr *message)
{
        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                int fd;

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                memcpy(&fd, CMSG_DATA(c), sizeof fd);
                close_p(&client->received);
                client->received = fd;
        }
}

static ssize_t client_read(Client *client, char *to, size_t len)
{
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec vector = { to, len };
        struct msghdr message = { .msg_iov = &vector,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof control };
        ssize_t n = recvmsg(client->fd, &message, MSG_CMSG_CLOEXEC);

        if (n >= 0)
                client_keep_fds(client, &message);
        return n;
}

/* Reads what is there once, waiting until deadline (monotonic ns). */
static int client_receive(Client *client, uint64_t deadline)
{
        struct pollfd wait = { .fd = client->fd, .events = POLLIN };
        uint64_t now = clock_monotonic_ns(), ms;
        char *to;
        ssize_t n;
        int r;

        if (now >= deadline)
                return -ETIMEDOUT;
        ms = (deadline - now) / NSEC_PER_MSEC + 1;
        r = poll(&wait, 1, (int)(client->on_wait ? MIN(ms, MSEC_PER_SEC) : ms));
        if (r <= 0)
                return r == 0 || errno == EINTR ? 0 : -errno;
        r = buf_reserve(&client->in, 65536, &to);
        if (r)
                return r;
        n = client_read(client, to, 65536);
        if (n < 0)
                return errno == EINTR ? 0 : -errno;
        if (n == 0)
                return -ECONNRESET;
        buf_commit(&client->in, (size_t)n);
        return 0;
}

int client_call(
        Client *client, const char *method, json_t *parameters, int timeout_ms, VarlinkReply *ret)
{
        uint64_t begin = clock_monotonic_ns();
        uint64_t deadline = begin + (uint64_t)timeout_ms * NSEC_PER_MSEC;
        Buf out = BUF_INIT(VARLINK_MESSAGE_MAX);
        int r;

        r = varlink_write_call(&out, method, parameters, false);
        if (!r)
                r = client_send(client, buf_slice(&out));
        buf_done(&out);
        while (!r) {
                r = varlink_take_reply(&client->in, ret);
                if (r == 0)
                        return 0;
                if (r != VARLINK_E_MORE)
                        return r < 0 ? r : -EPROTO;
                r = client_receive(client, deadline);
                if (client->on_wait)
                        client->on_wait((unsigned)((clock_monotonic_ns() - begin) / NSEC_PER_SEC));
        }
        return r;
}

void client_on_wait(Client *client, void (*fn)(unsigned seconds))
{
        client->on_wait = fn;
}

int client_take_fd(Client *client)
{
        return TAKE_FD(client->received);
}
