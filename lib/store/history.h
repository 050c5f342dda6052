/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The inside of bookmarks and restore: bookmarks as numbers, images of databases, walking back
 *
 * An Image is a database as it was or is, page by page. Its pages are in memory up to a limit; then
 * all but page 1 are written through to a file that is made when it is first needed: a scratch file
 * `restore-<16 hex>` in the journal folder, which nobody needs after a crash and which the VFS lets
 * through as a plain file, or the file of an export. Page 1 is written last, by image_finish(): a
 * file without it is no database.
 *
 * An Image belongs to one thread. Negative errno, STORE_E_* where noted.
 */

#include "lib/store/store-private.h"

typedef struct Bookmark {
        uint64_t lsn;
        uint32_t seconds; /* since 1970 */
        uint64_t object[2];
} Bookmark;

/* bookmark.c */
/* The path below the objects folder; NULL when it is no object's. */
const char *history_get_name(Store *store, const char *path);
/* Without the time. */
Bookmark bookmark_of(const char *name, uint64_t lsn);
void bookmark_format(const Bookmark *bookmark, char ret[STORE_BOOKMARK_LEN + 1]);
/* Judges any text: STORE_E_BOOKMARK. */
int bookmark_parse(const char *text, Bookmark *ret);
/* The LSN up to which the object's commits make what it holds now. */
uint64_t history_get_lsn(Store *store, const char *path);

/* image.c */
#define IMAGE_MAX (UINT64_C(64) << 20)

typedef struct ImagePage {
        bool is_dirty; /* other than in the file */
        unsigned char bytes[];
} ImagePage;

typedef struct Image {
        Store *store;
        char *path;
        bool is_export; /* to be synced */
        bool is_kept;   /* the file stays when the image goes */
        DiskFile *file;
        bool exists; /* false: at this moment there is no object */
        uint32_t page_size, n_pages;
        ImagePage **pages; /* those in memory, by number - 1 */
        size_t room, n_loaded;
        uint64_t max;
} Image;

/* to_file: where it is to be, or NULL for a scratch file. */
int image_init(Image *image, Store *store, const char *to_file);
/* Removes the file unless it is kept. */
void image_done(Image *image);
/* A database without pages; what was there is dropped. */
int image_clear(Image *image, uint32_t page_size);
/* What the object holds now; -ENOENT when it is not there. */
int image_load(Image *image, const char *path);
/* A page to be read and changed, valid until the next call; zeros where there was none. */
int image_get_page(Image *image, uint32_t number, unsigned char **ret);
/* Cuts or grows. */
int image_set_size(Image *image, uint32_t n_pages);
/* Writes all of it to the file, as a database in rollback mode; an export's is synced, with its
 * name, and kept. STORE_E_CHANGED: it has no pages. */
int image_finish(Image *image);

/* undo.c */
/* Takes an image of the present back to what the object's records up to lsn make. STORE_E_*. */
int history_go_back(Image *image, const char *name, uint64_t lsn);

/* vfs-scratch.c: plain files on the Store's disk for SQLite. */
typedef struct ScratchFile {
        sqlite3_file base;
        DiskFile *file;
} ScratchFile;

bool vfs_is_scratch(Store *store, const char *path);
int vfs_open_scratch(Store *store, const char *path, sqlite3_file *file);

static inline void image_done_p(Image *image)
{
        image_done(image);
}
