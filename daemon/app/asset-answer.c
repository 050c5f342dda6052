/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/asset.h"

#include "lib/base/file.h"

#include <errno.h>
#include <stdio.h>

#define HEADERS_MAX 10u

typedef struct Answer {
        unsigned status;
        int64_t content_length;
        HttpHeader headers[HEADERS_MAX];
        size_t n_headers;
        char modified[30];
        char content_range[80];
        ByteRange range; /* what of the file is sent */
} Answer;

static void answer_add(Answer *answer, Slice name, Slice value)
{
        dd_assert(answer->n_headers < HEADERS_MAX);
        answer->headers[answer->n_headers++] = (HttpHeader){ name, value };
}

static Slice cache_control(const Asset *asset)
{
        if (name_has_hash(slice_from(asset->file)))
                return SLICE("public, max-age=31536000, immutable");
        return SLICE("public, max-age=0, must-revalidate");
}

static bool has_variants(const Asset *asset)
{
        return asset->variants[ASSET_BROTLI].exists || asset->variants[ASSET_GZIP].exists;
}

static void answer_describe(
        Answer *answer, const Asset *asset, AssetCoding coding, const AssetFile *file)
{
        static const Slice codings[_ASSET_CODINGS] = {
                [ASSET_BROTLI] = { "br", 2 },
                [ASSET_GZIP] = { "gzip", 4 },
        };

        answer_add(answer, SLICE("ETag"), slice_from(file->etag));
        answer_add(answer, SLICE("Last-Modified"), slice_from(answer->modified));
        answer_add(answer, SLICE("Cache-Control"), cache_control(asset));
        if (has_variants(asset))
                answer_add(answer, SLICE("Vary"), SLICE("Accept-Encoding"));
        if (answer->status == 304)
                return;
        answer_add(answer, SLICE("X-Content-Type-Options"), SLICE("nosniff"));
        answer_add(answer, SLICE("Accept-Ranges"), SLICE("bytes"));
        if (answer->content_range[0])
                answer_add(answer, SLICE("Content-Range"), slice_from(answer->content_range));
        if (answer->status == 416)
                return;
        answer_add(answer, SLICE("Content-Type"), slice_from(mime_find(slice_from(asset->file))));
        if (coding != ASSET_IDENTITY)
                answer_add(answer, SLICE("Content-Encoding"), codings[coding]);
}

/* Fills status, range and headers. */
static void answer_decide(Answer *answer, const Asset *asset, const Request *request,
        AssetCoding coding, const AssetFile *file)
{
        int64_t modified = file->mtime_ns / (int64_t)NSEC_PER_SEC;

        answer->status = 200;
        answer->range = (ByteRange){ 0, file->size };
        http_format_date(modified, answer->modified);
        if (negotiate_is_fresh(request, file, modified)) {
                answer->status = 304;
        } else {
                RangeResult range = negotiate_range(request, file, modified, &answer->range);

                if (range == RANGE_PART) {
                        answer->status = 206;
                        snprintf(answer->content_range, sizeof answer->content_range,
                                "bytes %llu-%llu/%llu", (unsigned long long)answer->range.offset,
                                (unsigned long long)(answer->range.offset + answer->range.len - 1),
                                (unsigned long long)file->size);
                } else if (range == RANGE_BEYOND) {
                        answer->status = 416;
                        snprintf(answer->content_range, sizeof answer->content_range,
                                "bytes */%llu", (unsigned long long)file->size);
                }
        }
        answer->content_length = (int64_t)answer->range.len;
        if (answer->status == 416)
                answer->content_length = 0;
        if (answer->status == 304)
                answer->content_length = -1;
        answer_describe(answer, asset, coding, file);
}

static AssetCoding choose(const Asset *asset, const Request *request)
{
        bool exists[_ASSET_CODINGS];

        /* Ranges count bytes of what is sent: they are only promised for the file itself. */
        if (!has_variants(asset) || request_find_header(request, SLICE("Range")))
                return ASSET_IDENTITY;
        for (size_t i = 0; i < _ASSET_CODINGS; i++)
                exists[i] = asset->variants[i].exists;
        return negotiate_coding(request, exists);
}

static int answer_redirect(const Asset *asset, const Request *request, Response *response)
{
        _cleanup_(free_p) char *location = NULL;
        HttpHeader headers[] = { { SLICE("Location"), { 0 } },
                { SLICE("Cache-Control"), SLICE("public, max-age=0, must-revalidate") } };
        ResponseHead *head;
        int r;

        if (asprintf(&location, "%.*s/%s%.*s", SLICE_FMT(request->path),
                    request->query.len ? "?" : "", SLICE_FMT(request->query)) < 0) {
                location = NULL;
                return -ENOMEM;
        }
        headers[0].value = slice_from(location);
        r = response_head_new(307, headers, ELEMENTSOF(headers), 0, &head);
        if (r)
                return r;
        response_finish(response, head, NULL);
        return 0;
}

/* Sends what Answer says of the file: from memory, or by a stream that reads fd (taken). */
static int answer_send(Assets *assets, const Answer *answer, const AssetFile *file, int *fd,
        bool body, Response *response)
{
        ResponseHead *head;
        Chunk *chunk = NULL;
        int r;

        r = response_head_new(
                answer->status, answer->headers, answer->n_headers, answer->content_length, &head);
        if (r)
                return r;
        if (body && file->data && answer->range.len) {
                chunk = chunk_new(file->data + answer->range.offset, (size_t)answer->range.len);
                if (!chunk) {
                        free(head);
                        return -ENOMEM;
                }
        }
        if (chunk || !body || answer->range.len == 0) {
                response_finish(response, head, chunk);
                return 0;
        }
        response_start(response, head);
        r = asset_stream(
                assets->options.ring, *fd, answer->range.offset, answer->range.len, response);
        if (r) /* the head is out, so to speak: the consumer has to see a failure */
                response_abort(response, 500, 0, "Out of memory.");
        else
                TAKE_FD(*fd);
        return 0;
}

int asset_answer(Assets *assets, Asset *asset, const Request *request, Response **ret)
{
        _cleanup_(response_unref_p) Response *response = NULL;
        _cleanup_(close_p) int fd = -1;
        AssetCoding coding = choose(asset, request);
        AssetFile *file = &asset->variants[coding];
        Answer answer = { 0 };
        bool body;
        int r;

        r = response_new(&response);
        if (r)
                return r;
        if (asset->kind == ASSET_REDIRECT) {
                r = answer_redirect(asset, request, response);
                if (r)
                        return r;
                *ret = TAKE_PTR(response);
                return 0;
        }
        answer_decide(&answer, asset, request, coding, file);
        body = answer.status < 300 && slice_equal(request->method, SLICE("GET"));
        if (body && !file->data) {
                r = asset_read(assets->directory, asset->file, coding, file, &fd);
                if (r)
                        return r;
                if (file->data)
                        assets_keep(assets, asset, file);
        }
        r = answer_send(assets, &answer, file, &fd, body, response);
        if (r)
                return r;
        *ret = TAKE_PTR(response);
        return 0;
}
