/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>

#define K_STEP 1000
#define BIG_PERMILLE 40
#define HOARD_PERMILLE 500

int txn_execute(sqlite3 *db, const char *format, ...)
{
        char sql[600];
        va_list args;

        va_start(args, format);
        vsnprintf(sql, sizeof sql, format, args);
        va_end(args);
        return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

int txn_step(sqlite3 *db, const char *sql)
{
        sqlite3_stmt *statement;
        int r = content_prepare(db, sql, &statement);

        if (r != SQLITE_OK)
                return r;
        sqlite3_step(statement);
        return content_end(statement);
}

/* The same with one number or two. */
static int step_numbers(sqlite3 *db, const char *sql, int64_t a, int64_t b)
{
        sqlite3_stmt *statement;
        int r = content_prepare(db, sql, &statement);

        if (r != SQLITE_OK)
                return r;
        sqlite3_bind_int64(statement, 1, a);
        if (sqlite3_bind_parameter_count(statement) > 1)
                sqlite3_bind_int64(statement, 2, b);
        sqlite3_step(statement);
        return content_end(statement);
}

static int put(Object *object, sqlite3 *db, bool key, unsigned id, size_t len, ContentRow *row)
{
        World *world = object->world;
        unsigned char blob[BLOB_MAX];
        uint64_t number = rng_next(&world->rng);
        uint64_t hash = content_make_blob(number, len, blob);
        int64_t k = (int64_t)rng_below(&world->rng, 1000);
        sqlite3_stmt *statement;
        char name[24];
        int r;

        r = content_prepare(db,
                key ? "REPLACE INTO u VALUES(?1, ?2, ?3)" : "REPLACE INTO t VALUES(?1, ?2, ?3)",
                &statement);
        if (r != SQLITE_OK)
                return r;
        snprintf(name, sizeof name, "key%u", id);
        if (key)
                sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
        else
                sqlite3_bind_int64(statement, 1, id);
        sqlite3_bind_int64(statement, 2, k);
        sqlite3_bind_blob(statement, 3, blob, (int)len, SQLITE_STATIC);
        sqlite3_step(statement);
        r = content_end(statement);
        if (r == SQLITE_OK)
                *row = (ContentRow){ k, hash };
        return r;
}

static int put_row(Object *object, sqlite3 *db, Content *content, size_t len_max)
{
        Rng *rng = &object->world->rng;
        unsigned id = (unsigned)rng_below(rng, CONTENT_ROWS);

        return put(object, db, false, id, rng_below(rng, len_max + 1), &content->rows[id]);
}

static int put_key(Object *object, sqlite3 *db, Content *content)
{
        Rng *rng = &object->world->rng;
        unsigned id = (unsigned)rng_below(rng, CONTENT_KEYS);

        return put(object, db, true, id, rng_below(rng, 400), &content->keys[id]);
}

static int delete_range(Object *object, sqlite3 *db, Content *content)
{
        Rng *rng = &object->world->rng;
        unsigned first = (unsigned)rng_below(rng, CONTENT_ROWS);
        unsigned last = MIN(
                first + (unsigned)rng_below(rng, rng_chance(rng, 300) ? 96 : 6), CONTENT_ROWS - 1u);
        int r;

        r = step_numbers(db, "DELETE FROM t WHERE id BETWEEN ?1 AND ?2", first, last);
        for (unsigned i = first; r == SQLITE_OK && i <= last; i++)
                content->rows[i] = (ContentRow){ .k = -1 };
        return r;
}

static int update_range(Object *object, sqlite3 *db, Content *content)
{
        Rng *rng = &object->world->rng;
        unsigned first = (unsigned)rng_below(rng, CONTENT_ROWS);
        unsigned last = MIN(first + (unsigned)rng_below(rng, 20), CONTENT_ROWS - 1u);
        int r;

        r = step_numbers(db, "UPDATE t SET k = k + 1000 WHERE id BETWEEN ?1 AND ?2", first, last);
        for (unsigned i = first; r == SQLITE_OK && i <= last; i++)
                if (content->rows[i].k != -1)
                        content->rows[i].k += K_STEP;
        return r;
}

static int change_table(Object *object, sqlite3 *db, Content *content)
{
        Rng *rng = &object->world->rng;
        unsigned i = (unsigned)rng_below(rng, CONTENT_TABLES);
        int64_t k = (int64_t)rng_below(rng, 1000);
        int r;

        if (content->tables[i] != -1) {
                r = txn_execute(db, "DROP TABLE x%u", i);
                k = -1;
        } else
                r = txn_execute(db, "CREATE TABLE x%u(k INT); INSERT INTO x%u VALUES(%lld)", i, i,
                        (long long)k);
        if (r == SQLITE_OK)
                content->tables[i] = k;
        return r;
}

/* Now and then more than its cache holds: then COMMIT writes a temporary file, after the WAL. */
static int use_temporary(Object *object, sqlite3 *db)
{
        unsigned n = rng_chance(&object->world->rng, 500) ? 40 : 1;

        return txn_execute(db,
                "CREATE TEMP TABLE IF NOT EXISTS temporary(a, b);"
                "DELETE FROM temporary;"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %u)"
                "INSERT INTO temporary SELECT i, zeroblob(3000) FROM n",
                n);
}

