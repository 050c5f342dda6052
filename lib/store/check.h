/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Looking at a state folder without changing it: journals, archives, databases
 *
 * A Check sees the disk through an overlay (disk-overlay.h). check_journal() runs the recovery that
 * a start would run, on the overlay, and tells what it would redo and what is wrong; the databases
 * are then looked at as that redo leaves them. Nothing below is written, created or removed; locks
 * of journals are held until the Check goes, so that no service starts meanwhile.
 *
 *   check_new() -> check_journal() for each journal -> check_objects() -> check_free()
 *
 * What is found goes to found(), one thing a call, with a word that programs can rely on:
 *
 *   journal-pending    note    commits that the next start redoes
 *   journal-torn-tail  note    a last batch that is cut: a write that a crash interrupted
 *   journal-damage     damage  anything else that does not check; where, and what stands behind it
 *   journal-lost-file  damage  commits for a database that is not there
 *   journal-leftover   note    files that the next start removes; what --recover has set aside
 *   archive-damage     damage  a file of the archive does not check; where
 *   archive-gap        note    files do not follow each other: a restore does not go further back
 *   archive-leftover   note    a file that was being written
 *   database-corrupt   damage  what SQLite's own check says
 *   database-size      damage  the file is shorter or longer than its header says
 *   database-header    damage  no database, or a header that durabled does not write
 *   database-name      damage  the name it remembers belongs to another object
 *   database-unchecked odd     its schema uses what is not here (functions, collations)
 *   database-metadata  odd     it has tables, but none of durabled's
 *   stray-log          odd     -wal, -shm or -journal of another program beside a database
 *   stray-file         odd     a file or folder that does not belong there
 *
 * Guarantees:
 * 1. Whatever the files hold, no byte beyond what was read is touched, and memory is bounded: the
 *    images of a redo (64 MiB), an entry for each block it changes, SQLite's caches.
 * 2. A finding names a file, and a place in it where there is one.
 * 3. A batch, record or spill file with any bit changed is found, unless nothing depends on it. A
 *    database has no checksums: a bit that changes a value within a cell is not found.
 * One Check at a time to a process. check_objects() calls back from threads of its own, one call at
 * a time.
 */

#include "lib/store/disk.h"

#define CHECK_NOWHERE UINT64_MAX

typedef enum CheckLevel {
        CHECK_NOTE,   /* in order, and worth saying */
        CHECK_ODD,    /* does not belong there; nothing is lost by it yet */
        CHECK_DAMAGE, /* something is lost, or will not work */
} CheckLevel;

typedef struct CheckFinding {
        CheckLevel level;
        const char *what; /* a word of the table above */
        const char *path;
        uint64_t offset; /* or CHECK_NOWHERE */
        const char *text;
} CheckFinding;

typedef struct CheckOptions {
        Disk *disk;          /* NULL: disk_real() */
        const char *objects; /* absolute, without a slash at the end */
        const char *scratch; /* folder for what redo would change; NULL: $TMPDIR or /var/tmp */
        bool quick;          /* databases without their indexes (PRAGMA quick_check) */
        uint64_t until;      /* as if journals ended with this LSN; 0: whole */
        void (*found)(const CheckFinding *finding, void *data);
        /* A database was looked at: how many so far. NULL: nobody wants to know. */
        void (*progress)(uint64_t n_databases, void *data);
        /* Whether an object's id is that of the name. NULL: not asked. */
        bool (*name_fits)(Slice unique_key, Slice id, Slice name, void *data);
        void *data;
} CheckOptions;

typedef struct Check Check;

int check_new(const CheckOptions *options, Check **ret);
Check *check_free(Check *check);
DEFINE_CLEANUP(Check *, check_free)

/* An object that a journal has records of. */
typedef struct CheckObject {
        char *name;             /* path of its file below the objects folder */
        uint64_t before, after; /* commits and deletions that a cut would redo, and would not */
        bool is_ahead; /* its file holds some of the latter already: a cut leaves it as it is */
} CheckObject;

typedef enum CheckJournalState {
        CHECK_EMPTY,   /* nothing to redo */
        CHECK_PENDING, /* the next start redoes it */
        CHECK_DAMAGED, /* a start refuses */
} CheckJournalState;

#define CHECK_OBJECTS_MAX 100000u

typedef struct CheckJournal {
        CheckJournalState state;
        uint64_t commits, bytes, batches; /* to be redone; up to the damage */
        uint64_t first_lsn, last_lsn;
        uint64_t time; /* ns since 1970: the newest batch */
        bool is_torn;
        char torn_path[300];
        uint64_t torn_offset;
        /* CHECK_DAMAGED. */
        bool has_epoch;   /* without, nothing can be redone */
        uint64_t cut_lsn; /* records before it are fine; 0: all */
        char damage_path[300], damage_text[256];
        uint64_t damage_offset;
        uint64_t lost_commits; /* from cut_lsn on, as far as they can be read */
        uint64_t n_lost_files; /* missing, with commits for them: CHECK_DAMAGED as well */
        CheckObject *objects;  /* those with any commit, the first CHECK_OBJECTS_MAX */
        size_t n_objects, n_more;
} CheckJournal;

/*
 * 0 when it was looked at, whatever was found; *ret is done with check_journal_done(). -ENOENT: no
 * such folder. -EAGAIN: another process has the journal. -EBUSY: another program holds the lock of
 * a database that the journal has commits for.
 */
int check_journal(Check *check, const char *journal, CheckJournal *ret);
void check_journal_done(CheckJournal *journal);

/*
 * Calls fn for each <folder>/<app>/<slot> (of "journal" and "archive"), in order; app: one alone,
 * or NULL. What else is in there is a finding. Non-zero stops and is returned.
 */
typedef int (*CheckSlotFn)(const char *app, unsigned slot, const char *path, void *data);
int check_each_slot(Check *check, const char *folder, const char *app, CheckSlotFn fn, void *data);

/* An archive's folder; its files never change, so a service may run. */
int check_archive(Check *check, const char *folder);

/* One database, as the journals that were checked leave it. -ENOENT. */
int check_database(Check *check, const char *path);
/* All of the objects folder, by n_threads; prefix: namespaces that begin so alone, or NULL. */
int check_objects(Check *check, const char *prefix, unsigned n_threads);
