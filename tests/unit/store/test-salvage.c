/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/check.h"
#include "lib/store/salvage.h"
#include "tests/unit/store/world.h"

#include <errno.h>
#include <string.h>

/*
 * A journal damaged in its middle: what a cut redoes, what it keeps, and that it can be cut itself.
 */

#define ROWS 8
#define BEFORE 2 /* rows of each object before the damage */

static World world;
static int written_at;     /* the row of the first after which the background has its turn; or -1 */
static uint64_t third_lsn; /* of the third row of both */

static int start(void **state)
{
        world_init(&world, 5);
        world.options.segment_size = 256 << 10;
        world.options.checkpoint_at = 4;
        written_at = -1;
        return 0;
}

static int stop(void **state)
{
        world_done(&world);
        return 0;
}

static const char *const names[] = { "aa01", "ab02" };
static const char *const keep[] = { "shop-cart/aa/aa01.sqlite", "shop-cart/ab/ab02.sqlite" };

/* Two objects, a row of each in turn, each in a batch of its own; damaged behind BEFORE rows. */
static void make_journal(bool damage)
{
        sqlite3 *dbs[2];
        StoreStats stats;
        uint64_t place = 0;
        char sql[80];
        size_t size;

        snprintf(sql, sizeof sql, "INSERT INTO t(v) VALUES(hex(randomblob(%d)))",
                written_at < 0 ? 200 : 3000);

        world_start(&world);
        for (int i = 0; i < 2; i++) {
                dbs[i] = world_connect(&world, names[i]);
                run(dbs[i], "CREATE TABLE t(k INTEGER PRIMARY KEY, v)");
                store_loop_run(world.store);
        }
        for (int row = 0; row < ROWS; row++)
                for (int i = 0; i < 2; i++) {
                        store_get_stats(world.store, &stats);
                        if (row == BEFORE && i == 0)
                                place = stats.disk_bytes;
                        run(dbs[i], sql);
                        store_loop_run(world.store);
                        if (row == written_at && i == 0)
                                world_settle(&world);
                        if (row == 2)
                                third_lsn = store_get_lsn(world.store);
                }
        disconnect(dbs[0]);
        disconnect(dbs[1]);
        world_stop(&world);
        if (damage)
                memory_disk_find(world.memory, JOURNAL "/segment-00", &size)[place + 99] ^= 1;
}

static int salvage(SalvageMode mode, uint64_t cut_lsn, SalvageResult *ret)
{
        SalvageOptions options = {
                .disk = world.disk,
                .journal = JOURNAL,
                .objects = OBJECTS,
                .mode = mode,
                .cut_lsn = cut_lsn,
                .keep = keep,
                .n_keep = ELEMENTSOF(keep),
        };

        return store_salvage(&options, ret);
}

static int64_t count_rows(const char *name)
{
        sqlite3 *db = world_connect(&world, name);
        int64_t n = ask(db, "SELECT count(*) FROM t");

        assert_string_equal(ask_text(db, "PRAGMA integrity_check"), "ok");
        disconnect(db);
        return n;
}

static bool is_there(const char *format, const char *folder)
{
        char path[256];
        uint64_t size;

        snprintf(path, sizeof path, "%s/%s", folder, format);
        return disk_stat_size(world.disk, path, &size) == 0;
}

static void what_lies_before_the_damage_is_redone_and_the_rest_set_aside(void **state)
{
        SalvageResult result = {};

        make_journal(true);
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "'durabled --recover' explains"));
        assert_int_equal(salvage(SALVAGE_CUT, 0, &result), 0);
        assert_int_equal(result.commits, 2 + 2 * BEFORE);
        assert_int_equal(result.n_files, 1);
        assert_true(is_there("epoch", result.folder));
        assert_true(is_there("segment-00", result.folder));
        assert_true(is_there("objects/shop-cart/aa/aa01.sqlite", result.folder));
        free(result.folder);
        world_start(&world);
        assert_int_equal(count_rows(names[0]), BEFORE);
        assert_int_equal(count_rows(names[1]), BEFORE);
        /* Behind all that were ever there. */
        assert_true(store_get_lsn(world.store) >= 2 * (ROWS + 2));
}

static void a_journal_set_aside_is_redone_by_nobody(void **state)
{
        SalvageResult result = {};
        sqlite3 *db;

        make_journal(false);
        assert_int_equal(disk_unlink(world.disk, JOURNAL "/epoch"), 0);
        assert_int_equal(salvage(SALVAGE_CUT, 0, &result), -EUCLEAN);
        assert_int_equal(salvage(SALVAGE_SET_ASIDE, 0, &result), 0);
        assert_int_equal(result.commits, 0);
        assert_true(is_there("segment-00", result.folder));
        free(result.folder);
        world_start(&world);
        db = world_connect(&world, names[0]);
        assert_int_equal(ask(db, "SELECT count(*) FROM t"), INT64_MIN);
        run(db, "CREATE TABLE t(a)");
        disconnect(db);
        assert_true(store_get_lsn(world.store) >= 2 * (ROWS + 2));
}

