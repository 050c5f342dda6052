/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/edge/conn.h"
#include "daemon/core/log.h"

#include <errno.h>
#include <sys/socket.h>

static bool transition_is_allowed(ConnState from, ConnState to)
{
        static const unsigned allowed[] = {
                [CONN_IDLE] = 1u << CONN_HEAD,
                [CONN_HEAD] = 1u << CONN_BODY | 1u << CONN_LEAVE | 1u << CONN_SERVE,
                [CONN_LEAVE] = 1u << CONN_BODY | 1u << CONN_SERVE,
                [CONN_BODY] = 1u << CONN_SPOOL | 1u << CONN_SERVE,
                [CONN_SPOOL] = 1u << CONN_SERVE,
                [CONN_SERVE] = 1u << CONN_IDLE | 1u << CONN_LINGER,
                [CONN_LINGER] = 0,
                [CONN_CLOSE] = 0,
        };

        return to == CONN_CLOSE ? from != CONN_CLOSE : (allowed[from] & 1u << to) != 0;
}

void conn_set_state(Conn *conn, ConnState state)
{
        dd_assert(transition_is_allowed(conn->state, state));
        conn->state = state;
}

/*
 * The timer is left armed when the deadline moves to later: it looks again when it fires. So a
 * keep-alive connection costs no timer operation per request.
 */
void conn_set_deadline(Conn *conn, uint64_t after_ns)
{
        conn->deadline = ring_now(conn->edge->ring) + after_ns;
        if (ring_timer_is_armed(&conn->timer) && conn->timer.deadline <= conn->deadline)
                return;
        if (ring_timer_arm(conn->edge->ring, &conn->timer, conn->deadline) < 0)
                conn_close(conn, true);
}

void conn_clear_deadline(Conn *conn)
{
        conn->deadline = 0;
}

static void conn_on_timer(RingTimer *timer)
{
        Conn *conn = CONTAINER_OF(timer, Conn, timer);
        uint64_t now = ring_now(conn->edge->ring);

        if (conn->deadline == 0 || conn->state == CONN_CLOSE)
                return;
        if (conn->deadline > now) {
                if (ring_timer_arm(conn->edge->ring, timer, conn->deadline) < 0)
                        conn_close(conn, true);
                return;
        }
        conn->deadline = 0;
        switch (conn->state) {
        case CONN_HEAD:
                exchange_fail(conn, 408, "The request's head did not arrive in time.");
                break;
        case CONN_BODY:
                exchange_fail(conn, 408, "The request's body did not arrive in time.");
                break;
        case CONN_SERVE:
                /* The client takes nothing, or has closed its side and gone. */
                conn_close(conn, true);
                break;
        default:
                conn_close(conn, false);
        }
}

static bool conn_is_quiet(const Conn *conn)
{
        return !conn->receive.pending && !conn->out.op.pending && !conn->body.op.pending;
}

static void conn_free(Conn *conn)
{
        Edge *edge = conn->edge;

        exchange_drop(conn);
        ring_timer_disarm(edge->ring, &conn->timer);
        if (conn->fd >= 0)
                ring_close(edge->ring, conn->fd);
        list_unlink(&conn->link);
        http_parser_free(conn->parser);
        buf_done(&conn->input);
        buf_done(&conn->out.bytes);
        body_done(&conn->body);
        free(conn);
        edge_connection_gone(edge);
}

static void conn_on_post(RingPost *post)
{
        Conn *conn = CONTAINER_OF(post, Conn, post);

        conn->post_queued = false;
        if (conn->state != CONN_CLOSE)
                exchange_pump(conn);
        else if (conn_is_quiet(conn))
                conn_free(conn);
}

void conn_defer(Conn *conn)
{
        if (conn->post_queued)
                return;
        conn->post_queued = true;
        ring_defer(conn->edge->ring, &conn->post);
}

