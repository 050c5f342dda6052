/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/http-parser.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define DEFAULT_HEAD_MAX 65536u
#define DEFAULT_TARGET_MAX 16384u
#define DEFAULT_HEADERS_MAX 128u
#define DEFAULT_BODY_MAX (UINT64_C(100) << 20)
#define HEAD_MAX_MAX ((size_t)1 << 30) /* spans are 32 bits wide */
#define CHUNK_LINE_NEEDED 20u          /* CR LF, 16 digits, CR LF */

static void http_parser_set_state(HttpParser *parser, HttpState state)
{
        static const unsigned allowed[] = {
                [HTTP_STATE_HEAD] = 1u << HTTP_STATE_BODY | 1u << HTTP_STATE_FAILED,
                [HTTP_STATE_BODY] = 1u << HTTP_STATE_END | 1u << HTTP_STATE_FAILED,
                [HTTP_STATE_END] = 1u << HTTP_STATE_HEAD,
                [HTTP_STATE_FAILED] = 0,
        };

        dd_assert(allowed[parser->state] & 1u << state);
        parser->state = state;
}

int http_parser_fail(HttpParser *parser, int code, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        vsnprintf(parser->error, sizeof parser->error, format, args);
        va_end(args);
        parser->failure = code;
        http_parser_set_state(parser, HTTP_STATE_FAILED);
        return code;
}

/* Everything that belongs to one message. */
static void reset_message(HttpParser *parser)
{
        llhttp_init(&parser->llhttp,
                parser->kind == HTTP_REQUEST ? LLHTTP_REQUEST : LLHTTP_RESPONSE,
                &http_llhttp_settings);
        parser->llhttp.data = parser;
        http_head_reset(parser);
        parser->framing = HTTP_FRAMING_NONE;
        parser->body_max = parser->limits.body_max;
        parser->body_seen = parser->chunk_left = 0;
        parser->chunk_head = parser->in_trailer = parser->message_complete = false;
        parser->chunk_line = parser->chunk_extensions = parser->trailer_len = 0;
        parser->trailer_last = '\n';
}

int http_parser_new(HttpKind kind, const HttpLimits *limits, HttpParser **ret)
{
        HttpParser *parser = calloc(1, sizeof *parser);

        if (!parser)
                return -ENOMEM;
        parser->kind = kind;
        if (limits)
                parser->limits = *limits;
        if (!parser->limits.head_max)
                parser->limits.head_max = DEFAULT_HEAD_MAX;
        parser->limits.head_max = MIN(parser->limits.head_max, HEAD_MAX_MAX);
        if (!parser->limits.target_max)
                parser->limits.target_max = DEFAULT_TARGET_MAX;
        if (!parser->limits.headers_max)
                parser->limits.headers_max = DEFAULT_HEADERS_MAX;
        if (!parser->limits.body_max)
                parser->limits.body_max = DEFAULT_BODY_MAX;
        buf_init(&parser->head_buf, parser->limits.head_max);
        reset_message(parser);
        *ret = parser;
        return 0;
}

HttpParser *http_parser_free(HttpParser *parser)
{
        if (parser) {
                http_head_free(parser);
                free(parser);
        }
        return NULL;
}

static int feed_head(HttpParser *parser, Slice data, size_t *used, HttpEvent *event)
{
        bool complete = false;
        int r;

        r = http_head_feed(parser, data, used, &complete);
        if (!r && complete)
                r = http_head_interpret(parser);
        if (r || !complete)
                return r;
        http_parser_set_state(parser, HTTP_STATE_BODY);
        *event = HTTP_EVENT_HEAD;
        return 0;
}

static int fail_body(HttpParser *parser)
{
        return http_parser_fail(parser, HTTP_E_BODY_TOO_LARGE, "the body is larger than %llu bytes",
                (unsigned long long)parser->body_max);
}

static void take_body(HttpParser *parser, Slice body, size_t *used, HttpEvent *event, Slice *ret)
{
        *used += body.len;
        parser->body_seen += body.len;
        *ret = body;
        *event = HTTP_EVENT_BODY;
}

