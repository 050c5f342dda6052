/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/http.h"
#include "tests/unit/wire/http-transcript.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SECONDS (INT64_C(200) * 365 * 86400) /* of dates on either side of 1970 */

static size_t one_byte(void *data, size_t at, size_t left)
{
        return 1;
}

/* Cuts once, at the place that data points to. */
static size_t cut_at(void *data, size_t at, size_t left)
{
        size_t cut = *(size_t *)data;

        return at < cut ? cut - at : left;
}

/*
 * The transcript of a stream, which must be the same whole, byte by byte and cut at every place.
 * The caller frees it.
 */
static char *transcribe(const Transcript *how, Slice stream, int *ret_verdict)
{
        Buf whole = BUF_INIT(0), part = BUF_INIT(0);
        int verdict;

        verdict = http_transcript(how, stream, NULL, NULL, &whole);
        assert_int_equal(http_transcript(how, stream, one_byte, NULL, &part), verdict);
        assert_string_equal(buf_data(&part), buf_data(&whole));
        for (size_t cut = 1; cut < stream.len && stream.len < 20000; cut++) {
                buf_clear(&part);
                assert_int_equal(http_transcript(how, stream, cut_at, &cut, &part), verdict);
                assert_string_equal(buf_data(&part), buf_data(&whole));
        }
        buf_done(&part);
        *ret_verdict = verdict;
        return buf_take(&whole);
}

static void expect_transcript(const Transcript *how, Slice stream, const char *expected)
{
        _cleanup_(free_p) char *text = NULL;
        int verdict;

        text = transcribe(how, stream, &verdict);
        assert_string_equal(text, expected);
}

static void expect_request(const char *stream, const char *expected)
{
        static const Transcript how = { .kind = HTTP_REQUEST, .finish = true };

        expect_transcript(&how, slice_from(stream), expected);
}

static void expect_response(const char *stream, const char *expected)
{
        static const Transcript how = { .kind = HTTP_RESPONSE, .finish = true };

        expect_transcript(&how, slice_from(stream), expected);
}

/* The last line of the transcript is this verdict and names this. */
static void expect_refusal(const Transcript *how, Slice stream, int code, const char *reason)
{
        _cleanup_(free_p) char *text = NULL;
        char failed[32];
        int verdict;

        text = transcribe(how, stream, &verdict);
        snprintf(failed, sizeof failed, "failed=%d ", code);
        if (verdict != code || !strstr(text, failed) || !strstr(text, reason))
                fail_msg("expected %s%s, got:\n%s", failed, reason, text);
}

static void refuse_request(const char *stream, int code, const char *reason)
{
        static const Transcript how = { .kind = HTTP_REQUEST };

        expect_refusal(&how, slice_from(stream), code, reason);
}

static void refuse_response(const char *stream, int code, const char *reason)
{
        static const Transcript how = { .kind = HTTP_RESPONSE };

        expect_refusal(&how, slice_from(stream), code, reason);
}

static void a_request_is_split_into_its_parts(void **state)
{
        expect_request("GET /a/b?c=d&e HTTP/1.1\r\nHost: example.org:8787\r\nAccept:  */* \t\r\n"
                       "X-Empty:\r\nX-Empty-2: \r\nCookie: a=b; c=\xc3\xa9\r\n\r\n",
                "method=GET\ntarget=/a/b?c=d&e\nauthority=example.org:8787\npath=/a/b\n"
                "query=c=d&e\nstatus=0 minor=1 length=-1 keep\n"
                "name=Host\nvalue=example.org:8787\nname=Accept\nvalue=*/*\n"
                "name=X-Empty\nvalue=\nname=X-Empty-2\nvalue=\n"
                "name=Cookie\nvalue=a=b; c=\xc3\xa9\nend\nidle\n");
}

static void pipelined_requests_come_out_one_after_another(void **state)
{
        expect_request("POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
                       "\r\nPOST /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "3\r\nabc\r\nA;ext=\"v\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
                       "GET /3 HTTP/1.0\r\n\r\n",
                "method=POST\ntarget=/1\nauthority=h\npath=/1\nquery=\n"
                "status=0 minor=1 length=5 body keep\nname=Host\nvalue=h\n"
                "name=Content-Length\nvalue=5\nbody=hello\nend\n"
                "method=POST\ntarget=/2\nauthority=h\npath=/2\nquery=\n"
                "status=0 minor=1 length=-1 chunked body keep\nname=Host\nvalue=h\n"
                "name=Transfer-Encoding\nvalue=chunked\nbody=abc0123456789\nend\n"
                "method=GET\ntarget=/3\nauthority=\npath=/3\nquery=\n"
                "status=0 minor=0 length=-1\nend\nidle\n");
}

