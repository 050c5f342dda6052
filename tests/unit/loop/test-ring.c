/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/buf.h"
#include "lib/base/file.h"
#include "lib/loop/ring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define LOG_MAX 4096

/* An op that records what it was told. */
typedef struct Probe {
        RingOp op;
        int results[LOG_MAX];
        size_t n;
        unsigned finals;
        bool keep; /* submit ring_recv() again after -ENOBUFS */
        unsigned refills;
        Ring *ring;
        int fd;
        Buf data;
} Probe;

static void probe_fn(RingOp *op, const RingResult *result)
{
        Probe *probe = CONTAINER_OF(op, Probe, op);

        assert_true(probe->n < LOG_MAX);
        assert_int_equal(op->pending, result->more);
        probe->results[probe->n++] = result->res;
        if (result->data.len)
                assert_int_equal(buf_append_slice(&probe->data, result->data), 0);
        if (!result->more)
                probe->finals++;
        if (!result->more && result->res == -ENOBUFS && probe->keep) {
                probe->refills++;
                ring_recv(probe->ring, op, probe->fd);
        }
}

static Probe *probe_new(Ring *ring)
{
        Probe *probe = calloc(1, sizeof *probe);

        assert_non_null(probe);
        probe->ring = ring;
        ring_op_init(&probe->op, probe_fn);
        return probe;
}

static Probe *probe_free(Probe *probe)
{
        buf_done(&probe->data);
        free(probe);
        return NULL;
}

static Ring *ring_of(unsigned entries, unsigned n_buffers, unsigned buffer_size)
{
        RingOptions options = {
                .entries = entries, .n_buffers = n_buffers, .buffer_size = buffer_size
        };
        Ring *ring = NULL;

        assert_int_equal(ring_new(&options, &ring), 0);
        return ring;
}

/* Runs until the op is idle, two seconds at most. */
static void run_until_idle(Ring *ring, RingOp *op)
{
        uint64_t end = clock_monotonic_ns() + 2 * NSEC_PER_SEC;

        while (op->pending && clock_monotonic_ns() < end)
                assert_int_equal(ring_run_once(ring, 50 * NSEC_PER_MSEC), 0);
        assert_false(op->pending);
}

static void run_until_n(Ring *ring, const Probe *probe, size_t n)
{
        uint64_t end = clock_monotonic_ns() + 2 * NSEC_PER_SEC;

        while (probe->n < n && clock_monotonic_ns() < end)
                assert_int_equal(ring_run_once(ring, 50 * NSEC_PER_MSEC), 0);
        assert_true(probe->n >= n);
}

static void run_for(Ring *ring, unsigned ms)
{
        uint64_t end = clock_monotonic_ns() + ms * NSEC_PER_MSEC;

        while (clock_monotonic_ns() < end)
                assert_int_equal(ring_run_once(ring, NSEC_PER_MSEC), 0);
}

