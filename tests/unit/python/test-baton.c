/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/python/harness.h"

#include "lib/base/file.h"

static void start(Host *host, const RuntimeLimits *limits)
{
        host_start(host, "test", limits);
        if (host->error)
                fail_msg("%s", host->error);
}

static unsigned count_runners(Host *host)
{
        RuntimeStats stats;

        host->runtime->vtable->get_stats(host->runtime, &stats);
        return stats.runners;
}

static void one_runner_is_enough_for_work_that_does_not_wait(void **state)
{
        TestEvent *last = NULL;
        RuntimeStats stats;
        Host host;

        start(&host, NULL);
        for (unsigned i = 0; i < 200; i++)
                last = host_deliver(&host, NULL, "/hello");
        host_run_until_done(&host, last);
        host.runtime->vtable->get_stats(host.runtime, &stats);
        assert_int_equal(stats.events, 200);
        assert_int_equal(stats.runners, 1);
        assert_int_equal(stats.queued, 0);
        assert_true(stats.busy_ns > 0);
        host_stop(&host);
}

static void a_busy_event_does_not_keep_others_waiting(void **state)
{
        TestEvent *busy, *hello;
        Host host;

        start(&host, NULL);
        busy = host_deliver(&host, NULL, "/busy/1000");
        hello = host_deliver(&host, NULL, "/hello");
        host_run_until_answered(&host, hello);
        assert_int_equal(busy->n_done, 0);
        assert_int_equal(count_runners(&host), 2);
        host_run_until_done(&host, busy);
        host_stop(&host);
}

static void an_answer_is_not_kept_until_the_next_step_has_ended(void **state)
{
        TestEvent *hello, *busy;
        uint64_t begin;
        Host host;

        start(&host, 0);
        assert_answer(&host, "/hello", 200, "hello");
        for (unsigned i = 0; i < 5; i++) {
                begin = clock_monotonic_ns();
                hello = host_deliver(&host, NULL, "/hello");
                busy = host_deliver(&host, NULL, "/busy/400");
                host_run_until_answered(&host, hello);
                assert_int_equal(busy->n_done, 0);
                /* The loop of this test looks by itself after 100 ms. */
                assert_true(clock_monotonic_ns() - begin < 90 * NSEC_PER_MSEC);
                host_run_until_done(&host, busy);
        }
        host_stop(&host);
}

static void who_sleeps_without_a_word_loses_the_baton(void **state)
{
        TestEvent *sleeps[3], *hello;
        Host host;

        start(&host, NULL);
        for (unsigned i = 0; i < 3; i++)
                sleeps[i] = host_deliver(&host, NULL, "/sleep/1000");
        hello = host_deliver(&host, NULL, "/hello");
        host_run_until_answered(&host, hello);
        assert_int_equal(sleeps[0]->n_done + sleeps[1]->n_done + sleeps[2]->n_done, 0);
        assert_int_equal(count_runners(&host), 4);
        for (unsigned i = 0; i < 3; i++)
                host_run_until_done(&host, sleeps[i]);
        host_stop(&host);
}

static void who_blocks_gives_the_baton_up(void **state)
{
        TestEvent *blocks;
        Host host;

        start(&host, &(RuntimeLimits){ .baton_ms = NO_MONITOR });
        blocks = host_deliver(&host, NULL, "/block");
        assert_answer(&host, "/hello", 200, "hello");
        assert_int_equal(blocks->n_done, 0);
        assert_answer(&host, "/unblock", 200, "unblocked");
        host_run_until_done(&host, blocks);
        assert_answer(&host, "/log", 200, "block begins\nunblock\nblock ends");
        host_stop(&host);
}

static void many_that_block_all_come_back(void **state)
{
        TestEvent *blocks[20];
        Host host;

        start(&host, NULL);
        for (unsigned i = 0; i < ELEMENTSOF(blocks); i++)
                blocks[i] = host_deliver(&host, NULL, "/block");
        assert_answer(&host, "/unblock", 200, "unblocked");
        for (unsigned i = 0; i < ELEMENTSOF(blocks); i++) {
                host_run_until_done(&host, blocks[i]);
                assert_string_equal(event_get_text(blocks[i]), "blocked");
        }
        assert_true(count_runners(&host) <= 21);
        host_stop(&host);
}

