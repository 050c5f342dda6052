/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The inside of the storage engine: nodes (objects that it knows), the journal, and who locks what
 *
 * Two kinds of mutex. A node's guards its WAL, wal-index, locks and what it has captured; the
 * store's guards the table of nodes with their reference counts, the journal and its queue. A
 * thread takes a node's before the store's, never the other way, and never two nodes'. Disks are
 * waited for under a node's mutex alone where noted, and never under the store's but in
 * journal_fill().
 */

#include "lib/base/file.h"
#include "lib/base/map.h"
#include "lib/store/journal-format.h"
#include "lib/store/store.h"
#include "lib/store/wal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <syslog.h>

#include <sqlite3.h>

/*
 * A test's build can switch an invariant off, to see that the simulator notices; what ships has
 * none of it.
 */
#ifdef STORE_SABOTAGE
extern unsigned store_sabotage;
#define SABOTAGED(_what) (store_sabotage & (_what))
#else
#define SABOTAGED(_what) 0
#endif
enum {
        SABOTAGE_EARLY_FLUSH = 1,      /* 1: flushed is what was submitted */
        SABOTAGE_WAL_RULE = 2,         /* 2: files are written before the journal is durable */
        SABOTAGE_RETIRE_SYNC = 4,      /* 3: segments go without a sync of the files */
        SABOTAGE_COPY_FORWARD = 8,     /* 3: segments go though a reader pins them */
        SABOTAGE_LOW_MARK = 16,        /* 4: segments are overwritten before the mark is durable */
        SABOTAGE_REDO_SYNC = 32,       /* 5: the epoch is switched before the files are synced */
        SABOTAGE_WRITE_ERROR = 64,     /* 6: a failed journal write counts as done */
        SABOTAGE_CANCEL = 128,         /* 7: no CANCEL */
        SABOTAGE_FOLDER_SYNC = 256,    /* 3: folders of new files are not synced */
        SABOTAGE_CRC = 512,            /* a torn batch is believed */
        SABOTAGE_TAIL = 1024,          /* 2: a redo does not make the last batch durable first */
        SABOTAGE_PARENTS = 2048,       /* 3: nor are the folders of these folders */
        SABOTAGE_ARCHIVE = 4096,       /* 8: segments go without a file in the archive */
        SABOTAGE_UNDO = 8192,          /* what was before a page is left out */
        SABOTAGE_ARCHIVE_SYNC = 16384, /* 8: what is in the archive is not synced */
        SABOTAGE_COPY = 65536,         /* 2: the copy of the last batch is not taken */
        SABOTAGE_LATE = 32768,         /* 5: segments go though something is still to be redone */
};

#define NO_SEGMENT UINT64_MAX
#define SHM_REGION_SIZE 32768
#define SHM_N_LOCKS 8
/* What only marks and CANCEL may use at the end of a segment, so that a full journal can be
 * emptied. */
#define SEGMENT_RESERVE (64u << 10)
#define BATCH_TARGET (1u << 20)
/* A log is much too long at so many times the length at which it is due. */
#define LONG_LOG 512u

typedef struct Node Node;
typedef struct Archive Archive;
typedef struct LateRedo LateRedo;

typedef enum SegmentState {
        SEGMENT_ABSENT, /* no file yet */
        SEGMENT_FREE,
        SEGMENT_LIVE, /* the current one and those that are not retired */
} SegmentState;

typedef struct Segment {
        SegmentState state;
        DiskFile *file;
        uint64_t number;
        uint64_t last_lsn;  /* of its records, or 0 */
        uint64_t first_lsn; /* the same; known of those alone that recovery found */
        uint64_t end; /* where the batches end that count; UINT64_MAX: where the last one does */
        unsigned era; /* of the journal's */
} Segment;

typedef struct Batch {
        DiskWrite write;
        List link;
        Store *store;
        unsigned char *data;
        size_t room, len;
        uint32_t n_records;
        uint64_t first_lsn, last_lsn, segment, offset, low, submitted_at;
        unsigned slot;
} Batch;

