/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The event loop of a process: one io_uring, its timers, its posts from other threads
 *
 * A Ring belongs to the thread that created it; only ring_post() may be called from others. An
 * operation is described by a RingOp that the caller embeds in its own structure and keeps alive
 * until its final completion. Completions are delivered by calls of op->fn from ring_run(), never
 * from inside the call that submits. Submissions are batched: they reach the kernel once an
 * iteration, together with the wait.
 *
 *        idle ---submit---> pending ---final completion---> idle
 *                              |  ^
 *                multishot: fn with more=true
 *
 * Guarantees:
 * 1. fn is called exactly once with more == false for each submission, after which the op is idle
 *    and may be freed or submitted again, from inside fn as well.
 * 2. A cancelled op still gets its final completion (-ECANCELED, or its result when that came
 *    first). A late result >= 0 of an accept or a receive is delivered, never dropped; a connection
 *    or bytes that the kernel had not yet taken stay in the backlog or the socket.
 * 3. Timers fire at or after their deadline, in the order of their deadlines, never early.
 * 4. Posts run in the order in which they were posted, on the loop's thread.
 * 5. When the submission queue is full the calls below submit it first: they do not fail for room.
 *    Only when the kernel is out of memory does an op complete with -EAGAIN, in the next iteration.
 *
 * Descriptors are in blocking mode: with O_NONBLOCK the kernel completes an accept, a read or a
 * write with -EAGAIN where it would wait otherwise. It is the ring that waits, not the thread.
 *
 * Errors: negative errno. -ENOSYS and -EPERM of ring_new() mean that io_uring is absent or disabled
 * (kernel.io_uring_disabled): the caller names the setting.
 */

#include "lib/base/list.h"
#include "lib/base/slice.h"

#include <sys/socket.h>

typedef struct Ring Ring;
typedef struct RingOp RingOp;

/*
 * res: >= 0 the call's result, < 0 a negative errno. more: further completions of this submission
 * follow. data: for receives with provided buffers the received bytes, valid during the call only.
 */
typedef struct RingResult {
        int res;
        bool more;
        Slice data;
} RingResult;

typedef void (*RingOpFn)(RingOp *op, const RingResult *result);

struct RingOp {
        RingOpFn fn;
        RingOp *next;       /* the ring's own */
        bool pending;       /* read only: submitted, final completion not yet delivered */
        unsigned char kind; /* the ring's own */
};

typedef struct RingOptions {
        unsigned entries;     /* submission queue entries, a power of two; 0: 512 */
        unsigned n_buffers;   /* provided receive buffers, a power of two; 0: 256 */
        unsigned buffer_size; /* bytes each; 0: 16384 */
} RingOptions;

int ring_new(const RingOptions *options, Ring **ret);
/*
 * All ops must be idle and all timers disarmed, or ring_run() have ended for good: what is still in
 * flight is cancelled and waited for without calls of fn (sockets that were accepted are closed),
 * posts that still wait are not run. Nobody may post any more.
 */
Ring *ring_free(Ring *ring);
DEFINE_CLEANUP(Ring *, ring_free)

/* Runs until ring_stop(); 0, or a negative errno of the kernel interface itself. */
int ring_run(Ring *ring);
/*
 * Runs one iteration: deferred posts, submission and wait of at most timeout_ns (0: does not wait,
 * UINT64_MAX: no limit), completions, timers, posts, deferred posts.
 */
int ring_run_once(Ring *ring, uint64_t timeout_ns);
/* The iteration is still finished. Without a ring_run() the next one ends at once. */
void ring_stop(Ring *ring);
/* The monotonic clock in ns, read once an iteration. */
uint64_t ring_now(Ring *ring);

static inline void ring_op_init(RingOp *op, RingOpFn fn)
{
        *op = (RingOp){ .fn = fn };
}

/*
 * Multishot; res is a new close-on-exec socket owned by the callee. It may end by itself with a
 * connection or an error (-EMFILE, ...) and more == false: submit again, after an error not at
 * once.
 */
void ring_accept(Ring *ring, RingOp *op, int fd);
/*
 * Multishot receive into provided buffers; ends with res == 0 at end of stream. -ENOBUFS: the
 * buffers ran out; nothing is lost, the bytes wait in the socket: submit again, from inside fn as
 * well, since buffers come back as soon as each fn returns. The same for any other end with data.
 */
void ring_recv(Ring *ring, RingOp *op, int fd);
/* One send; may be short. The memory must stay until completion. MSG_NOSIGNAL is implied. */
void ring_send(Ring *ring, RingOp *op, int fd, const void *data, size_t len, int flags);
void ring_sendmsg(Ring *ring, RingOp *op, int fd, const struct msghdr *message, int flags);
void ring_recvmsg(Ring *ring, RingOp *op, int fd, struct msghdr *message, int flags);
/* The address is copied. */
void ring_connect(Ring *ring, RingOp *op, int fd, const struct sockaddr *address, socklen_t len);
void ring_read(Ring *ring, RingOp *op, int fd, void *data, size_t len, uint64_t offset);
/* durable: the bytes are on disk at completion (RWF_DSYNC). */
void ring_write(Ring *ring, RingOp *op, int fd, const void *data, size_t len, uint64_t offset,
        bool durable);
/*
 * events: POLLIN, POLLOUT. Multishot: fn with res = the events that are ready, at each new wake-up
 * of the file: what was there is to be consumed until -EAGAIN.
 */
void ring_poll(Ring *ring, RingOp *op, int fd, unsigned events, bool multishot);
/* Asks for the op's end; harmless when it is idle. */
void ring_cancel(Ring *ring, RingOp *op);
/* Closes asynchronously; errors are not reported. The fd must have no pending op. */
void ring_close(Ring *ring, int fd);

typedef struct RingTimer RingTimer;
struct RingTimer {
        void (*fn)(RingTimer *timer);
        uint64_t deadline; /* monotonic ns; read only */
        size_t heap_index; /* 0: not armed */
};

static inline void ring_timer_init(RingTimer *timer, void (*fn)(RingTimer *timer))
{
        *timer = (RingTimer){ .fn = fn };
}

/* (Re)arms for an absolute time of the monotonic clock. -ENOMEM leaves it disarmed. */
int ring_timer_arm(Ring *ring, RingTimer *timer, uint64_t deadline);
void ring_timer_disarm(Ring *ring, RingTimer *timer);
static inline bool ring_timer_is_armed(const RingTimer *timer)
{
        return timer->heap_index != 0;
}

/*
 * Work for the loop's thread. The post is embedded, owned by the ring until fn is called, and may
 * be freed or posted again from inside fn. Posting one that is still queued is a bug.
 */
typedef struct RingPost RingPost;
struct RingPost {
        RingPost *next; /* ring.c's own */
        void (*fn)(RingPost *post);
};

/* Any thread. Wakes the loop unless it is awake already. */
void ring_post(Ring *ring, RingPost *post);
/* Any thread. The post is run when the loop wakes for something else, or at ring_wake(). */
void ring_post_quietly(Ring *ring, RingPost *post);
/* Any thread. For what was posted quietly before. */
void ring_wake(Ring *ring);
/*
 * Loop thread only: fn runs later in this iteration, before the loop sleeps; no system call. What
 * it defers in turn runs in the next iteration, which does not sleep.
 */
void ring_defer(Ring *ring, RingPost *post);
