/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/store-private.h"
#include "tests/unit/store/world.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define SIZE (UINT64_C(64) << 10)

static World world;

/* Who waits. */
typedef struct Guest {
        StoreRoom room;
        int n, *order, turn;
} Guest;

static void on_room(StoreRoom *room)
{
        Guest *guest = CONTAINER_OF(room, Guest, room);

        guest->n++;
        guest->turn = guest->order ? ++*guest->order : 0;
}

static void guest_init(Guest *guest, int *order)
{
        *guest = (Guest){ .order = order };
        store_room_init(&guest->room, on_room);
}

static bool take(Guest *guest, const char *name)
{
        static char paths[8][256];
        static unsigned next;
        char *path = paths[next++ % 8];

        snprintf(path, sizeof paths[0], "%s", object_path(name));
        return store_take_room(world.store, &guest->room, path);
}

static int start(void **state)
{
        world_init(&world, 11);
        world_start(&world);
        return 0;
}

static int stop(void **state)
{
        /* What a failed test has left: there is no thread to join. */
        world.store->has_background = false;
        world_done(&world);
        return 0;
}

static uint64_t get_reserved(void)
{
        return world.store->journal.reserved;
}

/* Commits to the object, each on the disk, until one finds no room; without the background. */
static int write_until_full(sqlite3 *db)
{
        int n = 0;

        for (;;) {
                int rc = try_run(db, "INSERT INTO t VALUES(hex(randomblob(10000)))");

                store_loop_run(world.store);
                if (rc != SQLITE_OK) {
                        assert_int_equal(rc, SQLITE_FULL);
                        return n;
                }
                assert_true(++n < 10000);
        }
}

static void a_room_is_held_used_made_whole_and_given_back(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        Guest guest, other;

        guest_init(&guest, NULL);
        guest_init(&other, NULL);
        assert_true(take(&guest, "aa01"));
        assert_true(take(&other, "bb01"));
        assert_int_equal(get_reserved(), 2 * SIZE);
        run(db, "CREATE TABLE t(a)");
        assert_true(guest.room.left < SIZE);
        assert_int_equal(other.room.left, SIZE);
        assert_int_equal(get_reserved(), SIZE + guest.room.left);
        assert_true(take(&guest, "aa01"));
        assert_int_equal(guest.room.left, SIZE);
        for (int i = 0; i < 20; i++) {
                run(db, "INSERT INTO t VALUES(zeroblob(5000))");
                store_loop_run(world.store);
        }
        assert_int_equal(guest.room.left, 0);
        assert_int_equal(get_reserved(), SIZE);
        store_give_room(world.store, &guest.room);
        store_give_room(world.store, &guest.room);
        store_give_room(world.store, &other.room);
        assert_int_equal(get_reserved(), 0);
        assert_int_equal(guest.n + other.n, 0);
        disconnect(db);
}

static void two_holders_of_one_object_share_nothing(void **state)
{
        Guest guest, other;

        guest_init(&guest, NULL);
        guest_init(&other, NULL);
        assert_true(take(&guest, "aa01"));
        assert_true(take(&other, "aa01"));
        assert_int_equal(get_reserved(), SIZE);
        store_give_room(world.store, &other.room);
        assert_int_equal(get_reserved(), SIZE);
        store_give_room(world.store, &guest.room);
        assert_int_equal(get_reserved(), 0);
}

static void what_is_reserved_is_left_for_its_object(void **state)
{
        sqlite3 *one = world_connect(&world, "aa01"), *two = world_connect(&world, "bb01");
        Guest guest;

        run(one, "CREATE TABLE t(a)");
        run(two, "CREATE TABLE t(a)");
        world_settle(&world);
        guest_init(&guest, NULL);
        assert_true(take(&guest, "aa01"));
        assert_true(write_until_full(two) > 0);
        /* Three commits of some 10 KiB, each with a block of its own. */
        for (int i = 0; i < 3; i++) {
                assert_true(guest.room.left > 16 << 10);
                run(one, "INSERT INTO t VALUES(hex(randomblob(5000)))");
                store_loop_run(world.store);
        }
        assert_int_equal(try_run(two, "INSERT INTO t VALUES(1)"), SQLITE_OK);
        assert_int_equal(try_run(two, "INSERT INTO t VALUES(hex(randomblob(50000)))"), SQLITE_FULL);
        store_give_room(world.store, &guest.room);
        disconnect(one);
        disconnect(two);
}

