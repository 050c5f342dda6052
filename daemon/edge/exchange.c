/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/log.h"
#include "daemon/edge/conn.h"
#include "lib/base/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

static void exchange_on_sent(RingOp *op, const RingResult *result);
static void exchange_send_refusal(Conn *conn);

static const char continue_answer[] = "HTTP/1.1 100 Continue\r\n\r\n";

void exchange_init(Conn *conn)
{
        ring_op_init(&conn->out.op, exchange_on_sent);
}

/* Once for a connection, at its first request. */
static void conn_find_peer(Conn *conn)
{
        socklen_t len = sizeof conn->peer.remote;
        const void *address = NULL;

        conn->peer_known = true;
        if (getpeername(conn->fd, (struct sockaddr *)&conn->peer.remote, &len) < 0)
                conn->peer.remote.ss_family = AF_UNSPEC;
        len = sizeof conn->peer.local;
        if (getsockname(conn->fd, (struct sockaddr *)&conn->peer.local, &len) < 0)
                conn->peer.local.ss_family = AF_UNSPEC;
        if (conn->peer.remote.ss_family == AF_INET)
                address = &((struct sockaddr_in *)&conn->peer.remote)->sin_addr;
        else if (conn->peer.remote.ss_family == AF_INET6) {
                struct in6_addr *six = &((struct sockaddr_in6 *)&conn->peer.remote)->sin6_addr;

                if (IN6_IS_ADDR_V4MAPPED(six)) {
                        (void)inet_ntop(AF_INET, &six->s6_addr[12], conn->peer_text,
                                sizeof conn->peer_text);
                        return;
                }
                address = six;
        }
        if (address)
                (void)inet_ntop(conn->peer.remote.ss_family, address, conn->peer_text,
                        sizeof conn->peer_text);
}

static bool head_has_our_headers(const HttpHead *head)
{
        for (size_t i = 0; i < head->n_headers; i++) {
                Slice name = head->headers[i].name;

                if (name.len >= 11 && slice_equal_case(slice_head(name, 11), SLICE("X-Durabled-")))
                        return true;
        }
        return false;
}

void exchange_begin(Conn *conn)
{
        const HttpHead *head = http_parser_get_head(conn->parser);
        Edge *edge = conn->edge;

        edge->stats.requests++;
        conn->n_requests++;
        conn->head_request = slice_equal(head->method, SLICE("HEAD"));
        conn->keep_alive = head->keep_alive;
        conn->minor = head->minor;
        conn->decision = (EdgeDecision){ 0 };
        if (!conn->peer_known)
                conn_find_peer(conn);
        if (conn->peer.origin != EDGE_INTERNAL && head_has_our_headers(head)) {
                exchange_fail(conn, 400,
                        "Headers that start with X-Durabled- are reserved: leave them out.");
                return;
        }
        if (slice_equal(head->method, SLICE("CONNECT"))) {
                exchange_fail(conn, 501, "CONNECT is not supported here.");
                return;
        }
        edge->options.handler->route(
                edge->options.handler_data, head, &conn->peer, &conn->decision);
        if (conn->decision.action == EDGE_REFUSE) {
                if (conn->decision.status == 0)
                        conn->decision.status = 500;
                /* With nothing more to come the connection can go on after the answer. */
                if (head->has_body)
                        exchange_fail(conn, conn->decision.status, conn->decision.message);
                else
                        conn_set_state(conn, CONN_BODY);
                return;
        }
        if (conn->decision.action == EDGE_HAND_OFF) {
                if (hand_off_is_possible(conn, conn->decision.slot)) {
                        conn_clear_deadline(conn);
                        conn_set_state(conn, CONN_LEAVE);
                        return;
                }
                edge->stats.hand_off_failed++;
        }
        exchange_start(conn);
}

static void send_continue(Conn *conn)
{
        Output *out = &conn->out;

        conn->continue_sent = true;
        out->vector[0] =
                (struct iovec){ (void *)(uintptr_t)continue_answer, sizeof continue_answer - 1 };
        out->vector_at = 0;
        out->n_vector = 1;
        ring_send(conn->edge->ring, &out->op, conn->fd, continue_answer, sizeof continue_answer - 1,
                0);
}

