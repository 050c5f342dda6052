/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What an object holds, according to the model, and what a database holds, according to SQLite
 *
 * The schema of the workload, and its content as the model reckons it with: no SQL is involved in
 * that. Blobs are made from a number and remembered by their hash.
 */

#include "tests/sim/rng.h"

#include <sqlite3.h>

#define CONTENT_ROWS 96
#define CONTENT_KEYS 16
#define CONTENT_TABLES 3

typedef struct ContentRow {
        int64_t k;     /* -1: there is no such row */
        uint64_t hash; /* of the blob */
} ContentRow;

typedef struct Content {
        int64_t counter; /* -1: no schema, an object that is not there */
        ContentRow rows[CONTENT_ROWS], keys[CONTENT_KEYS];
        int64_t tables[CONTENT_TABLES]; /* the number in the only row of x0, x1, ...; -1: no table
                                         */
} Content;

/*
 * A statement, which its connection keeps for the next time, as guests do; sql is a constant. It is
 * reset when it is given back.
 */
int content_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret);
/* SQLITE_OK, or why its last step failed. */
int content_end(sqlite3_stmt *statement);
/* With the statements that it kept. */
int content_close(sqlite3 *db);

void content_clear(Content *content);
uint64_t content_hash(const Content *content);
/* Says where they differ, for messages. */
void content_explain(const Content *want, const Content *got, char *text, size_t size);

#define BLOB_MAX 8192u
/* Fills and hashes a blob that belongs to a number. */
uint64_t content_make_blob(uint64_t number, size_t len, void *ret);

/* The statements that make the schema, with the counter at 0. */
const char *content_get_schema(void);
/* SQLITE_OK, or SQLite's error. A database without the schema is content_clear()'s. */
int content_read(sqlite3 *db, Content *ret);
/* SQLITE_OK with the first line of PRAGMA integrity_check in text: "ok". */
int content_check(sqlite3 *db, char *text, size_t size);
