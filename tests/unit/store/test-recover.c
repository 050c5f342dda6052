/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/journal-format.h"
#include "tests/unit/store/world.h"

#include <errno.h>
#include <string.h>

/*
 * A small workload over three objects, cut at each call that it makes of the disk. The model: of
 * each object a number k and rows 1..k. What was flushed must be there, what was never begun not.
 */

#define N_OBJECTS 3
#define N_ROUNDS 36

typedef struct Model {
        int begun[N_OBJECTS], committed[N_OBJECTS], flushed[N_OBJECTS];
} Model;

static World world;

static int start(void **state)
{
        world_init(&world, 7);
        world.options.segment_size = 256 << 10;
        world.options.checkpoint_at = 6;
        return 0;
}

static int stop(void **state)
{
        world_done(&world);
        return 0;
}

static const char *name_of(int i)
{
        static const char *const names[N_OBJECTS] = { "aa01", "ab02", "ab03" };

        return names[i];
}

static bool add_row(sqlite3 *db, Model *model, int i)
{
        char sql[512];
        int k = model->begun[i] + 1;

        snprintf(sql, sizeof sql,
                "BEGIN; CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v);"
                "INSERT INTO t VALUES(%d, hex(randomblob(%d))); COMMIT",
                k, k * 1310 % 9000);
        model->begun[i] = k;
        if (try_run(db, sql) == SQLITE_OK) {
                model->committed[i] = k;
                return true;
        }
        try_run(db, "ROLLBACK");
        return false;
}

/* What the store says is on disk. */
static void note_flushed(Model *model)
{
        for (int i = 0; i < N_OBJECTS; i++)
                if (model->committed[i] && store_object_lsn(world.store, object_path(name_of(i))) <=
                                                   store_flushed(world.store))
                        model->flushed[i] = model->committed[i];
}

/* Whether it could be. */
static bool flush(Model *model)
{
        if (store_loop_run(world.store))
                return false;
        note_flushed(model);
        return true;
}

static void one_round(Model *model, sqlite3 **dbs, int round, bool *alive)
{
        for (int i = 0; i < N_OBJECTS && *alive; i++) {
                if (round % (i + 1))
                        continue;
                if (!dbs[i])
                        dbs[i] = world_connect(&world, name_of(i));
                *alive = dbs[i] && add_row(dbs[i], model, i);
        }
        store_loop_flush(world.store);
        note_flushed(model);
        if (round % 3 != 0)
                *alive = *alive && flush(model);
        /* A connection that goes leaves its log to the background. */
        if (round % 5 == 4 && dbs[1]) {
                disconnect(dbs[1]);
                dbs[1] = NULL;
        }
        for (int step = 0; *alive && step < 2; step++)
                *alive = store_background_step(world.store) >= 0;
        if (*alive && round == N_ROUNDS / 2) {
                store_set_draining(world.store, true);
                for (int step = 0; step < 20 && store_background_step(world.store) > 0; step++)
                        *alive = flush(model);
                store_set_draining(world.store, false);
        }
}

static void workload(Model *model)
{
        sqlite3 *dbs[N_OBJECTS] = {};
        bool alive = world_try_start(&world) == 0;

        for (int round = 0; alive && round < N_ROUNDS; round++)
                one_round(model, dbs, round, &alive);
        for (int i = 0; i < N_OBJECTS; i++)
                if (dbs[i])
                        disconnect(dbs[i]);
        world_stop(&world);
}

static void check_object(const Model *model, int i, uint64_t cut)
{
        sqlite3 *db = world_connect(&world, name_of(i));
        int64_t n = ask(db, "SELECT count(*) FROM t"), last = ask(db, "SELECT max(k) FROM t");

        n = n == INT64_MIN ? 0 : n;
        if (strcmp(ask_text(db, "PRAGMA integrity_check"), "ok") != 0 || n < model->flushed[i] ||
                n > model->begun[i] || (n > 0 && last != n))
                fail_msg("cut at call %llu: object %d: %lld rows up to %lld, flushed %d, begun %d, "
                         "%s",
                        (unsigned long long)cut, i, (long long)n, (long long)last,
                        model->flushed[i], model->begun[i], ask_text(db, "PRAGMA integrity_check"));
        disconnect(db);
}

static void check_objects(const Model *model, uint64_t cut)
{
        world_start(&world);
        for (int i = 0; i < N_OBJECTS; i++)
                check_object(model, i, cut);
        world_stop(&world);
}

/* Runs the workload with the power cut at a call; false when it ended before. */
static bool run_cut(uint64_t seed, uint64_t cut, Model *model)
{
        memory_disk_free(world.memory);
        world.memory = memory_disk_new(seed);
        world.disk = world.options.disk = memory_disk_get(world.memory);
        memory_disk_cut(world.memory, cut);
        *model = (Model){};
        workload(model);
        return memory_disk_is_cut(world.memory);
}

static void cut_at_each_call(MemoryCrash crash)
{
        bool cut = true;

        for (uint64_t call = 1; cut; call++) {
                Model model;

                cut = run_cut(call, call, &model);
                memory_disk_crash(world.memory, crash);
                check_objects(&model, call);
        }
}

