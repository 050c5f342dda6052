/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a record is to hold of an object's pages: those of a commit's frames, and what was before
 *
 * The newest frame of each page counts. Where the store keeps an archive (record's UNDO, BEFORE in
 * journal-format.h), what a page was before is its newest captured frame, or what the file has;
 * nobody writes that page there meanwhile, since only pages of frames are written. The node's mutex
 * is held all the time; it waits for the disk.
 */

#include "lib/store/store-private.h"

typedef struct PageSet {
        Node *node;
        PageFrame *pages; /* by page */
        size_t n;
        uint32_t page_size;
        uint32_t db_pages, pages_before; /* of the database, after and before */
        bool add_first;                  /* page 1 of a new database, which no frame has */
        unsigned char *page, *old;       /* room for one each */
} PageSet;

/* The frames of a commit; first > last: none. db_pages: of the database after it. With undo, what
 * was before is in the set. */
int page_set_init(
        PageSet *set, Node *node, uint32_t first, uint32_t last, uint32_t db_pages, bool undo);
void page_set_done(PageSet *set);
/* Bytes that page_set_put() writes at most. */
size_t page_set_get_room(const PageSet *set);
/* The entries of a record that goes to a segment. */
int page_set_put(
        PageSet *set, uint64_t segment, unsigned char *out, size_t *ret_len, uint32_t *ret_n);
/* The same as a spill file, which is synced; *ret_n: pages that are not of before. */
int page_set_write(PageSet *set, DiskFile *file, SpillRef *ret, uint32_t *ret_n);
/* The set is captured: its frames are what later records begin with. */
void page_set_keep(const PageSet *set);

/* Which frame is the newest of each page, out of the log: after frames were given up. */
int page_set_rebuild(Node *node);
