/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/object/doubles.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Operators' events, and resets of an object. */

static const RuntimeClass classes[] = { { "Blog", "shop-Blog" } };

typedef struct Test {
        FakeRuntime fake;
        Registry *registry;
        unsigned stopped;
} Test;

typedef struct Asked {
        Operation operation;
        unsigned n_run, n_answered, n_ended;
        const char *path;
        const Test *test;
} Asked;

static void asked_run(Operation *operation, const char *path)
{
        Asked *asked = CONTAINER_OF(operation, Asked, operation);

        assert_int_equal(asked->n_ended, 0);
        assert_null(asked->test->fake.evicting);
        asked->n_run++;
        asked->path = path;
}

static void asked_answer(Operation *operation, Response *response)
{
        Asked *asked = CONTAINER_OF(operation, Asked, operation);

        assert_int_equal(asked->n_run, 1);
        asked->n_answered++;
        response_finish_text(response, 200, "done");
}

static void asked_end(Operation *operation)
{
        CONTAINER_OF(operation, Asked, operation)->n_ended++;
}

static void on_stopped(void *data)
{
        ((Test *)data)->stopped++;
}

static void test_open(Test *test)
{
        RegistryOptions options = {
                .runtime = &test->fake.runtime,
                .classes = classes,
                .n_classes = ELEMENTSOF(classes),
                .objects_directory = "/objects",
                .operations_max = 2,
                .pool = (Pool *)test, /* a double: never looked into */
        };

        *test = (Test){ 0 };
        fake_runtime_init(&test->fake);
        assert_int_equal(registry_new(&options, &test->registry), 0);
}

static void test_close(Test *test)
{
        registry_stop(test->registry, on_stopped, test);
        fake_run_deferred();
        assert_int_equal(test->stopped, 1);
        registry_free(test->registry);
        fake_reset();
}

static Asked asked_new(const Test *test, bool exclusive)
{
        return (Asked){
                .operation = { .run = asked_run,
                        .answer = asked_answer,
                        .end = asked_end,
                        .exclusive = exclusive,
                        .wait_ns = 10 * MS,
                        .run_ns = 50 * MS },
                .test = test,
        };
}

static Response *operate(Test *test, uint8_t object, Asked *asked)
{
        ObjectId id = { { object, 0x30 } };
        Response *response;

        assert_int_equal(registry_operate(test->registry, 0, &id, (Slice){ 0 }, &asked->operation,
                                 &response),
                0);
        return response;
}

static Response *fetch(Test *test, uint8_t object)
{
        RequestParts parts = { .method = SLICE("GET"), .path = SLICE("/"), .body_fd = -1 };
        _cleanup_(request_unref_p) Request *request = NULL;
        ObjectId id = { { object, 0x30 } };
        Response *response;

        assert_int_equal(request_new(&parts, &request), 0);
        assert_int_equal(
                registry_fetch(test->registry, 0, &id, (Slice){ 0 }, request, &response), 0);
        return response;
}

static void check_answered(Response *response)
{
        assert_int_equal(response_get_state(response), RESPONSE_ENDED);
        assert_int_equal(response_get_head(response)->status, 200);
        response_unref(response);
}

static void check_aborted(Response *response, unsigned status, unsigned retry_after)
{
        const char *message;
        unsigned after;

        assert_int_equal(response_get_state(response), RESPONSE_ABORTED);
        assert_int_equal(response_get_abort(response, &after, &message), status);
        assert_int_equal(after, retry_after);
        response_unref(response);
}

static void check_ended(const Asked *asked, unsigned n_run, unsigned n_answered)
{
        assert_int_equal(asked->n_run, n_run);
        assert_int_equal(asked->n_answered, n_answered);
        assert_int_equal(asked->n_ended, 1);
}

static void an_operation_holds_the_token_and_starts_no_guest(void **state)
{
        Test test;
        Asked asked;
        Response *operated, *fetched;

        test_open(&test);
        asked = asked_new(&test, false);
        operated = operate(&test, 1, &asked);
        fetched = fetch(&test, 1);
        assert_string_equal(test.fake.log, "");
        assert_int_equal(response_get_state(operated), RESPONSE_OPEN);
        assert_true(fake_work());
        check_ended(&asked, 1, 1);
        check_answered(operated);
        assert_string_equal(test.fake.log, "d0");
        fake_finish(&test.fake, 0);
        check_answered(fetched);
        test_close(&test);
}

