/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A server of the edge alone, for tests/http
 *
 * usage: edge-server [--workers N] [--OPTION VALUE]...
 *
 * Forks N workers (default 1), each with its own ring, edge and TCP listener on 127.0.0.1, and a
 * SEQPACKET pair for hand-off. Prints their ports and processes: "READY 40001:123 40002:124". A
 * path that starts with /wN/ belongs to worker N. SIGTERM to a worker drains it.
 */

#include "daemon/edge/edge.h"
#include "daemon/edge/proxy.h"
#include "lib/base/file.h"
#include "lib/base/map.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>

#define WORKERS_MAX 4u

typedef struct Server {
        Ring *ring;
        Edge *edge;
        Proxy *proxy;
        ProxyOptions proxy_options;
        unsigned stopped;
        unsigned n, n_workers;
        unsigned long cancelled, finished;
        RingOp signal_op;
        EdgeOptions options;
        uint64_t drain_ns;
        bool dead_queue; /* nobody receives hand-offs: the queues fill */
} Server;

/* One answer that is made step by step. */
typedef struct Stream {
        Server *server;
        Response *response;
        RingTimer timer;
        uint64_t left;
        size_t chunk;
        uint64_t delay;
        bool abort_at_end;
} Stream;

static Server server;

static uint64_t query_number(Slice query, Slice name, uint64_t fallback)
{
        while (query.len > 0) {
                Slice value = slice_cut(&query, '&');
                Slice key = slice_cut(&value, '=');
                uint64_t number;

                if (slice_equal(key, name) && slice_to_u64(value, &number))
                        return number;
        }
        return fallback;
}

static void stream_free(Stream *stream)
{
        ring_timer_disarm(stream->server->ring, &stream->timer);
        response_set_producer(stream->response, NULL, NULL);
        response_unref(stream->response);
        free(stream);
}

static void stream_run(Stream *stream)
{
        while (stream->left > 0) {
                size_t n = (size_t)MIN(stream->left, (uint64_t)stream->chunk);
                Chunk *chunk;

                if (response_is_full(stream->response))
                        return; /* on_room goes on */
                chunk = chunk_new(NULL, n);
                dd_assert(chunk);
                memset(chunk->data, 'x', n);
                stream->left -= n;
                response_push(stream->response, chunk);
                if (stream->delay && stream->left > 0) {
                        (void)ring_timer_arm(stream->server->ring, &stream->timer,
                                ring_now(stream->server->ring) + stream->delay);
                        return;
                }
        }
        if (stream->abort_at_end)
                response_abort(stream->response, 502, 0, "cut");
        else
                response_end(stream->response);
        stream_free(stream);
}

static void stream_on_timer(RingTimer *timer)
{
        Stream *stream = CONTAINER_OF(timer, Stream, timer);

        if (response_get_state(stream->response) == RESPONSE_OPEN) {
                response_finish_text(stream->response, 200, "slow\n");
                stream_free(stream);
                return;
        }
        stream_run(stream);
}

static void stream_on_room(Response *response, void *data)
{
        Stream *stream = data;

        if (!ring_timer_is_armed(&stream->timer))
                (void)ring_timer_arm(stream->server->ring, &stream->timer, 0);
}

static void stream_on_cancel(Response *response, void *data)
{
        Stream *stream = data;

        stream->server->cancelled++;
        stream_free(stream);
}

static void stream_new(Response *response, Slice query, uint64_t left)
{
        static const ResponseProducer producer = { stream_on_room, stream_on_cancel };
        Stream *stream = calloc(1, sizeof *stream);

        dd_assert(stream);
        stream->server = &server;
        stream->response = response_ref(response);
        stream->left = left;
        stream->chunk = (size_t)query_number(query, SLICE("chunk"), 65536);
        stream->delay = query_number(query, SLICE("delay"), 0) * NSEC_PER_MSEC;
        stream->abort_at_end = query_number(query, SLICE("abort"), 0) != 0;
        ring_timer_init(&stream->timer, stream_on_timer);
        response_set_producer(response, &producer, stream);
        (void)ring_timer_arm(server.ring, &stream->timer, ring_now(server.ring) + stream->delay);
}

static void start(Response *response, unsigned status, int64_t length)
{
        HttpHeader type = { SLICE("Content-Type"), SLICE("text/plain") };
        ResponseHead *head;

        dd_assert(response_head_new(status, &type, 1, length, &head) == 0);
        response_start(response, head);
}

