/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/db.h"
#include "lib/store/store-private.h"
#include "tests/unit/store/world.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static World world;

static int start(void **state)
{
        world_init(&world, 3);
        world_start(&world);
        return 0;
}

static int stop(void **state)
{
        world_done(&world);
        return 0;
}

static void fill(sqlite3 *db, int n, int bytes)
{
        char sql[128];

        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(hex(randomblob(%d)))", bytes / 2);
        for (int i = 0; i < n; i++) {
                run(db, sql);
                if (i % 8 == 7 || i == n - 1)
                        world_settle(&world);
        }
}

static void check_after_crash(const char *name, int64_t n)
{
        sqlite3 *db;

        world_crash(&world, CRASH_DROP);
        db = world_connect(&world, name);
        assert_int_equal(rows(db), n);
        assert_true(is_sound(db));
        disconnect(db);
}

typedef struct Waiting {
        StoreWaiter waiter;
        int n, result;
} Waiting;

static void on_flushed(StoreWaiter *waiter, int result)
{
        Waiting *waiting = CONTAINER_OF(waiter, Waiting, waiter);

        waiting->n++;
        waiting->result = result;
}

static void a_waiter_is_called_when_its_lsn_is_durable(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        Waiting one = {}, two = {};

        store_waiter_init(&one.waiter, on_flushed);
        store_waiter_init(&two.waiter, on_flushed);
        assert_true(store_wait(world.store, &one.waiter, 0));
        memory_disk_hold(world.memory, true);
        run(db, "CREATE TABLE t(a)");
        assert_false(store_wait(world.store, &one.waiter, store_get_lsn(world.store)));
        store_loop_flush(world.store);
        run(db, "INSERT INTO t VALUES(1)");
        assert_false(store_wait(world.store, &two.waiter, store_get_lsn(world.store)));
        store_loop_flush(world.store);
        disk_poll(world.disk);
        assert_int_equal(one.n, 0);
        memory_disk_hold(world.memory, false);
        disk_poll(world.disk);
        assert_int_equal(one.n, 1);
        assert_int_equal(one.result, 0);
        /* The second batch was filled while the first was written; its write has begun. */
        assert_int_equal(two.n, 0);
        disk_poll(world.disk);
        assert_int_equal(two.n, 1);
        disconnect(db);
}

static void a_failed_write_of_the_journal_ends_the_store(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        Waiting waiting = {};

        store_waiter_init(&waiting.waiter, on_flushed);
        run(db, "CREATE TABLE t(a)");
        store_loop_run(world.store);
        run(db, "INSERT INTO t VALUES(1)");
        assert_false(store_wait(world.store, &waiting.waiter, store_get_lsn(world.store)));
        memory_disk_fail(world.memory, memory_disk_get_calls(world.memory) + 1, EIO, false);
        assert_int_equal(store_loop_run(world.store), -EIO);
        assert_int_equal(waiting.n, 1);
        assert_int_equal(waiting.result, -EIO);
        assert_int_equal(world.failures, 1);
        assert_int_equal(store_sync(world.store, store_get_lsn(world.store)), -EIO);
        assert_true(store_flushed(world.store) < store_get_lsn(world.store));
        assert_int_not_equal(try_run(db, "INSERT INTO t VALUES(2)"), SQLITE_OK);
        assert_true(store_background_step(world.store) < 0);
        disconnect(db);
        check_after_crash("aa01", 0);
}

static void segments_go_round_and_are_retired(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        StoreStats stats;

        run(db, "CREATE TABLE t(a)");
        fill(db, 600, 20000);
        store_get_stats(world.store, &stats);
        assert_true(stats.retired_segments >= 3);
        assert_true(stats.segments_live <= 3);
        assert_int_equal(rows(db), 600);
        disconnect(db);
        check_after_crash("aa01", 600);
}

