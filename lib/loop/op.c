/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/loop/ring-private.h"

#include <errno.h>

#define SQE_ATTEMPTS 3

struct io_uring_sqe *op_get_sqe(Ring *ring)
{
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

        for (int i = 0; !sqe && i < SQE_ATTEMPTS; i++) {
                int r = io_uring_submit(&ring->uring);

                /* Completions that overflowed the queue can stand in the way of a submission. */
                if (r == -EBUSY || r == -EAGAIN)
                        (void)io_uring_get_events(&ring->uring);
                sqe = io_uring_get_sqe(&ring->uring);
        }
        return sqe;
}

/* The op becomes pending in any case: an op without room completes in the next iteration. */
static struct io_uring_sqe *op_begin(Ring *ring, RingOp *op, unsigned char kind)
{
        struct io_uring_sqe *sqe = op_get_sqe(ring);

        dd_assert(!op->pending);
        dd_assert(((uintptr_t)op & TAG_MASK) == 0);
        op->pending = true;
        op->kind = kind;
        op->next = NULL;
        if (!sqe) {
                op->kind |= KIND_REFUSED;
                *ring->refused_tail = op;
                ring->refused_tail = &op->next;
                return NULL;
        }
        ring->n_pending++;
        return sqe;
}

static uint64_t op_user_data(const RingOp *op)
{
        return (uintptr_t)op | (op->kind & KIND_ACCEPT ? TAG_ACCEPT : 0u);
}

static void op_end(const RingOp *op, struct io_uring_sqe *sqe)
{
        io_uring_sqe_set_data64(sqe, op_user_data(op));
}

void op_complete_refused(Ring *ring)
{
        RingOp *op = ring->refused;

        ring->refused = NULL;
        ring->refused_tail = &ring->refused;
        while (op) {
                RingOp *next = op->next;
                RingResult result = { .res = -EAGAIN };

                if (op->kind & KIND_CANCELLED)
                        result.res = -ECANCELED;
                op->pending = false;
                op->fn(op, &result);
                op = next;
        }
}

void ring_accept(Ring *ring, RingOp *op, int fd)
{
        struct io_uring_sqe *sqe = op_begin(ring, op, KIND_ACCEPT);

        if (!sqe)
                return;
        io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
        op_end(op, sqe);
}

void ring_recv(Ring *ring, RingOp *op, int fd)
{
        struct io_uring_sqe *sqe = op_begin(ring, op, 0);

        if (!sqe)
                return;
        io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = 0;
        op_end(op, sqe);
}

void ring_send(Ring *ring, RingOp *op, int fd, const void *data, size_t len, int flags)
{
        struct io_uring_sqe *sqe = op_begin(ring, op, 0);

        if (!sqe)
                return;
        /* The kernel's length has 32 bits; a short send is within the contract. */
        io_uring_prep_send(sqe, fd, data, MIN(len, (size_t)INT32_MAX), flags | MSG_NOSIGNAL);
        op_end(op, sqe);
}

void ring_sendmsg(Ring *ring, RingOp *op, int fd, const struct msghdr *message, int flags)
{
        struct io_uring_sqe *sqe = op_begin(ring, op, 0);

        if (!sqe)
                return;
        io_uring_prep_sendmsg(sqe, fd, message, (unsigned)(flags | MSG_NOSIGNAL));
        op_end(op, sqe);
}

void ring_recvmsg(Ring *ring, RingOp *op, int fd, struct msghdr *message, int flags)
{
        struct io_uring_sqe *sqe = op_begin(ring, op, 0);

        if (!sqe)
                return;
        io_uring_prep_recvmsg(sqe, fd, message, (unsigned)flags);
        op_end(op, sqe);
}

void ring_connect(Ring *ring, RingOp *op, int fd, const struct sockaddr *address, socklen_t len)
{
        struct io_uring_sqe *sqe = op_begin(ring, op, 0);
        struct sockaddr_storage *copy;

        if (!sqe)
                return;
        dd_assert(len <= sizeof *copy);
        copy = &ring->addresses[sqe - ring->uring.sq.sqes];
        memcpy(copy, address, len);
        io_uring_prep_connect(sqe, fd, (const struct sockaddr *)copy, len);
        op_end(op, sqe);
}

void ring_read(Ring *ring, RingOp *op, int fd, void *data, size_t len, uint64_t offset)
{
        struct io_uring_sqe *sqe = op_begin(ring, op, 0);

        if (!sqe)
                return;
        io_uring_prep_read(sqe, fd, data, (unsigned)MIN(len, (size_t)INT32_MAX), offset);
        op_end(op, sqe);
}

void ring_write(
        Ring *ring, RingOp *op, int fd, const void *data, size_t len, uint64_t offset, bool durable)
{
        struct io_uring_sqe *sqe = op_begin(ring, op, 0);

        if (!sqe)
                return;
        io_uring_prep_write(sqe, fd, data, (unsigned)MIN(len, (size_t)INT32_MAX), offset);
        if (durable)
                sqe->rw_flags = RWF_DSYNC;
        op_end(op, sqe);
}

void ring_poll(Ring *ring, RingOp *op, int fd, unsigned events, bool multishot)
{
        struct io_uring_sqe *sqe = op_begin(ring, op, 0);

        if (!sqe)
                return;
        if (multishot)
                io_uring_prep_poll_multishot(sqe, fd, events);
        else
                io_uring_prep_poll_add(sqe, fd, events);
        op_end(op, sqe);
}

/* False when there was no room. */
static bool op_submit_cancel(Ring *ring, RingOp *op)
{
        struct io_uring_sqe *sqe = op_get_sqe(ring);

        if (!sqe)
                return false;
        io_uring_prep_cancel64(sqe, op_user_data(op), 0);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        io_uring_sqe_set_data64(sqe, TAG_INTERNAL);
        return true;
}

void ring_cancel(Ring *ring, RingOp *op)
{
        if (!op->pending || (op->kind & KIND_CANCELLED))
                return;
        op->kind |= KIND_CANCELLED;
        if (op->kind & KIND_REFUSED)
                return;
        if (!op_submit_cancel(ring, op)) {
                op->kind |= KIND_CANCEL_QUEUED;
                op->next = ring->cancels;
                ring->cancels = op;
        }
}

void op_retry_cancels(Ring *ring)
{
        while (ring->cancels && op_submit_cancel(ring, ring->cancels)) {
                RingOp *op = ring->cancels;

                ring->cancels = op->next;
                op->kind &= (unsigned char)~KIND_CANCEL_QUEUED;
                op->next = NULL;
        }
}

void op_forget_cancel(Ring *ring, RingOp *op)
{
        RingOp **link = &ring->cancels;

        while (*link != op)
                link = &(*link)->next;
        *link = op->next;
        op->next = NULL;
}

void ring_close(Ring *ring, int fd)
{
        struct io_uring_sqe *sqe = op_get_sqe(ring);

        if (!sqe) {
                close(fd);
                return;
        }
        io_uring_prep_close(sqe, fd);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        io_uring_sqe_set_data64(sqe, TAG_INTERNAL);
}