static void what_is_set_aside_can_be_put_back(void **state)
{
        SalvageResult result = {};
        char from[256];

        make_journal(false);
        assert_int_equal(salvage(SALVAGE_SET_ASIDE, 0, &result), 0);
        snprintf(from, sizeof from, "%s/epoch", result.folder);
        assert_int_equal(disk_rename(world.disk, from, JOURNAL "/epoch"), 0);
        snprintf(from, sizeof from, "%s/segment-00", result.folder);
        assert_int_equal(disk_rename(world.disk, from, JOURNAL "/segment-00"), 0);
        free(result.folder);
        world_start(&world);
        assert_int_equal(count_rows(names[0]), ROWS);
}

static void a_journal_can_be_redone_up_to_an_lsn(void **state)
{
        SalvageResult result = {};

        make_journal(false);
        assert_int_equal(salvage(SALVAGE_CUT, third_lsn + 1, &result), 0);
        free(result.folder);
        world_start(&world);
        assert_int_equal(count_rows(names[0]), 3);
        assert_int_equal(count_rows(names[1]), 3);
}

static void commits_of_a_missing_database_are_left_out(void **state)
{
        SalvageResult result = {};
        sqlite3 *db;

        make_journal(false);
        world_start(&world);
        for (int i = 0; i < 2; i++) {
                db = world_connect(&world, names[i]);
                run(db, "INSERT INTO t(v) VALUES(1)");
                store_loop_run(world.store);
                disconnect(db);
        }
        world_stop(&world);
        assert_int_equal(disk_unlink(world.disk, object_path(names[0])), 0);
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_int_equal(salvage(SALVAGE_CUT, 0, &result), 0);
        assert_int_equal(result.objects, 1);
        free(result.folder);
        world_start(&world);
        assert_int_equal(count_rows(names[1]), ROWS + 1);
}

static void ignore(const CheckFinding *finding, void *data)
{
}

static void a_file_that_is_ahead_of_the_cut_is_left_as_it_is(void **state)
{
        CheckOptions check_options = {
                .disk = world.disk, .objects = OBJECTS, .scratch = "/tmp", .found = ignore
        };
        SalvageOptions options = {
                .disk = world.disk,
                .journal = JOURNAL,
                .objects = OBJECTS,
                .leave = keep,
                .n_leave = 1,
        };
        SalvageResult result = {};
        CheckJournal journal = {};
        Check *check;

        written_at = 5;
        make_journal(true);
        assert_int_equal(check_new(&check_options, &check), 0);
        assert_int_equal(check_journal(check, JOURNAL, &journal), 0);
        check_free(check);
        /* Both have been written; a row of each was behind it. */
        assert_int_equal(journal.n_objects, 2);
        assert_true(journal.objects[0].is_ahead);
        assert_string_equal(journal.objects[0].name, keep[0]);
        check_journal_done(&journal);
        assert_int_equal(store_salvage(&options, &result), 0);
        assert_int_equal(result.objects, 1);
        free(result.folder);
        world_start(&world);
        assert_int_equal(count_rows(names[0]), 6);
}

/* As of a file system that is not mounted. */
static void nothing_is_redone_into_another_objects_folder(void **state)
{
        SalvageResult result = {};
        uint64_t size;

        make_journal(true);
        assert_int_equal(disk_unlink(world.disk, OBJECTS "/.journal-journal-shop-0"), 0);
        assert_int_equal(salvage(SALVAGE_CUT, 0, &result), -EUCLEAN);
        assert_int_equal(disk_stat_size(world.disk, JOURNAL "/segment-00", &size), 0);
        assert_int_equal(salvage(SALVAGE_SET_ASIDE, 0, &result), 0);
        free(result.folder);
        world_start(&world);
}

static void a_journal_in_use_is_left_alone(void **state)
{
        SalvageResult result = {};

        make_journal(false);
        world_start(&world);
        assert_int_equal(salvage(SALVAGE_CUT, 0, &result), -EAGAIN);
}

/* Until it is done; each try may meet the damage anew. */
static void salvage_whole(void)
{
        for (int i = 0; i < 4; i++) {
                SalvageResult result = {};
                int r = world_try_start(&world);

                if (r == 0) {
                        world_stop(&world);
                        return;
                }
                assert_int_equal(r, -EUCLEAN);
                assert_int_equal(salvage(SALVAGE_CUT, 0, &result), 0);
                free(result.folder);
        }
        fail_msg("it is refused for ever");
}

/* Objects were left when it was killed: what is damaged is the beginning of the second epoch. */
static void make_two_epochs(void)
{
        size_t size;

        make_journal(false);
        world.options.late_max = 10;
        world_start(&world);
        for (int i = 0; i < 2; i++) {
                sqlite3 *db = world_connect(&world, names[i]);

                run(db, "INSERT INTO t(v) VALUES('late')");
                disconnect(db);
                store_loop_run(world.store);
        }
        world_stop(&world);
        memory_disk_find(world.memory, JOURNAL "/segment-01", &size)[99] ^= 1;
}

