/* SPDX-License-Identifier: Apache-2.0 */

/* The worker process of a slot: started, listened to, drained, waited for. */

#include "daemon/core/log.h"
#include "daemon/host/spawn.h"
#include "daemon/host/supervisor-private.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void slot_exit(RingOp *op, const RingResult *result);
static void slot_boot(RingOp *op, const RingResult *result);
static void slot_timer(RingTimer *timer);

static uint64_t slot_now(const Slot *slot)
{
        return ring_now(slot->supervisor->ring);
}

unsigned slot_number(const Slot *slot)
{
        unsigned number = slot->index;

        for (size_t i = 0; i < slot->app->index; i++)
                number += slot->supervisor->apps[i].n_slots;
        return number;
}

/* Never fails: a timer that cannot be armed is a timer that fires now. */
static void slot_arm(Slot *slot, uint64_t after_ns)
{
        if (ring_timer_arm(slot->supervisor->ring, &slot->timer, slot_now(slot) + after_ns) < 0) {
                log_error("%s/%u: out of memory for a timer", slot->app->config->name, slot->index);
                slot_kill(slot);
        }
}

static int spawn(Slot *slot)
{
        char name[96], number[16];
        char *const argv[] = { name, slot->app->config->name, number, NULL };
        int pair[2], fds[BOOT_FDS_MAX], r;
        _cleanup_(close_p) int ours = -1, theirs = -1;
        _cleanup_(json_decref_p) json_t *message = NULL;
        size_t n_fds;

        snprintf(name, sizeof(name), "durabled-worker");
        snprintf(number, sizeof(number), "%u", slot->index);
        message = boot_message_new(slot, fds, &n_fds);
        if (!message)
                return -ENOMEM;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        ours = pair[0];
        theirs = pair[1];
        r = fd_set_nonblocking(ours);
        if (r < 0)
                return r;
        /* Before the process is there: what cannot be sent then costs none. */
        r = boot_send(ours, message, fds, n_fds);
        if (r < 0)
                return r;
        r = spawn_worker(slot->supervisor->worker_path, argv, theirs, &slot->pid, &slot->pidfd);
        if (r < 0)
                return r;
        slot->boot_fd = TAKE_FD(ours);
        return 0;
}

static void slot_retry_later(Slot *slot)
{
        uint64_t wait = slot_backoff(&slot->life, slot_now(slot));

        slot_set_state(&slot->life, SLOT_BACKOFF, slot_now(slot));
        slot_arm(slot, wait);
        log_note("%s/%u: the next start in %.1f s", slot->app->config->name, slot->index,
                (double)wait / (double)NSEC_PER_SEC);
}

void slot_start(Slot *slot)
{
        Ring *ring = slot->supervisor->ring;
        int r;

        dd_assert(slot->pid == 0 && !slot->exit_op.pending && !slot->boot_op.pending);
        ring_timer_disarm(ring, &slot->timer);
        ring_op_init(&slot->exit_op, slot_exit);
        ring_op_init(&slot->boot_op, slot_boot);
        slot->timer.fn = slot_timer;
        free(TAKE_PTR(slot->error));
        slot->error_told = false;
        slot->exited = false;
        slot->generation = slot->supervisor->generation;
        r = spawn(slot);
        if (r < 0) {
                log_error("%s/%u: cannot start a worker (%s): %s", slot->app->config->name,
                        slot->index, slot->supervisor->worker_path, strerror(-r));
                slot_retry_later(slot);
                return;
        }
        log_debug("%s/%u: process %d", slot->app->config->name, slot->index, (int)slot->pid);
        slot_set_state(&slot->life, SLOT_STARTING, slot_now(slot));
        slot_arm(slot, SLOT_READY_TIMEOUT_NS);
        ring_poll(ring, &slot->exit_op, slot->pidfd, POLLIN, false);
        ring_poll(ring, &slot->boot_op, slot->boot_fd, POLLIN, false);
}

void slot_kill(Slot *slot)
{
        if (slot->pidfd >= 0 && !slot->exited)
                (void)syscall(SYS_pidfd_send_signal, slot->pidfd, SIGKILL, NULL, 0);
}

