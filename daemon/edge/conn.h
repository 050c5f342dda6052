/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Inside the edge: the connection, and what its files call of each other
 *
 *   IDLE -> HEAD -> BODY -> SPOOL -> SERVE -> IDLE
 *             |      ^                 |----> LINGER -> CLOSE
 *             \-> LEAVE -> CLOSE       \----> CLOSE
 *
 * IDLE no byte of a request yet; HEAD part of a head; LEAVE handed off as soon as the receive has
 * ended; BODY the head is routed, the body arrives; SPOOL the body is complete, its file is not;
 * SERVE the answer is awaited and sent; LINGER answered, and what the client still sends is read
 * and dropped, so that no reset overtakes the answer; CLOSE waits for its operations to end. An
 * error answer goes from HEAD, BODY or SPOOL to SERVE, and every state goes to CLOSE.
 *
 * A connection is freed by its deferred post alone, never from inside a call.
 */

#include "daemon/edge/edge.h"

#include <sys/uio.h>

#define CONN_BATCH 8u               /* chunks of one send */
#define CONN_COPY_MAX 2048u         /* a chunk up to this is copied behind the head */
#define CONN_IDLE_BUFFER_MAX 16384u /* a larger buffer is given back between requests */
#define CONN_LINGER_NS UINT64_C(5000000000)
#define CONN_HALF_CLOSED_NS UINT64_C(2000000000)
#define BODY_WRITE_SIZE (256u << 10) /* bytes of one write to the spool file */
#define HAND_OFF_BYTES_MAX (128u << 10)
#define HAND_OFF_HOPS_MAX 3u
#define EDGE_SLOTS_MAX 1024u
#define INTERNAL_HEAD_ROOM (32u << 10)     /* for the headers that proxy.c adds */
#define INTERNAL_BODY_MAX (UINT64_MAX / 4) /* the worker that took it has judged it */

typedef enum ConnState {
        CONN_IDLE,
        CONN_HEAD,
        CONN_LEAVE,
        CONN_BODY,
        CONN_SPOOL,
        CONN_SERVE,
        CONN_LINGER,
        CONN_CLOSE,
} ConnState;

typedef enum Framing { FRAMING_NONE, FRAMING_LENGTH, FRAMING_CHUNKED, FRAMING_CLOSE } Framing;

/* The body of the request that is being received. */
typedef struct Body {
        Buf memory;  /* what is not in the file yet; all of it while fd < 0 */
        Buf writing; /* what op writes */
        int fd;
        uint64_t written;
        bool ended; /* the last byte has arrived */
        RingOp op;
} Body;

/* What is being sent, and where the answer stands. */
typedef struct Output {
        Buf bytes; /* heads, frames and small chunks */
        struct iovec vector[2 * CONN_BATCH + 2];
        unsigned n_vector, vector_at;
        size_t segment; /* where in bytes the next vector entry starts */
        Chunk *chunks[CONN_BATCH];
        unsigned n_chunks;
        struct msghdr message;
        RingOp op;
        Framing framing;
        uint64_t left; /* bytes of the body to come: FRAMING_LENGTH */
        bool head_written;
        bool complete; /* what is being sent ends the answer */
        bool later;    /* an error answer in bytes waits for 100 Continue to leave */
        bool broken;   /* after what is being sent the connection must end unclean */
} Output;

typedef struct Conn {
        Edge *edge;
        List link;
        int fd;
        ConnState state;
        RingOp receive;
        RingPost post;
        RingTimer timer;
        uint64_t deadline; /* 0: none. The timer may be armed for an earlier time */
        bool post_queued, receive_cancelled;
        bool eof;        /* the client sends no more */
        bool peer_known; /* the addresses have been looked up */
        bool last;       /* the answer is the connection's last */
        bool unread;     /* the client may still be sending: linger */
        bool head_request, keep_alive, continue_sent;
        unsigned minor, n_requests, status;
        EdgePeer peer;
        char peer_text[64];
        HttpParser *parser;
        Buf input;       /* bytes received and not used, from the first byte of a message */
        size_t fed;      /* bytes of input that the parser has seen */
        size_t head_len; /* LEAVE: bytes of the head at the front of input */
        EdgeDecision decision;
        Body body;
        Request *request;
        Response *response;
        Output out;
} Conn;

typedef struct Listener {
        Edge *edge;
        List link;
        int fd;
        EdgeOrigin origin;
        bool cancelled;
        RingOp accept;
} Listener;

typedef struct HandOffReceiver HandOffReceiver;

struct Edge {
        EdgeOptions options;
        char *spool_directory;
        Ring *ring;
        List connections, listeners, receivers;
        EdgeStats stats;
        int hand_off_fds[EDGE_SLOTS_MAX]; /* -1: none */
        int64_t date_seconds;
        char date[30];
        bool paused; /* accepting, for connections_max or for want of descriptors */
        bool stopping, stopped, stop_post_queued;
        RingPost stop_post;
        RingTimer retry_timer, stop_timer;
        void (*on_stopped)(void *data);
        void *on_stopped_data;
};

/* edge.c */
void edge_connection_gone(Edge *edge);
void edge_check_stopped(Edge *edge);
const char *edge_get_date(Edge *edge);

/* conn.c. conn_new() takes fd on success, and serves the bytes, which it copies. */
int conn_new(Edge *edge, int fd, EdgeOrigin origin, unsigned hops, Slice bytes, Conn **ret);
void conn_set_state(Conn *conn, ConnState state);
void conn_set_deadline(Conn *conn, uint64_t after_ns);
void conn_clear_deadline(Conn *conn);
void conn_defer(Conn *conn);
void conn_update_receive(Conn *conn);
/* Goes on with what is in the input buffer. */
void conn_process(Conn *conn);
/* Ends it now; reset: the client is to see that something went wrong. */
void conn_close(Conn *conn, bool reset);

/* body.c */
void body_init(Body *body);
void body_done(Body *body);
/* Forgets a body that has been handed on or failed; no write may be pending. */
void body_clear(Body *body);
int body_append(Conn *conn, Slice data);
/* True when the whole body is where it belongs. */
bool body_end(Conn *conn);
bool body_is_full(const Body *body);
/* The file failed with r: logs, and answers. */
void body_fail(Conn *conn, int r);

/* exchange.c */
void exchange_begin(Conn *conn);
/* The request is served here: its body may come. */
void exchange_start(Conn *conn);
void exchange_serve(Conn *conn);
/* Answers with an error and ends the connection's reading. message: static. */
void exchange_fail(Conn *conn, unsigned status, const char *message);
void exchange_pump(Conn *conn);
/* Drops what is left of an exchange when the connection ends. */
void exchange_drop(Conn *conn);
void exchange_init(Conn *conn);

/* errors.c: a whole answer, head and body, into buf. */
typedef struct ErrorAnswer {
        unsigned status, retry_after;
        const char *message; /* NULL: the status' own phrase */
        const char *request_id;
        const char *date;
        Slice accept;
        bool head_request, close, keep_alive_10, internal_abort;
} ErrorAnswer;
int error_write(Buf *buf, const ErrorAnswer *answer);
bool error_wants_html(Slice accept);

/* hand-off.c */
bool hand_off_is_possible(const Conn *conn, unsigned slot);
/* The receive has ended: the connection leaves, or is served here. */
void hand_off_leave(Conn *conn);
void hand_off_stop(Edge *edge);
void hand_off_done(Edge *edge);