/* The request is ours: its body may come. */
void exchange_start(Conn *conn)
{
        const HttpHead *head = http_parser_get_head(conn->parser);
        uint64_t body_max = conn->decision.body_max;

        if (body_max == 0)
                body_max = conn->peer.origin == EDGE_INTERNAL ? INTERNAL_BODY_MAX
                                                              : conn->edge->options.http.body_max;
        conn_set_state(conn, CONN_BODY);
        http_parser_set_body_max(conn->parser, body_max);
        if (head->content_length > 0 && (uint64_t)head->content_length > body_max) {
                exchange_fail(conn, 413, "The request's body is larger than is allowed here.");
                return;
        }
        if (head->expect_continue && head->has_body && head->minor >= 1)
                send_continue(conn);
}

static int request_from(Conn *conn, Request **ret)
{
        const HttpHead *head = http_parser_get_head(conn->parser);
        Body *body = &conn->body;
        RequestParts parts = {
                .method = head->method,
                .scheme = SLICE("http"),
                .authority = head->authority,
                .target = head->target,
                .path = head->path,
                .query = head->query,
                .peer = slice_from(conn->peer_text),
                .headers = head->headers,
                .n_headers = head->n_headers,
                .body_fd = body->fd,
                .body_fd_len = body->written,
        };
        int r;

        if (body->fd < 0 && body->memory.len > 0) {
                parts.body_len = body->memory.len;
                parts.body = buf_take(&body->memory);
                if (!parts.body)
                        return -ENOMEM;
        }
        r = request_new(&parts, ret);
        if (r < 0) {
                free(parts.body);
                return r;
        }
        body->fd = -1;
        return 0;
}

static void exchange_on_change(Response *response, void *data)
{
        Conn *conn = data;

        /* Head, chunks and end come in calls of their own: they leave together. */
        if (conn->state == CONN_SERVE && !conn->out.op.pending)
                conn_defer(conn);
}

void exchange_serve(Conn *conn)
{
        static const ResponseConsumer consumer = { exchange_on_change };
        Edge *edge = conn->edge;
        int r;

        if (conn->decision.action == EDGE_REFUSE) {
                exchange_send_refusal(conn);
                return;
        }
        r = request_from(conn, &conn->request);
        if (r < 0) {
                exchange_fail(conn, 503, "The server is out of memory.");
                return;
        }
        body_clear(&conn->body);
        conn_clear_deadline(conn);
        conn_set_state(conn, CONN_SERVE);
        r = edge->options.handler->serve(edge->options.handler_data, &conn->decision, &conn->peer,
                conn->request, &conn->response);
        if (r < 0) {
                log_error("request %s: serving failed: %s", conn->request->id, strerror(-r));
                conn->response = NULL;
                exchange_fail(conn, 500, "The request could not be served.");
                return;
        }
        response_set_consumer(conn->response, &consumer, conn);
        if (conn->eof)
                conn_set_deadline(conn, CONN_HALF_CLOSED_NS);
        exchange_pump(conn);
}

static bool exchange_is_last(const Conn *conn)
{
        const EdgeOptions *options = &conn->edge->options;

        return conn->last || !conn->keep_alive || conn->edge->stopping ||
               (options->requests_max && conn->n_requests >= options->requests_max);
}

static void output_reset(Output *out)
{
        buf_clear(&out->bytes);
        out->n_vector = out->vector_at = out->n_chunks = 0;
        out->segment = 0;
}

/* What has been written to bytes since the last call becomes the next entry of the vector. */
static void output_cut(Output *out)
{
        size_t len = out->bytes.len - out->segment;

        if (len > 0)
                out->vector[out->n_vector++] = (struct iovec){ NULL, len };
        out->segment = out->bytes.len;
}

static void output_submit(Conn *conn)
{
        Output *out = &conn->out;
        unsigned n = out->n_vector - out->vector_at;
        struct iovec *first = &out->vector[out->vector_at];

        conn_set_deadline(conn, conn->edge->options.send_timeout_ns);
        if (conn->state == CONN_CLOSE)
                return;
        if (n == 1) {
                ring_send(conn->edge->ring, &out->op, conn->fd, first->iov_base, first->iov_len, 0);
                return;
        }
        out->message = (struct msghdr){ .msg_iov = first, .msg_iovlen = n };
        ring_sendmsg(conn->edge->ring, &out->op, conn->fd, &out->message, 0);
}

static void output_send(Conn *conn)
{
        Output *out = &conn->out;
        char *bytes;

        output_cut(out);
        bytes = buf_data(&out->bytes);
        for (unsigned i = 0; i < out->n_vector; i++)
                if (!out->vector[i].iov_base) {
                        out->vector[i].iov_base = bytes;
                        bytes += out->vector[i].iov_len;
                }
        output_submit(conn);
}