/* Of a slot that is starting or ready. */
void slot_drain(Slot *slot)
{
        uint64_t timeout = slot->supervisor->config->drain_timeout_ns;
        _cleanup_(json_decref_p) json_t *message = json_pack(
                "{s:s, s:I}", "type", "drain", "timeout_ms", (json_int_t)(timeout / NSEC_PER_MSEC));
        int r = message && slot->boot_fd >= 0 ? boot_send(slot->boot_fd, message, NULL, 0)
                                              : -ECONNRESET;

        slot_set_state(&slot->life, SLOT_DRAINING, slot_now(slot));
        if (r < 0) {
                log_warn("%s/%u: cannot be told to drain (%s), it is killed",
                        slot->app->config->name, slot->index, strerror(-r));
                slot_kill(slot);
        }
        slot_arm(slot, timeout + SLOT_LEAVE_TIMEOUT_NS);
}

bool slot_ask_stats(Slot *slot, uint64_t id)
{
        _cleanup_(json_decref_p) json_t *message =
                json_pack("{s:s, s:I}", "type", "stats", "id", (json_int_t)id);

        if (!message || slot->life.state != SLOT_READY || slot->boot_fd < 0)
                return false;
        return boot_send(slot->boot_fd, message, NULL, 0) == 0;
}

static void slot_timer(RingTimer *timer)
{
        Slot *slot = CONTAINER_OF(timer, Slot, timer);

        switch (slot->life.state) {
        case SLOT_BACKOFF:
                slot_start(slot);
                supervisor_changed(slot->supervisor);
                break;
        case SLOT_STARTING:
                log_error("%s/%u: not ready after %u s, killed", slot->app->config->name,
                        slot->index, (unsigned)(SLOT_READY_TIMEOUT_NS / NSEC_PER_SEC));
                slot_kill(slot);
                break;
        case SLOT_DRAINING:
                log_warn("%s/%u: not gone at the end of drain_timeout, killed",
                        slot->app->config->name, slot->index);
                slot_kill(slot);
                break;
        case SLOT_READY:
                log_error("%s/%u: has closed its boot socket, killed", slot->app->config->name,
                        slot->index);
                slot_kill(slot);
                break;
        case SLOT_STOPPED:
        case SLOT_FAILED:
                break;
        }
}

/* ---- what the worker says ---- */

/* Whether another slot of the app has told the same error: people read it once. */
static bool error_is_known(const Slot *slot)
{
        for (unsigned i = 0; i < slot->app->n_slots; i++) {
                const Slot *other = &slot->app->slots[i];

                if (other != slot && other->error_told && slot->error &&
                        other->generation == slot->generation &&
                        strcmp(other->error, slot->error) == 0)
                        return true;
        }
        return false;
}

/* The last: the worker has written the whole traceback already. */
Slice slot_error_line(const Slot *slot)
{
        Slice text = slice_from(slot->error ? slot->error : "");
        size_t at;

        while (text.len > 0 && (text.data[text.len - 1] == '\n' || text.data[text.len - 1] == ' '))
                text.len--;
        for (at = text.len; at > 0 && text.data[at - 1] != '\n';)
                at--;
        return (Slice){ text.data + at, text.len - at };
}

static void slot_tell_app_error(Slot *slot)
{
        const char *name = slot->app->config->name;

        if (error_is_known(slot))
                log_error("%s/%u: the app cannot be loaded: the same error", name, slot->index);
        else
                log_error("%s/%u: the app cannot be loaded: %.*s", name, slot->index,
                        SLICE_FMT(
                                slot->error ? slot_error_line(slot) : SLICE("it gave no reason")));
        slot->error_told = slot->error != NULL;
}

/* fd: -1 or what came with it, which is taken. */
static void slot_message(Slot *slot, json_t *message, int fd)
{
        const char *type = json_string_value(json_object_get(message, "type"));
        const char *text;

        if (type && strcmp(type, "operated") == 0) {
                operate_answered(slot, message, fd);
                return;
        }
        close_p(&fd);
        if (type && strcmp(type, "ready") == 0 && slot->life.state == SLOT_STARTING) {
                slot_set_state(&slot->life, SLOT_READY, slot_now(slot));
                watch_heard(slot);
                ring_timer_disarm(slot->supervisor->ring, &slot->timer);
                /* In development it serves its error. */
                if (slot->error)
                        slot_tell_app_error(slot);
                else
                        log_info("%s/%u: ready (process %d)", slot->app->config->name, slot->index,
                                (int)slot->pid);
                supervisor_changed(slot->supervisor);
        } else if (type && strcmp(type, "failed") == 0) {
                text = json_string_value(json_object_get(message, "message"));
                free(slot->error);
                slot->error = strndup(text ? text : "it gave no reason", SLOT_ERROR_MAX);
        } else if (type && strcmp(type, "stats") == 0) {
                watch_heard(slot);
                query_answered(slot, (uint64_t)json_integer_value(json_object_get(message, "id")),
                        message);
        } else if (!type || strcmp(type, "ready") != 0) {
                log_warn("%s/%u: says \"%s\", which is not understood", slot->app->config->name,
                        slot->index, type ? type : "");
        }
}

