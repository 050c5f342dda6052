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

#include "lib/store/archive-read.h"
#include "lib/store/store-private.h"

/* The journal may move on while it is read. */
#define HISTORY_TRIES 5

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
/* Waits until it is durable; where one thread does all it writes itself. -EDEADLK: the thread is
 * the loop's, and others must write. */
int history_flush(Store *store, uint64_t lsn);

/* image.c */
#define IMAGE_MAX (UINT64_C(64) << 20)

typedef struct ImagePage {
        bool is_dirty; /* other than in the file */
        unsigned char bytes[];
} ImagePage;

typedef struct Image {
        Store *store;
        struct Image *below; /* what a page holds that is not in memory, up to n_below */
        uint32_t n_below;
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
/* What the object holds now; -ENOENT: it is not there, -EBUSY: another program has its file. */
int image_load(Image *image, const char *path);
/* A page to be read and changed, valid until the next call; zeros where there was none. */
int image_get_page(Image *image, uint32_t number, unsigned char **ret);
/* An image in memory alone that begins as another and leaves it as it is; -ENOBUFS beyond its
 * limit. */
void image_lay_over(Image *over, Image *below);
/* Cuts or grows. */
int image_set_size(Image *image, uint32_t n_pages);
/* Writes all of it to the file, as a database in rollback mode; an export's is synced, with its
 * name, and kept. STORE_E_CHANGED: it has no pages. */
int image_finish(Image *image);

/* undo.c: records taken back, newest first. */
typedef enum UndoState {
        UNDO_BACK,    /* records after the target are taken back */
        UNDO_CHECK,   /* earlier ones only to see that they lead there */
        UNDO_CHECKED, /* nothing more is looked at */
} UndoState;

typedef struct Undo {
        Store *store;
        UndoState state;
        Image *image; /* as the records before `done` make it, not before the target */
        Image over;   /* what lies over it in the check */
        const char *name;
        uint64_t target;    /* records up to it stay */
        uint64_t done;      /* records from it on have been taken back, or are void */
        uint64_t void_from; /* commits from it on are void; UINT64_MAX: none */
} Undo;

void undo_init(Undo *undo, Image *image, const char *name, uint64_t target);
void undo_done(Undo *undo);

/* Calls fn for each page as it was before a record with flag SPILL. */
typedef int (*UndoPastFn)(const Record *record, ArchivePageFn fn, void *fn_data, void *data);

/* STORE_E_CHANGED: the image is not what the record led to; STORE_E_PRUNED: the record does not say
 * what was before; -EUCLEAN: it does not decode. */
int undo_record(Undo *undo, const Record *record, UndoPastFn past, void *data);
/* The records of a segment have been given: what the check needs is in one segment. */
void undo_end_part(Undo *undo);

/* past.c: where the records are. */

/* Takes an image of the present back to what the object's records up to lsn make. STORE_E_*.
 * -EAGAIN: the journal moved on meanwhile: load the image and go back once more. */
int history_go_back(Image *image, const char *name, uint64_t lsn);
/* An LSN up to which the object's records are those that were sealed by that time, not above
 * present. STORE_E_PRUNED; -EAGAIN as above. */
int history_find_time(
        Store *store, const char *name, uint64_t time, uint64_t present, uint64_t *ret);

/* segment.c: the journal's live segments. */
typedef struct LiveSegment {
        uint64_t number;
        unsigned slot;
        uint64_t epoch, end; /* of its batches */
} LiveSegment;

typedef struct LiveRecord {
        size_t offset;
        uint64_t time; /* when its batch was sealed */
} LiveRecord;

/* What a segment has of an object, in memory: at most a segment. */
typedef struct SegmentRecords {
        Store *store;
        uint64_t first_lsn, last_lsn; /* of all its records; last < first: there is none */
        uint64_t first_time;
        Buf bytes;
        LiveRecord *records;
        size_t n, room;
} SegmentRecords;

/* Newest first; the caller frees *ret. */
int segment_list(Store *store, LiveSegment **ret, size_t *ret_n);
bool segment_is_live(Store *store, const LiveSegment *segment);
/* The LSN of its first record; -ENOENT: it holds none. */
int segment_read_first(Store *store, const LiveSegment *segment, uint64_t *ret);
/* Its records up to LSN upto. */
int segment_read(Store *store, const LiveSegment *segment, const char *name, uint64_t upto,
        SegmentRecords *ret);
void segment_records_done(SegmentRecords *records);
void segment_get_record(const SegmentRecords *records, size_t index, Record *ret);
/* An UndoPastFn; data is the Store. */
int segment_read_past(const Record *record, ArchivePageFn fn, void *fn_data, void *data);

/* vfs-scratch.c: plain files on the Store's disk for SQLite. */
typedef struct ScratchFile {
        sqlite3_file base;
        DiskFile *file;
} ScratchFile;

bool vfs_is_scratch(Store *store, const char *path);
/* 0, or a negative errno. */
int vfs_open_scratch(Store *store, const char *path, sqlite3_file *file);

static inline void segment_records_done_p(SegmentRecords *records)
{
        segment_records_done(records);
}

static inline void image_done_p(Image *image)
{
        image_done(image);
}