static int end_message(HttpParser *parser, HttpEvent *event)
{
        http_parser_set_state(parser, HTTP_STATE_END);
        *event = HTTP_EVENT_END;
        return 0;
}

/*
 * Runs llhttp over bytes of the chunked coding. It stops where a callback paused it, so *ret_used
 * may be less than the length.
 */
static int run_chunked(HttpParser *parser, Slice data, size_t *ret_used)
{
        llhttp_errno_t error;

        if (llhttp_get_errno(&parser->llhttp) == HPE_PAUSED)
                llhttp_resume(&parser->llhttp);
        error = llhttp_execute(&parser->llhttp, data.data, data.len);
        if (error == HPE_PAUSED || error == HPE_PAUSED_UPGRADE) {
                *ret_used = (size_t)(llhttp_get_error_pos(&parser->llhttp) - data.data);
                return 0;
        }
        if (error != HPE_OK)
                return http_parser_fail_llhttp(
                        parser, parser->in_trailer ? "the trailer" : "the chunked body");
        *ret_used = data.len;
        return 0;
}

/* What stands between the data of two chunks: CR LF, the size, extensions, CR LF. */
static int feed_chunk_line(HttpParser *parser, Slice data, size_t *used)
{
        Slice part = slice_head(data, HTTP_CHUNK_LINE_MAX - parser->chunk_line);
        size_t n = 0;
        int r;

        if (part.len == 0)
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "the line of a chunk's size is longer than %u bytes", HTTP_CHUNK_LINE_MAX);
        r = run_chunked(parser, part, &n);
        if (r)
                return r;
        *used += n;
        parser->chunk_line += n;
        if (!parser->chunk_head)
                return 0;
        parser->chunk_head = false;
        if (parser->chunk_line > CHUNK_LINE_NEEDED)
                parser->chunk_extensions += parser->chunk_line - CHUNK_LINE_NEEDED;
        parser->chunk_line = 0;
        parser->in_trailer = parser->chunk_left == 0;
        if (parser->chunk_extensions > HTTP_CHUNK_EXTENSIONS_MAX)
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "chunk extensions of more than %u bytes", HTTP_CHUNK_EXTENSIONS_MAX);
        if (parser->chunk_left > parser->body_max ||
                parser->body_seen > parser->body_max - parser->chunk_left)
                return fail_body(parser);
        return 0;
}

static int feed_chunk_data(
        HttpParser *parser, Slice data, size_t *used, HttpEvent *event, Slice *ret_body)
{
        Slice part = slice_head(data, (size_t)MIN(parser->chunk_left, (uint64_t)data.len));
        size_t n = 0;
        int r;

        r = run_chunked(parser, part, &n);
        if (r)
                return r;
        dd_assert(n == part.len);
        parser->chunk_left -= n;
        take_body(parser, part, used, event, ret_body);
        return 0;
}

/* How many bytes of a trailer keep to CR LF and to headers of one line. */
static size_t scan_trailer(HttpParser *parser, Slice data)
{
        char last = parser->trailer_last;
        size_t i;

        for (i = 0; i < data.len; i++) {
                char c = data.data[i];

                if ((c == '\n') != (last == '\r') || (last == '\n' && (c == ' ' || c == '\t')))
                        break;
                last = c;
        }
        return i;
}

static int feed_trailer(HttpParser *parser, Slice data, size_t *used)
{
        Slice part = slice_head(data, parser->limits.head_max - parser->trailer_len);
        Slice good;
        size_t n = 0;
        int r;

        if (part.len == 0)
                return http_parser_fail(parser, HTTP_E_HEAD_TOO_LARGE,
                        "the trailer is longer than %zu bytes", parser->limits.head_max);
        good = slice_head(part, scan_trailer(parser, part));
        r = run_chunked(parser, good, &n);
        if (r)
                return r;
        *used += n;
        parser->trailer_len += n;
        if (n)
                parser->trailer_last = part.data[n - 1];
        if (!parser->message_complete && good.len < part.len)
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "the trailer has a bare CR or LF, or continues a header");
        return 0;
}

