/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store/world.h"

#include <errno.h>
#include <string.h>

/* Bookmarks, snapshots and exports, each test on the disk in memory and on the real one. */

static World world;
static char mark[STORE_BOOKMARK_LEN + 1], undo[STORE_BOOKMARK_LEN + 1];

static int start_memory(void **state)
{
        world_init(&world, 5);
        world_start(&world);
        return 0;
}

static int start_real(void **state)
{
        world_init_real(&world);
        world_start(&world);
        return 0;
}

static int stop(void **state)
{
        world_done(&world);
        return 0;
}

static sqlite3 *make(const char *name, int n)
{
        sqlite3 *db = world_connect(&world, name);
        char sql[256];

        run(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b)");
        snprintf(sql, sizeof sql,
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                "INSERT INTO t SELECT i, i || hex(randomblob(100)) FROM n",
                n);
        run(db, sql);
        store_loop_run(world.store);
        return db;
}

static int64_t sum(sqlite3 *db)
{
        return ask(db, "SELECT count(*) * 1000000 + coalesce(sum(length(b)), 0) FROM t");
}

static int copy(const char *from, const char *to)
{
        return store_restore(world.store, object_path(from), NULL, object_path(to), undo);
}

static void a_bookmark_is_as_long_as_it_says_and_of_one_object(void **state)
{
        sqlite3 *db = make("aa01", 3);
        char first[STORE_BOOKMARK_LEN + 1], other[STORE_BOOKMARK_LEN + 1];

        assert_int_equal(store_get_bookmark(world.store, object_path("aa01"), first), 0);
        assert_int_equal(strlen(first), STORE_BOOKMARK_LEN);
        assert_int_equal(strspn(first, "0123456789abcdef-"), STORE_BOOKMARK_LEN);
        assert_int_equal(store_get_bookmark(world.store, object_path("ab02"), other), 0);
        assert_string_not_equal(first + 27, other + 27);
        assert_int_equal(
                store_restore(world.store, object_path("aa01"), other, object_path("aa01"), undo),
                STORE_E_BOOKMARK);
        assert_int_equal(store_get_bookmark(world.store, "/elsewhere", other), -EINVAL);
        disconnect(db);
}

static void later_bookmarks_sort_behind_earlier_ones(void **state)
{
        sqlite3 *db = make("aa01", 3);
        char before[STORE_BOOKMARK_LEN + 1];

        for (int i = 0; i < 100; i++) {
                assert_int_equal(store_get_bookmark(world.store, object_path("aa01"), before), 0);
                run(db, "INSERT INTO t VALUES(NULL, 1)");
                if (i % 7 == 0)
                        world_settle(&world);
                assert_int_equal(store_get_bookmark(world.store, object_path("aa01"), mark), 0);
                assert_true(strcmp(before, mark) < 0);
        }
        disconnect(db);
}

static void any_other_text_is_no_bookmark(void **state)
{
        sqlite3 *db = make("aa01", 3);
        const char *path = object_path("aa01");
        char text[STORE_BOOKMARK_LEN + 3];

        assert_int_equal(store_get_bookmark(world.store, path, mark), 0);
        for (size_t i = 0; i <= STORE_BOOKMARK_LEN; i++) {
                memcpy(text, mark, sizeof mark);
                text[i] = 'G';
                text[STORE_BOOKMARK_LEN + 1] = '\0';
                assert_int_equal(
                        store_restore(world.store, path, text, path, undo), STORE_E_BOOKMARK);
                memcpy(text, mark, sizeof mark);
                text[i] = '\0';
                if (i < STORE_BOOKMARK_LEN)
                        assert_int_equal(store_restore(world.store, path, text, path, undo),
                                STORE_E_BOOKMARK);
        }
        memcpy(text, mark, sizeof mark);
        memset(text, 'f', 8);
        assert_int_equal(store_restore(world.store, path, text, path, undo), STORE_E_FUTURE);
        disconnect(db);
}

static void a_snapshot_is_the_other_object_as_it_is_now(void **state)
{
        sqlite3 *db = make("aa01", 500), *other;
        int64_t want = sum(db);

        world_settle(&world);
        run(db, "UPDATE t SET b = b || 'x' WHERE a % 7 = 0");
        store_loop_run(world.store);
        want = sum(db);
        assert_int_equal(copy("aa01", "bb01"), 0);
        other = world_connect(&world, "bb01");
        assert_int_equal(sum(other), want);
        assert_true(is_sound(other));
        run(other, "DELETE FROM t");
        assert_int_equal(sum(db), want);
        disconnect(other);
        disconnect(db);
        if (world.memory) {
                store_loop_run(world.store);
                world_crash(&world, CRASH_DROP);
        } else {
                world_settle(&world);
                world_stop(&world);
                world_start(&world);
        }
        other = world_connect(&world, "bb01");
        assert_int_equal(sum(other), 0);
        assert_true(is_sound(other));
        disconnect(other);
}

