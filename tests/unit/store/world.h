/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A store on a disk in memory, with connections, for the unit tests of the engine
 */

#include "lib/store/store.h"
#include "tests/unit/store/disk-memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <sqlite3.h>

#define OBJECTS "/state/objects"
#define JOURNAL "/state/journal/shop-0"

typedef struct World {
        MemoryDisk *memory; /* NULL: the real disk */
        char place[64], objects[128], journal[128];
        Disk *disk;
        Store *store;
        StoreOptions options;
        char log[8192]; /* lines so far */
        int failures;
} World;

/* Options may be changed before world_start(). */
void world_init(World *world, uint64_t seed);
/* The same on the real disk, in a temporary folder that world_done() removes; no crash there. */
void world_init_real(World *world);
void world_done(World *world);
/* store_open(); fails the test unless 0. */
void world_start(World *world);
int world_try_start(World *world);
void world_stop(World *world);
/* Crashes and starts again. */
void world_crash(World *world, MemoryCrash crash);
/* Steps of the background and flushes until there is nothing to do. */
void world_settle(World *world);

/* Path of an object, valid until the eighth call after. */
const char *object_path(const char *name);
sqlite3 *world_connect(World *world, const char *name);
/* Runs SQL that must succeed. */
void run(sqlite3 *db, const char *sql);
/* The extended result code. */
int try_run(sqlite3 *db, const char *sql);
/* The first column of the first row, or INT64_MIN. */
int64_t ask(sqlite3 *db, const char *sql);
/* The same as text, "" for none; valid until the eighth call after. */
const char *ask_text(sqlite3 *db, const char *sql);
/* Of the table t. */
int64_t rows(sqlite3 *db);
/* SQLite's own check finds nothing. */
bool is_sound(sqlite3 *db);
void disconnect(sqlite3 *db);