static void nothing_flushed_is_lost_when_all_unsynced_is(void **state)
{
        cut_at_each_call(CRASH_DROP);
}

static void nothing_flushed_is_lost_when_all_unsynced_is_kept(void **state)
{
        cut_at_each_call(CRASH_KEEP);
}

static void nothing_flushed_is_lost_when_the_rest_is_torn(void **state)
{
        cut_at_each_call(CRASH_TEAR);
}

static void a_recovery_can_be_cut_at_each_call(void **state)
{
        for (uint64_t cut = 40; cut < 200; cut += 53) {
                bool again = true;

                for (uint64_t second = 1; again; second++) {
                        Model model;

                        run_cut(cut, cut, &model);
                        memory_disk_crash(world.memory, CRASH_TEAR);
                        memory_disk_cut(world.memory, memory_disk_get_calls(world.memory) + second);
                        world_try_start(&world);
                        world_stop(&world);
                        again = memory_disk_is_cut(world.memory);
                        memory_disk_crash(world.memory, CRASH_TEAR);
                        check_objects(&model, cut);
                }
        }
}

/* Some commits in the first segment; path of the segment. */
static const char *write_journal(uint64_t *ret_ends, int n)
{
        sqlite3 *db;
        StoreStats stats;

        world_start(&world);
        db = world_connect(&world, "aa01");
        run(db, "CREATE TABLE IF NOT EXISTS t(a)");
        for (int i = 0; i < n; i++) {
                run(db, "INSERT INTO t VALUES(hex(randomblob(300)))");
                store_loop_run(world.store);
                store_get_stats(world.store, &stats);
                ret_ends[i] = stats.disk_bytes;
        }
        disconnect(db);
        world_stop(&world);
        return JOURNAL "/segment-00";
}

static int64_t count_rows(void)
{
        sqlite3 *db = world_connect(&world, "aa01");
        int64_t n = ask(db, "SELECT count(*) FROM t");

        disconnect(db);
        return n;
}

static void a_torn_tail_is_cut(void **state)
{
        uint64_t ends[5];
        const char *path = write_journal(ends, 5);
        size_t size;

        /* The last batch's last sector never arrived. */
        memset(memory_disk_find(world.memory, path, &size) + ends[4] - 4096 + 64, 0, 512);
        world_start(&world);
        assert_int_equal(count_rows(), 4);
        assert_string_equal(strstr(world.log, "damaged") ?: "", "");
}

#define TAIL JOURNAL "/tail"

/* Five commits, and a start that is cut at its n-th call. False: it came to its end before. */
static bool cut_a_start(uint64_t n, uint64_t *ret_ends)
{
        bool is_cut;

        write_journal(ret_ends, 5);
        memory_disk_cut(world.memory, memory_disk_get_calls(world.memory) + n);
        world_try_start(&world);
        world_stop(&world);
        is_cut = memory_disk_is_cut(world.memory);
        memory_disk_crash(world.memory, CRASH_DROP);
        return is_cut;
}

static void a_last_batch_that_is_torn_as_it_is_written_anew_has_a_copy(void **state)
{
        unsigned n_copies = 0;
        uint64_t ends[5];

        for (uint64_t n = 1; cut_a_start(n, ends); n++) {
                size_t size;

                if (memory_disk_find(world.memory, TAIL, &size)) {
                        memset(memory_disk_find(world.memory, JOURNAL "/segment-00", &size) +
                                        ends[4] - 4096 + 64,
                                0x5a, 512);
                        n_copies++;
                }
                world_start(&world);
                assert_int_equal(count_rows(), 5);
                assert_null(memory_disk_find(world.memory, TAIL, &size));
                stop(state);
                start(state);
        }
        assert_true(n_copies > 2);
}

static void an_old_copy_of_a_batch_says_nothing(void **state)
{
        unsigned char old[16384];
        unsigned char *tail = NULL;
        size_t size = 0;
        DiskFile *file;
        uint64_t ends[5];

        for (uint64_t n = 1; !tail; n++) {
                stop(state);
                start(state);
                assert_true(cut_a_start(n, ends));
                tail = memory_disk_find(world.memory, TAIL, &size);
        }
        assert_true(size <= sizeof old);
        memcpy(old, tail, size);
        write_journal(ends, 0);
        assert_int_equal(disk_open(world.disk, TAIL, DISK_CREATE, &file), 0);
        assert_int_equal(disk_write(file, old, size, 0, 0), 0);
        disk_close(file);
        world_start(&world);
        assert_int_equal(count_rows(), 5);
        assert_null(strstr(world.log, "copy"));
}

static void damage_in_the_middle_is_reported_with_its_place(void **state)
{
        uint64_t ends[5];
        const char *path = write_journal(ends, 5);
        unsigned char *bytes;
        char place[64];
        size_t size;

        bytes = memory_disk_find(world.memory, path, &size);
        bytes[ends[1] + 100] ^= 1;
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        snprintf(place, sizeof place, "segment-00 at offset %llu", (unsigned long long)ends[1]);
        assert_non_null(strstr(world.log, place));
        /* Nothing was changed: with the bit back it is whole. */
        bytes = memory_disk_find(world.memory, path, &size);
        bytes[ends[1] + 100] ^= 1;
        world_start(&world);
        assert_int_equal(count_rows(), 5);
}