/* Reads all messages that are there. False at the end of the socket. */
static bool slot_receive(Slot *slot)
{
        for (;;) {
                _cleanup_(json_decref_p) json_t *message = NULL;
                size_t n_fds = 0;
                int fd = -1, r = boot_receive(slot->boot_fd, &message, &fd, 1, &n_fds);

                if (r == -EAGAIN || r == -EINTR)
                        return true;
                if (r == -EPROTO) {
                        log_error("%s/%u: sends what is no message, killed",
                                slot->app->config->name, slot->index);
                        slot_kill(slot);
                        return false;
                }
                if (r < 0)
                        return false;
                slot_message(slot, message, fd);
        }
}

/* ---- the end ---- */

static void slot_tell_end(Slot *slot)
{
        const char *name = slot->app->config->name;

        if (slot->life.state == SLOT_DRAINING) {
                log_info("%s/%u: stopped", name, slot->index);
        } else if (slot->life.state == SLOT_STARTING && slot->status == BOOT_EXIT_APP) {
                slot_tell_app_error(slot);
        } else if (slot->status < 0) {
                log_error("%s/%u: process %d was killed by signal %d (%s)", name, slot->index,
                        (int)slot->pid, -slot->status, strsignal(-slot->status));
        } else {
                log_error("%s/%u: process %d ended with status %d%s%s", name, slot->index,
                        (int)slot->pid, slot->status, slot->error ? ": " : "",
                        slot->error ? slot->error : "");
        }
}

/* The process has been waited for and no operation is pending. */
static void slot_ended(Slot *slot)
{
        bool app_failed = slot->life.state == SLOT_STARTING && slot->status == BOOT_EXIT_APP;

        slot_tell_end(slot);
        close(TAKE_FD(slot->pidfd));
        if (slot->boot_fd >= 0)
                close(TAKE_FD(slot->boot_fd));
        slot->pid = 0;
        ring_timer_disarm(slot->supervisor->ring, &slot->timer);
        query_slot_lost(slot);
        operate_slot_lost(slot);
        if (slot->life.state == SLOT_DRAINING) {
                slot_set_state(&slot->life, SLOT_STOPPED, slot_now(slot));
        } else if (app_failed && slot->supervisor->config->development) {
                slot_set_state(&slot->life, SLOT_FAILED, slot_now(slot));
                log_note("%s/%u: waits for a reload", slot->app->config->name, slot->index);
        } else {
                slot_retry_later(slot);
        }
        supervisor_changed(slot->supervisor);
}

static void slot_boot(RingOp *op, const RingResult *result)
{
        Slot *slot = CONTAINER_OF(op, Slot, boot_op);

        if (slot->exited) {
                slot_ended(slot);
                return;
        }
        if (slot_receive(slot)) {
                ring_poll(slot->supervisor->ring, &slot->boot_op, slot->boot_fd, POLLIN, false);
                return;
        }
        close(TAKE_FD(slot->boot_fd));
        if (slot->life.state == SLOT_READY || slot->life.state == SLOT_STARTING)
                slot_arm(slot, SLOT_LEAVE_TIMEOUT_NS);
}

static void slot_exit(RingOp *op, const RingResult *result)
{
        Slot *slot = CONTAINER_OF(op, Slot, exit_op);
        siginfo_t info = { 0 };

        if (waitid(P_PIDFD, (id_t)slot->pidfd, &info, WEXITED) < 0)
                log_error(
                        "%s/%u: waitid: %s", slot->app->config->name, slot->index, strerror(errno));
        slot->status = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
        slot->exited = true;
        if (!slot->boot_op.pending) {
                slot_ended(slot);
                return;
        }
        if (slot->boot_fd >= 0)
                (void)slot_receive(slot); /* its last words */
        ring_cancel(slot->supervisor->ring, &slot->boot_op);
}