/* Guarded by the store's mutex. */
typedef struct Journal {
        Segment *segments;
        unsigned n_segments, current;
        uint64_t segment_size;
        uint64_t offset; /* in the current segment, where the next batch begins */
        uint64_t epoch, last_segment, last_batch, last_lsn;
        /* The epochs that live segments are of, the oldest first; the last is the one written. */
        EarlierEpoch eras[EPOCH_EARLIER_MAX + 1];
        unsigned n_eras;
        /* The low-water mark: what it is to be, for batches that go up to this LSN or beyond; what
         * the last batch said; what is durable. */
        uint64_t low, low_lsn, said_low, durable_low;
        bool mark_wanted; /* low must get out, with or without records */
        Batch *filling, *in_flight;
        List ready, spare;
        unsigned n_spare;
        uint64_t queued;
        uint64_t reserved; /* of all rooms that are held: what they have left */
        uint64_t spilled;  /* bytes of spill files that the current segment names */
        bool woken;        /* wake() was called and the loop has not come yet */
} Journal;

/* What an append is for: how far into a segment's reserve it may go, and whether it heeds the limit
 * of the queue and what is reserved for others. */
typedef enum JournalUse {
        JOURNAL_COMMIT, /* heeds all; uses up the room that its object holds first */
        JOURNAL_COPY,   /* what is copied forward makes room: no reservation holds it up */
        JOURNAL_DELETE, /* so does a file that goes: half of the reserve, twice the queue */
        JOURNAL_CANCEL, /* and marks: all of it, beyond the queue's limit */
} JournalUse;

/* A thread that waits for room inside of a commit; the store's mutex. */
typedef struct RoomWaiter {
        List link;
        const Node *node;
        int why;       /* -EAGAIN: the queue is full, -ENOSPC: the journal is */
        uint64_t call; /* number of its call for the background */
        bool stuck;    /* a whole round since found nothing to do */
} RoomWaiter;

/* From frame on, captured into segment. */
typedef struct SegmentMark {
        uint32_t frame;
        uint64_t segment;
} SegmentMark;

typedef struct Spill {
        List link;
        uint64_t file, segment, size;
} Spill;

typedef struct Folder {
        MapNode map;
        char path[];
} Folder;

struct Node {
        MapNode map;
        List link;   /* of the store's list, in the order of creation */
        List due;    /* of those that the background may have something to do for */
        List logged; /* of those with captured frames, by when they were looked at last */
        List held;   /* of those with a first segment, by its number */
        Store *store;
        char *path;
        const char *name;   /* path below the objects folder */
        unsigned n_refs;    /* handles, and who works on it; the store's mutex */
        unsigned n_handles; /* of the database; each has a reference; the store's mutex */
        uint32_t object;    /* its number in the journal */
        atomic_uint_least64_t last_lsn;
        uint64_t first_segment; /* oldest that holds something the synced file lacks; the store's */
        uint64_t retire_round;  /* of the last try to write it for a segment's sake */
        size_t wanted;          /* bytes of a commit or DELETE that found no room in the journal;
                                   0: it was another file that has none */
        atomic_bool deleted;    /* DELETE is captured: the file is to be removed */

        pthread_mutex_t mutex;
        DiskFile *file;
        uint64_t size; /* of the database as its file would have it, in bytes */
        uint32_t page_size;
        bool is_new;                /* nothing of the file counts: page 1 is the template's */
        bool needs_create;          /* CREATE must come before the next record */
        atomic_bool needs_truncate; /* the file holds what CREATE made void */
        bool dirty;                 /* written since it was synced */
        bool entry_dirty;           /* its name may not be durable */
        bool checkpoint_failed;

        Wal wal;
        char *overflow_path;
        PageMap newest;       /* captured frames of this generation, by page */
        uint32_t *superseded; /* captured frames whose pages have newer ones */
        size_t n_superseded, superseded_room;
        uint32_t dropped;       /* frames whose pages were dropped because the file has them */
        bool newest_unknown;    /* it must be made anew before it is used */
        atomic_uint captured;   /* frames of this generation in the journal */
        atomic_uint backfilled; /* those of them that are in the file */
        /* Frames that are durable when the LSN is, the newer pair to come after the older. */
        struct {
                uint32_t frame;
                uint64_t lsn;
        } durable[2];
        uint32_t last_header; /* frame whose header was written last in this transaction */
        uint32_t txn_first;   /* captured in this write transaction: its first frame, or 0 */
        uint64_t txn_lsn;
        uint64_t generation;  /* of the WAL */
        atomic_uint long_log; /* frames at which a transaction waits for the log's end */
        SegmentMark *marks;
        size_t n_marks;
        uint64_t named_segment;

        unsigned char **regions;
        int n_regions;
        int locks[SHM_N_LOCKS]; /* -1 exclusive, n shared */
        bool checkpointing;     /* without the mutex, but with the CKPT lock */
};

