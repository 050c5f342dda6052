/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include "lib/base/file.h"

#include <string.h>

#define N_FOLDERS 256u

char *object_path(const char *folder, unsigned number)
{
        char *path;

        if (asprintf(&path, "%s/%02x/%08u.sqlite", folder, number % N_FOLDERS, number) < 0)
                die("out of memory");
        return path;
}

void make_folders(const char *folder)
{
        for (unsigned i = 0; i < N_FOLDERS; i++) {
                _cleanup_(free_p) char *path = NULL;

                if (asprintf(&path, "%s/%02x", folder, i) < 0)
                        die("out of memory");
                check(dir_create(path, 0750), path);
        }
}

void check_sql(sqlite3 *db, int result, const char *what)
{
        if (result != SQLITE_OK && result != SQLITE_ROW && result != SQLITE_DONE)
                die("%s: %s", what, db ? sqlite3_errmsg(db) : sqlite3_errstr(result));
}

void run_sql(sqlite3 *db, const char *sql)
{
        check_sql(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

int64_t ask_sql(sqlite3 *db, const char *sql)
{
        sqlite3_stmt *statement;
        int64_t value;

        check_sql(db, sqlite3_prepare_v2(db, sql, -1, &statement, NULL), sql);
        check_sql(db, sqlite3_step(statement), sql);
        value = sqlite3_column_int64(statement, 0);
        sqlite3_finalize(statement);
        return value;
}

/* 32 rows that fill most of a page. */
void make_table(sqlite3 *db)
{
        run_sql(db,
                "CREATE TABLE IF NOT EXISTS counters(id INTEGER PRIMARY KEY, n INTEGER, t TEXT);"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 32)"
                "INSERT OR IGNORE INTO counters SELECT i, 0, hex(randomblob(45)) FROM n");
}

void connection_open(Connection *connection, const char *path, const char *vfs)
{
        int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

        if (!connection->path)
                connection->path = strdup(path);
        check_sql(NULL, sqlite3_open_v2(path, &connection->db, flags, vfs), path);
        run_sql(connection->db, "PRAGMA journal_mode = WAL");
}

void connection_close(Connection *connection)
{
        sqlite3_finalize(connection->update);
        check_sql(connection->db, sqlite3_close(connection->db), "close");
        connection->update = NULL;
        connection->db = NULL;
}

void connection_update(Connection *connection)
{
        if (!connection->update)
                check_sql(connection->db,
                        sqlite3_prepare_v3(connection->db,
                                "UPDATE counters SET n = n + 1 WHERE id = 17", -1,
                                SQLITE_PREPARE_PERSISTENT, &connection->update, NULL),
                        "prepare");
        check_sql(connection->db, sqlite3_step(connection->update), "update");
        check_sql(connection->db, sqlite3_reset(connection->update), "commit");
}
