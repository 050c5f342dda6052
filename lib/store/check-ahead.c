/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/store/check-private.h"
#include "lib/store/delta.h"
#include "lib/store/recover.h"

#include <errno.h>

/*
 * Whether a database file is ahead of a cut
 *
 * The background writes files as soon as the journal is durable, so a file may hold pages of
 * commits from behind the damage. Redoing what lies before would then mix two times in one file.
 * The proof: a page of the file is what a record behind the cut makes of it, and not what the cut
 * would leave.
 */

#define IMAGES_MAX (UINT64_C(64) << 20)
#define PAGE_SIZE_MAX 65536u

typedef struct AheadKey {
        uint64_t object;
        uint32_t page, page_size;
} AheadKey;

typedef struct AheadImage {
        MapNode map;
        AheadKey key;
        unsigned char bytes[];
} AheadImage;

struct Ahead {
        Check *check;
        Map images;
        uint64_t image_bytes;
        unsigned char image[PAGE_SIZE_MAX], below[PAGE_SIZE_MAX], cut[PAGE_SIZE_MAX];
};

static void free_ahead_image(MapNode *map, void *data)
{
        free(CONTAINER_OF(map, AheadImage, map));
}

int ahead_new(Check *check, Ahead **ret)
{
        Ahead *ahead = calloc(1, sizeof *ahead);

        if (!ahead)
                return -ENOMEM;
        ahead->check = check;
        map_init(&ahead->images);
        *ret = ahead;
        return 0;
}

Ahead *ahead_free(Ahead *ahead)
{
        if (!ahead)
                return NULL;
        map_for_each(&ahead->images, free_ahead_image, NULL);
        map_done(&ahead->images);
        free(ahead);
        return NULL;
}

static int keep_image(Ahead *ahead, const AheadKey *key, uint32_t page_size)
{
        MapNode *map = map_find(&ahead->images, slice_of(key, sizeof *key));
        AheadImage *image;
        int r;

        if (map) {
                memcpy(CONTAINER_OF(map, AheadImage, map)->bytes, ahead->image, page_size);
                return 0;
        }
        /* Without it later deltas of the page prove nothing. */
        if (ahead->image_bytes > IMAGES_MAX)
                return 0;
        image = malloc(sizeof *image + page_size);
        if (!image)
                return -ENOMEM;
        image->key = *key;
        memcpy(image->bytes, ahead->image, page_size);
        r = map_insert(&ahead->images, &image->map, slice_of(&image->key, sizeof image->key));
        if (r) {
                free(image);
                return r;
        }
        ahead->image_bytes += page_size;
        return 0;
}

/* What the record makes of the page, into ahead->image; false where it cannot be told. */
static bool make_image(Ahead *ahead, const AheadKey *key, uint32_t page_size, const Page *page)
{
        MapNode *map = map_find(&ahead->images, slice_of(key, sizeof *key));

        if (page->kind == PAGE_RAW) {
                memcpy(ahead->image, page->bytes.data, page_size);
                return true;
        }
        if (page->kind == PAGE_ZERO)
                memset(ahead->image, 0, page_size);
        else if (map)
                memcpy(ahead->image, CONTAINER_OF(map, AheadImage, map)->bytes, page_size);
        else
                memcpy(ahead->image, ahead->cut, page_size);
        return delta_apply(page->bytes.data, page->bytes.len, ahead->image, page_size) == 0;
}

static int read_page(DiskFile *file, unsigned char *out, const Page *page, uint32_t page_size)
{
        size_t got = 0;
        int r = disk_read(file, out, page_size, (uint64_t)(page->number - 1) * page_size, &got);

        if (!r)
                memset(out + got, 0, page_size - got);
        return r;
}

int ahead_see(Ahead *ahead, uint64_t object, const char *name, const Record *record, bool *ret)
{
        _cleanup_(free_p) char *path = path_join(ahead->check->objects, name);
        _cleanup_(disk_close_p) DiskFile *below = NULL, *cut = NULL;
        uint32_t page_size = record->page_size;
        Slice rest = record->payload;
        Page page;
        int r = path ? disk_open(ahead->check->below, path, DISK_READ_ONLY, &below) : -ENOMEM;

        r = r ?: disk_open(ahead->check->disk, path, DISK_READ_ONLY, &cut);
        if (r || record->flags & RECORD_SPILL)
                return r == -ENOENT ? 0 : r;
        for (uint32_t i = 0; !r && i < record->n_pages; i++) {
                AheadKey key = { .object = object, .page_size = page_size };

                if (page_decode(&rest, page_size, &page))
                        break;
                if (page_is_past(page.kind))
                        continue;
                key.page = page.number;
                r = read_page(below, ahead->below, &page, page_size);
                r = r ?: read_page(cut, ahead->cut, &page, page_size);
                if (r || !make_image(ahead, &key, page_size, &page))
                        continue;
                if (memcmp(ahead->image, ahead->below, page_size) == 0 &&
                        memcmp(ahead->cut, ahead->below, page_size) != 0) {
                        *ret = true;
                        return 0;
                }
                r = keep_image(ahead, &key, page_size);
        }
        return r;
}
