/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store/world.h"

#include "lib/base/file.h"
#include "lib/store/db.h"

#include <string.h>
#include <unistd.h>

/*
 * What guests do with SQLite, on the VFS and beside it
 *
 * Each statement of a workload runs on an object and on a database in memory that no engine of ours
 * touches. After crashes, vacuums and checkpoints both must hold the same.
 */

static World world;

static int start(void **state)
{
        world_init(&world, 1);
        world_start(&world);
        return 0;
}

static int stop(void **state)
{
        world_done(&world);
        return 0;
}

static uint64_t chance;

static unsigned draw(unsigned n)
{
        chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(chance >> 33) % n;
}

typedef struct Pair {
        const char *name;
        sqlite3 *db, *model;
        bool in_transaction;
} Pair;

static const char *const setup[] = {
        "PRAGMA cache_size = 12",
        "PRAGMA cache_spill = 6",
        "PRAGMA foreign_keys = ON",
        "CREATE TABLE IF NOT EXISTS a(id INTEGER PRIMARY KEY, n INT, b BLOB)",
        "CREATE INDEX IF NOT EXISTS an ON a(n)",
        "CREATE TABLE IF NOT EXISTS w(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        ("CREATE TABLE IF NOT EXISTS c(id INTEGER PRIMARY KEY AUTOINCREMENT, "
         "a REFERENCES a(id) ON DELETE CASCADE, g AS (a * 2) STORED)"),
        "CREATE TABLE IF NOT EXISTS seen(n INT)",
        ("CREATE TRIGGER IF NOT EXISTS t AFTER DELETE ON a BEGIN INSERT INTO seen VALUES(old.n); "
         "END"),
        "CREATE VIRTUAL TABLE IF NOT EXISTS f USING fts5(body)",
        "CREATE VIRTUAL TABLE IF NOT EXISTS r USING rtree(id, x0, x1, y0, y1)",
};

/* Any state of a connection: not what the database holds. */
static void pair_prepare(Pair *pair)
{
        for (size_t i = 0; i < ELEMENTSOF(setup); i++) {
                run(pair->db, setup[i]);
                run(pair->model, setup[i]);
        }
        run(pair->db, "CREATE TEMP TABLE scratch(x)");
        run(pair->model, "DROP TABLE IF EXISTS temp.scratch; CREATE TEMP TABLE scratch(x)");
}

static void pair_open(Pair *pair, const char *name)
{
        *pair = (Pair){ .name = name, .db = world_connect(&world, name) };
        assert_non_null(pair->db);
        assert_int_equal(sqlite3_open(":memory:", &pair->model), SQLITE_OK);
        sqlite3_extended_result_codes(pair->model, 1);
        pair_prepare(pair);
}

static void pair_close(Pair *pair)
{
        disconnect(pair->db);
        assert_int_equal(sqlite3_close(pair->model), SQLITE_OK);
}

/* Both do the same, failures too. */
static void both(Pair *pair, const char *sql)
{
        int rc = try_run(pair->model, sql), got = try_run(pair->db, sql);

        if (got != rc)
                print_message(
                        "%s: %d (%s) instead of %d\n", sql, got, sqlite3_errmsg(pair->db), rc);
        assert_int_equal(got, rc);
        assert_int_equal(sqlite3_get_autocommit(pair->db), sqlite3_get_autocommit(pair->model));
        assert_int_equal(sqlite3_changes(pair->db), sqlite3_changes(pair->model));
}

static const char *const contents[] = {
        "SELECT id, n, b FROM a ORDER BY id",
        "SELECT n, count(*) FROM a INDEXED BY an GROUP BY n ORDER BY n",
        "SELECT * FROM w ORDER BY k",
        "SELECT * FROM c ORDER BY id",
        "SELECT n FROM seen ORDER BY rowid",
        "SELECT rowid, body FROM f ORDER BY rowid",
        "SELECT rowid FROM f WHERE f MATCH 'word7 OR word3' ORDER BY rowid",
        "SELECT * FROM r ORDER BY id",
        "SELECT id FROM r WHERE x0 > 20 AND x1 < 60 ORDER BY id",
        ("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%'"
         " ORDER BY name"),
        "PRAGMA user_version",
};

