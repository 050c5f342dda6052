/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Request and Response: what passes between the edge, the objects and the runtimes
 *
 * A Request is immutable from the moment it is handed on and may be read by any thread; references
 * are atomic. Its body is complete: in memory up to REQUEST_MEMORY_MAX, otherwise in an unlinked
 * file.
 *
 * A Response is a stream of chunks with one producer (a runtime, an asset, a peer worker) and one
 * consumer (a connection, a guest that called a stub). It belongs to the worker's loop thread
 * alone: runners get at it by ring_post(). References are not atomic.
 *
 *   OPEN --response_start()--> STARTED --response_end()--> ENDED
 *     \__________response_abort()___\____________________-> ABORTED
 *
 * Guarantees:
 * 1. The head comes first and once; after ENDED or ABORTED nothing is added.
 * 2. What is queued counts against RESPONSE_QUEUE_MAX: response_is_full() tells the producer to
 * wait for on_room. A producer that cannot wait may exceed it once per call, never by more than one
 *    chunk.
 * 3. response_cancel() (the consumer is gone) makes every later push a no-op and tells the producer
 *    by on_cancel, once.
 * 4. Callbacks run from the call that causes them, on the loop thread. A callback may drop its own
 *    reference; each call holds the Response while it runs. on_change does not nest: what changes
 *    inside it calls it once more after it has returned. What a producer does in an on_room that a
 *    pop causes calls none at all: who pops looks at the state and the queue afterwards.
 * 5. Setting a consumer or a producer calls nothing: who sets one late looks at the state, and
 *    response_is_cancelled(), itself.
 * 6. An abort drops what is queued. Whatever a producer does after an abort is a no-op.
 */

#include "lib/base/list.h"
#include "lib/wire/http.h"

#define REQUEST_MEMORY_MAX (1u << 20)
#define RESPONSE_QUEUE_MAX (256u << 10)
#define CHAIN_MAX 32u /* calls from object to object that one request may nest */

typedef struct Request {
        unsigned refs; /* atomic */
        /* 16 hex digits: REQUEST_ID in the log. A call that an event makes carries the id of the
         * event's own request: chains are told apart by it. */
        char id[17];
        Slice method, scheme, authority, target, path, query;
        Slice peer; /* the client's address, as text, without port */
        const HttpHeader *headers;
        size_t n_headers;
        Slice body;  /* when body_fd < 0 */
        int body_fd; /* an unlinked file, read with pread(), or -1 */
        uint64_t body_len;
        uint64_t deadline; /* monotonic ns, 0: none. The caller gave up after it */
        /* Ids (64 hex digits, comma separated) of the objects whose events led here, oldest first.
         */
        Slice chain;
} Request;

/* What a new Request is made of; all is copied but body and body_fd, which are taken on success. */
typedef struct RequestParts {
        const char *id; /* 16 digits, else -EINVAL; NULL: a new one is drawn */
        Slice method, scheme, authority, target, path, query, peer, chain;
        const HttpHeader *headers;
        size_t n_headers;
        char *body; /* malloc'd, or NULL; must be NULL beside a body_fd */
        size_t body_len;
        int body_fd; /* -1: none */
        uint64_t body_fd_len;
        uint64_t deadline;
} RequestParts;

int request_new(RequestParts *parts, Request **ret);
Request *request_ref(Request *request);
Request *request_unref(Request *request);
DEFINE_CLEANUP(Request *, request_unref)
const HttpHeader *request_find_header(const Request *request, Slice name);

/* Bytes of a response's body, allocated with their header in one block. */
typedef struct Chunk {
        List link;
        size_t len;
        char data[];
} Chunk;

/* Any thread. NULL when memory is out. */
Chunk *chunk_new(const void *data, size_t len);
Chunk *chunk_free(Chunk *chunk);

typedef enum ResponseState {
        RESPONSE_OPEN,
        RESPONSE_STARTED,
        RESPONSE_ENDED,
        RESPONSE_ABORTED,
} ResponseState;

/* A head, made on any thread, immutable afterwards. One malloc'd block. */
typedef struct ResponseHead {
        unsigned status;
        int64_t content_length; /* -1: unknown, the edge chunks or closes */
        size_t n_headers;
        HttpHeader headers[]; /* without Content-Length, Transfer-Encoding, Connection, Date */
} ResponseHead;

/* Copies; hop-by-hop and framing headers are left out, Content-Length is taken from them when
 * content_length is -1. 0, -EINVAL (a name or value breaks framing, a status beyond 200..999),
 * -ENOMEM. Any thread. */
int response_head_new(unsigned status, const HttpHeader *headers, size_t n_headers,
        int64_t content_length, ResponseHead **ret);

struct Store;
typedef struct Response Response;

typedef struct ResponseConsumer {
        /* Head, chunks, end or abort: look at the state and take what is there. */
        void (*on_change)(Response *response, void *data);
} ResponseConsumer;

typedef struct ResponseProducer {
        void (*on_room)(Response *response, void *data);   /* no longer full; may be NULL */
        void (*on_cancel)(Response *response, void *data); /* nobody wants it; may be NULL */
} ResponseProducer;

int response_new(Response **ret);
Response *response_ref(Response *response);
Response *response_unref(Response *response);
DEFINE_CLEANUP(Response *, response_unref)

void response_set_producer(Response *response, const ResponseProducer *producer, void *data);
/* Takes the head. */
void response_start(Response *response, ResponseHead *head);
/* Takes the chunk; an empty one is dropped. */
void response_push(Response *response, Chunk *chunk);
bool response_is_full(const Response *response);
void response_end(Response *response);
/* Start, push and end in one change. Takes head and chunk; chunk may be NULL. */
void response_finish(Response *response, ResponseHead *head, Chunk *chunk);
/*
 * Ends it as failed; a no-op on one that has ended. status and message are what a consumer that has
 * sent no head yet tells its client (Retry-After: retry_after seconds when > 0). message is copied.
 */
void response_abort(Response *response, unsigned status, unsigned retry_after, const char *message);
/* response_finish() with text/plain. For the host's own short answers. */
void response_finish_text(Response *response, unsigned status, const char *text);

void response_set_consumer(Response *response, const ResponseConsumer *consumer, void *data);
ResponseState response_get_state(const Response *response);
/* NULL before STARTED. Owned by the response. */
const ResponseHead *response_get_head(const Response *response);
/* The next chunk, now the caller's, or NULL when none is queued. */
Chunk *response_pop(Response *response);
bool response_is_drained(const Response *response); /* ended and nothing queued */
void response_cancel(Response *response);

/*
 * Makes from's answer, head and stream, the answer of to, which must be OPEN: with back-pressure,
 * an abort and the shard passed on, and a cancel passed back. Becomes from's consumer and to's
 * producer, holds both until the end. -ENOMEM: nothing has changed.
 */
int response_forward(Response *from, Response *to);
/* The same through the output gate: what from says passes when all that the object at path (of its
 * database) had committed by then is durable; a store that has failed aborts to with 503. */
int response_forward_durable(Response *from, Response *to, struct Store *store, const char *path);
/* A forward produces it: it may well end after what it was made for. */
bool response_is_forwarded(const Response *response);

bool response_is_cancelled(const Response *response);
/* Of an aborted response. */
unsigned response_get_abort(
        const Response *response, unsigned *ret_retry_after, const char **ret_message);
/* Which object answered, for X-Durable-Address and the learned routes: shard or -1. Set by object/.
 */
void response_set_shard(Response *response, int shard);
int response_get_shard(const Response *response);
