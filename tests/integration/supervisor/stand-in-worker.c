/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A worker without a runtime, for tests of the supervisor: speaks boot.h, answers each connection
 * with one line that tells what it is, and behaves as the app's vars say:
 *
 *   STAND_IN   "serve" (default), "fail" (the app cannot be loaded), "crash" (dies before ready),
 *              "deaf" (does not drain)
 *
 * A connection that sends "die" kills it, "boot" is answered with the boot message's JSON, "caps"
 * with its capabilities and flags.
 */

#include "daemon/core/boot.h"
#include "lib/base/file.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#define LISTENERS_MAX 16

typedef struct StandIn {
        json_t *boot;
        int listeners[LISTENERS_MAX];
        const char *names[LISTENERS_MAX];
        size_t n_listeners;
        unsigned n_served;
        bool deaf;
} StandIn;

static void say(json_t *message)
{
        if (boot_send(BOOT_FD, message, NULL, 0) < 0)
                exit(1);
        json_decref(message);
}

static void boot(StandIn *self)
{
        int fds[BOOT_FDS_MAX];
        size_t n_fds;
        json_t *names;

        if (boot_wait(BOOT_FD, 10000) < 0 ||
                boot_receive(BOOT_FD, &self->boot, fds, BOOT_FDS_MAX, &n_fds) < 0)
                exit(1);
        names = json_object_get(self->boot, "fds");
        if (json_array_size(names) != n_fds)
                exit(1);
        for (size_t i = 0; i < n_fds; i++) {
                const char *name = json_string_value(json_array_get(names, i));

                if (strncmp(name, "listener:", 9) != 0 || self->n_listeners == LISTENERS_MAX)
                        continue;
                self->names[self->n_listeners] = name;
                self->listeners[self->n_listeners++] = fds[i];
        }
}

static void behave(StandIn *self)
{
        const char *how =
                json_string_value(json_object_get(json_object_get(self->boot, "vars"), "STAND_IN"));

        if (how && strcmp(how, "fail") == 0) {
                say(json_pack("{s:s, s:s}", "type", "failed", "message",
                        "SyntaxError: stand-in says no"));
                exit(BOOT_EXIT_APP);
        }
        if (how && strcmp(how, "crash") == 0)
                abort();
        self->deaf = how && strcmp(how, "deaf") == 0;
}

static void answer_caps(int fd)
{
        _cleanup_(buf_done) Buf text = BUF_INIT(1u << 16);

        if (file_read("/proc/self/status", 1u << 16, &text) == 0)
                (void)fd_write_all(fd, buf_data(&text), text.len);
}

static void answer_boot(StandIn *self, int fd)
{
        char *text = json_dumps(self->boot, JSON_COMPACT);

        (void)fd_write_all(fd, text, strlen(text));
        free(text);
}

static void serve(StandIn *self, size_t which)
{
        _cleanup_(close_p) int fd = accept(self->listeners[which], NULL, NULL);
        char request[16] = "";
        ssize_t n;

        if (fd < 0)
                return;
        self->n_served++;
        n = recv(fd, request, sizeof(request) - 1, 0);
        if (n < 0)
                return;
        if (strcmp(request, "die") == 0)
                raise(SIGKILL);
        else if (strcmp(request, "boot") == 0)
                answer_boot(self, fd);
        else if (strcmp(request, "caps") == 0)
                answer_caps(fd);
        else
                dprintf(fd, "%lld %s %d\n",
                        (long long)json_integer_value(json_object_get(self->boot, "slot")),
                        self->names[which], (int)getpid());
}

static void command(StandIn *self)
{
        _cleanup_(json_decref_p) json_t *message = NULL;
        const char *type;
        size_t n_fds = 0;

        if (boot_receive(BOOT_FD, &message, NULL, 0, &n_fds) < 0)
                exit(0); /* the supervisor has gone */
        type = json_string_value(json_object_get(message, "type"));
        if (strcmp(type, "stats") == 0)
                say(json_pack("{s:s, s:O, s:{s:i}, s:{}, s:{}}", "type", "stats", "id",
                        json_object_get(message, "id"), "edge", "requests", (int)self->n_served,
                        "objects", "runtime"));
        else if (strcmp(type, "drain") == 0 && !self->deaf)
                exit(0);
}

int main(void)
{
        StandIn self = { 0 };

        boot(&self);
        behave(&self);
        say(json_pack("{s:s}", "type", "ready"));
        for (;;) {
                struct pollfd polled[LISTENERS_MAX + 1] = { { BOOT_FD, POLLIN, 0 } };

                for (size_t i = 0; i < self.n_listeners; i++)
                        polled[i + 1] = (struct pollfd){ self.listeners[i], POLLIN, 0 };
                if (poll(polled, self.n_listeners + 1, -1) < 0 && errno != EINTR)
                        return 1;
                if (polled[0].revents)
                        command(&self);
                for (size_t i = 0; i < self.n_listeners; i++)
                        if (polled[i + 1].revents)
                                serve(&self, i);
        }
}
