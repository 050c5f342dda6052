/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/http-parser.h"

#include <errno.h>
#include <stdio.h>

/* What stays allocated between two messages of a connection. */
#define KEEP_BUFFER 8192u
#define KEEP_HEADERS 64u

static const char *what_line(const HttpParser *parser)
{
        return parser->kind == HTTP_REQUEST ? "the request line" : "the status line";
}

static int on_header_field(llhttp_t *llhttp, const char *at, size_t len)
{
        HttpParser *parser = llhttp->data;
        HttpHeaderSpan *span;

        if (parser->in_trailer)
                return 0;
        if (parser->in_header) {
                parser->spans[parser->n_spans].name_len += (uint32_t)len;
                return 0;
        }
        if (parser->n_spans == parser->limits.headers_max) {
                parser->failure = http_parser_fail(parser, HTTP_E_HEAD_TOO_LARGE,
                        "more than %zu headers", parser->limits.headers_max);
                return HPE_USER;
        }
        if (parser->n_spans == parser->size_spans) {
                size_t size = parser->size_spans ? parser->size_spans * 2 : 16;

                span = reallocarray(parser->spans, size, sizeof *span);
                if (!span) {
                        http_parser_fail(parser, -ENOMEM, "out of memory");
                        return HPE_USER;
                }
                parser->spans = span;
                parser->size_spans = size;
        }
        span = &parser->spans[parser->n_spans];
        *span = (HttpHeaderSpan){ .name_at = (uint32_t)(at - buf_data(&parser->head_buf)),
                .name_len = (uint32_t)len };
        parser->in_header = true;
        parser->has_value = false;
        return 0;
}

static int on_header_value(llhttp_t *llhttp, const char *at, size_t len)
{
        HttpParser *parser = llhttp->data;
        HttpHeaderSpan *span;

        if (parser->in_trailer || len == 0)
                return 0;
        span = &parser->spans[parser->n_spans];
        if (!parser->has_value)
                span->value_at = (uint32_t)(at - buf_data(&parser->head_buf));
        parser->has_value = true;
        /* One line, so the value is what lies between its first and its last piece. */
        span->value_len = (uint32_t)(at + len - buf_data(&parser->head_buf)) - span->value_at;
        return 0;
}

static int on_header_value_complete(llhttp_t *llhttp)
{
        HttpParser *parser = llhttp->data;

        if (parser->in_header)
                parser->n_spans++;
        parser->in_header = false;
        return 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
        HttpParser *parser = llhttp->data;

        parser->head_complete = true;
        return HPE_PAUSED;
}

static int on_chunk_header(llhttp_t *llhttp)
{
        HttpParser *parser = llhttp->data;

        parser->chunk_head = true;
        parser->chunk_left = llhttp->content_length;
        return HPE_PAUSED;
}

static int on_message_complete(llhttp_t *llhttp)
{
        HttpParser *parser = llhttp->data;

        parser->message_complete = true;
        return HPE_PAUSED;
}

const llhttp_settings_t http_llhttp_settings = {
        .on_header_field = on_header_field,
        .on_header_value = on_header_value,
        .on_header_value_complete = on_header_value_complete,
        .on_headers_complete = on_headers_complete,
        .on_chunk_header = on_chunk_header,
        .on_message_complete = on_message_complete,
};

void http_head_reset(HttpParser *parser)
{
        buf_clear(&parser->head_buf);
        if (parser->head_buf.size > KEEP_BUFFER)
                buf_done(&parser->head_buf);
        if (parser->size_spans > KEEP_HEADERS) {
                free(TAKE_PTR(parser->spans));
                parser->size_spans = 0;
        }
        if (parser->size_headers > KEEP_HEADERS) {
                free(TAKE_PTR(parser->headers));
                parser->size_headers = 0;
        }
        parser->line_at = parser->line_no = parser->empty_lines = parser->spaces = 0;
        parser->target_at = parser->target_end = parser->n_spans = 0;
        parser->in_header = parser->has_value = parser->head_complete = false;
        parser->head = (HttpHead){ .content_length = -1 };
}

