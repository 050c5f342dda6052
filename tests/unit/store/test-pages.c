/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/map.h"
#include "tests/unit/store/world.h"

#include <string.h>
#include <unistd.h>

/* Databases with pages of every size that SQLite knows: redone, archived, restored. */

#define NAME "aa01"
#define OTHER "bb01"
#define MOMENTS 6
#define BATCH 8 /* commits between them */

static const unsigned sizes[] = { 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536 };

static World world;
static char file[64], undo[STORE_BOOKMARK_LEN + 1];
static uint64_t random_state;

static uint64_t draw(uint64_t n)
{
        random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (random_state >> 33) % n;
}

static int start(void **state)
{
        world_init(&world, 3);
        world.options.segment_size = 1 << 20;
        world.options.n_segments = 8;
        world.options.archive = "/state/archive/shop/0";
        random_state = 9;
        strcpy(file, "/tmp/test-pages-XXXXXX");
        close(mkstemp(file));
        world_start(&world);
        return 0;
}

static int stop(void **state)
{
        unlink(file);
        world_done(&world);
        return 0;
}

/* An object has pages of another size than 4,096 bytes when it comes from elsewhere. */
static void import(unsigned page_size)
{
        sqlite3 *db = NULL;
        char sql[64];

        assert_int_equal(sqlite3_open_v2(file, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
        snprintf(sql, sizeof sql, "PRAGMA page_size = %u", page_size);
        run(db, sql);
        run(db, "CREATE TABLE t(k INTEGER PRIMARY KEY, v); CREATE INDEX i ON t(v)");
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        assert_int_equal(store_import(world.store, file, object_path(NAME), undo), 0);
        store_loop_run(world.store);
}

static uint64_t sum_of(sqlite3 *db)
{
        const uint64_t secret[2] = { 1, 2 };
        sqlite3_stmt *statement = NULL;
        uint64_t sum = 0;

        assert_int_equal(sqlite3_prepare_v2(db, "SELECT k || ':' || hex(v) FROM t ORDER BY k", -1,
                                 &statement, NULL),
                SQLITE_OK);
        while (sqlite3_step(statement) == SQLITE_ROW)
                sum = 31 * sum + siphash24(secret, slice_from((const char *)sqlite3_column_text(
                                                           statement, 0)));
        assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
        return sum;
}

static void change(sqlite3 *db, unsigned page_size)
{
        char sql[200];

        switch (draw(12)) {
        case 0:
                run(db, "DELETE FROM t WHERE k % 3 = 0");
                run(db, "VACUUM");
                break;
        case 1:
                snprintf(sql, sizeof sql,
                        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 90) "
                        "REPLACE INTO t SELECT i, randomblob(%u) FROM n",
                        MIN(page_size, 8192u));
                run(db, sql);
                break;
        default:
                snprintf(sql, sizeof sql, "REPLACE INTO t VALUES(%u, randomblob(%u))",
                        (unsigned)draw(200), (unsigned)(1 + draw(3 * (uint64_t)page_size)));
                run(db, sql);
        }
}

typedef struct Moment {
        uint64_t sum;
        char mark[STORE_BOOKMARK_LEN + 1];
} Moment;

static void live(unsigned page_size, Moment moments[MOMENTS])
{
        sqlite3 *db = world_connect(&world, NAME);

        assert_int_equal(ask(db, "PRAGMA page_size"), page_size);
        for (int i = 0; i < MOMENTS; i++) {
                for (int n = 0; n < BATCH; n++) {
                        change(db, page_size);
                        store_loop_run(world.store);
                        if (draw(3) == 0)
                                world_settle(&world);
                }
                moments[i].sum = sum_of(db);
                assert_int_equal(
                        store_get_bookmark(world.store, object_path(NAME), moments[i].mark), 0);
        }
        disconnect(db);
}

static void check_restore(const Moment *moment, const char *to, unsigned page_size)
{
        sqlite3 *db;
        int r;

        world_settle(&world);
        r = store_restore(world.store, object_path(NAME), moment->mark, object_path(to), undo);
        if (r)
                print_message("%s\n%s\n", store_history_error(r), world.log);
        assert_int_equal(r, 0);
        store_loop_run(world.store);
        db = world_connect(&world, to);
        assert_true(sum_of(db) == moment->sum);
        assert_string_equal(ask_text(db, "PRAGMA integrity_check"), "ok");
        assert_int_equal(ask(db, "PRAGMA page_size"), page_size);
        disconnect(db);
}

static void live_through(unsigned page_size)
{
        Moment moments[MOMENTS], present;
        sqlite3 *db;

        import(page_size);
        live(page_size, moments);
        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, NAME);
        assert_true(sum_of(db) == moments[MOMENTS - 1].sum);
        disconnect(db);
        for (int i = MOMENTS - 1; i >= 0; i--)
                check_restore(&moments[i], OTHER, page_size);
        assert_int_equal(store_delete(world.store, object_path(NAME)), 0);
        store_loop_run(world.store);
        check_restore(&moments[MOMENTS / 2], OTHER, page_size);
        world_settle(&world);
        check_restore(&moments[MOMENTS / 3], NAME, page_size);
        /* The page set of a commit as large as the database. */
        db = world_connect(&world, NAME);
        run(db, "UPDATE t SET v = randomblob(length(v) + 1)");
        store_loop_run(world.store);
        present.sum = sum_of(db);
        assert_int_equal(store_get_bookmark(world.store, object_path(NAME), present.mark), 0);
        disconnect(db);
        check_restore(&moments[0], NAME, page_size);
        check_restore(&present, NAME, page_size);
}

static void pages_of_any_size_are_restored(void **state)
{
        for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                if (i) {
                        stop(NULL);
                        start(NULL);
                }
                live_through(sizes[i]);
        }
}

/* Page sets of more than a page or two go to a file. */
static void pages_of_any_size_are_restored_from_spill_files(void **state)
{
        for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                stop(NULL);
                start(NULL);
                world_stop(&world);
                world.options.spill_size = 2 * sizes[i];
                world_start(&world);
                live_through(sizes[i]);
        }
}

int main(void)
{
#define TEST(_name) cmocka_unit_test_setup_teardown(_name, start, stop)
        const struct CMUnitTest tests[] = {
                TEST(pages_of_any_size_are_restored),
                TEST(pages_of_any_size_are_restored_from_spill_files),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