static int output_header(Buf *buf, Slice name, Slice value)
{
        size_t len = name.len + value.len + 4;
        char *to;
        int r = buf_reserve(buf, len, &to);

        if (r < 0)
                return r;
        memcpy(to, name.data, name.len);
        memcpy(to + name.len, ": ", 2);
        if (value.len)
                memcpy(to + name.len + 2, value.data, value.len);
        memcpy(to + len - 2, "\r\n", 2);
        buf_commit(buf, len);
        return 0;
}

static int output_framing(Conn *conn, unsigned status, int64_t length)
{
        Output *out = &conn->out;
        char number[24];

        out->framing = FRAMING_NONE;
        if (status == 204 || status == 304)
                return 0;
        if (length >= 0) {
                if (!conn->head_request) {
                        out->framing = FRAMING_LENGTH;
                        out->left = (uint64_t)length;
                }
                (void)snprintf(number, sizeof number, "%lld", (long long)length);
                return output_header(&out->bytes, SLICE("Content-Length"), slice_from(number));
        }
        if (conn->head_request)
                return 0;
        if (conn->minor >= 1) {
                out->framing = FRAMING_CHUNKED;
                return output_header(&out->bytes, SLICE("Transfer-Encoding"), SLICE("chunked"));
        }
        out->framing = FRAMING_CLOSE;
        conn->last = true;
        return 0;
}

static bool head_has(const ResponseHead *head, Slice name)
{
        for (size_t i = 0; i < head->n_headers; i++)
                if (slice_equal_case(head->headers[i].name, name))
                        return true;
        return false;
}

static int output_head(Conn *conn, const ResponseHead *head, int64_t length)
{
        const EdgeHandler *handler = conn->edge->options.handler;
        Buf *bytes = &conn->out.bytes;
        int r = http_write_status(bytes, head->status);

        conn->last = exchange_is_last(conn);
        if (r == 0)
                r = output_framing(conn, head->status, length);
        if (r == 0)
                r = output_header(bytes, SLICE("Date"), slice_of(edge_get_date(conn->edge), 29));
        /* What comes from another worker, or from an app that names itself, has one already. */
        if (r == 0 && conn->peer.origin != EDGE_INTERNAL && !head_has(head, SLICE("Server")))
                r = buf_append_slice(bytes, SLICE("Server: durabled\r\n"));
        if (r == 0 && conn->last)
                r = buf_append_slice(bytes, SLICE("Connection: close\r\n"));
        else if (r == 0 && conn->minor == 0)
                r = buf_append_slice(bytes, SLICE("Connection: keep-alive\r\n"));
        for (size_t i = 0; r == 0 && i < head->n_headers; i++)
                r = output_header(bytes, head->headers[i].name, head->headers[i].value);
        if (r == 0 && handler->add_headers)
                handler->add_headers(
                        conn->edge->options.handler_data, &conn->decision, conn->response, bytes);
        if (r == 0)
                r = http_write_head_end(bytes);
        conn->status = head->status;
        conn->out.head_written = true;
        return r;
}

/* Takes the chunk. */
static int output_chunk(Conn *conn, Chunk *chunk)
{
        Output *out = &conn->out;
        int r = 0;

        if (out->framing == FRAMING_LENGTH) {
                /* What exceeds the length that the head gave would be read as the next answer. */
                out->broken = out->broken || chunk->len > out->left;
                chunk->len = MIN(chunk->len, out->left);
                out->left -= chunk->len;
        }
        if (out->framing == FRAMING_NONE || chunk->len == 0) {
                chunk_free(chunk);
                return 0;
        }
        if (out->framing == FRAMING_CHUNKED)
                r = http_write_chunk_head(&out->bytes, chunk->len);
        if (r == 0 && chunk->len <= CONN_COPY_MAX) {
                r = buf_append(&out->bytes, chunk->data, chunk->len);
                chunk_free(chunk);
        } else {
                output_cut(out);
                out->vector[out->n_vector++] = (struct iovec){ chunk->data, chunk->len };
                out->chunks[out->n_chunks++] = chunk;
        }
        if (r == 0 && out->framing == FRAMING_CHUNKED)
                r = buf_append_slice(&out->bytes, SLICE("\r\n"));
        return r;
}

static int output_end(Conn *conn)
{
        Output *out = &conn->out;

        out->complete = true;
        /* A short body cannot be mended: the client must see that it is cut. */
        if (out->framing == FRAMING_LENGTH && out->left > 0)
                out->broken = true;
        return out->framing == FRAMING_CHUNKED ? http_write_last_chunk(&out->bytes) : 0;
}

