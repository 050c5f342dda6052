/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/http-parser.h"

#include <errno.h>

static int fill_headers(HttpParser *parser)
{
        const char *base = buf_data(&parser->head_buf);

        if (parser->n_spans > parser->size_headers) {
                HttpHeader *headers;

                headers = reallocarray(parser->headers, parser->size_spans, sizeof *headers);
                if (!headers)
                        return http_parser_fail(parser, -ENOMEM, "out of memory");
                parser->headers = headers;
                parser->size_headers = parser->size_spans;
        }
        for (size_t i = 0; i < parser->n_spans; i++) {
                const HttpHeaderSpan *span = &parser->spans[i];

                parser->headers[i].name = slice_of(base + span->name_at, span->name_len);
                parser->headers[i].value =
                        slice_trim(slice_of(base + span->value_at, span->value_len));
        }
        parser->head.headers = parser->headers;
        parser->head.n_headers = parser->n_spans;
        return 0;
}

static int read_content_length(HttpParser *parser, Slice value)
{
        uint64_t length;

        if (parser->head.content_length >= 0)
                return http_parser_fail(
                        parser, HTTP_E_MALFORMED, "Content-Length stands more than once");
        if (!slice_to_u64(value, &length) || length > INT64_MAX)
                return http_parser_fail(
                        parser, HTTP_E_MALFORMED, "Content-Length is not a number of bytes");
        parser->head.content_length = (int64_t)length;
        return 0;
}

/* One line of Transfer-Encoding; *other: a coding that is not "chunked" was named. */
static int read_transfer_encoding(HttpParser *parser, Slice value, bool *other)
{
        do {
                Slice coding = slice_trim(slice_cut(&value, ','));

                if (parser->head.chunked)
                        return http_parser_fail(parser, HTTP_E_MALFORMED,
                                "Transfer-Encoding has something after \"chunked\"");
                if (slice_equal_case(coding, SLICE("chunked")))
                        parser->head.chunked = true;
                else if (http_is_token(coding))
                        *other = true;
                else
                        return http_parser_fail(parser, HTTP_E_MALFORMED,
                                "Transfer-Encoding is not a list of codings");
        } while (value.len);
        return 0;
}

static int read_framing(HttpParser *parser)
{
        HttpHead *head = &parser->head;
        bool encoded = false, other = false;
        int r = 0;

        for (size_t i = 0; i < head->n_headers && !r; i++) {
                Slice name = head->headers[i].name;

                if (slice_equal_case(name, SLICE("content-length"))) {
                        r = read_content_length(parser, head->headers[i].value);
                } else if (slice_equal_case(name, SLICE("transfer-encoding"))) {
                        encoded = true;
                        r = read_transfer_encoding(parser, head->headers[i].value, &other);
                }
        }
        if (r || !encoded)
                return r;
        if (head->content_length >= 0)
                return http_parser_fail(
                        parser, HTTP_E_MALFORMED, "Content-Length stands beside Transfer-Encoding");
        if (!head->chunked)
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "Transfer-Encoding does not end with \"chunked\"");
        if (other)
                return http_parser_fail(parser, HTTP_E_NOT_IMPLEMENTED,
                        "Transfer-Encoding names a coding other than \"chunked\"");
        if (head->minor == 0)
                return http_parser_fail(
                        parser, HTTP_E_MALFORMED, "Transfer-Encoding in an HTTP/1.0 message");
        /* Two readings of the same head must not differ. */
        if (!(parser->llhttp.flags & F_CHUNKED))
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "Transfer-Encoding is not written as \"chunked\"");
        return 0;
}

static bool is_host_char(char c)
{
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               (c && strchr("-._~%", c));
}

/* host, host:port, [v6], [v6]:port; empty is allowed, as RFC 9112 3.2 has it for "Host:" */
static bool is_authority(Slice text)
{
        Slice port = { 0 };
        size_t i = 0;

        if (text.len && text.data[0] == '[') {
                for (i = 1; i < text.len && text.data[i] != ']'; i++)
                        if (!is_host_char(text.data[i]) && text.data[i] != ':')
                                return false;
                if (i == text.len || i == 1)
                        return false;
                i++;
        } else {
                while (i < text.len && is_host_char(text.data[i]))
                        i++;
        }
        if (i == text.len)
                return true;
        if (text.data[i] != ':')
                return false;
        port = slice_skip(text, i + 1);
        for (i = 0; i < port.len; i++)
                if (port.data[i] < '0' || port.data[i] > '9')
                        return false;
        return port.len <= 5;
}

static int read_host(HttpParser *parser)
{
        HttpHead *head = &parser->head;
        unsigned hosts = 0;

        for (size_t i = 0; i < head->n_headers; i++)
                if (slice_equal_case(head->headers[i].name, SLICE("host"))) {
                        head->authority = head->headers[i].value;
                        hosts++;
                }
        if (hosts > 1)
                return http_parser_fail(parser, HTTP_E_MALFORMED, "Host stands more than once");
        if (hosts == 0 && head->minor > 0)
                return http_parser_fail(
                        parser, HTTP_E_MALFORMED, "an HTTP/1.1 request needs a Host header");
        if (!is_authority(head->authority))
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "Host is not a host name or address with an optional port");
        return 0;
}