struct Store {
        Disk *disk;
        StoreOptions options;
        char *journal_path, *objects_path, *archive_path; /* archive_path: NULL without one */
        size_t objects_len;
        DiskFile *lock;
        pthread_t loop_thread;

        pthread_mutex_t mutex;
        pthread_cond_t changed; /* flushed, room, failure */
        pthread_cond_t work;    /* for the background */
        Journal journal;
        Map nodes;
        Map folders; /* Folder: those of objects' files that were seen */
        List node_list, due, logged, held;
        size_t n_due, n_logged;
        uint32_t last_object;
        List spills;
        uint64_t last_file; /* number of spill and overflow files */
        /* Room (room.c). Full: none, and the background can make none; until a segment is free. */
        Map rooms; /* StoreRoom that are held, by the object's path */
        List room_queue, room_waiters;
        bool full;
        uint64_t room_calls; /* for the background, by who waits for room */
        unsigned n_closed;   /* nodes that no handle needs */
        StoreStats stats;
        struct {
                uint32_t what; /* a hash of it */
                uint64_t at;
        } logged_lines[64];
        char failure_text[256];

        atomic_uint_least64_t flushed, captured, wal_bytes;
        atomic_int failure;
        atomic_bool left_behind; /* closed while connections were open */
        List waiters;            /* loop thread */

        /* The background's. */
        atomic_bool draining;
        LateRedo *late; /* late-redo.h; NULL when nothing is left */
        atomic_bool is_late;
        bool late_turn; /* its step comes first */
        uint64_t retire_round;
        uint64_t wal_peak;             /* of wal_bytes, since memory was given back */
        bool no_segment_logged, retry; /* something failed that may succeed later */
        /* Rounds in a row that found nothing to do but what a commit holds up that is about to be
         * published. */
        unsigned n_unsettled;
        bool unsettled;    /* this one */
        Archive *archive;  /* NULL without one; archive.c */
        bool archive_turn; /* its step comes first */
        pthread_t background;
        bool has_background, stop_background;
        bool work_waits; /* a flush is to call for work */
        /* Calls for work and for room, and those that the thread has heeded. */
        uint64_t work_calls, work_seen, room_seen;
};

/* store.c */
/* A connection was closed on a store that was left behind: frees it after the last. */
void store_let_go(Store *store);
/* A store that has its folder's lock and nothing more: before a recovery. */
int store_new(const StoreOptions *options, Store **ret);
void store_free(Store *store);
void store_log(Store *store, int priority, const char *format, ...) _printf_(3, 4);
/* Whether a line about this is due: one in ten seconds. No lock of the store's may be held. */
bool store_may_log(Store *store, const char *what);
/* An error of one object's file, in the log; of a file's many one in ten seconds. No lock of the
 * store's may be held. */
void store_complain(Store *store, const char *path, const char *format, ...) _printf_(3, 4);
/* Invariant 6: from now on the store is of no use. */
void store_fail(Store *store, int error, const char *format, ...) _printf_(3, 4);
void store_fire_waiters(Store *store);
void store_call_work(Store *store);
char *store_file_path(Store *store, const char *kind, uint64_t number);
int store_make_folder(Disk *disk, const char *path);
/* Makes the name of an object's file durable, and those of its folders: whoever made them may have
 * been killed before it synced them. */
int store_sync_name(Store *store, const char *path);

/* recover.c: redoes, or plans to, switches the epoch, opens the segments. */
int store_recover(Store *store);

/* late-redo.c */
/* An object that is still to be redone is, before this returns. -EAGAIN: another program has its
 * file. No lock may be held. */
int late_ensure(Store *store, const char *path);
bool late_is_going(Store *store);
/* Background: 1 when something was done. */
int late_step(Store *store);

/* journal.c; all take the store's mutex themselves. */
typedef struct JournalAppend {
        Node *node;
        uint64_t segment; /* that the records are made for, from journal_prepare() */
        unsigned char *records;
        size_t len;
        uint32_t n_records;
        JournalUse use;
        uint64_t ret_last_lsn;
} JournalAppend;

/*
 * The segment that `len` bytes of the node's records go to now. -EAGAIN: the queue is full,
 * -ENOSPC: the journal is.
 */