static void a_long_reader_does_not_stop_the_journal(void **state)
{
        sqlite3 *reader = world_connect(&world, "aa01"), *writer = world_connect(&world, "aa01");
        StoreStats stats;

        run(writer, "CREATE TABLE t(a)");
        fill(writer, 20, 20000);
        run(reader, "BEGIN; SELECT * FROM t");
        assert_int_equal(rows(reader), 20);
        fill(writer, 580, 20000);
        store_get_stats(world.store, &stats);
        assert_true(stats.copies > 0);
        assert_true(stats.retired_segments >= 3);
        assert_int_equal(rows(reader), 20);
        assert_true(is_sound(reader));
        run(reader, "COMMIT");
        assert_int_equal(rows(reader), 600);
        disconnect(reader);
        disconnect(writer);
        check_after_crash("aa01", 600);
}

static void an_object_that_commits_all_the_time_is_written_all_the_same(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        StoreStats stats;

        run(db, "CREATE TABLE t(a)");
        for (int i = 0; i < 2000; i++) {
                store_loop_run(world.store);
                /* The last commit is never durable when the background looks. */
                run(db, "INSERT INTO t VALUES(hex(randomblob(500)))");
                assert_true(store_flushed(world.store) <
                            store_object_lsn(world.store, object_path("aa01")));
                store_background_step(world.store);
        }
        store_get_stats(world.store, &stats);
        assert_true(stats.checkpoints > 10);
        assert_true(stats.retired_segments >= 1);
        assert_int_equal(rows(db), 2000);
        disconnect(db);
        store_loop_run(world.store);
        check_after_crash("aa01", 2000);
}

static void all_logs_together_have_a_limit(void **state)
{
        sqlite3 *dbs[40];
        StoreStats stats;
        char name[16];

        world_stop(&world);
        world.options.wal_total_max = 256 << 10;
        world_start(&world);
        for (int i = 0; i < 40; i++) {
                snprintf(name, sizeof name, "dd%02d", i);
                dbs[i] = world_connect(&world, name);
                run(dbs[i], "CREATE TABLE t(a)");
                for (int k = 0; k < 10; k++)
                        run(dbs[i], "INSERT INTO t VALUES(hex(randomblob(2000)))");
                world_settle(&world);
        }
        store_get_stats(world.store, &stats);
        assert_true(stats.wal_bytes <= 256 << 10);
        for (int i = 0; i < 40; i++) {
                assert_int_equal(rows(dbs[i]), 10);
                disconnect(dbs[i]);
        }
}

static void closed_objects_do_not_pile_up(void **state)
{
        StoreStats stats;
        char name[16];

        for (int i = 0; i < 1200; i++) {
                sqlite3 *db;

                snprintf(name, sizeof name, "%04x", i);
                db = world_connect(&world, name);
                run(db, "CREATE TABLE t(a)");
                disconnect(db);
                if (i % 50 == 0)
                        world_settle(&world);
        }
        world_settle(&world);
        store_get_stats(world.store, &stats);
        assert_true(stats.objects <= 1024);
        world_crash(&world, CRASH_DROP);
        for (int i = 0; i < 1200; i += 7) {
                sqlite3 *db;

                snprintf(name, sizeof name, "%04x", i);
                db = world_connect(&world, name);
                assert_int_equal(rows(db), 0);
                disconnect(db);
        }
}

static void many_objects_are_redone_with_few_descriptors(void **state)
{
        char name[16];

        for (int i = 0; i < 700; i++) {
                sqlite3 *db;

                snprintf(name, sizeof name, "%04x", i);
                db = world_connect(&world, name);
                run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
                disconnect(db);
        }
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        assert_in_range(memory_disk_get_open_most(world.memory), 500, 620);
        for (int i = 0; i < 700; i++) {
                sqlite3 *db;

                snprintf(name, sizeof name, "%04x", i);
                db = world_connect(&world, name);
                assert_int_equal(rows(db), 1);
                disconnect(db);
        }
}

