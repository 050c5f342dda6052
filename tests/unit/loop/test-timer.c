/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/loop/ring.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define N_TIMERS 2000

typedef struct Clock Clock;

typedef struct Alarm {
        RingTimer timer;
        Clock *clock;
        unsigned fired;
        unsigned rank; /* which of all to fire it was */
} Alarm;

struct Clock {
        Ring *ring;
        uint64_t last;
        unsigned fired, early, disordered, stop_at;
};

static void alarm_fn(RingTimer *timer)
{
        Alarm *alarm = CONTAINER_OF(timer, Alarm, timer);
        Clock *clock = alarm->clock;

        assert_false(ring_timer_is_armed(timer));
        if (clock_monotonic_ns() < timer->deadline || ring_now(clock->ring) < timer->deadline)
                clock->early++;
        if (timer->deadline < clock->last)
                clock->disordered++;
        clock->last = timer->deadline;
        alarm->fired++;
        alarm->rank = clock->fired;
        if (++clock->fired == clock->stop_at)
                ring_stop(clock->ring);
}

static uint32_t next_random(uint32_t *seed)
{
        *seed = *seed * 1664525u + 1013904223u;
        return *seed >> 8;
}

static void timers_fire_in_order_and_never_early(void **state)
{
        Alarm *alarms = calloc(N_TIMERS, sizeof *alarms);
        Clock clock = {};
        uint32_t seed = 7;
        uint64_t start;
        unsigned disarmed = 0;

        assert_int_equal(ring_new(NULL, &clock.ring), 0);
        start = ring_now(clock.ring);
        for (unsigned i = 0; i < N_TIMERS; i++) {
                alarms[i].clock = &clock;
                ring_timer_init(&alarms[i].timer, alarm_fn);
                assert_int_equal(ring_timer_arm(clock.ring, &alarms[i].timer,
                                         start + next_random(&seed) % (200 * NSEC_PER_MSEC)),
                        0);
        }
        for (unsigned i = 0; i < N_TIMERS; i += 3)
                assert_int_equal(ring_timer_arm(clock.ring, &alarms[i].timer,
                                         start + next_random(&seed) % (200 * NSEC_PER_MSEC)),
                        0);
        for (unsigned i = 1; i < N_TIMERS; i += 5, disarmed++) {
                ring_timer_disarm(clock.ring, &alarms[i].timer);
                ring_timer_disarm(clock.ring, &alarms[i].timer);
        }
        clock.stop_at = N_TIMERS - disarmed;
        assert_int_equal(ring_run(clock.ring), 0);
        for (unsigned i = 0; i < N_TIMERS; i++)
                assert_int_equal(alarms[i].fired, i % 5 == 1 ? 0 : 1);
        assert_int_equal(clock.early, 0);
        assert_int_equal(clock.disordered, 0);
        ring_free(clock.ring);
        free(alarms);
}

static void a_timer_sets_the_length_of_the_sleep(void **state)
{
        Clock clock = { .stop_at = 1 };
        Alarm alarm = { .clock = &clock };
        uint64_t start = clock_monotonic_ns(), took;

        assert_int_equal(ring_new(NULL, &clock.ring), 0);
        ring_timer_init(&alarm.timer, alarm_fn);
        assert_int_equal(ring_timer_arm(clock.ring, &alarm.timer, start + 30 * NSEC_PER_MSEC), 0);
        assert_int_equal(ring_run(clock.ring), 0);
        took = clock_monotonic_ns() - start;
        assert_true(took >= 30 * NSEC_PER_MSEC);
        assert_true(took < NSEC_PER_SEC);
        ring_free(clock.ring);
}

static void equal_deadlines_fire_in_the_order_of_arming(void **state)
{
        enum { N = 50 };
        Clock clock = { .stop_at = N };
        Alarm alarms[N] = {};
        uint64_t deadline;

        assert_int_equal(ring_new(NULL, &clock.ring), 0);
        deadline = ring_now(clock.ring);
        for (unsigned i = 0; i < N; i++) {
                alarms[i].clock = &clock;
                ring_timer_init(&alarms[i].timer, alarm_fn);
                assert_int_equal(ring_timer_arm(clock.ring, &alarms[i].timer, deadline), 0);
        }
        assert_int_equal(ring_run(clock.ring), 0);
        for (unsigned i = 0; i < N; i++)
                assert_int_equal(alarms[i].rank, i);
        assert_int_equal(clock.fired, N);
        ring_free(clock.ring);
}

static unsigned rearms;

static void rearm_fn(RingTimer *timer)
{
        Alarm *alarm = CONTAINER_OF(timer, Alarm, timer);

        rearms++;
        assert_int_equal(ring_timer_arm(alarm->clock->ring, timer, timer->deadline - 1), 0);
}

static void a_timer_that_arms_itself_for_the_past_does_not_hold_the_loop(void **state)
{
        Clock clock = {};
        Alarm past = { .clock = &clock };

        assert_int_equal(ring_new(NULL, &clock.ring), 0);
        ring_timer_init(&past.timer, rearm_fn);
        assert_int_equal(ring_timer_arm(clock.ring, &past.timer, ring_now(clock.ring)), 0);
        for (unsigned i = 1; i <= 10; i++) {
                assert_int_equal(ring_run_once(clock.ring, NSEC_PER_SEC), 0);
                assert_int_equal(rearms, i);
        }
        ring_timer_disarm(clock.ring, &past.timer);
        ring_free(clock.ring);
}

static void a_run_without_work_takes_no_longer_than_asked(void **state)
{
        Clock clock = {};
        uint64_t start, took;

        assert_int_equal(ring_new(NULL, &clock.ring), 0);
        start = clock_monotonic_ns();
        assert_int_equal(ring_run_once(clock.ring, 20 * NSEC_PER_MSEC), 0);
        took = clock_monotonic_ns() - start;
        assert_true(took >= 20 * NSEC_PER_MSEC && took < NSEC_PER_SEC);
        ring_free(clock.ring);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(timers_fire_in_order_and_never_early),
                cmocka_unit_test(a_timer_sets_the_length_of_the_sleep),
                cmocka_unit_test(equal_deadlines_fire_in_the_order_of_arming),
                cmocka_unit_test(a_timer_that_arms_itself_for_the_past_does_not_hold_the_loop),
                cmocka_unit_test(a_run_without_work_takes_no_longer_than_asked),
        };

        return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