static void absolute_targets_and_stars_are_understood(void **state)
{
        expect_request("GET http://a.example:80?x HTTP/1.1\r\nHost: other\r\n\r\n"
                       "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
                "method=GET\ntarget=http://a.example:80?x\nauthority=a.example:80\npath=/\n"
                "query=x\nstatus=0 minor=1 length=-1 keep\nname=Host\nvalue=other\nend\n"
                "method=OPTIONS\ntarget=*\nauthority=\npath=*\nquery=\n"
                "status=0 minor=1 length=-1 keep\nname=Host\nvalue=\nend\nidle\n");
}

static void persistence_upgrade_and_expectation_are_read_from_the_head(void **state)
{
        expect_request("GET / HTTP/1.0\r\nConnection: Keep-Alive, x\r\n\r\n"
                       "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: a\r\nconnection: UPGRADE\r\n"
                       "Upgrade: websocket\r\n\r\n"
                       "PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nConnection: close\r\n"
                       "Content-Length: 0\r\n\r\n",
                "method=GET\ntarget=/\nauthority=\npath=/\nquery=\n"
                "status=0 minor=0 length=-1 keep\nname=Connection\nvalue=Keep-Alive, x\nend\n"
                "method=GET\ntarget=/ws\nauthority=h\npath=/ws\nquery=\n"
                "status=0 minor=1 length=-1 keep upgrade\nname=Host\nvalue=h\n"
                "name=Connection\nvalue=a\nname=connection\nvalue=UPGRADE\n"
                "name=Upgrade\nvalue=websocket\nend\n"
                "method=PUT\ntarget=/\nauthority=h\npath=/\nquery=\n"
                "status=0 minor=1 length=0 expect\nname=Host\nvalue=h\n"
                "name=Expect\nvalue=100-Continue\nname=Connection\nvalue=close\n"
                "name=Content-Length\nvalue=0\nend\nidle\n");
}

static void an_upgrade_with_a_body_keeps_its_body(void **state)
{
        expect_request("POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\nGET",
                "method=POST\ntarget=/\nauthority=h\npath=/\nquery=\n"
                "status=0 minor=1 length=-1 chunked body keep upgrade\nname=Host\nvalue=h\n"
                "name=Connection\nvalue=upgrade\nname=Upgrade\nvalue=x\n"
                "name=Transfer-Encoding\nvalue=chunked\nbody=z\nend\n"
                "failed=1 the stream ended inside a head\n");
}

#define POST "POST / HTTP/1.1\r\nHost: h\r\n"

static void framing_that_can_be_read_in_two_ways_is_refused(void **state)
{
        static const struct {
                const char *head;
                int code;
                const char *reason;
        } cases[] = {
                { "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 1, "ontent-Length" },
                { "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 1, "ontent-Length" },
                { "Content-Length: 3\r\nContent-Length: 4\r\n", 1, "Content-Length" },
                { "Content-Length: 3\r\nContent-Length: 3\r\n", 1, "Content-Length" },
                { "Content-Length: 3, 3\r\n", 1, "Content-Length" },
                { "Content-Length: +3\r\n", 1, "Content-Length" },
                { "Content-Length: -3\r\n", 1, "Content-Length" },
                { "Content-Length: 0x3\r\n", 1, "Content-Length" },
                { "Content-Length: 3 3\r\n", 1, "Content-Length" },
                { "Content-Length:\r\n", 1, "ontent-Length" },
                { "Content-Length: 18446744073709551616\r\n", 1, "Content-Length" },
                { "Content-Length: 9223372036854775808\r\n", 1, "Content-Length" },
                { "Transfer-Encoding: gzip\r\n", 1, "does not end with" },
                { "Transfer-Encoding: identity\r\n", 1, "does not end with" },
                { "Transfer-Encoding: chunked, gzip\r\n", 1, "Transfer-Encoding" },
                { "Transfer-Encoding: chunked, chunked\r\n", 1, "Transfer-Encoding" },
                { "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 1,
                        "Transfer-Encoding" },
                { "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 1,
                        "Transfer-Encoding" },
                { "Transfer-Encoding: gzip, chunked\r\n", HTTP_E_NOT_IMPLEMENTED, "other than" },
                { "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
                        HTTP_E_NOT_IMPLEMENTED, "other than" },
                { "Transfer-Encoding:\r\n", 1, "Transfer-Encoding" },
                { "Transfer-Encoding: \"chunked\"\r\n", 1, "Transfer-Encoding" },
                { "Transfer-Encoding: chunked;q=1\r\n", 1, "Transfer-Encoding" },
                { "Transfer-Encoding: xchunked\r\n", 1, "does not end with" },
                { "Transfer-Encoding : chunked\r\n", 1, "line 3" },
                { "Transfer-Encoding\t: chunked\r\n", 1, "line 3" },
                { "Transfer-Encoding: \vchunked\r\n", 1, "line 3" },
                { "X: a\r\n Transfer-Encoding: chunked\r\n", 1, "white space" },
                { "Content-Length: 3\r\n\t0\r\n", 1, "white space" },
                { "X: a\nContent-Length: 3\r\n", 1, "bare LF" },
                { "X: a\rContent-Length: 3\r\n", 1, "CR that no LF" },
                { "X: a\r\rContent-Length: 3\r\n", 1, "CR that no LF" },
                { "X: a\r\n\rX: b\r\n", 1, "CR that no LF" },
                { "Content_Length\r\n", 1, "line 3" },
                { ": x\r\n", 1, "line 3" },
                { "X\xc3: x\r\n", 1, "line 3" },
                { "X: a\x7f\r\n", 1, "line 3" },
                { "X: a\x01\r\n", 1, "line 3" },
        };
        char stream[200];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                snprintf(stream, sizeof stream, POST "%s\r\n0\r\n\r\n", cases[i].head);
                refuse_request(stream, cases[i].code, cases[i].reason);
        }
        refuse_request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 1, "HTTP/1.0");
}

