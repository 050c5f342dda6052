/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/loop/pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

#define N_WORKS 64
#define N_THREADS 3

typedef struct Test Test;

typedef struct Item {
        PoolWork work;
        Test *test;
        unsigned number, result;
        bool signals_are_blocked;
} Item;

struct Test {
        Ring *ring;
        Pool *pool;
        pthread_t loop;
        Item items[N_WORKS];
        unsigned n_done, wrong, again;
        atomic_uint running, most, begun, disorder;
};

static void item_run(PoolWork *work)
{
        Item *item = CONTAINER_OF(work, Item, work);
        Test *test = item->test;
        unsigned running = atomic_fetch_add(&test->running, 1) + 1;
        unsigned most = atomic_load(&test->most);
        sigset_t set;

        while (running > most && !atomic_compare_exchange_weak(&test->most, &most, running))
                ;
        /* Pieces that run side by side may overtake each other by as many as there are threads. */
        if (atomic_fetch_add(&test->begun, 1) + N_THREADS < item->number)
                atomic_fetch_add(&test->disorder, 1);
        pthread_sigmask(SIG_BLOCK, NULL, &set);
        item->signals_are_blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGUSR1);
        usleep(500);
        item->result = item->number * 2;
        atomic_fetch_sub(&test->running, 1);
}

static void item_done(PoolWork *work)
{
        Item *item = CONTAINER_OF(work, Item, work);
        Test *test = item->test;

        if (item->result != item->number * 2 || !item->signals_are_blocked ||
                !pthread_equal(pthread_self(), test->loop))
                test->wrong++;
        if (test->again) {
                test->again--;
                assert_int_equal(pool_push(test->pool, work), 0);
                return;
        }
        if (++test->n_done == N_WORKS)
                ring_stop(test->ring);
}

static void work_runs_on_threads_in_order_and_ends_on_the_loop(void **state)
{
        Test test = { .loop = pthread_self(), .again = 20 };

        assert_int_equal(ring_new(&(RingOptions){ .entries = 8, .n_buffers = 2 }, &test.ring), 0);
        assert_int_equal(pool_new(test.ring, N_THREADS, &test.pool), 0);
        for (unsigned i = 0; i < N_WORKS; i++) {
                test.items[i].test = &test;
                test.items[i].number = i;
                pool_work_init(&test.items[i].work, item_run, item_done);
                assert_int_equal(pool_push(test.pool, &test.items[i].work), 0);
        }
        assert_int_equal(ring_run(test.ring), 0);
        pool_free(test.pool);
        ring_free(test.ring);
        assert_int_equal(test.n_done, N_WORKS);
        assert_int_equal(test.wrong, 0);
        assert_int_equal(atomic_load(&test.disorder), 0);
        assert_true(atomic_load(&test.most) > 1);
        assert_true(atomic_load(&test.most) <= N_THREADS);
}

static void a_pool_without_work_has_no_threads_to_wait_for(void **state)
{
        Ring *ring;
        Pool *pool;

        assert_int_equal(ring_new(&(RingOptions){ .entries = 8, .n_buffers = 2 }, &ring), 0);
        assert_int_equal(pool_new(ring, 1, &pool), 0);
        assert_null(pool_free(pool));
        ring_free(ring);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(work_runs_on_threads_in_order_and_ends_on_the_loop),
                cmocka_unit_test(a_pool_without_work_has_no_threads_to_wait_for),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
