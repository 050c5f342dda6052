/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/edge/proxy-call.h"
#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>

#define TIMEOUT_MS_MAX UINT64_C(86400000)

bool proxy_is_our_header(Slice name)
{
        return name.len >= 11 && slice_equal_case(slice_head(name, 11), SLICE("X-Durabled-"));
}

static bool byte_is_plain(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '.' || c == '_' || c == '~';
}

static int append_encoded(Buf *buf, Slice text)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < text.len; i++)
                if (byte_is_plain(text.data[i]))
                        r = buf_append_char(buf, text.data[i]);
                else
                        r = buf_printf(buf, "%%%02X", (unsigned char)text.data[i]);
        return r;
}

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return -1;
}

/* malloc'd; *ret_len bytes. 0, -EPROTO, -ENOMEM. */
static int decode(Slice text, char **ret, size_t *ret_len)
{
        _cleanup_(free_p) char *out = malloc(text.len + 1);
        size_t n = 0;

        if (!out)
                return -ENOMEM;
        for (size_t i = 0; i < text.len; i++) {
                char c = text.data[i];

                if (c == '%') {
                        int high = i + 2 < text.len ? hex_digit(text.data[i + 1]) : -1;
                        int low = i + 2 < text.len ? hex_digit(text.data[i + 2]) : -1;

                        if (high < 0 || low < 0)
                                return -EPROTO;
                        c = (char)(high << 4 | low);
                        i += 2;
                }
                out[n++] = c;
        }
        out[n] = '\0';
        *ret = TAKE_PTR(out);
        *ret_len = n;
        return 0;
}

static int write_encoded(Buf *buf, const char *name, Slice value)
{
        int r;

        if (value.len == 0)
                return 0;
        r = buf_printf(buf, "%s: ", name);
        if (r == 0)
                r = append_encoded(buf, value);
        return r == 0 ? buf_append_slice(buf, SLICE("\r\n")) : r;
}

static bool header_is_passed_on(Slice name)
{
        static const Slice dropped[] = {
                { "Host", 4 },
                { "Connection", 10 },
                { "Content-Length", 14 },
                { "Transfer-Encoding", 17 },
                { "Keep-Alive", 10 },
                { "Proxy-Connection", 16 },
                { "TE", 2 },
                { "Trailer", 7 },
                { "Upgrade", 7 },
                { "Expect", 6 },
        };

        for (size_t i = 0; i < ELEMENTSOF(dropped); i++)
                if (slice_equal_case(name, dropped[i]))
                        return false;
        return !proxy_is_our_header(name);
}

static int write_object(Buf *buf, unsigned class_index, const ObjectId *id, Slice name)
{
        char text[IDENT_TEXT_SIZE];
        int r;

        ident_format(id, text);
        r = buf_printf(buf, "X-Durabled-Class: %u\r\nX-Durabled-Object: %s\r\n", class_index, text);
        return r == 0 ? write_encoded(buf, "X-Durabled-Name", name) : r;
}

static int write_caller(Buf *buf, const Request *request, uint64_t deadline, uint64_t now)
{
        uint64_t left = deadline > now ? (deadline - now) / NSEC_PER_MSEC : 0;
        int r = buf_printf(buf, "X-Durabled-Request: %s\r\n", request->id);

        if (r == 0 && deadline)
                r = buf_printf(buf, "X-Durabled-Timeout: %llu\r\n",
                        (unsigned long long)MIN(left, TIMEOUT_MS_MAX));
        if (r == 0)
                r = write_encoded(buf, "X-Durabled-Chain", request->chain);
        if (r == 0)
                r = write_encoded(buf, "X-Durabled-Peer", request->peer);
        if (r == 0)
                r = write_encoded(buf, "X-Durabled-Scheme", request->scheme);
        if (r == 0)
                r = write_encoded(buf, "X-Durabled-Authority", request->authority);
        return r;
}

int proxy_write_head(Buf *buf, unsigned class_index, const ObjectId *id, Slice name,
        const Request *request, uint64_t deadline, uint64_t now)
{
        /* The authority that the caller means travels encoded: it may be none that HTTP allows. */
        int r = http_write_request(buf, request->method, request->target);

        if (r == 0)
                r = buf_append_slice(buf, SLICE("Host: object\r\n"));
        if (r == 0)
                r = write_object(buf, class_index, id, name);
        if (r == 0)
                r = write_caller(buf, request, deadline, now);
        for (size_t i = 0; r == 0 && i < request->n_headers; i++)
                if (header_is_passed_on(request->headers[i].name))
                        r = http_write_header(
                                buf, request->headers[i].name, request->headers[i].value);
        if (r == 0 && (request->body_len > 0 || !slice_equal(request->method, SLICE("GET"))))
                r = buf_printf(
                        buf, "Content-Length: %llu\r\n", (unsigned long long)request->body_len);
        return r == 0 ? http_write_head_end(buf) : r;
}

