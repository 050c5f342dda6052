/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive-read.h"
#include "lib/store/late-redo.h"
#include "tests/unit/store/world.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Objects that are redone after the store is open */

#define ARCHIVE "/state/archive/shop/0"
#define N_OBJECTS 6

static World world;

static void set_options(void)
{
        world.options.segment_size = 256 << 10;
        world.options.n_segments = 6;
        world.options.checkpoint_at = 1000;
        world.options.late_max = 100;
}

static int start(void **state)
{
        world_init(&world, 5);
        set_options();
        world_start(&world);
        /* A second segment, to go on in. */
        world_settle(&world);
        return 0;
}

static int start_archived(void **state)
{
        world_init(&world, 5);
        set_options();
        world.options.archive = ARCHIVE;
        world_start(&world);
        world_settle(&world);
        return 0;
}

static int stop(void **state)
{
        world_done(&world);
        return 0;
}

static const char *name_of(int i)
{
        static const char *const names[N_OBJECTS] = {
                "aa01",
                "ab02",
                "ab03",
                "ac04",
                "ad05",
                "ae06",
        };

        return names[i];
}

static bool try_add(int i, int row)
{
        sqlite3 *db = world_connect(&world, name_of(i));
        char sql[200];
        bool done;

        snprintf(sql, sizeof sql,
                "BEGIN; CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v);"
                "INSERT INTO t VALUES(%d, hex(randomblob(%d))); COMMIT",
                row, row * 1310 % 9000);
        done = try_run(db, sql) == SQLITE_OK;
        if (!done)
                try_run(db, "ROLLBACK");
        disconnect(db);
        return done;
}

static void add(int i, int row)
{
        assert_true(try_add(i, row));
}

static int64_t count(int i)
{
        sqlite3 *db = world_connect(&world, name_of(i));
        int64_t n = ask(db, "SELECT count(*) FROM t");

        assert_string_equal(ask_text(db, "PRAGMA integrity_check"), "ok");
        disconnect(db);
        return n == INT64_MIN ? 0 : n;
}

/* Each object gets a row, durable. */
static void add_to_all(int row)
{
        for (int i = 0; i < N_OBJECTS; i++)
                add(i, row);
        assert_int_equal(store_loop_run(world.store), 0);
}

static uint64_t get_left(void)
{
        StoreStats stats;

        store_get_stats(world.store, &stats);
        return stats.redo_left;
}

static uint64_t get_redone(void)
{
        StoreStats stats;

        store_get_stats(world.store, &stats);
        return stats.redone_objects;
}

static unsigned get_live(void)
{
        StoreStats stats;

        store_get_stats(world.store, &stats);
        return stats.segments_live;
}

/* Leaves the current segment alone. */
static void drain(void)
{
        store_loop_run(world.store);
        store_set_draining(world.store, true);
        world_settle(&world);
        store_set_draining(world.store, false);
}

static void an_object_is_redone_when_it_is_opened_and_before_the_others(void **state)
{
        add_to_all(1);
        add_to_all(2);
        world_crash(&world, CRASH_DROP);
        assert_int_equal(get_left(), N_OBJECTS);
        assert_int_equal(get_redone(), 0);
        assert_int_equal(count(3), 2);
        assert_int_equal(get_left(), N_OBJECTS - 1);
        assert_int_equal(get_redone(), 1);
        assert_int_equal(store_find_object(world.store, object_path(name_of(4))), 0);
        assert_int_equal(get_left(), N_OBJECTS - 2);
}

static void the_background_redoes_what_nobody_opens(void **state)
{
        add_to_all(1);
        world_crash(&world, CRASH_DROP);
        world_settle(&world);
        assert_int_equal(get_left(), 0);
        assert_int_equal(get_redone(), N_OBJECTS);
        assert_non_null(strstr(world.log, "replayed 6 commits of 6 objects"));
        for (int i = 0; i < N_OBJECTS; i++)
                assert_int_equal(count(i), 1);
}

