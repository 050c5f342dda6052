/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/object/doubles.h"
#include "tests/unit/store/world.h"

#include <errno.h>

/* The registry with a store whose disk is in memory. The clock is the doubles'. */

static const RuntimeClass classes[] = { { "Cart", "shop-cart" } };

typedef struct Test {
        World world;
        FakeRuntime fake;
        Registry *registry;
        sqlite3 *db;
        bool stopped;
} Test;

static Test test;

static void on_stopped(void *data)
{
        test.stopped = true;
}

static int start(void **state)
{
        RegistryOptions options = {
                .runtime = &test.fake.runtime,
                .classes = classes,
                .n_classes = 1,
                .objects_directory = OBJECTS,
                .objects_max = 10,
                .mailbox_max = 3,
        };

        test = (Test){ 0 };
        world_init(&test.world, 5);
        world_start(&test.world);
        fake_runtime_init(&test.fake);
        test.fake.evict_at_once = true;
        options.store = test.world.store;
        return registry_new(&options, &test.registry);
}

static int stop(void **state)
{
        registry_stop(test.registry, on_stopped, NULL);
        fake_run_deferred();
        assert_true(test.stopped);
        registry_free(test.registry);
        fake_reset();
        world_done(&test.world);
        return 0;
}

static Response *fetch(uint8_t object, uint64_t deadline)
{
        RequestParts parts = {
                .method = SLICE("GET"), .path = SLICE("/"), .deadline = deadline, .body_fd = -1
        };
        _cleanup_(request_unref_p) Request *request = NULL;
        ObjectId id = { { object, 0x30 } };
        Response *response;

        assert_int_equal(request_new(&parts, &request), 0);
        assert_int_equal(
                registry_fetch(test.registry, 0, &id, (Slice){ 0 }, request, &response), 0);
        return response;
}

/* Answers of an object that has written nothing pass the gate at once. */
static void check_answered(Response *response)
{
        assert_int_equal(response_get_state(response), RESPONSE_ENDED);
        assert_int_equal(response_get_head(response)->status, 200);
        response_unref(response);
}

static void check_aborted(Response *response, unsigned status)
{
        unsigned after;
        const char *message;

        assert_int_equal(response_get_state(response), RESPONSE_ABORTED);
        assert_int_equal(response_get_abort(response, &after, &message), status);
        response_unref(response);
}

static void fill_journal(void)
{
        int rc;

        test.db = world_connect(&test.world, "ff01");
        run(test.db, "CREATE TABLE t(a)");
        do {
                rc = try_run(test.db, "INSERT INTO t VALUES(hex(randomblob(10000)))");
                store_loop_run(test.world.store);
        } while (rc == SQLITE_OK);
        assert_int_equal(rc, SQLITE_FULL);
}

static void events_wait_for_room_and_go_on_when_there_is_some(void **state)
{
        Response *one, *two, *three;

        fill_journal();
        one = fetch(1, 0);
        two = fetch(1, 0);
        three = fetch(2, 0);
        assert_string_equal(test.fake.log, "");
        world_settle(&test.world);
        assert_string_equal(test.fake.log, "d0 d1");
        fake_finish(&test.fake, 0);
        assert_string_equal(test.fake.log, "d0 d1 d2");
        fake_finish(&test.fake, 1);
        fake_finish(&test.fake, 2);
        check_answered(one);
        check_answered(two);
        check_answered(three);
        disconnect(test.db);
}

static void one_that_waits_long_enough_begins_without(void **state)
{
        Response *one, *two;

        fill_journal();
        one = fetch(1, 0);
        fake_advance(OBJECT_ROOM_WAIT_NS - MS);
        assert_string_equal(test.fake.log, "");
        fake_advance(MS);
        assert_string_equal(test.fake.log, "d0");
        fake_finish(&test.fake, 0);
        check_answered(one);
        /* The next has its own time. */
        two = fetch(1, 0);
        assert_string_equal(test.fake.log, "d0");
        fake_advance(OBJECT_ROOM_WAIT_NS);
        assert_string_equal(test.fake.log, "d0 d1");
        fake_finish(&test.fake, 1);
        check_answered(two);
        disconnect(test.db);
}

static void on_a_full_disk_events_begin_at_once(void **state)
{
        Response *one, *two;

        fill_journal();
        memory_disk_fail(
                test.world.memory, memory_disk_get_calls(test.world.memory) + 1, ENOSPC, true);
        one = fetch(1, 0);
        assert_string_equal(test.fake.log, "");
        assert_int_equal(store_background_step(test.world.store), 0);
        store_loop_flush(test.world.store);
        assert_string_equal(test.fake.log, "d0");
        two = fetch(2, 0);
        assert_string_equal(test.fake.log, "d0 d1");
        fake_finish(&test.fake, 0);
        fake_finish(&test.fake, 1);
        check_answered(one);
        check_answered(two);
        memory_disk_fail(test.world.memory, 0, 0, false);
        disconnect(test.db);
}

static void who_waits_for_room_has_a_deadline_a_limit_and_may_leave(void **state)
{
        Response *late, *kept, *gone, *more;

        fill_journal();
        late = fetch(1, T0 + 100 * MS);
        gone = fetch(1, 0);
        kept = fetch(1, 0);
        more = fetch(1, 0);
        check_aborted(more, 503);
        fake_advance(100 * MS);
        check_aborted(late, 504);
        response_cancel(gone);
        response_unref(gone);
        assert_string_equal(test.fake.log, "");
        world_settle(&test.world);
        assert_string_equal(test.fake.log, "d0");
        fake_finish(&test.fake, 0);
        check_answered(kept);
        disconnect(test.db);
}

static void when_all_have_left_nothing_is_kept(void **state)
{
        RegistryStats stats;
        Response *gone;

        fill_journal();
        gone = fetch(1, 0);
        response_cancel(gone);
        response_unref(gone);
        world_settle(&test.world);
        assert_string_equal(test.fake.log, "");
        registry_get_stats(test.registry, &stats);
        assert_int_equal(stats.queued, 0);
        assert_true(store_has_room(test.world.store));
        disconnect(test.db);
}

#define TEST(_name) cmocka_unit_test_setup_teardown(_name, start, stop)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(events_wait_for_room_and_go_on_when_there_is_some),
                TEST(one_that_waits_long_enough_begins_without),
                TEST(on_a_full_disk_events_begin_at_once),
                TEST(who_waits_for_room_has_a_deadline_a_limit_and_may_leave),
                TEST(when_all_have_left_nothing_is_kept),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