static int change(Object *object, sqlite3 *db, Content *content)
{
        Rng *rng = &object->world->rng;
        unsigned kind = (unsigned)rng_below(rng, 100);

        if (kind < 45)
                return put_row(object, db, content, rng_chance(rng, 200) ? 6000 : 500);
        if (kind < 60)
                return put_key(object, db, content);
        if (kind < 75)
                return update_range(object, db, content);
        if (kind < 88)
                return delete_range(object, db, content);
        if (kind < 94)
                return change_table(object, db, content);
        if (kind < 96)
                return use_temporary(object, db);
        return put_row(object, db, content, BLOB_MAX);
}

static int change_some(Object *object, sqlite3 *db, Content *content, unsigned n)
{
        int r = SQLITE_OK;

        while (r == SQLITE_OK && n-- > 0)
                r = change(object, db, content);
        return r;
}

/* A savepoint whose end is as likely a ROLLBACK TO; now and then with another one inside. */
static int change_in_savepoint(Object *object, sqlite3 *db, Content *content, unsigned depth)
{
        Rng *rng = &object->world->rng;
        Content before = *content;
        int r;

        r = txn_execute(db, "SAVEPOINT s%u", depth);
        if (r == SQLITE_OK)
                r = change_some(object, db, content, (unsigned)rng_between(rng, 1, 6));
        if (r == SQLITE_OK && depth < 3 && rng_chance(rng, 300))
                r = change_in_savepoint(object, db, content, depth + 1);
        if (r == SQLITE_OK && rng_chance(rng, 500)) {
                r = txn_execute(db, "ROLLBACK TO s%u", depth);
                *content = before;
                if (r == SQLITE_OK && rng_chance(rng, 500))
                        r = change_some(object, db, content, 2);
        }
        return r == SQLITE_OK ? txn_execute(db, "RELEASE s%u", depth) : r;
}

/* More pages than the cache holds, so that SQLite spills them into the WAL before the commit. */
static int change_much(Object *object, sqlite3 *db, Content *content)
{
        Rng *rng = &object->world->rng;
        unsigned n = (unsigned)rng_between(rng, 10, 40);
        int r = SQLITE_OK;

        while (r == SQLITE_OK && n-- > 0)
                r = put_row(object, db, content, BLOB_MAX / 2);
        return r;
}

int txn_run(Object *object, sqlite3 *db, Content *content)
{
        Rng *rng = &object->world->rng;
        int r = SQLITE_OK;

        if (content->counter < 0) {
                r = txn_execute(db, "%s", content_get_schema());
                content->counter = 0;
        }
        if (r == SQLITE_OK && rng_chance(rng, object->hoards ? HOARD_PERMILLE : BIG_PERMILLE))
                r = change_much(object, db, content);
        if (r == SQLITE_OK && rng_chance(rng, 900))
                r = change_some(object, db, content, (unsigned)rng_between(rng, 1, 4));
        if (r == SQLITE_OK && rng_chance(rng, 200))
                r = change_in_savepoint(object, db, content, 0);
        if (r != SQLITE_OK)
                return r;
        content->counter = object->next_counter++;
        return step_numbers(db, "UPDATE meta SET k = ?1", content->counter, 0);
}
