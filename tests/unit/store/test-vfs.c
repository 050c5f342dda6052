/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store/world.h"

#include <string.h>

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

static void a_commit_is_read_back_and_flushed(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        uint64_t lsn;

        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        assert_int_equal(rows(db), 1);
        lsn = store_object_lsn(world.store, object_path("aa01"));
        assert_true(lsn > 0);
        assert_true(store_flushed(world.store) < lsn);
        assert_int_equal(store_loop_run(world.store), 0);
        assert_int_equal(store_flushed(world.store), lsn);
        disconnect(db);
}

static void a_flushed_commit_survives_a_crash(void **state)
{
        sqlite3 *db = world_connect(&world, "aa02");

        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        store_loop_run(world.store);
        run(db, "INSERT INTO t VALUES(2)");
        disconnect(db);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "aa02");
        assert_int_equal(rows(db), 1);
        assert_true(is_sound(db));
        disconnect(db);
}

static void several_connections_see_each_other(void **state)
{
        sqlite3 *a = world_connect(&world, "aa03"), *b = world_connect(&world, "aa03");

        run(a, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        assert_int_equal(rows(b), 1);
        run(b, "BEGIN; SELECT * FROM t");
        run(a, "INSERT INTO t VALUES(2)");
        assert_int_equal(rows(b), 1);
        run(b, "COMMIT");
        assert_int_equal(rows(b), 2);
        run(a, "BEGIN IMMEDIATE");
        assert_int_equal(try_run(b, "INSERT INTO t VALUES(3)"), SQLITE_BUSY);
        run(a, "ROLLBACK");
        run(b, "INSERT INTO t VALUES(3)");
        assert_int_equal(rows(a), 3);
        disconnect(a);
        disconnect(b);
}

static void the_background_writes_the_file_and_empties_the_log(void **state)
{
        sqlite3 *db = world_connect(&world, "aa04");
        StoreStats stats;
        size_t size;

        run(db, "CREATE TABLE t(a)");
        for (int i = 0; i < 300; i++)
                run(db, "INSERT INTO t VALUES(randomblob(100))");
        world_settle(&world);
        store_get_stats(world.store, &stats);
        assert_true(stats.checkpoints > 0);
        assert_non_null(memory_disk_find(world.memory, object_path("aa04"), &size));
        assert_true(size > 30000);
        assert_int_equal(rows(db), 300);
        assert_true(is_sound(db));
        for (int i = 0; i < 300; i++)
                run(db, "INSERT INTO t VALUES(randomblob(100))");
        disconnect(db);
        world_settle(&world);
        db = world_connect(&world, "aa04");
        assert_int_equal(rows(db), 600);
        assert_true(is_sound(db));
        disconnect(db);
}

static void a_one_row_update_takes_few_bytes(void **state)
{
        sqlite3 *db = world_connect(&world, "aa05");
        StoreStats before, after;

        run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, n); INSERT INTO t VALUES(1, 0)");
        run(db, "UPDATE t SET n = n + 1");
        store_get_stats(world.store, &before);
        for (int i = 0; i < 100; i++)
                run(db, "UPDATE t SET n = n + 1");
        store_get_stats(world.store, &after);
        assert_true((after.record_bytes - before.record_bytes) / 100 < 100);
        disconnect(db);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "aa05");
        assert_int_equal(ask(db, "SELECT n FROM t"), 101);
        disconnect(db);
}

