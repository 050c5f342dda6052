/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/object/doubles.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const RuntimeClass classes[] = { { "Blog", "shop-Blog" }, { "Cart", "shop-Cart" } };

typedef struct Test {
        FakeRuntime fake;
        Registry *registry;
        unsigned stopped;
} Test;

static void on_stopped(void *data)
{
        Test *test = data;

        test->stopped++;
}

static void test_open(Test *test, unsigned objects_max, unsigned mailbox_max)
{
        RegistryOptions options = {
                .runtime = &test->fake.runtime,
                .classes = classes,
                .n_classes = ELEMENTSOF(classes),
                .objects_directory = "/objects",
                .objects_max = objects_max,
                .mailbox_max = mailbox_max,
                .entry_max = 2,
        };

        *test = (Test){ 0 };
        fake_runtime_init(&test->fake);
        assert_int_equal(registry_new(&options, &test->registry), 0);
}

/* Nothing may be left but idle objects. */
static void test_close(Test *test)
{
        registry_stop(test->registry, on_stopped, test);
        assert_int_equal(test->stopped, 0);
        fake_run_deferred();
        assert_int_equal(test->stopped, 1);
        registry_free(test->registry);
        fake_reset();
}

static ObjectId make_id(uint8_t first)
{
        return (ObjectId){ { first, 0x30 } };
}

static Response *call(
        Test *test, uint8_t object, const char *request_id, const char *chain, uint64_t deadline)
{
        RequestParts parts = { .id = request_id,
                .method = SLICE("GET"),
                .path = SLICE("/"),
                .chain = slice_from(chain),
                .deadline = deadline,
                .body_fd = -1 };
        _cleanup_(request_unref_p) Request *request = NULL;
        ObjectId id = make_id(object);
        Response *response;

        assert_int_equal(request_new(&parts, &request), 0);
        if (object == 0)
                assert_int_equal(registry_fetch_entry(test->registry, request, &response), 0);
        else
                assert_int_equal(
                        registry_fetch(test->registry, 0, &id, (Slice){ 0 }, request, &response),
                        0);
        return response;
}

static Response *fetch(Test *test, uint8_t object)
{
        return call(test, object, NULL, NULL, 0);
}

static void check_answered(Response *response, unsigned status)
{
        assert_int_equal(response_get_state(response), RESPONSE_ENDED);
        assert_int_equal(response_get_head(response)->status, status);
        response_unref(response);
}

static void check_aborted(Response *response, unsigned status, unsigned retry_after)
{
        unsigned after;
        const char *message;

        assert_int_equal(response_get_state(response), RESPONSE_ABORTED);
        assert_int_equal(response_get_abort(response, &after, &message), status);
        assert_int_equal(after, retry_after);
        assert_true(message[0]);
        response_unref(response);
}

static void suspend(Test *test, size_t index)
{
        test->fake.events[index]->suspended(test->fake.events[index]);
}

static void ready(Test *test, size_t index)
{
        test->fake.events[index]->ready(test->fake.events[index]);
}

static void events_of_an_object_execute_one_at_a_time_in_order_of_arrival(void **state)
{
        Test test;
        Response *a, *b, *c, *other;

        test_open(&test, 10, 10);
        a = fetch(&test, 1);
        b = fetch(&test, 1);
        c = fetch(&test, 1);
        other = fetch(&test, 2);
        assert_string_equal(test.fake.log, "d0 d1");
        assert_int_equal(test.fake.events[1]->object->id.bytes[0], 2);
        assert_string_equal(test.fake.events[1]->object->path,
                "/objects/shop-Blog/0230000000000000000000000000000000000000000000000000000000000"
                "000");
        fake_finish(&test.fake, 0);
        assert_string_equal(test.fake.log, "d0 d1 d2");
        assert_ptr_equal(test.fake.events[2]->response, b);
        fake_finish(&test.fake, 2);
        assert_ptr_equal(test.fake.events[3]->response, c);
        assert_int_equal(response_get_shard(c), 0x013);
        fake_finish(&test.fake, 3);
        fake_finish(&test.fake, 1);
        check_answered(a, 200);
        check_answered(b, 200);
        check_answered(c, 200);
        check_answered(other, 200);
        test_close(&test);
}

