/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A simulated worker: a disk, an engine, objects with their connections, and the model
 *
 * Of each object the model keeps a row of entries: what it held after each commit since the last
 * recovery, the oldest first. An answer that left the gate shows an entry; from then on it must be
 * there:
 *
 *     entries:   0 ... shown ... n-1
 *                      `- after a crash one of these -'
 *
 * An entry that is not certain belongs to a COMMIT that failed: SQLite's caller was told so, and
 * the object must be found without it, unless the power failed before anything later was flushed.
 *
 * All fields belong to whoever has the turn.
 */

#include "lib/store/store.h"
#include "tests/sim/content.h"
#include "tests/sim/sim-disk.h"

#define WORLD_OBJECTS 6
#define WORLD_RUNNERS 3u
#define WORLD_MESSAGE 400

typedef struct World World;

typedef struct Entry {
        Content content;
        uint64_t hash, lsn;
        uint64_t made_at, shown_at; /* by the disk's clock; shown_at: 0 before */
        bool certain;
} Entry;

/*
 * A moment of an object that can be gone back to, over crashes as well: the model's content then.
 */
typedef struct Past {
        char bookmark[STORE_BOOKMARK_LEN + 1];
        Content content;
        size_t entry; /* of this life; it may be lost with it */
        bool settled; /* an earlier life's */
} Past;

#define OBJECT_PASTS 48

typedef struct Object {
        World *world;
        unsigned number;
        char path[96];
        unsigned page_size;
        int auto_vacuum;

        Entry *entries;
        size_t n_entries, room;
        size_t shown;
        int64_t next_counter;

        Past *pasts;
        size_t n_pasts;

        sqlite3 *db[2], *reader;
        uint64_t reader_hash;
        size_t reader_entry;
        bool broken; /* a commit failed: to be read anew before anything else */
        bool unseen; /* since the last recovery */
        bool hoards; /* small pages, a reader that stays: a log longer than a wal-index region */
} Object;

/* An answer at the gate. */
typedef struct Answer Answer;
struct Answer {
        StoreWaiter waiter;
        Object *object;
        size_t entry;
        List link; /* in answers, then in waiting */
};

/* All of 64 bits: they are added up as a row. */
typedef struct WorldStats {
        uint64_t worlds, lives, recoveries, recoveries_cut, commits, rollbacks, failed_commits,
                full;
        uint64_t late, left; /* recoveries with objects to be redone late; left at a life's end */
        uint64_t answers, deletes, vacuums, reads, index_failures, entries_lost, entries_shown,
                steps, drains;
        uint64_t archived, pruned, restores, restores_refused, times, exports;
        uint64_t batches, journal_bytes, cancels, copies, spills, checkpoints, retired, redone;
        SimDiskStats disk;
} WorldStats;

struct World {
        uint64_t seed, life;
        Rng rng, turns;
        SimDisk *disk;
        Store *store;
        bool faulty;   /* this seed has faults of the disk: errors are excused */
        bool fills_up; /* now and then there is no room */
        bool temporaries_fail;
        bool hoards; /* so does the first object; the wal-index may fail to grow */
        bool verbose, trace;
        bool killed; /* the last end was a kill */
        bool archives;
        bool prunes;
        bool forgets; /* the archive may have gaps, or be pruned */

        Object objects[WORLD_OBJECTS];
        unsigned n_objects, n_runners;
        unsigned segment_size, n_segments;
        uint64_t wal_heap_max, spill_size, queue_max, archive_max;
        unsigned checkpoint_at, late_max;

        uint64_t steps_left;
        unsigned runners_left;
        bool woken, has_work;
        List answers, waiting; /* for the loop to take; at the gate */

        bool failed;
        uint64_t failed_life, failed_step;
        char message[WORLD_MESSAGE];
        WorldStats stats;
};

/* The first of a world counts. The disk is cut, so that everybody comes to an end. */
void world_fail(World *world, const char *format, ...) _printf_(2, 3);
void world_log(const World *world, const char *format, ...) _printf_(2, 3);
/* Whether an error may be: the disk is dead or gives out faults, or the store has failed. */
bool world_excuses(const World *world);
bool world_is_over(const World *world);

/* life.c */
void world_run(World *world);

/* index-fault.c: the next regions of a connection's wal-index may be refused. */
void index_fault_install(World *world, sqlite3 *db);

/* object.c */
void object_init(Object *object, World *world, unsigned number);
/* As the first life finds it, on the disk and in the model. */
void object_create(Object *object);
void object_done(Object *object);
/* One action of the workload. */
void object_step(Object *object);
void object_close(Object *object);
/* Reads the object after a recovery and finds it among the entries that are allowed, which then
 * becomes the first. */
void object_verify(Object *object);
/* What the database file alone holds is the last entry. */
void object_verify_file(Object *object);

/* What it holds now: an entry's index. */
size_t object_find_current(const Object *object);
/* Another commit; where it failed, the object is to be read anew and may hold it or not. */
void object_committed(Object *object, const Content *content);
void object_abandon(Object *object, const Content *maybe);
/* Reads it; false when that fails. */
bool object_look(Object *object, Content *ret);
/* Reads it, and that is what it must hold. */
void object_read_now(Object *object);
/* What a database file in rollback mode holds, past the engine. False when it is none. */
bool object_read_file(Object *object, const char *path, Content *ret);
void object_explain(Object *object, const char *what, const Content *want, const Content *got);

/* past.c: bookmarks, restore, snapshot, export. */
void past_note(Object *object);
/* After a recovery: what is later than an entry is lost. */
void past_settle(Object *object, size_t entry);
void past_step(Object *object);

/* txn.c: changes through a connection, in SQL and in the model. SQLITE_OK, or the first error. */
int txn_run(Object *object, sqlite3 *db, Content *content);
/* One statement without parameters, which the connection keeps. */
int txn_step(sqlite3 *db, const char *sql);
int txn_execute(sqlite3 *db, const char *format, ...) _printf_(2, 3);