static void events_wait_in_order_until_a_segment_is_free(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        Guest one, two, three;
        int order = 0;

        run(db, "CREATE TABLE t(a)");
        write_until_full(db);
        guest_init(&one, &order);
        guest_init(&two, &order);
        guest_init(&three, &order);
        assert_false(take(&one, "aa01"));
        assert_false(take(&two, "bb01"));
        assert_false(take(&three, "cc01"));
        store_loop_run(world.store);
        assert_int_equal(order, 0);
        assert_true(store_room_is_waiting(&two.room));
        /* Who gives up is not called. */
        store_give_room(world.store, &two.room);
        assert_false(store_room_is_waiting(&two.room));
        world_settle(&world);
        assert_int_equal(one.turn, 1);
        assert_int_equal(three.turn, 2);
        assert_int_equal(one.n + two.n + three.n, 2);
        assert_int_equal(get_reserved(), 2 * SIZE);
        assert_false(world.store->full);
        store_give_room(world.store, &one.room);
        store_give_room(world.store, &three.room);
        disconnect(db);
}

static void a_long_queue_makes_events_wait_until_it_is_written(void **state)
{
        sqlite3 *db;
        Guest guest;

        world_stop(&world);
        world.options.queue_max = 256 << 10;
        world_start(&world);
        db = world_connect(&world, "aa01");
        run(db, "CREATE TABLE t(a)");
        for (int i = 0; i < 8; i++)
                run(db, "INSERT INTO t VALUES(hex(randomblob(10000)))");
        guest_init(&guest, NULL);
        assert_false(take(&guest, "bb01"));
        /* The background has nothing to do with it, whatever it says. */
        while (store_background_step(world.store) > 0)
                ;
        assert_false(world.store->full);
        assert_int_equal(guest.n, 0);
        store_loop_run(world.store);
        assert_int_equal(guest.n, 1);
        assert_int_equal(guest.room.left, SIZE);
        store_give_room(world.store, &guest.room);
        disconnect(db);
}

/* Nothing can be written to files, and none be made. */
static void break_disk(void)
{
        memory_disk_fail(world.memory, memory_disk_get_calls(world.memory) + 1, ENOSPC, true);
}

static void on_a_full_disk_nobody_waits_and_that_ends_with_room(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        Guest guest, later;
        int64_t n;

        run(db, "CREATE TABLE t(a)");
        n = write_until_full(db);
        guest_init(&guest, NULL);
        guest_init(&later, NULL);
        assert_false(take(&guest, "bb01"));
        break_disk();
        assert_int_equal(store_background_step(world.store), 0);
        /* From the loop alone. */
        assert_int_equal(guest.n, 0);
        store_loop_flush(world.store);
        assert_int_equal(guest.n, 1);
        assert_int_equal(guest.room.left, 0);
        assert_true(take(&later, "cc01"));
        assert_int_equal(get_reserved(), 0);
        assert_int_equal(ask(db, "SELECT count(*) FROM t"), n);
        assert_int_equal(try_run(db, "INSERT INTO t VALUES(hex(randomblob(10000)))"), SQLITE_FULL);
        memory_disk_fail(world.memory, 0, 0, false);
        world_settle(&world);
        assert_false(world.store->full);
        assert_true(take(&later, "cc01"));
        assert_int_equal(later.room.left, SIZE);
        run(db, "INSERT INTO t VALUES(hex(randomblob(10000)))");
        store_loop_run(world.store);
        store_give_room(world.store, &guest.room);
        store_give_room(world.store, &later.room);
        disconnect(db);
}

