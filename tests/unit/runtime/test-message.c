/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/message.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

typedef struct Watch {
        unsigned changes, depth, deepest, rooms, cancels;
        bool pop;  /* take chunks from inside on_change */
        bool drop; /* drop the reference from inside on_change */
        size_t taken;
        size_t push; /* chunks to push from on_room */
} Watch;

static void watch_change(Response *response, void *data)
{
        Watch *watch = data;
        Chunk *chunk;

        watch->changes++;
        watch->depth++;
        watch->deepest = MAX(watch->deepest, watch->depth);
        while (watch->pop && (chunk = response_pop(response))) {
                watch->taken += chunk->len;
                chunk_free(chunk);
        }
        watch->depth--;
        if (watch->drop) {
                watch->drop = false;
                response_unref(response);
        }
}

static void watch_room(Response *response, void *data)
{
        Watch *watch = data;

        watch->rooms++;
        if (watch->push) {
                watch->push--;
                response_push(response, chunk_new("again", 5));
        }
}

static void watch_cancel(Response *response, void *data)
{
        Watch *watch = data;

        watch->cancels++;
}

static const ResponseConsumer consumer = { .on_change = watch_change };
static const ResponseProducer producer = { .on_room = watch_room, .on_cancel = watch_cancel };

static Response *new_response(Watch *watch)
{
        Response *response = NULL;

        assert_int_equal(response_new(&response), 0);
        response_set_consumer(response, &consumer, watch);
        response_set_producer(response, &producer, watch);
        return response;
}

static ResponseHead *new_head(void)
{
        ResponseHead *head = NULL;

        assert_int_equal(response_head_new(200, NULL, 0, -1, &head), 0);
        return head;
}

static Chunk *new_big_chunk(size_t len)
{
        Chunk *chunk = chunk_new(NULL, len);

        assert_non_null(chunk);
        memset(chunk->data, 'x', len);
        return chunk;
}

static void a_request_copies_its_parts_and_takes_its_body(void **state)
{
        char path[] = "/a", value[] = "v";
        HttpHeader headers[] = { { SLICE("X-A"), { value, 1 } }, { SLICE("X-B"), { NULL, 0 } } };
        RequestParts parts = {
                .method = SLICE("POST"),
                .path = slice_from(path),
                .headers = headers,
                .n_headers = 2,
                .body = strdup("body"),
                .body_len = 4,
                .body_fd = -1,
        };
        Request *request = NULL;

        assert_int_equal(request_new(&parts, &request), 0);
        assert_null(parts.body);
        path[1] = value[0] = '!';
        assert_true(slice_equal(request->path, SLICE("/a")));
        assert_true(slice_equal(request_find_header(request, SLICE("x-a"))->value, SLICE("v")));
        assert_int_equal(request_find_header(request, SLICE("X-B"))->value.len, 0);
        assert_null(request_find_header(request, SLICE("X-C")));
        assert_true(slice_equal(request->body, SLICE("body")));
        assert_int_equal(request->body_len, 4);
        request_ref(request);
        request_unref(request);
        assert_true(slice_equal(request->method, SLICE("POST")));
        request_unref(request);
}

static void a_request_closes_the_file_of_its_body(void **state)
{
        RequestParts parts = { .body_fd = open("/dev/null", O_RDONLY | O_CLOEXEC),
                .body_fd_len = 9 };
        int fd = parts.body_fd;
        Request *request = NULL;

        assert_true(fd >= 0);
        assert_int_equal(request_new(&parts, &request), 0);
        assert_int_equal(parts.body_fd, -1);
        assert_int_equal(request->body_len, 9);
        request_unref(request);
        assert_int_equal(fcntl(fd, F_GETFD), -1);
        assert_int_equal(errno, EBADF);
}

static void request_ids_are_given_on_or_drawn_anew(void **state)
{
        RequestParts given = { .id = "0123456789abcdef", .body_fd = -1 };
        RequestParts drawn = { .body_fd = -1 };
        RequestParts wrong = { .id = "short", .body_fd = -1 };
        Request *a = NULL, *b = NULL, *c = NULL;

        assert_int_equal(request_new(&given, &a), 0);
        assert_string_equal(a->id, "0123456789abcdef");
        assert_int_equal(request_new(&drawn, &b), 0);
        assert_int_equal(request_new(&drawn, &c), 0);
        assert_int_equal(strlen(b->id), 16);
        assert_int_equal(strspn(b->id, "0123456789abcdef"), 16);
        assert_string_not_equal(b->id, c->id);
        assert_int_equal(request_new(&wrong, &c), -EINVAL);
        request_unref(a);
        request_unref(b);
        request_unref(c);
}