/* SQLite 3.40 loses such commits on its own VFS when the log is recovered. */
static void savepoints_with_a_small_cache_lose_nothing(void **state)
{
        for (int trial = 0; trial < 12; trial++) {
                char name[16], sql[1024];
                sqlite3 *db;

                snprintf(name, sizeof name, "bb%02d", trial);
                db = world_connect(&world, name);
                run(db, "PRAGMA cache_size = 10; PRAGMA cache_spill = 5;"
                        "CREATE TABLE t(id INTEGER PRIMARY KEY, k INT, b BLOB);"
                        "CREATE INDEX ti ON t(k);"
                        "CREATE TABLE meta(id INTEGER PRIMARY KEY, k INT);"
                        "INSERT INTO meta VALUES(1, 0)");
                for (int k = 1; k <= 5; k++) {
                        int64_t sum;

                        snprintf(sql, sizeof sql,
                                "BEGIN; SAVEPOINT s;"
                                "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r "
                                "WHERE x < %d) INSERT OR REPLACE INTO t SELECT abs(random() %% "
                                "120),"
                                "%d, randomblob(abs(random() %% 2500)) FROM r;"
                                "UPDATE t SET k = -k; ROLLBACK TO s; RELEASE s;"
                                "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r "
                                "WHERE x < %d) INSERT OR REPLACE INTO t SELECT abs(random() %% "
                                "120),"
                                "%d, randomblob(abs(random() %% 2500)) FROM r;"
                                "UPDATE meta SET k = %d; COMMIT",
                                10 + (trial * 7 + k * 5) % 40, k, 1 + (trial + k) % 10, k, k);
                        run(db, sql);
                        sum = ask(db, "SELECT sum(length(b)) FROM t");
                        disconnect(db);
                        store_loop_run(world.store);
                        world_crash(&world, CRASH_DROP);
                        db = world_connect(&world, name);
                        run(db, "PRAGMA cache_size = 10; PRAGMA cache_spill = 5");
                        assert_int_equal(ask(db, "SELECT k FROM meta"), k);
                        assert_int_equal(ask(db, "SELECT sum(length(b)) FROM t"), sum);
                        assert_true(is_sound(db));
                }
                disconnect(db);
        }
}

static void pragmas_answer_what_tools_accept(void **state)
{
        sqlite3 *db = world_connect(&world, "aa06");

        assert_string_equal(ask_text(db, "PRAGMA journal_mode"), "wal");
        assert_string_equal(ask_text(db, "PRAGMA journal_mode = DELETE"), "wal");
        assert_string_equal(ask_text(db, "PRAGMA journal_mode = WAL"), "wal");
        assert_int_equal(ask(db, "PRAGMA synchronous"), 2);
        run(db, "PRAGMA synchronous = OFF");
        assert_int_equal(ask(db, "PRAGMA synchronous"), 2);
        assert_string_equal(ask_text(db, "PRAGMA locking_mode = EXCLUSIVE"), "normal");
        assert_string_equal(ask_text(db, "PRAGMA locking_mode"), "normal");
        run(db, "CREATE TABLE t(a); PRAGMA wal_checkpoint(TRUNCATE)");
        assert_int_equal(rows(db), 0);
        disconnect(db);
}

static void attach_is_refused_and_vacuum_is_not(void **state)
{
        sqlite3 *db = world_connect(&world, "aa07"), *other = world_connect(&world, "aa08");
        char sql[512];

        run(other, "CREATE TABLE secret(a)");
        run(db, "CREATE TABLE t(a)");
        snprintf(sql, sizeof sql, "ATTACH '%s' AS o", object_path("aa08"));
        assert_int_equal(try_run(db, sql), SQLITE_AUTH);
        run(db, "ATTACH ':memory:' AS m; DETACH m");
        for (int i = 0; i < 100; i++)
                run(db, "INSERT INTO t VALUES(randomblob(1000))");
        run(db, "DELETE FROM t WHERE rowid > 10; VACUUM");
        assert_int_equal(rows(db), 10);
        assert_true(ask(db, "PRAGMA page_count") < 10);
        disconnect(other);
        disconnect(db);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "aa07");
        assert_int_equal(rows(db), 10);
        assert_true(is_sound(db));
        disconnect(db);
}

