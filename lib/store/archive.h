/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The inside of the archive: writing a segment's records into a file, and the slot's folder of them
 *
 *     LIST -> DATA -> INDEX -> DONE
 *
 * A writer reads the segment twice, batch by batch and then object by object, in steps that are
 * short; what it holds in memory is the places of the records. The file has its name when it is
 * synced. A Spill's file is read, and must be there, until it is done.
 */

#include "lib/store/archive-format.h"
#include "lib/store/store-private.h"

typedef struct ArchiveWriter ArchiveWriter;

typedef struct ArchiveSource {
        Store *store;
        DiskFile *segment; /* stays open */
        uint64_t number;   /* of the segment */
        uint64_t epoch, epoch_first_lsn, last_before;
        uint64_t last_lsn;  /* that it ought to have, or 0 */
        uint64_t end;       /* batches at or beyond this offset are left out */
        uint64_t limit_lsn; /* and records from this LSN on */
} ArchiveSource;

int archive_writer_new(const ArchiveSource *source, ArchiveWriter **ret);
/* What is not done is removed. NULL is allowed; always NULL. */
ArchiveWriter *archive_writer_free(ArchiveWriter *writer);
DEFINE_CLEANUP(ArchiveWriter *, archive_writer_free)
/* 1: there is more to do; 0: done. -EBADMSG: what is to be archived does not check, a line of the
 * log says where. */
int archive_writer_step(ArchiveWriter *writer);
/* The step failed since the disk does not give back what is to be archived. */
bool archive_writer_is_unreadable(const ArchiveWriter *writer);
/* When it is done: of the file; size is 0 when the segment has no records, and there is none. */
const ArchiveHeader *archive_writer_get_header(const ArchiveWriter *writer);

/* archive.c */
/* Takes stock of the folder. */
int archive_open_folder(Store *store);
void archive_done(Store *store);
/* Recovery: what the segments hold and no file has, before the epoch is switched. */
struct Found;
int archive_found(struct Found *found);
/* The journal is open. */
void archive_begin(Store *store);
/* Background: 1 when something was done. */
int archive_step(Store *store);
/* Nothing else is to do: what failed may be tried again. */
void archive_note_idle(Store *store);
/* Invariant 8: the oldest segment that is not in the archive. */
uint64_t archive_get_low(Store *store);