static void a_head_leaves_out_framing_and_reads_the_length_from_it(void **state)
{
        HttpHeader headers[] = {
                { SLICE("Set-Cookie"), SLICE("a=1") },
                { SLICE("content-length"), SLICE("12") },
                { SLICE("Transfer-Encoding"), SLICE("chunked") },
                { SLICE("Connection"), SLICE("close") },
                { SLICE("Date"), SLICE("today") },
                { SLICE("Set-Cookie"), SLICE(" b=2 ") },
        };
        ResponseHead *head = NULL;

        assert_int_equal(response_head_new(200, headers, ELEMENTSOF(headers), -1, &head), 0);
        assert_int_equal(head->n_headers, 2);
        assert_int_equal(head->content_length, 12);
        assert_true(slice_equal(head->headers[0].value, SLICE("a=1")));
        assert_true(slice_equal(head->headers[1].value, SLICE("b=2")));
        free(head);
        assert_int_equal(response_head_new(200, headers, ELEMENTSOF(headers), 7, &head), 0);
        assert_int_equal(head->content_length, 7);
        free(head);
}

static void a_head_refuses_what_breaks_framing(void **state)
{
        static const HttpHeader bad[] = {
                { { "A B", 3 }, { "x", 1 } },
                { { "", 0 }, { "x", 1 } },
                { { "A:", 2 }, { "x", 1 } },
                { { "A\0", 2 }, { "x", 1 } },
                { { "A", 1 }, { "x\r\nB: y", 7 } },
                { { "A", 1 }, { "x\0", 2 } },
                { { "A", 1 }, { "x\x7f", 2 } },
                { { "Content-Length", 14 }, { "-1", 2 } },
                { { "Content-Length", 14 }, { "9223372036854775808", 19 } },
        };
        HttpHeader two[] = {
                { SLICE("Content-Length"), SLICE("1") },
                { SLICE("Content-Length"), SLICE("2") },
        };
        ResponseHead *head = NULL;

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_int_equal(response_head_new(200, &bad[i], 1, -1, &head), -EINVAL);
        assert_int_equal(response_head_new(200, two, 2, -1, &head), -EINVAL);
        assert_int_equal(response_head_new(99, NULL, 0, -1, &head), -EINVAL);
        assert_int_equal(response_head_new(1000, NULL, 0, -1, &head), -EINVAL);
        assert_null(head);
}

static void a_response_comes_in_order_and_ends(void **state)
{
        Watch watch = { 0 };
        Response *response = new_response(&watch);
        Chunk *chunk;

        assert_null(response_get_head(response));
        response_start(response, new_head());
        assert_int_equal(response_get_head(response)->status, 200);
        response_push(response, chunk_new("one", 3));
        response_push(response, chunk_new("", 0));
        response_push(response, chunk_new("two", 3));
        response_end(response);
        assert_int_equal(watch.changes, 4);
        assert_false(response_is_drained(response));
        chunk = response_pop(response);
        assert_memory_equal(chunk->data, "one", 3);
        chunk_free(chunk);
        chunk = response_pop(response);
        assert_memory_equal(chunk->data, "two", 3);
        chunk_free(chunk);
        assert_null(response_pop(response));
        assert_true(response_is_drained(response));
        response_unref(response);
}

static void a_finished_response_changes_once(void **state)
{
        Watch watch = { 0 };
        Response *response = new_response(&watch);
        Chunk *chunk;

        response_finish_text(response, 404, "no such thing");
        assert_int_equal(watch.changes, 1);
        assert_int_equal(response_get_head(response)->status, 404);
        assert_int_equal(response_get_head(response)->content_length, 13);
        assert_true(slice_equal(
                response_get_head(response)->headers[0].value, SLICE("text/plain; charset=utf-8")));
        chunk = response_pop(response);
        assert_int_equal(chunk->len, 13);
        chunk_free(chunk);
        assert_true(response_is_drained(response));
        response_unref(response);
}

static void an_empty_finish_is_drained_at_once(void **state)
{
        Watch watch = { 0 };
        Response *response = new_response(&watch);

        response_finish(response, new_head(), NULL);
        assert_true(response_is_drained(response));
        response_unref(response);
}

static void a_full_queue_tells_when_half_of_it_is_free(void **state)
{
        Watch watch = { 0 };
        Response *response = new_response(&watch);
        const size_t quarter = RESPONSE_QUEUE_MAX / 4;

        response_start(response, new_head());
        for (unsigned i = 0; i < 3; i++)
                response_push(response, new_big_chunk(quarter));
        assert_false(response_is_full(response));
        response_push(response, new_big_chunk(quarter));
        assert_true(response_is_full(response));
        chunk_free(response_pop(response));
        assert_false(response_is_full(response));
        assert_int_equal(watch.rooms, 0);
        chunk_free(response_pop(response));
        assert_int_equal(watch.rooms, 1);
        chunk_free(response_pop(response));
        chunk_free(response_pop(response));
        assert_int_equal(watch.rooms, 1);
        response_unref(response);
}