void conn_close(Conn *conn, bool reset)
{
        Ring *ring = conn->edge->ring;

        if (conn->state == CONN_CLOSE)
                return;
        if (reset && conn->fd >= 0) {
                struct linger now = { .l_onoff = 1, .l_linger = 0 };

                (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        }
        conn_set_state(conn, CONN_CLOSE);
        conn->deadline = 0;
        if (conn->response)
                response_cancel(conn->response);
        if (conn->receive.pending)
                ring_cancel(ring, &conn->receive);
        if (conn->out.op.pending)
                ring_cancel(ring, &conn->out.op);
        if (conn->body.op.pending)
                ring_cancel(ring, &conn->body.op);
        conn_defer(conn);
}

static bool conn_wants_bytes(const Conn *conn)
{
        switch (conn->state) {
        case CONN_IDLE:
        case CONN_HEAD:
        case CONN_LINGER:
                return true;
        case CONN_BODY:
                return !body_is_full(&conn->body);
        case CONN_SPOOL:
        case CONN_SERVE:
                return conn->last || conn->input.len < conn->edge->options.http.head_max;
        default:
                return false;
        }
}

void conn_update_receive(Conn *conn)
{
        bool wants = conn_wants_bytes(conn) && !conn->eof;

        if (conn->state == CONN_CLOSE)
                return;
        if (wants && !conn->receive.pending) {
                conn->receive_cancelled = false;
                ring_recv(conn->edge->ring, &conn->receive, conn->fd);
        } else if (!wants && conn->receive.pending && !conn->receive_cancelled) {
                conn->receive_cancelled = true;
                ring_cancel(conn->edge->ring, &conn->receive);
        }
}

static unsigned status_of_error(int r)
{
        switch (r) {
        case HTTP_E_HEAD_TOO_LARGE:
                return 431;
        case HTTP_E_URI_TOO_LONG:
                return 414;
        case HTTP_E_BODY_TOO_LARGE:
                return 413;
        case HTTP_E_VERSION:
                return 505;
        case HTTP_E_NOT_IMPLEMENTED:
                return 501;
        default:
                return r < 0 ? 500 : 400;
        }
}

static bool conn_is_parsing(const Conn *conn)
{
        return conn->state == CONN_HEAD || conn->state == CONN_BODY;
}

static void conn_on_event(Conn *conn, HttpEvent event, Slice body)
{
        int r;

        switch (event) {
        case HTTP_EVENT_HEAD:
                exchange_begin(conn);
                break;
        case HTTP_EVENT_BODY:
                r = body_append(conn, body);
                if (r < 0)
                        body_fail(conn, r);
                break;
        case HTTP_EVENT_END:
                if (body_end(conn))
                        exchange_serve(conn);
                else
                        conn_set_state(conn, CONN_SPOOL);
                break;
        default:
                break;
        }
}

/*
 * Feeds the parser with what it has not seen: bytes from *fed on. Returns how many bytes at the
 * front are used for good; *fed is then how many of the rest the parser has seen: those of a head
 * that is not complete, kept in case that the connection is handed off.
 */
static size_t conn_parse(Conn *conn, Slice bytes, size_t *fed)
{
        size_t start = 0, at = *fed;

        while (conn->state == CONN_IDLE || conn_is_parsing(conn)) {
                HttpEvent event = HTTP_EVENT_MORE;
                Slice body = { 0 };
                size_t used = 0;
                int r;

                if (conn->state == CONN_IDLE) {
                        if (at >= bytes.len)
                                break;
                        conn_set_state(conn, CONN_HEAD);
                        conn_clear_deadline(conn);
                }
                r = http_parser_feed(conn->parser, slice_skip(bytes, at), &used, &event, &body);
                at += used;
                if (r != 0) {
                        start = at;
                        exchange_fail(
                                conn, status_of_error(r), http_parser_get_error(conn->parser));
                        break;
                }
                if (event == HTTP_EVENT_MORE)
                        break;
                if (event == HTTP_EVENT_HEAD)
                        conn->head_len = at - start;
                conn_on_event(conn, event, body);
                if (conn->state == CONN_LEAVE)
                        break;
                start = at;
        }
        if (conn->state == CONN_BODY)
                start = at;
        *fed = at - start;
        return start;
}

static void conn_after_parse(Conn *conn)
{
        if (conn->state == CONN_HEAD && conn->deadline == 0)
                conn_set_deadline(conn, conn->edge->options.head_timeout_ns);
        else if (conn->state == CONN_BODY)
                conn_set_deadline(conn, conn->edge->options.body_timeout_ns);
        if (conn->eof && (conn->state == CONN_IDLE || conn_is_parsing(conn)))
                conn_close(conn, false);
        conn_update_receive(conn);
        if (conn->state == CONN_LEAVE && !conn->receive.pending)
                hand_off_leave(conn);
}

static void conn_parse_input(Conn *conn)
{
        size_t used = conn_parse(conn, buf_slice(&conn->input), &conn->fed);

        /* An answer that is the last one has thrown away what followed its request. */
        buf_consume(&conn->input, MIN(used, conn->input.len));
}

void conn_process(Conn *conn)
{
        conn_parse_input(conn);
        conn_after_parse(conn);
}

static void conn_take_bytes(Conn *conn, Slice bytes)
{
        conn->edge->stats.bytes_in += bytes.len;
        if (conn->state == CONN_CLOSE || conn->state == CONN_LINGER ||
                (conn->state == CONN_SERVE && conn->last))
                return;
        if (conn->input.len == 0 && conn->state != CONN_LEAVE && conn->state != CONN_SERVE &&
                conn->state != CONN_SPOOL) {
                /* The common case: nothing is copied, a whole request is in the buffer. */
                size_t fed = 0, used = conn_parse(conn, bytes, &fed);

                conn->fed = fed;
                bytes = slice_skip(bytes, used);
                if (conn->state != CONN_CLOSE && bytes.len > 0 &&
                        buf_append_slice(&conn->input, bytes) < 0)
                        conn_close(conn, true);
                return;
        }
        if (buf_append_slice(&conn->input, bytes) < 0) {
                conn_close(conn, true);
                return;
        }
        if (conn->state != CONN_LEAVE)
                conn_parse_input(conn);
}

static void conn_on_eof(Conn *conn)
{
        conn->eof = true;
        switch (conn->state) {
        case CONN_IDLE:
        case CONN_HEAD:
        case CONN_BODY:
        case CONN_LINGER:
                conn_close(conn, false);
                break;
        case CONN_SPOOL:
        case CONN_SERVE:
                /*
                 * A client that closed only its sending side still gets its answer, if it comes
                 * soon: who has gone for good looks the same. Our own workers never half-close.
                 */
                if (conn->peer.origin == EDGE_INTERNAL)
                        conn_close(conn, false);
                else if (!conn->out.op.pending)
                        conn_set_deadline(conn, CONN_HALF_CLOSED_NS);
                break;
        default:
                break;
        }
}

static void conn_on_receive(RingOp *op, const RingResult *result)
{
        Conn *conn = CONTAINER_OF(op, Conn, receive);

        if (result->res > 0)
                conn_take_bytes(conn, result->data);
        else if (result->res == 0)
                conn_on_eof(conn);
        else if (result->res != -ENOBUFS && result->res != -ECANCELED)
                conn_close(conn, false);
        if (!result->more)
                conn->receive_cancelled = false;
        if (conn->state == CONN_CLOSE) {
                if (conn_is_quiet(conn))
                        conn_defer(conn);
                return;
        }
        conn_after_parse(conn);
}

static void buffers_init(Conn *conn)
{
        buf_init(&conn->input, 0);
        buf_init(&conn->out.bytes, 0);
        body_init(&conn->body);
}

/* A request that one worker took must not fail at the next for the headers that we add to it. */
static void limits_widen(HttpLimits *limits)
{
        limits->head_max += INTERNAL_HEAD_ROOM;
        limits->target_max = limits->target_max ? limits->target_max : limits->head_max;
        limits->headers_max = (limits->headers_max ? limits->headers_max : 128) + 16;
}

int conn_new(Edge *edge, int fd, EdgeOrigin origin, unsigned hops, Slice bytes, Conn **ret)
{
        Conn *conn = calloc(1, sizeof *conn);
        HttpLimits limits = edge->options.http;
        int r;

        if (!conn)
                return -ENOMEM;
        if (origin == EDGE_INTERNAL)
                limits_widen(&limits);
        r = http_parser_new(HTTP_REQUEST, &limits, &conn->parser);
        if (r < 0) {
                free(conn);
                return r;
        }
        buffers_init(conn);
        r = buf_append_slice(&conn->input, bytes);
        if (r < 0) {
                http_parser_free(conn->parser);
                buf_done(&conn->input);
                free(conn);
                return r;
        }
        conn->edge = edge;
        conn->fd = fd;
        conn->peer.origin = origin;
        conn->peer.hops = hops;
        conn->post.fn = conn_on_post;
        list_init(&conn->link);
        list_append(&edge->connections, &conn->link);
        edge->stats.connections++;
        ring_op_init(&conn->receive, conn_on_receive);
        ring_timer_init(&conn->timer, conn_on_timer);
        exchange_init(conn);
        conn_set_deadline(conn, edge->options.idle_timeout_ns);
        if (conn->state != CONN_CLOSE)
                conn_process(conn);
        *ret = conn;
        return 0;
}
