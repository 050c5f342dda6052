/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Inside of daemon/app: one static file, its variants, and an answer made of it
 *
 * Nobody outside of the room includes this. An Asset is what a request path was found to mean when
 * it was last looked at; it is owned by the Assets and never kept over a return to the loop.
 */

#include "daemon/app/assets.h"
#include "lib/base/map.h"

#include <sys/stat.h>

#define ASSET_PATH_MAX 1024u           /* bytes of a request path that can name a file */
#define ASSET_MEMORY_FILE (128u << 10) /* files up to this size are kept in memory */
#define ASSET_CHUNK (64u << 10)        /* bytes of one read of a larger one */

typedef enum AssetKind {
        ASSET_MISSING, /* no such file or folder: nothing below it either */
        ASSET_NONE,    /* something that is not served: a folder, a socket, a way out */
        ASSET_FILE,
        ASSET_REDIRECT, /* a folder with an index.html, asked for without the final slash */
} AssetKind;

typedef enum AssetCoding {
        ASSET_IDENTITY,
        ASSET_BROTLI,
        ASSET_GZIP,
        _ASSET_CODINGS,
} AssetCoding;

typedef struct AssetFile {
        bool exists;
        uint64_t size, inode;
        int64_t mtime_ns;
        char etag[64];
        char *data; /* size bytes, or NULL: not in memory */
} AssetFile;

typedef struct Asset {
        MapNode node; /* by path, as the client sends it */
        List link;    /* most recently used last */
        AssetKind kind;
        uint64_t checked; /* ns of the ring's clock */
        char *file;       /* relative to the folder, decoded */
        AssetFile variants[_ASSET_CODINGS];
        size_t path_len;
        char path[];
} Asset;

struct Assets {
        AssetsOptions options;
        int directory;
        Map map;
        List found, absent; /* each with a limit of its own: absent ones cannot drive files out */
        size_t n_found, n_absent;
        uint64_t memory; /* bytes of data kept */
};

/* "index.html" appended where it ends in a slash. 0, -EINVAL (cannot name a file), -ENOMEM. */
int asset_path_decode(Slice path, char **ret);
/* Opens below directory; -EXDEV, -ELOOP, ... as openat2. */
int asset_open(int directory, const char *file, int flags, int *ret);
/* Looks at what file names. 0, -ENOENT, -EISDIR, -EPERM (neither file nor folder) or a negative
 * errno. */
int asset_stat(int directory, const char *file, AssetCoding coding, AssetFile *ret);
void asset_describe(const struct stat *st, AssetFile *ret);
bool asset_is_same(const AssetFile *a, const AssetFile *b);
/* Reads all of it if that does not block; else data stays NULL. -errno when it cannot be opened or
 * is not what was found: -ESTALE. */
int asset_read(int directory, const char *file, AssetCoding coding, AssetFile *f, int *ret_fd);

/* Bytes [offset, offset + len) of fd, which is taken, through response, which is started. */
int asset_stream(Ring *ring, int fd, uint64_t offset, uint64_t len, Response *response);

/* "text/css; charset=utf-8" by the name's ending. */
const char *mime_find(Slice name);
/* Whether a name carries its content's hash, as in "site.5af66c1b1797.css". */
bool name_has_hash(Slice name);

/* Which of the codings that exist the client likes best. */
AssetCoding negotiate_coding(const Request *request, const bool exists[_ASSET_CODINGS]);

typedef struct ByteRange {
        uint64_t offset, len;
} ByteRange;

typedef enum RangeResult {
        RANGE_NONE, /* absent, malformed, several, or If-Range does not hold: all of it */
        RANGE_PART,
        RANGE_BEYOND, /* 416 */
} RangeResult;

RangeResult negotiate_range(
        const Request *request, const AssetFile *file, int64_t modified, ByteRange *ret);
/* If-None-Match and If-Modified-Since: the client has it. */
bool negotiate_is_fresh(const Request *request, const AssetFile *file, int64_t modified);

/* The answer; assets_keep() may be called for what was read. */
int asset_answer(Assets *assets, Asset *asset, const Request *request, Response **ret);
/* A variant's data came into memory: counts it and makes room. asset stays. */
void assets_keep(Assets *assets, Asset *asset, const AssetFile *file);
