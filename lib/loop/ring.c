/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/loop/ring-private.h"

#include "lib/base/file.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#define DEFAULT_ENTRIES 512u
#define DEFAULT_BUFFERS 256u
#define DEFAULT_BUFFER_SIZE 16384u
#define MAX_BUFFERS 32768u
/* A multishot op completes many times for one submission. */
#define CQ_FACTOR 8u
#define FREE_WAITS 100
#define FREE_WAIT_NS (20 * NSEC_PER_MSEC)

static int ring_setup(Ring *ring, unsigned entries)
{
        static const unsigned flags[] = {
                IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
                0,
        };
        int r = -EINVAL;

        for (size_t i = 0; i < ELEMENTSOF(flags) && r == -EINVAL; i++) {
                struct io_uring_params params = {
                        .flags = flags[i] | IORING_SETUP_CQSIZE,
                        .cq_entries = entries * CQ_FACTOR,
                };

                r = io_uring_queue_init_params(entries, &ring->uring, &params);
        }
        return r;
}

static void *ring_map(size_t size)
{
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);

        return memory == MAP_FAILED ? NULL : memory;
}

static void ring_give_buffer(Ring *ring, unsigned id, int offset)
{
        io_uring_buf_ring_add(ring->buf_ring, ring->buffers + (size_t)id * ring->buffer_size,
                ring->buffer_size, (unsigned short)id, io_uring_buf_ring_mask(ring->n_buffers),
                offset);
}

static int ring_setup_buffers(Ring *ring)
{
        struct io_uring_buf_reg registration = { .ring_entries = ring->n_buffers };
        int r;

        ring->buf_ring_bytes = ring->n_buffers * sizeof(struct io_uring_buf);
        ring->buffers_bytes = (size_t)ring->n_buffers * ring->buffer_size;
        ring->buf_ring = ring_map(ring->buf_ring_bytes);
        ring->buffers = ring_map(ring->buffers_bytes);
        if (!ring->buf_ring || !ring->buffers)
                return -ENOMEM;
        registration.ring_addr = (uintptr_t)ring->buf_ring;
        r = io_uring_register_buf_ring(&ring->uring, &registration, 0);
        if (r < 0)
                return r;
        io_uring_buf_ring_init(ring->buf_ring);
        for (unsigned i = 0; i < ring->n_buffers; i++)
                ring_give_buffer(ring, i, (int)i);
        io_uring_buf_ring_advance(ring->buf_ring, (int)ring->n_buffers);
        return 0;
}

static void ring_on_wake(RingOp *op, const RingResult *result)
{
        Ring *ring = CONTAINER_OF(op, Ring, wake);

        ring_read(ring, op, ring->event_fd, &ring->event_value, sizeof ring->event_value, 0);
}

static void ring_unmap(Ring *ring)
{
        if (ring->buf_ring)
                munmap(ring->buf_ring, ring->buf_ring_bytes);
        if (ring->buffers)
                munmap(ring->buffers, ring->buffers_bytes);
        free(ring->addresses);
        timer_done(ring);
        free(ring);
}

static int ring_init(Ring *ring, unsigned entries)
{
        int r = ring_setup_buffers(ring);

        if (r < 0)
                return r;
        ring->addresses = calloc(entries, sizeof *ring->addresses);
        if (!ring->addresses)
                return -ENOMEM;
        ring->event_fd = eventfd(0, EFD_CLOEXEC);
        if (ring->event_fd < 0)
                return -errno;
        ring_op_init(&ring->wake, ring_on_wake);
        ring_on_wake(&ring->wake, NULL);
        return 0;
}

static bool is_power_of_two(unsigned n)
{
        return n != 0 && (n & (n - 1)) == 0;
}

