/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/python/harness.h"

#include "lib/base/file.h"

#include <errno.h>

#define PIECE (64u << 10)

static int start(void **state)
{
        static Host host;

        host_start(&host, "test", &(RuntimeLimits){ .baton_ms = NO_MONITOR });
        if (host.error)
                fail_msg("%s", host.error);
        *state = &host;
        return 0;
}

static int stop(void **state)
{
        host_stop(*state);
        return 0;
}

static void a_call_is_forwarded(void **state)
{
        assert_answer(*state, "/forward/0/a/hello", 200, "hello");
        assert_answer(*state, "/forward_now/1/a/hello", 200, "hello");
}

static void a_call_carries_what_it_is_made_of(void **state)
{
        Host *host = *state;
        TestEvent *event;

        event = host_deliver_with(host, NULL, "POST", "/forward/0/a/show", "ping");
        host_run_until_answered(host, event);
        assert_string_equal(event_get_text(event),
                "POST\nhttp://object.test/show?a=b\na=b\n192.0.2.1\n4\nX-Call: 1\nping");
}

static void a_forwarded_stream_is_held_back_and_outlives_its_event(void **state)
{
        Host *host = *state;
        TestEvent *event = host_deliver(host, NULL, "/forward/0/a/stream/40"), *log;

        event->hold = true;
        host_run_until_done(host, event);
        host_run_for(host, 50 * NSEC_PER_MSEC);
        log = host_deliver(host, NULL, "/log");
        host_run_until_answered(host, log);
        assert_true(host_count_lines(log) <= 2 * RESPONSE_QUEUE_MAX / PIECE + 3);
        host_read(event);
        host_run_until_answered(host, event);
        assert_int_equal(event->body.len, 40 * PIECE);
}

static void a_cancelled_forward_cancels_the_call(void **state)
{
        Host *host = *state;
        TestEvent *event = host_deliver(host, NULL, "/forward/0/a/stream/200"), *call;

        event->hold = true;
        host_run_until_done(host, event);
        call = host_get_call(host);
        host_run_for(host, 20 * NSEC_PER_MSEC);
        assert_int_equal(call->n_done, 0);
        response_cancel(event->runtime.response);
        host_run_until_done(host, call);
}

static void an_aborted_call_aborts_what_it_is_forwarded_to(void **state)
{
        Host *host = *state;
        TestEvent *event = host_deliver(host, NULL, "/forward/0/a/abort");
        unsigned retry_after;

        host_run_until_answered(host, event);
        assert_int_equal(response_get_abort(event->runtime.response, &retry_after, NULL), 503);
        assert_int_equal(retry_after, 7);
        host->call_error = -EHOSTUNREACH;
        assert_answer(
                host, "/forward/0/a/hello", 503, "The call could not be made: No route to host.");
}

static void a_call_is_collected(void **state)
{
        static const char expected[] = "complete 200 Content-Type 5 hello";
        Host *host = *state;

        assert_answer(host, "/collect/0/a/hello", 200, expected);
        assert_answer(host, "/head_first/0/a/hello", 200, expected);
        assert_answer(host, "/log", 200, "head head 200 None");
        assert_answer(host, "/wait_call/0/a/hello", 200, expected);
        assert_answer(host, "/callable_wake/0/a/hello", 200, expected);
        assert_answer(host, "/log", 200, "head head 200 None\nwoken complete");
        assert_answer(host, "/collect/0/a/big", 200, "complete 200  1048576 ");
}

static void a_call_that_fails_says_why(void **state)
{
        Host *host = *state;

        assert_answer(host, "/collect/0/a/abort", 200, "failed 503 7 not now");
        assert_answer(
                host, "/collect/0/a/half", 200, "failed 500 0 The app ended without an answer.");
        assert_answer(host, "/wait_call/0/a/abort", 200, "failed 503 7 not now");
        host->call_error = -ENOMEM;
        assert_answer(host, "/callable_wake/0/a/hello", 200,
                "failed 503 1 The call could not be made: Cannot allocate memory.");
}

