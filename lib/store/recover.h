/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What recovery reads from the journal, and its redo into the database files
 *
 * recover.c finds the batches that count and reports damage; redo.c applies their records. Both
 * only read the journal: segments are touched again when nothing in them is needed any more, which
 * is when the epoch has been switched, or, where objects are redone late, when they are retired.
 *
 * Damage ends it with -EUCLEAN, unless `cut` is set: then what lies before the damage is redone,
 * and `damage` and `cut_lsn` say where that ends (check-journal.c, salvage.c).
 */

#include "lib/store/store-private.h"

#include <limits.h>

typedef struct FoundBatch {
        BatchHeader header;
        unsigned slot;
        unsigned era; /* which epoch it is of: the earlier ones are 0, 1, ..., then the last */
        uint64_t offset;
        bool is_copy; /* the tail file has it, its segment does not */
} FoundBatch;

typedef struct Found Found;

#define FOUND_NO_SLOT UINT_MAX /* the damage is the epoch file's, or its absence */

typedef struct FoundDamage {
        bool is_there;
        unsigned slot;
        uint64_t offset;
        char text[256];
} FoundDamage;

struct Found {
        Store *store;
        EpochFile epoch;
        bool has_epoch;
        DiskFile *segments[100];
        FoundBatch *batches; /* those that count, in order */
        size_t n_batches, room;
        size_t n_all; /* with those behind a gap, which do not count */
        uint64_t last_lsn, last_segment;
        unsigned char *buffer;
        size_t buffer_room;
        unsigned char *tail; /* the tail file, while one batch is its copy */
        bool cut;            /* what lies before damage is good enough */
        uint64_t cut_lsn;    /* records from here on are not redone; 0: all are */
        FoundDamage damage;
        /* With `cut`, of each file that is not there though records need it. */
        void (*lost)(const char *path, void *data);
        /* With `cut`, whether a file is left as it is, by its path. NULL: none is. */
        bool (*leave)(const char *path, void *data);
        void *data;
};

/* Reads the epoch file and finds the batches; found holds store, cut and cut_lsn, the rest zero. */
int found_open(Found *found);
void found_done(Found *found);
/* Whether the objects folder is the one that the journal was begun with; -EUCLEAN. */
int found_check_objects(Found *found);
/* Where the epoch file does not tell: the batches of the epoch whose first batch is newest, as
 * n_all; none of them counts. */
int found_guess(Found *found);
/* Of the file "segment-NN"; malloc'd. */
char *found_segment_path(const Found *found, unsigned slot);
/* The epoch that a batch is of, when it counts there. */
bool found_find_era(const Found *found, const BatchHeader *header, unsigned *ret);
/* Whether a batch is the one that comes next. */
bool found_follows(const Found *found, const FoundBatch *before, const FoundBatch *batch);
int found_add_batch(Found *found, const FoundBatch *batch);
/* tail.c: adds the batch of the tail file, where it is the next one and its segment lacks it. */
int found_take_copy(Found *found);
/* Invariant 2: the last batch is durable before any of it is redone, and at no time in danger. */
int found_secure_tail(Found *found);
/* The epoch of an era; the last has no last batch yet, which is then UINT64_MAX. */
EarlierEpoch found_get_era(const Found *found, unsigned era);
/*
 * The new epoch file takes the old one's place. From here on what the segments hold is void, or,
 * with `keep`, what it is now and nothing that may still appear in them: the epochs of the batches
 * go on as earlier ones (there must be room for them).
 */
int found_switch_epoch(Found *found, bool keep, EpochFile *ret);
/* The bytes of a batch, in found->buffer. */
int found_read(Found *found, const FoundBatch *batch, Slice *ret);
/*
 * The bytes of a batch that does not check, as they are, as far as one may begin there; empty when
 * none may. Records that decode in it are a hint, no more.
 */
int found_read_damaged(Found *found, Slice *ret);
/* Notes and, but for `cut`, logs what is wrong with a place of the journal; -EUCLEAN. */
int found_damage(Found *found, unsigned slot, uint64_t offset, const char *format, ...)
        _printf_(4, 5);

/* Redoes all batches and syncs files and folders; sets found->last_lsn. */
int redo_run(Found *found);