static void an_operation_waits_for_the_step_that_executes(void **state)
{
        Test test;
        Asked asked;
        Response *operated, *fetched;

        test_open(&test);
        asked = asked_new(&test, false);
        fetched = fetch(&test, 1);
        operated = operate(&test, 1, &asked);
        assert_false(fake_work());
        test.fake.events[0]->suspended(test.fake.events[0]);
        /* An event that waits for something else does not keep it. */
        test.fake.events[0]->ready(test.fake.events[0]);
        assert_string_equal(test.fake.log, "d0");
        assert_true(fake_work());
        check_answered(operated);
        assert_string_equal(test.fake.log, "d0 r0");
        fake_finish(&test.fake, 0);
        check_answered(fetched);
        assert_int_equal(asked.n_ended, 1);
        test_close(&test);
}

static void before_an_exclusive_one_events_are_cancelled_and_the_guest_leaves(void **state)
{
        Test test;
        Asked asked;
        Response *operated, *begun, *later;

        test_open(&test);
        test.fake.evict_at_once = false;
        asked = asked_new(&test, true);
        begun = fetch(&test, 1);
        test.fake.events[0]->suspended(test.fake.events[0]);
        operated = operate(&test, 1, &asked);
        later = fetch(&test, 1);
        assert_string_equal(test.fake.log, "d0 c0");
        check_aborted(begun, 503, 1);
        assert_false(fake_work());
        test.fake.events[0]->ready(test.fake.events[0]);
        assert_string_equal(test.fake.log, "d0 c0 r0");
        fake_finish(&test.fake, 0);
        assert_string_equal(test.fake.log, "d0 c0 r0 e1");
        assert_false(fake_work());
        fake_evicted(&test.fake);
        assert_string_equal(test.fake.log, "d0 c0 r0 e1");
        assert_true(fake_work());
        check_answered(operated);
        check_ended(&asked, 1, 1);
        /* The next event begins on a new guest. */
        assert_string_equal(test.fake.log, "d0 c0 r0 e1 d1");
        fake_finish(&test.fake, 1);
        check_answered(later);
        test.fake.evict_at_once = true;
        test_close(&test);
}

static void a_reset_lets_no_event_begin_before_the_guest_has_left(void **state)
{
        Test test;
        Response *one, *two, *three;

        test_open(&test);
        test.fake.evict_at_once = false;
        one = fetch(&test, 1);
        test.fake.events[0]->suspended(test.fake.events[0]);
        two = fetch(&test, 1);
        three = fetch(&test, 1);
        test.fake.events[1]->reset(test.fake.events[1]);
        assert_string_equal(test.fake.log, "d0 d1");
        fake_finish(&test.fake, 1);
        check_answered(two);
        assert_string_equal(test.fake.log, "d0 d1 c0");
        check_aborted(one, 503, 1);
        test.fake.events[0]->ready(test.fake.events[0]);
        fake_finish(&test.fake, 0);
        assert_string_equal(test.fake.log, "d0 d1 c0 r0 e1");
        fake_evicted(&test.fake);
        assert_string_equal(test.fake.log, "d0 d1 c0 r0 e1 d2");
        fake_finish(&test.fake, 2);
        check_answered(three);
        test.fake.evict_at_once = true;
        test_close(&test);
}

static void events_that_do_not_end_when_cancelled_are_ended_by_force(void **state)
{
        Test test;
        Asked asked;
        Response *operated, *begun;

        test_open(&test);
        asked = asked_new(&test, true);
        asked.operation.wait_ns = 2 * OBJECT_RESET_GRACE_NS;
        begun = fetch(&test, 1);
        test.fake.events[0]->suspended(test.fake.events[0]);
        response_cancel(begun);
        response_unref(begun);
        assert_string_equal(test.fake.log, "d0 c0");
        operated = operate(&test, 1, &asked);
        fake_advance(OBJECT_RESET_GRACE_NS - MS);
        assert_string_equal(test.fake.log, "d0 c0");
        test.fake.end_on_cancel = true;
        fake_advance(MS);
        assert_string_equal(test.fake.log, "d0 c0 c0 e1");
        assert_true(fake_work());
        check_answered(operated);
        assert_int_equal(asked.n_ended, 1);
        test_close(&test);
}

static void a_reset_without_another_event_ends_with_the_guest(void **state)
{
        Test test;
        Response *one;

        test_open(&test);
        one = fetch(&test, 1);
        test.fake.events[0]->reset(test.fake.events[0]);
        fake_finish(&test.fake, 0);
        check_answered(one);
        assert_string_equal(test.fake.log, "d0 e1");
        one = fetch(&test, 1);
        fake_finish(&test.fake, 1);
        check_answered(one);
        test_close(&test);
}

