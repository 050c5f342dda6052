/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Whether a database is sound, by SQLite's own check
 *
 * An app brings functions and collations of its own, and its schema may need them: constraints,
 * indexes, generated columns. Here they are not known, and SQLite then checks nothing at all. What
 * can be checked without them is: first all but constraints and indexes, then each table that does
 * not need them.
 */

#include <stdbool.h>

#include <sqlite3.h>

#define SOUND_TEXT_MAX 256u

typedef struct Sound {
        bool quick;    /* without what is in indexes (PRAGMA quick_check) */
        unsigned most; /* faults to be told */
        void (*fault)(const char *text, void *data);
        void *data;
        unsigned n_faults;
        char unchecked[SOUND_TEXT_MAX]; /* why not all of it was checked; "" else */
} Sound;

/* SQLITE_OK when it was checked, whatever was found; else what stopped it. */
int sound_check(Sound *sound, sqlite3 *db);
