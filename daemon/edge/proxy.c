/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/edge/proxy.h"
#include "daemon/edge/proxy-call.h"
#include "lib/base/file.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#define CONNECTIONS_MAX 256u
#define QUEUE_MAX 4096u
#define TIMEOUT_NS (60 * NSEC_PER_SEC)
#define RETRY_NS (100 * NSEC_PER_MSEC)
#define BLOCK_SIZE 65536u
#define ABORT_TEXT_MAX 1024u
#define BODY_MAX (UINT64_MAX / 4) /* the producer's own limits hold: it is streamed */

typedef struct Slot {
        Proxy *proxy;
        struct sockaddr_un address;
        List links; /* all */
        List idle;  /* last used first */
        List queue; /* calls that wait for a link */
        unsigned n_links, n_queued;
} Slot;

/*
 * One proxy_fetch(). It ends by call_end() or call_fail(), which tell the response's consumer last.
 */
typedef struct Call {
        Slot *slot;
        List link; /* of slot->queue */
        List all;  /* of proxy->calls */
        struct Link *on;
        Request *request;
        Response *response;
        Buf head;
        RingTimer timer; /* the deadline */
        RingTimer retry;
        bool has_deadline; /* of the request's own: holds for the body as well */
        bool retried, aborted;
        unsigned abort_status, abort_retry_after;
        Buf abort_text;
} Call;

typedef enum LinkState {
        LINK_CONNECT,
        LINK_IDLE,
        LINK_BUSY,
        LINK_CLOSE, /* waits for its operations to end */
} LinkState;

/* A connection to another worker. It owns what it sends until the kernel is done with it. */
typedef struct Link {
        Slot *slot;
        List link, idle;
        LinkState state;
        int fd;
        RingOp connect, send, receive, read;
        RingPost post;
        bool post_queued, receive_cancelled;
        bool request_sent, response_ended, keep;
        bool taken; /* a byte of the request has left */
        HttpParser *parser;
        Call *call;
        Request *request;
        Buf head;
        uint64_t body_sent;
        char *block; /* of the body's file */
        size_t block_len, block_at;
        struct iovec vector[2];
        struct msghdr message;
} Link;

struct Proxy {
        ProxyOptions options;
        Ring *ring;
        Slot *slots;
        unsigned n_links;
        List calls; /* all */
        bool stopping, stopped, post_queued;
        RingPost post;
        void (*on_stopped)(void *data);
        void *on_stopped_data;
};

static void slot_dispatch(Slot *slot);
static void link_send(Link *link);
static void link_release(Link *link);

static void proxy_check_stopped(Proxy *proxy)
{
        if (!proxy->stopping || proxy->stopped || proxy->n_links > 0 || proxy->post_queued)
                return;
        proxy->stopped = true;
        if (proxy->on_stopped)
                proxy->on_stopped(proxy->on_stopped_data);
}

static void link_set_state(Link *link, LinkState state)
{
        static const unsigned allowed[] = {
                [LINK_CONNECT] = 1u << LINK_BUSY | 1u << LINK_CLOSE,
                [LINK_IDLE] = 1u << LINK_BUSY | 1u << LINK_CLOSE,
                [LINK_BUSY] = 1u << LINK_IDLE | 1u << LINK_CLOSE,
                [LINK_CLOSE] = 0,
        };

        dd_assert(allowed[link->state] & 1u << state);
        link->state = state;
}

static bool link_is_quiet(const Link *link)
{
        return !link->connect.pending && !link->send.pending && !link->receive.pending &&
               !link->read.pending;
}

static void link_drop_request(Link *link)
{
        link->request = request_unref(link->request);
        buf_done(&link->head);
        buf_init(&link->head, 0);
        free(link->block);
        link->block = NULL;
        link->block_len = link->block_at = 0;
        link->body_sent = 0;
}