static void ready_events_go_before_queued_ones(void **state)
{
        Test test;
        Response *r[4];

        test_open(&test, 10, 10);
        for (size_t i = 0; i < 4; i++)
                r[i] = fetch(&test, 1);
        suspend(&test, 0); /* 1 is delivered */
        suspend(&test, 1); /* 2 is delivered */
        ready(&test, 1);
        ready(&test, 0);
        assert_string_equal(test.fake.log, "d0 d1 d2");
        fake_finish(&test.fake, 2);
        assert_string_equal(test.fake.log, "d0 d1 d2 r1");
        fake_finish(&test.fake, 1);
        assert_string_equal(test.fake.log, "d0 d1 d2 r1 r0");
        suspend(&test, 0);
        assert_string_equal(test.fake.log, "d0 d1 d2 r1 r0 d3");
        fake_finish(&test.fake, 3);
        ready(&test, 0);
        fake_finish(&test.fake, 0);
        for (size_t i = 0; i < 4; i++)
                check_answered(r[i], 200);
        test_close(&test);
}

static void a_full_mailbox_answers_503_and_retry_after(void **state)
{
        Test test;
        Response *r[4];
        RegistryStats stats;

        test_open(&test, 10, 2);
        for (size_t i = 0; i < 4; i++)
                r[i] = fetch(&test, 1);
        check_aborted(r[3], 503, 1);
        suspend(&test, 0); /* a suspended event takes a place as well */
        check_aborted(fetch(&test, 1), 503, 1);
        registry_get_stats(test.registry, &stats);
        assert_int_equal(stats.rejected, 2);
        assert_int_equal(stats.executing, 1);
        assert_int_equal(stats.queued, 2);
        fake_finish(&test.fake, 1);
        fake_finish(&test.fake, 2);
        ready(&test, 0);
        fake_finish(&test.fake, 0);
        for (size_t i = 0; i < 3; i++)
                check_answered(r[i], 200);
        test_close(&test);
}

static void the_least_recently_used_idle_object_is_evicted_beyond_the_limit(void **state)
{
        Test test;
        RegistryStats stats;

        test_open(&test, 2, 10);
        test.fake.done_at_once = true;
        check_answered(fetch(&test, 1), 200);
        check_answered(fetch(&test, 2), 200);
        check_answered(fetch(&test, 1), 200);
        check_answered(fetch(&test, 3), 200);
        assert_string_equal(test.fake.log, "d0 d1 d2 d3 e2");
        registry_get_stats(test.registry, &stats);
        assert_int_equal(stats.objects, 2);
        assert_int_equal(stats.evicted, 1);
        test_close(&test);
}

static void a_busy_object_makes_room_among_the_idle_ones_when_it_comes(void **state)
{
        Test test;
        Response *r;

        test_open(&test, 1, 10);
        test.fake.done_at_once = true;
        check_answered(fetch(&test, 1), 200);
        test.fake.done_at_once = false;
        r = fetch(&test, 2);
        assert_string_equal(test.fake.log, "d0 d1 e1");
        fake_finish(&test.fake, 1);
        check_answered(r, 200);
        test_close(&test);
}

static void objects_that_are_all_busy_are_limited_too(void **state)
{
        Test test;
        Response *r[OBJECTS_HARD_FACTOR];

        test_open(&test, 1, 10);
        for (uint8_t i = 0; i < OBJECTS_HARD_FACTOR; i++)
                r[i] = fetch(&test, (uint8_t)(i + 1));
        check_aborted(fetch(&test, 9), 503, 1);
        for (size_t i = 0; i < OBJECTS_HARD_FACTOR; i++) {
                fake_finish(&test.fake, i);
                check_answered(r[i], 200);
        }
        test_close(&test);
}

