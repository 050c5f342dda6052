/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/edge/proxy-call.h"
#include "lib/base/file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const ObjectId object = { { 1, 2, 3, 0xff } };

static void make_request(Request **ret, uint64_t deadline)
{
        static const HttpHeader headers[] = {
                { { "Host", 4 }, { "shop.example:81", 15 } },
                { { "Cookie", 6 }, { "a=b; c=d", 8 } },
                { { "Connection", 10 }, { "close", 5 } },
                { { "Content-Length", 14 }, { "3", 1 } },
                { { "x-durabled-object", 17 }, { "forged", 6 } },
        };
        RequestParts parts = {
                .id = "0123456789abcdef",
                .method = SLICE("POST"),
                .scheme = SLICE("https"),
                .authority = SLICE("shop.example:81"),
                .target = SLICE("/a%20b?c=d"),
                .path = SLICE("/a%20b"),
                .query = SLICE("c=d"),
                .peer = SLICE("2001:db8::1"),
                .chain = SLICE("aa,bb"),
                .headers = headers,
                .n_headers = ELEMENTSOF(headers),
                .body = strdup("abc"),
                .body_len = 3,
                .body_fd = -1,
                .deadline = deadline,
        };

        assert_int_equal(request_new(&parts, ret), 0);
}

/* What the peer's edge makes of the head: the parser's view, as a Request. */
static int receive(Slice head, Request **ret)
{
        _cleanup_(http_parser_free_p) HttpParser *parser = NULL;
        RequestParts parts = { .body_fd = -1 };
        const HttpHead *parsed;
        HttpEvent event;
        size_t used;
        Slice body;

        assert_int_equal(http_parser_new(HTTP_REQUEST, NULL, &parser), 0);
        assert_int_equal(http_parser_feed(parser, head, &used, &event, &body), 0);
        assert_int_equal(event, HTTP_EVENT_HEAD);
        parsed = http_parser_get_head(parser);
        parts.method = parsed->method;
        parts.target = parsed->target;
        parts.path = parsed->path;
        parts.query = parsed->query;
        parts.authority = parsed->authority;
        parts.headers = parsed->headers;
        parts.n_headers = parsed->n_headers;
        parts.body = strdup("abc");
        parts.body_len = 3;
        return request_new(&parts, ret);
}

static void a_call_is_read_as_it_was_written_whatever_bytes_it_holds(void **state)
{
        static const char name[] = "caf\xc3\xa9 %41\r\n\0X: y";
        uint64_t now = clock_monotonic_ns();
        _cleanup_(request_unref_p) Request *sent = NULL;
        _cleanup_(request_unref_p) Request *received = NULL;
        _cleanup_(buf_done) Buf head = BUF_INIT(0);
        ProxyCall call;

        make_request(&sent, now + 5 * NSEC_PER_SEC);
        assert_int_equal(proxy_write_head(&head, 7, &object, slice_of(name, sizeof name), sent,
                                 sent->deadline, now),
                0);
        assert_int_equal(receive(buf_slice(&head), &received), 0);
        assert_int_equal(proxy_parse(received, &call), 0);
        assert_int_equal(call.class_index, 7);
        assert_true(ident_equal(&call.id, &object));
        assert_true(slice_equal(call.name, slice_of(name, sizeof name)));
        assert_string_equal(call.request->id, sent->id);
        assert_true(slice_equal(call.request->scheme, sent->scheme));
        assert_true(slice_equal(call.request->authority, sent->authority));
        assert_true(slice_equal(call.request->target, sent->target));
        assert_true(slice_equal(call.request->path, sent->path));
        assert_true(slice_equal(call.request->query, sent->query));
        assert_true(slice_equal(call.request->peer, sent->peer));
        assert_true(slice_equal(call.request->chain, sent->chain));
        assert_true(slice_equal(call.request->body, SLICE("abc")));
        assert_true(call.request->deadline >= now + 4 * NSEC_PER_SEC);
        assert_true(call.request->deadline <= clock_monotonic_ns() + 5 * NSEC_PER_SEC);
        assert_non_null(request_find_header(call.request, SLICE("Cookie")));
        assert_true(slice_equal(
                request_find_header(call.request, SLICE("Host"))->value, SLICE("shop.example:81")));
        assert_null(request_find_header(call.request, SLICE("X-Durabled-Object")));
        assert_null(request_find_header(call.request, SLICE("Connection")));
        proxy_call_done(&call);
}