/* Lets go of request and response, whose producer may outlive us. */
static void exchange_release(Conn *conn)
{
        Edge *edge = conn->edge;

        if (conn->response) {
                response_set_consumer(conn->response, NULL, NULL);
                response_cancel(conn->response);
        }
        if (edge->options.handler->finished && conn->request)
                edge->options.handler->finished(edge->options.handler_data, &conn->decision,
                        conn->request, conn->response, conn->status);
        conn->request = request_unref(conn->request);
        conn->response = response_unref(conn->response);
}

static void buffer_shrink(Buf *buf)
{
        if (buf->len == 0 && buf->size > CONN_IDLE_BUFFER_MAX) {
                buf_done(buf);
                buf_init(buf, 0);
        }
}

static void exchange_done(Conn *conn)
{
        Edge *edge = conn->edge;
        bool linger = conn->unread || conn->input.len > 0 || conn->keep_alive;

        if (conn->status >= 500)
                edge->stats.errors_5xx++;
        else if (conn->status >= 400)
                edge->stats.errors_4xx++;
        exchange_release(conn);
        conn->out.head_written = conn->out.complete = false;
        if (conn->last && (!linger || conn->eof)) {
                conn_close(conn, false);
                return;
        }
        if (conn->last) {
                (void)shutdown(conn->fd, SHUT_WR);
                conn_set_state(conn, CONN_LINGER);
                buf_clear(&conn->input);
                conn_set_deadline(conn, CONN_LINGER_NS);
                conn_update_receive(conn);
                return;
        }
        http_parser_next(conn->parser);
        buffer_shrink(&conn->input);
        buffer_shrink(&conn->out.bytes);
        conn->peer.hops = 0;
        conn->fed = 0;
        conn->status = 0;
        conn->continue_sent = false;
        conn_set_state(conn, CONN_IDLE);
        conn_set_deadline(conn, edge->options.idle_timeout_ns);
        if (conn->state == CONN_IDLE)
                conn_process(conn);
}

static void exchange_send_error(Conn *conn, const ErrorAnswer *answer)
{
        Output *out = &conn->out;

        if (!out->op.pending)
                output_reset(out);
        if (error_write(&out->bytes, answer) < 0) {
                conn_close(conn, true);
                return;
        }
        conn->status = answer->status;
        out->head_written = out->complete = true;
        out->later = out->op.pending;
        if (!out->later)
                output_send(conn);
}

static void exchange_send_abort(Conn *conn)
{
        unsigned retry_after = 0;
        const char *message = NULL;
        unsigned status = response_get_abort(conn->response, &retry_after, &message);
        const HttpHeader *accept = request_find_header(conn->request, SLICE("Accept"));
        ErrorAnswer answer = {
                .status = status >= 400 ? status : 500,
                .retry_after = retry_after,
                .message = message && *message ? message : NULL,
                .request_id = conn->request->id,
                .date = edge_get_date(conn->edge),
                .accept = accept ? accept->value : (Slice){ 0 },
                .head_request = conn->head_request,
                .internal_abort = conn->peer.origin == EDGE_INTERNAL,
        };

        conn->last = exchange_is_last(conn);
        answer.close = conn->last;
        answer.keep_alive_10 = conn->minor == 0;
        exchange_send_error(conn, &answer);
}

static void exchange_send_refusal(Conn *conn)
{
        const HttpHead *head = http_parser_get_head(conn->parser);
        const HttpHeader *accept = http_head_find(head, SLICE("Accept"));
        char id[17];
        ErrorAnswer answer = {
                .status = conn->decision.status,
                .message = conn->decision.message,
                .request_id = id,
                .date = edge_get_date(conn->edge),
                .accept = accept ? accept->value : (Slice){ 0 },
                .head_request = conn->head_request,
                .internal_abort = conn->peer.origin == EDGE_INTERNAL,
        };

        random_hex(id, 8);
        conn_set_state(conn, CONN_SERVE);
        conn_clear_deadline(conn);
        conn->last = exchange_is_last(conn);
        answer.close = conn->last;
        answer.keep_alive_10 = conn->minor == 0;
        exchange_send_error(conn, &answer);
}