static void many_objects_are_synced_at_once(void **state)
{
        char name[16];

        for (int round = 0; round < 4; round++)
                for (int i = 0; i < 40; i++) {
                        sqlite3 *db;

                        snprintf(name, sizeof name, "cc%02d", i);
                        db = world_connect(&world, name);
                        run(db, "CREATE TABLE IF NOT EXISTS t(a)");
                        fill(db, 3, 16000);
                        disconnect(db);
                        world_settle(&world);
                }
        world_crash(&world, CRASH_DROP);
        for (int i = 0; i < 40; i++) {
                sqlite3 *db;

                snprintf(name, sizeof name, "cc%02d", i);
                db = world_connect(&world, name);
                assert_int_equal(rows(db), 12);
                assert_true(is_sound(db));
                disconnect(db);
        }
}

static void draining_leaves_nothing_but_the_files(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        StoreStats stats;

        run(db, "CREATE TABLE t(a)");
        fill(db, 30, 1000);
        store_set_draining(world.store, true);
        world_settle(&world);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.dirty_objects, 0);
        assert_int_equal(stats.segments_live, 1);
        disconnect(db);
        check_after_crash("aa01", 30);
}

static void a_closed_object_is_forgotten_when_it_is_clean(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        StoreStats stats;

        run(db, "CREATE TABLE t(a)");
        disconnect(db);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.objects, 1);
        store_set_draining(world.store, true);
        world_settle(&world);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.objects, 0);
        assert_int_equal(store_object_lsn(world.store, object_path("aa01")), 0);
}

static void a_deleted_object_is_gone_after_a_crash(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        size_t size;

        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        assert_int_equal(store_delete(world.store, object_path("aa01")), -EBUSY);
        disconnect(db);
        world_settle(&world);
        assert_int_equal(store_delete(world.store, object_path("aa01")), 0);
        assert_int_equal(store_delete(world.store, object_path("zz01")), -ENOENT);
        store_loop_run(world.store);
        world_crash(&world, CRASH_DROP);
        assert_null(memory_disk_find(world.memory, object_path("aa01"), &size));
        db = world_connect(&world, "aa01");
        assert_int_equal(ask(db, "SELECT count(*) FROM sqlite_schema"), 0);
        disconnect(db);
}

static void the_background_removes_deleted_files(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        size_t size;

        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        disconnect(db);
        assert_int_equal(store_delete(world.store, object_path("aa01")), 0);
        while (store_background_step(world.store) > 0)
                ;
        assert_non_null(memory_disk_find(world.memory, object_path("aa01"), &size));
        world_settle(&world);
        assert_null(memory_disk_find(world.memory, object_path("aa01"), &size));
        assert_int_equal(store_delete(world.store, object_path("aa01")), -ENOENT);
}

static void an_object_deleted_and_opened_again_is_new(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");

        run(db, "CREATE TABLE t(a)");
        fill(db, 40, 1000);
        disconnect(db);
        world_settle(&world);
        assert_int_equal(store_delete(world.store, object_path("aa01")), 0);
        db = world_connect(&world, "aa01");
        assert_int_equal(ask(db, "SELECT count(*) FROM sqlite_schema"), 0);
        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1), (2)");
        store_loop_run(world.store);
        disconnect(db);
        world_crash(&world, CRASH_TEAR);
        db = world_connect(&world, "aa01");
        assert_int_equal(rows(db), 2);
        assert_true(is_sound(db));
        disconnect(db);
        world_settle(&world);
        check_after_crash("aa01", 2);
}

/* As SQLite does it when the wal-index cannot grow after the log was synced. */
static void a_commit_given_up_after_its_capture_is_cancelled(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        sqlite3_file *file = NULL, *wal = NULL;
        unsigned char frame[24] = { 0, 0, 0, 1, 0, 0, 0, 1 }, page[4096] = "garbage";
        sqlite3_int64 size;
        StoreStats stats;

        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
        sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
        assert_int_equal(wal->pMethods->xFileSize(wal, &size), SQLITE_OK);
        assert_int_equal(
                file->pMethods->xShmLock(file, 0, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE),
                SQLITE_OK);
        assert_int_equal(wal->pMethods->xWrite(wal, frame, sizeof frame, size), SQLITE_OK);
        assert_int_equal(wal->pMethods->xWrite(wal, page, sizeof page, size + 24), SQLITE_OK);
        assert_int_equal(wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL), SQLITE_OK);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.commits, 3);
        assert_int_equal(
                file->pMethods->xShmLock(file, 0, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE),
                SQLITE_OK);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.cancels, 1);
        run(db, "INSERT INTO t VALUES(2)");
        assert_int_equal(rows(db), 2);
        store_loop_run(world.store);
        disconnect(db);
        check_after_crash("aa01", 2);
}

