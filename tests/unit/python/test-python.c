/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/python/harness.h"

#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>

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

static void what_cannot_be_loaded_says_why(void **state)
{
        Host host;

        host_start(&host, "broken", NULL);
        assert_non_null(host.error);
        assert_non_null(strstr(host.error, "Traceback"));
        assert_non_null(strstr(host.error, "RuntimeError: the app cannot be loaded"));
        assert_answer(&host, "/hello", 503, "The app could not be loaded.");
        host_stop(&host);
}

static void events_are_answered(void **state)
{
        assert_answer(*state, "/hello", 200, "hello");
        assert_answer(*state, "/hello", 200, "hello");
}

static void a_request_arrives_as_it_was_sent(void **state)
{
        Host *host = *state;
        TestEvent *event;

        event = host_deliver_with(host, NULL, "POST", "/show/%41?q=1&r", "caf\xe9");
        host_run_until_answered(host, event);
        assert_string_equal(event_get_text(event),
                "POST\nhttp://test/show/%41?q=1&r\nq=1&r\n192.0.2.1\n4\n"
                "Host: test\nX-Caf\xc3\xa9: \xc3\xa9\ncaf\xc3\xa9");
}

static void a_spooled_body_is_read_from_its_file(void **state)
{
        Host *host = *state;
        char path[] = "/tmp/durabled-test-XXXXXX";
        RequestParts parts = {
                .method = SLICE("PUT"),
                .scheme = SLICE("http"),
                .authority = SLICE("test"),
                .target = SLICE("/show"),
                .path = SLICE("/show"),
                .body_fd = mkostemp(path, O_CLOEXEC),
                .body_fd_len = 7,
        };
        TestEvent *event;

        unlink(path);
        assert_int_equal(fd_write_all(parts.body_fd, "spooled", 7), 0);
        event = host_deliver_parts(host, NULL, &parts);
        host_run_until_answered(host, event);
        assert_string_equal(event_get_text(event), "PUT\nhttp://test/show\n\n\n7\nspooled");
}

static void the_python_side_is_given_the_settings(void **state)
{
        assert_answer(*state, "/config", 200,
                "{\"admin_password\": null, \"app_directory\": \"/nowhere\", "
                "\"app_name\": \"test\", \"bindings\": {\"ROOM\": 0, \"STORE\": 1}, "
                "\"classes\": [\"Room\", \"Store\"], "
                "\"compatibility_flags\": [\"python_workers\"], \"development\": false, "
                "\"django_cf\": \"ours\", \"env\": {\"GREETING\": \"hi\", \"LIMIT\": 3}, "
                "\"main\": \"src/index.py\", \"migrate\": \"auto\", "
                "\"python_path\": [\"/a\", \"/b\"]}");
}

static void what_cannot_be_sent_is_refused_by_name(void **state)
{
        assert_answer(*state, "/wrong", 200,
                "RuntimeError: the answer has not been started\n"
                "ValueError: the header b'A B' cannot be sent: its name must be a token and its "
                "value free of control characters\n"
                "ValueError: the header b'A' cannot be sent: its name must be a token and its "
                "value free of control characters\n"
                "ValueError: a header's value must be Latin-1, encode it before: '\xe2\x82\xac'\n"
                "TypeError: a header must be a pair (name, value), not 'A'\n"
                "ValueError: the answer's head cannot be sent: status 99 must be 200 to 999 and "
                "the content lengths must agree\n"
                "TypeError: a bytes-like object is required, not 'str'\n"
                "ValueError: an id must be 64 hex digits\n"
                "TypeError: the id is not one of class Room: it belongs to another namespace\n"
                "nothing\n"
                "ValueError: class_index 7: the app has 2 classes\n"
                "ValueError: url holds a space, a control character or one beyond ASCII: "
                "percent-encode it\n"
                "ValueError: method is not a valid HTTP method\n"
                "ValueError: level must be 3 (error) to 7 (debug), not 99");
        assert_answer(*state, "/over", 200,
                "RuntimeError: the event has been answered already\nGET\nNone\nTrue\n"
                "the event is over\nthe event is over");
}

