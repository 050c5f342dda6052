/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/log.h"
#include "daemon/edge/conn.h"
#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <time.h>

#define CONNECTIONS_MAX 10000u
#define STOP_IDLE_NS (50 * NSEC_PER_MSEC)
#define RETRY_NS (100 * NSEC_PER_MSEC)

static void edge_resume(Edge *edge);
static void edge_on_retry(RingTimer *timer);
static void edge_on_stop_deadline(RingTimer *timer);

static void options_set_defaults(EdgeOptions *options)
{
        if (!options->connections_max)
                options->connections_max = CONNECTIONS_MAX;
        if (!options->head_timeout_ns)
                options->head_timeout_ns = 10 * NSEC_PER_SEC;
        if (!options->body_timeout_ns)
                options->body_timeout_ns = 30 * NSEC_PER_SEC;
        if (!options->send_timeout_ns)
                options->send_timeout_ns = 30 * NSEC_PER_SEC;
        if (!options->idle_timeout_ns)
                options->idle_timeout_ns = 75 * NSEC_PER_SEC;
        if (!options->http.head_max)
                options->http.head_max = 65536;
        if (!options->http.body_max)
                options->http.body_max = UINT64_C(100) << 20;
}

int edge_new(const EdgeOptions *options, Edge **ret)
{
        _cleanup_(edge_free_p) Edge *edge = NULL;

        dd_assert(options->ring && options->handler);
        edge = calloc(1, sizeof *edge);
        if (!edge)
                return -ENOMEM;
        edge->options = *options;
        edge->ring = options->ring;
        list_init(&edge->connections);
        list_init(&edge->listeners);
        list_init(&edge->receivers);
        for (unsigned i = 0; i < EDGE_SLOTS_MAX; i++)
                edge->hand_off_fds[i] = -1;
        ring_timer_init(&edge->retry_timer, edge_on_retry);
        ring_timer_init(&edge->stop_timer, edge_on_stop_deadline);
        options_set_defaults(&edge->options);
        edge->spool_directory =
                strdup(options->spool_directory ? options->spool_directory : "/var/tmp");
        if (!edge->spool_directory)
                return -ENOMEM;
        edge->options.spool_directory = edge->spool_directory;
        *ret = TAKE_PTR(edge);
        return 0;
}

Edge *edge_free(Edge *edge)
{
        List *link;

        if (!edge)
                return NULL;
        dd_assert(list_is_empty(&edge->connections));
        while ((link = list_pop(&edge->listeners))) {
                Listener *listener = list_entry(link, Listener, link);

                dd_assert(!listener->accept.pending);
                close_p(&listener->fd);
                free(listener);
        }
        hand_off_done(edge);
        ring_timer_disarm(edge->ring, &edge->retry_timer);
        ring_timer_disarm(edge->ring, &edge->stop_timer);
        for (unsigned i = 0; i < EDGE_SLOTS_MAX; i++)
                close_p(&edge->hand_off_fds[i]);
        free(edge->spool_directory);
        free(edge);
        return NULL;
}

void edge_get_stats(const Edge *edge, EdgeStats *ret)
{
        *ret = edge->stats;
}

const char *edge_get_date(Edge *edge)
{
        struct timespec now;

        clock_gettime(CLOCK_REALTIME_COARSE, &now);
        if (now.tv_sec != edge->date_seconds) {
                edge->date_seconds = now.tv_sec;
                http_format_date(now.tv_sec, edge->date);
        }
        return edge->date;
}

static void edge_on_retry(RingTimer *timer)
{
        edge_resume(CONTAINER_OF(timer, Edge, retry_timer));
}

/*
 * Calls of other workers are taken all the same: they are bounded at their side, and connections
 * that are served here may wait for them.
 */
static bool listener_is_paused(const Listener *listener)
{
        return listener->edge->stopping ||
               (listener->edge->paused && listener->origin != EDGE_INTERNAL);
}

static void edge_pause(Edge *edge)
{
        edge->paused = true;
        list_for_each(link, &edge->listeners) {
                Listener *listener = list_entry(link, Listener, link);

                if (listener_is_paused(listener) && listener->accept.pending &&
                        !listener->cancelled) {
                        listener->cancelled = true;
                        ring_cancel(edge->ring, &listener->accept);
                }
        }
}

static void edge_resume(Edge *edge)
{
        if (edge->stopping)
                return;
        edge->paused = false;
        list_for_each(link, &edge->listeners) {
                Listener *listener = list_entry(link, Listener, link);

                if (!listener->accept.pending)
                        ring_accept(edge->ring, &listener->accept, listener->fd);
        }
}

static bool error_is_shortage(int r)
{
        return r == -EMFILE || r == -ENFILE || r == -ENOBUFS || r == -ENOMEM;
}