static void an_object_idle_for_long_is_evicted(void **state)
{
        Test test;

        test_open(&test, 10, 10);
        test.fake.done_at_once = true;
        check_answered(fetch(&test, 1), 200);
        fake_advance(30000 * MS);
        check_answered(fetch(&test, 2), 200);
        fake_advance(29999 * MS);
        assert_string_equal(test.fake.log, "d0 d1");
        fake_advance(1 * MS);
        assert_string_equal(test.fake.log, "d0 d1 e1");
        fake_advance(30000 * MS);
        assert_string_equal(test.fake.log, "d0 d1 e1 e2");
        test_close(&test);
}

static void an_event_that_comes_during_an_eviction_reopens_the_object(void **state)
{
        Test test;
        Response *a, *b;

        test_open(&test, 10, 10);
        test.fake.evict_at_once = false;
        test.fake.done_at_once = true;
        check_answered(fetch(&test, 1), 200);
        fake_advance(60000 * MS);
        assert_string_equal(test.fake.log, "d0 e1");
        test.fake.done_at_once = false;
        a = fetch(&test, 1);
        b = fetch(&test, 1);
        assert_string_equal(test.fake.log, "d0 e1");
        fake_evicted(&test.fake);
        assert_string_equal(test.fake.log, "d0 e1 d1");
        fake_finish(&test.fake, 1);
        fake_finish(&test.fake, 2);
        check_answered(a, 200);
        check_answered(b, 200);
        test.fake.evict_at_once = true;
        test_close(&test);
}

static void an_event_that_leaves_during_an_eviction_reopens_nothing(void **state)
{
        Test test;
        RegistryStats stats;
        Response *a;

        test_open(&test, 10, 10);
        test.fake.evict_at_once = false;
        test.fake.done_at_once = true;
        check_answered(fetch(&test, 1), 200);
        fake_advance(60000 * MS);
        a = fetch(&test, 1);
        response_cancel(a);
        response_unref(a);
        fake_evicted(&test.fake);
        assert_string_equal(test.fake.log, "d0 e1");
        registry_get_stats(test.registry, &stats);
        assert_int_equal(stats.objects, 0);
        test_close(&test);
}

static void a_name_that_is_learned_late_is_known_when_the_object_is_reopened(void **state)
{
        Test test;
        RequestParts parts = { .body_fd = -1 };
        Request *request;
        Response *r;
        ObjectId id = make_id(1);

        test_open(&test, 10, 10);
        test.fake.evict_at_once = false;
        assert_int_equal(request_new(&parts, &request), 0);
        r = fetch(&test, 1);
        fake_finish(&test.fake, 0);
        check_answered(r, 200);
        assert_int_equal(registry_fetch(test.registry, 0, &id, SLICE("front"), request, &r), 0);
        assert_int_equal(test.fake.events[1]->object->name.len, 0);
        fake_finish(&test.fake, 1);
        check_answered(r, 200);
        fake_advance(60000 * MS);
        assert_int_equal(registry_fetch(test.registry, 0, &id, SLICE("front"), request, &r), 0);
        fake_evicted(&test.fake);
        assert_true(slice_equal(test.fake.events[2]->object->name, SLICE("front")));
        fake_finish(&test.fake, 2);
        check_answered(r, 200);
        test.fake.evict_at_once = true;
        request_unref(request);
        test_close(&test);
}

static void a_queued_event_whose_consumer_is_gone_is_never_delivered(void **state)
{
        Test test;
        Response *r[3];

        test_open(&test, 10, 10);
        for (size_t i = 0; i < 3; i++)
                r[i] = fetch(&test, 1);
        response_cancel(r[1]);
        fake_finish(&test.fake, 0);
        assert_ptr_equal(test.fake.events[1]->response, r[2]);
        fake_finish(&test.fake, 1);
        assert_string_equal(test.fake.log, "d0 d1");
        check_answered(r[0], 200);
        response_unref(r[1]);
        check_answered(r[2], 200);
        test_close(&test);
}