static void a_snapshot_replaces_what_was_there_under_open_connections(void **state)
{
        sqlite3 *db = make("aa01", 50), *other = make("bb01", 2000);
        sqlite3 *second = world_connect(&world, "bb01");
        sqlite3_stmt *statement = NULL;
        int64_t want = sum(db);

        assert_int_equal(sqlite3_prepare_v2(second, "SELECT count(*) FROM t", -1, &statement, NULL),
                SQLITE_OK);
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        assert_int_equal(sqlite3_column_int(statement, 0), 2000);
        /* A reader that goes on sees what it saw. */
        run(other, "BEGIN");
        assert_int_equal(ask(other, "SELECT count(*) FROM t"), 2000);
        assert_int_equal(sqlite3_reset(statement), SQLITE_OK);
        assert_int_equal(copy("aa01", "bb01"), 0);
        assert_int_equal(ask(other, "SELECT count(*) FROM t"), 2000);
        run(other, "COMMIT");
        assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
        assert_int_equal(sqlite3_column_int(statement, 0), 50);
        sqlite3_finalize(statement);
        assert_int_equal(sum(other), want);
        run(other, "INSERT INTO t VALUES(NULL, 'more')");
        assert_int_equal(ask(second, "SELECT count(*) FROM t"), 51);
        assert_true(is_sound(second));
        disconnect(second);
        disconnect(other);
        disconnect(db);
}

static void a_destination_that_is_being_written_is_busy(void **state)
{
        sqlite3 *db = make("aa01", 50), *other = make("bb01", 7);

        run(other, "BEGIN IMMEDIATE; DELETE FROM t");
        assert_int_equal(copy("aa01", "bb01"), -EBUSY);
        run(other, "ROLLBACK");
        assert_int_equal(ask(other, "SELECT count(*) FROM t"), 7);
        assert_int_equal(copy("aa01", "bb01"), 0);
        assert_int_equal(ask(other, "SELECT count(*) FROM t"), 50);
        disconnect(other);
        disconnect(db);
}

static void a_snapshot_keeps_the_destinations_own_name(void **state)
{
        static const char name[] = "SELECT value FROM _cf_METADATA WHERE key = 'name'";
        static const char set[] = "CREATE TABLE _cf_METADATA(key TEXT PRIMARY KEY, value)";
        sqlite3 *db = make("aa01", 5), *other = make("bb01", 5), *third;

        run(db, set);
        run(db, "INSERT INTO _cf_METADATA VALUES('name', 'one'), ('k', 'v')");
        run(other, set);
        run(other, "INSERT INTO _cf_METADATA VALUES('name', 'two')");
        assert_int_equal(copy("aa01", "bb01"), 0);
        assert_string_equal(ask_text(other, name), "two");
        assert_int_equal(ask(other, "SELECT count(*) FROM _cf_METADATA"), 2);
        assert_true(is_sound(other));
        assert_int_equal(copy("aa01", "cc01"), 0);
        third = world_connect(&world, "cc01");
        assert_int_equal(ask(third, "SELECT count(*) FROM _cf_METADATA"), 1);
        run(db, "DROP TABLE _cf_METADATA");
        assert_int_equal(copy("aa01", "bb01"), 0);
        assert_string_equal(ask_text(other, name), "two");
        disconnect(third);
        disconnect(other);
        disconnect(db);
}

static void what_is_not_there_cannot_be_copied(void **state)
{
        assert_int_equal(copy("aa01", "bb01"), -ENOENT);
        assert_int_equal(
                store_restore(world.store, "/no/object", NULL, object_path("aa01"), undo), -EINVAL);
        assert_int_equal(store_export(world.store, object_path("aa01"), "/tmp/none"), -ENOENT);
}

static void a_thread_that_works_for_an_object_may_copy_it_to_another(void **state)
{
        sqlite3 *db = make("aa01", 50), *other = NULL;

        assert_int_equal(store_set_current(world.store, object_path("aa01")), 0);
        assert_int_equal(copy("aa01", "bb01"), 0);
        assert_int_not_equal(sqlite3_open(object_path("bb01"), &other), SQLITE_OK);
        sqlite3_close(other);
        assert_int_equal(store_set_current(world.store, NULL), 0);
        disconnect(db);
}