static void what_comes_while_a_chunk_is_popped_comes_after_it(void **state)
{
        Watch watch = { .push = 1 };
        Response *response = new_response(&watch);
        Chunk *chunk;

        response_start(response, new_head());
        response_push(response, new_big_chunk(RESPONSE_QUEUE_MAX));
        /* A consumer that takes whatever it is told of, and that is popping by itself now. */
        watch.pop = true;
        watch.changes = 0;
        chunk = response_pop(response);
        assert_int_equal(watch.rooms, 1);
        assert_int_equal(watch.changes, 0);
        assert_int_equal(chunk->len, RESPONSE_QUEUE_MAX);
        chunk_free(chunk);
        chunk = response_pop(response);
        assert_memory_equal(chunk->data, "again", 5);
        chunk_free(chunk);
        response_end(response);
        assert_int_equal(watch.changes, 1);
        response_unref(response);
}

static void changes_made_while_the_consumer_looks_do_not_nest(void **state)
{
        Watch watch = { .push = 3 };
        Response *response = new_response(&watch);

        response_start(response, new_head());
        watch.pop = true;
        response_push(response, new_big_chunk(RESPONSE_QUEUE_MAX));
        assert_int_equal(watch.rooms, 1);
        assert_int_equal(watch.taken, RESPONSE_QUEUE_MAX + 5);
        assert_int_equal(watch.deepest, 1);
        response_unref(response);
}

static void an_abort_drops_what_is_queued_and_silences_the_producer(void **state)
{
        Watch watch = { 0 };
        Response *response = new_response(&watch);
        const char *message;
        unsigned retry_after;

        response_start(response, new_head());
        response_push(response, chunk_new("x", 1));
        response_abort(response, 503, 2, "busy");
        assert_null(response_pop(response));
        assert_int_equal(response_get_abort(response, &retry_after, &message), 503);
        assert_int_equal(retry_after, 2);
        assert_string_equal(message, "busy");
        response_abort(response, 500, 0, "later");
        response_start(response, new_head());
        response_push(response, chunk_new("x", 1));
        response_end(response);
        response_finish(response, new_head(), chunk_new("x", 1));
        assert_int_equal(response_get_state(response), RESPONSE_ABORTED);
        assert_int_equal(response_get_abort(response, NULL, NULL), 503);
        assert_int_equal(watch.changes, 3);
        assert_false(response_is_drained(response));
        response_unref(response);
}

static void an_abort_after_the_end_changes_nothing(void **state)
{
        Watch watch = { 0 };
        Response *response = new_response(&watch);

        response_finish(response, new_head(), chunk_new("x", 1));
        response_abort(response, 500, 0, "late");
        assert_int_equal(response_get_state(response), RESPONSE_ENDED);
        assert_int_equal(watch.changes, 1);
        response_unref(response);
}

static void a_cancel_tells_the_producer_once_and_drops_later_chunks(void **state)
{
        Watch watch = { 0 };
        Response *response = new_response(&watch);

        response_start(response, new_head());
        response_push(response, chunk_new("x", 1));
        response_cancel(response);
        response_cancel(response);
        assert_int_equal(watch.cancels, 1);
        assert_true(response_is_cancelled(response));
        response_push(response, new_big_chunk(RESPONSE_QUEUE_MAX));
        assert_false(response_is_full(response));
        assert_null(response_pop(response));
        response_end(response);
        assert_int_equal(watch.changes, 2);
        response_unref(response);
}

static void a_cancel_after_the_end_does_not_bother_the_producer(void **state)
{
        Watch watch = { 0 };
        Response *response = new_response(&watch);

        response_finish(response, new_head(), NULL);
        response_cancel(response);
        assert_int_equal(watch.cancels, 0);
        response_unref(response);
}

static void a_consumer_may_drop_the_last_reference_while_it_looks(void **state)
{
        Watch watch = { .drop = true };
        Response *response = new_response(&watch);

        response_abort(response, 500, 0, NULL);
        assert_int_equal(watch.changes, 1);
        assert_false(watch.drop);
}

static void a_response_remembers_which_shard_answered(void **state)
{
        Watch watch = { 0 };
        Response *response = new_response(&watch);

        assert_int_equal(response_get_shard(response), -1);
        response_set_shard(response, 4095);
        assert_int_equal(response_get_shard(response), 4095);
        response_unref(response);
}