static void with_two_segments_alone_the_first_is_retired_for_the_next(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        StoreStats stats;

        run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
        world_settle(&world);
        /* The disk has no room for another segment from now on, but for what the files need. */
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.segments_live + stats.segments_free, 2);
        memory_disk_set_max(world.memory, world.options.segment_size - 1);
        for (int i = 0; i < 2000; i++) {
                run(db, "INSERT OR REPLACE INTO t VALUES(1, hex(randomblob(10000)))");
                store_loop_run(world.store);
                while (store_background_step(world.store) > 0)
                        store_loop_run(world.store);
                store_loop_run(world.store);
        }
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.segments_live + stats.segments_free, 2);
        assert_true(stats.retired_segments > 5);
        disconnect(db);
}

static void a_store_that_failed_lets_all_go(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        Guest guest;

        run(db, "CREATE TABLE t(a)");
        write_until_full(db);
        guest_init(&guest, NULL);
        assert_false(take(&guest, "aa01"));
        store_fail(world.store, -EIO, "a test");
        store_loop_flush(world.store);
        assert_int_equal(guest.n, 1);
        assert_true(take(&guest, "aa01"));
        store_give_room(world.store, &guest.room);
        disconnect(db);
}

/*
 * A thread that waits inside of its commit. The order is the test's: the background is stepped by
 * hand, the thread is known to wait before the next thing happens.
 */
typedef struct Writer {
        pthread_t thread;
        sqlite3 *db;
        int rc, size;
} Writer;

static void *run_writer(void *data)
{
        Writer *writer = data;

        char sql[80];

        snprintf(sql, sizeof sql, "INSERT INTO t VALUES(randomblob(%d))", writer->size);
        writer->rc = try_run(writer->db, sql);
        return NULL;
}

static bool somebody_waits(void)
{
        bool waits;

        store_lock(world.store);
        waits = !list_is_empty(&world.store->room_waiters);
        store_unlock(world.store);
        return waits;
}

