/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store/world.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Imports, exports of the past, and what is asked without changing anything; on the real disk. */

#define METADATA "CREATE TABLE _cf_METADATA(key TEXT PRIMARY KEY, value)"
#define NAME "SELECT value FROM _cf_METADATA WHERE key = 'name'"
#define WISH "SELECT count(*) FROM _cf_METADATA WHERE key = 'restore'"

static World world;
static char undo[STORE_BOOKMARK_LEN + 1], archive[256], file[256];

static int start(void **state)
{
        world_init_real(&world);
        snprintf(archive, sizeof archive, "%s/archive", world.place);
        snprintf(file, sizeof file, "%s/file.sqlite", world.place);
        world.options.archive = archive;
        world_start(&world);
        return 0;
}

static int stop(void **state)
{
        unlink(file);
        world_done(&world);
        return 0;
}

static sqlite3 *make(const char *name, int n)
{
        sqlite3 *db = world_connect(&world, name);
        char sql[200];

        run(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); " METADATA);
        snprintf(sql, sizeof sql,
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                "INSERT INTO t SELECT i, hex(randomblob(300)) FROM n",
                n);
        run(db, sql);
        snprintf(sql, sizeof sql, "INSERT INTO _cf_METADATA VALUES('name', '%s')", name);
        run(db, sql);
        store_loop_run(world.store);
        return db;
}

static int64_t count(sqlite3 *db)
{
        return ask(db, "SELECT count(*) FROM t");
}

static void an_import_replaces_what_was_there_and_can_be_undone(void **state)
{
        sqlite3 *from = make("aa01", 500), *to = make("bb01", 7);

        run(from, "INSERT INTO _cf_METADATA VALUES('restore', 'wish')");
        store_loop_run(world.store);
        assert_int_equal(store_export(world.store, object_path("aa01"), file), 0);
        assert_int_equal(store_import(world.store, file, object_path("bb01"), undo), 0);
        assert_int_equal(count(to), 500);
        assert_string_equal(ask_text(to, NAME), "bb01");
        assert_int_equal(ask(to, WISH), 0);
        assert_string_equal(ask_text(to, "PRAGMA integrity_check"), "ok");
        assert_int_equal(ask(from, WISH), 1);
        store_loop_run(world.store);
        assert_int_equal(
                store_restore(world.store, object_path("bb01"), undo, object_path("bb01"), undo),
                0);
        assert_int_equal(count(to), 7);
        disconnect(to);
        disconnect(from);
}

static void an_import_makes_an_object_that_was_not_there(void **state)
{
        sqlite3 *from = make("aa01", 50), *to;

        assert_int_equal(store_export(world.store, object_path("aa01"), file), 0);
        assert_int_equal(store_find_object(world.store, object_path("bb01")), -ENOENT);
        assert_int_equal(store_import(world.store, file, object_path("bb01"), undo), 0);
        assert_int_equal(store_find_object(world.store, object_path("bb01")), 0);
        to = world_connect(&world, "bb01");
        assert_int_equal(count(to), 50);
        assert_int_equal(ask(to, "SELECT count(*) FROM _cf_METADATA"), 0);
        disconnect(to);
        disconnect(from);
}

static void what_is_no_sound_database_is_not_imported(void **state)
{
        sqlite3 *from = make("aa01", 500), *to = make("bb01", 7);
        int fd;

        assert_int_equal(store_export(world.store, object_path("aa01"), file), 0);
        fd = open(file, O_WRONLY | O_CLOEXEC);
        for (int page = 2; page < 40; page++)
                assert_int_equal(pwrite(fd, "garbage!", 8, page * 4096), 8);
        close(fd);
        assert_int_equal(
                store_import(world.store, file, object_path("bb01"), undo), STORE_E_CHANGED);
        assert_int_equal(count(to), 7);
        assert_true(store_import(world.store, "/nowhere/file", object_path("bb01"), undo) < 0);
        assert_int_equal(store_import(world.store, file, "/elsewhere", undo), -EINVAL);
        assert_int_equal(count(to), 7);
        disconnect(to);
        disconnect(from);
}

