/* SPDX-License-Identifier: Apache-2.0 */

/*
 * durabled-worker: one process that fills one slot of an app
 *
 * `durabled-worker --recover JOURNAL OBJECTS` empties the journal of a slot that is no more, and
 * ends.
 *
 * Started by durabled with the boot socket as descriptor 3. Reads the boot message, builds the
 * Service, answers the supervisor's messages and ends when it is told to drain, when SIGTERM comes,
 * or when the supervisor is gone.
 */

#include "daemon/core/boot.h"
#include "daemon/core/log.h"
#include "daemon/service.h"
#include "daemon/storage.h"
#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define DRAIN_DEFAULT_NS (10 * NSEC_PER_SEC)
#define BOOT_TIMEOUT_MS 10000

typedef struct Worker {
        Ring *ring;
        Service *service;
        int boot_fd, signal_fd;
        RingOp boot_op, signal_op;
        bool serving, ending, drained;
        int status;
        char name[96];
} Worker;

static void worker_end(Worker *worker, int status)
{
        worker->status = status;
        ring_stop(worker->ring);
}

static void worker_send(Worker *worker, json_t *message, int fd)
{
        int r = boot_send(worker->boot_fd, message, &fd, fd >= 0);

        if (r && r != -EPIPE && r != -ECONNRESET)
                log_warn("cannot answer the supervisor: %s", strerror(-r));
}

static void worker_tell(Worker *worker, json_t *message)
{
        if (!message)
                return;
        worker_send(worker, message, -1);
        json_decref(message);
}

static void service_loaded(Service *service, const char *error, void *data)
{
        Worker *worker = data;

        if (error) {
                log_error("the app could not be loaded:\n%s", error);
                worker_tell(worker, json_pack("{s:s,s:s}", "type", "failed", "message", error));
                /* In development the browser shows why, until a file changes and a reload comes. */
                if (service_serve_error(service, error) == 0)
                        worker_tell(worker, json_pack("{s:s}", "type", "ready"));
                else
                        worker_end(worker, BOOT_EXIT_APP);
                return;
        }
        worker->serving = true;
        worker_tell(worker, json_pack("{s:s}", "type", "ready"));
}

static void service_drained(Service *service, void *data)
{
        Worker *worker = data;

        worker->drained = true;
        worker_end(worker, 0);
}

static void service_operated(Service *service, json_t *message, int fd, void *data)
{
        worker_send(data, message, fd);
}

static void worker_drain(Worker *worker, uint64_t timeout_ns)
{
        if (worker->ending)
                return;
        worker->ending = true;
        if (!worker->serving)
                worker_end(worker, 0);
        else
                service_drain(worker->service, timeout_ns);
}

/* fd: -1, or what came with it, which is taken. */
static void worker_take_message(Worker *worker, json_t *message, int fd)
{
        const char *type = json_string_value(json_object_get(message, "type"));
        json_t *stats;

        if (type && strcmp(type, "operate") == 0) {
                service_operate(worker->service, message, fd);
                return;
        }
        close_p(&fd);
        if (type && strcmp(type, "abandon") == 0) {
                service_abandon(
                        worker->service, json_integer_value(json_object_get(message, "id")));
        } else if (type && strcmp(type, "stats") == 0) {
                stats = service_get_stats(worker->service);
                if (!stats)
                        return;
                json_object_set_new(stats, "type", json_string("stats"));
                json_object_set(stats, "id", json_object_get(message, "id"));
                worker_tell(worker, stats);
        } else if (type && strcmp(type, "drain") == 0) {
                json_int_t ms = json_integer_value(json_object_get(message, "timeout_ms"));

                worker_drain(worker, ms > 0 ? (uint64_t)ms * NSEC_PER_MSEC : DRAIN_DEFAULT_NS);
        } else {
                log_warn("the supervisor said '%s', which this worker does not know",
                        type ? type : "nothing");
        }
}

static void on_boot_socket(RingOp *op, const RingResult *result)
{
        Worker *worker = CONTAINER_OF(op, Worker, boot_op);
        size_t n_fds;
        int r;

        for (;;) {
                _cleanup_(json_decref_p) json_t *message = NULL;
                int fd = -1;

                r = boot_receive(worker->boot_fd, &message, &fd, 1, &n_fds);
                if (r)
                        break;
                worker_take_message(worker, message, fd);
        }
        if (r == -EAGAIN && !result->more)
                ring_poll(worker->ring, op, worker->boot_fd, POLLIN, true);
        else if (r != -EAGAIN && !worker->ending) {
                log_note("the supervisor is gone: draining");
                worker_drain(worker, DRAIN_DEFAULT_NS);
        }
}

