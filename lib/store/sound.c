/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/sound.h"

#include "lib/base/macro.h"

#include <stdio.h>
#include <string.h>

static void finalize_p(sqlite3_stmt **statement)
{
        sqlite3_finalize(*statement);
}

static void free_sql_p(char **sql)
{
        sqlite3_free(*sql);
}

/* Something that the schema needs is not here. */
static bool is_lack(int rc)
{
        return (rc & 0xff) == SQLITE_ERROR;
}

static int run(Sound *sound, sqlite3 *db, const char *sql)
{
        _cleanup_(finalize_p) sqlite3_stmt *statement = NULL;
        int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

        while (rc == SQLITE_OK || rc == SQLITE_ROW) {
                const char *text;

                rc = sqlite3_step(statement);
                if (rc != SQLITE_ROW)
                        break;
                text = (const char *)sqlite3_column_text(statement, 0);
                if (!text)
                        return SQLITE_NOMEM;
                if (strcmp(text, "ok") == 0)
                        continue;
                sound->fault(text, sound->data);
                sound->n_faults++;
        }
        return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int check_all(Sound *sound, sqlite3 *db, bool quick)
{
        char sql[48];

        snprintf(sql, sizeof sql, "PRAGMA %s(%u)", quick ? "quick_check" : "integrity_check",
                sound->most);
        return run(sound, db, sql);
}

/* Of those that cannot be checked there is nothing to say: the rest is what can be known. */
static int check_tables(Sound *sound, sqlite3 *db)
{
        _cleanup_(finalize_p) sqlite3_stmt *tables = NULL;
        int rc = sqlite3_prepare_v2(db,
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0", -1, &tables,
                NULL);

        while (rc == SQLITE_OK && (rc = sqlite3_step(tables)) == SQLITE_ROW) {
                _cleanup_(free_sql_p) char *sql =
                        sqlite3_mprintf("PRAGMA quick_check(%Q)", sqlite3_column_text(tables, 0));

                rc = sql ? run(sound, db, sql) : SQLITE_NOMEM;
                if (is_lack(rc))
                        rc = SQLITE_OK;
        }
        return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int sound_check(Sound *sound, sqlite3 *db)
{
        int rc = check_all(sound, db, sound->quick);

        if (!is_lack(rc))
                return rc;
        snprintf(sound->unchecked, sizeof sound->unchecked, "%s", sqlite3_errmsg(db));
        rc = sqlite3_exec(db, "PRAGMA ignore_check_constraints = ON", NULL, NULL, NULL);
        if (rc == SQLITE_OK)
                rc = check_all(sound, db, true);
        return is_lack(rc) ? check_tables(sound, db) : rc;
}
