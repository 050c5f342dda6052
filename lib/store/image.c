/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/history.h"

#include <errno.h>

/* Of what is read at once from an object. */
#define CHUNK (UINT64_C(256) << 10)
/* The write and read version in a database's header: 1 is rollback mode, 2 WAL. */
#define VERSIONS_AT 18
#define HEADER_SIZE 100u

int image_init(Image *image, Store *store, const char *to_file)
{
        uint64_t number;

        *image = (Image){ .store = store, .max = IMAGE_MAX };
        if (to_file) {
                image->path = strdup(to_file);
                image->is_export = true;
        } else {
                store_lock(store);
                number = ++store->last_file;
                store_unlock(store);
                image->path = store_file_path(store, "restore", number);
        }
        return image->path ? 0 : -ENOMEM;
}

void image_lay_over(Image *over, Image *below)
{
        *over = (Image){
                .store = below->store,
                .below = below,
                .n_below = below->n_pages,
                .exists = below->exists,
                .page_size = below->page_size,
                .n_pages = below->n_pages,
                .max = below->max,
        };
}

static void drop_pages(Image *image, uint32_t from)
{
        for (size_t i = from; i < image->room; i++) {
                image->n_loaded -= image->pages[i] != NULL;
                free(TAKE_PTR(image->pages[i]));
        }
}

void image_done(Image *image)
{
        if (image->pages)
                drop_pages(image, 0);
        free(TAKE_PTR(image->pages));
        if (image->file) {
                image->file = disk_close(image->file);
                if (!image->is_kept && disk_unlink(image->store->disk, image->path))
                        store_log(image->store, LOG_WARNING, "%s cannot be removed", image->path);
        }
        free(TAKE_PTR(image->path));
}

static int make_file(Image *image)
{
        if (image->file)
                return 0;
        return disk_open(
                image->store->disk, image->path, DISK_CREATE | DISK_EXCLUSIVE, &image->file);
}

static uint64_t offset_of(const Image *image, size_t index)
{
        return (uint64_t)index * image->page_size;
}

static int write_page(Image *image, size_t index)
{
        ImagePage *page = image->pages[index];
        int r = make_file(image);

        r = r ?: disk_write(image->file, page->bytes, image->page_size, offset_of(image, index), 0);
        if (!r)
                page->is_dirty = false;
        return r;
}

/* All but page 1, which makes a database of the file. */
static int write_through(Image *image)
{
        for (size_t i = 1; i < image->room; i++) {
                int r = image->pages[i] && image->pages[i]->is_dirty ? write_page(image, i) : 0;

                if (r)
                        return r;
        }
        if (image->room > 1)
                drop_pages(image, 1);
        return 0;
}

int image_clear(Image *image, uint32_t page_size)
{
        if (image->pages)
                drop_pages(image, 0);
        image->page_size = page_size;
        image->n_pages = 0;
        return image->file ? disk_truncate(image->file, 0) : 0;
}

static int reserve(Image *image, uint32_t number)
{
        size_t room = MAX((size_t)number, 2 * image->room);
        ImagePage **pages;

        if (number <= image->room)
                return 0;
        pages = realloc(image->pages, room * sizeof *pages);
        if (!pages)
                return -ENOMEM;
        memset(pages + image->room, 0, (room - image->room) * sizeof *pages);
        image->pages = pages;
        image->room = room;
        return 0;
}

/* The memory of a page, with nothing in it yet where it is new. */
static int make_page(Image *image, uint32_t number, ImagePage **ret, bool *ret_new)
{
        ImagePage *page;
        int r = 0;

        dd_assert(number > 0 && image->page_size);
        if (number > image->room || !image->pages[number - 1]) {
                if ((image->n_loaded + 1) * (uint64_t)image->page_size > image->max)
                        r = image->below ? -ENOBUFS : write_through(image);
                r = r ?: reserve(image, number);
                if (r)
                        return r;
        }
        page = image->pages[number - 1];
        *ret_new = !page;
        if (!page) {
                page = malloc(sizeof *page + image->page_size);
                if (!page)
                        return -ENOMEM;
                image->pages[number - 1] = page;
                image->n_loaded++;
        }
        page->is_dirty = true;
        *ret = page;
        return 0;
}

/* From below, or from the file. */
static int read_page(Image *image, uint32_t number, unsigned char *out)
{
        unsigned char *below;
        size_t got = 0;
        int r = 0;

        if (image->below && number <= image->n_below) {
                r = image_get_page(image->below, number, &below);
                if (!r)
                        memcpy(out, below, image->page_size);
                return r;
        }
        if (image->file && number <= image->n_pages)
                r = disk_read(
                        image->file, out, image->page_size, offset_of(image, number - 1), &got);
        memset(out + got, 0, image->page_size - got);
        return r;
}

int image_get_page(Image *image, uint32_t number, unsigned char **ret)
{
        ImagePage *page;
        bool is_new;
        int r = make_page(image, number, &page, &is_new);

        if (!r && is_new)
                r = read_page(image, number, page->bytes);
        if (!r)
                *ret = page->bytes;
        return r;
}

