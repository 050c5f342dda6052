/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The ring where the kernel is old or out of memory: the linker puts our versions of two calls of
 * liburing before the library's.
 */

#include "lib/base/file.h"
#include "lib/loop/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>

#include <cmocka.h>

struct io_uring;
struct io_uring_params;

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __real_io_uring_queue_init_params(
        unsigned entries, struct io_uring *ring, struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(
        unsigned entries, struct io_uring *ring, struct io_uring_params *params);

static bool out_of_memory;
static unsigned refuse_setups, setups;
static int setup_error = -EINVAL;

int __wrap_io_uring_submit(struct io_uring *ring)
{
        return out_of_memory ? -EAGAIN : __real_io_uring_submit(ring);
}

int __wrap_io_uring_queue_init_params(
        unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
        setups++;
        if (refuse_setups > 0) {
                refuse_setups--;
                return setup_error;
        }
        return __real_io_uring_queue_init_params(entries, ring, params);
}

typedef struct Probe {
        RingOp op;
        int result;
        unsigned n;
} Probe;

static void probe_fn(RingOp *op, const RingResult *result)
{
        Probe *probe = CONTAINER_OF(op, Probe, op);

        assert_false(op->pending && !result->more);
        probe->result = result->res;
        probe->n++;
}

typedef struct Stopper {
        RingPost post;
        RingTimer timer;
        Ring *ring;
        unsigned n;
} Stopper;

static void stopper_timer(RingTimer *timer)
{
        Stopper *stopper = CONTAINER_OF(timer, Stopper, timer);

        stopper->n++;
        ring_post(stopper->ring, &stopper->post);
}

static void stopper_post(RingPost *post)
{
        Stopper *stopper = CONTAINER_OF(post, Stopper, post);

        stopper->n++;
        ring_stop(stopper->ring);
}

static void older_kernels_get_fewer_flags_and_everything_still_works(void **state)
{
        for (unsigned refused = 0; refused <= 2; refused++) {
                Stopper stopper = { .post.fn = stopper_post };
                Probe receives = {};
                Ring *ring = NULL;
                int fds[2];

                refuse_setups = refused;
                setups = 0;
                assert_int_equal(ring_new(NULL, &ring), 0);
                assert_int_equal(setups, refused + 1);
                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
                ring_op_init(&receives.op, probe_fn);
                ring_recv(ring, &receives.op, fds[0]);
                assert_int_equal(fd_write_all(fds[1], "hello", 5), 0);
                stopper.ring = ring;
                ring_timer_init(&stopper.timer, stopper_timer);
                assert_int_equal(
                        ring_timer_arm(ring, &stopper.timer, ring_now(ring) + 5 * NSEC_PER_MSEC),
                        0);
                assert_int_equal(ring_run(ring), 0);
                assert_int_equal(stopper.n, 2);
                assert_int_equal(receives.n, 1);
                assert_int_equal(receives.result, 5);
                ring_free(ring);
                close(fds[0]);
                close(fds[1]);
        }
}

static void an_absent_or_forbidden_io_uring_is_told_at_once(void **state)
{
        static const int errors[] = { -ENOSYS, -EPERM, -ENOMEM };
        Ring *ring = NULL;

        for (size_t i = 0; i < ELEMENTSOF(errors); i++) {
                refuse_setups = 1;
                setups = 0;
                setup_error = errors[i];
                assert_int_equal(ring_new(NULL, &ring), errors[i]);
                assert_int_equal(setups, 1);
        }
        refuse_setups = 9;
        setup_error = -EINVAL;
        assert_int_equal(ring_new(NULL, &ring), -EINVAL);
        refuse_setups = 0;
        assert_null(ring);
}

/* A ring of two entries, both taken: one by the ring itself, one by op. */
static Ring *full_ring(Probe *op, int fd)
{
        RingOptions options = { .entries = 2 };
        Ring *ring = NULL;

        assert_int_equal(ring_new(&options, &ring), 0);
        ring_op_init(&op->op, probe_fn);
        ring_recv(ring, &op->op, fd);
        return ring;
}

static void an_op_without_room_completes_in_the_next_iteration(void **state)
{
        Probe first = {}, second = {}, third = {};
        Ring *ring;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        ring = full_ring(&first, fds[0]);
        ring_op_init(&second.op, probe_fn);
        ring_op_init(&third.op, probe_fn);
        out_of_memory = true;
        ring_send(ring, &second.op, fds[1], "x", 1, 0);
        ring_accept(ring, &third.op, fds[1]);
        ring_cancel(ring, &third.op);
        out_of_memory = false;
        assert_true(second.op.pending);
        assert_int_equal(second.n, 0);
        assert_int_equal(ring_run_once(ring, 10 * NSEC_PER_SEC), 0);
        assert_int_equal(second.n, 1);
        assert_int_equal(second.result, -EAGAIN);
        assert_false(second.op.pending);
        assert_int_equal(third.result, -ECANCELED);
        assert_true(first.op.pending);
        ring_send(ring, &second.op, fds[1], "x", 1, 0);
        assert_int_equal(ring_run_once(ring, 0), 0);
        assert_int_equal(ring_run_once(ring, 0), 0);
        assert_int_equal(second.result, 1);
        assert_int_equal(first.result, 1);
        ring_free(ring);
        close(fds[0]);
        close(fds[1]);
}

static void a_cancel_without_room_is_tried_again(void **state)
{
        Probe op = {};
        Ring *ring;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        ring = full_ring(&op, fds[0]);
        out_of_memory = true;
        ring_cancel(ring, &op.op);
        ring_cancel(ring, &op.op);
        assert_int_equal(ring_run_once(ring, 0), 0);
        out_of_memory = false;
        assert_true(op.op.pending);
        for (int i = 0; i < 10 && op.op.pending; i++)
                assert_int_equal(ring_run_once(ring, NSEC_PER_MSEC), 0);
        assert_int_equal(op.n, 1);
        assert_int_equal(op.result, -ECANCELED);
        ring_free(ring);
        close(fds[0]);
        close(fds[1]);
}

static void an_op_that_ends_before_its_cancel_found_room_is_forgotten(void **state)
{
        Probe *op = calloc(1, sizeof *op);
        Ring *ring;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        close(fds[1]);
        ring = full_ring(op, fds[0]);
        out_of_memory = true;
        ring_cancel(ring, &op->op);
        assert_int_equal(ring_run_once(ring, 0), 0);
        out_of_memory = false;
        assert_false(op->op.pending);
        assert_int_equal(op->result, 0);
        /* Nothing of the ring's points to it any more. */
        free(op);
        assert_int_equal(ring_run_once(ring, 0), 0);
        ring_free(ring);
        close(fds[0]);
}

static void a_close_without_room_closes_at_once(void **state)
{
        Probe op = {};
        Ring *ring;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        ring = full_ring(&op, fds[0]);
        out_of_memory = true;
        ring_close(ring, fds[1]);
        out_of_memory = false;
        assert_int_equal(fcntl(fds[1], F_GETFD), -1);
        ring_free(ring);
        close(fds[0]);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(older_kernels_get_fewer_flags_and_everything_still_works),
                cmocka_unit_test(an_absent_or_forbidden_io_uring_is_told_at_once),
                cmocka_unit_test(an_op_without_room_completes_in_the_next_iteration),
                cmocka_unit_test(a_cancel_without_room_is_tried_again),
                cmocka_unit_test(an_op_that_ends_before_its_cancel_found_room_is_forgotten),
                cmocka_unit_test(a_close_without_room_closes_at_once),
        };

        return cmocka_run_group_tests_name("fault", tests, NULL, NULL);
}