static void when_all_runners_hang_the_rest_is_refused(void **state)
{
        TestEvent *sleeps[2], *waits[2], *refused;
        unsigned retry_after;
        Host host;

        start(&host, &(RuntimeLimits){ .runners_max = 2 });
        for (unsigned i = 0; i < 2; i++)
                sleeps[i] = host_deliver(&host, NULL, "/sleep/1500");
        for (unsigned i = 0; i < 2; i++)
                waits[i] = host_deliver(&host, NULL, "/hello");
        /* Long enough for both to have lost the baton, which somebody waits for. */
        host_run_for(&host, 300 * NSEC_PER_MSEC);
        refused = host_deliver(&host, NULL, "/hello");
        assert_int_equal(refused->n_done, 0);
        host_run_until_done(&host, refused);
        assert_int_equal(response_get_abort(refused->runtime.response, &retry_after, NULL), 503);
        assert_int_equal(retry_after, 1);
        assert_int_equal(sleeps[0]->n_done + sleeps[1]->n_done, 0);
        for (unsigned i = 0; i < 2; i++) {
                host_run_until_done(&host, sleeps[i]);
                host_run_until_done(&host, waits[i]);
                assert_string_equal(event_get_text(waits[i]), "hello");
        }
        assert_answer(&host, "/hello", 200, "hello");
        host_stop(&host);
}

static void what_all_runners_wait_for_in_vain_is_refused(void **state)
{
        TestEvent *resumed;
        Host host;

        start(&host, &(RuntimeLimits){ .runners_max = 1, .stall_ms = 100 });
        resumed = host_deliver(&host, NULL, "/wait/1");
        assert_answer(&host, "/go", 200, "gone");
        host_run_until_done(&host, resumed);
        /* The only runner waits for an event that only it could run. */
        assert_answer(&host, "/wait_call/0/a/hello", 200,
                "failed 503 1 All runners are busy: try again later.");
        assert_answer(&host, "/hello", 200, "hello");
        host_stop(&host);
}

static void what_has_begun_is_not_refused(void **state)
{
        TestEvent *waits, *sleeps;
        Host host;

        start(&host, &(RuntimeLimits){ .runners_max = 1, .stall_ms = 20 });
        waits = host_deliver(&host, NULL, "/wait/1");
        assert_answer(&host, "/hello", 200, "hello");
        sleeps = host_deliver(&host, NULL, "/go_and_sleep/300");
        host_run_until_done(&host, sleeps);
        host_run_until_done(&host, waits);
        assert_string_equal(event_get_text(waits), "went on");
        host_stop(&host);
}

static void stopping_waits_for_what_hangs(void **state)
{
        TestEvent *sleeps, *hello;
        Host host;

        start(&host, NULL);
        sleeps = host_deliver(&host, NULL, "/sleep/200");
        hello = host_deliver(&host, NULL, "/hello");
        host_run_until_done(&host, hello);
        host_begin_stop(&host);
        host_run_until_set(&host, &host.stopped);
        assert_string_equal(event_get_text(sleeps), "slept");
        host_stop(&host);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(one_runner_is_enough_for_work_that_does_not_wait),
                cmocka_unit_test(a_busy_event_does_not_keep_others_waiting),
                cmocka_unit_test(an_answer_is_not_kept_until_the_next_step_has_ended),
                cmocka_unit_test(who_sleeps_without_a_word_loses_the_baton),
                cmocka_unit_test(who_blocks_gives_the_baton_up),
                cmocka_unit_test(many_that_block_all_come_back),
                cmocka_unit_test(when_all_runners_hang_the_rest_is_refused),
                cmocka_unit_test(what_all_runners_wait_for_in_vain_is_refused),
                cmocka_unit_test(what_has_begun_is_not_refused),
                cmocka_unit_test(stopping_waits_for_what_hangs),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