static void a_call_that_names_no_object_or_says_what_we_do_not_know_is_refused(void **state)
{
#define ID "0102030000000000000000000000000000000000000000000000000000000000"
#define CLASS_AND_ID "X-Durabled-Class: 1\r\nX-Durabled-Object: " ID "\r\n"
        static const char *const bad[] = {
                "",
                "X-Durabled-Class: 1\r\n",
                "X-Durabled-Object: " ID "\r\n",
                "X-Durabled-Class: -1\r\nX-Durabled-Object: " ID "\r\n",
                "X-Durabled-Class: 1\r\nX-Durabled-Object: 00\r\n",
                CLASS_AND_ID "X-Durabled-Unknown: 1\r\n",
                CLASS_AND_ID "X-Durabled-Name: %4\r\n",
                CLASS_AND_ID "X-Durabled-Name: %zz\r\n",
                CLASS_AND_ID "X-Durabled-Name: a\r\nX-Durabled-Name: b\r\n",
                CLASS_AND_ID "X-Durabled-Timeout: soon\r\n",
                CLASS_AND_ID "X-Durabled-Timeout: 99999999999\r\n",
                CLASS_AND_ID "X-Durabled-Request: short\r\n",
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_(request_unref_p) Request *received = NULL;
                char head[1024];
                ProxyCall call;

                (void)snprintf(
                        head, sizeof head, "GET / HTTP/1.1\r\nHost: object\r\n%s\r\n", bad[i]);
                assert_int_equal(receive(slice_from(head), &received), 0);
                assert_int_equal(proxy_parse(received, &call), -EPROTO);
        }
}

static void a_call_that_http_cannot_say_is_refused_before_it_is_sent(void **state)
{
        _cleanup_(request_unref_p) Request *request = NULL;
        _cleanup_(buf_done) Buf head = BUF_INIT(0);
        RequestParts parts = {
                .method = SLICE("GET"), .target = SLICE("/a b\r\nX: y"), .body_fd = -1
        };

        assert_int_equal(request_new(&parts, &request), 0);
        assert_int_equal(proxy_write_head(&head, 0, &object, (Slice){ 0 }, request, 0, 0), -EINVAL);
}

static void an_unknown_slot_is_an_error_of_the_caller(void **state)
{
        const char *path = "/tmp/nobody-listens-here";
        ProxyOptions options = { .paths = &path, .n_slots = 1 };
        _cleanup_(request_unref_p) Request *request = NULL;
        Response *response;
        Proxy *proxy;

        assert_int_equal(ring_new(NULL, &options.ring), 0);
        assert_int_equal(proxy_new(&options, &proxy), 0);
        make_request(&request, 0);
        assert_int_equal(
                proxy_fetch(proxy, 1, 0, &object, (Slice){ 0 }, request, &response), -ERANGE);
        proxy_free(proxy);
        ring_free(options.ring);
}

static void on_stopped(void *data)
{
        ++*(int *)data;
}

static void a_peer_that_cannot_be_reached_is_tried_twice_and_then_503(void **state)
{
        const char *path = "/tmp/nobody-listens-here";
        ProxyOptions options = { .paths = &path, .n_slots = 1 };
        _cleanup_(request_unref_p) Request *request = NULL;
        uint64_t begin = clock_monotonic_ns();
        Response *response;
        Proxy *proxy;
        int stopped = 0;

        assert_int_equal(ring_new(NULL, &options.ring), 0);
        assert_int_equal(proxy_new(&options, &proxy), 0);
        make_request(&request, 0);
        assert_int_equal(proxy_fetch(proxy, 0, 0, &object, (Slice){ 0 }, request, &response), 0);
        while (response_get_state(response) == RESPONSE_OPEN &&
                clock_monotonic_ns() < begin + 3 * NSEC_PER_SEC)
                assert_int_equal(ring_run_once(options.ring, 10 * NSEC_PER_MSEC), 0);
        assert_int_equal(response_get_state(response), RESPONSE_ABORTED);
        assert_int_equal(response_get_abort(response, NULL, NULL), 503);
        assert_true(clock_monotonic_ns() - begin >= 90 * NSEC_PER_MSEC);
        response_unref(response);
        proxy_stop(proxy, on_stopped, &stopped);
        for (int i = 0; i < 100 && !stopped; i++)
                assert_int_equal(ring_run_once(options.ring, NSEC_PER_MSEC), 0);
        assert_int_equal(stopped, 1);
        proxy_free(proxy);
        ring_free(options.ring);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_call_is_read_as_it_was_written_whatever_bytes_it_holds),
                cmocka_unit_test(
                        a_call_that_names_no_object_or_says_what_we_do_not_know_is_refused),
                cmocka_unit_test(a_call_that_http_cannot_say_is_refused_before_it_is_sent),
                cmocka_unit_test(an_unknown_slot_is_an_error_of_the_caller),
                cmocka_unit_test(a_peer_that_cannot_be_reached_is_tried_twice_and_then_503),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
