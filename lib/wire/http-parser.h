/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The inside of a HttpParser, shared by the http-*.c files of this room alone
 *
 *   http-parse.c   states, bodies, trailers: what http_parser_feed() does
 *   http-head.c    collects the lines of a head, each checked and then read by llhttp
 *   http-fields.c  what a complete head means: framing, host, target, persistence
 *
 * The head is kept in one buffer and llhttp sees it line by line, so that no verdict depends on
 * how the bytes arrived. Bodies are never kept. llhttp decodes the chunked coding; a body of known
 * length or up to the end of the stream is counted here.
 */

#include "lib/wire/http.h"

/* llhttp names two of its constants as http.h does. */
#define HTTP_REQUEST LLHTTP_REQUEST
#define HTTP_RESPONSE LLHTTP_RESPONSE
#include <llhttp.h>
#undef HTTP_REQUEST
#undef HTTP_RESPONSE

#define HTTP_EMPTY_LINES_MAX 4u  /* before a request line */
#define HTTP_CHUNK_LINE_MAX 256u /* the line that gives a chunk's size, extensions included */
#define HTTP_CHUNK_EXTENSIONS_MAX 4096u /* bytes of such lines that no size needs, a message */

typedef enum HttpState {
        HTTP_STATE_HEAD,
        HTTP_STATE_BODY, /* the head is complete; also where no body follows, until END is told */
        HTTP_STATE_END,
        HTTP_STATE_FAILED,
} HttpState;

typedef enum HttpFraming {
        HTTP_FRAMING_NONE,
        HTTP_FRAMING_LENGTH,
        HTTP_FRAMING_CHUNKED,
        HTTP_FRAMING_CLOSE, /* a response up to the end of the stream */
} HttpFraming;

/* Places in the head's buffer, which moves while it grows. */
typedef struct HttpHeaderSpan {
        uint32_t name_at, name_len;
        uint32_t value_at, value_len;
} HttpHeaderSpan;

struct HttpParser {
        HttpKind kind;
        HttpState state;
        HttpLimits limits;
        llhttp_t llhttp;
        int failure; /* HTTP_E_* or -ENOMEM once FAILED */
        char error[200];

        Buf head_buf;
        size_t line_at;   /* where the current line starts */
        unsigned line_no; /* complete lines */
        unsigned empty_lines;
        unsigned spaces;              /* of the request line */
        size_t target_at, target_end; /* between its first two spaces */
        bool in_header, has_value;    /* llhttp is inside a header; its value has started */
        bool head_complete;
        HttpHeaderSpan *spans;
        size_t n_spans, size_spans;
        HttpHeader *headers;
        size_t size_headers;
        HttpHead head;

        bool head_request;
        HttpFraming framing;
        uint64_t body_max;
        uint64_t body_seen;
        uint64_t chunk_left;     /* bytes of the current chunk */
        bool chunk_head;         /* llhttp has just read a chunk's size */
        bool in_trailer;         /* behind the last chunk */
        bool message_complete;   /* llhttp has read the empty line behind the trailer */
        size_t chunk_line;       /* bytes since the last chunk's data */
        size_t chunk_extensions; /* see HTTP_CHUNK_EXTENSIONS_MAX */
        size_t trailer_len;
        char trailer_last; /* last byte of the trailer, '\n' at its start */
};

/* Records why and fails the parser; returns code. */
int http_parser_fail(HttpParser *parser, int code, const char *format, ...) _printf_(3, 4);

/* Takes bytes of a head up to its end; *ret_complete then. */
int http_head_feed(HttpParser *parser, Slice data, size_t *used, bool *ret_complete);
/* Fills parser->head, ->framing from the complete head. */
int http_head_interpret(HttpParser *parser);
void http_head_reset(HttpParser *parser);
void http_head_free(HttpParser *parser);
extern const llhttp_settings_t http_llhttp_settings;
/* "the head" or "the trailer" */
int http_parser_fail_llhttp(HttpParser *parser, const char *place);