static void an_object_that_needs_no_redo_is_served_at_once(void **state)
{
        add(0, 1);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        /* Into the next segment. */
        for (int i = 1; i < N_OBJECTS; i++)
                add(i, 1);
        drain();
        world_crash(&world, CRASH_DROP);
        assert_int_equal(get_left(), N_OBJECTS - 1);
        assert_int_equal(count(0), 1);
        assert_int_equal(get_left(), N_OBJECTS - 1);
        assert_int_equal(get_redone(), 0);
}

static void an_object_takes_commits_while_others_are_left(void **state)
{
        add_to_all(1);
        world_crash(&world, CRASH_DROP);
        add(1, 2);
        add(1, 3);
        store_loop_run(world.store);
        assert_int_equal(get_left(), N_OBJECTS - 1);
        /* All of it is in two epochs now. */
        world_crash(&world, CRASH_DROP);
        assert_int_equal(get_left(), N_OBJECTS);
        assert_int_equal(count(1), 3);
        assert_int_equal(count(0), 1);
        add(0, 2);
        store_loop_run(world.store);
        world_settle(&world);
        world_crash(&world, CRASH_DROP);
        for (int i = 0; i < N_OBJECTS; i++)
                assert_int_equal(count(i), i == 0 ? 2 : i == 1 ? 3 : 1);
}

static void nothing_is_retired_while_an_object_is_left(void **state)
{
        unsigned live;

        add_to_all(1);
        world_crash(&world, CRASH_DROP);
        live = get_live();
        assert_true(live > 0);
        store_set_draining(world.store, true);
        while (get_left() > 1) {
                assert_int_equal(store_background_step(world.store), 1);
                store_loop_run(world.store);
                assert_true(get_live() >= live);
        }
        world_settle(&world);
        assert_int_equal(get_left(), 0);
        assert_int_equal(get_live(), 1);
}

static void an_object_that_cannot_be_redone_stays_in_the_journal(void **state)
{
        add_to_all(7);
        world_crash(&world, CRASH_DROP);
        memory_disk_set_max(world.memory, 4096);
        for (int i = 0; i < 50; i++)
                assert_true(store_background_step(world.store) >= 0);
        assert_int_equal(store_get_failure(world.store), 0);
        assert_int_equal(get_left(), N_OBJECTS);
        assert_non_null(strstr(world.log, "cannot be redone from the journal"));
        memory_disk_set_max(world.memory, UINT64_MAX);
        assert_int_equal(count(2), 1);
        world_settle(&world);
        assert_int_equal(get_left(), 0);
        for (int i = 0; i < N_OBJECTS; i++)
                assert_int_equal(count(i), 1);
}

static unsigned n_work;

static void on_work(void *data)
{
        n_work++;
}

static void what_an_opener_could_not_redo_is_tried_again_by_the_background(void **state)
{
        world.options.work = on_work;
        add_to_all(7);
        world_crash(&world, CRASH_DROP);
        memory_disk_set_max(world.memory, 4096);
        n_work = 0;
        assert_true(store_find_object(world.store, object_path(name_of(2))) < 0);
        assert_int_equal(n_work, 1);
        memory_disk_set_max(world.memory, UINT64_MAX);
        world_settle(&world);
        assert_int_equal(get_left(), 0);
}

/* Of an object that was not there before. */
static void add_new(int row)
{
        sqlite3 *db = world_connect(&world, "ff99");
        char sql[200];

        snprintf(sql, sizeof sql,
                "CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v);"
                "INSERT INTO t VALUES(%d, hex(randomblob(4000)))",
                row);
        run(db, sql);
        disconnect(db);
        store_loop_run(world.store);
}

static void set_busy(bool is_busy)
{
        store_lock(world.store);
        list_for_each(link, &world.store->late->redo.file_list) {
                list_entry(link, RedoFile, link)->is_busy = is_busy;
        }
        store_unlock(world.store);
}