/* What each call may answer, in a small workload with the disk failing at one. */
typedef struct Tally {
        int begun, flushed;
        bool started;
} Tally;

static void failing_workload(Tally *tally)
{
        sqlite3 *db;

        if (world_try_start(&world))
                return;
        tally->started = true;
        db = world_connect(&world, "aa01");
        if (db && try_run(db, "CREATE TABLE t(a)") == SQLITE_OK) {
                for (int i = 0; i < 12; i++) {
                        int rc = try_run(db, "INSERT INTO t VALUES(hex(randomblob(9000)))");

                        /* A commit that failed is nothing; one after it is to fit. */
                        if (rc != SQLITE_OK)
                                break;
                        tally->begun++;
                        if (store_loop_run(world.store) == 0)
                                tally->flushed = tally->begun;
                        store_background_step(world.store);
                }
        }
        if (db)
                disconnect(db);
        for (int i = 0; i < 50 && store_background_step(world.store) > 0; i++)
                if (store_loop_run(world.store) == 0)
                        tally->flushed = tally->begun;
        world_stop(&world);
}

static void fail_each_call(int error, bool forever)
{
        for (uint64_t call = 1;; call++) {
                Tally tally = {};
                bool reached;
                sqlite3 *db;
                int64_t n;

                memory_disk_free(world.memory);
                world.memory = memory_disk_new(call);
                world.disk = world.options.disk = memory_disk_get(world.memory);
                world.options.checkpoint_at = 5;
                memory_disk_fail(world.memory, call, error, forever);
                failing_workload(&tally);
                reached = memory_disk_get_calls(world.memory) >= call;
                memory_disk_crash(world.memory, CRASH_DROP);
                world_start(&world);
                db = world_connect(&world, "aa01");
                n = rows(db);
                n = n == INT64_MIN ? 0 : n;
                if (n < tally.flushed || n > tally.begun || !is_sound(db))
                        fail_msg("call %llu fails with %s: %lld rows, flushed %d, begun %d",
                                (unsigned long long)call, strerror(error), (long long)n,
                                tally.flushed, tally.begun);
                disconnect(db);
                world_stop(&world);
                if (!reached)
                        break;
        }
}

static void eio_at_each_call_is_never_a_false_success(void **state)
{
        world_stop(&world);
        fail_each_call(EIO, false);
        fail_each_call(EIO, true);
}

static void enospc_at_each_call_is_never_a_false_success(void **state)
{
        world_stop(&world);
        fail_each_call(ENOSPC, false);
        fail_each_call(ENOSPC, true);
}

static void damage_is_told_once_with_the_files_name(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        char *first;
        DiskFile *file;

        run(db, "CREATE TABLE t(a)");
        disconnect(db);
        world_settle(&world);
        store_set_draining(world.store, true);
        world_settle(&world);
        world_crash(&world, CRASH_KEEP);
        assert_int_equal(disk_open(world.disk, object_path("aa01"), 0, &file), 0);
        assert_int_equal(disk_write(file, "garbled garbled garbled", 20, 0, 0), 0);
        disk_close(file);
        store_set_current(world.store, object_path("aa01"));
        assert_false(store_was_broken());
        for (int i = 0; i < 3; i++) {
                db = NULL;
                assert_int_equal(sqlite3_open(object_path("aa01"), &db), SQLITE_OK);
                assert_int_equal(try_run(db, "SELECT * FROM t"), SQLITE_NOTADB);
                assert_int_equal(sqlite3_close(db), SQLITE_OK);
        }
        assert_true(store_was_broken());
        assert_false(store_was_refused());
        first = strstr(world.log, "aa01.sqlite: is damaged, an event of the object fails");
        assert_non_null(first);
        assert_null(strstr(first + 1, "aa01.sqlite: is damaged"));
        store_set_current(world.store, object_path("aa02"));
        assert_false(store_was_broken());
        db = world_connect(&world, "aa02");
        run(db, "CREATE TABLE t(a)");
        disconnect(db);
        store_set_current(world.store, NULL);
}