static void pause_a_moment(void)
{
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

/* A full journal, and a writer who waits. */
static void start_writer(Writer *writer, sqlite3 *db)
{
        *writer = (Writer){ .db = db, .rc = -1, .size = 200000 };
        world.store->has_background = true;
        assert_int_equal(pthread_create(&writer->thread, NULL, run_writer, writer), 0);
        for (int i = 0; !somebody_waits(); i++) {
                assert_true(i < 5000);
                pause_a_moment();
        }
}

static void join_writer(Writer *writer, int rc)
{
        pthread_join(writer->thread, NULL);
        world.store->has_background = false;
        assert_int_equal(writer->rc, rc);
        assert_false(somebody_waits());
}

/* Long enough for a thread that was told to say so. */
static void check_waits(const Writer *writer)
{
        for (int i = 0; i < 10; i++) {
                pause_a_moment();
                assert_true(somebody_waits());
        }
        assert_int_equal(writer->rc, -1);
}

/* All segments that there can be; the file is larger than any of them. */
static sqlite3 *fill_journal(void)
{
        sqlite3 *db = world_connect(&world, "aa01");

        run(db, "CREATE TABLE t(a)");
        do
                write_until_full(db);
        while (journal_prepare_segment(world.store) > 0);
        return db;
}

static void no_more_work(void)
{
        int r;

        while ((r = store_background_step(world.store)) > 0)
                ;
        assert_int_equal(r, 0);
}

static void who_waits_goes_on_when_a_segment_is_retired(void **state)
{
        sqlite3 *db = fill_journal();
        Writer writer;

        start_writer(&writer, db);
        world_settle(&world);
        join_writer(&writer, SQLITE_OK);
        store_loop_run(world.store);
        assert_false(world.store->full);
        disconnect(db);
}

static void who_waits_is_told_after_a_round_of_his_own_alone(void **state)
{
        sqlite3 *db = fill_journal();
        uint64_t work, room;
        Writer writer;

        room = world.store->room_calls;
        start_writer(&writer, db);
        work = world.store->work_calls;
        /* A round that began before he called, and that saw nothing of what he waits for. */
        room_note_stuck(world.store, work, room);
        check_waits(&writer);
        /* One during which there was a call for work: another round will come. */
        room_note_stuck(world.store, work - 1, room + 1);
        check_waits(&writer);
        memory_disk_set_max(world.memory, world.options.segment_size);
        no_more_work();
        join_writer(&writer, SQLITE_FULL);
        assert_true(world.store->full);
        memory_disk_set_max(world.memory, 1 << 30);
        world_settle(&world);
        assert_int_equal(try_run(db, "INSERT INTO t VALUES(1)"), SQLITE_OK);
        disconnect(db);
}

static void who_waits_is_not_told_while_a_write_is_under_way(void **state)
{
        sqlite3 *db = fill_journal(), *other = world_connect(&world, "bb01");
        Writer writer;

        run(other, "CREATE TABLE t(a)");
        memory_disk_hold(world.memory, true);
        store_loop_flush(world.store);
        start_writer(&writer, db);
        memory_disk_set_max(world.memory, world.options.segment_size);
        no_more_work();
        check_waits(&writer);
        assert_false(world.store->full);
        memory_disk_set_max(world.memory, 1 << 30);
        memory_disk_hold(world.memory, false);
        world_settle(&world);
        join_writer(&writer, SQLITE_OK);
        store_loop_run(world.store);
        disconnect(db);
        disconnect(other);
}

/* A commit is durable, and its thread has not come to publish it: in a moment the segment can go.
 */
static void who_waits_is_not_told_while_a_commit_is_about_to_be_published(void **state)
{
        sqlite3 *db = fill_journal();
        uint32_t first;
        Writer writer;
        Node *node;

        start_writer(&writer, db);
        node = node_find(world.store, object_path("aa01"));
        assert_non_null(node);
        node_lock(node);
        first = node->txn_first;
        node->txn_first = node->captured;
        node_unlock(node);
        for (int i = 0; i < 10; i++)
                assert_int_equal(store_background_step(world.store), 0);
        check_waits(&writer);
        assert_false(world.store->full);
        node_lock(node);
        node->txn_first = first;
        node_unlock(node);
        node_unref(node);
        world_settle(&world);
        join_writer(&writer, SQLITE_OK);
        store_loop_run(world.store);
        disconnect(db);
}

/* A page set of its own file, which the disk has no room for: no segment will help. */
static void a_large_commit_does_not_wait_for_a_disk_without_room(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        Writer writer = { .db = db, .rc = -1, .size = 1500000 };

        run(db, "CREATE TABLE t(a)");
        world_settle(&world);
        world.store->has_background = true;
        break_disk();
        assert_int_equal(pthread_create(&writer.thread, NULL, run_writer, &writer), 0);
        join_writer(&writer, SQLITE_FULL);
        memory_disk_fail(world.memory, 0, 0, false);
        disconnect(db);
}

static bool is_there(const char *name)
{
        uint64_t size;

        return disk_stat_size(world.disk, object_path(name), &size) == 0;
}

static void a_full_journal_takes_a_deletion(void **state)
{
        sqlite3 *db = world_connect(&world, "bb01");

        run(db, "CREATE TABLE t(a)");
        disconnect(db);
        world_settle(&world);
        assert_true(is_there("bb01"));
        db = fill_journal();
        assert_int_equal(try_run(db, "INSERT INTO t VALUES(zeroblob(100000))"), SQLITE_FULL);
        assert_int_equal(store_delete(world.store, object_path("bb01")), 0);
        world_settle(&world);
        assert_false(is_there("bb01"));
        disconnect(db);
}

static void start_archive(void)
{
        world_stop(&world);
        world.options.archive = "/state/archive/shop-0";
        world_start(&world);
}

static void an_object_that_is_too_much_for_a_full_disk_is_deleted_with_its_past(void **state)
{
        char bookmark[STORE_BOOKMARK_LEN + 1], undo[STORE_BOOKMARK_LEN + 1];
        sqlite3 *db;

        start_archive();
        db = world_connect(&world, "bb01");
        run(db, "CREATE TABLE t(a)");
        for (int i = 0; i < 30; i++) {
                run(db, "INSERT INTO t VALUES(randomblob(100000))");
                world_settle(&world);
        }
        disconnect(db);
        world_settle(&world);
        assert_int_equal(store_get_bookmark(world.store, object_path("bb01"), bookmark), 0);
        break_disk();
        assert_int_equal(store_delete(world.store, object_path("bb01")), 0);
        assert_non_null(strstr(world.log, "none of its past can be restored"));
        memory_disk_fail(world.memory, 0, 0, false);
        world_settle(&world);
        assert_false(is_there("bb01"));
        assert_int_equal(store_restore(world.store, object_path("bb01"), bookmark,
                                 object_path("bb01"), undo),
                STORE_E_PRUNED);
        world_crash(&world, CRASH_DROP);
        assert_false(is_there("bb01"));
}

static void a_deletion_waits_for_room_to_keep_the_past(void **state)
{
        char bookmark[STORE_BOOKMARK_LEN + 1], undo[STORE_BOOKMARK_LEN + 1];
        sqlite3 *db;
        StoreStats stats;

        start_archive();
        db = world_connect(&world, "bb01");
        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(hex(randomblob(100000)))");
        disconnect(db);
        world_settle(&world);
        assert_int_equal(store_get_bookmark(world.store, object_path("bb01"), bookmark), 0);
        db = fill_journal();
        /* There is none now, and nobody has found that there will be none. */
        assert_int_equal(store_delete(world.store, object_path("bb01")), -ENOSPC);
        world_settle(&world);
        assert_int_equal(store_delete(world.store, object_path("bb01")), 0);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.deletes_untold, 0);
        world_settle(&world);
        assert_false(is_there("bb01"));
        assert_int_equal(store_restore(world.store, object_path("bb01"), bookmark,
                                 object_path("bb01"), undo),
                0);
        disconnect(db);
}

