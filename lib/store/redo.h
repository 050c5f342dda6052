/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The redo of found batches, as a whole or object by object
 *
 * As a whole: redo_run() of recover.h. Late: redo_plan() reads and checks everything as the whole
 * redo does, takes the locks, and notes where each object's records are; redo_one() applies those
 * of one object, at any time, by several threads for different ones. What they share is only read.
 */

#include "lib/store/recover.h"

/* Where a record is, and what it was when all of its batch was checked. */
typedef struct RedoRecord {
        uint32_t batch, block; /* of the batch; where it begins in it, in units of RECORD_ALIGN */
        uint32_t crc;
} RedoRecord;

typedef struct RedoFile {
        MapNode map;
        List link;
        char *path;
        DiskFile *file;
        Map images;
        uint32_t page_size, db_pages;
        uint64_t void_before; /* records before this LSN are void: the last DELETE's */
        bool is_deleted, is_touched;
        bool was_opened; /* it is there; it may have been closed since */
        bool is_lost;    /* not there, or left as it is: what needs it is left out */
        /* Late: */
        bool is_needed, is_made; /* must be there; is made by the records, or gone by them */
        bool is_busy;            /* somebody redoes it: late-redo.c */
        uint64_t first_segment;  /* that has one of the records */
        RedoRecord *records;
        size_t n_records, room;
} RedoFile;

typedef struct VoidRange {
        uint32_t object;
        uint64_t from, to;
} VoidRange;

typedef struct Redo {
        Found *found;
        Store *store;
        Map files;
        List file_list;
        size_t n_files, n_open;
        Map numbers; /* of RedoNumber */
        VoidRange *voids;
        size_t n_voids;
        RedoFile *only; /* of redo_one() */
        bool is_late;
        uint64_t image_bytes, images_max, next_lsn, apply_lsn;
        unsigned era;  /* of the batch at hand */
        unsigned slot; /* the same, for reports */
        uint64_t offset;
        /* The record at hand. */
        const FoundBatch *batch;
        Slice record;
        size_t n_records; /* noted */
        List spills;      /* late: Spill, those that records name */
        uint64_t n_commits, n_pages, n_objects, n_bytes;
} Redo;

void redo_init(Redo *redo, Found *found);
void redo_done(Redo *redo);
/* Sets found->last_lsn as redo_run() does. -E2BIG: there is more than is noted; nothing is changed
 * (but other programs' logs are gone) and redo_run() may do it. */
int redo_plan(Redo *redo);
/* All that the plan has of the file; not synced. Where it fails it may be done again. -EUCLEAN:
 * with a line in the log. */
int redo_one(const Redo *plan, RedoFile *file);
/* Out of the plan, and freed. */
void redo_drop_file(Redo *redo, RedoFile *file);