static int feed_chunked(
        HttpParser *parser, Slice data, size_t *used, HttpEvent *event, Slice *ret_body)
{
        int r = 0;

        while (!r && !parser->message_complete && *used < data.len) {
                Slice rest = slice_skip(data, *used);

                if (parser->in_trailer)
                        r = feed_trailer(parser, rest, used);
                else if (parser->chunk_left)
                        return feed_chunk_data(parser, rest, used, event, ret_body);
                else
                        r = feed_chunk_line(parser, rest, used);
        }
        if (!r && parser->message_complete)
                r = end_message(parser, event);
        return r;
}

static int feed_body(
        HttpParser *parser, Slice data, size_t *used, HttpEvent *event, Slice *ret_body)
{
        uint64_t length, left;

        if (parser->framing == HTTP_FRAMING_NONE)
                return end_message(parser, event);
        if (parser->framing == HTTP_FRAMING_CHUNKED)
                return feed_chunked(parser, data, used, event, ret_body);
        length = parser->framing == HTTP_FRAMING_LENGTH ? (uint64_t)parser->head.content_length
                                                        : parser->body_max;
        if (length > parser->body_max)
                return fail_body(parser);
        left = length > parser->body_seen ? length - parser->body_seen : 0;
        if (left == 0 && parser->framing == HTTP_FRAMING_LENGTH)
                return end_message(parser, event);
        if (data.len == 0)
                return 0;
        if (left == 0)
                return fail_body(parser);
        take_body(parser, slice_head(data, (size_t)MIN(left, (uint64_t)data.len)), used, event,
                ret_body);
        return 0;
}

int http_parser_feed(
        HttpParser *parser, Slice data, size_t *ret_used, HttpEvent *ret_event, Slice *ret_body)
{
        HttpEvent event = HTTP_EVENT_MORE;
        Slice body = { 0 };
        int r;

        *ret_used = 0;
        switch (parser->state) {
        case HTTP_STATE_HEAD:
                r = feed_head(parser, data, ret_used, &event);
                break;
        case HTTP_STATE_BODY:
                r = feed_body(parser, data, ret_used, &event, &body);
                break;
        case HTTP_STATE_FAILED:
                return parser->failure;
        case HTTP_STATE_END: /* http_parser_next() comes first */
        default:
                dd_unreachable();
        }
        if (r)
                return r;
        *ret_event = event;
        *ret_body = body;
        return 0;
}

int http_parser_finish(HttpParser *parser, HttpEvent *ret_event)
{
        HttpEvent event = HTTP_EVENT_MORE;

        switch (parser->state) {
        case HTTP_STATE_FAILED:
                return parser->failure;
        case HTTP_STATE_HEAD:
                if (!http_parser_is_idle(parser))
                        return http_parser_fail(
                                parser, HTTP_E_MALFORMED, "the stream ended inside a head");
                break;
        case HTTP_STATE_BODY:
                if (parser->framing == HTTP_FRAMING_NONE || parser->framing == HTTP_FRAMING_CLOSE ||
                        (parser->framing == HTTP_FRAMING_LENGTH &&
                                parser->body_seen == (uint64_t)parser->head.content_length))
                        end_message(parser, &event);
                else
                        return http_parser_fail(
                                parser, HTTP_E_MALFORMED, "the stream ended inside a body");
                break;
        case HTTP_STATE_END:
        default:
                break;
        }
        *ret_event = event;
        return 0;
}

const HttpHead *http_parser_get_head(const HttpParser *parser)
{
        return &parser->head;
}

const char *http_parser_get_error(const HttpParser *parser)
{
        return parser->error;
}

void http_parser_set_head_request(HttpParser *parser, bool head_request)
{
        parser->head_request = head_request;
}

void http_parser_set_body_max(HttpParser *parser, uint64_t body_max)
{
        parser->body_max = body_max;
}

void http_parser_next(HttpParser *parser)
{
        http_parser_set_state(parser, HTTP_STATE_HEAD);
        reset_message(parser);
}

bool http_parser_is_idle(const HttpParser *parser)
{
        return parser->state == HTTP_STATE_HEAD && parser->head_buf.len == 0;
}