static void digest_body(const Request *request, uint64_t *ret)
{
        static const uint64_t secret[2] = { 1, 2 };
        _cleanup_(buf_done) Buf all = BUF_INIT(0);
        char block[65536];
        ssize_t n;

        if (request->body_fd < 0) {
                *ret = siphash24(secret, request->body);
                return;
        }
        for (off_t at = 0; (n = pread(request->body_fd, block, sizeof block, at)) > 0; at += n)
                dd_assert(buf_append(&all, block, (size_t)n) == 0);
        *ret = siphash24(secret, buf_slice(&all));
}

static void echo(const Request *request, const EdgeDecision *decision, const EdgePeer *peer,
        const ProxyCall *call, Response *response)
{
        _cleanup_(buf_done) Buf buf = BUF_INIT(0);
        uint64_t digest;

        digest_body(request, &digest);
        (void)buf_printf(&buf, "worker %u\nhops %u\nhandoff %d\npeer %.*s\nmethod %.*s\n", server.n,
                peer->hops, decision->action == EDGE_HAND_OFF, SLICE_FMT(request->peer),
                SLICE_FMT(request->method));
        (void)buf_printf(&buf, "target %.*s\nauthority %.*s\nbody %llu %016llx %s\n",
                SLICE_FMT(request->target), SLICE_FMT(request->authority),
                (unsigned long long)request->body_len, (unsigned long long)digest,
                request->body_fd >= 0 ? "file" : "memory");
        if (call) {
                char id[IDENT_TEXT_SIZE];

                ident_format(&call->id, id);
                (void)buf_printf(&buf, "class %u\nid %s\nname ", call->class_index, id);
                for (size_t i = 0; i < call->name.len; i++)
                        (void)buf_printf(&buf, "%02x", (unsigned char)call->name.data[i]);
                (void)buf_printf(&buf, "\nscheme %.*s\ndeadline %d\n", SLICE_FMT(request->scheme),
                        request->deadline != 0);
        }
        for (size_t i = 0; i < request->n_headers; i++)
                (void)buf_printf(&buf, "> %.*s: %.*s\n", SLICE_FMT(request->headers[i].name),
                        SLICE_FMT(request->headers[i].value));
        response_finish_text(response, 200, buf_data(&buf));
}

static void stats(Response *response)
{
        _cleanup_(buf_done) Buf buf = BUF_INIT(0);
        EdgeStats s;

        edge_get_stats(server.edge, &s);
        (void)buf_printf(&buf,
                "{\"connections\":%u,\"requests\":%llu,\"handed_out\":%llu,\"handed_in\":%llu,"
                "\"hand_off_failed\":%llu,\"cancelled\":%lu,\"finished\":%lu,\"pid\":%d}",
                s.connections, (unsigned long long)s.requests, (unsigned long long)s.handed_out,
                (unsigned long long)s.handed_in, (unsigned long long)s.hand_off_failed,
                server.cancelled, server.finished, (int)getpid());
        response_finish_text(response, 200, buf_data(&buf));
}

static void route(void *data, const HttpHead *head, const EdgePeer *peer, EdgeDecision *ret)
{
        Slice path = head->path;

        if (slice_equal(path, SLICE("/refuse"))) {
                ret->action = EDGE_REFUSE;
                ret->status = 404;
                ret->message = "No <such> place.";
        } else if (slice_equal(path, SLICE("/small"))) {
                ret->body_max = 10;
        } else if (path.len > 3 && slice_has_prefix(path, SLICE("/w")) && path.data[3] == '/') {
                unsigned n = (unsigned)(path.data[2] - '0');

                if (n != server.n || query_number(head->query, SLICE("loop"), 0)) {
                        ret->action = EDGE_HAND_OFF;
                        ret->slot = n != server.n ? n : (n + 1) % server.n_workers;
                }
        }
}

static int answer(const EdgeDecision *decision, const EdgePeer *peer, Request *request, Slice path,
        const ProxyCall *call, Response **ret)
{
        uint64_t n = query_number(request->query, SLICE("n"), 1000);
        Response *response;
        int r = response_new(&response);

        if (r < 0)
                return r;
        if (slice_equal(path, SLICE("/big"))) {
                start(response, 200, (int64_t)n);
                stream_new(response, request->query, n);
        } else if (slice_equal(path, SLICE("/chunks"))) {
                start(response, 200, -1);
                stream_new(response, request->query, n);
        } else if (slice_equal(path, SLICE("/short"))) {
                start(response, 200, (int64_t)n + 10);
                stream_new(response, request->query, n);
        } else if (slice_equal(path, SLICE("/long"))) {
                start(response, 200, (int64_t)n - 10);
                stream_new(response, request->query, n);
        } else if (slice_equal(path, SLICE("/slow"))) {
                stream_new(response, request->query, n);
        } else if (slice_equal(path, SLICE("/abort"))) {
                response_abort(response, 503, 7, "The object is busy.");
        } else if (slice_equal(path, SLICE("/status"))) {
                start(response, (unsigned)n, -1);
                response_end(response);
        } else if (slice_equal(path, SLICE("/hello"))) {
                response_finish_text(response, 200, "hello\n");
        } else if (slice_equal(path, SLICE("/stats"))) {
                stats(response);
        } else if (slice_equal(path, SLICE("/fail"))) {
                response_unref(response);
                return -EIO;
        } else {
                echo(request, decision, peer, call, response);
        }
        *ret = response;
        return 0;
}

