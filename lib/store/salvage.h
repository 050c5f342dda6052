/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What an operator may decide about a damaged journal
 *
 * store_open() refuses a journal that is damaged other than by a torn tail. store_salvage() makes
 * it one that store_open() takes, at a price that check_journal() tells beforehand (check.h):
 *
 *   SALVAGE_CUT        what lies before the damage, or before an LSN, is redone; the rest is not
 *   SALVAGE_SET_ASIDE  nothing is redone: databases stay as their files are
 *
 * In both cases the journal's files are moved to <journal>/damaged-<UTC time>/, with the epoch file
 * that belongs to them, and so are copies of the database files named by `keep` as they were before
 * (damaged-.../objects/). Nothing is deleted.
 *
 * The background writes files as soon as the journal is durable, so a file may already hold commits
 * from behind the cut; to redo older ones would mix two times in it. Those that check_journal()
 * found to be ahead are named by `leave`: they stay as they are. Where the proof is missing, a mix
 * is possible: that is why files are kept, and why databases are to be checked afterwards.
 *
 * An archive goes on behind a gap: databases are not what its last file ends with, so nothing
 * before the decision can be restored from it.
 *
 * Guarantees:
 * 1. What is redone is durable before a file of the journal is moved, and the new epoch is written
 *    last. Cut at any point, the journal is refused by store_open() as before or is what the cut
 *    makes of it, and the call can be made again.
 * 2. LSNs go on behind the last that was found anywhere.
 */

#include "lib/store/disk.h"

typedef enum SalvageMode {
        SALVAGE_CUT,
        SALVAGE_SET_ASIDE,
} SalvageMode;

typedef struct SalvageOptions {
        Disk *disk; /* NULL: disk_real() */
        const char *journal, *objects;
        const char *archive; /* of store_empty(): the slot's archive folder, or NULL: none */
        SalvageMode mode;
        uint64_t cut_lsn;        /* of a CUT: the first that is not redone; 0: the damage's */
        const char *const *keep; /* paths below the objects folder; those missing are no error */
        size_t n_keep;
        const char *const *leave; /* the same; of a CUT: files that nothing is redone into */
        size_t n_leave;
        /* As in StoreOptions. */
        void (*log)(int priority, const char *line, void *data);
        void *data;
} SalvageOptions;

typedef struct SalvageResult {
        uint64_t commits, objects; /* redone */
        unsigned n_files;          /* of the journal, moved */
        char *folder;              /* that they are in; the caller's */
} SalvageResult;

/* -EAGAIN: another process has the journal; -EUCLEAN: of a CUT, nothing can be redone: there is no
 * epoch file, or the objects folder is another one; else as store_open(). */
int store_salvage(const SalvageOptions *options, SalvageResult *ret);

/* Redoes a journal that is fine, writes all of it out and leaves it empty. */
int store_empty(const SalvageOptions *options, SalvageResult *ret);