static void link_on_post(RingPost *post)
{
        Link *link = CONTAINER_OF(post, Link, post);
        Slot *slot = link->slot;

        link->post_queued = false;
        if (link->state != LINK_CLOSE || !link_is_quiet(link))
                return;
        dd_assert(!link->call);
        link_drop_request(link);
        http_parser_free(link->parser);
        list_unlink(&link->link);
        if (link->fd >= 0)
                ring_close(slot->proxy->ring, link->fd);
        free(link);
        slot->n_links--;
        slot->proxy->n_links--;
        slot_dispatch(slot);
        proxy_check_stopped(slot->proxy);
}

static void link_defer(Link *link)
{
        if (link->post_queued)
                return;
        link->post_queued = true;
        ring_defer(link->slot->proxy->ring, &link->post);
}

static void link_close(Link *link)
{
        Ring *ring = link->slot->proxy->ring;

        if (link->state == LINK_CLOSE)
                return;
        link_set_state(link, LINK_CLOSE);
        list_unlink(&link->idle);
        ring_cancel(ring, &link->connect);
        ring_cancel(ring, &link->send);
        ring_cancel(ring, &link->receive);
        ring_cancel(ring, &link->read);
        link_defer(link);
}

/* Takes the call apart; the response, to be told and dropped, is the caller's then. */
static Response *call_free(Call *call)
{
        Ring *ring = call->slot->proxy->ring;
        Response *response = call->response;

        list_unlink(&call->all);
        if (list_is_linked(&call->link)) {
                list_unlink(&call->link);
                call->slot->n_queued--;
        }
        if (call->on) {
                call->on->call = NULL;
                call->on = NULL;
        }
        ring_timer_disarm(ring, &call->timer);
        ring_timer_disarm(ring, &call->retry);
        response_set_producer(response, NULL, NULL);
        request_unref(call->request);
        buf_done(&call->head);
        buf_done(&call->abort_text);
        free(call);
        return response;
}

static void call_fail(Call *call, unsigned status, unsigned retry_after, const char *message)
{
        Link *link = call->on;
        Response *response = call_free(call);

        if (link)
                link_close(link);
        response_abort(response, status, retry_after, message);
        response_unref(response);
}

static void call_end(Call *call)
{
        bool aborted = call->aborted;
        unsigned status = call->abort_status, retry_after = call->abort_retry_after;
        _cleanup_(free_p) char *text = aborted ? buf_take(&call->abort_text) : NULL;
        Response *response = call_free(call);

        if (aborted)
                response_abort(response, status, retry_after, text);
        else
                response_end(response);
        response_unref(response);
}

static void call_on_timer(RingTimer *timer)
{
        call_fail(CONTAINER_OF(timer, Call, timer), 504, 0, "The object did not answer in time.");
}

static void call_on_cancel(Response *response, void *data)
{
        Call *call = data;
        Link *link = call->on;

        /* The peer sees the end of the connection, and cancels there. */
        response_unref(call_free(call));
        if (link)
                link_close(link);
}

static void link_update_receive(Link *link)
{
        Ring *ring = link->slot->proxy->ring;
        bool wants = link->state == LINK_IDLE || link->state == LINK_BUSY;

        if (link->call && response_is_full(link->call->response))
                wants = false;
        if (wants && !link->receive.pending) {
                link->receive_cancelled = false;
                ring_recv(ring, &link->receive, link->fd);
        } else if (!wants && link->receive.pending && !link->receive_cancelled) {
                link->receive_cancelled = true;
                ring_cancel(ring, &link->receive);
        }
}

static void call_on_room(Response *response, void *data)
{
        Call *call = data;

        if (call->on && call->on->state == LINK_BUSY)
                link_update_receive(call->on);
}

static void call_on_retry(RingTimer *timer)
{
        Call *call = CONTAINER_OF(timer, Call, retry);

        list_prepend(&call->slot->queue, &call->link);
        call->slot->n_queued++;
        slot_dispatch(call->slot);
}

