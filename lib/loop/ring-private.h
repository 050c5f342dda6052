/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The inside of a Ring: shared by ring.c, op.c and timer.c, by nobody else
 *
 * user_data of an SQE is the address of its RingOp with a tag in the low bits: what a completion
 * needs to know when the op itself may be gone already (ring_free()).
 */

#include "lib/loop/ring.h"

#include <liburing.h>
#include <stdatomic.h>

enum {
        TAG_ACCEPT = 1,   /* a result >= 0 is a file descriptor */
        TAG_INTERNAL = 2, /* no op: a cancel or a close, its result is of no interest */
        TAG_MASK = 7,
};

/* RingOp.kind */
enum {
        KIND_ACCEPT = 1 << 0,
        KIND_REFUSED = 1 << 1,       /* found no room in the kernel: waits in ring->refused */
        KIND_CANCELLED = 1 << 2,     /* ring_cancel() was called */
        KIND_CANCEL_QUEUED = 1 << 3, /* the cancel found no room: waits in ring->cancels */
};

typedef struct HeapEntry {
        uint64_t deadline;
        uint64_t sequence; /* equal deadlines fire in the order of arming */
        RingTimer *timer;
} HeapEntry;

typedef struct TimerHeap {
        HeapEntry *entries; /* 1-based: entries[0] is unused */
        size_t len, size;
        uint64_t sequence;
} TimerHeap;

struct Ring {
        struct io_uring uring;
        uint64_t now;
        bool stop;

        struct io_uring_buf_ring *buf_ring;
        char *buffers;
        unsigned n_buffers, buffer_size;
        size_t buf_ring_bytes, buffers_bytes;

        /* One for each SQE: a connect's address is copied here until the kernel has read it. */
        struct sockaddr_storage *addresses;

        TimerHeap timers;
        RingPost *deferred, **deferred_tail;
        RingOp *refused, **refused_tail; /* to be completed with -EAGAIN */
        RingOp *cancels;                 /* whose cancel has to be tried again */
        size_t n_pending;                /* ops in the kernel's hands */

        int event_fd;
        uint64_t event_value;
        RingOp wake;

        /* Written by other threads: kept off the cache line of what the loop uses alone. */
        _Alignas(64) _Atomic(RingPost *) posts; /* a stack: the newest first */
        atomic_bool sleeping;
};

/* Submits what waits and makes room; NULL when the kernel is out of memory. */
struct io_uring_sqe *op_get_sqe(Ring *ring);
/* Tries the queued cancels again. */
void op_retry_cancels(Ring *ring);
/* Completes the ops that found no room. */
void op_complete_refused(Ring *ring);
/* Takes the op off the queue of cancels. */
void op_forget_cancel(Ring *ring, RingOp *op);

/* UINT64_MAX when no timer is armed. */
uint64_t timer_next_deadline(const Ring *ring);
void timer_fire(Ring *ring);
void timer_done(Ring *ring);
