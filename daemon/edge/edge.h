/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The edge of a worker: connections, exchanges, hand-off
 *
 * Accepts connections from the worker's listeners and from other workers (hand-off), parses
 * HTTP/1.1, asks the EdgeHandler where each request belongs, collects its body, and sends the
 * Response that the handler gives. Loop thread alone. One exchange of a connection is served at a
 * time; pipelined requests wait in the connection's bounded input buffer.
 *
 *  HEAD -> route() -> HAND_OFF: the connection, with every byte read, leaves for its owner
 *                  -> REFUSE:   an error answer
 *                  -> SERVE:    BODY (memory, then a file) -> serve() -> SEND -> HEAD
 *
 * Guarantees:
 * 1. A request is served by exactly one worker: a connection is handed off only between requests,
 *    before any byte of the body has been interpreted.
 * 2. A hand-off that cannot be queued (the owner's queue is full) or has too many hops or bytes is
 *    served here, by way of serve(), which sees the decision unchanged (HAND_OFF, slot): steering
 *    is speed, never correctness.
 * 3. Memory of a connection is bounded: input (head_max + one receive buffer), body
 *    (REQUEST_MEMORY_MAX, then an unlinked file up to body_max), output (RESPONSE_QUEUE_MAX).
 *    What the kernel had already delivered when receiving was paused comes on top.
 * 4. Headers that start with "X-Durabled-" are ours: they are refused (400) from public listeners.
 * 5. A client that goes away cancels its response: at once when it resets or a send fails, after
 *    two seconds without an answer when it has only closed its sending side.
 * 6. An answer that cannot be completed (aborted, or shorter or longer than its Content-Length)
 * ends in a reset, never in what looks like a whole answer.
 */

#include "daemon/runtime/message.h"
#include "lib/loop/ring.h"

typedef struct Edge Edge;

typedef enum EdgeOrigin {
        EDGE_PUBLIC,   /* the address of the settings */
        EDGE_ADDRESS,  /* the group of object addresses: local_* below says which */
        EDGE_INTERNAL, /* another worker of the app, over a Unix socket: trusted */
} EdgeOrigin;

typedef struct EdgePeer {
        EdgeOrigin origin;
        unsigned hops;                 /* times this connection was handed on for this request */
        struct sockaddr_storage local; /* the address the client connected to */
        struct sockaddr_storage remote;
} EdgePeer;

typedef enum EdgeAction { EDGE_SERVE, EDGE_HAND_OFF, EDGE_REFUSE } EdgeAction;

typedef struct EdgeDecision {
        EdgeAction action;
        unsigned slot;       /* HAND_OFF */
        unsigned status;     /* REFUSE */
        const char *message; /* REFUSE: static, for the client */
        uint64_t body_max;   /* SERVE: 0 means the default */
        uint64_t value[2];   /* the handler's own, given back to serve() */
} EdgeDecision;

typedef struct EdgeHandler {
        /* Called once per request when its head is complete. Fills *ret (zeroed: SERVE). */
        void (*route)(void *data, const HttpHead *head, const EdgePeer *peer, EdgeDecision *ret);
        /* The request is complete; the answer comes through *ret (a new reference). 0 or -errno. */
        int (*serve)(void *data, const EdgeDecision *decision, const EdgePeer *peer,
                Request *request, Response **ret);
        /* Appends whole header lines (http_write_header()) to the head of an answer that is about
         * to be sent. May be NULL. */
        void (*add_headers)(
                void *data, const EdgeDecision *decision, const Response *response, Buf *head);
        /* The exchange is over: status sent (0: none), for counters and learned routes. May be
         * NULL. */
        void (*finished)(void *data, const EdgeDecision *decision, const Request *request,
                const Response *response, unsigned status);
} EdgeHandler;

typedef struct EdgeOptions {
        Ring *ring;
        const EdgeHandler *handler;
        void *handler_data;
        HttpLimits http;             /* body_max default 100 MiB */
        const char *spool_directory; /* for bodies over REQUEST_MEMORY_MAX */
        unsigned connections_max;    /* default 10000; beyond it accepting pauses */
        uint64_t head_timeout_ns;    /* from first byte to complete head; default 10 s: 408 */
        uint64_t body_timeout_ns;    /* without a byte of the body; default 30 s: 408 */
        uint64_t send_timeout_ns;    /* without a byte taken by the client; default 30 s: reset */
        uint64_t idle_timeout_ns;    /* keep-alive, between requests; default 75 s: closed */
        unsigned requests_max;       /* per connection, 0: no limit */
} EdgeOptions;

typedef struct EdgeStats {
        uint64_t accepted[3]; /* by EdgeOrigin */
        uint64_t requests, handed_out, handed_in, hand_off_failed, errors_4xx, errors_5xx;
        uint64_t bytes_in, bytes_out;
        unsigned connections;
} EdgeStats;

int edge_new(const EdgeOptions *options, Edge **ret);
/* After edge_stop()'s callback. */
Edge *edge_free(Edge *edge);
DEFINE_CLEANUP(Edge *, edge_free)

/* Takes the fd (non-blocking or not) on success. */
int edge_listen(Edge *edge, int fd, EdgeOrigin origin);
/* fd: this slot's receiving end (SEQPACKET). Takes it on success. */
int edge_receive_hand_offs(Edge *edge, int fd);
/* fd: the sending end to a slot. Takes it on success. */
int edge_set_hand_off(Edge *edge, unsigned slot, int fd);
void edge_get_stats(const Edge *edge, EdgeStats *ret);
/* Stops accepting, closes idle connections, answers what is in flight with Connection: close, and
 * calls stopped() once when all are gone or deadline (monotonic ns) has passed. */
void edge_stop(Edge *edge, uint64_t deadline, void (*stopped)(void *data), void *data);