void exchange_fail(Conn *conn, unsigned status, const char *message)
{
        bool head_known = conn->state == CONN_BODY || conn->state == CONN_SPOOL ||
                          conn->state == CONN_SERVE || conn->decision.action == EDGE_REFUSE;
        const HttpHeader *accept = NULL;
        char id[17];
        ErrorAnswer answer = {
                .status = status,
                .message = message,
                .request_id = id,
                .date = edge_get_date(conn->edge),
                .close = true,
                .internal_abort = conn->peer.origin == EDGE_INTERNAL,
        };

        if (conn->state == CONN_CLOSE)
                return;
        if (conn->state == CONN_SERVE && conn->request)
                accept = request_find_header(conn->request, SLICE("Accept"));
        else if (head_known)
                accept = http_head_find(http_parser_get_head(conn->parser), SLICE("Accept"));
        if (accept)
                answer.accept = accept->value;
        answer.head_request = head_known && conn->head_request;
        random_hex(id, 8);
        conn->last = conn->unread = true;
        if (conn->state != CONN_SERVE)
                conn_set_state(conn, CONN_SERVE);
        conn_clear_deadline(conn);
        buf_clear(&conn->input);
        exchange_send_error(conn, &answer);
}

/* Gathers what the response has, up to one batch. 1: something is to be sent, 0: nothing. */
static int exchange_gather(Conn *conn)
{
        Response *response = conn->response;
        Output *out = &conn->out;
        Chunk *chunks[CONN_BATCH];
        size_t total = 0;
        unsigned n = 0;
        int r = 0;

        while (n < CONN_BATCH && total < RESPONSE_QUEUE_MAX && (chunks[n] = response_pop(response)))
                total += chunks[n++]->len;
        if (!out->head_written) {
                const ResponseHead *head = response_get_head(response);
                int64_t length = head->content_length;

                if (length < 0 && response_is_drained(response))
                        length = (int64_t)total;
                r = output_head(conn, head, length);
        }
        for (unsigned i = 0; i < n; i++)
                if (r < 0)
                        chunk_free(chunks[i]);
                else
                        r = output_chunk(conn, chunks[i]);
        /* An answer without a body ends with its head: what follows is cancelled. */
        if (r == 0 && (out->framing == FRAMING_NONE || response_is_drained(response)))
                r = output_end(conn);
        return r < 0 ? r : out->bytes.len > 0 || out->n_vector > 0;
}

void exchange_pump(Conn *conn)
{
        Output *out = &conn->out;
        int r;

        if (conn->state != CONN_SERVE || !conn->response || out->op.pending || out->complete)
                return;
        if (response_get_state(conn->response) == RESPONSE_ABORTED) {
                if (out->head_written)
                        conn_close(conn, true);
                else
                        exchange_send_abort(conn);
                return;
        }
        if (response_get_state(conn->response) == RESPONSE_OPEN)
                return;
        output_reset(out);
        r = exchange_gather(conn);
        if (r < 0)
                conn_close(conn, true);
        else if (r > 0)
                output_send(conn);
        else if (out->complete)
                exchange_done(conn);
        else if (conn->eof)
                conn_set_deadline(conn, CONN_HALF_CLOSED_NS);
}

static void output_free_chunks(Output *out)
{
        for (unsigned i = 0; i < out->n_chunks; i++)
                chunk_free(out->chunks[i]);
        out->n_chunks = 0;
}

static void exchange_on_sent(RingOp *op, const RingResult *result)
{
        Conn *conn = CONTAINER_OF(op, Conn, out.op);
        Output *out = &conn->out;
        size_t n;

        if (conn->state == CONN_CLOSE) {
                conn_defer(conn);
                return;
        }
        if (result->res <= 0) {
                conn_close(conn, false);
                return;
        }
        n = (size_t)result->res;
        conn->edge->stats.bytes_out += n;
        while (out->vector_at < out->n_vector && n >= out->vector[out->vector_at].iov_len)
                n -= out->vector[out->vector_at++].iov_len;
        if (out->vector_at < out->n_vector) {
                struct iovec *entry = &out->vector[out->vector_at];

                entry->iov_base = (char *)entry->iov_base + n;
                entry->iov_len -= n;
                output_submit(conn);
                return;
        }
        if (out->later) {
                out->later = false;
                out->n_vector = out->vector_at = 0;
                output_send(conn);
                return;
        }
        output_free_chunks(out);
        output_reset(out);
        if (conn->state != CONN_SERVE)
                return; /* 100 Continue has left, the body is awaited */
        conn_clear_deadline(conn);
        if (out->broken)
                conn_close(conn, true);
        else if (out->complete)
                exchange_done(conn);
        else
                exchange_pump(conn);
}

void exchange_drop(Conn *conn)
{
        output_free_chunks(&conn->out);
        exchange_release(conn);
}