static bool path_is_proxied(Slice path)
{
        return path.len > 3 && slice_has_prefix(path, SLICE("/p")) && path.data[3] == '/';
}

static int serve(void *data, const EdgeDecision *decision, const EdgePeer *peer, Request *request,
        Response **ret)
{
        static const uint64_t secret[2] = { 3, 4 };
        uint64_t hash = siphash24(secret, request->path);
        ProxyCall call;
        ObjectId id = { 0 };
        int r;

        memcpy(id.bytes, &hash, sizeof hash);
        if (peer->origin == EDGE_INTERNAL) {
                r = proxy_parse(request, &call);
                if (r < 0)
                        return r;
                r = answer(decision, peer, call.request, slice_skip(call.request->path, 3), &call,
                        ret);
                proxy_call_done(&call);
                return r;
        }
        if (path_is_proxied(request->path))
                return proxy_fetch(server.proxy, (unsigned)(request->path.data[2] - '0'), 3, &id,
                        slice_of("a \xff%,\r\n\0name", 12), request, ret);
        return answer(decision, peer, request, request->path, NULL, ret);
}

static void finished(void *data, const EdgeDecision *decision, const Request *request,
        const Response *response, unsigned status)
{
        server.finished++;
}

static void on_stopped(void *data)
{
        if (++server.stopped == 2)
                ring_stop(server.ring);
}

static void on_edge_stopped(void *data)
{
        proxy_stop(server.proxy, on_stopped, NULL);
        on_stopped(data);
}

static int signal_pipe[2];

static void on_signal(int n)
{
        (void)!write(signal_pipe[1], "x", 1);
}

static void on_term(RingOp *op, const RingResult *result)
{
        edge_stop(server.edge, ring_now(server.ring) + server.drain_ns, on_edge_stopped, NULL);
}

static char socket_paths[WORKERS_MAX][64];
static int internal_listeners[WORKERS_MAX];

static void proxy_start(void)
{
        static const char *paths[WORKERS_MAX];

        for (unsigned i = 0; i < server.n_workers; i++)
                paths[i] = socket_paths[i];
        server.proxy_options.ring = server.ring;
        server.proxy_options.paths = paths;
        server.proxy_options.n_slots = server.n_workers;
        dd_assert(proxy_new(&server.proxy_options, &server.proxy) == 0);
        dd_assert(edge_listen(server.edge, dup(internal_listeners[server.n]), EDGE_INTERNAL) == 0);
}

static int listen_internal(const char *path)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
        dd_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
        dd_assert(listen(fd, 512) == 0);
        return fd;
}

static int worker_run(int listener, const int pairs[][2])
{
        static const EdgeHandler handler = { .route = route, .serve = serve, .finished = finished };
        sigset_t term;
        char byte;
        int r;

        (void)sigemptyset(&term);
        (void)sigaddset(&term, SIGTERM);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGTERM, on_signal);
        dd_assert(pipe(signal_pipe) == 0);
        (void)sigprocmask(SIG_UNBLOCK, &term, NULL);
        r = ring_new(NULL, &server.ring);
        if (r < 0) {
                fprintf(stderr, "io_uring: %s\n", strerror(-r));
                return 1;
        }
        server.options.ring = server.ring;
        server.options.handler = &handler;
        dd_assert(edge_new(&server.options, &server.edge) == 0);
        dd_assert(edge_listen(server.edge, listener, EDGE_PUBLIC) == 0);
        proxy_start();
        for (unsigned i = 0; i < server.n_workers; i++)
                if (i != server.n)
                        dd_assert(edge_set_hand_off(server.edge, i, dup(pairs[i][0])) == 0);
                else if (!server.dead_queue)
                        dd_assert(edge_receive_hand_offs(server.edge, dup(pairs[i][1])) == 0);
        ring_op_init(&server.signal_op, on_term);
        ring_read(server.ring, &server.signal_op, signal_pipe[0], &byte, 1, 0);
        r = ring_run(server.ring);
        edge_free(server.edge);
        proxy_free(server.proxy);
        ring_free(server.ring);
        for (unsigned i = 0; i < server.n_workers; i++) {
                close(pairs[i][0]);
                close(pairs[i][1]);
        }
        return r == 0 ? 0 : 1;
}