static void a_forward_passes_a_short_answer_on_in_one_change(void **state)
{
        Watch from_watch = { 0 }, to_watch = { .pop = true };
        Response *from = new_response(&from_watch), *to = new_response(&to_watch);

        response_set_shard(from, 7);
        assert_int_equal(response_forward(from, to), 0);
        assert_true(response_is_forwarded(to));
        response_finish_text(from, 201, "hello");
        assert_int_equal(to_watch.changes, 1);
        assert_int_equal(to_watch.taken, 5);
        assert_int_equal(response_get_head(to)->status, 201);
        assert_int_equal(response_get_shard(to), 7);
        assert_true(response_is_drained(to));
        response_unref(from);
        response_unref(to);
}

static void a_forward_holds_the_producer_back_when_nobody_reads(void **state)
{
        Watch from_watch = { 0 }, to_watch = { 0 };
        Response *from = new_response(&from_watch), *to = new_response(&to_watch);
        const size_t half = RESPONSE_QUEUE_MAX / 2;

        response_start(from, new_head());
        response_push(from, new_big_chunk(half));
        assert_int_equal(response_forward(from, to), 0);
        response_push(from, new_big_chunk(half));
        assert_true(response_is_full(to));
        response_push(from, new_big_chunk(half));
        response_push(from, new_big_chunk(half));
        assert_true(response_is_full(from));
        response_end(from);
        assert_int_equal(response_get_state(to), RESPONSE_STARTED);
        to_watch.pop = true;
        chunk_free(response_pop(to));
        while (to_watch.taken < 3 * half) {
                Chunk *chunk = response_pop(to);

                assert_non_null(chunk);
                to_watch.taken += chunk->len;
                chunk_free(chunk);
        }
        assert_true(response_is_drained(to));
        response_unref(from);
        response_unref(to);
}

static void a_forward_passes_an_abort_on_and_a_cancel_back(void **state)
{
        Watch from_watch = { 0 }, to_watch = { 0 };
        Response *from = new_response(&from_watch), *to = new_response(&to_watch);
        const char *message;
        unsigned retry_after;

        assert_int_equal(response_forward(from, to), 0);
        response_abort(from, 503, 3, "full");
        assert_int_equal(response_get_abort(to, &retry_after, &message), 503);
        assert_int_equal(retry_after, 3);
        assert_string_equal(message, "full");
        response_unref(from);
        response_unref(to);

        from = new_response(&from_watch);
        to = new_response(&to_watch);
        assert_int_equal(response_forward(from, to), 0);
        response_start(from, new_head());
        response_cancel(to);
        assert_int_equal(from_watch.cancels, 1);
        assert_true(response_is_cancelled(from));
        response_push(from, chunk_new("x", 1));
        response_end(from);
        response_unref(from);
        response_unref(to);
}

static void a_forward_to_a_cancelled_answer_cancels_at_once(void **state)
{
        Watch from_watch = { 0 }, to_watch = { 0 };
        Response *from = new_response(&from_watch), *to = new_response(&to_watch);

        response_cancel(to);
        assert_int_equal(response_forward(from, to), 0);
        assert_int_equal(from_watch.cancels, 1);
        response_unref(from);
        response_unref(to);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_request_copies_its_parts_and_takes_its_body),
                cmocka_unit_test(a_request_closes_the_file_of_its_body),
                cmocka_unit_test(request_ids_are_given_on_or_drawn_anew),
                cmocka_unit_test(a_head_leaves_out_framing_and_reads_the_length_from_it),
                cmocka_unit_test(a_head_refuses_what_breaks_framing),
                cmocka_unit_test(a_response_comes_in_order_and_ends),
                cmocka_unit_test(a_finished_response_changes_once),
                cmocka_unit_test(an_empty_finish_is_drained_at_once),
                cmocka_unit_test(a_full_queue_tells_when_half_of_it_is_free),
                cmocka_unit_test(what_comes_while_a_chunk_is_popped_comes_after_it),
                cmocka_unit_test(changes_made_while_the_consumer_looks_do_not_nest),
                cmocka_unit_test(an_abort_drops_what_is_queued_and_silences_the_producer),
                cmocka_unit_test(an_abort_after_the_end_changes_nothing),
                cmocka_unit_test(a_cancel_tells_the_producer_once_and_drops_later_chunks),
                cmocka_unit_test(a_cancel_after_the_end_does_not_bother_the_producer),
                cmocka_unit_test(a_consumer_may_drop_the_last_reference_while_it_looks),
                cmocka_unit_test(a_response_remembers_which_shard_answered),
                cmocka_unit_test(a_forward_passes_a_short_answer_on_in_one_change),
                cmocka_unit_test(a_forward_holds_the_producer_back_when_nobody_reads),
                cmocka_unit_test(a_forward_passes_an_abort_on_and_a_cancel_back),
                cmocka_unit_test(a_forward_to_a_cancelled_answer_cancels_at_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