/* What is cut off reads as zeros when it comes back. */
int image_set_size(Image *image, uint32_t n_pages)
{
        bool is_cut = n_pages < image->n_pages;

        image->n_pages = n_pages;
        image->n_below = MIN(image->n_below, n_pages);
        if (!is_cut)
                return 0;
        if (n_pages < image->room)
                drop_pages(image, n_pages);
        return image->file ? disk_truncate(image->file, offset_of(image, n_pages)) : 0;
}

/* An object as it is now: its file, and the frames of its log over that. */
typedef struct Present {
        Node *node;
        bool is_known;
        uint64_t generation; /* of the log that frames are of */
        PageMap frames;
        uint32_t page_size, n_pages;
} Present;

static void present_done(Present *present)
{
        free(present->frames.entries);
        node_unref(present->node);
}

/* The newest captured frame of each page; the node's mutex is held. */
static int map_frames(Present *present)
{
        Node *node = present->node;
        uint32_t n = atomic_load(&node->captured), page, db_pages;

        if (present->is_known && present->generation == node->generation)
                return 0;
        page_map_clear(&present->frames);
        for (uint32_t frame = 1; frame <= n; frame++) {
                int r = wal_read_header(&node->wal, frame, &page, &db_pages);

                if (r)
                        return r;
                if (!page_map_reserve(&present->frames, 1))
                        return -ENOMEM;
                page_map_set(&present->frames, page, frame);
        }
        if (!present->is_known) {
                present->page_size = n ? node->wal.page_size : node->page_size;
                present->n_pages =
                        n ? db_pages
                          : (uint32_t)((node->size + node->page_size - 1) / node->page_size);
        }
        present->is_known = true;
        present->generation = node->generation;
        return 0;
}

/*
 * Pages first.. of the file into chunk, and those that have a frame from there. Nobody commits to
 * the object meanwhile, but its log may be written to the file and dropped: a page that has a frame
 * is read from the log, and one that has none is written by nobody.
 */
static int read_present(Present *present, uint32_t first, uint32_t n, unsigned char *chunk)
{
        Node *node = present->node;
        size_t len = (size_t)n * present->page_size, got;
        int r;

        node_lock(node);
        r = map_frames(present);
        r = r ?: node_read(node, chunk, len, (uint64_t)(first - 1) * present->page_size, &got);
        if (!r)
                memset(chunk + got, 0, len - got);
        for (uint32_t i = 0; !r && i < n; i++) {
                uint32_t frame = page_map_find(&present->frames, first + i);

                /* A page that was dropped is in the file. */
                if (frame && wal_has_page(&node->wal, frame))
                        r = wal_read_page(
                                &node->wal, frame, chunk + (size_t)i * present->page_size);
        }
        node_unlock(node);
        return r;
}

static int take_chunk(Image *image, uint32_t first, uint32_t n, const unsigned char *chunk)
{
        for (uint32_t i = 0; i < n; i++) {
                ImagePage *page;
                bool is_new;
                int r = make_page(image, first + i, &page, &is_new);

                if (r)
                        return r;
                memcpy(page->bytes, chunk + (size_t)i * image->page_size, image->page_size);
        }
        return 0;
}

static int load_present(Image *image, Present *present)
{
        _cleanup_(free_p) unsigned char *chunk = malloc(CHUNK);
        uint32_t most, n;
        int r;

        if (!chunk)
                return -ENOMEM;
        node_lock(present->node);
        r = map_frames(present);
        node_unlock(present->node);
        r = r ?: image_clear(image, present->page_size);
        if (r)
                return r;
        most = (uint32_t)(CHUNK / present->page_size);
        for (uint32_t first = 1; !r && first <= present->n_pages; first += n) {
                n = MIN(most, present->n_pages - first + 1);
                r = read_present(present, first, n, chunk);
                r = r ?: take_chunk(image, first, n, chunk);
        }
        image->n_pages = present->n_pages;
        image->exists = true;
        return r;
}

int image_load(Image *image, const char *path)
{
        Present present = {};
        int r = image_clear(image, image->page_size);

        image->exists = false;
        r = r ?: node_open(image->store, path, false, &present.node);
        if (r)
                return r == -EAGAIN ? -EBUSY : r;
        r = load_present(image, &present);
        present_done(&present);
        return r;
}

/* The header as a database in rollback mode has it, with a page count that holds. */
static int prepare_header(Image *image)
{
        unsigned char *page;
        int r = image_get_page(image, 1, &page);

        if (!r)
                page[VERSIONS_AT] = page[VERSIONS_AT + 1] = 1;
        return r;
}

int image_finish(Image *image)
{
        Disk *disk = image->store->disk;
        _cleanup_(free_p) char *folder = NULL;
        const char *slash = strrchr(image->path, '/');
        int r = image->n_pages ? prepare_header(image) : STORE_E_CHANGED;

        r = r ?: write_through(image);
        r = r ?: make_file(image);
        r = r ?: disk_truncate(image->file, offset_of(image, image->n_pages));
        if (!r && image->is_export)
                r = disk_sync(image->file);
        r = r ?: write_page(image, 0);
        if (r || !image->is_export)
                return r;
        folder = !slash ? strdup(".")
                        : slice_dup(slice_of(image->path, (size_t)(slash - image->path) ?: 1));
        r = folder ? disk_sync(image->file) : -ENOMEM;
        r = r ?: disk_sync_folder(disk, folder);
        image->is_kept = !r;
        return r;
}