static void a_step_that_fails_or_says_nothing_is_an_error(void **state)
{
        Host *host = *state;
        TestEvent *event;
        unsigned retry_after;

        assert_answer(host, "/raises", 500, "The app's host failed; its log says why.");
        assert_answer(host, "/unanswered", 500, "The app ended without an answer.");
        event = host_deliver(host, NULL, "/half");
        host_run_until_answered(host, event);
        assert_int_equal(response_get_state(event->runtime.response), RESPONSE_ABORTED);
        event = host_deliver(host, NULL, "/abort");
        host_run_until_answered(host, event);
        assert_int_equal(response_get_abort(event->runtime.response, &retry_after, NULL), 503);
        assert_int_equal(retry_after, 7);
        assert_string_equal(event_get_text(event), "not now");
}

static void a_suspended_event_goes_on_when_it_is_ready(void **state)
{
        Host *host = *state;
        TestEvent *waits = host_deliver(host, NULL, "/wait/1");

        assert_answer(host, "/hello", 200, "hello");
        assert_int_equal(waits->n_suspended, 1);
        assert_int_equal(waits->n_ready, 0);
        assert_answer(host, "/go", 200, "gone");
        host_run_until_done(host, waits);
        assert_string_equal(event_get_text(waits), "went on");
        assert_int_equal(waits->n_suspended, 1);
        assert_int_equal(waits->n_ready, 1);
}

static void a_ready_is_never_lost(void **state)
{
        assert_answer(*state, "/early", 200, "early");
        assert_answer(*state, "/thread", 200, "thread");
}

static void an_event_resumes_only_when_the_host_says_so(void **state)
{
        Host *host = *state;
        TestEvent *waits = host_deliver(host, NULL, "/wait/1");

        waits->manual = true;
        assert_answer(host, "/go", 200, "gone");
        assert_answer(host, "/hello", 200, "hello");
        assert_int_equal(waits->n_ready, 1);
        assert_int_equal(waits->n_done, 0);
        host->runtime->vtable->resume(host->runtime, &waits->runtime);
        host_run_until_done(host, waits);
        assert_string_equal(event_get_text(waits), "went on");
}

static void an_object_keeps_its_python_side_until_it_is_evicted(void **state)
{
        Host *host = *state;
        TestObject *a = host_get_object(host, 0, "a"), *b = host_get_object(host, 1, "b");
        char expected[80];

        snprintf(expected, sizeof expected, "Room a %.4s 1", a->runtime.id_text);
        assert_answer_of(host, a, "/count", 200, expected);
        snprintf(expected, sizeof expected, "Room a %.4s 2", a->runtime.id_text);
        assert_answer_of(host, a, "/count", 200, expected);
        snprintf(expected, sizeof expected, "Store b %.4s 1", b->runtime.id_text);
        assert_answer_of(host, b, "/count", 200, expected);
        host_evict(host, a);
        assert_null(a->runtime.guest);
        snprintf(expected, sizeof expected, "evict %.4s 2", a->runtime.id_text);
        assert_answer(host, "/log", 200, expected);
        snprintf(expected, sizeof expected, "Room a %.4s 1", a->runtime.id_text);
        assert_answer_of(host, a, "/count", 200, expected);
}

static void an_object_that_had_no_event_is_evicted_as_well(void **state)
{
        Host *host = *state;

        host_evict(host, host_get_object(host, 0, "a"));
        assert_answer(host, "/log", 200, "");
}

static void an_object_may_be_evicted_while_the_runtime_stops(void **state)
{
        Host *host = *state;
        TestObject *a = host_get_object(host, 0, "a"), *b = host_get_object(host, 0, "b");
        TestEvent *event = host_deliver(host, a, "/count");

        host_run_until_done(host, event);
        host_begin_stop(host);
        host_evict(host, a);
        host_evict(host, b);
        host_run_until_set(host, &host->stopped);
        host_evict(host, a);
}