static void logs_that_cannot_go_to_their_files_do_not_fill_the_heap(void **state)
{
        enum { N = 40 };
        sqlite3 *dbs[N];
        int64_t n[N] = {};
        StoreStats stats;
        uint64_t refused = 0;

        world_stop(&world);
        world.options.wal_total_max = 256 << 10;
        world_start(&world);
        for (int i = 0; i < N; i++) {
                char name[16];

                snprintf(name, sizeof name, "aa%02d", i);
                dbs[i] = world_connect(&world, name);
                run(dbs[i], "CREATE TABLE t(a)");
                store_loop_run(world.store);
        }
        /* Nothing is done in the background until the journal is full. */
        for (int i = 0; i < 100 * N; i++) {
                int rc = try_run(dbs[i % N], "INSERT INTO t VALUES(zeroblob(4000))");

                n[i % N] += rc == SQLITE_OK;
                refused += rc == SQLITE_FULL;
                assert_true(rc == SQLITE_OK || rc == SQLITE_FULL);
                store_loop_run(world.store);
        }
        assert_true(refused > 0);
        store_get_stats(world.store, &stats);
        assert_true(stats.wal_bytes > 4 * world.options.wal_total_max);
        assert_true(stats.wal_bytes < 5 * world.options.wal_total_max);
        world_settle(&world);
        for (int i = 0; i < N; i++) {
                assert_int_equal(rows(dbs[i]), n[i]);
                run(dbs[i], "INSERT INTO t VALUES(zeroblob(4000))");
                store_loop_run(world.store);
                disconnect(dbs[i]);
        }
}

static void a_connection_that_is_left_open_can_do_nothing_after_the_end(void **state)
{
        const char *path = object_path("aa01");
        sqlite3 *left = NULL, *db = world_connect(&world, "aa01");

        run(db, "CREATE TABLE t(a)");
        run(db, "INSERT INTO t VALUES(1)");
        store_loop_run(world.store);
        assert_int_equal(sqlite3_open(path, &left), SQLITE_OK);
        assert_int_equal(ask(left, "SELECT count(*) FROM t"), 1);
        world_stop(&world);
        assert_non_null(strstr(world.log, "aa01.sqlite: the app left 1 connections open"));
        assert_int_not_equal(try_run(left, "INSERT INTO t VALUES(2)"), SQLITE_OK);
        /* The store's memory goes with it. */
        assert_int_equal(sqlite3_close(left), SQLITE_OK);
        world_start(&world);
        db = world_connect(&world, "aa01");
        assert_int_equal(ask(db, "SELECT count(*) FROM t"), 1);
        disconnect(db);
}

static void a_full_disk_stops_writes_alone_and_ends_by_itself(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        int64_t n = 0;
        int rc = SQLITE_OK;

        run(db, "CREATE TABLE t(a)");
        fill(db, 4, 20000);
        store_set_current(world.store, object_path("aa01"));
        memory_disk_fail(world.memory, 0, 0, false);
        /* Writes into the preallocated journal still succeed: what has no room is all else. */
        for (int i = 0; rc == SQLITE_OK && i < 1000; i++) {
                rc = try_run(db, "INSERT INTO t VALUES(hex(randomblob(10000)))");
                n += rc == SQLITE_OK;
                store_loop_run(world.store);
        }
        assert_int_equal(rc, SQLITE_FULL);
        assert_true(store_was_refused());
        store_set_current(world.store, object_path("aa01"));
        assert_false(store_was_refused());
        assert_int_equal(rows(db), 4 + n);
        assert_false(store_was_refused());
        store_set_current(world.store, NULL);
        assert_false(store_has_room(world.store));
        assert_int_equal(store_get_failure(world.store), 0);
        world_settle(&world);
        assert_true(store_has_room(world.store));
        run(db, "INSERT INTO t VALUES(1)");
        store_loop_run(world.store);
        disconnect(db);
        check_after_crash("aa01", 5 + n);
}