/* A commit that waits for room is not told that there will be none. */
static void what_others_are_redoing_is_no_standstill(void **state)
{
        add_to_all(1);
        world_crash(&world, CRASH_DROP);
        store_set_draining(world.store, true);
        set_busy(true);
        while (store_background_step(world.store) > 0)
                store_loop_run(world.store);
        assert_true(world.store->unsettled);
        assert_true(world.store->retry);
        assert_int_equal(get_left(), N_OBJECTS);
        set_busy(false);
        world_settle(&world);
        assert_int_equal(get_left(), 0);
        assert_int_equal(get_live(), 1);
}

static void a_deleted_object_that_is_left_is_not_there(void **state)
{
        char path[256];
        uint64_t size;

        snprintf(path, sizeof path, "%s", object_path(name_of(2)));
        add_to_all(1);
        world_settle(&world);
        assert_int_equal(store_delete(world.store, path), 0);
        store_loop_run(world.store);
        world_crash(&world, CRASH_KEEP);
        assert_int_equal(disk_stat_size(world.disk, path, &size), 0);
        assert_int_equal(store_find_object(world.store, path), -ENOENT);
        assert_int_equal(disk_stat_size(world.disk, path, &size), -ENOENT);
        assert_int_equal(count(2), 0);
        add(2, 1);
        add(2, 2);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        assert_int_equal(count(2), 2);
}

static void an_object_can_be_deleted_while_it_is_left(void **state)
{
        add_to_all(1);
        world_crash(&world, CRASH_DROP);
        assert_int_equal(store_delete(world.store, object_path(name_of(2))), 0);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        assert_int_equal(store_find_object(world.store, object_path(name_of(2))), -ENOENT);
        assert_int_equal(count(1), 1);
}

static void with_more_epochs_than_have_room_all_is_redone_at_once(void **state)
{
        int late = 0, whole = 0;

        world_stop(&world);
        world.options.n_segments = 20;
        world_start(&world);
        add_to_all(1);
        for (int life = 2; life < 22; life++) {
                world_crash(&world, CRASH_DROP);
                late += get_left() > 0;
                whole += get_left() == 0;
                /* The next segment, but no redo of the rest. */
                for (int i = 0; i < 2; i++)
                        store_background_step(world.store);
                add(0, life);
                store_loop_run(world.store);
        }
        assert_true(late > 7);
        assert_true(whole > 0);
        assert_int_equal(count(0), 21);
        for (int i = 1; i < N_OBJECTS; i++)
                assert_int_equal(count(i), 1);
}

/* The last batch's bytes in segment 0. */
static unsigned char *find_last_batch(size_t *ret_len)
{
        size_t size, at = 0, last = 0;
        unsigned char *bytes = memory_disk_find(world.memory, JOURNAL "/segment-00", &size);
        BatchHeader header;

        while (at < size && batch_decode_header(slice_of(bytes + at, size - at), &header) == 0) {
                last = at;
                *ret_len = header.len;
                at += (header.len + DISK_BLOCK - 1) & ~(DISK_BLOCK - 1);
        }
        return bytes + last;
}

static void a_batch_that_was_torn_does_not_count_when_it_appears_later(void **state)
{
        unsigned char *last, *copy;
        size_t len;

        for (int row = 1; row <= 3; row++)
                add_to_all(row);
        world_stop(&world);
        last = find_last_batch(&len);
        copy = malloc(len);
        assert_non_null(copy);
        memcpy(copy, last, len);
        memset(last + len - 100, 0, 100);
        world_start(&world);
        assert_int_equal(get_left(), N_OBJECTS);
        assert_int_equal(count(0), 2);
        world_stop(&world);
        memcpy(last, copy, len);
        free(copy);
        world_start(&world);
        assert_int_equal(get_left(), N_OBJECTS);
        for (int i = 0; i < N_OBJECTS; i++)
                assert_int_equal(count(i), 2);
}