static void a_nul_byte_is_refused_wherever_it_stands(void **state)
{
        static const Transcript how = { .kind = HTTP_REQUEST };

        expect_refusal(&how, SLICE("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n"), 1, "0x00");
        expect_refusal(&how, SLICE("GET / HTTP/1.1\r\nHo\0st: h\r\n\r\n"), 1, "line 2");
        expect_refusal(&how, SLICE("GET / HTTP/1.1\r\nHost: h\0\r\n\r\n"), 1, "line 2");
}

static void a_wrong_host_is_refused(void **state)
{
        refuse_request("GET / HTTP/1.1\r\n\r\n", 1, "needs a Host");
        refuse_request("GET http://h/ HTTP/1.1\r\n\r\n", 1, "needs a Host");
        refuse_request("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 1, "more than once");
        refuse_request("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 1, "more than once");
        refuse_request("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 1, "Host is not");
        refuse_request("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 1, "Host is not");
        refuse_request("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 1, "Host is not");
        refuse_request("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 1, "Host is not");
        refuse_request("GET / HTTP/1.1\r\nHost: h:80a\r\n\r\n", 1, "Host is not");
        refuse_request("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 1, "Host is not");
        refuse_request("GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 1, "URL");
        expect_request("GET / HTTP/1.1\r\nHost: [::1]:8787\r\n\r\n",
                "method=GET\ntarget=/\nauthority=[::1]:8787\npath=/\nquery=\n"
                "status=0 minor=1 length=-1 keep\nname=Host\nvalue=[::1]:8787\nend\nidle\n");
}

static void a_wrong_request_line_is_refused_with_what_would_be_right(void **state)
{
        refuse_request("GET /\r\n", 1, "HTTP/1.1");
        refuse_request("GET\r\n", 1, "HTTP/1.1");
        refuse_request("GET  / HTTP/1.1\r\n", 1, "two spaces");
        refuse_request("GET /  HTTP/1.1\r\n", 1, "two spaces");
        refuse_request("GET / HTTP/1.1 \r\n", 1, "two spaces");
        refuse_request(" GET / HTTP/1.1\r\n", 1, "two spaces");
        refuse_request("GET  HTTP/1.1\r\n", 1, "no target");
        refuse_request("GET /\t HTTP/1.1\r\n", 1, "control byte 0x09");
        refuse_request("GET /a\x7f HTTP/1.1\r\n", 1, "control byte 0x7f");
        refuse_request("GET /a\x1b HTTP/1.1\r\n", 1, "control byte 0x1b");
        refuse_request("GET /a\rb HTTP/1.1\r\n", 1, "no LF follows");
        refuse_request("GET / HTTP/1.1\n", 1, "bare LF");
        refuse_request("GET /#x HTTP/1.1\r\nHost: h\r\n\r\n", 1, "fragment");
        refuse_request("GET x HTTP/1.1\r\nHost: h\r\n\r\n", 1, "target");
        refuse_request("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 1, "neither a path");
        refuse_request("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 1, "OPTIONS");
        refuse_request("G(T / HTTP/1.1\r\n", 1, "method");
        refuse_request("GET / http/1.1\r\n", 1, "HTTP/1.1");
        refuse_request("GET / RTSP/1.0\r\n", 1, "HTTP/1.1");
        refuse_request("GET / HTTP/1.10\r\n", 1, "HTTP/1.1");
        refuse_request("GET / HTTP/2.0\r\n", HTTP_E_VERSION, "HTTP/2.0");
        refuse_request("GET / HTTP/1.2\r\n", HTTP_E_VERSION, "HTTP/1.2");
        refuse_request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP_E_VERSION, "HTTP/2");
        refuse_request("FROB / HTTP/1.1\r\n", HTTP_E_NOT_IMPLEMENTED, "FROB");
        refuse_request("GETT / HTTP/1.1\r\n", HTTP_E_NOT_IMPLEMENTED, "GETT");
        refuse_request("get / HTTP/1.1\r\n", HTTP_E_NOT_IMPLEMENTED, "get");
        refuse_request("DESCRIBE / HTTP/1.1\r\n", HTTP_E_NOT_IMPLEMENTED, "DESCRIBE");
        refuse_request("CONNECT h:1 HTTP/1.1\r\n", HTTP_E_NOT_IMPLEMENTED, "CONNECT");
        refuse_request("\r\n\r\n\r\n\r\n\r\n", 1, "empty lines");
        refuse_request("\nGET / HTTP/1.1\r\n", 1, "bare LF");
        refuse_request("\x16\x03\x01\x02", 1, "control byte 0x16");
}

static void chunks_that_are_not_exactly_framed_are_refused(void **state)
{
        static const char *const bodies[] = {
                "x\r\n",
                "-1\r\n",
                "0x1\r\n",
                "1 \r\nz\r\n",
                " 1\r\nz\r\n",
                "1\nz\r\n",
                "1\r\nzz\r\n",
                "1\r\nz\n",
                "1\r\nz\rx",
                "\r\n",
                "10000000000000000\r\n",
                "1;a\nb\r\nz\r\n",
                "1;a\rb\r\nz\r\n",
                "0\r\n\rX",
                "0\r\nA: b\n\r\n",
                "0\r\n A: b\r\n\r\n",
                "0\r\nA: b\r\n c\r\n\r\n",
                "0\r\nA\r\n\r\n",
                "0\r\n\n",
                "0\r\nA: b\rc\r\n\r\n",
                "0\r\nContent-Length: 5\r\n\r\n",
                "0\n\r\n",
        };
        char stream[200];

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                snprintf(stream, sizeof stream, POST "Transfer-Encoding: chunked\r\n\r\n%s",
                        bodies[i]);
                refuse_request(stream, HTTP_E_MALFORMED, "");
        }
}

static void a_trailer_keeps_to_whole_lines_as_a_head_does(void **state)
{
        static const char *const trailers[] = { "A: b\n\r\n", " A: b\r\n\r\n", "A: b\r\n c\r\n\r\n",
                "\n", "A: b\rc\r\n\r\n", "\rX", "A: b\r\n\rX" };
        char stream[200];

        for (size_t i = 0; i < ELEMENTSOF(trailers); i++) {
                snprintf(stream, sizeof stream, POST "Transfer-Encoding: chunked\r\n\r\n0\r\n%s",
                        trailers[i]);
                refuse_request(stream, HTTP_E_MALFORMED, "the trailer has a bare CR or LF");
        }
}

static Slice long_request(Buf *buf, const char *before, size_t n, const char *after)
{
        buf_clear(buf);
        assert_int_equal(buf_append_string(buf, before), 0);
        for (size_t i = 0; i < n; i++)
                assert_int_equal(buf_append_char(buf, 'a'), 0);
        assert_int_equal(buf_append_string(buf, after), 0);
        return buf_slice(buf);
}

static void limits_hold_to_the_byte(void **state)
{
        static const Transcript how = { .kind = HTTP_REQUEST,
                .limits = { .head_max = 100, .target_max = 20, .headers_max = 3, .body_max = 8 } };
        static const char tail[] = " HTTP/1.1\r\nHost: h\r\n\r\n";
        _cleanup_(buf_done) Buf buf = BUF_INIT(0);
        _cleanup_(free_p) char *text = NULL;
        int verdict;

        text = transcribe(&how, long_request(&buf, "GET /", 19, tail), &verdict);
        assert_int_equal(verdict, 0);
        expect_refusal(&how, long_request(&buf, "GET /", 20, tail), HTTP_E_URI_TOO_LONG, "20");
        expect_refusal(&how, long_request(&buf, "GET /", 20, ""), HTTP_E_URI_TOO_LONG, "20");
        free(text);
        /* 27 bytes around the value, and the empty line. */
        text = transcribe(&how,
                long_request(&buf, "GET / HTTP/1.1\r\nHost: h\r\nX: ", 100 - 32, "\r\n\r\n"),
                &verdict);
        assert_int_equal(verdict, 0);
        expect_refusal(&how,
                long_request(&buf, "GET / HTTP/1.1\r\nHost: h\r\nX: ", 101 - 32, "\r\n\r\n"),
                HTTP_E_HEAD_TOO_LARGE, "100");
        expect_refusal(&how, long_request(&buf, "GET / HTTP/1.1\r\nHost: h\r\nX: ", 200, ""),
                HTTP_E_HEAD_TOO_LARGE, "100");
        expect_refusal(&how, long_request(&buf, "", 101, ""), HTTP_E_HEAD_TOO_LARGE, "100");
        expect_refusal(&how,
                slice_from("GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n"),
                HTTP_E_HEAD_TOO_LARGE, "3 headers");
}

static void bodies_are_refused_beyond_their_limit_and_not_before(void **state)
{
        static const Transcript how = { .kind = HTTP_REQUEST, .limits = { .body_max = 8 } };
        static const Transcript reply = { .kind = HTTP_RESPONSE, .limits = { .body_max = 8 } };
        _cleanup_(free_p) char *text = NULL;
        int verdict;

        text = transcribe(&how, SLICE(POST "Content-Length: 8\r\n\r\n12345678"), &verdict);
        assert_int_equal(verdict, 0);
        free(text);
        text = transcribe(&how,
                SLICE(POST "Transfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n4\r\n5678\r\n0\r\n\r\n"),
                &verdict);
        assert_int_equal(verdict, 0);
        expect_refusal(&how, SLICE(POST "Content-Length: 9\r\n\r\n1"), HTTP_E_BODY_TOO_LARGE, "8");
        expect_refusal(&how, SLICE(POST "Transfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n5\r\n5678"),
                HTTP_E_BODY_TOO_LARGE, "8");
        expect_refusal(&how,
                SLICE(POST "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n5678"),
                HTTP_E_BODY_TOO_LARGE, "8");
        expect_refusal(&reply, SLICE("HTTP/1.1 200 OK\r\n\r\n123456789"), HTTP_E_BODY_TOO_LARGE,
                "body=12345678\n");
}

static void what_stands_around_chunks_is_bounded(void **state)
{
        static const Transcript how = { .kind = HTTP_REQUEST, .limits = { .head_max = 300 } };
        static const char head[] = POST "Transfer-Encoding: chunked\r\n\r\n";
        _cleanup_(buf_done) Buf buf = BUF_INIT(0);
        char before[100];

        snprintf(before, sizeof before, "%s1;", head);
        expect_refusal(&how, long_request(&buf, before, 300, "\r\n"), HTTP_E_MALFORMED, "256");
        snprintf(before, sizeof before, "%s0\r\nX:", head);
        expect_refusal(&how, long_request(&buf, before, 300, "\r\n\r\n"), HTTP_E_HEAD_TOO_LARGE,
                "trailer");
        buf_clear(&buf);
        buf_append_string(&buf, head);
        for (int i = 0; i < 40; i++)
                buf_printf(&buf, "1;%0200d\r\nz\r\n", 0);
        expect_refusal(&how, buf_slice(&buf), HTTP_E_MALFORMED, "extensions");
}

static void the_limit_of_a_body_can_be_set_when_its_head_is_known(void **state)
{
        static const HttpLimits limits = { .body_max = 4 };
        static const Slice stream = SLICE(POST "Content-Length: 6\r\n\r\n123456");
        _cleanup_(http_parser_free_p) HttpParser *parser = NULL;
        HttpEvent event;
        size_t used;
        Slice body;

        assert_int_equal(http_parser_new(HTTP_REQUEST, &limits, &parser), 0);
        assert_int_equal(http_parser_feed(parser, stream, &used, &event, &body), 0);
        assert_int_equal(event, HTTP_EVENT_HEAD);
        assert_int_equal(http_parser_get_head(parser)->content_length, 6);
        http_parser_set_body_max(parser, 6);
        assert_int_equal(
                http_parser_feed(parser, slice_skip(stream, used), &used, &event, &body), 0);
        assert_int_equal(event, HTTP_EVENT_BODY);
        assert_true(slice_equal(body, SLICE("123456")));
        assert_int_equal(http_parser_feed(parser, SLICE(""), &used, &event, &body), 0);
        assert_int_equal(event, HTTP_EVENT_END);
        http_parser_next(parser);
        /* The next message has the limit of the parser again: told before any byte of the body. */
        assert_int_equal(http_parser_feed(parser, stream, &used, &event, &body), 0);
        assert_int_equal(
                http_parser_feed(parser, SLICE(""), &used, &event, &body), HTTP_E_BODY_TOO_LARGE);
        assert_int_equal(
                http_parser_feed(parser, stream, &used, &event, &body), HTTP_E_BODY_TOO_LARGE);
        assert_int_equal(used, 0);
}

static void a_head_stays_readable_while_its_body_arrives(void **state)
{
        _cleanup_(http_parser_free_p) HttpParser *parser = NULL;
        char stream[] = POST "Content-Length: 2\r\n\r\n12";
        size_t len = sizeof stream - 1, at = 0, used;
        HttpEvent event = HTTP_EVENT_MORE;
        const HttpHead *head;
        Slice body;

        assert_int_equal(http_parser_new(HTTP_REQUEST, NULL, &parser), 0);
        assert_true(http_parser_is_idle(parser));
        while (event != HTTP_EVENT_END) {
                assert_int_equal(http_parser_feed(parser, slice_of(stream + at, at < len ? 1 : 0),
                                         &used, &event, &body),
                        0);
                assert_false(http_parser_is_idle(parser));
                if (event != HTTP_EVENT_BODY)
                        memset(stream + at, 'x', used);
                at += used;
        }
        head = http_parser_get_head(parser);
        assert_true(slice_equal(head->method, SLICE("POST")));
        assert_true(slice_equal(http_head_find(head, SLICE("HOST"))->value, SLICE("h")));
        assert_null(http_head_find(head, SLICE("hos")));
        http_parser_next(parser);
        assert_true(http_parser_is_idle(parser));
}

static void responses_without_a_body_end_at_once(void **state)
{
        static const Transcript head = { .kind = HTTP_RESPONSE, .head_request = true };

        expect_response("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                        "HTTP/1.1 204 No Content\r\n\r\n"
                        "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"
                        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
                "status=100 minor=1 length=-1 keep\nend\n"
                "status=103 minor=1 length=-1 keep\nname=Link\nvalue=x\nend\n"
                "status=204 minor=1 length=-1 keep\nend\n"
                "status=304 minor=1 length=9 keep\nname=Content-Length\nvalue=9\nend\n"
                "status=200 minor=1 length=0 keep\nname=Content-Length\nvalue=0\nend\nidle\n");
        expect_transcript(&head,
                SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
                      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                      "HTTP/1.1 200 OK\r\n\r\n"),
                "status=200 minor=1 length=5 keep\nname=Content-Length\nvalue=5\nend\n"
                "status=200 minor=1 length=-1 chunked keep\n"
                "name=Transfer-Encoding\nvalue=chunked\nend\n"
                "status=200 minor=1 length=-1 keep\nend\nidle\n");
        expect_response("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                "status=204 minor=1 length=5\nname=Content-Length\nvalue=5\nend\nidle\n");
}

static void responses_are_framed_by_length_by_chunks_or_by_the_end_of_the_stream(void **state)
{
        expect_response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
                        "HTTP/1.1 404 Not Here\tAt all\r\nTransfer-Encoding: Chunked\r\n\r\n"
                        "2\r\nde\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nfgh\r\nHTTP/1.1",
                "status=200 minor=1 length=3 body keep\nname=Content-Length\nvalue=3\nbody=abc\n"
                "end\nstatus=404 minor=1 length=-1 chunked body keep\n"
                "name=Transfer-Encoding\nvalue=Chunked\nbody=de\nend\n"
                "status=200 minor=1 length=-1 body\nbody=fgh\\u000d\\nHTTP/1.1\nend\nidle\n");
        expect_response(
                "HTTP/1.0 200 OK\r\n\r\n", "status=200 minor=0 length=-1 body\nend\nidle\n");
}

static void after_switching_protocols_the_bytes_are_not_http(void **state)
{
        expect_response("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\n\r\n\x81\x00",
                "status=101 minor=1 length=-1 keep upgrade\nname=Upgrade\nvalue=websocket\n"
                "name=Connection\nvalue=Upgrade\nend\nidle\n");
}

static void a_stream_that_ends_too_early_is_not_a_message(void **state)
{
        expect_response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
                "status=200 minor=1 length=3 body keep\nname=Content-Length\nvalue=3\nbody=ab\n"
                "failed=1 the stream ended inside a body\n");
        expect_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
                "status=200 minor=1 length=-1 chunked body keep\n"
                "name=Transfer-Encoding\nvalue=chunked\nbody=ab\n"
                "failed=1 the stream ended inside a body\n");
        expect_response("HTTP/1.1 200 OK\r\n", "failed=1 the stream ended inside a head\n");
        expect_response("", "idle\n");
}

static void a_wrong_response_is_refused(void **state)
{
        refuse_response("HTTP/1.1 20 OK\r\n\r\n", 1, "status");
        refuse_response("HTTP/1.1 099 OK\r\n\r\n", 1, "status");
        refuse_response("HTTP/1.1 2000 OK\r\n\r\n", 1, "status");
        refuse_response("HTTP/1.1  200 OK\r\n\r\n", 1, "status");
        refuse_response("HTTP/3.0 200 OK\r\n\r\n", HTTP_E_VERSION, "HTTP/3.0");
        refuse_response("ICY 200 OK\r\n\r\n", 1, "HTTP/1.1");
        refuse_response("\r\nHTTP/1.1 200 OK\r\n\r\n", 1, "HTTP/1.1");
        refuse_response("HTTP/1.1 200 O\x01K\r\n\r\n", 1, "control byte");
        refuse_response("HTTP/1.1 200 OK\n\r\n", 1, "bare LF");
        refuse_response("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", 1, "white space");
        refuse_response("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 1,
                "Content-Length");
        refuse_response(
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 1,
                "Content-Length");
        refuse_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", 1, "does not end");
}

static void writers_refuse_what_would_break_framing(void **state)
{
        _cleanup_(buf_done) Buf buf = BUF_INIT(0);

        assert_int_equal(http_write_status(&buf, 413), 0);
        assert_int_equal(http_write_header(&buf, SLICE("A-b"), SLICE("c\td")), 0);
        assert_int_equal(http_write_header(&buf, SLICE("E"), SLICE("")), 0);
        assert_int_equal(http_write_header(&buf, SLICE("A"), SLICE("c\r\nX: y")), -EINVAL);
        assert_int_equal(http_write_header(&buf, SLICE("A"), SLICE("c\nX: y")), -EINVAL);
        assert_int_equal(http_write_header(&buf, SLICE("A"), SLICE("c\0")), -EINVAL);
        assert_int_equal(http_write_header(&buf, SLICE("A:"), SLICE("c")), -EINVAL);
        assert_int_equal(http_write_header(&buf, SLICE("A b"), SLICE("c")), -EINVAL);
        assert_int_equal(http_write_header(&buf, SLICE(""), SLICE("c")), -EINVAL);
        assert_int_equal(http_write_head_end(&buf), 0);
        assert_int_equal(http_write_chunk_head(&buf, 26), 0);
        assert_int_equal(http_write_last_chunk(&buf), 0);
        assert_string_equal(buf_data(&buf),
                "HTTP/1.1 413 Content Too Large\r\nA-b: c\td\r\nE: \r\n\r\n1a\r\n0\r\n\r\n");
        buf_clear(&buf);
        assert_int_equal(http_write_request(&buf, SLICE("GET"), SLICE("/ a")), -EINVAL);
        assert_int_equal(http_write_request(&buf, SLICE("GET"), SLICE("/\r\n")), -EINVAL);
        assert_int_equal(http_write_request(&buf, SLICE("G T"), SLICE("/")), -EINVAL);
        assert_int_equal(http_write_request(&buf, SLICE("GET"), SLICE("")), -EINVAL);
        assert_int_equal(http_write_request(&buf, SLICE("GET"), SLICE("/a?b")), 0);
        assert_string_equal(buf_data(&buf), "GET /a?b HTTP/1.1\r\n");
        assert_string_equal(http_status_reason(299), "Unknown");
        assert_string_equal(http_status_reason(70000), "Unknown");
}

static void a_writer_that_meets_the_limit_of_the_buffer_adds_nothing(void **state)
{
        _cleanup_(buf_done) Buf buf = BUF_INIT(8);

        assert_int_equal(http_write_header(&buf, SLICE("A"), SLICE("1234")), -ENOBUFS);
        assert_int_equal(buf.len, 0);
        assert_int_equal(http_write_header(&buf, SLICE("A"), SLICE("123")), 0);
        assert_int_equal(http_write_status(&buf, 200), -ENOBUFS);
        assert_string_equal(buf_data(&buf), "A: 123\r\n");
}

static void what_is_written_is_read_back(void **state)
{
        static const Transcript how = { .kind = HTTP_RESPONSE };
        _cleanup_(buf_done) Buf buf = BUF_INIT(0);

        assert_int_equal(http_write_status(&buf, 200), 0);
        assert_int_equal(http_write_header(&buf, SLICE("Transfer-Encoding"), SLICE("chunked")), 0);
        assert_int_equal(http_write_head_end(&buf), 0);
        assert_int_equal(http_write_chunk_head(&buf, 11), 0);
        assert_int_equal(buf_append_string(&buf, "hello world\r\n"), 0);
        assert_int_equal(http_write_last_chunk(&buf), 0);
        expect_transcript(&how, buf_slice(&buf),
                "status=200 minor=1 length=-1 chunked body keep\n"
                "name=Transfer-Encoding\nvalue=chunked\nbody=hello world\nend\nidle\n");
}

static void paths_are_decoded_or_refused_whole(void **state)
{
        static const Slice bad[] = { SLICE("/%"), SLICE("/%a"), SLICE("/%zz"), SLICE("/%00"),
                SLICE("/a%0"), SLICE("/\0"), SLICE("/%+1") };
        _cleanup_(buf_done) Buf buf = BUF_INIT(0);

        assert_true(http_path_decode(SLICE("/a%20b%2F%c3%A9%25+"), &buf));
        assert_string_equal(buf_data(&buf), "/a b/\xc3\xa9%+");
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                assert_false(http_path_decode(bad[i], &buf));
                assert_string_equal(buf_data(&buf), "/a b/\xc3\xa9%+");
        }
        assert_true(http_path_decode(SLICE("%41"), &buf));
        assert_string_equal(buf_data(&buf), "/a b/\xc3\xa9%+A");
}

static void tokens_are_found_in_lists_over_several_lines(void **state)
{
        static const HttpHeader headers[] = { { SLICE("Connection"), SLICE("a, b ,c") },
                { SLICE("x"), SLICE("upgrade") }, { SLICE("connection"), SLICE(" , Upgrade") } };
        static const HttpHead head = { .headers = headers, .n_headers = 3 };

        assert_true(http_head_has_token(&head, SLICE("CONNECTION"), SLICE("B")));
        assert_true(http_head_has_token(&head, SLICE("connection"), SLICE("upgrade")));
        assert_false(http_head_has_token(&head, SLICE("connection"), SLICE("up")));
        assert_false(http_head_has_token(&head, SLICE("x"), SLICE("a")));
}

static void dates_are_written_and_all_three_forms_read(void **state)
{
        int64_t seconds = 0;
        char text[30];

        http_format_date(784111777, text);
        assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
        http_format_date(0, text);
        assert_string_equal(text, "Thu, 01 Jan 1970 00:00:00 GMT");
        http_format_date(-1, text);
        assert_string_equal(text, "Wed, 31 Dec 1969 23:59:59 GMT");
        http_format_date(INT64_MAX, text);
        assert_string_equal(text, "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_true(http_parse_date(SLICE("Sun, 06 Nov 1994 08:49:37 GMT"), &seconds));
        assert_int_equal(seconds, 784111777);
        seconds = 0;
        assert_true(http_parse_date(SLICE("Sunday, 06-Nov-94 08:49:37 GMT"), &seconds));
        assert_int_equal(seconds, 784111777);
        seconds = 0;
        assert_true(http_parse_date(SLICE("Sun Nov  6 08:49:37 1994"), &seconds));
        assert_int_equal(seconds, 784111777);
        assert_true(http_parse_date(SLICE("Mon, 29 Feb 2016 00:00:00 GMT"), &seconds));
        for (int64_t t = -SECONDS; t < SECONDS; t += 86399 * 31) {
                http_format_date(t, text);
                assert_true(http_parse_date(slice_from(text), &seconds));
                assert_int_equal(seconds, t);
        }
}

static void what_is_no_date_is_told(void **state)
{
        static const char *const bad[] = { "", "Sun", "Sun, 06 Nov 1994 08:49:37",
                "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
                "Sun, 06 Nov 1994 08:60:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT",
                "Sun, 29 Feb 1900 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT",
                "Son, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nox 1994 08:49:37 GMT",
                "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 GMT ",
                "Sunday, 06-Nov-1994 08:49:37 GMT", "Sun Nov 6 08:49:37 1994",
                "Sun Nov 06 08:49:37 19945", "1994-11-06T08:49:37Z", "784111777" };
        int64_t seconds = 42;

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_false(http_parse_date(slice_from(bad[i]), &seconds));
        assert_int_equal(seconds, 42);
}

/* Every message above is cut at each place; this one is long, with headers that make buffers move.
 */
static void a_long_head_is_the_same_however_it_arrives(void **state)
{
        static const Transcript how = { .kind = HTTP_REQUEST };
        _cleanup_(buf_done) Buf buf = BUF_INIT(0), whole = BUF_INIT(0), part = BUF_INIT(0);

        buf_append_string(&buf, "GET / HTTP/1.1\r\nHost: h\r\n");
        for (int i = 0; i < 127; i++)
                buf_printf(&buf, "X-Header-%d: %0300d\r\n", i, i);
        buf_append_string(&buf, "\r\n");
        assert_int_equal(http_transcript(&how, buf_slice(&buf), NULL, NULL, &whole), 0);
        assert_int_equal(http_transcript(&how, buf_slice(&buf), one_byte, NULL, &part), 0);
        assert_string_equal(buf_data(&whole), buf_data(&part));
        assert_non_null(strstr(buf_data(&whole), "name=X-Header-126\n"));
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_request_is_split_into_its_parts),
                cmocka_unit_test(pipelined_requests_come_out_one_after_another),
                cmocka_unit_test(absolute_targets_and_stars_are_understood),
                cmocka_unit_test(persistence_upgrade_and_expectation_are_read_from_the_head),
                cmocka_unit_test(an_upgrade_with_a_body_keeps_its_body),
                cmocka_unit_test(framing_that_can_be_read_in_two_ways_is_refused),
                cmocka_unit_test(a_nul_byte_is_refused_wherever_it_stands),
                cmocka_unit_test(a_wrong_host_is_refused),
                cmocka_unit_test(a_wrong_request_line_is_refused_with_what_would_be_right),
                cmocka_unit_test(chunks_that_are_not_exactly_framed_are_refused),
                cmocka_unit_test(a_trailer_keeps_to_whole_lines_as_a_head_does),
                cmocka_unit_test(limits_hold_to_the_byte),
                cmocka_unit_test(bodies_are_refused_beyond_their_limit_and_not_before),
                cmocka_unit_test(what_stands_around_chunks_is_bounded),
                cmocka_unit_test(the_limit_of_a_body_can_be_set_when_its_head_is_known),
                cmocka_unit_test(a_head_stays_readable_while_its_body_arrives),
                cmocka_unit_test(responses_without_a_body_end_at_once),
                cmocka_unit_test(
                        responses_are_framed_by_length_by_chunks_or_by_the_end_of_the_stream),
                cmocka_unit_test(after_switching_protocols_the_bytes_are_not_http),
                cmocka_unit_test(a_stream_that_ends_too_early_is_not_a_message),
                cmocka_unit_test(a_wrong_response_is_refused),
                cmocka_unit_test(writers_refuse_what_would_break_framing),
                cmocka_unit_test(a_writer_that_meets_the_limit_of_the_buffer_adds_nothing),
                cmocka_unit_test(what_is_written_is_read_back),
                cmocka_unit_test(paths_are_decoded_or_refused_whole),
                cmocka_unit_test(tokens_are_found_in_lists_over_several_lines),
                cmocka_unit_test(dates_are_written_and_all_three_forms_read),
                cmocka_unit_test(what_is_no_date_is_told),
                cmocka_unit_test(a_long_head_is_the_same_however_it_arrives),
        };

        return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