int journal_prepare(Node *node, size_t len, JournalUse use, uint64_t *ret_segment);
/*
 * Numbers the records, puts them into the filling batch, and notes in the node what holds it.
 * -ESTALE: they would go to another segment: prepare and make them anew.
 */
int journal_append(Store *store, JournalAppend *append);
/* Tells the loop when it must come. No lock may be held. */
void journal_wake(Store *store);
/* Starts the next write when there is one. Loop thread. */
void journal_fill(Store *store);
bool journal_is_idle(Store *store);
/* The store's mutex is held. */
bool journal_is_busy(const Journal *journal);
unsigned journal_count_segments(const Journal *journal, SegmentState state);
/* What a commit of len bytes may still use of the current segment, behind the filling batch. */
uint64_t journal_get_rest(const Journal *journal);
struct Found;
/* kept: the segments of its batches stay as they are until they are retired; NULL: none do. */
int journal_open(Store *store, const EpochFile *epoch, const struct Found *kept);
void journal_close(Store *store);
/* A new file of zeros, synced with its name. */
int journal_make_segment(Store *store, unsigned slot, DiskFile **ret);
/* Makes one more segment ready: 1 when it did, 0 when none is needed. Background. */
int journal_prepare_segment(Store *store);
/* Says in the next batch that segments below low are done with. */
void journal_set_low(Store *store, uint64_t low);
uint64_t journal_get_current(Store *store);
/* The current segment, or the next where that one is of an earlier epoch; the store's mutex is
 * held. */
uint64_t journal_get_own(const Journal *journal);

/* room.c */
/* Whether what the node's object has left of its room is enough for a commit of so many bytes; the
 * store's mutex is held. */
bool room_covers(const Store *store, const Node *node, size_t len);
/* Whether a commit of so many bytes leaves other objects what is reserved for them; the store's
 * mutex is held. */
bool room_allows(const Store *store, const Node *node, size_t len);
/* What the commit took is no longer reserved; the store's mutex is held. */
void room_use(Store *store, const Node *node, size_t len);
/* A segment is free; the store's mutex is held. */
void room_note_free(Store *store);
/* Waits until there may be room for what the node wanted, after -EAGAIN or -ENOSPC; -ENOSPC when
 * waiting is of no use or the thread is the loop's. No lock may be held. */
int room_wait(Node *node, int why);
/*
 * Background, after a round without anything to do, which began when so many calls had come: unless
 * something is on its way to the disk, reservations count no more, and those who find no room even
 * so wait in vain.
 */
void room_note_stuck(Store *store, uint64_t work_calls, uint64_t room_calls);
/* Whether events wait: the loop is to look after them. The store's mutex is held. */
bool room_has_queue(const Store *store);
/* Lets events go that can. Loop thread; no lock may be held. */
void room_fire(Store *store);

/* node.c */
int node_open(Store *store, const char *path, bool create, Node **ret);
Node *node_find(Store *store, const char *path); /* with a reference */
void node_ref(Node *node);                       /* store's mutex held */
/* As node_open(), for a connection; given back with node_close_handle(). */
int node_open_handle(Store *store, const char *path, bool create, Node **ret);
void node_close_handle(Node *node);
/* Of a file that has been redone, is locked and not synced: it needs what is in that segment and
 * those after it. Takes the file, unless it fails. */
int node_adopt(Store *store, const char *path, DiskFile **file, uint64_t first_segment);
bool node_has_handles(Node *node);
/* The folders of an object's file are there. */
int node_note_folders(Store *store, const char *path);
/* Before they are made: -ENOENT, with a complaint, when one that was there is gone. */
int node_check_folders(Store *store, const char *path);
/* Takes the mutex when no checkpoint is under way, or there are handles. */
void node_lock_idle(Node *node);
/* Frees it when nothing needs it any more. */
void node_unref(Node *node);
bool node_try_free(Node *node); /* store's mutex held */
void node_free(Node *node);
/* What the database's file holds, or would hold: *ret_len is less than len where it ends. The mutex
 * is held. */
int node_read(Node *node, void *data, size_t len, uint64_t offset, size_t *ret_len);
void node_first_page(const Node *node, unsigned char *page, size_t len, size_t offset);
/*
 * A log that never ends, since a commit is always on its way: whoever may wait does so before he
 * begins to read, until all is durable and the background has ended it. No lock may be held.
 */
