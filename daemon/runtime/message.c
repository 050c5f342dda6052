/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/message.h"

#include "lib/base/file.h"

#include <errno.h>

#define REQUEST_ID_LEN 16u

static void request_draw_id(char out[REQUEST_ID_LEN + 1])
{
        /* One random_hex() a thread, then a count: ids need to differ, not to be secret, and a
         * system call for each request is dear. */
        static _Thread_local uint64_t next;
        static const char digits[] = "0123456789abcdef";
        uint64_t value;

        if (next == 0) {
                random_hex(out, REQUEST_ID_LEN / 2);
                next = strtoull(out, NULL, 16);
        }
        /* Weyl sequence and a mixing step of SplitMix64 (Steele, Lea, Flood, 2014): no two alike
         * until it wraps. */
        next += UINT64_C(0x9e3779b97f4a7c15);
        value = next;
        value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
        value ^= value >> 31;
        for (size_t i = 0; i < REQUEST_ID_LEN; i++)
                out[i] = digits[value >> (60 - 4 * i) & 15];
        out[REQUEST_ID_LEN] = '\0';
}

static Slice pack(char **to, Slice from)
{
        Slice copy = { *to, from.len };

        if (from.len)
                memcpy(*to, from.data, from.len);
        *to += from.len;
        return copy;
}

static size_t request_text_len(const RequestParts *parts)
{
        size_t len = parts->method.len + parts->scheme.len + parts->authority.len +
                     parts->target.len + parts->path.len + parts->query.len + parts->peer.len +
                     parts->chain.len;

        for (size_t i = 0; i < parts->n_headers; i++)
                len += parts->headers[i].name.len + parts->headers[i].value.len;
        return len;
}

int request_new(RequestParts *parts, Request **ret)
{
        HttpHeader *headers;
        Request *request;
        char *to;

        if (parts->id && strlen(parts->id) != REQUEST_ID_LEN)
                return -EINVAL;
        request = malloc(
                sizeof *request + parts->n_headers * sizeof *headers + request_text_len(parts));
        if (!request)
                return -ENOMEM;
        headers = (HttpHeader *)(request + 1);
        to = (char *)(headers + parts->n_headers);
        *request = (Request){
                .refs = 1,
                .method = pack(&to, parts->method),
                .scheme = pack(&to, parts->scheme),
                .authority = pack(&to, parts->authority),
                .target = pack(&to, parts->target),
                .path = pack(&to, parts->path),
                .query = pack(&to, parts->query),
                .peer = pack(&to, parts->peer),
                .chain = pack(&to, parts->chain),
                .headers = headers,
                .n_headers = parts->n_headers,
                .body_fd = -1,
                .deadline = parts->deadline,
        };
        for (size_t i = 0; i < parts->n_headers; i++)
                headers[i] = (HttpHeader){
                        .name = pack(&to, parts->headers[i].name),
                        .value = pack(&to, parts->headers[i].value),
                };
        if (parts->id)
                memcpy(request->id, parts->id, sizeof request->id);
        else
                request_draw_id(request->id);
        if (parts->body_fd >= 0) {
                request->body_fd = TAKE_FD(parts->body_fd);
                request->body_len = parts->body_fd_len;
        } else {
                request->body = (Slice){ TAKE_PTR(parts->body), parts->body_len };
                request->body_len = parts->body_len;
        }
        *ret = request;
        return 0;
}

Request *request_ref(Request *request)
{
        __atomic_add_fetch(&request->refs, 1, __ATOMIC_RELAXED);
        return request;
}

Request *request_unref(Request *request)
{
        if (request && __atomic_sub_fetch(&request->refs, 1, __ATOMIC_ACQ_REL) == 0) {
                free((char *)(uintptr_t)request->body.data);
                if (request->body_fd >= 0)
                        close(request->body_fd);
                free(request);
        }
        return NULL;
}

const HttpHeader *request_find_header(const Request *request, Slice name)
{
        for (size_t i = 0; i < request->n_headers; i++)
                if (slice_equal_case(request->headers[i].name, name))
                        return &request->headers[i];
        return NULL;
}

Chunk *chunk_new(const void *data, size_t len)
{
        Chunk *chunk;

        if (len > SIZE_MAX / 2)
                return NULL;
        chunk = malloc(sizeof *chunk + len);
        if (!chunk)
                return NULL;
        list_init(&chunk->link);
        chunk->len = len;
        if (len && data)
                memcpy(chunk->data, data, len);
        return chunk;
}

Chunk *chunk_free(Chunk *chunk)
{
        free(chunk);
        return NULL;
}