static void a_large_object_goes_through_the_scratch_file(void **state)
{
        sqlite3 *db = make("aa01", 10), *other;

        run(db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
                "INSERT INTO t SELECT NULL, randomblob(70000) FROM n");
        world_settle(&world);
        run(db, "UPDATE t SET b = randomblob(200) WHERE a % 9 = 0");
        store_loop_run(world.store);
        assert_true(ask(db, "PRAGMA page_count") * 4096 > 64 << 20);
        assert_int_equal(copy("aa01", "bb01"), 0);
        world_settle(&world);
        other = world_connect(&world, "bb01");
        assert_int_equal(sum(other), sum(db));
        assert_string_equal(ask_text(other, "PRAGMA quick_check"), "ok");
        disconnect(other);
        disconnect(db);
}

static void see_scratch(const char *name, int *n)
{
        *n += strncmp(name, "restore-", 8) == 0;
}

static int count_scratch(const char *name, void *data)
{
        see_scratch(name, data);
        return 0;
}

static void scratch_files_are_removed(void **state)
{
        sqlite3 *db = make("aa01", 10);
        DiskFile *file;
        char path[256];
        int n = 0;

        assert_int_equal(copy("aa01", "bb01"), 0);
        assert_int_equal(disk_list(world.disk, world.journal, count_scratch, &n), 0);
        assert_int_equal(n, 0);
        disconnect(db);
        world_settle(&world);
        snprintf(path, sizeof path, "%s/restore-00000000000000aa", world.journal);
        assert_int_equal(disk_open(world.disk, path, DISK_CREATE, &file), 0);
        disk_close(file);
        assert_int_equal(disk_list(world.disk, world.journal, count_scratch, &n), 0);
        assert_int_equal(n, 1);
        world_stop(&world);
        world_start(&world);
        n = 0;
        assert_int_equal(disk_list(world.disk, world.journal, count_scratch, &n), 0);
        assert_int_equal(n, 0);
}

static int read_all(const char *path, unsigned char *out, size_t room, size_t *ret)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        int r = disk_open(world.disk, path, DISK_READ_ONLY, &file);

        return r ?: disk_read(file, out, room, 0, ret);
}

static void an_export_is_an_ordinary_database(void **state)
{
        static unsigned char bytes[4 << 20];
        sqlite3 *db = make("aa01", 900), *exported = NULL;
        char to[256], plain[] = "/tmp/test-export-XXXXXX";
        size_t len;
        int fd;

        world_settle(&world);
        run(db, "DELETE FROM t WHERE a % 3 = 0");
        store_loop_run(world.store);
        snprintf(to, sizeof to, "%s/copy.sqlite", world.journal);
        assert_int_equal(store_export(world.store, object_path("aa01"), to), 0);
        assert_int_equal(store_export(world.store, object_path("aa01"), to), -EEXIST);
        assert_int_equal(read_all(to, bytes, sizeof bytes, &len), 0);
        assert_int_equal(bytes[18], 1);
        assert_int_equal(bytes[19], 1);
        fd = mkstemp(plain);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, bytes, len), len);
        close(fd);
        assert_int_equal(
                sqlite3_open_v2(plain, &exported, SQLITE_OPEN_READONLY, "unix"), SQLITE_OK);
        assert_int_equal(sum(exported), sum(db));
        assert_true(is_sound(exported));
        assert_string_equal(ask_text(exported, "PRAGMA journal_mode"), "delete");
        sqlite3_close(exported);
        unlink(plain);
        disk_unlink(world.disk, to);
        disconnect(db);
}

static void an_export_that_fails_leaves_nothing(void **state)
{
        sqlite3 *db = make("aa01", 900);
        char to[256];
        uint64_t size;
        int n = 0;

        snprintf(to, sizeof to, "%s/copy.sqlite", world.journal);
        for (;; n++) {
                int r;

                memory_disk_fail(
                        world.memory, memory_disk_get_calls(world.memory) + 1 + n, ENOSPC, false);
                r = store_export(world.store, object_path("aa01"), to);
                memory_disk_fail(world.memory, 0, 0, false);
                if (r == 0)
                        break;
                assert_int_equal(r, -ENOSPC);
                assert_int_equal(disk_stat_size(world.disk, to, &size), -ENOENT);
        }
        assert_true(n > 10);
        disconnect(db);
}