static void a_caller_that_waits_holds_no_runner(void **state)
{
        Host *host = *state;
        TestEvent *callers[10];
        RuntimeStats stats;

        host->hold_calls = true;
        for (unsigned i = 0; i < ELEMENTSOF(callers); i++)
                callers[i] = host_deliver(host, NULL, "/collect/0/a/hello");
        assert_answer(host, "/hello", 200, "hello");
        /* The answer comes a moment before its runner is free again. */
        for (unsigned i = 0; i < 1000; i++) {
                host->runtime->vtable->get_stats(host->runtime, &stats);
                if (stats.runners_busy == 0)
                        break;
                host_run_for(host, 1000000);
        }
        assert_int_equal(stats.runners, 1);
        host_release(host);
        for (unsigned i = 0; i < ELEMENTSOF(callers); i++)
                host_run_until_done(host, callers[i]);
}

static void a_step_that_waits_for_a_call_lets_others_run(void **state)
{
        Host *host = *state;
        TestEvent *caller;

        host->hold_calls = true;
        caller = host_deliver(host, NULL, "/wait_call/0/a/hello");
        assert_answer(host, "/hello", 200, "hello");
        assert_int_equal(caller->n_done, 0);
        assert_int_equal(host->seen_blocking, 1);
        assert_int_equal(caller->runtime.blocking, 1);
        host_release(host);
        host_run_until_done(host, caller);
        assert_int_equal(caller->runtime.blocking, 0);
        assert_string_equal(event_get_text(caller), "complete 200 Content-Type 5 hello");
}

static void a_chain_names_the_objects_that_it_came_through(void **state)
{
        Host *host = *state;
        TestObject *a = host_get_object(host, 0, "a"), *b = host_get_object(host, 0, "b");
        char expected[2 * IDENT_TEXT_SIZE];
        TestEvent *event;

        assert_answer(host, "/forward/0/a/hello", 200, "hello");
        assert_string_equal(host->chain, "");
        event = host_deliver(host, a, "/forward/0/b/forward/0/c/hello");
        host_run_until_answered(host, event);
        assert_string_equal(event_get_text(event), "hello");
        snprintf(expected, sizeof expected, "%s,%s", a->runtime.id_text, b->runtime.id_text);
        assert_string_equal(host->chain, expected);
        assert_string_equal(host_get_call(host)->runtime.request->id, event->runtime.request->id);
}

static void a_call_that_is_cancelled_is_not_waited_for(void **state)
{
        Host *host = *state;
        TestEvent *event;

        host->hold_calls = true;
        event = host_deliver(host, NULL, "/forget/0/a/wait/1");
        host_run_until_done(host, event);
        assert_string_equal(event_get_text(event), "failed The call was cancelled.");
        assert_true(response_is_cancelled(host_get_call(host)->runtime.response));
}

static void stopping_leaves_no_call_behind(void **state)
{
        Host *host = *state;
        TestEvent *caller;

        host->hold_calls = true;
        caller = host_deliver(host, NULL, "/keep/0/a/hello");
        host_run_until_done(host, caller);
        host_begin_stop(host);
        host_run_until_set(host, &host->stopped);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_call_is_forwarded, start, stop),
                cmocka_unit_test_setup_teardown(a_call_carries_what_it_is_made_of, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_forwarded_stream_is_held_back_and_outlives_its_event, start, stop),
                cmocka_unit_test_setup_teardown(a_cancelled_forward_cancels_the_call, start, stop),
                cmocka_unit_test_setup_teardown(
                        an_aborted_call_aborts_what_it_is_forwarded_to, start, stop),
                cmocka_unit_test_setup_teardown(a_call_is_collected, start, stop),
                cmocka_unit_test_setup_teardown(a_call_that_fails_says_why, start, stop),
                cmocka_unit_test_setup_teardown(a_caller_that_waits_holds_no_runner, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_step_that_waits_for_a_call_lets_others_run, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_chain_names_the_objects_that_it_came_through, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_call_that_is_cancelled_is_not_waited_for, start, stop),
                cmocka_unit_test_setup_teardown(stopping_leaves_no_call_behind, start, stop),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