/* The link is of no use. Nothing of the request has been taken: once more, on a new one. */
static void link_fail(Link *link, const char *message)
{
        Call *call = link->call;

        if (!call) {
                link_close(link);
                return;
        }
        if (link->taken || call->retried || link->send.pending || link->slot->proxy->stopping) {
                bool unreached = !link->taken && !link->send.pending;

                call_fail(call, unreached ? 503 : 502, unreached ? 1 : 0, message);
                return;
        }
        call->retried = true;
        call->head = link->head;
        buf_init(&link->head, 0);
        call->on = NULL;
        link->call = NULL;
        link_close(link);
        if (ring_timer_arm(link->slot->proxy->ring, &call->retry,
                    ring_now(link->slot->proxy->ring) + RETRY_NS) < 0)
                call_fail(call, 503, 1, message);
}

/* How many bytes the kernel took of what was offered. */
static void link_count_sent(Link *link, size_t n)
{
        size_t head = MIN(n, link->head.len);

        link->taken = true;
        buf_consume(&link->head, head);
        n -= head;
        link->body_sent += n;
        if (link->block_len > 0)
                link->block_at += n;
}

static void link_on_send(RingOp *op, const RingResult *result)
{
        Link *link = CONTAINER_OF(op, Link, send);

        if (link->state == LINK_CLOSE) {
                link_defer(link);
        } else if (result->res <= 0) {
                /* An answer that came before the end of the request is still read. */
                link->keep = false;
                if (!link->taken)
                        link_fail(link, "The object's worker does not answer.");
        } else {
                link_count_sent(link, (size_t)result->res);
                link_send(link);
        }
}

static void link_on_read(RingOp *op, const RingResult *result)
{
        Link *link = CONTAINER_OF(op, Link, read);

        if (link->state == LINK_CLOSE) {
                link_defer(link);
        } else if (result->res <= 0) {
                if (link->call)
                        call_fail(link->call, 500, 0, "The request's body could not be read.");
                else
                        link_close(link);
        } else {
                link->block_len = (size_t)result->res;
                link->block_at = 0;
                link_send(link);
        }
}

static void link_send_file(Link *link)
{
        Ring *ring = link->slot->proxy->ring;

        if (link->block_at < link->block_len) {
                ring_send(ring, &link->send, link->fd, link->block + link->block_at,
                        link->block_len - link->block_at, 0);
                return;
        }
        if (!link->block)
                link->block = malloc(BLOCK_SIZE);
        if (!link->block) {
                link_fail(link, "The server is out of memory.");
                return;
        }
        ring_read(ring, &link->read, link->request->body_fd, link->block, BLOCK_SIZE,
                link->body_sent);
}

/* Sends what is left of the request. */
static void link_send(Link *link)
{
        Ring *ring = link->slot->proxy->ring;
        Request *request = link->request;
        Slice body = request->body_fd < 0 ? slice_skip(request->body, (size_t)link->body_sent)
                                          : (Slice){ 0 };

        if (link->head.len > 0 || body.len > 0) {
                unsigned n = 0;

                if (link->head.len > 0)
                        link->vector[n++] = (struct iovec){ buf_data(&link->head), link->head.len };
                if (body.len > 0)
                        link->vector[n++] =
                                (struct iovec){ (void *)(uintptr_t)body.data, body.len };
                link->message = (struct msghdr){ .msg_iov = link->vector, .msg_iovlen = n };
                ring_sendmsg(ring, &link->send, link->fd, &link->message, 0);
        } else if (request->body_fd >= 0 && link->body_sent < request->body_len) {
                link_send_file(link);
        } else {
                link->request_sent = true;
                if (link->response_ended)
                        link_release(link);
        }
}

static void link_begin(Link *link)
{
        link_set_state(link, LINK_BUSY);
        link->request_sent = link->response_ended = link->taken = false;
        link->keep = true;
        http_parser_set_head_request(
                link->parser, slice_equal(link->request->method, SLICE("HEAD")));
        link_update_receive(link);
        link_send(link);
}