static void a_delivered_event_whose_consumer_is_gone_is_cancelled_once(void **state)
{
        Test test;
        Response *a, *b;

        test_open(&test, 10, 10);
        a = call(&test, 1, NULL, NULL, T0 + 5 * MS);
        response_cancel(a);
        fake_advance(10 * MS);
        assert_string_equal(test.fake.log, "d0 c0");
        fake_finish(&test.fake, 0);
        response_unref(a);
        test.fake.end_on_cancel = true;
        b = fetch(&test, 1);
        suspend(&test, 1);
        response_cancel(b);
        assert_string_equal(test.fake.log, "d0 c0 d1 c1");
        response_unref(b);
        test_close(&test);
}

static void deadlines_drop_what_is_queued_and_cancel_what_runs(void **state)
{
        Test test;
        Response *running, *queued, *after;

        test_open(&test, 10, 10);
        running = call(&test, 1, NULL, NULL, T0 + 10 * MS);
        queued = call(&test, 1, NULL, NULL, T0 + 5 * MS);
        after = call(&test, 1, NULL, NULL, T0 + 5000 * MS);
        fake_advance(6 * MS);
        check_aborted(queued, 504, 0);
        assert_string_equal(test.fake.log, "d0");
        fake_advance(6 * MS);
        assert_string_equal(test.fake.log, "d0 c0");
        check_aborted(running, 504, 0);
        fake_finish(&test.fake, 0);
        fake_finish(&test.fake, 1);
        check_answered(after, 200);
        check_aborted(call(&test, 1, NULL, NULL, T0 + MS), 504, 0);
        test.fake.end_on_cancel = true;
        running = call(&test, 1, NULL, NULL, T0 + 20 * MS);
        fake_advance(20 * MS);
        check_aborted(running, 504, 0);
        test_close(&test);
}

#define ID_A "0130000000000000000000000000000000000000000000000000000000000000"
#define ID_B "0230000000000000000000000000000000000000000000000000000000000000"
#define R1 "00000000000000a1"
#define R2 "00000000000000a2"

static void a_chain_that_comes_back_into_a_waiting_step_fails_at_once(void **state)
{
        Test test;
        Response *a, *b, *back, *other, *same_request;

        test_open(&test, 10, 10);
        a = call(&test, 1, R1, NULL, 0);
        test.fake.events[0]->blocking++;
        b = call(&test, 2, R1, ID_A, 0);
        other = call(&test, 2, R2, NULL, 0);
        /* An independent chain that holds A is no reason to fail. */
        same_request = call(&test, 1, R2, ID_B "," ID_A, 0);
        back = call(&test, 1, R1, ID_A "," ID_B, 0);
        fake_advance(0);
        check_aborted(back, 508, 0);
        assert_string_equal(test.fake.log, "d0 d1");
        fake_finish(&test.fake, 1);
        test.fake.events[0]->blocking--;
        assert_ptr_equal(test.fake.events[2]->response, other);
        fake_finish(&test.fake, 0);
        assert_ptr_equal(test.fake.events[3]->response, same_request);
        fake_finish(&test.fake, 2);
        fake_finish(&test.fake, 3);
        check_answered(a, 200);
        check_answered(b, 200);
        check_answered(other, 200);
        check_answered(same_request, 200);
        test_close(&test);
}

static void a_chain_that_comes_back_to_a_suspended_event_is_served(void **state)
{
        Test test;
        Response *a, *b, *back;

        test_open(&test, 10, 10);
        a = call(&test, 1, R1, NULL, 0);
        b = call(&test, 2, R1, ID_A, 0);
        /* The call was faster than the step's suspension. */
        back = call(&test, 1, R1, ID_A "," ID_B, 0);
        fake_advance(MS);
        assert_string_equal(test.fake.log, "d0 d1");
        suspend(&test, 0);
        assert_string_equal(test.fake.log, "d0 d1 d2");
        fake_advance(2 * OBJECT_CHAIN_GRACE_NS);
        fake_finish(&test.fake, 2);
        check_answered(back, 200);
        fake_finish(&test.fake, 1);
        check_answered(b, 200);
        ready(&test, 0);
        fake_finish(&test.fake, 0);
        check_answered(a, 200);
        test_close(&test);
}