static int listen_on_loopback(struct sockaddr_in *ret_address)
{
        struct sockaddr_in address = { .sin_family = AF_INET,
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t len = sizeof address;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(listen(fd, 128), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
        *ret_address = address;
        return fd;
}

static int client_of(const struct sockaddr_in *address)
{
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
        return fd;
}

static void pair_of(int fds[2])
{
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static void one_accept_takes_many_connections_and_tells_its_end(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *accepts = probe_new(ring);
        struct sockaddr_in address;
        int listener = listen_on_loopback(&address), clients[20];

        ring_accept(ring, &accepts->op, listener);
        for (size_t i = 0; i < ELEMENTSOF(clients); i++)
                clients[i] = client_of(&address);
        run_until_n(ring, accepts, ELEMENTSOF(clients));
        assert_true(accepts->op.pending);
        assert_int_equal(accepts->finals, 0);
        for (size_t i = 0; i < ELEMENTSOF(clients); i++) {
                assert_true(accepts->results[i] >= 0);
                assert_true(fcntl(accepts->results[i], F_GETFD) & FD_CLOEXEC);
                close(accepts->results[i]);
                close(clients[i]);
        }
        ring_cancel(ring, &accepts->op);
        run_until_idle(ring, &accepts->op);
        assert_int_equal(accepts->finals, 1);
        assert_int_equal(accepts->results[accepts->n - 1], -ECANCELED);
        close(listener);
        probe_free(accepts);
        ring_free(ring);
}

static void a_connection_that_came_before_the_cancel_is_not_lost(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *accepts = probe_new(ring);
        struct sockaddr_in address;
        int listener = listen_on_loopback(&address), client, n_fds = 0, fd;

        ring_accept(ring, &accepts->op, listener);
        assert_int_equal(ring_run_once(ring, 0), 0);
        client = client_of(&address);
        ring_cancel(ring, &accepts->op);
        run_until_idle(ring, &accepts->op);
        assert_int_equal(accepts->finals, 1);
        for (size_t i = 0; i < accepts->n; i++)
                if (accepts->results[i] >= 0) {
                        n_fds++;
                        close(accepts->results[i]);
                }
        /* What was not delivered waits in the backlog. */
        fcntl(listener, F_SETFL, O_NONBLOCK);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
                n_fds++;
                close(fd);
        }
        assert_int_equal(n_fds, 1);
        close(client);
        close(listener);
        probe_free(accepts);
        ring_free(ring);
}

static void cancel_at_first_fn(RingOp *op, const RingResult *result)
{
        Probe *probe = CONTAINER_OF(op, Probe, op);

        probe_fn(op, result);
        ring_cancel(probe->ring, op);
}

static void late_accepts_are_delivered_after_the_cancel(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *accepts = probe_new(ring);
        struct sockaddr_in address;
        int listener = listen_on_loopback(&address), clients[3];

        for (size_t i = 0; i < ELEMENTSOF(clients); i++)
                clients[i] = client_of(&address);
        accepts->op.fn = cancel_at_first_fn;
        ring_accept(ring, &accepts->op, listener);
        run_until_idle(ring, &accepts->op);
        assert_int_equal(accepts->n, ELEMENTSOF(clients) + 1);
        assert_int_equal(accepts->finals, 1);
        for (size_t i = 0; i < ELEMENTSOF(clients); i++) {
                assert_true(accepts->results[i] >= 0);
                close(accepts->results[i]);
                close(clients[i]);
        }
        assert_int_equal(accepts->results[ELEMENTSOF(clients)], -ECANCELED);
        close(listener);
        probe_free(accepts);
        ring_free(ring);
}

static void bytes_go_both_ways_over_a_connection_made_by_the_ring(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *accepts = probe_new(ring), *connects = probe_new(ring), *sends = probe_new(ring),
              *receives = probe_new(ring);
        struct sockaddr_in address;
        int listener = listen_on_loopback(&address), fd;

        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ring_accept(ring, &accepts->op, listener);
        {
                /* The address need not outlive the call. */
                struct sockaddr_in copy = address;

                ring_connect(ring, &connects->op, fd, (struct sockaddr *)&copy, sizeof copy);
                memset(&copy, 0, sizeof copy);
        }
        run_until_idle(ring, &connects->op);
        assert_int_equal(connects->results[0], 0);
        run_until_n(ring, accepts, 1);
        ring_recv(ring, &receives->op, accepts->results[0]);
        ring_send(ring, &sends->op, fd, "hello", 5, 0);
        run_until_n(ring, receives, 1);
        assert_int_equal(sends->results[0], 5);
        ring_send(ring, &sends->op, fd, " world", 6, 0);
        run_until_n(ring, receives, 2);
        assert_true(receives->op.pending);
        assert_true(slice_equal(buf_slice(&receives->data), SLICE("hello world")));
        ring_close(ring, fd);
        run_until_idle(ring, &receives->op);
        assert_int_equal(receives->results[receives->n - 1], 0);
        assert_int_equal(receives->finals, 1);
        ring_cancel(ring, &accepts->op);
        run_until_idle(ring, &accepts->op);
        close(accepts->results[0]);
        close(listener);
        probe_free(accepts);
        probe_free(connects);
        probe_free(sends);
        probe_free(receives);
        ring_free(ring);
}

static void a_refused_connect_says_so(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *connects = probe_new(ring);
        struct sockaddr_in address;
        int fd;

        /* Bound and closed: nobody listens on that port now. */
        close(listen_on_loopback(&address));
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ring_connect(ring, &connects->op, fd, (struct sockaddr *)&address, sizeof address);
        run_until_idle(ring, &connects->op);
        assert_int_equal(connects->results[0], -ECONNREFUSED);
        close(fd);
        probe_free(connects);
        ring_free(ring);
}

static void a_receive_out_of_buffers_ends_and_loses_nothing_when_submitted_again(void **state)
{
        enum { TOTAL = 64 * 1024 };
        Ring *ring = ring_of(0, 4, 512);
        Probe *receives = probe_new(ring);
        _cleanup_(free_p) char *sent = malloc(TOTAL);
        int fds[2];

        pair_of(fds);
        for (size_t i = 0; i < TOTAL; i++)
                sent[i] = (char)(i * 31 + i / 251);
        assert_int_equal(fd_write_all(fds[1], sent, TOTAL), 0);
        close(fds[1]);
        receives->fd = fds[0];
        receives->keep = true;
        ring_recv(ring, &receives->op, fds[0]);
        run_until_idle(ring, &receives->op);
        assert_int_equal(receives->data.len, TOTAL);
        assert_memory_equal(buf_data(&receives->data), sent, TOTAL);
        assert_true(receives->refills > 0);
        assert_int_equal(receives->finals, receives->refills + 1);
        close(fds[0]);
        probe_free(receives);
        ring_free(ring);
}

static void a_cancelled_receive_ends_once_and_a_second_cancel_does_no_harm(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *receives = probe_new(ring);
        char rest[16];
        ssize_t n;
        int fds[2];

        pair_of(fds);
        ring_cancel(ring, &receives->op);
        ring_recv(ring, &receives->op, fds[0]);
        ring_cancel(ring, &receives->op);
        ring_cancel(ring, &receives->op);
        run_until_idle(ring, &receives->op);
        assert_int_equal(receives->n, 1);
        assert_int_equal(receives->results[0], -ECANCELED);
        ring_cancel(ring, &receives->op);
        /* The cancels of before do not hit the next submission. */
        ring_recv(ring, &receives->op, fds[0]);
        run_for(ring, 10);
        assert_true(receives->op.pending);
        assert_int_equal(fd_write_all(fds[1], "late", 4), 0);
        run_until_n(ring, receives, 2);
        assert_int_equal(receives->results[1], 4);
        /* Bytes that arrive before a cancel are delivered or stay in the socket. */
        assert_int_equal(fd_write_all(fds[1], "more", 4), 0);
        ring_cancel(ring, &receives->op);
        run_until_idle(ring, &receives->op);
        n = recv(fds[0], rest, sizeof rest, MSG_DONTWAIT);
        if (n > 0)
                assert_int_equal(buf_append(&receives->data, rest, (size_t)n), 0);
        assert_true(slice_equal(buf_slice(&receives->data), SLICE("latemore")));
        close(fds[0]);
        close(fds[1]);
        probe_free(receives);
        ring_free(ring);
}

static void a_full_submission_queue_makes_room(void **state)
{
        enum { N = 100 };
        Ring *ring = ring_of(4, 0, 0);
        Probe *probes[N];
        int fds[N][2];
        char byte[N];

        for (size_t i = 0; i < N; i++) {
                pair_of(fds[i]);
                probes[i] = probe_new(ring);
                ring_read(ring, &probes[i]->op, fds[i][0], &byte[i], 1, 0);
        }
        for (size_t i = 0; i < N; i++)
                assert_int_equal(fd_write_all(fds[i][1], &(char){ (char)i }, 1), 0);
        for (size_t i = 0; i < N; i++) {
                run_until_idle(ring, &probes[i]->op);
                assert_int_equal(probes[i]->n, 1);
                assert_int_equal(probes[i]->results[0], 1);
                assert_int_equal(byte[i], (char)i);
                ring_close(ring, fds[i][0]);
                ring_close(ring, fds[i][1]);
                probe_free(probes[i]);
        }
        run_for(ring, 10);
        assert_int_equal(fcntl(fds[0][0], F_GETFD), -1);
        ring_free(ring);
}

static void poll_tells_readiness_once_or_again_and_again(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *once = probe_new(ring), *many = probe_new(ring);
        int fds[2];
        char c;

        pair_of(fds);
        ring_poll(ring, &once->op, fds[0], POLLIN, false);
        ring_poll(ring, &many->op, fds[0], POLLIN, true);
        for (unsigned i = 1; i <= 3; i++) {
                assert_int_equal(fd_write_all(fds[1], "x", 1), 0);
                run_until_n(ring, many, i);
                assert_true(many->results[i - 1] & POLLIN);
                assert_int_equal(read(fds[0], &c, 1), 1);
        }
        assert_int_equal(once->n, 1);
        assert_true(once->results[0] & POLLIN);
        assert_false(once->op.pending);
        assert_true(many->op.pending);
        ring_cancel(ring, &many->op);
        run_until_idle(ring, &many->op);
        assert_int_equal(many->results[many->n - 1], -ECANCELED);
        close(fds[0]);
        close(fds[1]);
        probe_free(once);
        probe_free(many);
        ring_free(ring);
}

static void messages_carry_descriptors(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *sends = probe_new(ring), *receives = probe_new(ring);
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } out = {}, in = {};
        char text[8] = {}, name[] = "fd";
        struct iovec out_vector = { name, 2 }, in_vector = { text, sizeof text };
        struct msghdr message = { .msg_iov = &out_vector,
                .msg_iovlen = 1,
                .msg_control = &out,
                .msg_controllen = sizeof out };
        struct msghdr received = { .msg_iov = &in_vector,
                .msg_iovlen = 1,
                .msg_control = &in,
                .msg_controllen = sizeof in };
        int fds[2], sent = open("/dev/null", O_RDONLY | O_CLOEXEC), got;

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
        out.header = (struct cmsghdr){
                .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS
        };
        memcpy(CMSG_DATA(&out.header), &sent, sizeof sent);
        ring_recvmsg(ring, &receives->op, fds[0], &received, MSG_CMSG_CLOEXEC);
        ring_sendmsg(ring, &sends->op, fds[1], &message, 0);
        run_until_idle(ring, &sends->op);
        run_until_idle(ring, &receives->op);
        assert_int_equal(receives->results[0], 2);
        assert_string_equal(text, "fd");
        assert_int_equal(in.header.cmsg_type, SCM_RIGHTS);
        memcpy(&got, CMSG_DATA(&in.header), sizeof got);
        assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
        close(got);
        close(sent);
        close(fds[0]);
        close(fds[1]);
        probe_free(sends);
        probe_free(receives);
        ring_free(ring);
}

static void a_send_to_a_closed_peer_is_an_error_and_no_signal(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *sends = probe_new(ring);
        int fds[2];

        pair_of(fds);
        close(fds[1]);
        ring_send(ring, &sends->op, fds[0], "x", 1, 0);
        run_until_idle(ring, &sends->op);
        assert_int_equal(sends->results[0], -EPIPE);
        close(fds[0]);
        probe_free(sends);
        ring_free(ring);
}

static void files_are_read_and_written_at_offsets(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *io = probe_new(ring);
        char path[] = "/tmp/durabled-loop-XXXXXX", text[8] = {};
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        unlink(path);
        ring_write(ring, &io->op, fd, "abcdef", 6, 10, false);
        run_until_idle(ring, &io->op);
        assert_int_equal(io->results[0], 6);
        ring_read(ring, &io->op, fd, text, 4, 12);
        run_until_idle(ring, &io->op);
        assert_int_equal(io->results[1], 4);
        assert_string_equal(text, "cdef");
        close(fd);
        probe_free(io);
        ring_free(ring);
}

static void free_fn(RingOp *op, const RingResult *result)
{
        assert_false(result->more);
        free(op);
}

static void an_op_may_be_freed_inside_its_last_call(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        RingOp *op = calloc(1, sizeof *op);
        int fds[2];

        pair_of(fds);
        ring_op_init(op, free_fn);
        ring_recv(ring, op, fds[0]);
        assert_int_equal(ring_run_once(ring, 0), 0);
        ring_cancel(ring, op);
        run_for(ring, 10);
        ring_free(ring);
        close(fds[0]);
        close(fds[1]);
}

static void a_ring_freed_with_ops_in_flight_writes_to_nothing_later(void **state)
{
        Ring *ring = ring_of(0, 0, 0);
        Probe *accepts = probe_new(ring), *reads = probe_new(ring);
        struct sockaddr_in address;
        int listener = listen_on_loopback(&address), client = client_of(&address), fds[2];
        char *memory = strdup("untouched");

        pair_of(fds);
        ring_read(ring, &reads->op, fds[0], memory, 4, 0);
        ring_accept(ring, &accepts->op, listener);
        assert_int_equal(ring_run_once(ring, 0), 0);
        for (size_t i = 0; i < accepts->n; i++)
                close(accepts->results[i]);
        probe_free(accepts);
        probe_free(reads);
        ring_free(ring);
        assert_int_equal(fd_write_all(fds[1], "late", 4), 0);
        usleep(10000);
        assert_string_equal(memory, "untouched");
        free(memory);
        close(fds[0]);
        close(fds[1]);
        close(client);
        close(listener);
}

static void wrong_sizes_are_refused(void **state)
{
        Ring *ring = NULL;

        assert_int_equal(ring_new(&(RingOptions){ .entries = 3 }, &ring), -EINVAL);
        assert_int_equal(ring_new(&(RingOptions){ .n_buffers = 100 }, &ring), -EINVAL);
        assert_int_equal(ring_new(&(RingOptions){ .n_buffers = 65536 }, &ring), -EINVAL);
        assert_null(ring);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(one_accept_takes_many_connections_and_tells_its_end),
                cmocka_unit_test(a_connection_that_came_before_the_cancel_is_not_lost),
                cmocka_unit_test(late_accepts_are_delivered_after_the_cancel),
                cmocka_unit_test(bytes_go_both_ways_over_a_connection_made_by_the_ring),
                cmocka_unit_test(a_refused_connect_says_so),
                cmocka_unit_test(
                        a_receive_out_of_buffers_ends_and_loses_nothing_when_submitted_again),
                cmocka_unit_test(a_cancelled_receive_ends_once_and_a_second_cancel_does_no_harm),
                cmocka_unit_test(a_full_submission_queue_makes_room),
                cmocka_unit_test(poll_tells_readiness_once_or_again_and_again),
                cmocka_unit_test(messages_carry_descriptors),
                cmocka_unit_test(a_send_to_a_closed_peer_is_an_error_and_no_signal),
                cmocka_unit_test(files_are_read_and_written_at_offsets),
                cmocka_unit_test(an_op_may_be_freed_inside_its_last_call),
                cmocka_unit_test(a_ring_freed_with_ops_in_flight_writes_to_nothing_later),
                cmocka_unit_test(wrong_sizes_are_refused),
        };

        return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