static void an_error_at_each_call_leaves_the_destination_whole(void **state)
{
        sqlite3 *db = make("aa01", 60), *other = make("bb01", 20);
        int64_t old = sum(other), new = sum(db);
        int n = 0;

        world_settle(&world);
        for (;; n++) {
                int r;

                memory_disk_fail(
                        world.memory, memory_disk_get_calls(world.memory) + 1 + n, ENOSPC, false);
                r = copy("aa01", "bb01");
                memory_disk_fail(world.memory, 0, 0, false);
                if (r == 0)
                        break;
                assert_int_equal(r, -ENOSPC);
                assert_int_equal(sum(other), old);
                assert_true(is_sound(other));
        }
        assert_true(n > 5);
        assert_int_equal(sum(other), new);
        disconnect(other);
        disconnect(db);
}

static const DiskOps *real_ops;
static DiskOps ops;
static DiskFile *scratch; /* as SQLite has it */
static bool reads_fail;

static int open_noting(Disk *disk, const char *path, unsigned flags, DiskFile **ret)
{
        int r = real_ops->open(disk, path, flags, ret);

        if (!r && strstr(path, "/restore-") && !(flags & DISK_CREATE))
                scratch = *ret;
        return r;
}

static int read_failing(DiskFile *file, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        if (reads_fail && file == scratch && offset >= 8192)
                return -EIO;
        return real_ops->read(file, data, len, offset, ret_len);
}

static void what_cannot_be_read_is_no_damage(void **state)
{
        sqlite3 *db;

        real_ops = world.disk->ops;
        ops = *real_ops;
        ops.open = open_noting;
        ops.read = read_failing;
        world.disk->ops = &ops;
        db = make("aa01", 60);
        world_settle(&world);
        reads_fail = true;
        assert_int_equal(copy("aa01", "bb01"), -EIO);
        assert_non_null(scratch);
        assert_non_null(strstr(world.log, "cannot be read to check it: Input/output error"));
        assert_null(strstr(world.log, "no sound database"));
        reads_fail = false;
        assert_int_equal(copy("aa01", "bb01"), 0);
        disconnect(db);
}

