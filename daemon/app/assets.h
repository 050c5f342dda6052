/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Static files of an app, served before any object
 *
 * GET and HEAD of a path that names a regular file below the folder. Paths are percent-decoded,
 * then opened with openat2(RESOLVE_BENEATH): neither "..", nor its encodings, nor a symbolic link
 * leads out. A path that ends in "/" means its index.html. "x.br" and "x.gz" beside x are sent
 * where the client accepts them. Small files are kept in memory (bounded), looked at again after
 * revalidate_ns. Answers carry Content-Type, ETag, Last-Modified, Cache-Control, Accept-Ranges and
 * Vary; If-None-Match, If-Modified-Since, If-Range and one Range are understood. Loop thread alone.
 *
 * assets_serve() never runs a guest: what is no file is 0 with *ret == NULL, and the app goes on.
 */

#include "daemon/runtime/message.h"
#include "lib/loop/ring.h"

typedef struct Assets Assets;

typedef struct AssetsOptions {
        Ring *ring;
        const char *directory;
        uint64_t memory_max;    /* default 32 MiB */
        uint64_t revalidate_ns; /* default 1 s */
} AssetsOptions;

int assets_new(const AssetsOptions *options, Assets **ret);
Assets *assets_free(Assets *assets);
DEFINE_CLEANUP(Assets *, assets_free)
/* Whether the request names a file: cheap, may be asked before the body is read. */
bool assets_has(Assets *assets, Slice method, Slice path);
int assets_serve(Assets *assets, const Request *request, Response **ret);