void http_head_free(HttpParser *parser)
{
        buf_done(&parser->head_buf);
        free(parser->spans);
        free(parser->headers);
}

/* Judges the bytes of the first line one by one: a client that is no HTTP client is told at once.
 */
static int check_first_line(HttpParser *parser, size_t from)
{
        const char *line = buf_data(&parser->head_buf);
        bool request = parser->kind == HTTP_REQUEST;

        dd_assert(line);
        for (size_t i = from; i < parser->head_buf.len; i++) {
                unsigned char c = (unsigned char)line[i];

                if ((c < 0x20 || c == 0x7f) && c != '\r' && c != '\n' && (request || c != '\t'))
                        return http_parser_fail(parser, HTTP_E_MALFORMED,
                                "%s has the control byte 0x%02x", what_line(parser), c);
                if (!request)
                        continue;
                if (c == ' ') {
                        parser->spaces++;
                        if (parser->spaces == 1)
                                parser->target_at = i + 1;
                        else if (parser->spaces == 2)
                                parser->target_end = i;
                        else
                                return http_parser_fail(parser, HTTP_E_MALFORMED,
                                        "the request line has more than two spaces");
                } else if (parser->spaces == 1 &&
                           i + 1 - parser->target_at > parser->limits.target_max) {
                        return http_parser_fail(parser, HTTP_E_URI_TOO_LONG,
                                "the request target is longer than %zu bytes",
                                parser->limits.target_max);
                }
        }
        return 0;
}

/* "HTTP/1.0" or "HTTP/1.1" */
static int check_version(HttpParser *parser, Slice version)
{
        const char *text = version.data;

        if (!text || version.len != 8 || !slice_has_prefix(version, SLICE("HTTP/")) ||
                text[5] < '0' || text[5] > '9' || text[6] != '.' || text[7] < '0' || text[7] > '9')
                return http_parser_fail(parser, HTTP_E_MALFORMED, "%s %s with HTTP/1.1",
                        what_line(parser),
                        parser->kind == HTTP_REQUEST ? "does not end" : "does not start");
        if (text[5] != '1' || text[7] > '1')
                return http_parser_fail(parser, HTTP_E_VERSION,
                        "HTTP/%c.%c is not served, HTTP/1.1 and HTTP/1.0 are", text[5], text[7]);
        parser->head.minor = (unsigned)(text[7] - '0');
        return 0;
}

/* The line is without its CR LF. llhttp then reads it too. */
static int check_start_line(HttpParser *parser, Slice line)
{
        unsigned status;
        Slice method;

        dd_assert(line.data);
        if (parser->kind == HTTP_RESPONSE) {
                Slice digits = slice_head(slice_skip(line, 9), 3);
                uint64_t value;

                if (check_version(parser, slice_head(line, 8)))
                        return parser->failure;
                if (line.len < 12 || line.data[8] != ' ' || !slice_to_u64(digits, &value) ||
                        value < 100 || (line.len > 12 && line.data[12] != ' '))
                        return http_parser_fail(parser, HTTP_E_MALFORMED,
                                "the status line has no status from 100 to 999");
                status = (unsigned)value;
                parser->head.status = status;
                return 0;
        }
        if (parser->spaces != 2)
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "the request line is not a method, a target and HTTP/1.1");
        method = slice_head(line, parser->target_at - 1);
        if (!http_is_token(method))
                return http_parser_fail(
                        parser, HTTP_E_MALFORMED, "the method is not a name of letters");
        if (parser->target_end == parser->target_at)
                return http_parser_fail(parser, HTTP_E_MALFORMED, "the request line has no target");
        if (slice_equal(method, SLICE("PRI")))
                return http_parser_fail(
                        parser, HTTP_E_VERSION, "HTTP/2 is not served, HTTP/1.1 and HTTP/1.0 are");
        if (slice_equal(method, SLICE("CONNECT")))
                return http_parser_fail(
                        parser, HTTP_E_NOT_IMPLEMENTED, "the method CONNECT is not served");
        return check_version(parser, slice_skip(line, parser->target_end + 1));
}