/* Threads on a real disk. */
#define N_THREADS 4
#define N_COMMITS 200

static char folder[] = "/tmp/test-store-XXXXXX";
static char objects[256], journal[256];
static pthread_mutex_t wake_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake_cond = PTHREAD_COND_INITIALIZER;
static bool woken;
static int n_running;
#define N_HOT 5000

static void on_wake(void *data)
{
        pthread_mutex_lock(&wake_mutex);
        woken = true;
        pthread_cond_signal(&wake_cond);
        pthread_mutex_unlock(&wake_mutex);
}

static void *run_thread(void *data)
{
        Store *store = world.store;
        char path[512];
        sqlite3 *db = NULL;

        snprintf(path, sizeof path, "%s/o%d.sqlite", objects, (int)(intptr_t)data);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        run(db, "CREATE TABLE IF NOT EXISTS t(a)");
        for (int i = 0; i < N_COMMITS; i++) {
                run(db, "INSERT INTO t VALUES(hex(randomblob(200)))");
                if (i % 10 == 0)
                        assert_int_equal(store_sync(store, store_object_lsn(store, path)), 0);
        }
        assert_int_equal(rows(db), N_COMMITS);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        pthread_mutex_lock(&wake_mutex);
        n_running--;
        pthread_cond_signal(&wake_cond);
        pthread_mutex_unlock(&wake_mutex);
        return NULL;
}

static void loop_until_done(void)
{
        pthread_mutex_lock(&wake_mutex);
        while (n_running) {
                if (!woken) {
                        pthread_cond_wait(&wake_cond, &wake_mutex);
                        continue;
                }
                woken = false;
                pthread_mutex_unlock(&wake_mutex);
                store_loop_flush(world.store);
                while (disk_poll(disk_real()) > 0)
                        ;
                pthread_mutex_lock(&wake_mutex);
        }
        pthread_mutex_unlock(&wake_mutex);
        store_loop_run(world.store);
}

static void open_real(void)
{
        world.options.disk = NULL;
        world.options.journal = journal;
        world.options.objects = objects;
        world.options.wake = on_wake;
        world.options.checkpoint_at = 20;
        world_start(&world);
}