static void a_step_that_goes_on_fails_its_own_chain_after_the_grace(void **state)
{
        Test test;
        Response *a, *b, *back, *self;

        test_open(&test, 10, 10);
        a = call(&test, 1, R1, NULL, 0);
        b = call(&test, 2, R1, ID_A, 0);
        back = call(&test, 1, R1, ID_A "," ID_B, T0 + 5 * OBJECT_CHAIN_GRACE_NS);
        self = call(&test, 1, R1, ID_A, 0);
        fake_advance(OBJECT_CHAIN_GRACE_NS - 1);
        assert_int_equal(response_get_state(back), RESPONSE_OPEN);
        fake_advance(1);
        check_aborted(back, 508, 0);
        check_aborted(self, 508, 0);
        fake_finish(&test.fake, 1);
        fake_finish(&test.fake, 0);
        check_answered(a, 200);
        check_answered(b, 200);
        test_close(&test);
}

static void a_chain_may_not_grow_without_end(void **state)
{
        Test test;
        char chain[(CHAIN_MAX + 1) * 65 + 1] = "";

        test_open(&test, 10, 10);
        for (size_t i = 0; i <= CHAIN_MAX; i++)
                snprintf(chain + strlen(chain), sizeof chain - strlen(chain), "%s%064zx",
                        i ? "," : "", i + 5);
        check_aborted(call(&test, 1, NULL, chain, 0), 508, 0);
        test_close(&test);
}

static void an_answer_that_is_missing_at_the_end_is_a_500(void **state)
{
        Test test;
        Response *r;
        RuntimeEvent *event;

        test_open(&test, 10, 10);
        r = fetch(&test, 1);
        event = TAKE_PTR(test.fake.events[0]);
        event->done(event);
        check_aborted(r, 500, 0);
        test_close(&test);
}

static void entry_events_run_side_by_side_up_to_their_limit(void **state)
{
        Test test;
        Response *a, *b;

        test_open(&test, 10, 10);
        a = fetch(&test, 0);
        b = call(&test, 0, NULL, NULL, T0 + MS);
        assert_int_equal(test.fake.events[1]->kind, RUNTIME_ENTRY_FETCH);
        assert_null(test.fake.events[1]->object);
        check_aborted(fetch(&test, 0), 503, 1);
        suspend(&test, 0);
        ready(&test, 0);
        fake_advance(2 * MS);
        assert_string_equal(test.fake.log, "d0 d1 r0 c1");
        fake_finish(&test.fake, 0);
        fake_finish(&test.fake, 1);
        check_answered(a, 200);
        check_aborted(b, 504, 0);
        test_close(&test);
}

static void a_class_that_does_not_exist_is_refused(void **state)
{
        Test test;
        RequestParts parts = { .body_fd = -1 };
        Request *request;
        Response *r;
        ObjectId id = make_id(1);

        test_open(&test, 10, 10);
        assert_int_equal(request_new(&parts, &request), 0);
        assert_int_equal(registry_fetch(test.registry, 2, &id, (Slice){ 0 }, request, &r), 0);
        check_aborted(r, 500, 0);
        request_unref(request);
        test_close(&test);
}

static void stopping_waits_for_what_is_there_and_rejects_what_is_new(void **state)
{
        Test test;
        Response *a, *b, *entry;

        test_open(&test, 10, 10);
        test.fake.evict_at_once = false;
        a = fetch(&test, 1);
        b = fetch(&test, 1);
        entry = fetch(&test, 0);
        registry_stop(test.registry, on_stopped, &test);
        check_aborted(fetch(&test, 1), 503, 1);
        check_aborted(fetch(&test, 0), 503, 1);
        fake_finish(&test.fake, 0);
        suspend(&test, 2);
        ready(&test, 2);
        fake_finish(&test.fake, 2);
        assert_string_equal(test.fake.log, "d0 d1 d2 r2 e1");
        fake_evicted(&test.fake);
        fake_run_deferred();
        assert_int_equal(test.stopped, 0);
        fake_finish(&test.fake, 1);
        assert_int_equal(test.stopped, 0);
        fake_run_deferred();
        assert_int_equal(test.stopped, 1);
        check_answered(a, 200);
        check_answered(b, 200);
        check_answered(entry, 200);
        registry_free(test.registry);
        fake_reset();
}