static int listen_somewhere(unsigned *ret_port)
{
        struct sockaddr_in address = { .sin_family = AF_INET };
        socklen_t len = sizeof address;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        dd_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0);
        dd_assert(listen(fd, 512) == 0);
        dd_assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
        *ret_port = ntohs(address.sin_port);
        return fd;
}

static void parse_options(int argc, char **argv)
{
        static const struct option options[] = { { "workers", 1, NULL, 'w' },
                { "head-ms", 1, NULL, 'h' }, { "body-ms", 1, NULL, 'b' },
                { "send-ms", 1, NULL, 's' }, { "idle-ms", 1, NULL, 'i' },
                { "requests-max", 1, NULL, 'r' }, { "connections-max", 1, NULL, 'c' },
                { "body-max", 1, NULL, 'B' }, { "head-max", 1, NULL, 'H' },
                { "drain-ms", 1, NULL, 'd' }, { "dead-queue", 0, NULL, 'q' },
                { "spool", 1, NULL, 'S' }, { "proxy-ms", 1, NULL, 'p' },
                { "proxy-max", 1, NULL, 'm' }, { "proxy-queue", 1, NULL, 'Q' }, { 0 } };
        EdgeOptions *o = &server.options;
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
                uint64_t n = optarg ? strtoull(optarg, NULL, 10) : 0;

                switch (c) {
                case 'w':
                        server.n_workers = (unsigned)MIN(n, WORKERS_MAX);
                        break;
                case 'h':
                        o->head_timeout_ns = n * NSEC_PER_MSEC;
                        break;
                case 'b':
                        o->body_timeout_ns = n * NSEC_PER_MSEC;
                        break;
                case 's':
                        o->send_timeout_ns = n * NSEC_PER_MSEC;
                        break;
                case 'i':
                        o->idle_timeout_ns = n * NSEC_PER_MSEC;
                        break;
                case 'r':
                        o->requests_max = (unsigned)n;
                        break;
                case 'c':
                        o->connections_max = (unsigned)n;
                        break;
                case 'B':
                        o->http.body_max = n;
                        break;
                case 'H':
                        o->http.head_max = n;
                        break;
                case 'd':
                        server.drain_ns = n * NSEC_PER_MSEC;
                        break;
                case 'q':
                        server.dead_queue = true;
                        break;
                case 'p':
                        server.proxy_options.timeout_ns = n * NSEC_PER_MSEC;
                        break;
                case 'm':
                        server.proxy_options.connections_max = (unsigned)n;
                        break;
                case 'Q':
                        server.proxy_options.queue_max = (unsigned)n;
                        break;
                case 'S':
                        o->spool_directory = optarg;
                        break;
                default:
                        exit(2);
                }
        }
}

int main(int argc, char **argv)
{
        int listeners[WORKERS_MAX], pairs[WORKERS_MAX][2], worst = 0, status;
        unsigned ports[WORKERS_MAX];
        pid_t pids[WORKERS_MAX];
        sigset_t term;

        server.n_workers = 1;
        server.drain_ns = 5 * NSEC_PER_SEC;
        server.options.spool_directory = "/tmp";
        parse_options(argc, argv);
        /* It may come before a worker is ready for it. */
        (void)sigemptyset(&term);
        (void)sigaddset(&term, SIGTERM);
        (void)sigprocmask(SIG_BLOCK, &term, NULL);
        for (unsigned i = 0; i < server.n_workers; i++) {
                listeners[i] = listen_somewhere(&ports[i]);
                (void)snprintf(socket_paths[i], sizeof socket_paths[i], "/tmp/edge-%d-%u",
                        (int)getpid(), i);
                internal_listeners[i] = listen_internal(socket_paths[i]);
                dd_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pairs[i]) == 0);
        }
        for (unsigned i = 0; i < server.n_workers; i++) {
                pids[i] = fork();
                dd_assert(pids[i] >= 0);
                if (pids[i] == 0) {
                        server.n = i;
                        for (unsigned j = 0; j < server.n_workers; j++)
                                if (j != i)
                                        close(listeners[j]);
                        return worker_run(listeners[i], (const int(*)[2])pairs);
                }
        }
        (void)sigprocmask(SIG_UNBLOCK, &term, NULL);
        printf("READY");
        for (unsigned i = 0; i < server.n_workers; i++)
                printf(" %u:%d", ports[i], (int)pids[i]);
        printf("\n");
        fflush(stdout);
        for (unsigned i = 0; i < server.n_workers; i++) {
                close(listeners[i]);
                (void)waitpid(pids[i], &status, 0);
                (void)unlink(socket_paths[i]);
                status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
                worst = MAX(worst, status);
        }
        return worst;
}