static void one_that_waits_too_long_never_runs(void **state)
{
        Test test;
        Asked asked;
        Response *operated, *fetched;

        test_open(&test);
        asked = asked_new(&test, true);
        fetched = fetch(&test, 1);
        operated = operate(&test, 1, &asked);
        fake_advance(9 * MS);
        assert_int_equal(asked.n_ended, 0);
        fake_advance(MS);
        check_ended(&asked, 0, 0);
        check_aborted(operated, 504, 0);
        fake_finish(&test.fake, 0);
        check_answered(fetched);
        assert_false(fake_work());
        test_close(&test);
}

static void one_that_runs_too_long_is_answered_and_keeps_the_token(void **state)
{
        Test test;
        Asked asked;
        Response *operated, *fetched;

        test_open(&test);
        asked = asked_new(&test, false);
        operated = operate(&test, 1, &asked);
        fetched = fetch(&test, 1);
        fake_advance(49 * MS);
        assert_int_equal(response_get_state(operated), RESPONSE_OPEN);
        fake_advance(MS);
        check_aborted(operated, 504, 0);
        assert_string_equal(test.fake.log, "");
        assert_true(fake_work());
        check_ended(&asked, 1, 0);
        assert_string_equal(test.fake.log, "d0");
        fake_finish(&test.fake, 0);
        check_answered(fetched);
        test_close(&test);
}

static void operations_are_limited_in_number(void **state)
{
        Test test;
        Asked asked[4];
        Response *r[4];

        test_open(&test);
        for (unsigned i = 0; i < ELEMENTSOF(asked); i++) {
                asked[i] = asked_new(&test, false);
                r[i] = operate(&test, (uint8_t)(i + 1), &asked[i]);
        }
        check_aborted(r[2], 503, 1);
        check_ended(&asked[2], 0, 0);
        check_aborted(r[3], 503, 1);
        while (fake_work())
                ;
        check_answered(r[0]);
        check_answered(r[1]);
        asked[2] = asked_new(&test, false);
        r[2] = operate(&test, 3, &asked[2]);
        assert_true(fake_work());
        check_answered(r[2]);
        test_close(&test);
}

static void without_a_thread_it_is_refused(void **state)
{
        Test test;
        Asked asked;
        Response *operated;

        test_open(&test);
        asked = asked_new(&test, false);
        fake_pool_is_broken = true;
        operated = operate(&test, 1, &asked);
        fake_pool_is_broken = false;
        check_aborted(operated, 503, 1);
        check_ended(&asked, 0, 0);
        test_close(&test);
}

static void one_whose_asker_leaves_the_queue_never_runs(void **state)
{
        Test test;
        Asked asked;
        Response *operated, *fetched;

        test_open(&test);
        asked = asked_new(&test, false);
        fetched = fetch(&test, 1);
        operated = operate(&test, 1, &asked);
        response_cancel(operated);
        response_unref(operated);
        check_ended(&asked, 0, 0);
        fake_finish(&test.fake, 0);
        check_answered(fetched);
        test_close(&test);
}

static void a_dormant_object_leaves_memory_again(void **state)
{
        Test test;
        Asked asked;
        RegistryStats stats;
        Response *operated;

        test_open(&test);
        asked = asked_new(&test, true);
        operated = operate(&test, 1, &asked);
        assert_true(fake_work());
        check_answered(operated);
        registry_get_stats(test.registry, &stats);
        assert_int_equal(stats.objects, 1);
        fake_advance(UINT64_C(61000) * MS);
        registry_get_stats(test.registry, &stats);
        assert_int_equal(stats.objects, 0);
        assert_int_equal(test.fake.n_events, 0);
        test_close(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_operation_holds_the_token_and_starts_no_guest),
                cmocka_unit_test(an_operation_waits_for_the_step_that_executes),
                cmocka_unit_test(before_an_exclusive_one_events_are_cancelled_and_the_guest_leaves),
                cmocka_unit_test(a_reset_lets_no_event_begin_before_the_guest_has_left),
                cmocka_unit_test(events_that_do_not_end_when_cancelled_are_ended_by_force),
                cmocka_unit_test(a_reset_without_another_event_ends_with_the_guest),
                cmocka_unit_test(one_that_waits_too_long_never_runs),
                cmocka_unit_test(one_that_runs_too_long_is_answered_and_keeps_the_token),
                cmocka_unit_test(operations_are_limited_in_number),
                cmocka_unit_test(without_a_thread_it_is_refused),
                cmocka_unit_test(one_whose_asker_leaves_the_queue_never_runs),
                cmocka_unit_test(a_dormant_object_leaves_memory_again),
        };

        return cmocka_run_group_tests_name("operation", tests, NULL, NULL);
}
