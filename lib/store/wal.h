/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * An object's write-ahead log, in heap
 *
 * SQLite writes it as a file: a header of 32 bytes, then frames of 24 bytes and a page. Pages are
 * kept in heap, up to a limit; those beyond in an overflow file that nobody needs after a crash. A
 * page that nobody can read any more may be dropped: reading it is -EIO; its frame's header stays.
 * Frames are numbered from 1. Not locked: the node's mutex guards it. Negative errno.
 *
 * A page map says which frame is the newest of a page.
 */

#include "lib/store/disk.h"

#define WAL_HEADER_SIZE 32u
#define WAL_FRAME_HEADER_SIZE 24u

typedef struct PageFrame {
        uint32_t page, frame;
} PageFrame;

typedef struct PageMap {
        PageFrame *entries; /* page 0: free */
        size_t size, len;   /* size: a power of two or 0 */
} PageMap;

typedef struct Wal {
        Disk *disk;
        const char *overflow_path; /* the owner's; made when first needed */
        uint64_t heap_max;
        unsigned char header[WAL_HEADER_SIZE];
        bool has_header;
        uint32_t page_size, n_frames;
        unsigned char (*headers)[WAL_FRAME_HEADER_SIZE]; /* of the frames */
        unsigned char **pages;       /* of the frames; NULL: dropped, or never written */
        uint32_t room;               /* of both, in frames */
        uint32_t n_pages, max_pages; /* in heap; at most */
        bool is_squeezed;            /* no further ones in heap while the disk takes them */
        DiskFile *overflow;
} Wal;

void wal_init(Wal *wal, Disk *disk, uint64_t heap_max);
/* Drops all content and memory. */
void wal_reset(Wal *wal);

static inline uint32_t wal_frame_size(const Wal *wal)
{
        return WAL_FRAME_HEADER_SIZE + wal->page_size;
}

uint64_t wal_size(const Wal *wal);
/* Bytes of heap. */
uint64_t wal_memory(const Wal *wal);
int wal_write(Wal *wal, const void *data, size_t len, uint64_t offset);
/* What lies beyond the end reads as zeros; *ret_len counts what does not. */
int wal_read(Wal *wal, void *data, size_t len, uint64_t offset, size_t *ret_len);
/* Page number and, in the last frame of a commit, the pages of the database; else 0. */
int wal_read_header(Wal *wal, uint32_t frame, uint32_t *ret_page, uint32_t *ret_db_pages);
/* The page of a frame that is in heap, valid until it is dropped; NULL when it is elsewhere. */
const unsigned char *wal_find_page(const Wal *wal, uint32_t frame);
bool wal_has_page(const Wal *wal, uint32_t frame);
void wal_drop_page(Wal *wal, uint32_t frame);
int wal_read_page(Wal *wal, uint32_t frame, void *page);
/* The newest of frames first..last of each page, by page; the caller frees *ret. */
int wal_list_pages(Wal *wal, uint32_t first, uint32_t last, PageFrame **ret, size_t *ret_n);

/* The frame, or 0. */
uint32_t page_map_find(const PageMap *map, uint32_t page);
/* Room for n more; false when memory is out. */
bool page_map_reserve(PageMap *map, size_t n);
/* There must be room for it. */
void page_map_set(PageMap *map, uint32_t page, uint32_t frame);
void page_map_clear(PageMap *map);