/* Who holds room may wait for who waits. */
static void reservations_do_not_count_when_nobody_makes_room(void **state)
{
        enum { N = 100 };
        static Guest guests[N];
        static char paths[N][64];
        sqlite3 *db = world_connect(&world, "aa01");
        Writer writer;
        int n = 0;

        run(db, "CREATE TABLE t(a)");
        world_settle(&world);
        for (; n < N; n++) {
                guest_init(&guests[n], NULL);
                snprintf(paths[n], sizeof paths[n], "/elsewhere/%d", n);
                if (!store_take_room(world.store, &guests[n].room, paths[n]))
                        break;
        }
        assert_true(n > 20 && n < N);
        start_writer(&writer, db);
        assert_int_equal(store_background_step(world.store), 0);
        join_writer(&writer, SQLITE_OK);
        store_loop_run(world.store);
        assert_int_equal(guests[n].n, 1);
        for (int i = 0; i <= n; i++)
                store_give_room(world.store, &guests[i].room);
        assert_int_equal(get_reserved(), 0);
        disconnect(db);
}

#define TEST(_name) cmocka_unit_test_setup_teardown(_name, start, stop)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_room_is_held_used_made_whole_and_given_back),
                TEST(two_holders_of_one_object_share_nothing),
                TEST(what_is_reserved_is_left_for_its_object),
                TEST(events_wait_in_order_until_a_segment_is_free),
                TEST(a_long_queue_makes_events_wait_until_it_is_written),
                TEST(on_a_full_disk_nobody_waits_and_that_ends_with_room),
                TEST(with_two_segments_alone_the_first_is_retired_for_the_next),
                TEST(a_store_that_failed_lets_all_go),
                TEST(who_waits_goes_on_when_a_segment_is_retired),
                TEST(who_waits_is_told_after_a_round_of_his_own_alone),
                TEST(who_waits_is_not_told_while_a_write_is_under_way),
                TEST(who_waits_is_not_told_while_a_commit_is_about_to_be_published),
                TEST(a_large_commit_does_not_wait_for_a_disk_without_room),
                TEST(a_full_journal_takes_a_deletion),
                TEST(an_object_that_is_too_much_for_a_full_disk_is_deleted_with_its_past),
                TEST(a_deletion_waits_for_room_to_keep_the_past),
                TEST(reservations_do_not_count_when_nobody_makes_room),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
