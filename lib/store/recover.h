/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What recovery reads from the journal, and its redo into the database files
 *
 * recover.c finds the batches that count and reports damage; redo.c applies their records. Both
 * only read the journal: segments are touched again when the epoch has been switched.
 */

#include "lib/store/store-private.h"

typedef struct FoundBatch {
        BatchHeader header;
        unsigned slot;
        uint64_t offset;
} FoundBatch;

typedef struct Found {
        Store *store;
        EpochFile epoch;
        bool has_epoch;
        DiskFile *segments[100];
        FoundBatch *batches; /* those that count, in order */
        size_t n_batches, room;
        uint64_t last_lsn, last_segment;
        unsigned char *buffer;
        size_t buffer_room;
} Found;

/* The bytes of a batch, in found->buffer. */
int found_read(Found *found, const FoundBatch *batch, Slice *ret);
/* Logs what is wrong with a place of the journal; -EUCLEAN. */
int found_damage(Found *found, unsigned slot, uint64_t offset, const char *format, ...)
        _printf_(4, 5);

/* Redoes all batches and syncs files and folders; sets found->last_lsn. */
int redo_run(Found *found);