static void an_object_that_cannot_be_opened_is_an_os_error(void **state)
{
        Host *host = *state;
        TestObject *a = host_get_object(host, 0, "a");

        snprintf(a->path, sizeof a->path, "/proc/no/such.sqlite");
        assert_answer_of(host, a, "/open_object", 200, "FileNotFoundError /proc/no/such.sqlite");
}

static void runners_take_no_signals(void **state)
{
        assert_answer(*state, "/signals", 200, "1 1 1 1 0");
}

static void lines_reach_the_log(void **state)
{
        Host *host = *state;

        assert_answer_of(host, host_get_object(host, 0, "a"), "/logs", 200, "1");
}

static void a_stream_is_held_back_by_who_does_not_read(void **state)
{
        Host *host = *state;
        TestEvent *stream = host_deliver(host, NULL, "/stream/40"), *log;
        const size_t most = RESPONSE_QUEUE_MAX / PIECE + 128 / 64 + 1;

        stream->hold = true;
        host_run_for(host, 100 * NSEC_PER_MSEC);
        log = host_deliver(host, NULL, "/log");
        host_run_until_answered(host, log);
        assert_true(log->body.len > 0);
        assert_true(host_count_lines(log) <= most);
        assert_int_equal(stream->n_done, 0);
        host_read(stream);
        host_run_until_answered(host, stream);
        host_run_until_done(host, stream);
        assert_int_equal(stream->body.len, 40 * PIECE);
        for (size_t i = 0; i < 40; i++)
                assert_int_equal((unsigned char)buf_data(&stream->body)[i * PIECE], i);
}

static void one_large_write_arrives_whole(void **state)
{
        Host *host = *state;
        TestEvent *stream = host_deliver(host, NULL, "/big");

        host_run_until_answered(host, stream);
        host_run_until_done(host, stream);
        assert_int_equal(stream->body.len, 1 << 20);
        assert_int_equal(response_get_head(stream->runtime.response)->content_length, 1 << 20);
        for (size_t i = 0; i < 1 << 20; i += 4095)
                assert_int_equal((unsigned char)buf_data(&stream->body)[i], i & 255);
}

static void a_writer_that_waits_learns_that_nobody_reads(void **state)
{
        Host *host = *state;
        TestEvent *stream = host_deliver(host, NULL, "/stream/200");
        TestEvent *log;

        stream->hold = true;
        host_run_for(host, 50 * NSEC_PER_MSEC);
        assert_int_equal(stream->n_done, 0);
        response_cancel(stream->runtime.response);
        host_run_until_done(host, stream);
        log = host_deliver(host, NULL, "/log");
        host_run_until_answered(host, log);
        assert_non_null(strstr(event_get_text(log), "broken True"));
}

static void an_answer_leaves_before_its_step_waits(void **state)
{
        Host *host = *state;
        TestEvent *flushed = host_deliver(host, NULL, "/flush");
        TestEvent *blocks = host_deliver(host, NULL, "/answer_and_block");

        host_run_until_answered(host, flushed);
        host_run_until_answered(host, blocks);
        assert_string_equal(event_get_text(blocks), "before it blocks");
        assert_int_equal(flushed->n_done + blocks->n_done, 0);
        assert_answer(host, "/unblock", 200, "unblocked");
        host_run_until_done(host, flushed);
        host_run_until_done(host, blocks);
}

static void a_cancelled_event_that_waits_is_told(void **state)
{
        Host *host = *state;
        TestEvent *waits = host_deliver(host, NULL, "/wait/1");

        assert_answer(host, "/hello", 200, "hello");
        response_cancel(waits->runtime.response);
        host_run_until_done(host, waits);
        assert_answer(host, "/log", 200, "wait /wait/1\ncancel /wait/1");
}

static void a_deadline_cancels_as_well(void **state)
{
        Host *host = *state;
        TestEvent *waits = host_deliver(host, NULL, "/wait/1");

        host->runtime->vtable->cancel(host->runtime, &waits->runtime);
        host_run_until_done(host, waits);
        assert_int_equal(event_get_status(waits), 503);
}

