/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The storage engine of one slot: one journal for all its objects, and SQLite's default VFS
 *
 * store_open() takes the slot's journal folder, sees to it that what the journal holds is in a
 * database file before that is used, and makes the VFS "durable" SQLite's default: whoever opens a
 * file below the objects folder in this process, in C or from Python, is on it; other files fall
 * through to SQLite's unix VFS. The VFS keeps WAL and wal-index in heap, captures each commit into
 * the journal's filling batch, and never lets SQLite write a database file: the background work
 * alone does that.
 *
 *     runner: COMMIT -> capture -> filling batch --loop: one write in flight--> flushed
 *     background: flushed commits -> database files -> sync -> low-water mark -> segment reused
 *
 * The invariants, and where each is enforced:
 * 1. A commit is captured before SQLite publishes it (capture.c, called by the WAL's xSync in
 *    vfs-wal.c; what a connection without synchronous=FULL would pass by is caught when it gives
 *    up the WRITE lock, shm.c). Whatever an object lets out, answers to reads and errors too,
 *    waits until store_flushed() >= store_object_lsn() (store_wait(), store_sync()).
 * 2. The journal is durable before any database file is written, truncated or removed
 *    (checkpoint.c and background.c; vfs-file.c refuses SQLite's own writes).
 * 3. A segment is retired only when each object in it is fully in its database file and file and
 *    folder are synced, or when its live pages are copied forward (background.c).
 * 4. The batch that carries the new low-water mark is durable before a segment is overwritten
 *    (journal.c frees segments at the completion of that batch alone).
 * 5. Recovery writes the journal's last batch once more, durably, since what a killed process left
 *    can be read and yet be lost, and before that a copy of it, since it may be durable and
 * answered for, and that write torn (tail.c); it redoes, syncs files and folders, and only then
 * touches segments; it may be cut anywhere and begun again. It does so in one of two ways. As a
 * whole: then the epoch is switched (write, sync, rename, sync the folder) after the sync and
 * before segments are touched (recover.c, redo.c). Or late, with late_max: the epoch is switched
 * first, and the new epoch file says up to which batch the earlier epochs count; their segments
 * stay as they are, the journal goes on in others. An object is redone before it is opened, or by
 * the background; while one is left no segment is retired, and after that invariant 3 holds for
 * what was redone as for what is written behind (late-redo.c). A recovery after that takes all
 * epochs as one row.
 * 6. A failed write of the journal or sync of a database file or its folder ends the store: it
 *    fails for good, waiters are told, nothing more is written, and the successor replays
 *    (store_fail()).
 * 7. A commit that SQLite gives up after its capture is followed by CANCEL before the object can do
 *    anything else (capture.c, at the end of the write transaction).
 * 8. With an archive, what a segment holds is in a synced archive file before the mark that retires
 *    it, or the epoch switch that makes it void (archive.c). Two gaps are made, each with a line in
 *    the log: recovery goes on where the disk is full, and a segment that the disk has not given
 *    back for ten seconds is given up, since its commits go to the databases from memory.
 *
 * LSN: the number of a record in the journal, growing over restarts as well; 0 is before all.
 *
 * Threads: one object's connections are used by one thread at a time, different objects by several
 * at once. store_loop_*() and store_wait() belong to the loop thread, store_background_*() to one
 * other (or, in a simulator, all to one). Anything else may be called from any thread. No clock,
 * random byte or system call is used but the Disk's. One Store at a time to a process.
 */

#include "lib/base/list.h"
#include "lib/base/map.h"
#include "lib/store/disk.h"

typedef struct Store Store;
typedef struct StoreWaiter StoreWaiter;

typedef struct StoreOptions {
        Disk *disk;          /* NULL: disk_real() */
        const char *journal; /* the slot's folder, made when missing */
        /* The slot's archive folder, made when missing; NULL: no commit can be restored. Other
         * journals of the app have theirs beside it, in the same folder. */
        const char *archive;
        unsigned archive_days; /* how long its files are kept; 0: 30 */
        uint64_t archive_max;  /* bytes of them; beyond it the oldest go; 0: 10 GiB */
        const char *objects;   /* absolute, without a slash at the end, made when missing */
        uint64_t segment_size; /* bytes, a multiple of DISK_BLOCK; 0: 64 MiB; 256 KiB to 2 GiB */
        unsigned n_segments;   /* at most; 0: 8; at least 3 */
        uint64_t queue_max;    /* bytes captured and not yet on disk; 0: 64 MiB */
        uint64_t
                wal_heap_max; /* bytes of one object's WAL in heap, the rest in a file; 0: 16 MiB */
        /* Bytes of all WALs in heap, beyond which all are due; four times as many at most. 0: 64
         * MiB
         */
        uint64_t wal_total_max;
        uint64_t spill_size;    /* page sets beyond it go to a file of their own; 0: 16 MiB */
        unsigned checkpoint_at; /* frames of an object's WAL that make it due; 0: 128 */
        /* Objects that may be redone after store_open(), each with an open file until then: before
         * it is opened, or by background steps. Where there are more, or the journal has no room
         * meanwhile, and with 0, all are redone before store_open() returns. */
        unsigned late_max;
        /* Any thread: something waits to be written while nothing is in flight: the loop calls
         * store_loop_flush(). Called under no lock. */
        void (*wake)(void *data);
        /* Any thread: store_background_step() has something to do. */
        void (*work)(void *data);
        /* Any thread, once: the store has failed for good and the process should end. */
        void (*failed)(int error, const char *why, void *data);
        /* A line for the log; priority as in syslog(3). */
        void (*log)(int priority, const char *line, void *data);
        void *data;
} StoreOptions;

typedef struct StoreStats {
        uint64_t commits, cancels, copies, spills; /* captured */
        uint64_t record_bytes, disk_bytes;         /* of the journal: records, and as written */
        uint64_t batches, flushed_lsn, captured_lsn;
        uint64_t flush_ns[40]; /* [i]: flushes that took less than 2^i ns (and at least 2^(i-1)) */
        uint64_t queued_bytes, wal_bytes; /* now: captured and not on disk; all WALs in heap */
        uint64_t spill_bytes;             /* now: in files that the journal names */
        uint64_t checkpoints, checkpointed_pages, syncs, retired_segments;
        uint64_t deletes_untold;         /* of them nothing can be restored: the disk was full */
        unsigned objects, dirty_objects; /* known now; not fully in their files */
        unsigned segments_live, segments_free;
        uint64_t archived_segments, archive_ns;                /* written, and the time that took */
        uint64_t archive_gaps;                                 /* segments that could not be read */
        uint64_t archive_pruned, archive_files, archive_bytes; /* files removed; those there now */
        /* What was redone of what store_open() found, and the time it took; objects left. */
        uint64_t redone_commits, redone_pages, redone_objects, redo_bytes, redo_ns;
        uint64_t redo_left;
} StoreStats;

/*
 * -EAGAIN: another process has the journal. -EUCLEAN: the journal is damaged other than by a torn
 * tail; a log line names segment and offset. -EBUSY: an outsider holds a lock of a file that redo
 * must write. Else what the disk says.
 */
int store_open(const StoreOptions *options, Store **ret);
/*
 * No write is in flight (or the disk is one that forgets them), no thread inside. What was captured
 * but not flushed is dropped; what was flushed is redone by the next store_open(). Connections that
 * are still open on the VFS are named in the log: they can do nothing any more but be closed, and
 * the store's memory goes with the last of them.
 */
Store *store_close(Store *store);
DEFINE_CLEANUP(Store *, store_close)
/* Open on the VFS now: while there are any after store_close(), the disk stays in use. */
unsigned store_count_connections(Store *store);

/* 0, or the negative errno with which the store failed (invariant 6). */
int store_get_failure(Store *store);
void store_get_stats(Store *store, StoreStats *ret);

/* The gate. */

/* The last LSN captured, of all objects and of one (0: nothing that could still wait). */
uint64_t store_get_lsn(Store *store);
uint64_t store_object_lsn(Store *store, const char *path);
/* Everything up to it is durable. */
uint64_t store_flushed(Store *store);

/* Called once: result 0 when lsn is durable, or -EIO when the store has failed. */
struct StoreWaiter {
        void (*fn)(StoreWaiter *waiter, int result);
        uint64_t lsn;
        List link;
};

static inline void store_waiter_init(
        StoreWaiter *waiter, void (*fn)(StoreWaiter *waiter, int result))
{
        waiter->fn = fn;
        waiter->lsn = 0;
        list_init(&waiter->link);
}

/* Loop thread. True when there is nothing to wait for and fn will not be called; a failed store
 * makes every wait a call of fn from the next store_loop_flush(). */
bool store_wait(Store *store, StoreWaiter *waiter, uint64_t lsn);
/* Harmless when it does not wait. */
void store_wait_cancel(Store *store, StoreWaiter *waiter);
/* Blocks, for threads other than the loop's: 0 when durable, -EIO when the store has failed. */
int store_sync(Store *store, uint64_t lsn);

/*
 * Room: before an event of an object begins, the journal has room for what it may write
 *
 *   NONE --store_take_room()--> HELD --store_give_room()--> NONE
 *     \____ false ____> WAITING _/ (or NONE: without any), fn() is called
 *
 * A room is 64 KiB of the journal (a sixteenth of a segment where that is less), which no other
 * object's commits use up: those of its object find their place at once, without a wait of SQLite's
 * thread for the loop or the background. What they take goes off it. A commit that is larger, or
 * comes when the room is used up, asks as it is made: off the loop thread it waits for the queue or
 * the background, and it fails with SQLITE_FULL when there is no room and none can be made.
 *
 * 1. Taking never blocks. It says "wait" while the queue is more than half full, or what is not
 *    reserved is too little, and a write or the background may change that.
 * 2. Where nothing can change it (the disk is full, and what is in the journal cannot be written to
 *    the files), it says "go on" without a room, and so do all until a segment is free again: reads
 *    go on, each write asks and is refused. Nobody waits for room that others hold, since these may
 *    wait for him: when the background finds nothing to do, reservations count no more.
 * 3. Who waits gets a room in the order of coming. How long he waits at most is his own concern:
 *    store_give_room(), and the event begins without.
 * 4. A room is held while something executes, not while an event is suspended, which may be for
 *    hours.
 */
typedef struct StoreRoom StoreRoom;

struct StoreRoom {
        /* The wait is over; from store_loop_*() alone. */
        void (*fn)(StoreRoom *room);
        uint64_t left; /* bytes that are reserved and not used */
        MapNode map;
        List link;
        bool is_held;
};

static inline void store_room_init(StoreRoom *room, void (*fn)(StoreRoom *room))
{
        *room = (StoreRoom){ .fn = fn };
        list_init(&room->link);
}

/* Loop thread. A room of its full size for the object, also for one that holds what is left of it:
 * true when the event may begin, false when fn will be called. path stays until it is given back.
 */
bool store_take_room(Store *store, StoreRoom *room, const char *path);
/* Loop thread. Ends a wait as well; harmless when there is nothing to give. */
void store_give_room(Store *store, StoreRoom *room);

static inline bool store_room_is_waiting(const StoreRoom *room)
{
        return list_is_linked(&room->link);
}

/* For who writes without an event: false as well while the journal has no free segment ahead and
 * less than half of the current one. */
bool store_has_room(Store *store);

/* The loop thread. */

/* Starts the write of the filling batch when none is in flight. */
void store_loop_flush(Store *store);
/* Nothing in flight, nothing to write. */
bool store_loop_is_idle(Store *store);
/* Flushes and polls the disk until idle or failed: for disks that have no loop of their own. */
int store_loop_run(Store *store);

/* Background work, in steps that may block on the disk. */

/* One step: 1 when something was done, 0 when there is nothing to do now, negative errno when the
 * store has failed. What waits for a flush is taken up by a later step. */
int store_background_step(Store *store);
/* From now on steps write all flushed commits to their files and retire all but the current
 * segment, until there is nothing more to do: before a hand-over. false: as usual again. */
void store_set_draining(Store *store, bool draining);

/* A thread that makes the steps; work() of the options still comes. */
int store_start_background(Store *store);
/* Waits for the step that is under way. */
void store_stop_background(Store *store);

/* Objects. */

/*
 * Deletes an object's file: journalled now, done in the background; an object opened again at once
 * is new and empty. -EBUSY while it has connections, -ENOENT when there is none.
 *
 * It works on a full disk, since it makes room there. With an archive the journal takes up all that
 * the object held, so that a restore finds it; where there is no room for that and none can be
 * made, the object goes all the same and its past with it (STORE_E_PRUNED), and a log line says so.
 * Off the loop thread it waits for room as a commit does. -ENOSPC: on the loop thread, the journal
 * has no room now; or so many objects have been deleted with a full journal that what is kept for
 * that at its end is used up, until the background has removed the first.
 */
int store_delete(Store *store, const char *path);
/* Whether there is such an object, that is one that something was committed to: 0, -ENOENT, or what
 * the disk says. Creates nothing. */
int store_find_object(Store *store, const char *path);
/*
 * The object that this thread works for: from now on it may open that object's file alone of those
 * in the objects folder (ATTACH to another is refused). NULL: any. The string is copied.
 */
int store_set_current(Store *store, const char *path);
/*
 * Whether a write of an object was refused on this thread for want of room, on the disk or in the
 * journal, since store_set_current(): what the thread's guest made of the error is not asked.
 */
bool store_was_refused(void);
/* The same for damage that SQLite met, and for errors of the disk. */
bool store_was_broken(void);

/*
 * History: bookmarks, restore, snapshot, export (bookmark.c, history.c, image.c, export.c)
 *
 * A bookmark is a text that names an object and a moment of it: the moment up to which its commits
 * count. Bookmarks of one object sort in the order of their moments as strings do. A restore begins
 * with the object's present content and goes back, commit by commit, over the journal and the
 * archive; what comes out is checked and then copied into the object by one ordinary commit. So a
 * crash leaves all of it or nothing, it is durable when the object's LSN is (the gate, or
 * store_sync()), connections that are open on the object see it as another's commit, and the
 * bookmark from just before undoes it.
 *
 * Any thread but the loop's, which must run meanwhile (unless one thread does all, on a disk that
 * has no loop of its own); the caller keeps others from writing to the object, and the destination,
 * until the call returns, as who holds its token does. They block on disks. Paths as in
 * store_delete().
 */

#define STORE_BOOKMARK_LEN 59 /* without the NUL */

enum {
        STORE_E_BOOKMARK = 1, /* no bookmark, or another object's */
        STORE_E_PRUNED,       /* older than what the archive still has */
        STORE_E_FUTURE,       /* of a moment that has not been */
        STORE_E_ABSENT,       /* the object did not exist then */
        STORE_E_CHANGED,      /* another program changed the file since: it leads to no sound
                                 database; a log line names what was found */
        STORE_E_PAGE_SIZE,    /* the destination has pages of another size */
};

/* A line for who asked, of a STORE_E_*. */
const char *store_history_error(int error);

/* Of now: all that the object's connections have committed. Works for an object that is not there
 * as well (a restore of it is then STORE_E_ABSENT). -EINVAL: no path of an object. Does not block.
 */
int store_get_bookmark(Store *store, const char *path, char ret[STORE_BOOKMARK_LEN + 1]);
/* Of the object's last commit at or before that time (nanoseconds since 1970; commits are told
 * apart by 10 ms); the present's when that is later than now. STORE_E_PRUNED. */
int store_find_bookmark(
        Store *store, const char *path, uint64_t time_ns, char ret[STORE_BOOKMARK_LEN + 1]);
/* Whether it is a bookmark of the object, and of its past: 0, STORE_E_BOOKMARK, STORE_E_FUTURE.
 * Does not block. */
int store_check_bookmark(Store *store, const char *path, const char *bookmark);
/*
 * Makes the content of to_path what path's was at the bookmark; NULL: what it is now. to_path is
 * the same path, or another object's (a snapshot), which is made when missing and whose name in
 * _cf_METADATA stays its own. ret_undo: the bookmark of to_path from before. Of a deleted object
 * the past can be restored as well, into itself or another.
 *
 * STORE_E_*; -ENOENT: no bookmark, and path is not there; -EBUSY: to_path is in a transaction that
 * writes, or another program has the file of one of them; -ENOSPC: no room for the image or in the
 * journal. On any error nothing is changed (but that a to_path which was not there may be an empty
 * database).
 */
int store_restore(Store *store, const char *path, const char *bookmark, const char *to_path,
        char ret_undo[STORE_BOOKMARK_LEN + 1]);
/*
 * Writes what path holds now to a new file, an ordinary SQLite database in rollback mode, synced
 * with its name. The file is no database before all of it is there. -EEXIST: it exists; -ENOENT: no
 * such object, or no such folder.
 */
int store_export(Store *store, const char *path, const char *to_file);
/* The same of a moment (NULL: now), checked as a restore is. STORE_E_*. */
int store_export_past(Store *store, const char *path, const char *bookmark, const char *to_file);
/*
 * Makes the content of to_path that of an ordinary SQLite file, which nobody else uses and which is
 * used up by it, as store_restore() does from another object: for snapshots of objects that another
 * journal has. STORE_E_CHANGED: it is no sound database.
 */
int store_import(
        Store *store, const char *file, const char *to_path, char ret_undo[STORE_BOOKMARK_LEN + 1]);
