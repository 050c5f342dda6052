/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/edge/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

/*
 * One SEQPACKET message a connection: this header, the bytes that have been read from the client
 * and belong to requests that nobody has served, and the descriptor (SCM_RIGHTS). Both ends are of
 * one machine, and of versions that may differ: an unknown version is refused.
 */
#define HAND_OFF_MAGIC 0x64646831u /* "ddh1" */
#define HAND_OFF_VERSION 1u

#define RETRY_NS UINT64_C(100000000)

typedef struct HandOffHead {
        uint32_t magic;
        uint16_t version;
        uint8_t origin; /* EdgeOrigin */
        uint8_t hops;
        uint32_t bytes;
} HandOffHead;

_Static_assert(sizeof(HandOffHead) == 12, "the message is a format");

#define CONTROL_SIZE CMSG_SPACE(sizeof(int))

struct HandOffReceiver {
        Edge *edge;
        List link;
        int fd;
        RingOp op;
        RingTimer retry;
        _Alignas(struct cmsghdr) char control[CONTROL_SIZE];
        struct iovec vector[2];
        struct msghdr message;
        HandOffHead head;
        char bytes[HAND_OFF_BYTES_MAX];
};

bool hand_off_is_possible(const Conn *conn, unsigned slot)
{
        return slot < EDGE_SLOTS_MAX && conn->edge->hand_off_fds[slot] >= 0 &&
               conn->peer.hops < HAND_OFF_HOPS_MAX && conn->out.op.pending == false;
}