/* "http://host/path?query": its host counts, not the Host header (RFC 9112 3.2.2). */
static int read_absolute_target(HttpParser *parser, Slice *path)
{
        Slice rest = *path;
        Slice scheme = slice_cut(&rest, ':');
        size_t i;

        if ((!slice_equal_case(scheme, SLICE("http")) &&
                    !slice_equal_case(scheme, SLICE("https"))) ||
                !slice_has_prefix(rest, SLICE("//")))
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "the request target is neither a path nor an http URL");
        rest = slice_skip(rest, 2);
        for (i = 0; i < rest.len && rest.data[i] != '/' && rest.data[i] != '?'; i++)
                ;
        parser->head.authority = slice_head(rest, i);
        if (i == 0 || !is_authority(parser->head.authority))
                return http_parser_fail(parser, HTTP_E_MALFORMED,
                        "the URL in the request line has no host name or address");
        *path = slice_skip(rest, i);
        return 0;
}

static int read_target(HttpParser *parser)
{
        HttpHead *head = &parser->head;
        Slice path = head->target;
        int r;

        if (slice_find(path, '#') >= 0)
                return http_parser_fail(
                        parser, HTTP_E_MALFORMED, "the request target has a fragment (#)");
        if (slice_equal(path, SLICE("*"))) {
                if (!slice_equal(head->method, SLICE("OPTIONS")))
                        return http_parser_fail(parser, HTTP_E_MALFORMED,
                                "the target * goes with the method OPTIONS alone");
                head->path = path;
                return 0;
        }
        if (!slice_has_prefix(path, SLICE("/"))) {
                r = read_absolute_target(parser, &path);
                if (r)
                        return r;
        }
        head->query = path;
        head->path = slice_cut(&head->query, '?');
        if (head->path.len == 0)
                head->path = SLICE("/");
        return 0;
}

static int interpret_request(HttpParser *parser)
{
        HttpHead *head = &parser->head;
        const char *base = buf_data(&parser->head_buf);
        int r;

        head->method = slice_of(base, parser->target_at - 1);
        head->target = slice_of(base + parser->target_at, parser->target_end - parser->target_at);
        r = read_host(parser);
        if (!r)
                r = read_target(parser);
        if (r)
                return r;
        if (head->chunked)
                parser->framing = HTTP_FRAMING_CHUNKED;
        else
                parser->framing =
                        head->content_length > 0 ? HTTP_FRAMING_LENGTH : HTTP_FRAMING_NONE;
        head->upgrade = head->minor > 0 && http_head_find(head, SLICE("upgrade")) &&
                        http_head_has_token(head, SLICE("connection"), SLICE("upgrade"));
        head->expect_continue = head->minor > 0 &&
                                http_head_has_token(head, SLICE("expect"), SLICE("100-continue"));
        return 0;
}

static void interpret_response(HttpParser *parser)
{
        HttpHead *head = &parser->head;
        bool never = head->status < 200 || head->status == 204;

        head->upgrade = head->status == 101;
        if (never || head->status == 304 || parser->head_request)
                parser->framing = HTTP_FRAMING_NONE;
        else if (head->chunked)
                parser->framing = HTTP_FRAMING_CHUNKED;
        else if (head->content_length >= 0)
                parser->framing = head->content_length ? HTTP_FRAMING_LENGTH : HTTP_FRAMING_NONE;
        else
                parser->framing = HTTP_FRAMING_CLOSE;
        /* A sender that announces a body where none may be: what follows cannot be trusted. */
        if (parser->framing == HTTP_FRAMING_CLOSE ||
                (never && (head->chunked || head->content_length > 0)))
                head->keep_alive = false;
}

int http_head_interpret(HttpParser *parser)
{
        HttpHead *head = &parser->head;
        int r;

        r = fill_headers(parser);
        if (!r)
                r = read_framing(parser);
        if (r)
                return r;
        head->keep_alive = !http_head_has_token(head, SLICE("connection"), SLICE("close")) &&
                           (head->minor > 0 || http_head_has_token(head, SLICE("connection"),
                                                       SLICE("keep-alive")));
        if (parser->kind == HTTP_REQUEST) {
                r = interpret_request(parser);
                if (r)
                        return r;
        } else {
                interpret_response(parser);
        }
        head->has_body = parser->framing != HTTP_FRAMING_NONE;
        return 0;
}

const HttpHeader *http_head_find(const HttpHead *head, Slice name)
{
        for (size_t i = 0; i < head->n_headers; i++)
                if (slice_equal_case(head->headers[i].name, name))
                        return &head->headers[i];
        return NULL;
}

bool http_head_has_token(const HttpHead *head, Slice name, Slice token)
{
        for (size_t i = 0; i < head->n_headers; i++) {
                Slice rest = head->headers[i].value;

                if (!slice_equal_case(head->headers[i].name, name))
                        continue;
                while (rest.len)
                        if (slice_equal_case(slice_trim(slice_cut(&rest, ',')), token))
                                return true;
        }
        return false;
}
