/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the files of the check share: check.c (begin, end, findings, folders), check-journal.c,
 * check-database.c, check-archive.c, check-ahead.c, check-vfs.c
 */

#include "lib/store/check.h"
#include "lib/store/journal-format.h"

#include <pthread.h>

#define CHECK_VFS "durable-check"

/* A journal's lock, held to the end. */
typedef struct CheckHeld {
        struct Store *store;
        struct CheckHeld *next;
} CheckHeld;

struct Check {
        CheckOptions options;
        Disk *below, *disk; /* the overlay */
        char *objects;
        CheckHeld *held;
        bool has_vfs;
        pthread_mutex_t mutex; /* found() and what follows */
        uint64_t n_databases;
};

void check_tell(Check *check, CheckLevel level, const char *what, const char *path, uint64_t offset,
        const char *format, ...) _printf_(6, 7);

/*
 * check-ahead.c: records behind a cut, in their order, of an object by its number here and its
 * name; *ret is set when its file is ahead of the cut. Spilled records prove nothing.
 */
typedef struct Ahead Ahead;
int ahead_new(Check *check, Ahead **ret);
Ahead *ahead_free(Ahead *ahead);
DEFINE_CLEANUP(Ahead *, ahead_free)
int ahead_see(Ahead *ahead, uint64_t object, const char *name, const Record *record, bool *ret);

/* SQLite on files of a Disk that nobody changes: read-only, without locks and logs. */
int check_vfs_register(Disk *disk);
void check_vfs_unregister(void);