/* The decoded values of our headers, while a request is put together. */
typedef struct Caller {
        char *chain, *peer, *scheme, *authority;
        HttpHeader *headers;
        size_t n_headers;
        char *body;
        int body_fd;
        bool has_class, has_object;
} Caller;

static void caller_done(Caller *caller)
{
        free(caller->chain);
        free(caller->peer);
        free(caller->scheme);
        free(caller->authority);
        free(caller->headers);
        free(caller->body);
        close_p(&caller->body_fd);
}

static int take_text(Slice value, char **to, Slice *ret)
{
        size_t len;
        int r;

        if (*to)
                return -EPROTO; /* twice */
        r = decode(value, to, &len);
        if (r == 0)
                *ret = slice_of(*to, len);
        return r;
}

static int take_header(
        Slice name, Slice value, Caller *caller, RequestParts *parts, ProxyCall *call, char *id)
{
        uint64_t number;

        name = slice_skip(name, 11);
        if (slice_equal_case(name, SLICE("Class"))) {
                if (!slice_to_u64(value, &number) || number > UINT32_MAX)
                        return -EPROTO;
                call->class_index = (unsigned)number;
                caller->has_class = true;
        } else if (slice_equal_case(name, SLICE("Object"))) {
                if (ident_parse(value, &call->id) != 0)
                        return -EPROTO;
                caller->has_object = true;
        } else if (slice_equal_case(name, SLICE("Name"))) {
                return take_text(value, &call->name_data, &call->name);
        } else if (slice_equal_case(name, SLICE("Chain"))) {
                return take_text(value, &caller->chain, &parts->chain);
        } else if (slice_equal_case(name, SLICE("Peer"))) {
                return take_text(value, &caller->peer, &parts->peer);
        } else if (slice_equal_case(name, SLICE("Scheme"))) {
                return take_text(value, &caller->scheme, &parts->scheme);
        } else if (slice_equal_case(name, SLICE("Authority"))) {
                return take_text(value, &caller->authority, &parts->authority);
        } else if (slice_equal_case(name, SLICE("Timeout"))) {
                if (!slice_to_u64(value, &number) || number > TIMEOUT_MS_MAX)
                        return -EPROTO;
                parts->deadline = clock_monotonic_ns() + number * NSEC_PER_MSEC;
        } else if (slice_equal_case(name, SLICE("Request"))) {
                if (value.len != 16)
                        return -EPROTO;
                memcpy(id, value.data, 16);
        } else {
                return -EPROTO;
        }
        return 0;
}

static int copy_body(const Request *received, Caller *caller, RequestParts *parts)
{
        if (received->body_fd >= 0) {
                caller->body_fd = fcntl(received->body_fd, F_DUPFD_CLOEXEC, 3);
                if (caller->body_fd < 0)
                        return -errno;
                parts->body_fd_len = received->body_len;
        } else if (received->body.len > 0) {
                caller->body = malloc(received->body.len);
                if (!caller->body)
                        return -ENOMEM;
                memcpy(caller->body, received->body.data, received->body.len);
                parts->body_len = received->body.len;
        }
        return 0;
}

static int take_headers(
        const Request *received, Caller *caller, RequestParts *parts, ProxyCall *call, char *id)
{
        caller->headers = calloc(received->n_headers + 1, sizeof *caller->headers);
        if (!caller->headers)
                return -ENOMEM;
        for (size_t i = 0; i < received->n_headers; i++) {
                HttpHeader header = received->headers[i];
                int r = 0;

                if (proxy_is_our_header(header.name))
                        r = take_header(header.name, header.value, caller, parts, call, id);
                else if (!slice_equal_case(header.name, SLICE("Host")))
                        caller->headers[caller->n_headers++] = header;
                if (r < 0)
                        return r;
        }
        if (!caller->has_class || !caller->has_object)
                return -EPROTO;
        if (parts->authority.len > 0)
                caller->headers[caller->n_headers++] =
                        (HttpHeader){ SLICE("Host"), parts->authority };
        parts->headers = caller->headers;
        parts->n_headers = caller->n_headers;
        return 0;
}

int proxy_parse(Request *received, ProxyCall *ret)
{
        _cleanup_(caller_done) Caller caller = { .body_fd = -1 };
        _cleanup_(proxy_call_done) ProxyCall call = { 0 };
        RequestParts parts = {
                .method = received->method,
                .target = received->target,
                .path = received->path,
                .query = received->query,
        };
        char id[17] = "";
        int r;

        r = take_headers(received, &caller, &parts, &call, id);
        if (r == 0)
                r = copy_body(received, &caller, &parts);
        if (r < 0)
                return r;
        parts.id = id[0] ? id : NULL;
        parts.body = caller.body;
        parts.body_fd = caller.body_fd;
        r = request_new(&parts, &call.request);
        if (r < 0)
                return r;
        caller.body = NULL;
        caller.body_fd = -1;
        *ret = call;
        call = (ProxyCall){ 0 };
        return 0;
}

void proxy_call_done(ProxyCall *call)
{
        call->request = request_unref(call->request);
        free(call->name_data);
        call->name_data = NULL;
        call->name = (Slice){ 0 };
}