static void threads_commit_while_the_background_works(void **state)
{
        pthread_t threads[N_THREADS];
        char command[700];

        world_stop(&world);
        assert_non_null(mkdtemp(folder));
        snprintf(objects, sizeof objects, "%s/objects", folder);
        snprintf(journal, sizeof journal, "%s/journal", folder);
        open_real();
        assert_int_equal(store_start_background(world.store), 0);
        n_running = N_THREADS;
        for (intptr_t i = 0; i < N_THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, run_thread, (void *)i), 0);
        loop_until_done();
        for (int i = 0; i < N_THREADS; i++)
                pthread_join(threads[i], NULL);
        world_stop(&world);
        open_real();
        for (int i = 0; i < N_THREADS; i++) {
                sqlite3 *db = NULL;
                char path[512];

                snprintf(path, sizeof path, "%s/o%d.sqlite", objects, i);
                assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
                assert_int_equal(rows(db), N_COMMITS);
                assert_true(is_sound(db));
                disconnect(db);
        }
        /* An outsider: another VFS, so other locks, as from another program. */
        sqlite3 *db = NULL, *outsider = NULL;
        char path[512];

        snprintf(path, sizeof path, "%s/o0.sqlite", objects);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(rows(db), N_COMMITS);
        assert_int_equal(
                sqlite3_open_v2(path, &outsider, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
        assert_int_equal(try_run(outsider, "SELECT count(*) FROM t"), SQLITE_BUSY);
        assert_int_equal(sqlite3_close(outsider), SQLITE_OK);
        snprintf(command, sizeof command, "sqlite3 %s 'SELECT 1 FROM t' 2>&1 | grep -q locked",
                path);
        if (system("command -v sqlite3 >/dev/null") == 0)
                assert_int_equal(system(command), 0);
        disconnect(db);
        world_stop(&world);
        snprintf(command, sizeof command, "rm -r %s", folder);
        assert_int_equal(system(command), 0);
}

/* A database with a log beside it that holds a row, as a killed program leaves it. */
static void leave_log(const char *path)
{
        sqlite3_file *file = NULL;
        sqlite3 *db = NULL;
        int persist = 1;

        assert_int_equal(
                sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"),
                SQLITE_OK);
        run(db, "PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)");
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
        sqlite3_file_control(db, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Of one object, without a pause. */
static void *run_hot_thread(void *data)
{
        char path[512];
        sqlite3 *db = NULL;
        Node *node;

        snprintf(path, sizeof path, "%s/hot.sqlite", objects);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(0)");
        node = node_find(world.store, path);
        for (int i = 0; i < N_HOT; i++) {
                uint32_t before = atomic_load(&node->long_log), captured, limit;

                run(db, "UPDATE t SET a = a + 1");
                captured = atomic_load(&node->captured);
                /* It is doubled when the background did not come to it in time, and comes back,
                 * which may both have happened since. */
                limit = atomic_load(&node->long_log);
                limit = 2 * MAX(limit, before);
                if (captured > limit)
                        *(uint32_t *)data = MAX(*(uint32_t *)data, captured - limit);
        }
        node_unref(node);
        assert_int_equal(ask(db, "SELECT a FROM t"), N_HOT);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        pthread_mutex_lock(&wake_mutex);
        n_running--;
        pthread_cond_signal(&wake_cond);
        pthread_mutex_unlock(&wake_mutex);
        return NULL;
}

static void threads_wait_for_a_log_that_is_much_too_long(void **state)
{
        char command[700];
        uint32_t excess = 0;
        pthread_t thread;

        world_stop(&world);
        memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
        assert_non_null(mkdtemp(folder));
        snprintf(objects, sizeof objects, "%s/objects", folder);
        snprintf(journal, sizeof journal, "%s/journal", folder);
        open_real();
        world.store->options.checkpoint_at = 2;
        assert_int_equal(store_start_background(world.store), 0);
        n_running = 1;
        assert_int_equal(pthread_create(&thread, NULL, run_hot_thread, &excess), 0);
        loop_until_done();
        pthread_join(thread, NULL);
        /* No more than what the transaction that began below the limit has written. */
        assert_in_range(excess, 0, 2);
        world_stop(&world);
        snprintf(command, sizeof command, "rm -r %s", folder);
        assert_int_equal(system(command), 0);
}

static void another_programs_log_is_read_into_the_file(void **state)
{
        char path[512], log[520], command[700], place[] = "/tmp/test-store-XXXXXX";
        sqlite3 *db = NULL;
        uint64_t size;

        world_stop(&world);
        assert_non_null(mkdtemp(place));
        snprintf(objects, sizeof objects, "%s/objects", place);
        snprintf(journal, sizeof journal, "%s/journal", place);
        open_real();
        snprintf(path, sizeof path, "%s/o.sqlite", objects);
        snprintf(log, sizeof log, "%s-wal", path);
        leave_log(path);
        assert_int_equal(disk_stat_size(disk_real(), log, &size), 0);
        assert_true(size > 0);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(rows(db), 1);
        assert_int_equal(disk_stat_size(disk_real(), log, &size), -ENOENT);
        run(db, "INSERT INTO t VALUES(2)");
        store_loop_run(world.store);
        disconnect(db);
        world_stop(&world);
        open_real();
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(rows(db), 2);
        assert_true(is_sound(db));
        disconnect(db);
        world_stop(&world);
        snprintf(command, sizeof command, "rm -r %s", place);
        assert_int_equal(system(command), 0);
}

static void a_folder_that_is_gone_is_not_made_anew(void **state)
{
        char path[512], shard[600], away[620], command[700], place[] = "/tmp/test-store-XXXXXX";
        Db *db;

        world_stop(&world);
        assert_non_null(mkdtemp(place));
        snprintf(objects, sizeof objects, "%s/objects", place);
        snprintf(journal, sizeof journal, "%s/journal", place);
        open_real();
        snprintf(shard, sizeof shard, "%s/shop/aa", objects);
        snprintf(away, sizeof away, "%s/shop/away", objects);
        snprintf(path, sizeof path, "%s/shop/aa/aa01.sqlite", objects);
        assert_int_equal(db_open_object(path, SLICE("one"), &db), 0);
        db_close(db);
        /* One that nobody saw is made. */
        snprintf(path, sizeof path, "%s/shop/bb/bb01.sqlite", objects);
        assert_int_equal(db_open_object(path, SLICE("two"), &db), 0);
        db_close(db);
        store_loop_run(world.store);
        assert_int_equal(rename(shard, away), 0);
        snprintf(path, sizeof path, "%s/shop/aa/aa02.sqlite", objects);
        assert_int_equal(db_open_object(path, SLICE("three"), &db), -ENOENT);
        assert_int_not_equal(access(shard, F_OK), 0);
        assert_non_null(strstr(world.log, "shop/aa: this folder is gone"));
        assert_int_equal(rename(away, shard), 0);
        assert_int_equal(db_open_object(path, SLICE("three"), &db), 0);
        db_close(db);
        store_loop_run(world.store);
        world_stop(&world);
        /* The journal knows that there was a folder. */
        snprintf(away, sizeof away, "%s/away", place);
        assert_int_equal(rename(objects, away), 0);
        assert_int_equal(world_try_start(&world), -ENOENT);
        assert_int_not_equal(access(objects, F_OK), 0);
        assert_int_equal(rename(away, objects), 0);
        open_real();
        world_stop(&world);
        snprintf(command, sizeof command, "rm -r %s", place);
        assert_int_equal(system(command), 0);
}

#define TEST(_fn) cmocka_unit_test_setup_teardown(_fn, start, stop)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_waiter_is_called_when_its_lsn_is_durable),
                TEST(a_failed_write_of_the_journal_ends_the_store),
                TEST(segments_go_round_and_are_retired),
                TEST(a_long_reader_does_not_stop_the_journal),
                TEST(an_object_that_commits_all_the_time_is_written_all_the_same),
                TEST(all_logs_together_have_a_limit),
                TEST(closed_objects_do_not_pile_up),
                TEST(many_objects_are_redone_with_few_descriptors),
                TEST(many_objects_are_synced_at_once),
                TEST(draining_leaves_nothing_but_the_files),
                TEST(a_closed_object_is_forgotten_when_it_is_clean),
                TEST(a_deleted_object_is_gone_after_a_crash),
                TEST(the_background_removes_deleted_files),
                TEST(an_object_deleted_and_opened_again_is_new),
                TEST(a_commit_given_up_after_its_capture_is_cancelled),
                TEST(eio_at_each_call_is_never_a_false_success),
                TEST(enospc_at_each_call_is_never_a_false_success),
                TEST(damage_is_told_once_with_the_files_name),
                TEST(logs_that_cannot_go_to_their_files_do_not_fill_the_heap),
                TEST(a_connection_that_is_left_open_can_do_nothing_after_the_end),
                TEST(a_full_disk_stops_writes_alone_and_ends_by_itself),
                TEST(threads_commit_while_the_background_works),
                TEST(threads_wait_for_a_log_that_is_much_too_long),
                TEST(another_programs_log_is_read_into_the_file),
                TEST(a_folder_that_is_gone_is_not_made_anew),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