/* A consumer that calls the same object from inside its answer, with a runtime that answers and
 * evicts at once: everything nests, nothing may be used after it is gone. */
typedef struct Nest {
        Test *test;
        unsigned left;
} Nest;

static void nest_on_change(Response *response, void *data)
{
        Nest *nest = data;

        if (nest->left == 0)
                return;
        nest->left--;
        response_unref(fetch(nest->test, 1)); /* may have to wait: nobody looks at it */
        check_answered(fetch(nest->test, 2), 200);
}

static void answers_may_call_again_from_inside(void **state)
{
        static const ResponseConsumer consumer = { nest_on_change };
        Test test;
        Nest nest = { &test, 3 };
        Response *r, *late;

        test_open(&test, 1, 10);
        r = fetch(&test, 1);
        late = call(&test, 1, NULL, NULL, T0 + MS);
        response_set_consumer(r, &consumer, &nest);
        response_set_consumer(late, &consumer, &nest);
        suspend(&test, 0); /* late is delivered */
        test.fake.done_at_once = true;
        fake_advance(2 * MS);
        check_aborted(late, 504, 0);
        assert_int_equal(nest.left, 2);
        fake_finish(&test.fake, 1);
        ready(&test, 0);
        fake_finish(&test.fake, 0);
        assert_int_equal(nest.left, 1);
        check_answered(r, 200);
        test_close(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(events_of_an_object_execute_one_at_a_time_in_order_of_arrival),
                cmocka_unit_test(ready_events_go_before_queued_ones),
                cmocka_unit_test(a_full_mailbox_answers_503_and_retry_after),
                cmocka_unit_test(the_least_recently_used_idle_object_is_evicted_beyond_the_limit),
                cmocka_unit_test(a_busy_object_makes_room_among_the_idle_ones_when_it_comes),
                cmocka_unit_test(objects_that_are_all_busy_are_limited_too),
                cmocka_unit_test(an_object_idle_for_long_is_evicted),
                cmocka_unit_test(an_event_that_comes_during_an_eviction_reopens_the_object),
                cmocka_unit_test(an_event_that_leaves_during_an_eviction_reopens_nothing),
                cmocka_unit_test(a_name_that_is_learned_late_is_known_when_the_object_is_reopened),
                cmocka_unit_test(a_queued_event_whose_consumer_is_gone_is_never_delivered),
                cmocka_unit_test(a_delivered_event_whose_consumer_is_gone_is_cancelled_once),
                cmocka_unit_test(deadlines_drop_what_is_queued_and_cancel_what_runs),
                cmocka_unit_test(a_chain_that_comes_back_into_a_waiting_step_fails_at_once),
                cmocka_unit_test(a_chain_that_comes_back_to_a_suspended_event_is_served),
                cmocka_unit_test(a_step_that_goes_on_fails_its_own_chain_after_the_grace),
                cmocka_unit_test(a_chain_may_not_grow_without_end),
                cmocka_unit_test(an_answer_that_is_missing_at_the_end_is_a_500),
                cmocka_unit_test(entry_events_run_side_by_side_up_to_their_limit),
                cmocka_unit_test(a_class_that_does_not_exist_is_refused),
                cmocka_unit_test(stopping_waits_for_what_is_there_and_rejects_what_is_new),
                cmocka_unit_test(answers_may_call_again_from_inside),
        };

        return cmocka_run_group_tests_name("object", tests, NULL, NULL);
}