static void what_is_cancelled_before_it_starts_does_not_start(void **state)
{
        Host *host = *state;
        TestEvent *busy = host_deliver(host, NULL, "/busy/20"), *waits;

        waits = host_deliver(host, NULL, "/wait/1");
        response_cancel(waits->runtime.response);
        host_run_until_done(host, waits);
        host_run_until_done(host, busy);
        assert_answer(host, "/log", 200, "busy begins\nbusy ends");
}

static void stopping_ends_what_waits(void **state)
{
        Host *host = *state;
        TestEvent *waits = host_deliver(host, NULL, "/wait/1");
        TestEvent *stubborn = host_deliver(host, NULL, "/stubborn");
        TestEvent *busy = host_deliver(host, NULL, "/busy/30"), *late;

        host_begin_stop(host);
        late = host_deliver(host, NULL, "/hello");
        assert_int_equal(late->n_done, 0);
        host_run_until_set(host, &host->stopped);
        assert_int_equal(event_get_status(waits), 503);
        assert_int_equal(event_get_status(stubborn), 503);
        assert_true(stubborn->n_ready <= 4);
        assert_string_equal(event_get_text(busy), "busy");
        assert_int_equal(event_get_status(late), 503);
        assert_string_equal(event_get_text(late), "The app is being stopped.");
}

static void stopping_while_it_loads_waits_for_the_load(void **state)
{
        Host host;

        host_begin_start(&host, "test", NULL);
        host_begin_stop(&host);
        host_run_until_set(&host, &host.stopped);
        assert_true(host.loaded);
        host_stop(&host);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_cannot_be_loaded_says_why),
                cmocka_unit_test(stopping_while_it_loads_waits_for_the_load),
                cmocka_unit_test_setup_teardown(events_are_answered, start, stop),
                cmocka_unit_test_setup_teardown(a_request_arrives_as_it_was_sent, start, stop),
                cmocka_unit_test_setup_teardown(a_spooled_body_is_read_from_its_file, start, stop),
                cmocka_unit_test_setup_teardown(the_python_side_is_given_the_settings, start, stop),
                cmocka_unit_test_setup_teardown(
                        what_cannot_be_sent_is_refused_by_name, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_step_that_fails_or_says_nothing_is_an_error, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_suspended_event_goes_on_when_it_is_ready, start, stop),
                cmocka_unit_test_setup_teardown(a_ready_is_never_lost, start, stop),
                cmocka_unit_test_setup_teardown(
                        an_event_resumes_only_when_the_host_says_so, start, stop),
                cmocka_unit_test_setup_teardown(
                        an_object_keeps_its_python_side_until_it_is_evicted, start, stop),
                cmocka_unit_test_setup_teardown(
                        an_object_that_had_no_event_is_evicted_as_well, start, stop),
                cmocka_unit_test_setup_teardown(
                        an_object_may_be_evicted_while_the_runtime_stops, start, stop),
                cmocka_unit_test_setup_teardown(
                        an_object_that_cannot_be_opened_is_an_os_error, start, stop),
                cmocka_unit_test_setup_teardown(runners_take_no_signals, start, stop),
                cmocka_unit_test_setup_teardown(lines_reach_the_log, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_stream_is_held_back_by_who_does_not_read, start, stop),
                cmocka_unit_test_setup_teardown(one_large_write_arrives_whole, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_writer_that_waits_learns_that_nobody_reads, start, stop),
                cmocka_unit_test_setup_teardown(
                        an_answer_leaves_before_its_step_waits, start, stop),
                cmocka_unit_test_setup_teardown(a_cancelled_event_that_waits_is_told, start, stop),
                cmocka_unit_test_setup_teardown(a_deadline_cancels_as_well, start, stop),
                cmocka_unit_test_setup_teardown(
                        what_is_cancelled_before_it_starts_does_not_start, start, stop),
                cmocka_unit_test_setup_teardown(stopping_ends_what_waits, start, stop),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