static void a_lost_end_of_an_earlier_epoch_is_damage(void **state)
{
        size_t len;

        for (int row = 1; row <= 3; row++)
                add_to_all(row);
        world_crash(&world, CRASH_DROP);
        add(0, 4);
        store_loop_run(world.store);
        world_stop(&world);
        find_last_batch(&len)[len - 100] ^= 1;
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "segment-00 at offset"));
        find_last_batch(&len);
}

static void lost_batches_that_only_an_earlier_epoch_has_are_damage(void **state)
{
        size_t len, size;

        add_to_all(1);
        add_to_all(2);
        world_crash(&world, CRASH_DROP);
        world_stop(&world);
        find_last_batch(&len)[len - 100] ^= 1;
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "though the epoch file counts it"));
        memset(memory_disk_find(world.memory, JOURNAL "/segment-00", &size), 0, 8192);
        assert_int_equal(world_try_start(&world), -EUCLEAN);
}

static void a_missing_database_file_still_stops_the_start(void **state)
{
        add_to_all(1);
        world_crash(&world, CRASH_DROP);
        add_to_all(2);
        drain();
        world_stop(&world);
        assert_int_equal(disk_rename(world.disk, object_path(name_of(1)), "/state/away"), 0);
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        assert_non_null(strstr(world.log, "ab02.sqlite is missing"));
        assert_int_equal(disk_rename(world.disk, "/state/away", object_path(name_of(1))), 0);
        world_start(&world);
        assert_int_equal(count(1), 2);
}

static void files_are_locked_until_they_are_redone(void **state)
{
        _cleanup_(disk_close_p) DiskFile *other = NULL;

        add_to_all(1);
        world_settle(&world);
        world_crash(&world, CRASH_KEEP);
        assert_true(get_left() > 0);
        assert_int_equal(disk_open(world.disk, object_path(name_of(5)), 0, &other), 0);
        assert_int_equal(disk_lock(other, 0x40000000, 512), -EAGAIN);
}

static void beyond_late_max_all_is_redone_at_once(void **state)
{
        add_to_all(1);
        world.options.late_max = N_OBJECTS - 1;
        world_crash(&world, CRASH_DROP);
        assert_int_equal(get_left(), 0);
        assert_int_equal(get_redone(), N_OBJECTS);
        for (int i = 0; i < N_OBJECTS; i++)
                assert_int_equal(count(i), 1);
}

static unsigned count_spills(void)
{
        StoreStats stats;

        store_get_stats(world.store, &stats);
        return stats.spill_bytes > 0;
}

static void spilled_commits_are_redone_late(void **state)
{
        sqlite3 *db;

        world_stop(&world);
        world.options.spill_size = 32 << 10;
        world_start(&world);
        world_settle(&world);
        db = world_connect(&world, name_of(0));
        run(db, "CREATE TABLE t(v)");
        run(db, "INSERT INTO t VALUES(randomblob(200000))");
        disconnect(db);
        add(1, 1);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        assert_int_equal(get_left(), 2);
        assert_int_equal(count_spills(), 1);
        /* Another one does not take its name. */
        db = world_connect(&world, name_of(2));
        run(db, "CREATE TABLE t(v)");
        run(db, "INSERT INTO t VALUES(randomblob(200000))");
        disconnect(db);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        assert_int_equal(count(0), 1);
        assert_int_equal(count(2), 1);
        store_set_draining(world.store, true);
        world_settle(&world);
        assert_int_equal(count_spills(), 0);
}