static void on_signal(RingOp *op, const RingResult *result)
{
        Worker *worker = CONTAINER_OF(op, Worker, signal_op);
        struct signalfd_siginfo info;

        if (read(worker->signal_fd, &info, sizeof info) == sizeof info)
                worker_drain(worker, DRAIN_DEFAULT_NS);
        if (!result->more && result->res >= 0)
                ring_poll(worker->ring, op, worker->signal_fd, POLLIN, true);
}

/* SIGINT goes to a terminal's whole group: the supervisor alone acts on it. */
static int worker_take_signals(Worker *worker)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        if (sigprocmask(SIG_BLOCK, &set, NULL))
                return -errno;
        signal(SIGINT, SIG_IGN);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        worker->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return worker->signal_fd < 0 ? -errno : 0;
}

static int worker_boot(Worker *worker)
{
        _cleanup_(json_decref_p) json_t *boot = NULL;
        ServiceOptions options = {
                .ring = worker->ring,
                .loaded = service_loaded,
                .drained = service_drained,
                .operated = service_operated,
                .data = worker,
        };
        int fds[BOOT_FDS_MAX];
        size_t n_fds = 0;
        int r;

        r = boot_wait(worker->boot_fd, BOOT_TIMEOUT_MS);
        if (!r)
                r = boot_receive(worker->boot_fd, &boot, fds, BOOT_FDS_MAX, &n_fds);
        if (r) {
                log_error("no boot message on descriptor %d (%s): durabled starts this program",
                        BOOT_FD, strerror(-r));
                return r;
        }
        snprintf(worker->name, sizeof worker->name, "%s/%d",
                json_string_value(json_object_get(boot, "app")),
                (int)json_integer_value(json_object_get(boot, "slot")));
        log_open(worker->name, (LogLevel)json_integer_value(json_object_get(boot, "log_level")));
        if (n_fds != json_array_size(json_object_get(boot, "fds"))) {
                log_error("the boot message names %zu descriptors and brings %zu",
                        json_array_size(json_object_get(boot, "fds")), n_fds);
                return -EPROTO;
        }
        options.boot = boot;
        options.fds = fds;
        options.n_fds = n_fds;
        r = service_new(&options, &worker->service);
        if (r)
                return r;
        r = fd_set_nonblocking(worker->boot_fd);
        if (r)
                return r;
        ring_poll(worker->ring, &worker->boot_op, worker->boot_fd, POLLIN, true);
        ring_poll(worker->ring, &worker->signal_op, worker->signal_fd, POLLIN, true);
        return 0;
}

int main(int argc, char **argv)
{
        Worker worker = { .boot_fd = BOOT_FD, .signal_fd = -1 };
        int r;

        if (argc > 1 && strcmp(argv[1], "--version") == 0) {
                printf("durabled-worker %s\n", DURABLED_VERSION);
                return 0;
        }
        log_open("worker", LOG_INFO);
        if (argc == 4 && strcmp(argv[1], "--recover") == 0)
                return storage_empty(argv[2], argv[3]) ? 1 : 0;
        if (fcntl(BOOT_FD, F_SETFD, FD_CLOEXEC)) {
                fprintf(stderr, "durabled-worker is started by durabled, not by hand\n");
                return 2;
        }
        ring_op_init(&worker.boot_op, on_boot_socket);
        ring_op_init(&worker.signal_op, on_signal);
        r = worker_take_signals(&worker);
        if (!r)
                r = ring_new(&(RingOptions){ 0 }, &worker.ring);
        if (r) {
                log_error("the worker cannot start: %s", strerror(-r));
                return 1;
        }
        r = worker_boot(&worker);
        if (r && storage_get_error())
                worker_tell(&worker,
                        json_pack("{s:s,s:s}", "type", "failed", "message", storage_get_error()));
        if (!r)
                r = ring_run(worker.ring);
        if (r)
                worker.status = 1;
        /* The app's code may be running, on threads that nothing can stop: leave all as it is. */
        if (!worker.drained)
                _exit(worker.status);
        service_free(worker.service);
        ring_free(worker.ring);
        log_close();
        return worker.status;
}
