/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The database file of an object, and the daemon's own databases
 *
 * An object's file is <objects>/<uniqueKey>/<first 2 hex digits>/<id>.sqlite, always WAL,
 * synchronous FULL. Tables that start with _cf_ are the host's (workerd names its own so):
 * _cf_METADATA holds key/value pairs about the object, among them its name.
 *
 * This room alone includes sqlite3.h. A Db belongs to one thread at a time. What blocks on a disk
 * here runs on a runner or a pool thread, never on a worker's loop; the supervisor's catalog is the
 * exception, at start and deploy.
 *
 * Guarantees:
 * 1. db_open_object() either gives a file in WAL mode that holds its _cf_METADATA, or changes
 * nothing but folders.
 * 2. A statement that failed never looks like a success: every error is a negative errno and
 *    db_get_error() has SQLite's words.
 */

#include "lib/base/slice.h"

typedef struct Db Db;
typedef struct DbRow DbRow;

/* <objects>/<unique_key>/<2 hex>/<id>.sqlite; malloc'd. NULL when memory is out. */
char *db_object_path(const char *objects, const char *unique_key, const char *id_text);

/*
 * Creates folders and file when missing; name may be empty (an id without one) and is remembered
 * from the first time that it is not. -EUCLEAN when the file is another name's, or no database;
 * -ENOTSUP when the file system cannot do WAL.
 */
int db_open_object(const char *path, Slice name, Db **ret);
/* The daemon's own database, brought up to date by the numbered migrations: scripts[i] takes it
 * from user_version i to i + 1, each in a transaction. -ENOTSUP when the file is newer than the
 * program. */
int db_open_own(const char *path, const char *const *scripts, size_t n_scripts, Db **ret);
Db *db_close(Db *db);
DEFINE_CLEANUP(Db *, db_close)

#define DB_METADATA_MAX 160u

/* A value of an object's _cf_METADATA that is a text shorter than size; "" when there is none. */
int db_read_metadata(Db *db, const char *key, char *ret, size_t size);

const char *db_get_error(const Db *db);

typedef struct DbValue {
        enum { DB_NULL, DB_INTEGER, DB_TEXT, DB_BLOB } type;
        int64_t integer;
        Slice bytes; /* in a row: valid during the callback */
} DbValue;

#define DB_INT(_i) ((DbValue){ .type = DB_INTEGER, .integer = (_i) })
#define DB_STR(_slice) ((DbValue){ .type = DB_TEXT, .bytes = (_slice) })

/* Called for each row; non-zero stops and is returned. */
typedef int (*DbRowFn)(const DbValue *values, size_t n, void *data);

/* One statement with positional values, as many as it has places; a float in a row comes as text.
 * -EBUSY, -ENOSPC, -EIO, -EEXIST (a constraint), -EUCLEAN
 * (corrupt), -EINVAL (SQL), -ENOMEM. */
int db_run(Db *db, const char *sql, const DbValue *values, size_t n, DbRowFn fn, void *data);
int db_begin(Db *db);
int db_commit(Db *db);
void db_rollback(Db *db);