static void history_goes_back_over_a_start_with_objects_left(void **state)
{
        char first[STORE_BOOKMARK_LEN + 1], second[STORE_BOOKMARK_LEN + 1];
        char undo[STORE_BOOKMARK_LEN + 1], spare[STORE_BOOKMARK_LEN + 1];
        char path[256];

        snprintf(path, sizeof path, "%s", object_path(name_of(1)));
        add_to_all(1);
        assert_int_equal(store_get_bookmark(world.store, path, first), 0);
        add_to_all(2);
        world_crash(&world, CRASH_DROP);
        assert_int_equal(get_left(), N_OBJECTS);
        assert_int_equal(store_get_bookmark(world.store, path, second), 0);
        add(1, 3);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        add(1, 4);
        store_loop_run(world.store);
        assert_int_equal(store_restore(world.store, path, first, path, undo), 0);
        assert_int_equal(count(1), 1);
        assert_int_equal(store_restore(world.store, path, second, path, spare), 0);
        assert_int_equal(count(1), 2);
        assert_int_equal(store_restore(world.store, path, undo, path, spare), 0);
        assert_int_equal(count(1), 4);
        /* The same from the archive. */
        drain();
        assert_int_equal(store_restore(world.store, path, first, path, spare), 0);
        assert_int_equal(count(1), 1);
}

/* One that went while its segment could not is written again, and is still the oldest. */
static void the_oldest_file_of_the_archive_goes_first(void **state)
{
        _cleanup_(free_p) uint64_t *lsns = NULL;
        _cleanup_(free_p) char *path = NULL;
        StoreStats stats;
        uint64_t first;
        size_t n;

        add_to_all(1);
        world_crash(&world, CRASH_DROP);
        set_busy(true);
        for (int row = 2; row < 60; row++) {
                add_new(row);
                world_settle(&world);
        }
        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        assert_true(n > 2);
        first = lsns[0];
        free(TAKE_PTR(lsns));
        path = archive_path(ARCHIVE, first);
        assert_int_equal(disk_unlink(world.disk, path), 0);
        store_get_stats(world.store, &stats);
        world.options.archive_max = stats.archive_bytes - 1;
        world_crash(&world, CRASH_KEEP);
        world_settle(&world);
        store_get_stats(world.store, &stats);
        assert_true(stats.archived_segments > 0);
        assert_true(stats.archive_pruned > 0);
        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        assert_true(n > 0 && lsns[0] > first);
}

/* A recovery, commits while objects are left, and the background, cut at each call of the disk. */

typedef struct Model {
        int begun[N_OBJECTS], flushed[N_OBJECTS];
} Model;

static bool add_flushed(Model *model, int i)
{
        bool done = try_add(i, ++model->begun[i]);

        if (done && store_loop_run(world.store) == 0 &&
                store_object_lsn(world.store, object_path(name_of(i))) <=
                        store_flushed(world.store))
                model->flushed[i] = model->begun[i];
        return done;
}

static void serve(Model *model)
{
        for (int i = 0; i < N_OBJECTS; i += 2) {
                add_flushed(model, i);
                for (int step = 0; step < 2; step++)
                        store_background_step(world.store);
        }
        store_set_draining(world.store, true);
        for (int step = 0; step < 40 && store_background_step(world.store) > 0; step++)
                store_loop_run(world.store);
        store_set_draining(world.store, false);
        add_flushed(model, 1);
}

static void check_model(const Model *model, uint64_t cut)
{
        for (int i = 0; i < N_OBJECTS; i++) {
                int64_t n = count(i);

                if (n < model->flushed[i] || n > model->begun[i])
                        fail_msg("cut at call %llu: object %d: %lld rows, flushed %d, begun %d",
                                (unsigned long long)cut, i, (long long)n, model->flushed[i],
                                model->begun[i]);
        }
}

static bool cut_at(uint64_t call, MemoryCrash crash)
{
        Model model = {};
        bool is_cut;

        memory_disk_free(world.memory);
        world.memory = memory_disk_new(call);
        world.disk = world.options.disk = memory_disk_get(world.memory);
        world_start(&world);
        store_background_step(world.store);
        for (int i = 0; i < N_OBJECTS; i++)
                assert_true(add_flushed(&model, i));
        world_crash(&world, crash);
        assert_int_equal(get_left(), N_OBJECTS);
        assert_true(add_flushed(&model, 3));
        world_stop(&world);
        memory_disk_crash(world.memory, crash);
        memory_disk_cut(world.memory, memory_disk_get_calls(world.memory) + call);
        if (world_try_start(&world) == 0)
                serve(&model);
        is_cut = memory_disk_is_cut(world.memory);
        world_stop(&world);
        memory_disk_crash(world.memory, crash);
        world_start(&world);
        check_model(&model, call);
        world_stop(&world);
        return is_cut;
}

