/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the cases of the storage benchmark share
 *
 * An Engine is the store as a worker has it: on the loop's ring, with the background thread. With
 * `threaded` set the loop has a thread of its own and the case's thread is a runner; without, the
 * case's thread is the loop and calls engine_turn().
 *
 * A case prints one JSON object to a line. Whatever fails ends the program: die().
 */

#include "lib/base/macro.h"
#include "lib/loop/disk-ring.h"
#include "lib/store/store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#include <sqlite3.h>

typedef struct Args {
        const char *folder; /* exists and is empty; what is left in it is the caller's to remove */
        unsigned objects, pairs, in_flight, burst;
        double seconds;
        const char *kind;
} Args;

_noreturn_ _printf_(1, 2) void die(const char *format, ...);
/* die() with the words of a negative errno. */
void check(int error, const char *what);
void check_sql(sqlite3 *db, int result, const char *what);

uint64_t now_ns(void);
/* Of all threads of the process. */
uint64_t cpu_ns(void);
/* Resident bytes of the process. */
uint64_t memory_resident(void);
uint64_t random_next(uint64_t *state);

/* Durations, for percentiles. */
typedef struct Samples {
        uint32_t *ns;
        size_t n, room;
} Samples;

void samples_add(Samples *samples, uint64_t ns);
/* In microseconds; sorts. */
double samples_get(Samples *samples, double part);
void samples_done(Samples *samples);

typedef struct Engine {
        Ring *ring;
        DiskRing *disk;
        Store *store;
        char *objects, *journal, *archive;
        RingPost flush, stop;
        atomic_bool posted;
        bool due, threaded, has_background;
        pthread_t loop;
        pthread_barrier_t ready;
        StoreOptions options;
} Engine;

/* The folders objects and journal below folder; sizes of options count, the rest is set. */
void engine_open(Engine *engine, const char *folder, const StoreOptions *options, bool threaded);
/* Every connection is closed. */
void engine_close(Engine *engine);
/* One turn of the loop; waits at most timeout_ns for a completion. Not with `threaded`. */
void engine_turn(Engine *engine, uint64_t timeout_ns);
/* Until everything captured is durable. */
void engine_sync(Engine *engine);
/* Until everything is in its file and the journal is all but empty. */
void engine_drain(Engine *engine);
/* Until an event may write, as a worker asks before it delivers one; ns that it took. */
uint64_t engine_wait_room(Engine *engine);

/* An object, or a plain file, with its statement. */
typedef struct Connection {
        sqlite3 *db;
        sqlite3_stmt *update;
        char *path;
} Connection;

/* <folder>/<2 hex digits>/<number>.sqlite; malloc'd. */
char *object_path(const char *folder, unsigned number);
void make_folders(const char *folder);
/* vfs NULL: the default, which is the engine's while it is open. */
void connection_open(Connection *connection, const char *path, const char *vfs);
void connection_close(Connection *connection);
void connection_update(Connection *connection);
void run_sql(sqlite3 *db, const char *sql);
int64_t ask_sql(sqlite3 *db, const char *sql);
/* Makes the table of connection_update(). */
void make_table(sqlite3 *db);

/* The cases. */
void case_commits(const Args *args);
void case_files(const Args *args);
void case_lone(const Args *args);
void case_memory(const Args *args);
void case_recover(const Args *args);
void case_retire(const Args *args);
void case_speed(const Args *args);