int ring_new(const RingOptions *options, Ring **ret)
{
        unsigned entries = options && options->entries ? options->entries : DEFAULT_ENTRIES;
        Ring *ring;
        int r;

        ring = aligned_alloc(_Alignof(Ring), sizeof *ring);
        if (!ring)
                return -ENOMEM;
        memset(ring, 0, sizeof *ring);
        ring->event_fd = -1;
        ring->deferred_tail = &ring->deferred;
        ring->refused_tail = &ring->refused;
        ring->now = clock_monotonic_ns();
        ring->n_buffers = options && options->n_buffers ? options->n_buffers : DEFAULT_BUFFERS;
        ring->buffer_size =
                options && options->buffer_size ? options->buffer_size : DEFAULT_BUFFER_SIZE;
        if (!is_power_of_two(entries) || !is_power_of_two(ring->n_buffers) ||
                ring->n_buffers > MAX_BUFFERS)
                r = -EINVAL;
        else
                r = ring_setup(ring, entries);
        if (r < 0) {
                ring_unmap(ring);
                return r;
        }
        r = ring_init(ring, entries);
        if (r < 0) {
                io_uring_queue_exit(&ring->uring);
                close_p(&ring->event_fd);
                ring_unmap(ring);
                return r;
        }
        *ret = ring;
        return 0;
}

/* Cancels what is left and waits for it, so that the kernel writes to no memory of ours later. */
static void ring_drain(Ring *ring)
{
        struct io_uring_sqe *sqe = op_get_sqe(ring);

        if (!sqe)
                return;
        io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
        io_uring_sqe_set_data64(sqe, TAG_INTERNAL);
        for (int i = 0; i < FREE_WAITS && ring->n_pending > 0; i++) {
                struct __kernel_timespec timeout = { .tv_nsec = FREE_WAIT_NS };
                struct io_uring_cqe *cqe = NULL;

                (void)io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, &timeout, NULL);
                while (io_uring_peek_cqe(&ring->uring, &cqe) == 0 && cqe) {
                        uint64_t tag = cqe->user_data & TAG_MASK;

                        /* The op may be gone: nobody else can close this one. */
                        if (tag == TAG_ACCEPT && cqe->res >= 0)
                                close(cqe->res);
                        if (tag != TAG_INTERNAL && !(cqe->flags & IORING_CQE_F_MORE))
                                ring->n_pending--;
                        io_uring_cqe_seen(&ring->uring, cqe);
                }
        }
}

Ring *ring_free(Ring *ring)
{
        if (!ring)
                return NULL;
        ring_drain(ring);
        io_uring_queue_exit(&ring->uring);
        close_p(&ring->event_fd);
        ring_unmap(ring);
        return NULL;
}

static void ring_deliver(Ring *ring, const struct io_uring_cqe *cqe)
{
        RingOp *op = (RingOp *)(uintptr_t)(cqe->user_data & ~(uint64_t)TAG_MASK);
        RingResult result = { .res = cqe->res, .more = cqe->flags & IORING_CQE_F_MORE };
        bool has_buffer = cqe->flags & IORING_CQE_F_BUFFER;
        unsigned id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

        if ((cqe->user_data & TAG_MASK) == TAG_INTERNAL)
                return;
        if (has_buffer && cqe->res > 0)
                result.data =
                        slice_of(ring->buffers + (size_t)id * ring->buffer_size, (size_t)cqe->res);
        if (!result.more) {
                /* A worker thread of the kernel that is cancelled in a call says "interrupted". */
                if (result.res == -EINTR && (op->kind & KIND_CANCELLED))
                        result.res = -ECANCELED;
                if (op->kind & KIND_CANCEL_QUEUED)
                        op_forget_cancel(ring, op);
                ring->n_pending--;
                op->pending = false;
        }
        op->fn(op, &result);
        if (has_buffer) {
                ring_give_buffer(ring, id, 0);
                io_uring_buf_ring_advance(ring->buf_ring, 1);
        }
}

static void ring_deliver_all(Ring *ring)
{
        /* Those that are there now: what fn brings about comes after the timers and posts. */
        for (unsigned n = io_uring_cq_ready(&ring->uring); n > 0; n--) {
                struct io_uring_cqe *cqe = NULL, copy;

                if (io_uring_peek_cqe(&ring->uring, &cqe) < 0 || !cqe)
                        break;
                copy = (struct io_uring_cqe){
                        .user_data = cqe->user_data, .res = cqe->res, .flags = cqe->flags
                };
                io_uring_cqe_seen(&ring->uring, cqe);
                ring_deliver(ring, &copy);
        }
}

static void ring_run_posts(Ring *ring)
{
        RingPost *stack, *queue = NULL;

        /* Without a look first, every iteration would take the cache line from the posters. */
        if (!atomic_load_explicit(&ring->posts, memory_order_relaxed))
                return;
        stack = atomic_exchange_explicit(&ring->posts, NULL, memory_order_acquire);
        while (stack) {
                RingPost *next = stack->next;

                stack->next = queue;
                queue = stack;
                stack = next;
        }
        while (queue) {
                RingPost *post = queue;

                queue = post->next;
                post->next = NULL;
                post->fn(post);
        }
}