/* Of all rows, in their order. */
static uint64_t digest(sqlite3 *db, const char *sql)
{
        sqlite3_stmt *statement = NULL;
        uint64_t sum = UINT64_C(14695981039346656037);
        int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

        while (rc == SQLITE_OK || rc == SQLITE_ROW) {
                rc = sqlite3_step(statement);
                for (int i = 0; rc == SQLITE_ROW && i < sqlite3_column_count(statement); i++) {
                        const unsigned char *bytes = sqlite3_column_blob(statement, i);
                        int len = sqlite3_column_bytes(statement, i);

                        sum = (sum ^ (uint64_t)len) * UINT64_C(1099511628211);
                        for (int at = 0; at < len; at++)
                                sum = (sum ^ bytes[at]) * UINT64_C(1099511628211);
                }
        }
        if (rc != SQLITE_DONE)
                print_message("%s: %s\n", sql, sqlite3_errmsg(db));
        assert_int_equal(rc, SQLITE_DONE);
        sqlite3_finalize(statement);
        return sum;
}

static void assert_same(Pair *pair)
{
        for (size_t i = 0; i < ELEMENTSOF(contents); i++) {
                bool same = digest(pair->db, contents[i]) == digest(pair->model, contents[i]);

                if (!same)
                        print_message("not the same: %s\n", contents[i]);
                assert_true(same);
        }
        assert_string_equal(ask_text(pair->db, "PRAGMA integrity_check"), "ok");
        both(pair, "INSERT INTO f(f) VALUES('integrity-check')");
        assert_string_equal(ask_text(pair->db, "SELECT rtreecheck('r')"), "ok");
        assert_int_equal(ask(pair->db, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

/* %u: a small number by chance; # at the beginning: seldom. */
static const char *const statements[] = {
        ("WITH RECURSIVE v(x) AS (SELECT %u UNION ALL SELECT x + 1 FROM v WHERE x < 90) "
         "INSERT OR REPLACE INTO a SELECT x * 37 %% 400, x %% 13, "
         "CAST(printf('%%.*c', %u * 41 %% 7000, char(65 + x %% 26)) AS BLOB) FROM v"),
        "UPDATE a SET n = n + 1, b = b || x'00' WHERE id %% 7 = %u",
        "UPDATE a SET b = substr(b, %u) WHERE id %% 5 = 3",
        "DELETE FROM a WHERE id %% 11 = %u %% 11",
        "INSERT OR REPLACE INTO w SELECT 'k' || n, sum(id) FROM a WHERE n > %u GROUP BY n",
        "DELETE FROM w WHERE v %% 3 = %u %% 3",
        "INSERT INTO c(a) SELECT id FROM a WHERE id > %u ORDER BY id LIMIT 20",
        "INSERT INTO f(body) SELECT 'word' || id || ' word' || n || ' and ' || %u FROM a LIMIT 25",
        "DELETE FROM f WHERE rowid %% 5 = %u %% 5",
        "UPDATE f SET body = body || ' word3' WHERE rowid %% 17 = %u %% 17",
        "INSERT INTO f(f) VALUES('optimize')",
        "INSERT OR REPLACE INTO r SELECT id, id %% 90, id %% 90 + 5, n, n + %u FROM a",
        "DELETE FROM r WHERE id %% 3 = %u %% 3",
        "INSERT INTO scratch SELECT n FROM a WHERE id < %u",
        "DELETE FROM w WHERE k IN (SELECT 'k' || x FROM scratch)",
        "DELETE FROM scratch",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "COMMIT",
        "#ROLLBACK",
        "SAVEPOINT s",
        "SAVEPOINT s",
        "ROLLBACK TO s",
        "RELEASE s",
        "RELEASE s",
        "INSERT INTO a SELECT * FROM a", /* fails */
        "INSERT INTO c(a) VALUES(-%u)",  /* fails at the end of the statement or transaction */
        "PRAGMA user_version = %u",
        "CREATE TABLE x(p, q DEFAULT %u)",
        "INSERT INTO x(p) SELECT b FROM a LIMIT 30",
        "ALTER TABLE x ADD COLUMN z%u DEFAULT 'd'",
        "ALTER TABLE x RENAME COLUMN q TO r%u",
        "DROP TABLE IF EXISTS x",
        "CREATE INDEX IF NOT EXISTS ab ON a(length(b)) WHERE n > 3",
        "DROP INDEX IF EXISTS ab",
        "REINDEX",
        "ANALYZE",
        "UPDATE a SET b = zeroblob(9000 + %u) WHERE id < 60",
        "#DELETE FROM a",
        "#PRAGMA auto_vacuum = %u; VACUUM",
        "VACUUM",
        "PRAGMA incremental_vacuum(%u)",
        "PRAGMA wal_autocheckpoint = 1",
        "PRAGMA shrink_memory",
};

static void do_one(Pair *pair)
{
        const char *format = statements[draw(ELEMENTSOF(statements))];
        char sql[1024];

        if (format[0] == '#' && draw(6))
                return;
        snprintf(sql, sizeof sql, format[0] == '#' ? format + 1 : format, draw(60), draw(60));
        both(pair, sql);
}

/* Now and then the loop and the background come by. */
static void engine_goes_on(void)
{
        StoreStats stats;

        if (draw(3))
                assert_int_equal(store_loop_run(world.store), 0);
        for (unsigned steps = draw(4); steps; steps--)
                assert_true(store_background_step(world.store) >= 0);
        store_get_stats(world.store, &stats);
        if (draw(20) == 0 || stats.segments_live > 3)
                world_settle(&world);
}

static void pair_crash(Pair *pair)
{
        if (!sqlite3_get_autocommit(pair->model))
                run(pair->model, "ROLLBACK");
        store_loop_run(world.store);
        world_crash(&world, (MemoryCrash)draw(3));
        pair->db = world_connect(&world, pair->name);
        assert_non_null(pair->db);
        pair_prepare(pair);
}

/* A second connection that looks at one moment for a while. */
typedef struct Reader {
        sqlite3 *db;
        uint64_t sum;
} Reader;

static void reader_toggle(Reader *reader, const Pair *pair)
{
        if (reader->db) {
                assert_true(digest(reader->db, contents[0]) == reader->sum);
                run(reader->db, "COMMIT");
                disconnect(reader->db);
                reader->db = NULL;
                return;
        }
        reader->db = world_connect(&world, pair->name);
        run(reader->db, "BEGIN");
        reader->sum = digest(reader->db, contents[0]);
}

static void live(Pair *pair, unsigned n)
{
        Reader reader = {};

        for (unsigned i = 0; i < n; i++) {
                do_one(pair);
                engine_goes_on();
                if (draw(12) == 0)
                        reader_toggle(&reader, pair);
                if (draw(25) == 0)
                        assert_same(pair);
        }
        if (reader.db)
                reader_toggle(&reader, pair);
}

static void guests_find_what_a_database_without_us_holds(void **state)
{
        uint64_t n_spills = 0, n_retired = 0, n_redone = 0;
        StoreStats stats;
        Pair pair;

        world_stop(&world);
        world.options.segment_size = 256 << 10;
        world.options.n_segments = 6;
        world.options.wal_heap_max = 256 << 10;
        world.options.spill_size = 128 << 10;
        world_start(&world);
        chance = 3;
        pair_open(&pair, "bb01");
        for (unsigned i = 0; i < 12; i++) {
                live(&pair, 300);
                assert_same(&pair);
                store_get_stats(world.store, &stats);
                n_spills += stats.spills;
                n_retired += stats.retired_segments;
                pair_crash(&pair);
                store_get_stats(world.store, &stats);
                n_redone += stats.redone_commits;
                assert_same(&pair);
        }
        pair_close(&pair);
        /* It did happen. */
        assert_true(n_spills > 10);
        assert_true(n_retired > 10);
        assert_true(n_redone > 100);
}

static int add_text(const DbValue *values, size_t n, void *data)
{
        char *out = data;

        snprintf(out + strlen(out), 64 - strlen(out), "%.*s ", (int)values[0].bytes.len,
                values[0].bytes.data);
        return 0;
}

static void the_daemons_own_code_and_guests_share_an_object(void **state)
{
        sqlite3 *guest = world_connect(&world, "bb02"), *other = world_connect(&world, "bb02");
        DbValue value = DB_STR(SLICE("of the host"));
        char found[64] = "";
        Db *db = NULL;

        run(guest, "CREATE TABLE t(a); INSERT INTO t VALUES('of the guest')");
        assert_int_equal(db_open_object(object_path("bb02"), SLICE("name"), &db), 0);
        assert_int_equal(db_begin(db), 0);
        assert_int_equal(db_run(db, "INSERT INTO t VALUES(?)", &value, 1, NULL, NULL), 0);
        assert_int_equal(try_run(other, "INSERT INTO t VALUES('too early')"), SQLITE_BUSY);
        assert_int_equal(ask(guest, "SELECT count(*) FROM t"), 1);
        assert_int_equal(db_commit(db), 0);
        run(other, "INSERT INTO t VALUES('of another')");
        assert_int_equal(db_run(db, "SELECT a FROM t", NULL, 0, add_text, found), 0);
        assert_string_equal(found, "of the guest of the host of another ");
        assert_string_equal(
                ask_text(guest, "SELECT value FROM _cf_METADATA WHERE key = 'name'"), "name");
        db_close(db);
        disconnect(guest);
        disconnect(other);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        guest = world_connect(&world, "bb02");
        assert_int_equal(ask(guest, "SELECT count(*) FROM t"), 3);
        disconnect(guest);
}

/* Neither elsewhere on the disk nor over another object; what is refused leaves nothing behind. */
static void a_vacuum_into_another_file_is_refused(void **state)
{
        sqlite3 *db = world_connect(&world, "bb03"), *other = world_connect(&world, "bb04");
        char sql[512];

        run(other, "CREATE TABLE theirs(a)");
        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        assert_int_equal(try_run(db, "VACUUM INTO '/tmp/durabled-vacuum.sqlite'"), SQLITE_AUTH);
        assert_int_equal(access("/tmp/durabled-vacuum.sqlite", F_OK), -1);
        snprintf(sql, sizeof sql, "VACUUM INTO '%s'", object_path("bb04"));
        assert_int_equal(try_run(db, sql), SQLITE_AUTH);
        snprintf(sql, sizeof sql, "VACUUM INTO 'file:%s?vfs=unix'", object_path("bb05"));
        assert_int_equal(try_run(db, sql), SQLITE_AUTH);
        assert_int_equal(ask(other, "SELECT count(*) FROM sqlite_schema"), 1);
        run(db, "INSERT INTO t VALUES(2); VACUUM");
        assert_int_equal(ask(db, "SELECT sum(a) FROM t"), 3);
        assert_int_equal(try_run(db, "BEGIN; VACUUM"), SQLITE_ERROR);
        run(db, "ROLLBACK");
        disconnect(other);
        disconnect(db);
}

static void copy_all(sqlite3 *from, sqlite3 *to)
{
        sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");

        assert_non_null(backup);
        assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
        assert_int_equal(sqlite3_backup_finish(backup), SQLITE_OK);
}

static void a_backup_goes_out_of_an_object_and_into_one(void **state)
{
        sqlite3 *db = world_connect(&world, "bb06"), *to = world_connect(&world, "bb07"), *memory;

        assert_int_equal(sqlite3_open(":memory:", &memory), SQLITE_OK);
        run(db, "CREATE TABLE t(a); CREATE INDEX i ON t(a)");
        run(db, "WITH RECURSIVE v(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM v WHERE x < 2000)"
                "INSERT INTO t SELECT 'row ' || x FROM v");
        run(to, "CREATE TABLE t(b); INSERT INTO t VALUES(1)");
        copy_all(db, memory);
        copy_all(memory, to);
        assert_int_equal(sqlite3_close(memory), SQLITE_OK);
        disconnect(db);
        disconnect(to);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        to = world_connect(&world, "bb07");
        assert_int_equal(ask(to, "SELECT count(a) FROM t"), 2000);
        assert_string_equal(ask_text(to, "PRAGMA integrity_check"), "ok");
        assert_string_equal(ask_text(to, "PRAGMA journal_mode"), "wal");
        disconnect(to);
}

static void modes_stay_however_they_are_asked_for(void **state)
{
        static const char *const modes[] = { "delete", "truncate", "persist", "memory", "off",
                "wal" };
        sqlite3 *db = world_connect(&world, "bb08");
        char sql[128];

        run(db, "CREATE TABLE t(a)");
        for (size_t i = 0; i < ELEMENTSOF(modes); i++) {
                snprintf(sql, sizeof sql, "PRAGMA main.journal_mode = %s", modes[i]);
                assert_string_equal(ask_text(db, sql), "wal");
                run(db, "INSERT INTO t VALUES(1)");
        }
        assert_string_equal(ask_text(db, "SELECT journal_mode FROM pragma_journal_mode"), "wal");
        assert_string_equal(
                ask_text(db, "SELECT typeof(synchronous) FROM pragma_synchronous"), "integer");
        for (int i = 0; i < 4; i++) {
                snprintf(sql, sizeof sql, "PRAGMA main.synchronous = %d", i);
                run(db, sql);
                assert_int_equal(ask(db, "PRAGMA synchronous"), 2);
        }
        run(db, "PRAGMA page_size = 8192; VACUUM");
        assert_int_equal(ask(db, "PRAGMA page_size"), 4096);
        assert_int_equal(ask(db, "PRAGMA mmap_size = 1000000"), INT64_MIN);
        assert_int_equal(ask(db, "PRAGMA wal_checkpoint(TRUNCATE)"), 1);
        disconnect(db);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "bb08");
        assert_int_equal(ask(db, "SELECT count(*) FROM t"), 6);
        disconnect(db);
}

/* Each goes to a file of its own, which a few bytes of the journal name. */
static void the_files_of_huge_transactions_do_not_pile_up(void **state)
{
        uint64_t most = 0;
        StoreStats stats;
        sqlite3 *db;

        world_stop(&world);
        world.options.segment_size = 256 << 10;
        world_start(&world);
        db = world_connect(&world, "bb09");
        run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
        for (int i = 0; i < 60; i++) {
                run(db, "INSERT OR REPLACE INTO t VALUES(1, randomblob(300000))");
                world_settle(&world);
                store_get_stats(world.store, &stats);
                most = MAX(most, stats.spill_bytes);
        }
        assert_true(stats.spills == 60);
        assert_true(most > 300000);
        /* Half a journal, and one that is being written. */
        assert_true(most < (4u * 256 << 10) / 2 + 2 * 330000);
        disconnect(db);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "bb09");
        assert_int_equal(ask(db, "SELECT length(b) FROM t"), 300000);
        disconnect(db);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(
                        guests_find_what_a_database_without_us_holds, start, stop),
                cmocka_unit_test_setup_teardown(
                        the_daemons_own_code_and_guests_share_an_object, start, stop),
                cmocka_unit_test_setup_teardown(a_vacuum_into_another_file_is_refused, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_backup_goes_out_of_an_object_and_into_one, start, stop),
                cmocka_unit_test_setup_teardown(
                        the_files_of_huge_transactions_do_not_pile_up, start, stop),
                cmocka_unit_test_setup_teardown(modes_stay_however_they_are_asked_for, start, stop),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
