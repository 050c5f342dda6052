/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/http.h"
#include "tests/unit/wire/http-transcript.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

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

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_request_is_split_into_its_parts),
                cmocka_unit_test(pipelined_requests_come_out_one_after_another),
        };

        (void)refuse_request;
        (void)refuse_response;
        (void)expect_response;
        return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