static int check_line(HttpParser *parser, Slice line)
{
        ptrdiff_t cr = slice_find(line, '\r');

        if (cr < 0)
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "line %u of the head ends with a bare LF, not with CR LF",
                        parser->line_no + 1);
        if ((size_t)cr + 2 != line.len)
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "line %u of the head has a CR that no LF follows", parser->line_no + 1);
        if (parser->line_no == 0)
                return check_start_line(parser, slice_head(line, (size_t)cr));
        if (slice_has_prefix(line, SLICE(" ")) || slice_has_prefix(line, SLICE("\t")))
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "line %u of the head starts with white space: headers are not continued",
                        parser->line_no + 1);
        return 0;
}

int http_parser_fail_llhttp(HttpParser *parser, const char *place)
{
        llhttp_errno_t error = llhttp_get_errno(&parser->llhttp);
        const char *reason = llhttp_get_error_reason(&parser->llhttp);

        if (parser->state == HTTP_STATE_FAILED) /* by one of our callbacks */
                return parser->failure;
        if (error == HPE_INVALID_METHOD || (error == HPE_INVALID_CONSTANT && parser->line_no == 0 &&
                                                   parser->kind == HTTP_REQUEST))
                return http_parser_fail(parser, HTTP_E_NOT_IMPLEMENTED,
                        "the method %.*s is not known", (int)MIN(parser->target_at - 1, 40u),
                        buf_data(&parser->head_buf));
        if (error == HPE_INVALID_URL)
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "the request target has a byte that must be written as %%XX, or is neither "
                        "a path nor a URL");
        return http_parser_fail(parser, HTTP_E_MALFORMED, "%s: %s", place,
                reason && *reason ? reason : llhttp_errno_name(error));
}

static int read_line(HttpParser *parser, bool *ret_complete)
{
        Slice line = slice_skip(buf_slice(&parser->head_buf), parser->line_at);
        llhttp_errno_t error;
        char place[40];
        int r;

        if (parser->line_no == 0 && parser->kind == HTTP_REQUEST &&
                slice_equal(line, SLICE("\r\n"))) {
                /* Left over by a client that ends its bodies with one more: RFC 9112 2.2. */
                if (++parser->empty_lines > HTTP_EMPTY_LINES_MAX)
                        return http_parser_fail(parser, HTTP_E_MALFORMED,
                                "more than %u empty lines before the request line",
                                HTTP_EMPTY_LINES_MAX);
                buf_clear(&parser->head_buf);
                return 0;
        }
        r = check_line(parser, line);
        if (r)
                return r;
        error = llhttp_execute(&parser->llhttp, line.data, line.len);
        if (error != HPE_OK && !(error == HPE_PAUSED && parser->head_complete)) {
                snprintf(place, sizeof place, "line %u of the head", parser->line_no + 1);
                return http_parser_fail_llhttp(parser, place);
        }
        parser->line_no++;
        parser->line_at = parser->head_buf.len;
        *ret_complete = parser->head_complete;
        return 0;
}

int http_head_feed(HttpParser *parser, Slice data, size_t *used, bool *ret_complete)
{
        while (*used < data.len) {
                Slice rest = slice_skip(data, *used);
                ptrdiff_t lf = slice_find(rest, '\n');
                Slice line = slice_head(rest, lf < 0 ? rest.len : (size_t)lf + 1);
                Slice part = slice_head(line, parser->limits.head_max - parser->head_buf.len);
                size_t from = parser->head_buf.len;
                int r;

                r = buf_append_slice(&parser->head_buf, part);
                if (r)
                        return http_parser_fail(parser, r, "out of memory");
                *used += part.len;
                r = parser->line_no == 0 ? check_first_line(parser, from) : 0;
                if (r)
                        return r;
                if (part.len < line.len)
                        return http_parser_fail(parser, HTTP_E_HEAD_TOO_LARGE,
                                "the head is longer than %zu bytes", parser->limits.head_max);
                r = lf < 0 ? 0 : read_line(parser, ret_complete);
                if (r || *ret_complete)
                        return r;
        }
        return 0;
}