/* The exchange is over on both sides: the link waits for the next. */
static void link_release(Link *link)
{
        Slot *slot = link->slot;

        link_drop_request(link);
        if (!link->keep || slot->proxy->stopping) {
                link_close(link);
                return;
        }
        http_parser_next(link->parser);
        link_set_state(link, LINK_IDLE);
        list_prepend(&slot->idle, &link->idle);
        link_update_receive(link);
        slot_dispatch(slot);
}

static int call_start(Call *call, const HttpHead *head)
{
        _cleanup_(free_p) HttpHeader *headers = calloc(head->n_headers + 1, sizeof *headers);
        size_t n = 0;
        ResponseHead *answer;
        int r;

        if (!headers)
                return -ENOMEM;
        for (size_t i = 0; i < head->n_headers; i++)
                if (!proxy_is_our_header(head->headers[i].name))
                        headers[n++] = head->headers[i];
        r = response_head_new(head->status, headers, n, head->content_length, &answer);
        if (r < 0)
                return r;
        response_start(call->response, answer);
        return 0;
}

static void link_on_head(Link *link)
{
        const HttpHead *head = http_parser_get_head(link->parser);
        Call *call = link->call;
        const HttpHeader *retry;
        uint64_t seconds;

        link->keep = link->keep && head->keep_alive;
        if (!call->has_deadline)
                ring_timer_disarm(link->slot->proxy->ring, &call->timer);
        if (http_head_find(head, SLICE("X-Durabled-Abort"))) {
                call->aborted = true;
                call->abort_status = head->status;
                retry = http_head_find(head, SLICE("Retry-After"));
                if (retry && slice_to_u64(retry->value, &seconds) && seconds <= UINT32_MAX)
                        call->abort_retry_after = (unsigned)seconds;
        } else if (call_start(call, head) < 0) {
                call_fail(call, 502, 0, "The object's worker sent an answer that is malformed.");
        }
}

static void link_on_body(Link *link, Slice data)
{
        Call *call = link->call;
        Chunk *chunk;

        if (call->aborted) {
                (void)buf_append_slice(&call->abort_text, data);
                return;
        }
        chunk = chunk_new(data.data, data.len);
        if (!chunk)
                call_fail(call, 502, 0, "The server is out of memory.");
        else
                response_push(call->response, chunk);
}

static void link_on_end(Link *link)
{
        link->response_ended = true;
        call_end(link->call);
        if (link->state != LINK_BUSY)
                return;
        if (link->request_sent)
                link_release(link);
        else
                link_close(link); /* it did not want the rest of the request */
}

static void link_take(Link *link, Slice data)
{
        while (link->state == LINK_BUSY && link->call) {
                HttpEvent event;
                Slice body;
                size_t used;
                bool interim;

                if (http_parser_feed(link->parser, data, &used, &event, &body) != 0) {
                        call_fail(link->call, 502, 0,
                                "The object's worker sent an answer that is malformed.");
                        return;
                }
                data = slice_skip(data, used);
                interim = http_parser_get_head(link->parser)->status < 200;
                if (event == HTTP_EVENT_MORE)
                        return;
                if (event == HTTP_EVENT_HEAD && !interim)
                        link_on_head(link);
                else if (event == HTTP_EVENT_BODY)
                        link_on_body(link, body);
                else if (event == HTTP_EVENT_END && interim)
                        http_parser_next(link->parser);
                else if (event == HTTP_EVENT_END)
                        link_on_end(link);
        }
        if (data.len > 0)
                link_close(link); /* bytes that nobody asked for */
}

static void link_on_eof(Link *link)
{
        HttpEvent event = HTTP_EVENT_MORE;

        if (link->state == LINK_BUSY && link->call) {
                link->keep = false;
                if (http_parser_finish(link->parser, &event) == 0 && event == HTTP_EVENT_END)
                        link_on_end(link);
                else
                        link_fail(link, "The object's worker went away before it had answered.");
        }
        link_close(link);
}