static void a_damaged_first_batch_is_no_torn_tail(void **state)
{
        uint64_t ends[5];
        const char *path = write_journal(ends, 5);
        size_t size;

        memory_disk_find(world.memory, path, &size)[1] ^= 1;
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "segment-00 at offset 0"));
}

static void a_damaged_epoch_file_is_reported(void **state)
{
        uint64_t ends[2];
        size_t size;

        write_journal(ends, 2);
        memory_disk_find(world.memory, JOURNAL "/epoch", &size)[9] ^= 1;
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "epoch file does not check"));
}

static void a_missing_epoch_file_is_reported(void **state)
{
        uint64_t ends[2];

        write_journal(ends, 2);
        assert_int_equal(disk_unlink(world.disk, JOURNAL "/epoch"), 0);
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "epoch file is missing"));
}

static void a_journal_that_is_gone_is_not_taken_for_a_new_one(void **state)
{
        uint64_t ends[5];

        write_journal(ends, 5);
        assert_int_equal(disk_rename(world.disk, JOURNAL "/epoch", "/state/epoch"), 0);
        assert_int_equal(disk_rename(world.disk, JOURNAL "/segment-00", "/state/segment"), 0);
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "/.journal-journal-shop-0 says that it was begun"));
        assert_int_equal(disk_rename(world.disk, "/state/epoch", JOURNAL "/epoch"), 0);
        assert_int_equal(disk_rename(world.disk, "/state/segment", JOURNAL "/segment-00"), 0);
        world_start(&world);
        assert_int_equal(count_rows(), 5);
}

static void a_journal_is_not_redone_into_other_objects(void **state)
{
        uint64_t ends[5];

        write_journal(ends, 5);
        assert_int_equal(disk_unlink(world.disk, OBJECTS "/.journal-journal-shop-0"), 0);
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "belongs to objects that are not in " OBJECTS));
}

static void a_missing_database_file_stops_the_replay(void **state)
{
        uint64_t ends[5];
        sqlite3 *db;

        write_journal(ends, 5);
        world_start(&world);
        db = world_connect(&world, "aa01");
        run(db, "INSERT INTO t VALUES(1)");
        disconnect(db);
        store_loop_run(world.store);
        world_stop(&world);
        assert_int_equal(disk_rename(world.disk, object_path("aa01"), "/state/away"), 0);
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "aa01.sqlite is missing"));
        assert_int_equal(disk_rename(world.disk, "/state/away", object_path("aa01")), 0);
        world_start(&world);
        assert_int_equal(count_rows(), 6);
}

static void lsns_grow_over_restarts(void **state)
{
        uint64_t ends[3], lsn;

        write_journal(ends, 3);
        world_start(&world);
        lsn = store_get_lsn(world.store);
        assert_true(lsn >= 4);
        assert_int_equal(store_flushed(world.store), lsn);
        world_crash(&world, CRASH_DROP);
        assert_true(store_get_lsn(world.store) >= lsn);
}

static void a_journal_has_one_owner(void **state)
{
        Store *other;

        world_start(&world);
        assert_int_equal(store_open(&world.options, &other), -EAGAIN);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(
                        nothing_flushed_is_lost_when_all_unsynced_is, start, stop),
                cmocka_unit_test_setup_teardown(
                        nothing_flushed_is_lost_when_all_unsynced_is_kept, start, stop),
                cmocka_unit_test_setup_teardown(
                        nothing_flushed_is_lost_when_the_rest_is_torn, start, stop),
                cmocka_unit_test_setup_teardown(a_recovery_can_be_cut_at_each_call, start, stop),
                cmocka_unit_test_setup_teardown(a_torn_tail_is_cut, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_last_batch_that_is_torn_as_it_is_written_anew_has_a_copy, start, stop),
                cmocka_unit_test_setup_teardown(an_old_copy_of_a_batch_says_nothing, start, stop),
                cmocka_unit_test_setup_teardown(
                        damage_in_the_middle_is_reported_with_its_place, start, stop),
                cmocka_unit_test_setup_teardown(a_damaged_first_batch_is_no_torn_tail, start, stop),
                cmocka_unit_test_setup_teardown(a_damaged_epoch_file_is_reported, start, stop),
                cmocka_unit_test_setup_teardown(a_missing_epoch_file_is_reported, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_journal_that_is_gone_is_not_taken_for_a_new_one, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_journal_is_not_redone_into_other_objects, start, stop),
                cmocka_unit_test_setup_teardown(
                        a_missing_database_file_stops_the_replay, start, stop),
                cmocka_unit_test_setup_teardown(lsns_grow_over_restarts, start, stop),
                cmocka_unit_test_setup_teardown(a_journal_has_one_owner, start, stop),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
