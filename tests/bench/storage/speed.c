/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include <string.h>

/*
 * A mixed workload of one connection, in the spirit of SQLite's speedtest1: the same statements on
 * an object and on a plain file in WAL mode with synchronous=OFF, in turn. The object's side ends
 * when all of it is durable. A part is run `times` times with ?1 = 1, 2, ..., in one transaction
 * unless it says otherwise.
 */

typedef struct Part {
        const char *name, *sql;
        int times;
        bool alone; /* each time is a transaction of its own */
} Part;

/* A number that looks drawn, and a text that goes with it. */
#define DRAWN "((?1 * 7919) % 100003)"
#define TEXT "printf('%.*c-%d-%s', ?1 % 40, 'x', ?1, hex(?1 * 7919))"

static const Part parts[] = {
        { "create", "CREATE TABLE a(k INTEGER, v INTEGER, t TEXT)", 1, true },
        { "create-key", "CREATE TABLE b(k INTEGER PRIMARY KEY, v INTEGER, t TEXT)", 1, true },
        { "create-text-key", "CREATE TABLE c(k TEXT PRIMARY KEY, v INTEGER) WITHOUT ROWID", 1,
                true },
        { "insert-ordered", "INSERT INTO a VALUES(?1, " DRAWN ", " TEXT ")", 30000, false },
        { "insert-random", "INSERT OR IGNORE INTO b VALUES(" DRAWN ", ?1, " TEXT ")", 30000,
                false },
        { "insert-text-key", "INSERT OR IGNORE INTO c VALUES(hex(" DRAWN "), ?1)", 15000, false },
        { "insert-alone", "INSERT INTO a VALUES(?1, " DRAWN ", " TEXT ")", 3000, true },
        { "scan", "SELECT count(*), avg(v) FROM a WHERE v BETWEEN ?1 * 100 AND ?1 * 100 + 5000", 30,
                false },
        { "like", "SELECT count(*) FROM a WHERE t LIKE '%-' || ?1 || '7%'", 15, false },
        { "sort", "SELECT v, t FROM a ORDER BY t LIMIT 10 OFFSET ?1", 10, false },
        { "create-index", "CREATE INDEX a_v ON a(v); CREATE INDEX b_t ON b(t)", 1, true },
        { "select-index",
                "SELECT count(*), max(t) FROM a WHERE v BETWEEN " DRAWN " AND " DRAWN " + 20",
                15000, false },
        { "select-key", "SELECT v, t FROM b WHERE k = " DRAWN, 30000, false },
        { "select-text-key", "SELECT v FROM c WHERE k = hex(" DRAWN ")", 15000, false },
        { "update-alone", "UPDATE b SET v = v + 1 WHERE k = (?1 * 7919) % 100003", 3000, true },
        { "update-range", "UPDATE a SET v = v + 1 WHERE v BETWEEN ?1 * 500 AND ?1 * 500 + 100", 100,
                false },
        { "update-each", "UPDATE b SET t = t || 'y' WHERE k = " DRAWN, 15000, false },
        { "update-all", "UPDATE a SET t = t || '.'", 1, true },
        { "join",
                "SELECT count(*) FROM a JOIN b ON b.k = a.v JOIN c ON c.v = b.v "
                "WHERE a.k % 10 = ?1",
                3, false },
        { "subquery",
                "SELECT count(*) FROM b WHERE k % 3 = 0 AND v < "
                "(SELECT avg(a.k) FROM a WHERE a.v BETWEEN b.k AND b.k + 20)",
                1, false },
        { "text", "SELECT sum(length(replace(upper(t), 'X', ?1 || 'yz'))) FROM a", 10, false },
        { "alter", "ALTER TABLE a ADD COLUMN more INTEGER DEFAULT 5", 1, true },
        { "replace", "REPLACE INTO b SELECT k, v, t FROM b WHERE k % 5 = ?1", 2, false },
        { "copy", "CREATE TABLE d AS SELECT * FROM a ORDER BY v", 1, true },
        { "delete-range", "DELETE FROM a WHERE v BETWEEN ?1 * 900 AND ?1 * 900 + 300", 50, false },
        { "delete-each", "DELETE FROM b WHERE k = " DRAWN, 7000, false },
        { "drop", "DROP TABLE d", 1, true },
        { "vacuum", "VACUUM", 1, true },
        { "analyze", "ANALYZE", 1, true },
        { "integrity", "PRAGMA integrity_check", 1, true },
};

static void run_part(sqlite3 *db, const Part *part)
{
        sqlite3_stmt *statement = NULL;
        const char *sql = part->sql;

        if (part->times == 1)
                return run_sql(db, sql);
        if (!part->alone)
                run_sql(db, "BEGIN");
        check_sql(db, sqlite3_prepare_v2(db, sql, -1, &statement, NULL), sql);
        for (int i = 1; i <= part->times; i++) {
                int r;

                sqlite3_bind_int(statement, 1, i);
                while ((r = sqlite3_step(statement)) == SQLITE_ROW)
                        ;
                check_sql(db, r, sql);
                check_sql(db, sqlite3_reset(statement), sql);
        }
        sqlite3_finalize(statement);
        if (!part->alone)
                run_sql(db, "COMMIT");
}

/* Of all parts, durable where they are; the processors' time is that of all threads. */
typedef struct Total {
        uint64_t ns, cpu;
} Total;

/* ns: of each part. */
static Total run_all(sqlite3 *db, Engine *engine, uint64_t *ns)
{
        uint64_t begun = now_ns(), cpu = cpu_ns();

        for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
                uint64_t from = now_ns();

                run_part(db, &parts[i]);
                if (engine)
                        engine_wait_room(engine);
                ns[i] = now_ns() - from;
        }
        if (engine)
                engine_sync(engine);
        return (Total){ now_ns() - begun, cpu_ns() - cpu };
}

static void print_round(const uint64_t *ours, const uint64_t *plain, Total total, Total other)
{
        printf("{\"total_ms\": %.1f, \"plain_ms\": %.1f, \"cpu_ms\": %.1f, "
               "\"plain_cpu_ms\": %.1f, \"parts\": {",
                (double)total.ns / 1e6, (double)other.ns / 1e6, (double)total.cpu / 1e6,
                (double)other.cpu / 1e6);
        for (size_t i = 0; i < ELEMENTSOF(parts); i++)
                printf("%s\"%s\": [%.2f, %.2f]", i ? ", " : "", parts[i].name,
                        (double)ours[i] / 1e6, (double)plain[i] / 1e6);
        printf("}}\n");
        fflush(stdout);
}

void case_speed(const Args *args)
{
        uint64_t ours[ELEMENTSOF(parts)], plain[ELEMENTSOF(parts)];
        _cleanup_(free_p) char *folder = NULL;
        Total total, other;
        Engine engine;

        if (asprintf(&folder, "%s/peer", args->folder) < 0)
                die("out of memory");
        make_folders(folder);
        engine_open(&engine, args->folder, &(StoreOptions){}, true);
        for (unsigned i = 0; i < args->pairs; i++) {
                Connection object = {}, file = {};

                object.path = object_path(engine.objects, i);
                connection_open(&object, object.path, NULL);
                total = run_all(object.db, &engine, ours);
                connection_close(&object);
                free(object.path);
                file.path = object_path(folder, i);
                connection_open(&file, file.path, "unix");
                run_sql(file.db, "PRAGMA synchronous = OFF");
                other = run_all(file.db, NULL, plain);
                connection_close(&file);
                free(file.path);
                print_round(ours, plain, total, other);
        }
        engine_close(&engine);
}