void node_wait_for_end(Node *node);
/* Puts it on the list of those that are due; the store's mutex is held. */
void node_note_due(Node *node);
/* Its log holds captured frames, or none any more; the store's mutex is held. */
void node_note_logged(Node *node, bool is_logged);
/* The oldest segment that it needs, or NO_SEGMENT; the store's mutex is held. */
void node_set_first_segment(Node *node, uint64_t segment);
/* Off all lists, before it is freed; the store's mutex is held. */
void node_unlink(Node *node);
/* Before a captured frame becomes its page's newest. */
void node_note_superseded(Node *node, const PageFrame *newer);
/* Drops the pages that nobody can read any more; while nobody reads, and nothing is captured that
 * is not published. */
void node_drop_pages(Node *node);
/* The segment of a captured frame. */
uint64_t node_segment_of(const Node *node, uint32_t frame);
void node_drop_wal(Node *node);
/* A new generation of the log begins, or the log is dropped. */
void node_begin_log(Node *node);
/* The frames of the log that are durable, at least. */
uint32_t node_get_durable(const Node *node);
/* The store's count of the memory of logs. */
void node_count_wal(Node *node, uint64_t before);

/* capture.c; the node's mutex is held. */
/* Frames after captured up to `upto` are a commit. */
int capture_commit(Node *node, uint32_t upto);
/* The write transaction ends: what was captured and not published is cancelled. */
void capture_settle(Node *node);
/* Writes frames after `done` up to captured into the current segment anew. */
int capture_copy(Node *node, uint32_t done, uint32_t db_pages);
/* tells: with all that it held, for a restore. */
int capture_delete(Node *node, bool tells);

/* shm.c; the node's mutex is held where noted. */
typedef struct WalIndex {
        uint32_t max_frame, n_pages, salt[2], backfilled;
} WalIndex;
/* False when there is none or it is being written. */
bool wal_index_read(const Node *node, WalIndex *ret);
/* How far frames may be written to the file: not beyond what a reader's mark says. */
uint32_t wal_index_get_safe(Node *node, uint32_t max_frame);
void wal_index_set_backfilled(Node *node, uint32_t frame);
/* Begins the log anew where nobody reads from it; false when somebody may. */
bool wal_index_restart(Node *node);
void wal_index_drop(Node *node);

/* checkpoint.c */
/* Writes what can be written; 1 when something was, 0 when not (*ret_done: all frames are in the
 * file). */
int node_checkpoint(Node *node, bool *ret_done);
/* Syncs file and name where they need it, and notes which segment the object now needs. */
int node_sync(Node *node);
/* The same, for when the whole file system was synced since node_note_sync(). */
typedef struct NodeSync {
        uint64_t generation;
        uint32_t backfilled;
        bool file, entry, is_void;
} NodeSync;
void node_begin_sync(Node *node, NodeSync *ret);
void node_end_sync(Node *node, const NodeSync *sync);

/* db.c */
/* The negative errno of a connection's last result. */
int db_map_result(sqlite3 *handle, int result);

/* vfs.c */
int vfs_register(Store *store);
void vfs_unregister(void);
/* node_check_folders() of the store that is open in this process, if one is. */
int vfs_check_folders(const char *path);
/* SQLite's code for a disk's error; want of room is noted for store_was_refused(). */
int vfs_map_error(int error, int otherwise);
/* The disk's last error that was no want of room, on this thread since it was asked before; 0:
 * none. SQLite's check tells what it cannot read as damage. */
int vfs_take_error(void);
/* Whether this thread may open any object for now, whatever store_set_current() says; what it was
 * before. */
bool vfs_allow_any(bool allow);
/* vfs-file.c, vfs-wal.c */
typedef struct DurableFile {
        sqlite3_file base;
        Node *node;
        unsigned char shared, exclusive; /* shm locks, by bit */
        int lock;
        bool has_shm;
} DurableFile;
extern const sqlite3_io_methods durable_main_methods, durable_wal_methods;
int shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **ret);
int shm_lock(sqlite3_file *file, int offset, int n, int flags);
void shm_barrier(sqlite3_file *file);
int shm_unmap(sqlite3_file *file, int delete);

static inline void store_lock(Store *store)
{
        pthread_mutex_lock(&store->mutex);
}

static inline void store_unlock(Store *store)
{
        pthread_mutex_unlock(&store->mutex);
}

static inline void node_lock(Node *node)
{
        pthread_mutex_lock(&node->mutex);
}

static inline void node_unlock(Node *node)
{
        pthread_mutex_unlock(&node->mutex);
}