static void link_on_receive(RingOp *op, const RingResult *result)
{
        Link *link = CONTAINER_OF(op, Link, receive);

        if (!result->more)
                link->receive_cancelled = false;
        if (link->state == LINK_CLOSE) {
                link_defer(link);
                return;
        }
        if (result->res > 0)
                link_take(link, result->data);
        else if (result->res != -ENOBUFS && result->res != -ECANCELED)
                link_on_eof(link);
        if (link->state == LINK_CLOSE)
                link_defer(link);
        else
                link_update_receive(link);
}

static void link_on_connect(RingOp *op, const RingResult *result)
{
        Link *link = CONTAINER_OF(op, Link, connect);

        if (link->state == LINK_CLOSE)
                link_defer(link);
        else if (result->res < 0)
                link_fail(link, "The object's worker cannot be reached.");
        else if (!link->call)
                link_close(link);
        else
                link_begin(link);
}

static void link_assign(Link *link, Call *call)
{
        link->call = call;
        call->on = link;
        link->request = request_ref(call->request);
        buf_done(&link->head);
        link->head = call->head;
        buf_init(&call->head, 0);
}

static Link *link_new(Slot *slot)
{
        HttpLimits limits = { .head_max = 1u << 20, .headers_max = 1024, .body_max = BODY_MAX };
        Link *link = calloc(1, sizeof *link);

        if (!link)
                return NULL;
        link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (link->fd < 0 || http_parser_new(HTTP_RESPONSE, &limits, &link->parser) < 0) {
                close_p(&link->fd);
                free(link);
                return NULL;
        }
        link->slot = slot;
        link->state = LINK_CONNECT;
        list_init(&link->link);
        list_init(&link->idle);
        list_append(&slot->links, &link->link);
        buf_init(&link->head, 0);
        link->post.fn = link_on_post;
        ring_op_init(&link->connect, link_on_connect);
        ring_op_init(&link->send, link_on_send);
        ring_op_init(&link->receive, link_on_receive);
        ring_op_init(&link->read, link_on_read);
        slot->n_links++;
        slot->proxy->n_links++;
        ring_connect(slot->proxy->ring, &link->connect, link->fd,
                (const struct sockaddr *)&slot->address, sizeof slot->address);
        return link;
}

/* Gives waiting calls to links: idle ones first, then new ones. */
static void slot_dispatch(Slot *slot)
{
        while (!list_is_empty(&slot->queue) && !slot->proxy->stopping) {
                Call *call = list_entry(list_first(&slot->queue), Call, link);
                List *idle = call->retried ? NULL : list_pop(&slot->idle);
                Link *link;

                if (!idle && slot->n_links >= slot->proxy->options.connections_max)
                        return;
                list_unlink(&call->link);
                slot->n_queued--;
                link = idle ? list_entry(idle, Link, idle) : link_new(slot);
                if (!link) {
                        call_fail(call, 503, 1, "The server is out of descriptors or memory.");
                        continue;
                }
                link_assign(link, call);
                if (idle)
                        link_begin(link);
        }
}

static int call_new(Slot *slot, Request *request, Call **ret)
{
        Call *call = calloc(1, sizeof *call);
        int r;

        if (!call)
                return -ENOMEM;
        r = response_new(&call->response);
        if (r < 0) {
                free(call);
                return r;
        }
        call->slot = slot;
        call->request = request_ref(request);
        call->has_deadline = request->deadline != 0;
        list_init(&call->link);
        list_init(&call->all);
        list_append(&slot->proxy->calls, &call->all);
        buf_init(&call->head, 0);
        buf_init(&call->abort_text, ABORT_TEXT_MAX);
        ring_timer_init(&call->timer, call_on_timer);
        ring_timer_init(&call->retry, call_on_retry);
        *ret = call;
        return 0;
}