static void a_page_size_other_than_the_destinations_is_refused(void **state)
{
        char command[512];
        sqlite3 *db, *other;

        /* Such an object is brought from elsewhere. */
        world_stop(&world);
        snprintf(command, sizeof command, "mkdir -p %s/shop-cart/aa %s/shop-cart/bb", world.objects,
                world.objects);
        assert_int_equal(system(command), 0);
        assert_int_equal(sqlite3_open_v2(object_path("aa01"), &db,
                                 SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"),
                SQLITE_OK);
        run(db, "PRAGMA page_size = 8192; CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 2)");
        sqlite3_close(db);
        world_start(&world);
        db = world_connect(&world, "aa01");
        run(db, "INSERT INTO t VALUES(3, 4)");
        other = make("bb01", 5);
        assert_int_equal(copy("aa01", "bb01"), STORE_E_PAGE_SIZE);
        assert_int_equal(copy("bb01", "aa01"), STORE_E_PAGE_SIZE);
        assert_int_equal(ask(other, "SELECT count(*) FROM t"), 5);
        assert_int_equal(copy("aa01", "cc01"), 0);
        disconnect(other);
        disconnect(db);
        world_settle(&world);
        world_stop(&world);
        world_start(&world);
        other = world_connect(&world, "cc01");
        assert_int_equal(ask(other, "PRAGMA page_size"), 8192);
        assert_int_equal(ask(other, "SELECT count(*) FROM t"), 2);
        run(other, "INSERT INTO t VALUES(5, 6)");
        assert_true(is_sound(other));
        disconnect(other);
}

static void a_damaged_object_is_not_copied(void **state)
{
        sqlite3 *db = make("aa01", 900), *other = make("bb01", 4);
        unsigned char *bytes;
        size_t size;

        world_settle(&world);
        disconnect(db);
        world_settle(&world);
        bytes = memory_disk_find(world.memory, object_path("aa01"), &size);
        memset(bytes + 3 * 4096, 0x55, 4096);
        assert_int_equal(copy("aa01", "bb01"), STORE_E_CHANGED);
        assert_non_null(strstr(world.log, "shop-cart/aa/aa01.sqlite: what is to be restored"));
        assert_int_equal(ask(other, "SELECT count(*) FROM t"), 4);
        disconnect(other);
}

static void add_one(sqlite3_context *context, int n, sqlite3_value **values)
{
        sqlite3_result_int(context, sqlite3_value_int(values[0]) + 1);
}

static int compare_texts(void *data, int n_a, const void *a, int n_b, const void *b)
{
        int order = memcmp(a, b, (size_t)MIN(n_a, n_b));

        return order ? order : n_a - n_b;
}

/* As Django brings functions for its lookups: they stand in constraints and indexes. */
static void what_only_the_app_can_compute_is_copied_unchecked(void **state)
{
        static const char *const schemas[] = {
                "CREATE TABLE t(a INTEGER PRIMARY KEY, b, CHECK (plus(a) > 0))",
                "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(plus(a))",
                "CREATE TABLE t(a INTEGER PRIMARY KEY, b GENERATED ALWAYS AS (plus(a)) STORED)",
                "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT COLLATE mine UNIQUE)",
                "CREATE TABLE t(a INTEGER PRIMARY KEY, b AS (plus(a)) NOT NULL)",
        };
        static const char *const names[] = { "aa01", "ab01", "ac01", "ad01", "ae01" };

        for (size_t i = 0; i < ELEMENTSOF(schemas); i++) {
                sqlite3 *db = world_connect(&world, names[i]), *other;

                sqlite3_create_function(db, "plus", 1,
                        SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, NULL, add_one, NULL,
                        NULL);
                sqlite3_create_collation(db, "mine", SQLITE_UTF8, NULL, compare_texts);
                run(db, schemas[i]);
                run(db, "INSERT INTO t(a) VALUES(1), (2)");
                store_loop_run(world.store);
                assert_int_equal(copy(names[i], "bb01"), 0);
                disconnect(db);
                other = world_connect(&world, "bb01");
                assert_int_equal(ask(other, "SELECT sum(a) FROM t"), 3);
                disconnect(other);
        }
}

static void the_rest_of_such_an_object_is_checked(void **state)
{
        sqlite3 *db = make("aa01", 900), *other = make("bb01", 4);
        unsigned char *bytes;
        size_t size;

        sqlite3_create_collation(db, "mine", SQLITE_UTF8, NULL, compare_texts);
        run(db, "CREATE TABLE u(a TEXT COLLATE mine UNIQUE)");
        world_settle(&world);
        disconnect(db);
        world_settle(&world);
        assert_int_equal(copy("aa01", "cc01"), 0);
        bytes = memory_disk_find(world.memory, object_path("aa01"), &size);
        memset(bytes + 3 * 4096, 0x55, 4096);
        assert_int_equal(copy("aa01", "bb01"), STORE_E_CHANGED);
        assert_int_equal(ask(other, "SELECT count(*) FROM t"), 4);
        disconnect(other);
}

#define MEMORY(_fn) cmocka_unit_test_setup_teardown(_fn, start_memory, stop)
#define BOTH(_fn)                                             \
        { #_fn "_in_memory", _fn, start_memory, stop, NULL }, \
        {                                                     \
#_fn "_on_disk", _fn, start_real, stop, NULL  \
        }

int main(void)
{
        const struct CMUnitTest tests[] = {
                MEMORY(a_bookmark_is_as_long_as_it_says_and_of_one_object),
                MEMORY(later_bookmarks_sort_behind_earlier_ones),
                MEMORY(any_other_text_is_no_bookmark),
                BOTH(a_snapshot_is_the_other_object_as_it_is_now),
                BOTH(a_snapshot_replaces_what_was_there_under_open_connections),
                BOTH(a_destination_that_is_being_written_is_busy),
                BOTH(a_snapshot_keeps_the_destinations_own_name),
                BOTH(what_is_not_there_cannot_be_copied),
                BOTH(a_thread_that_works_for_an_object_may_copy_it_to_another),
                MEMORY(a_large_object_goes_through_the_scratch_file),
                BOTH(scratch_files_are_removed),
                BOTH(an_export_is_an_ordinary_database),
                MEMORY(an_export_that_fails_leaves_nothing),
                MEMORY(an_error_at_each_call_leaves_the_destination_whole),
                { "a_page_size_other_than_the_destinations_is_refused",
                        a_page_size_other_than_the_destinations_is_refused, start_real, stop,
                        NULL },
                MEMORY(a_damaged_object_is_not_copied),
                MEMORY(what_cannot_be_read_is_no_damage),
                MEMORY(what_only_the_app_can_compute_is_copied_unchecked),
                MEMORY(the_rest_of_such_an_object_is_checked),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