static void an_export_of_the_past_is_what_was_then(void **state)
{
        sqlite3 *db = make("aa01", 50), *other = make("bb01", 3), *copy = NULL;
        char then[STORE_BOOKMARK_LEN + 1], foreign[STORE_BOOKMARK_LEN + 1];
        const char *path = object_path("aa01");

        assert_int_equal(store_get_bookmark(world.store, path, then), 0);
        assert_int_equal(store_get_bookmark(world.store, object_path("bb01"), foreign), 0);
        run(db, "DELETE FROM t WHERE a % 2 = 0; CREATE TABLE u(a)");
        store_loop_run(world.store);
        assert_int_equal(store_export_past(world.store, path, foreign, file), STORE_E_BOOKMARK);
        assert_int_equal(access(file, F_OK), -1);
        assert_int_equal(store_export_past(world.store, path, then, file), 0);
        assert_int_equal(store_export_past(world.store, path, then, file), -EEXIST);
        assert_int_equal(sqlite3_open_v2(file, &copy, SQLITE_OPEN_READONLY, "unix"), SQLITE_OK);
        assert_int_equal(count(copy), 50);
        assert_int_equal(ask(copy, "SELECT count(*) FROM sqlite_schema WHERE name = 'u'"), 0);
        sqlite3_close(copy);
        assert_int_equal(count(db), 25);
        disconnect(other);
        disconnect(db);
}

static void a_restore_leaves_no_wish_behind(void **state)
{
        sqlite3 *db = make("aa01", 5);
        char then[STORE_BOOKMARK_LEN + 1];
        const char *path = object_path("aa01");

        run(db, "INSERT INTO _cf_METADATA VALUES('restore', 'wish')");
        store_loop_run(world.store);
        assert_int_equal(store_get_bookmark(world.store, path, then), 0);
        run(db, "DELETE FROM t");
        store_loop_run(world.store);
        assert_int_equal(store_restore(world.store, path, then, path, undo), 0);
        assert_int_equal(count(db), 5);
        assert_int_equal(ask(db, WISH), 0);
        assert_string_equal(ask_text(db, NAME), "aa01");
        disconnect(db);
}

static void asking_for_an_object_makes_none(void **state)
{
        const char *path = object_path("aa01");
        sqlite3 *db;

        assert_int_equal(store_find_object(world.store, path), -ENOENT);
        assert_int_equal(access(path, F_OK), -1);
        db = make("aa01", 5);
        assert_int_equal(store_find_object(world.store, path), 0);
        disconnect(db);
        world_settle(&world);
        assert_int_equal(store_find_object(world.store, path), 0);
        assert_int_equal(store_delete(world.store, path), 0);
        assert_int_equal(store_find_object(world.store, path), -ENOENT);
        world_settle(&world);
        assert_int_equal(store_find_object(world.store, path), -ENOENT);
}

static void a_bookmark_is_judged_without_looking_at_the_disk(void **state)
{
        sqlite3 *db = make("aa01", 5), *other = make("bb01", 5);
        char mark[STORE_BOOKMARK_LEN + 1];
        const char *path = object_path("aa01");

        assert_int_equal(store_get_bookmark(world.store, path, mark), 0);
        assert_int_equal(store_check_bookmark(world.store, path, mark), 0);
        assert_int_equal(
                store_check_bookmark(world.store, object_path("bb01"), mark), STORE_E_BOOKMARK);
        assert_int_equal(store_check_bookmark(world.store, path, "mark"), STORE_E_BOOKMARK);
        assert_int_equal(store_check_bookmark(world.store, "/elsewhere", mark), -EINVAL);
        memset(mark, 'f', 8);
        assert_int_equal(store_check_bookmark(world.store, path, mark), STORE_E_FUTURE);
        disconnect(other);
        disconnect(db);
}

#define REAL(_function) cmocka_unit_test_setup_teardown(_function, start, stop)

int main(void)
{
        const struct CMUnitTest tests[] = {
                REAL(an_import_replaces_what_was_there_and_can_be_undone),
                REAL(an_import_makes_an_object_that_was_not_there),
                REAL(what_is_no_sound_database_is_not_imported),
                REAL(an_export_of_the_past_is_what_was_then),
                REAL(a_restore_leaves_no_wish_behind),
                REAL(asking_for_an_object_makes_none),
                REAL(a_bookmark_is_judged_without_looking_at_the_disk),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
