/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/content.h"

#include "lib/base/macro.h"

#include <stdio.h>

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t len)
{
        const unsigned char *p = data;

        while (len > 0) {
                uint64_t word = 0;
                size_t n = MIN(len, sizeof word);

                memcpy(&word, p, n);
                hash = rng_mix(hash ^ word ^ ((uint64_t)n << 56)) + 0x9e3779b97f4a7c15u;
                p += n;
                len -= n;
        }
        return hash;
}

static void clear_rows(ContentRow *rows, size_t n)
{
        for (size_t i = 0; i < n; i++)
                rows[i] = (ContentRow){ .k = -1 };
}

void content_clear(Content *content)
{
        memset(content, 0, sizeof *content);
        content->counter = -1;
        clear_rows(content->rows, CONTENT_ROWS);
        clear_rows(content->keys, CONTENT_KEYS);
        for (size_t i = 0; i < CONTENT_TABLES; i++)
                content->tables[i] = -1;
}

uint64_t content_hash(const Content *content)
{
        return hash_bytes(1, content, sizeof *content);
}

static void explain_rows(const char *table, const ContentRow *want, const ContentRow *got, size_t n,
        char *text, size_t size)
{
        for (size_t i = 0; i < n; i++)
                if (want[i].k != got[i].k || want[i].hash != got[i].hash) {
                        size_t len = strlen(text);

                        snprintf(text + len, size - len, "; %s[%zu] k %lld, not %lld%s", table, i,
                                (long long)got[i].k, (long long)want[i].k,
                                want[i].hash != got[i].hash ? ", other bytes" : "");
                        return;
                }
}

void content_explain(const Content *want, const Content *got, char *text, size_t size)
{
        snprintf(text, size, "commit %lld, not %lld", (long long)got->counter,
                (long long)want->counter);
        explain_rows("t", want->rows, got->rows, CONTENT_ROWS, text, size);
        explain_rows("u", want->keys, got->keys, CONTENT_KEYS, text, size);
        for (size_t i = 0; i < CONTENT_TABLES; i++)
                if (want->tables[i] != got->tables[i]) {
                        size_t len = strlen(text);

                        snprintf(text + len, size - len, "; x%zu", i);
                }
}

uint64_t content_make_blob(uint64_t number, size_t len, void *ret)
{
        Rng rng = { number };

        dd_assert(len <= BLOB_MAX);
        /* A third is text of one letter, which deltas shorten. */
        if (number % 3 == 0)
                memset(ret, 'a' + (int)(number % 23), len);
        else
                rng_fill(&rng, ret, len);
        return hash_bytes(len, ret, len);
}

const char *content_get_schema(void)
{
        return "CREATE TABLE t(id INTEGER PRIMARY KEY, k INT, b BLOB);"
               "CREATE INDEX ti ON t(k);"
               "CREATE TABLE u(key TEXT PRIMARY KEY, k INT, b BLOB) WITHOUT ROWID;"
               "CREATE TABLE meta(id INTEGER PRIMARY KEY, k INT);"
               "INSERT INTO meta VALUES(1, 0)";
}

int content_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret)
{
        for (sqlite3_stmt *kept = NULL; (kept = sqlite3_next_stmt(db, kept));)
                if (strcmp(sqlite3_sql(kept), sql) == 0 && !sqlite3_stmt_busy(kept)) {
                        *ret = kept;
                        return SQLITE_OK;
                }
        return sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);
}

int content_end(sqlite3_stmt *statement)
{
        int r = sqlite3_reset(statement);

        sqlite3_clear_bindings(statement);
        return r;
}

int content_close(sqlite3 *db)
{
        sqlite3_stmt *kept;

        while ((kept = sqlite3_next_stmt(db, NULL)))
                sqlite3_finalize(kept);
        return sqlite3_close(db);
}

static int read_rows(sqlite3 *db, const char *sql, ContentRow *rows, size_t n)
{
        sqlite3_stmt *statement;
        int r;

        r = content_prepare(db, sql, &statement);
        if (r != SQLITE_OK)
                return r;
        while ((r = sqlite3_step(statement)) == SQLITE_ROW) {
                int64_t id = sqlite3_column_int64(statement, 0);
                const void *blob = sqlite3_column_blob(statement, 2);
                size_t len = (size_t)sqlite3_column_bytes(statement, 2);

                if (id < 0 || (size_t)id >= n || rows[id].k != -1) {
                        content_end(statement);
                        return SQLITE_CORRUPT;
                }
                rows[id].k = sqlite3_column_int64(statement, 1);
                rows[id].hash = hash_bytes(len, blob, len);
        }
        content_end(statement);
        return r == SQLITE_DONE ? SQLITE_OK : r;
}

static int read_number(sqlite3 *db, const char *sql, int64_t *ret)
{
        sqlite3_stmt *statement;
        int r;

        r = content_prepare(db, sql, &statement);
        if (r != SQLITE_OK)
                return r;
        r = sqlite3_step(statement);
        if (r == SQLITE_ROW)
                *ret = sqlite3_column_int64(statement, 0);
        content_end(statement);
        return r == SQLITE_ROW ? SQLITE_OK : r == SQLITE_DONE ? SQLITE_EMPTY : r;
}

static int read_tables(sqlite3 *db, Content *content)
{
        for (size_t i = 0; i < CONTENT_TABLES; i++) {
                int64_t there = 0;
                char sql[80];
                int r;

                snprintf(
                        sql, sizeof sql, "SELECT count(*) FROM sqlite_schema WHERE name='x%zu'", i);
                r = read_number(db, sql, &there);
                if (r == SQLITE_OK && there > 0) {
                        snprintf(sql, sizeof sql, "SELECT k FROM x%zu", i);
                        r = read_number(db, sql, &content->tables[i]);
                }
                if (r != SQLITE_OK)
                        return r;
        }
        return SQLITE_OK;
}

static int read_all(sqlite3 *db, Content *content)
{
        int64_t there = 0;
        int r;

        r = read_number(db, "SELECT count(*) FROM sqlite_schema", &there);
        if (r != SQLITE_OK || there == 0)
                return r;
        r = read_number(db, "SELECT k FROM meta", &content->counter);
        if (r == SQLITE_OK)
                r = read_rows(db, "SELECT id, k, b FROM t", content->rows, CONTENT_ROWS);
        if (r == SQLITE_OK)
                r = read_rows(db, "SELECT CAST(substr(key, 4) AS INT), k, b FROM u", content->keys,
                        CONTENT_KEYS);
        return r == SQLITE_OK ? read_tables(db, content) : r;
}

int content_read(sqlite3 *db, Content *ret)
{
        bool own = sqlite3_get_autocommit(db);
        int r = SQLITE_OK;

        content_clear(ret);
        if (own)
                r = sqlite3_exec(db, "BEGIN", NULL, NULL, NULL);
        if (r == SQLITE_OK)
                r = read_all(db, ret);
        if (own && !sqlite3_get_autocommit(db))
                sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
        return r;
}

int content_check(sqlite3 *db, char *text, size_t size)
{
        sqlite3_stmt *statement;
        int r;

        r = sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL);
        if (r != SQLITE_OK)
                return r;
        r = sqlite3_step(statement);
        snprintf(text, size, "%s",
                r == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : "no answer");
        sqlite3_finalize(statement);
        return r == SQLITE_ROW ? SQLITE_OK : r;
}
