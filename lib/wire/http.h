/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * HTTP/1.1 on bytes: parsing of requests and responses, writing of heads and chunks
 *
 * Over llhttp in its strict mode, which this room alone includes. No file descriptor, no clock, no
 * thread of its own: a parser belongs to its caller's thread. Source: RFC 9110, RFC 9112.
 *
 *   HEAD ---head complete---> BODY ---last byte---> END ---http_parser_next()---> HEAD
 *     \______________________________ any error ______________________________/-> FAILED
 *
 * Guarantees:
 * 1. What http_parser_feed() reports used is never looked at again; the caller keeps the rest.
 * 2. The head's slices point into the parser and stay valid until http_parser_next() or _free().
 * 3. A head beyond the limits is refused before more than head_max bytes are kept.
 * 4. Refused, with HTTP_E_MALFORMED and a reason: Content-Length beside Transfer-Encoding or more
 *    than once, a last transfer coding other than "chunked", bare CR or LF in the head or trailer,
 *    obs-fold, no or more than one Host (HTTP/1.1 requests), control bytes in the target.
 * 5. Events, bodies (joined) and verdicts are the same however the bytes were cut into pieces.
 * 6. What stands around chunks is bounded: the line of a size by 256 bytes, the extensions of a
 *    message by 4096, its trailer by head_max. Extensions and trailer are checked and dropped.
 */

#include "lib/base/buf.h"

enum {
        _HTTP_E_SUCCESS = 0,
        HTTP_E_MALFORMED,       /* 400 */
        HTTP_E_HEAD_TOO_LARGE,  /* 431: the head as a whole, one header or too many headers */
        HTTP_E_URI_TOO_LONG,    /* 414 */
        HTTP_E_BODY_TOO_LARGE,  /* 413: from Content-Length or, chunked, while reading */
        HTTP_E_VERSION,         /* 505 */
        HTTP_E_NOT_IMPLEMENTED, /* 501: a transfer coding before "chunked", or a method that llhttp
                                   does not know; also CONNECT */
};

typedef struct HttpHeader {
        Slice name;  /* as sent */
        Slice value; /* trimmed */
} HttpHeader;

typedef struct HttpLimits {
        size_t head_max;    /* bytes of the request line and headers; 0: 65536 */
        size_t target_max;  /* bytes of the request target; 0: 16384 */
        size_t headers_max; /* how many; 0: 128 */
        uint64_t body_max;  /* bytes; 0: 100 MiB */
} HttpLimits;

typedef struct HttpHead {
        Slice method;    /* requests */
        Slice target;    /* as sent */
        Slice authority; /* Host, or the authority of an absolute target */
        Slice path;      /* of the target, as sent, never empty ("/" or "*") */
        Slice query;     /* without '?', empty when absent */
        unsigned status; /* responses */
        unsigned minor;  /* HTTP/1.minor: 0 or 1 */
        const HttpHeader *headers;
        size_t n_headers;
        int64_t content_length; /* -1: absent */
        bool chunked;
        bool has_body; /* a body follows, of any framing */
        bool keep_alive;
        bool upgrade;
        bool expect_continue;
} HttpHead;

typedef enum HttpEvent {
        HTTP_EVENT_MORE, /* all bytes used, nothing new: feed more */
        HTTP_EVENT_HEAD, /* http_parser_get_head() is ready */
        HTTP_EVENT_BODY, /* *ret_body holds bytes of the body (inside data) */
        HTTP_EVENT_END,  /* the message is complete */
} HttpEvent;

typedef enum HttpKind { HTTP_REQUEST, HTTP_RESPONSE } HttpKind;

typedef struct HttpParser HttpParser;

int http_parser_new(HttpKind kind, const HttpLimits *limits, HttpParser **ret);
HttpParser *http_parser_free(HttpParser *parser);
DEFINE_CLEANUP(HttpParser *, http_parser_free)

/*
 * Takes bytes until the next event. *ret_used is how many it took, also on error. Call again with
 * the rest, which may be empty, until HTTP_EVENT_MORE; after HTTP_EVENT_END http_parser_next()
 * comes first. 0, a positive HTTP_E_*, or -ENOMEM; a failure is final and every later call repeats
 * it.
 *
 * A Content-Length is compared with body_max by the first call after HTTP_EVENT_HEAD, even with no
 * data: a caller that is to answer "100 Continue" makes that call first.
 *
 * After a request with upgrade, or a response 101, HTTP_EVENT_END comes before the first byte that
 * is not HTTP any more. CONNECT, which would have no END, is refused.
 */
int http_parser_feed(
        HttpParser *parser, Slice data, size_t *ret_used, HttpEvent *ret_event, Slice *ret_body);
/*
 * The stream ended: for responses framed by the end of the connection *ret_event is HTTP_EVENT_END,
 * between messages HTTP_EVENT_MORE, and inside one it is HTTP_E_MALFORMED.
 */
int http_parser_finish(HttpParser *parser, HttpEvent *ret_event);
const HttpHead *http_parser_get_head(const HttpParser *parser);
/* Why the last feed failed, for people: a static or parser-owned string. */
const char *http_parser_get_error(const HttpParser *parser);
/* A response to HEAD has no body whatever its head says: call before the head is fed. It holds for
 * all responses to come, 1xx and the final one, until it is set again. */
void http_parser_set_head_request(HttpParser *parser, bool head_request);
/* Raises or lowers body_max for the message whose head was just delivered. */
void http_parser_set_body_max(HttpParser *parser, uint64_t body_max);
/* After HTTP_EVENT_END: ready for the next message of the connection. */
void http_parser_next(HttpParser *parser);
/* True before the first byte of a message has been fed. */
bool http_parser_is_idle(const HttpParser *parser);

/* The first header of that name (case-insensitive), or NULL. */
const HttpHeader *http_head_find(const HttpHead *head, Slice name);
/* Whether a comma-separated header (all lines of it) lists the token, case-insensitive. */
bool http_head_has_token(const HttpHead *head, Slice name, Slice token);

/* "OK" for 200, "Unknown" for what has no standard phrase. */
const char *http_status_reason(unsigned status);
bool http_is_token(Slice name);        /* a valid header name or method */
bool http_is_field_value(Slice value); /* no control bytes but tab */

/* Decodes %XX of a path; false on a malformed escape or a %00. The buffer gets the bytes. */
bool http_path_decode(Slice path, Buf *buf);

/* Writers append to buf; 0, -ENOMEM or -ENOBUFS. */
int http_write_status(Buf *buf, unsigned status); /* status line */
/* Request line; -EINVAL when the method is no token or the target has blanks or control bytes. */
int http_write_request(Buf *buf, Slice method, Slice target);
int http_write_header(
        Buf *buf, Slice name, Slice value); /* refuses bytes that break framing: -EINVAL */
int http_write_head_end(Buf *buf);
int http_write_chunk_head(Buf *buf, size_t len); /* "1a\r\n"; after the data "\r\n" */
int http_write_last_chunk(Buf *buf);             /* "0\r\n\r\n" */
/* "Sun, 22 Nov 2026 21:00:00 GMT" for a time in seconds since 1970; 30 bytes with the NUL. */
void http_format_date(int64_t seconds, char out[30]);
/* All three forms of RFC 9110 5.6.7; false when it is none. Of two digits of a year 70 to 99 are
 * the last century. */
bool http_parse_date(Slice text, int64_t *ret_seconds);