int proxy_fetch(Proxy *proxy, unsigned slot_index, unsigned class_index, const ObjectId *id,
        Slice name, Request *request, Response **ret)
{
        static const ResponseProducer producer = { call_on_room, call_on_cancel };
        uint64_t now = ring_now(proxy->ring), deadline;
        Slot *slot;
        Call *call;
        int r;

        if (slot_index >= proxy->options.n_slots)
                return -ERANGE;
        slot = &proxy->slots[slot_index];
        r = call_new(slot, request, &call);
        if (r < 0)
                return r;
        deadline = request->deadline ? request->deadline : now + proxy->options.timeout_ns;
        r = proxy_write_head(&call->head, class_index, id, name, request, request->deadline, now);
        if (r == 0)
                r = ring_timer_arm(proxy->ring, &call->timer, deadline);
        if (r < 0) {
                response_unref(call_free(call));
                return r;
        }
        response_set_producer(call->response, &producer, call);
        *ret = response_ref(call->response);
        if (proxy->stopping || slot->n_queued >= proxy->options.queue_max) {
                call_fail(call, 503, 1, "Too many calls wait for the object's worker.");
                return 0;
        }
        list_append(&slot->queue, &call->link);
        slot->n_queued++;
        slot_dispatch(slot);
        return 0;
}

int proxy_new(const ProxyOptions *options, Proxy **ret)
{
        Proxy *proxy;

        for (unsigned i = 0; i < options->n_slots; i++)
                if (strlen(options->paths[i]) >= sizeof((struct sockaddr_un *)0)->sun_path)
                        return -ENAMETOOLONG;
        proxy = calloc(1, sizeof *proxy);
        if (!proxy)
                return -ENOMEM;
        proxy->slots = calloc(options->n_slots ? options->n_slots : 1, sizeof *proxy->slots);
        if (!proxy->slots) {
                free(proxy);
                return -ENOMEM;
        }
        proxy->options = *options;
        proxy->options.paths = NULL;
        list_init(&proxy->calls);
        proxy->ring = options->ring;
        if (!proxy->options.connections_max)
                proxy->options.connections_max = CONNECTIONS_MAX;
        if (!proxy->options.queue_max)
                proxy->options.queue_max = QUEUE_MAX;
        if (!proxy->options.timeout_ns)
                proxy->options.timeout_ns = TIMEOUT_NS;
        for (unsigned i = 0; i < options->n_slots; i++) {
                Slot *slot = &proxy->slots[i];

                slot->proxy = proxy;
                slot->address.sun_family = AF_UNIX;
                memcpy(slot->address.sun_path, options->paths[i], strlen(options->paths[i]) + 1);
                list_init(&slot->links);
                list_init(&slot->idle);
                list_init(&slot->queue);
        }
        *ret = proxy;
        return 0;
}

Proxy *proxy_free(Proxy *proxy)
{
        if (!proxy)
                return NULL;
        dd_assert(proxy->n_links == 0 && list_is_empty(&proxy->calls));
        free(proxy->slots);
        free(proxy);
        return NULL;
}

static void proxy_on_post(RingPost *post)
{
        Proxy *proxy = CONTAINER_OF(post, Proxy, post);

        proxy->post_queued = false;
        proxy_check_stopped(proxy);
}

void proxy_stop(Proxy *proxy, void (*stopped)(void *data), void *data)
{
        List *first;

        dd_assert(!proxy->stopping);
        proxy->stopping = true;
        proxy->on_stopped = stopped;
        proxy->on_stopped_data = data;
        proxy->post.fn = proxy_on_post;
        proxy->post_queued = true;
        ring_defer(proxy->ring, &proxy->post);
        while ((first = list_first(&proxy->calls)))
                call_fail(list_entry(first, Call, all), 503, 1, "The server is stopping.");
        for (unsigned i = 0; i < proxy->options.n_slots; i++)
                list_for_each_safe(link, &proxy->slots[i].links)
                        link_close(list_entry(link, Link, link));
}