static void listener_on_accept(RingOp *op, const RingResult *result)
{
        Listener *listener = CONTAINER_OF(op, Listener, accept);
        Edge *edge = listener->edge;
        Conn *conn;

        if (result->res >= 0) {
                edge->stats.accepted[listener->origin]++;
                if (conn_new(edge, result->res, listener->origin, 0, (Slice){ 0 }, &conn) < 0)
                        ring_close(edge->ring, result->res);
                if (edge->stats.connections >= edge->options.connections_max && !edge->paused)
                        edge_pause(edge);
        }
        if (result->more)
                return;
        listener->cancelled = false;
        if (edge->stopping) {
                edge_check_stopped(edge);
                return;
        }
        if (result->res < 0 && result->res != -ECANCELED && result->res != -ECONNABORTED) {
                /* Out of descriptors or memory: trying at once would spin. */
                if (!edge->paused)
                        log_warn("accepting pauses for 100 ms: %s", strerror(-result->res));
                edge->paused = edge->paused || error_is_shortage(result->res);
                (void)ring_timer_arm(
                        edge->ring, &edge->retry_timer, ring_now(edge->ring) + RETRY_NS);
                return;
        }
        if (!listener_is_paused(listener))
                ring_accept(edge->ring, &listener->accept, listener->fd);
}

/* io_uring answers -EAGAIN for descriptors that are non-blocking, instead of waiting. */
static int fd_set_blocking(int fd)
{
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0)
                return -errno;
        if (!(flags & O_NONBLOCK))
                return 0;
        return fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

int edge_listen(Edge *edge, int fd, EdgeOrigin origin)
{
        Listener *listener;
        int r, on = 1;

        dd_assert(!edge->stopping);
        r = fd_set_blocking(fd);
        if (r < 0)
                return r;
        /* Accepted connections inherit it, which saves a call for each. Not for Unix sockets. */
        if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 && errno != EOPNOTSUPP &&
                errno != ENOPROTOOPT)
                return -errno;
        listener = calloc(1, sizeof *listener);
        if (!listener)
                return -ENOMEM;
        listener->edge = edge;
        listener->fd = fd;
        listener->origin = origin;
        list_init(&listener->link);
        list_append(&edge->listeners, &listener->link);
        ring_op_init(&listener->accept, listener_on_accept);
        if (!listener_is_paused(listener))
                ring_accept(edge->ring, &listener->accept, fd);
        return 0;
}

int edge_set_hand_off(Edge *edge, unsigned slot, int fd)
{
        if (slot >= EDGE_SLOTS_MAX)
                return -ERANGE;
        close_p(&edge->hand_off_fds[slot]);
        edge->hand_off_fds[slot] = fd;
        return 0;
}

void edge_connection_gone(Edge *edge)
{
        edge->stats.connections--;
        if (edge->stopping)
                edge_check_stopped(edge);
        else if (edge->paused && edge->stats.connections < edge->options.connections_max)
                edge_resume(edge);
}

/* The last thing that a caller does with the edge: on_stopped() may free it. */
void edge_check_stopped(Edge *edge)
{
        if (!edge->stopping || edge->stopped || edge->stop_post_queued ||
                !list_is_empty(&edge->connections))
                return;
        list_for_each(link, &edge->listeners)
                if (list_entry(link, Listener, link)->accept.pending)
                        return;
        if (!list_is_empty(&edge->receivers))
                return;
        edge->stopped = true;
        ring_timer_disarm(edge->ring, &edge->retry_timer);
        ring_timer_disarm(edge->ring, &edge->stop_timer);
        if (edge->on_stopped)
                edge->on_stopped(edge->on_stopped_data);
}

static void edge_on_stop_deadline(RingTimer *timer)
{
        Edge *edge = CONTAINER_OF(timer, Edge, stop_timer);

        list_for_each_safe(link, &edge->connections)
                conn_close(list_entry(link, Conn, link), true);
}

static void edge_on_stop_post(RingPost *post)
{
        Edge *edge = CONTAINER_OF(post, Edge, stop_post);

        edge->stop_post_queued = false;
        edge_check_stopped(edge);
}

void edge_stop(Edge *edge, uint64_t deadline, void (*stopped)(void *data), void *data)
{
        dd_assert(!edge->stopping);
        edge->stopping = true;
        edge->on_stopped = stopped;
        edge->on_stopped_data = data;
        edge->stop_post.fn = edge_on_stop_post;
        edge->stop_post_queued = true;
        ring_defer(edge->ring, &edge->stop_post);
        edge_pause(edge);
        hand_off_stop(edge);
        list_for_each_safe(link, &edge->connections) {
                Conn *conn = list_entry(link, Conn, link);

                /* A request may be on its way already: it is still answered. */
                if (conn->state == CONN_IDLE)
                        conn_set_deadline(conn, STOP_IDLE_NS);
        }
        if (ring_timer_arm(edge->ring, &edge->stop_timer, deadline) < 0)
                edge_on_stop_deadline(&edge->stop_timer);
}