static void cut_at_each_call(bool is_late, int rows)
{
        bool again = true;
        unsigned n = 0;

        for (uint64_t call = 1; again; call++, n++) {
                SalvageResult result = {};
                MemoryDisk *original;

                memory_disk_free(world.memory);
                world.memory = memory_disk_new(call);
                world.disk = world.options.disk = memory_disk_get(world.memory);
                if (is_late)
                        make_two_epochs();
                else
                        make_journal(true);
                /* In which the damage is durable. */
                original = world.memory;
                world.memory = memory_disk_copy(original);
                world.disk = world.options.disk = memory_disk_get(world.memory);
                memory_disk_free(original);
                memory_disk_cut(world.memory, memory_disk_get_calls(world.memory) + call);
                salvage(SALVAGE_CUT, 0, &result);
                free(result.folder);
                again = memory_disk_is_cut(world.memory);
                memory_disk_crash(world.memory, CRASH_TEAR);
                salvage_whole();
                world_start(&world);
                assert_int_equal(count_rows(names[0]), rows);
                assert_int_equal(count_rows(names[1]), rows);
                world_stop(&world);
        }
        assert_true(n > 20);
}

static void a_cut_can_be_cut_at_each_call(void **state)
{
        cut_at_each_call(false, BEFORE);
}

static void a_cut_of_several_epochs_can_be_cut_at_each_call(void **state)
{
        cut_at_each_call(true, ROWS);
}

/* What was set aside is in nobody's database: a moment of it is gone, whatever the archive has. */
static void no_moment_before_the_decision_is_restored(void **state)
{
        static const SalvageMode modes[] = { SALVAGE_SET_ASIDE, SALVAGE_CUT };

        for (size_t i = 0; i < ELEMENTSOF(modes); i++) {
                char before[STORE_BOOKMARK_LEN + 1], lost[STORE_BOOKMARK_LEN + 1],
                        after[STORE_BOOKMARK_LEN + 1], undo[STORE_BOOKMARK_LEN + 1];
                const char *path = object_path(names[0]);
                SalvageResult result = {};
                uint64_t cut;
                sqlite3 *db;

                world.options.archive = "/state/archive/shop/0";
                world_start(&world);
                db = world_connect(&world, names[0]);
                run(db, "CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v)");
                run(db, "INSERT INTO t(v) VALUES(1)");
                store_loop_run(world.store);
                assert_int_equal(store_get_bookmark(world.store, path, before), 0);
                cut = store_get_lsn(world.store) + 1;
                run(db, "INSERT INTO t(v) VALUES(2)");
                store_loop_run(world.store);
                assert_int_equal(store_get_bookmark(world.store, path, lost), 0);
                disconnect(db);
                world_stop(&world);
                assert_int_equal(salvage(modes[i], cut, &result), 0);
                free(result.folder);
                world_start(&world);
                db = world_connect(&world, names[0]);
                run(db, "CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v)");
                store_loop_run(world.store);
                assert_int_equal(store_get_bookmark(world.store, path, after), 0);
                run(db, "INSERT INTO t(v) VALUES(3)");
                store_loop_run(world.store);
                assert_int_equal(
                        store_restore(world.store, path, lost, path, undo), STORE_E_PRUNED);
                assert_int_equal(
                        store_restore(world.store, path, before, path, undo), STORE_E_PRUNED);
                assert_int_equal(store_restore(world.store, path, after, path, undo), 0);
                assert_int_equal(ask(db, "SELECT count(*) FROM t WHERE v = 3"), 0);
                disconnect(db);
                world_settle(&world);
                world_stop(&world);
        }
}

static void an_empty_journal_is_what_emptying_leaves(void **state)
{
        SalvageOptions options = { .disk = world.disk, .journal = JOURNAL, .objects = OBJECTS };
        SalvageResult result = {};

        make_journal(false);
        assert_int_equal(store_empty(&options, &result), 0);
        assert_int_equal(result.commits, 2 + 2 * ROWS);
        world_start(&world);
        assert_int_equal(count_rows(names[1]), ROWS);
}

int main(void)
{
#define TEST(_name) cmocka_unit_test_setup_teardown(_name, start, stop)
        const struct CMUnitTest tests[] = {
                TEST(what_lies_before_the_damage_is_redone_and_the_rest_set_aside),
                TEST(a_journal_set_aside_is_redone_by_nobody),
                TEST(what_is_set_aside_can_be_put_back),
                TEST(a_journal_can_be_redone_up_to_an_lsn),
                TEST(commits_of_a_missing_database_are_left_out),
                TEST(a_file_that_is_ahead_of_the_cut_is_left_as_it_is),
                TEST(nothing_is_redone_into_another_objects_folder),
                TEST(a_journal_in_use_is_left_alone),
                TEST(a_cut_can_be_cut_at_each_call),
                TEST(a_cut_of_several_epochs_can_be_cut_at_each_call),
                TEST(no_moment_before_the_decision_is_restored),
                TEST(an_empty_journal_is_what_emptying_leaves),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
