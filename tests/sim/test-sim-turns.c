/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/turns.h"

#include "lib/base/macro.h"

#include <pthread.h>
#include <stdarg.h>

#include <setjmp.h>

#include <cmocka.h>

#define STEPS 200

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static unsigned order[4 * STEPS], n_order;
static unsigned inside, filled;

static void count(void *data)
{
        unsigned number = *(const unsigned *)data;

        for (unsigned i = 0; i < STEPS; i++) {
                pthread_mutex_lock(&mutex);
                assert_int_equal(inside++, 0);
                turns_yield();
                order[n_order++] = number;
                inside--;
                pthread_mutex_unlock(&mutex);
                turns_yield();
        }
}

static void run(uint64_t seed, unsigned *ret)
{
        static const unsigned numbers[] = { 0, 1, 2, 3 };
        TurnsActor actors[4];
        Rng rng = { seed };

        n_order = 0;
        for (size_t i = 0; i < 4; i++)
                actors[i] = (TurnsActor){ count, (void *)(uintptr_t)&numbers[i], NULL };
        assert_int_equal(turns_run(&rng, actors, ELEMENTSOF(actors), 300), 0);
        assert_int_equal(n_order, 4 * STEPS);
        memcpy(ret, order, sizeof order);
}

static void the_same_seed_gives_the_same_order(void **state)
{
        static unsigned first[4 * STEPS], again[4 * STEPS], other[4 * STEPS];

        run(1, first);
        run(1, again);
        run(2, other);
        assert_memory_equal(first, again, sizeof first);
        assert_true(memcmp(first, other, sizeof first) != 0);
}

static void produce(void *data)
{
        for (unsigned i = 0; i < STEPS; i++) {
                pthread_mutex_lock(&mutex);
                while (filled > 0)
                        pthread_cond_wait(&cond, &mutex);
                filled = 1;
                pthread_cond_signal(&cond);
                pthread_mutex_unlock(&mutex);
        }
}

static void consume(void *data)
{
        for (unsigned i = 0; i < STEPS; i++) {
                pthread_mutex_lock(&mutex);
                while (filled == 0)
                        pthread_cond_wait(&cond, &mutex);
                filled = 0;
                pthread_cond_signal(&cond);
                pthread_mutex_unlock(&mutex);
        }
}

static void a_wait_for_a_condition_gives_the_turn_away(void **state)
{
        const TurnsActor actors[] = { { produce, NULL, NULL }, { consume, NULL, NULL } };
        Rng rng = { 7 };

        assert_int_equal(turns_run(&rng, actors, ELEMENTSOF(actors), 0), 0);
        assert_int_equal(filled, 0);
        assert_false(turns_is_actor());
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_same_seed_gives_the_same_order),
                cmocka_unit_test(a_wait_for_a_condition_gives_the_turn_away),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