static void an_event_opens_its_own_object_alone(void **state)
{
        sqlite3 *db;

        store_set_current(world.store, object_path("aa09"));
        assert_null(world_connect(&world, "aa10"));
        db = world_connect(&world, "aa09");
        assert_non_null(db);
        disconnect(db);
        store_set_current(world.store, NULL);
        db = world_connect(&world, "aa10");
        assert_non_null(db);
        disconnect(db);
}

static void auto_vacuum_temp_tables_and_fts_work(void **state)
{
        sqlite3 *db = world_connect(&world, "aa11");

        run(db, "PRAGMA auto_vacuum = FULL; VACUUM");
        assert_int_equal(ask(db, "PRAGMA auto_vacuum"), 1);
        run(db, "CREATE TABLE t(a); CREATE TEMP TABLE x(a); INSERT INTO x VALUES(1), (2)");
        run(db, "INSERT INTO t SELECT randomblob(3000) FROM x, x AS y, x AS z");
        run(db, "DELETE FROM t");
        assert_true(ask(db, "PRAGMA page_count") < 6);
        if (sqlite3_compileoption_used("ENABLE_FTS5")) {
                run(db, "CREATE VIRTUAL TABLE f USING fts5(body);"
                        "INSERT INTO f VALUES('a quick fox'), ('a lazy dog')");
                assert_int_equal(ask(db, "SELECT count(*) FROM f WHERE f MATCH 'lazy'"), 1);
        }
        if (sqlite3_compileoption_used("ENABLE_RTREE")) {
                run(db, "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1);"
                        "INSERT INTO r VALUES(1, 0, 1), (2, 5, 6)");
                assert_int_equal(ask(db, "SELECT count(*) FROM r WHERE x0 > 3"), 1);
        }
        disconnect(db);
        world_settle(&world);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "aa11");
        assert_true(is_sound(db));
        disconnect(db);
}

static void a_huge_transaction_spills(void **state)
{
        sqlite3 *db = world_connect(&world, "aa12");
        StoreStats stats;
        int64_t sum;

        run(db, "PRAGMA cache_size = 20; CREATE TABLE t(a, b);"
                "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < 3000)"
                "INSERT INTO t SELECT x, randomblob(1000) FROM r");
        store_get_stats(world.store, &stats);
        assert_true(stats.spills >= 1);
        sum = ask(db, "SELECT sum(a * length(b)) FROM t");
        disconnect(db);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "aa12");
        assert_int_equal(ask(db, "SELECT sum(a * length(b)) FROM t"), sum);
        assert_true(is_sound(db));
        disconnect(db);
}

static void a_log_longer_than_its_heap_goes_on_in_a_file(void **state)
{
        sqlite3 *db;

        world_stop(&world);
        world.options.wal_heap_max = 64 << 10;
        world_start(&world);
        db = world_connect(&world, "aa13");
        run(db, "CREATE TABLE t(a)");
        for (int i = 0; i < 100; i++)
                run(db, "INSERT INTO t VALUES(randomblob(2000))");
        assert_int_equal(rows(db), 100);
        assert_true(is_sound(db));
        disconnect(db);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "aa13");
        assert_int_equal(rows(db), 100);
        assert_true(is_sound(db));
        disconnect(db);
}

static void what_nobody_can_read_of_a_log_is_not_kept(void **state)
{
        sqlite3 *db = world_connect(&world, "aa15"), *reader;
        StoreStats stats;

        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(0)");
        reader = world_connect(&world, "aa15");
        for (int i = 0; i < 1000; i++)
                run(db, "UPDATE t SET a = a + 1");
        store_get_stats(world.store, &stats);
        assert_true(stats.wal_bytes < 128 << 10);
        /* A reader keeps what it sees. */
        run(reader, "BEGIN");
        assert_int_equal(ask(reader, "SELECT a FROM t"), 1000);
        for (int i = 0; i < 100; i++)
                run(db, "UPDATE t SET a = a + 1");
        assert_int_equal(ask(reader, "SELECT a FROM t"), 1000);
        run(reader, "COMMIT");
        assert_int_equal(ask(reader, "SELECT a FROM t"), 1100);
        disconnect(reader);
        disconnect(db);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "aa15");
        assert_int_equal(ask(db, "SELECT a FROM t"), 1100);
        assert_true(is_sound(db));
        disconnect(db);
}

