/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/asset.h"

#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>

#define MEMORY_MAX (32u << 20)
#define REVALIDATE_NS NSEC_PER_SEC
#define FOUND_MAX 8192u
#define ABSENT_MAX 4096u

int assets_new(const AssetsOptions *options, Assets **ret)
{
        Assets *assets = calloc(1, sizeof *assets);
        _cleanup_(close_p) int probe = -1;
        int r;

        if (!assets)
                return -ENOMEM;
        assets->options = *options;
        if (!assets->options.memory_max)
                assets->options.memory_max = MEMORY_MAX;
        if (!assets->options.revalidate_ns)
                assets->options.revalidate_ns = REVALIDATE_NS;
        assets->directory = open(options->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (assets->directory < 0) {
                r = -errno;
                free(assets);
                return r;
        }
        /* Better now than at the first request: a system that lets nothing be opened so. */
        r = asset_open(assets->directory, ".", O_PATH | O_DIRECTORY, &probe);
        if (r) {
                close(assets->directory);
                free(assets);
                return r;
        }
        map_init(&assets->map);
        list_init(&assets->found);
        list_init(&assets->absent);
        *ret = assets;
        return 0;
}

static bool asset_is_found(const Asset *asset)
{
        return asset->kind == ASSET_FILE || asset->kind == ASSET_REDIRECT;
}

static void asset_drop_data(Assets *assets, AssetFile *file)
{
        if (!file->data)
                return;
        assets->memory -= file->size;
        free(file->data);
        file->data = NULL;
}

static void asset_unlink(Assets *assets, Asset *asset)
{
        if (!list_is_linked(&asset->link))
                return;
        list_unlink(&asset->link);
        if (asset_is_found(asset))
                assets->n_found--;
        else
                assets->n_absent--;
}

static void asset_link(Assets *assets, Asset *asset)
{
        if (asset_is_found(asset)) {
                list_append(&assets->found, &asset->link);
                assets->n_found++;
        } else {
                list_append(&assets->absent, &asset->link);
                assets->n_absent++;
        }
}

static void asset_forget(Assets *assets, Asset *asset)
{
        asset_unlink(assets, asset);
        map_remove(&assets->map, &asset->node);
        for (size_t i = 0; i < _ASSET_CODINGS; i++)
                asset_drop_data(assets, &asset->variants[i]);
        free(asset->file);
        free(asset);
}

Assets *assets_free(Assets *assets)
{
        MapNode *node;

        if (!assets)
                return NULL;
        while ((node = map_first(&assets->map)))
                asset_forget(assets, CONTAINER_OF(node, Asset, node));
        map_done(&assets->map);
        close(assets->directory);
        free(assets);
        return NULL;
}

/* Makes room; keep, the one that is in use, stays. */
static void assets_trim(Assets *assets, const Asset *keep)
{
        while (assets->n_absent > ABSENT_MAX) {
                Asset *oldest = list_entry(list_first(&assets->absent), Asset, link);

                if (oldest == keep)
                        break;
                asset_forget(assets, oldest);
        }
        while (assets->n_found > FOUND_MAX || assets->memory > assets->options.memory_max) {
                Asset *oldest = list_entry(list_first(&assets->found), Asset, link);

                if (oldest == keep)
                        break;
                asset_forget(assets, oldest);
        }
}

void assets_keep(Assets *assets, Asset *asset, const AssetFile *file)
{
        assets->memory += file->size;
        assets_trim(assets, asset);
}

/* Looks at the variants anew; data of a file that did not change stays. */
static void asset_refresh(Assets *assets, Asset *asset, AssetKind kind, const AssetFile *identity)
{
        for (size_t i = 0; i < _ASSET_CODINGS; i++) {
                AssetFile *old = &asset->variants[i], now = { 0 };

                if (kind == ASSET_FILE && i == ASSET_IDENTITY)
                        now = *identity;
                else if (kind == ASSET_FILE)
                        (void)asset_stat(assets->directory, asset->file, (AssetCoding)i, &now);
                if (asset_is_same(old, &now))
                        continue;
                asset_drop_data(assets, old);
                *old = now;
        }
}

/* Whether a folder has an index.html: asked for without its slash it redirects. */
static AssetKind look_at_folder(Assets *assets, const Asset *asset)
{
        _cleanup_(free_p) char *index = path_join(asset->file, "index.html");
        AssetFile ignored;

        if (index && !asset_stat(assets->directory, index, ASSET_IDENTITY, &ignored))
                return ASSET_REDIRECT;
        return ASSET_NONE;
}

static int asset_load(Assets *assets, Asset *asset)
{
        AssetFile identity = { 0 };
        AssetKind kind = ASSET_NONE;
        int r;

        r = asset_stat(assets->directory, asset->file, ASSET_IDENTITY, &identity);
        switch (r) {
        case 0:
                kind = ASSET_FILE;
                break;
        case -ENOENT:
                kind = ASSET_MISSING;
                break;
        case -EISDIR:
                kind = look_at_folder(assets, asset);
                break;
        case -ENOMEM:
        case -EMFILE:
        case -ENFILE:
                return r; /* says nothing of the file */
        default:
                break;
        }
        asset_unlink(assets, asset);
        asset_refresh(assets, asset, kind, &identity);
        asset->kind = kind;
        asset->checked = ring_now(assets->options.ring);
        asset_link(assets, asset);
        assets_trim(assets, asset);
        return 0;
}

static int asset_new(Assets *assets, Slice path, Asset **ret)
{
        char *file;
        Asset *asset;
        int r;

        r = asset_path_decode(path, &file);
        if (r)
                return r;
        asset = calloc(1, sizeof *asset + path.len);
        if (!asset) {
                free(file);
                return -ENOMEM;
        }
        asset->file = file;
        asset->path_len = path.len;
        memcpy(asset->path, path.data, path.len);
        list_init(&asset->link);
        r = map_insert(&assets->map, &asset->node, slice_of(asset->path, path.len));
        if (r) {
                free(file);
                free(asset);
                return r;
        }
        *ret = asset;
        return 0;
}

static Asset *assets_lookup(Assets *assets, Slice path)
{
        MapNode *node = map_find(&assets->map, path);

        return node ? CONTAINER_OF(node, Asset, node) : NULL;
}

/* What the path means; NULL when it cannot mean a file. */
static Asset *assets_find(Assets *assets, Slice path)
{
        Asset *asset = assets_lookup(assets, path);
        uint64_t now = ring_now(assets->options.ring);
        bool created = !asset;
        int r;

        if (asset && now - asset->checked < assets->options.revalidate_ns) {
                List *list = asset_is_found(asset) ? &assets->found : &assets->absent;

                if (list_last(list) != &asset->link) {
                        list_unlink(&asset->link);
                        list_append(list, &asset->link);
                }
                return asset;
        }
        if (!asset && asset_new(assets, path, &asset))
                return NULL;
        r = asset_load(assets, asset);
        if (r && created)
                asset_forget(assets, asset);
        return r ? NULL : asset;
}

/*
 * Most requests of an app are for no file, each for another path, and few first segments: what does
 * not exist there settles all paths below it without a system call.
 */
static Asset *assets_find_quickly(Assets *assets, Slice path)
{
        Slice rest = slice_skip(path, 1);
        ptrdiff_t slash = slice_find(rest, '/');
        const Asset *top;

        if (path.len == 0 || path.data[0] != '/' || path.len > ASSET_PATH_MAX)
                return NULL;
        if (slash > 0) {
                top = assets_find(assets, slice_head(path, (size_t)slash + 1));
                if (!top || top->kind == ASSET_MISSING)
                        return NULL;
        }
        return assets_find(assets, path);
}

static bool is_read(Slice method)
{
        return slice_equal(method, SLICE("GET")) || slice_equal(method, SLICE("HEAD"));
}

bool assets_has(Assets *assets, Slice method, Slice path)
{
        const Asset *asset = is_read(method) ? assets_find_quickly(assets, path) : NULL;

        return asset && asset_is_found(asset);
}

int assets_serve(Assets *assets, const Request *request, Response **ret)
{
        Asset *asset;
        int r = -ESTALE;

        /* Twice: a file may have been replaced since it was looked at. */
        for (unsigned attempt = 0; attempt < 2 && r; attempt++) {
                asset = is_read(request->method) ? assets_find_quickly(assets, request->path)
                                                 : NULL;
                if (!asset || !asset_is_found(asset)) {
                        *ret = NULL;
                        return 0;
                }
                r = asset_answer(assets, asset, request, ret);
                if (r != -ESTALE && r != -ENOENT)
                        return r;
                asset_forget(assets, asset);
        }
        return r;
}
