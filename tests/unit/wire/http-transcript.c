/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/wire/http-transcript.h"

#include <errno.h>

static void write_slice(Buf *buf, const char *name, Slice slice)
{
        dd_assert(!buf_printf(buf, "%s=", name));
        dd_assert(!buf_append_json(buf, slice));
        dd_assert(!buf_append_char(buf, '\n'));
}

static void write_head(Buf *buf, const HttpHead *head, HttpKind kind)
{
        if (kind == HTTP_REQUEST) {
                dd_assert(head->path.len > 0);
                write_slice(buf, "method", head->method);
                write_slice(buf, "target", head->target);
                write_slice(buf, "authority", head->authority);
                write_slice(buf, "path", head->path);
                write_slice(buf, "query", head->query);
        }
        dd_assert(!buf_printf(buf, "status=%u minor=%u length=%lld%s%s%s%s%s\n", head->status,
                head->minor, (long long)head->content_length, head->chunked ? " chunked" : "",
                head->has_body ? " body" : "", head->keep_alive ? " keep" : "",
                head->upgrade ? " upgrade" : "", head->expect_continue ? " expect" : ""));
        for (size_t i = 0; i < head->n_headers; i++) {
                dd_assert(http_is_token(head->headers[i].name));
                dd_assert(http_is_field_value(head->headers[i].value));
                write_slice(buf, "name", head->headers[i].name);
                write_slice(buf, "value", head->headers[i].value);
        }
}

typedef struct Run {
        const Transcript *how;
        HttpParser *parser;
        Buf *buf;
        uint64_t body;
        bool in_body; /* the last thing written is a piece of a body */
        bool upgraded;
} Run;

static void write_event(Run *run, HttpEvent event, Slice body)
{
        if (run->in_body && event != HTTP_EVENT_BODY && event != HTTP_EVENT_MORE) {
                dd_assert(!buf_append_char(run->buf, '\n'));
                run->in_body = false;
        }
        switch (event) {
        case HTTP_EVENT_HEAD:
                run->body = 0;
                write_head(run->buf, http_parser_get_head(run->parser), run->how->kind);
                break;
        case HTTP_EVENT_BODY:
                dd_assert(body.len > 0);
                dd_assert(http_parser_get_head(run->parser)->has_body);
                if (!run->in_body)
                        dd_assert(!buf_append_string(run->buf, "body="));
                dd_assert(!buf_append_json(run->buf, body));
                run->in_body = true;
                run->body += body.len;
                if (run->how->limits.body_max)
                        dd_assert(run->body <= run->how->limits.body_max);
                break;
        case HTTP_EVENT_END:
                dd_assert(!buf_append_string(run->buf, "end\n"));
                run->upgraded = run->how->kind == HTTP_RESPONSE &&
                                http_parser_get_head(run->parser)->upgrade;
                http_parser_next(run->parser);
                dd_assert(http_parser_is_idle(run->parser));
                break;
        case HTTP_EVENT_MORE:
        default:
                break;
        }
}

static void write_failure(Run *run, int r)
{
        const char *error = http_parser_get_error(run->parser);

        dd_assert(r > 0 || r == -ENOMEM);
        dd_assert(error && *error);
        dd_assert(!buf_printf(run->buf, "failed=%d %s\n", r, error));
}

/* Feeds one piece until the parser wants more. */
static int feed_piece(Run *run, Slice piece)
{
        HttpEvent event = HTTP_EVENT_HEAD;

        while (event != HTTP_EVENT_MORE && !run->upgraded) {
                Slice body = { 0 };
                size_t used;
                int r;

                r = http_parser_feed(run->parser, piece, &used, &event, &body);
                dd_assert(used <= piece.len);
                if (r)
                        return r;
                if (event == HTTP_EVENT_MORE)
                        dd_assert(used == piece.len);
                if (body.len)
                        dd_assert(body.data >= piece.data &&
                                  body.data + body.len <= piece.data + used);
                write_event(run, event, body);
                piece = slice_skip(piece, used);
        }
        return 0;
}

int http_transcript(
        const Transcript *how, Slice stream, TranscriptPiece piece, void *data, Buf *buf)
{
        _cleanup_(http_parser_free_p) HttpParser *parser = NULL;
        Run run = { .how = how, .buf = buf };
        HttpEvent event;
        size_t at = 0;
        int r;

        r = http_parser_new(how->kind, &how->limits, &parser);
        dd_assert(r == 0);
        run.parser = parser;
        http_parser_set_head_request(parser, how->head_request);
        while (!r && at < stream.len && !run.upgraded) {
                size_t n = piece ? piece(data, at, stream.len - at) : stream.len - at;
                char *copy;

                /* A block of its own, so that a sanitizer sees a read beyond the piece. */
                n = MAX(n, (size_t)1);
                n = MIN(n, stream.len - at);
                copy = slice_dup(slice_head(slice_skip(stream, at), n));
                dd_assert(copy);
                r = feed_piece(&run, slice_of(copy, n));
                free(copy);
                at += n;
        }
        if (!r && how->finish) {
                r = http_parser_finish(parser, &event);
                if (!r)
                        write_event(&run, event, (Slice){ 0 });
        }
        if (run.in_body)
                dd_assert(!buf_append_char(buf, '\n'));
        if (r)
                write_failure(&run, r);
        else
                dd_assert(
                        !buf_printf(buf, "%s\n", http_parser_is_idle(parser) ? "idle" : "inside"));
        return r;
}