/* Many distinct pages by an object that always has a commit on its way: its log never ends. */
static void a_log_that_never_ends_keeps_little(void **state)
{
        sqlite3 *db = world_connect(&world, "aa16");
        StoreStats stats;

        run(db, "CREATE TABLE t(a)");
        for (int i = 0; i < 1000; i++) {
                run(db, "INSERT INTO t VALUES(randomblob(3000))");
                store_loop_run(world.store);
                run(db, "INSERT INTO t VALUES(randomblob(3000))");
                store_background_step(world.store);
        }
        store_get_stats(world.store, &stats);
        assert_true(stats.wal_bytes < 2 << 20);
        assert_int_equal(rows(db), 2000);
        assert_true(is_sound(db));
        disconnect(db);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "aa16");
        assert_int_equal(rows(db), 2000);
        assert_true(is_sound(db));
        disconnect(db);
}

static void a_rolled_back_transaction_leaves_nothing(void **state)
{
        sqlite3 *db = world_connect(&world, "aa14");
        uint64_t lsn;

        run(db, "PRAGMA cache_size = 5; CREATE TABLE t(a)");
        lsn = store_get_lsn(world.store);
        run(db, "BEGIN; WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < "
                "99)"
                "INSERT INTO t SELECT randomblob(1000) FROM r; ROLLBACK");
        assert_int_equal(store_get_lsn(world.store), lsn);
        run(db, "INSERT INTO t VALUES(1)");
        disconnect(db);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, "aa14");
        assert_int_equal(rows(db), 1);
        assert_true(is_sound(db));
        disconnect(db);
}

static void an_object_that_was_never_written_is_an_empty_file(void **state)
{
        sqlite3 *db = world_connect(&world, "aa15");
        size_t size = 1;

        assert_int_equal(ask(db, "SELECT count(*) FROM sqlite_schema"), 0);
        disconnect(db);
        world_settle(&world);
        assert_non_null(memory_disk_find(world.memory, object_path("aa15"), &size));
        assert_int_equal(size, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_commit_is_read_back_and_flushed, start, stop),
                cmocka_unit_test_setup_teardown(a_flushed_commit_survives_a_crash, start, stop),
                cmocka_unit_test_setup_teardown(several_connections_see_each_other, start, stop),
                cmocka_unit_test_setup_teardown(
                        the_background_writes_the_file_and_empties_the_log, start, stop),
                cmocka_unit_test_setup_teardown(a_one_row_update_takes_few_bytes, start, stop),
                cmocka_unit_test_setup_teardown(
                        savepoints_with_a_small_cache_lose_nothing, start, stop),
                cmocka_unit_test_setup_teardown(pragmas_answer_what_tools_accept, start, stop),
                cmocka_unit_test_setup_teardown(attach_is_refused_and_vacuum_is_not, start, stop),
                cmocka_unit_test_setup_teardown(an_event_opens_its_own_object_alone, start, stop),
                cmocka_unit_test_setup_teardown(auto_vacuum_temp_tables_and_fts_work, start, stop),
                cmocka_unit_test_setup_teardown(a_huge_transaction_spills, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_log_longer_than_its_heap_goes_on_in_a_file, start, stop),
                cmocka_unit_test_setup_teardown(
                        what_nobody_can_read_of_a_log_is_not_kept, start, stop),
                cmocka_unit_test_setup_teardown(a_log_that_never_ends_keeps_little, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_rolled_back_transaction_leaves_nothing, start, stop),
                cmocka_unit_test_setup_teardown(
                        an_object_that_was_never_written_is_an_empty_file, start, stop),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