/* 0, or a negative errno: -EAGAIN when the owner's queue is full. */
static int hand_off_send(Conn *conn)
{
        HandOffHead head = {
                .magic = HAND_OFF_MAGIC,
                .version = HAND_OFF_VERSION,
                .origin = (uint8_t)conn->peer.origin,
                .hops = (uint8_t)(conn->peer.hops + 1),
                .bytes = (uint32_t)conn->input.len,
        };
        struct iovec vector[2] = { { &head, sizeof head },
                { buf_data(&conn->input), conn->input.len } };
        _Alignas(struct cmsghdr) char control[CONTROL_SIZE] = { 0 };
        struct msghdr message = {
                .msg_iov = vector,
                .msg_iovlen = 2,
                .msg_control = control,
                .msg_controllen = sizeof control,
        };
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

        if (conn->input.len > HAND_OFF_BYTES_MAX)
                return -EMSGSIZE;
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &conn->fd, sizeof(int));
        /* At once and not by the ring: the answer decides who serves. */
        if (sendmsg(conn->edge->hand_off_fds[conn->decision.slot], &message,
                    MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                return -errno;
        return 0;
}

void hand_off_leave(Conn *conn)
{
        dd_assert(conn->state == CONN_LEAVE && !conn->receive.pending);
        if (hand_off_send(conn) == 0) {
                conn->edge->stats.handed_out++;
                /* Only our descriptor is closed: the connection lives on in the owner. */
                conn_close(conn, false);
                return;
        }
        conn->edge->stats.hand_off_failed++;
        buf_consume(&conn->input, conn->head_len);
        conn->fed = 0;
        exchange_start(conn);
        conn_process(conn);
}

static bool message_is_sound(const HandOffReceiver *receiver, size_t len)
{
        const HandOffHead *head = &receiver->head;

        return len >= sizeof *head && head->magic == HAND_OFF_MAGIC &&
               head->version == HAND_OFF_VERSION && head->origin <= EDGE_INTERNAL &&
               head->bytes == len - sizeof *head &&
               !(receiver->message.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
}

/* The descriptor that came with the message, or -1. */
static int message_take_fd(HandOffReceiver *receiver)
{
        struct cmsghdr *rights = CMSG_FIRSTHDR(&receiver->message);
        int fd = -1;

        if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS &&
                rights->cmsg_len == CMSG_LEN(sizeof(int)))
                memcpy(&fd, CMSG_DATA(rights), sizeof fd);
        return fd;
}

static void receiver_submit(HandOffReceiver *receiver)
{
        receiver->vector[0] = (struct iovec){ &receiver->head, sizeof receiver->head };
        receiver->vector[1] = (struct iovec){ receiver->bytes, sizeof receiver->bytes };
        receiver->message = (struct msghdr){
                .msg_iov = receiver->vector,
                .msg_iovlen = 2,
                .msg_control = receiver->control,
                .msg_controllen = sizeof receiver->control,
        };
        ring_recvmsg(receiver->edge->ring, &receiver->op, receiver->fd, &receiver->message,
                MSG_CMSG_CLOEXEC);
}

static void receiver_free(HandOffReceiver *receiver)
{
        ring_timer_disarm(receiver->edge->ring, &receiver->retry);
        list_unlink(&receiver->link);
        close_p(&receiver->fd);
        free(receiver);
}

static void receiver_take(HandOffReceiver *receiver, size_t len)
{
        Edge *edge = receiver->edge;
        int fd = message_take_fd(receiver);
        Conn *conn;

        if (fd < 0)
                return;
        if (!message_is_sound(receiver, len) ||
                conn_new(edge, fd, receiver->head.origin, receiver->head.hops,
                        slice_of(receiver->bytes, receiver->head.bytes), &conn) < 0) {
                ring_close(edge->ring, fd);
                return;
        }
        edge->stats.handed_in++;
}

/*
 * With as many connections as are allowed the queue is left to fill, until those who hand off serve
 * themselves.
 */
static void receiver_next(HandOffReceiver *receiver, bool failed)
{
        Edge *edge = receiver->edge;
        bool later = failed || edge->stats.connections >= edge->options.connections_max;

        /* Without a timer it is now as well. */
        if (later &&
                ring_timer_arm(edge->ring, &receiver->retry, ring_now(edge->ring) + RETRY_NS) == 0)
                return;
        receiver_submit(receiver);
}

static void receiver_on_retry(RingTimer *timer)
{
        HandOffReceiver *receiver = CONTAINER_OF(timer, HandOffReceiver, retry);

        if (!receiver->op.pending && !receiver->edge->stopping)
                receiver_next(receiver, false);
}

static void receiver_on_message(RingOp *op, const RingResult *result)
{
        HandOffReceiver *receiver = CONTAINER_OF(op, HandOffReceiver, op);
        Edge *edge = receiver->edge;

        if (result->res > 0)
                receiver_take(receiver, (size_t)result->res);
        if (edge->stopping) {
                /* What is still queued stays with the supervisor's copy of this end. */
                receiver_free(receiver);
                edge_check_stopped(edge);
                return;
        }
        receiver_next(receiver, result->res <= 0);
}

int edge_receive_hand_offs(Edge *edge, int fd)
{
        HandOffReceiver *receiver;
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0)
                return -errno;
        if ((flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
                return -errno;
        receiver = calloc(1, sizeof *receiver);
        if (!receiver)
                return -ENOMEM;
        receiver->edge = edge;
        receiver->fd = fd;
        list_init(&receiver->link);
        list_append(&edge->receivers, &receiver->link);
        ring_op_init(&receiver->op, receiver_on_message);
        ring_timer_init(&receiver->retry, receiver_on_retry);
        receiver_submit(receiver);
        return 0;
}

void hand_off_stop(Edge *edge)
{
        list_for_each_safe(link, &edge->receivers) {
                HandOffReceiver *receiver = list_entry(link, HandOffReceiver, link);

                if (receiver->op.pending)
                        ring_cancel(edge->ring, &receiver->op);
                else
                        receiver_free(receiver);
        }
}

void hand_off_done(Edge *edge)
{
        while (!list_is_empty(&edge->receivers))
                receiver_free(list_entry(list_first(&edge->receivers), HandOffReceiver, link));
}