static void ring_run_deferred(Ring *ring)
{
        RingPost *queue = ring->deferred;

        ring->deferred = NULL;
        ring->deferred_tail = &ring->deferred;
        while (queue) {
                RingPost *post = queue;

                queue = post->next;
                post->next = NULL;
                post->fn(post);
        }
}

/* How long this iteration may sleep. */
static uint64_t ring_sleep_ns(const Ring *ring, uint64_t timeout_ns)
{
        uint64_t deadline = timer_next_deadline(ring), now;

        if (timeout_ns == 0 || ring->stop || ring->deferred || ring->refused || ring->cancels)
                return 0;
        if (deadline == UINT64_MAX)
                return timeout_ns;
        now = clock_monotonic_ns();
        return deadline <= now ? 0 : MIN(timeout_ns, deadline - now);
}

static int ring_sleep(Ring *ring, uint64_t ns)
{
        struct __kernel_timespec timeout = {
                .tv_sec = (long long)(ns / NSEC_PER_SEC),
                .tv_nsec = (long long)(ns % NSEC_PER_SEC),
        };
        struct io_uring_cqe *cqe = NULL;
        int r;

        /*
         * Either the poster sees sleeping and writes the eventfd, or we see its post here: both
         * sides store first and load then, in the one order of sequential consistency.
         */
        atomic_store(&ring->sleeping, true);
        if (atomic_load(&ring->posts)) {
                atomic_store_explicit(&ring->sleeping, false, memory_order_relaxed);
                return io_uring_submit_and_get_events(&ring->uring);
        }
        r = io_uring_submit_and_wait_timeout(
                &ring->uring, &cqe, 1, ns == UINT64_MAX ? NULL : &timeout, NULL);
        atomic_store_explicit(&ring->sleeping, false, memory_order_relaxed);
        return r;
}

int ring_run_once(Ring *ring, uint64_t timeout_ns)
{
        uint64_t ns;
        int r;

        ring_run_deferred(ring);
        op_retry_cancels(ring);
        ns = ring_sleep_ns(ring, timeout_ns);
        if (ns > 0)
                r = ring_sleep(ring, ns);
        else
                r = io_uring_submit_and_get_events(&ring->uring);
        /* Out of memory for now, or an overflow: what is there is delivered, the rest goes later.
         */
        if (r < 0 && r != -ETIME && r != -EINTR && r != -EAGAIN && r != -EBUSY)
                return r;
        ring->now = clock_monotonic_ns();
        ring_deliver_all(ring);
        op_complete_refused(ring);
        timer_fire(ring);
        ring_run_posts(ring);
        ring_run_deferred(ring);
        return 0;
}

int ring_run(Ring *ring)
{
        int r = 0;

        while (!ring->stop && r >= 0)
                r = ring_run_once(ring, UINT64_MAX);
        ring->stop = false;
        if (r < 0)
                return r;
        /* The last closes and sends still go out. */
        r = io_uring_submit(&ring->uring);
        return r < 0 ? r : 0;
}

void ring_stop(Ring *ring)
{
        ring->stop = true;
}

uint64_t ring_now(Ring *ring)
{
        return ring->now;
}

void ring_post_quietly(Ring *ring, RingPost *post)
{
        RingPost *head = atomic_load_explicit(&ring->posts, memory_order_relaxed);

        do
                post->next = head;
        while (!atomic_compare_exchange_weak(&ring->posts, &head, post));
}

void ring_wake(Ring *ring)
{
        static const uint64_t one = 1;

        /* One write for each sleep, so the counter never fills and the write never fails. */
        if (atomic_load(&ring->sleeping) && atomic_exchange(&ring->sleeping, false))
                dd_assert(write(ring->event_fd, &one, sizeof one) == sizeof one);
}

void ring_post(Ring *ring, RingPost *post)
{
        ring_post_quietly(ring, post);
        ring_wake(ring);
}

void ring_defer(Ring *ring, RingPost *post)
{
        post->next = NULL;
        *ring->deferred_tail = post;
        ring->deferred_tail = &post->next;
}