static void a_late_recovery_can_be_cut_at_each_call(void **state)
{
        world_stop(&world);
        for (MemoryCrash crash = CRASH_DROP; crash <= CRASH_TEAR; crash++)
                for (uint64_t call = 1; cut_at(call, crash); call++)
                        ;
}

/* Threads */

#define N_THREADS 4

static void *find_all(void *data)
{
        unsigned *found = data;

        for (int i = 0; i < N_OBJECTS; i++) {
                char path[256];

                snprintf(path, sizeof path, "%s/shop-cart/%.2s/%s.sqlite", world.objects,
                        name_of(i), name_of(i));
                *found += store_find_object(world.store, path) == 0;
        }
        return NULL;
}

static void one_thread_redoes_an_object_and_the_others_wait(void **state)
{
        for (int round = 0; round < 20; round++) {
                pthread_t threads[N_THREADS];
                unsigned found[N_THREADS] = {};

                world_init_real(&world);
                set_options();
                world_start(&world);
                add_to_all(1);
                world_stop(&world);
                world_start(&world);
                assert_int_equal(get_left(), N_OBJECTS);
                assert_int_equal(store_start_background(world.store), 0);
                for (int i = 0; i < N_THREADS; i++)
                        pthread_create(&threads[i], NULL, find_all, &found[i]);
                for (int i = 0; i < N_THREADS; i++) {
                        pthread_join(threads[i], NULL);
                        assert_int_equal(found[i], N_OBJECTS);
                }
                store_stop_background(world.store);
                world_settle(&world);
                assert_int_equal(get_redone(), N_OBJECTS);
                for (int i = 0; i < N_OBJECTS; i++)
                        assert_int_equal(count(i), 1);
                world_done(&world);
        }
}

#define TEST(_name) cmocka_unit_test_setup_teardown(_name, start, stop)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(an_object_is_redone_when_it_is_opened_and_before_the_others),
                TEST(the_background_redoes_what_nobody_opens),
                TEST(an_object_that_needs_no_redo_is_served_at_once),
                TEST(an_object_takes_commits_while_others_are_left),
                TEST(nothing_is_retired_while_an_object_is_left),
                TEST(an_object_that_cannot_be_redone_stays_in_the_journal),
                TEST(what_an_opener_could_not_redo_is_tried_again_by_the_background),
                TEST(what_others_are_redoing_is_no_standstill),
                TEST(a_deleted_object_that_is_left_is_not_there),
                TEST(an_object_can_be_deleted_while_it_is_left),
                TEST(with_more_epochs_than_have_room_all_is_redone_at_once),
                TEST(a_batch_that_was_torn_does_not_count_when_it_appears_later),
                TEST(a_lost_end_of_an_earlier_epoch_is_damage),
                TEST(lost_batches_that_only_an_earlier_epoch_has_are_damage),
                TEST(a_missing_database_file_still_stops_the_start),
                TEST(files_are_locked_until_they_are_redone),
                TEST(beyond_late_max_all_is_redone_at_once),
                TEST(spilled_commits_are_redone_late),
                TEST(a_late_recovery_can_be_cut_at_each_call),
                cmocka_unit_test_setup_teardown(
                        history_goes_back_over_a_start_with_objects_left, start_archived, stop),
                cmocka_unit_test_setup_teardown(
                        the_oldest_file_of_the_archive_goes_first, start_archived, stop),
                cmocka_unit_test(one_thread_redoes_an_object_and_the_others_wait),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
