/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/db.h"

#include "lib/base/file.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char folder[64];

static int make_folder(void **state)
{
        strcpy(folder, "/tmp/durabled-db-XXXXXX");
        return mkdtemp(folder) ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        return remove(path);
}

static int remove_folder(void **state)
{
        return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static char *object_path(const char *id)
{
        char *path = db_object_path(folder, "shop-Cart", id);

        assert_non_null(path);
        return path;
}

static Db *open_object(const char *path, Slice name)
{
        Db *db = NULL;

        assert_int_equal(db_open_object(path, name, &db), 0);
        return db;
}

static void run(Db *db, const char *sql)
{
        int r = db_run(db, sql, NULL, 0, NULL, NULL);

        if (r)
                fail_msg("%s: %d: %s", sql, r, db_get_error(db));
}

static int take_text(const DbValue *values, size_t n, void *data)
{
        snprintf(data, 64, "%.*s", SLICE_FMT(values[0].bytes));
        return 0;
}

static int take_integer(const DbValue *values, size_t n, void *data)
{
        assert_int_equal(values[0].type, DB_INTEGER);
        *(int64_t *)data = values[0].integer;
        return 0;
}

static int64_t ask(Db *db, const char *sql)
{
        int64_t value = -1;

        assert_int_equal(db_run(db, sql, NULL, 0, take_integer, &value), 0);
        return value;
}

static void assert_text(Db *db, const char *sql, const char *expected)
{
        char text[64] = "(no row)";

        assert_int_equal(db_run(db, sql, NULL, 0, take_text, text), 0);
        assert_string_equal(text, expected);
}

static void an_object_has_a_file_of_its_own_in_wal_mode_with_its_name(void **state)
{
        _cleanup_(free_p) char *path = object_path("abcd");
        char expected[128];
        Db *db;

        snprintf(expected, sizeof expected, "%s/shop-Cart/ab/abcd.sqlite", folder);
        assert_string_equal(path, expected);
        db = open_object(path, SLICE("alice"));
        assert_text(db, "PRAGMA journal_mode", "wal");
        assert_int_equal(ask(db, "PRAGMA synchronous"), 2);
        assert_int_equal(ask(db, "PRAGMA page_size"), 4096);
        assert_int_equal(ask(db, "PRAGMA foreign_keys"), 0);
        assert_text(db, "SELECT value FROM _cf_METADATA WHERE key = 'name'", "alice");
        db_close(db);
        db = open_object(path, SLICE("alice"));
        assert_int_equal(ask(db, "SELECT count(*) FROM _cf_METADATA"), 1);
        db_close(db);
}

static void a_name_is_kept_from_the_first_time_it_is_known(void **state)
{
        _cleanup_(free_p) char *path = object_path("bbbb");
        Db *db = open_object(path, (Slice){}), *other = NULL;

        assert_int_equal(ask(db, "SELECT count(*) FROM _cf_METADATA"), 0);
        db_close(db);
        db_close(open_object(path, SLICE("bob")));
        db = open_object(path, (Slice){});
        assert_text(db, "SELECT value FROM _cf_METADATA WHERE key = 'name'", "bob");
        db_close(db);
        assert_int_equal(db_open_object(path, SLICE("eve"), &other), -EUCLEAN);
        assert_null(other);
        db_close(open_object(path, SLICE("bob")));
}

static void a_file_that_is_no_database_stays_as_it_is(void **state)
{
        _cleanup_(free_p) char *path = object_path("cccc");
        Buf buf = BUF_INIT(0);
        Db *db = NULL;
        char text[5000];

        memset(text, 'x', sizeof text);
        db_close(open_object(path, (Slice){}));
        assert_int_equal(file_write_atomic(path, slice_of(text, sizeof text), 0600), 0);
        assert_int_equal(db_open_object(path, SLICE("carol"), &db), -EUCLEAN);
        assert_null(db);
        assert_int_equal(file_read(path, 10000, &buf), 0);
        assert_true(slice_equal(buf_slice(&buf), slice_of(text, sizeof text)));
        buf_done(&buf);
}

static void a_creation_that_fails_leaves_no_file(void **state)
{
        _cleanup_(free_p) char *path = object_path("dddd");
        struct rlimit before, limit;
        Db *db = NULL;
        int r;

        signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
        limit = before;
        limit.rlim_cur = 6000;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        r = db_open_object(path, SLICE("dave"), &db);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_true(r < 0);
        assert_null(db);
        assert_int_equal(access(path, F_OK), -1);
        db_close(open_object(path, SLICE("dave")));
}

static void a_folder_that_cannot_be_made_is_an_error(void **state)
{
        _cleanup_(free_p) char *file = path_join(folder, "plain"), *path = NULL;
        Db *db = NULL;

        assert_int_equal(file_write_atomic(file, SLICE("x"), 0600), 0);
        path = db_object_path(file, "shop-Cart", "abcd");
        assert_int_equal(db_open_object(path, (Slice){}, &db), -ENOTDIR);
        assert_null(db);
}

static int compare_values(const DbValue *values, size_t n, void *data)
{
        const DbValue *expected = data;

        for (size_t i = 0; i < n; i++) {
                assert_int_equal(values[i].type, expected[i].type);
                assert_true(values[i].integer == expected[i].integer);
                assert_true(slice_equal(values[i].bytes, expected[i].bytes));
        }
        return 77;
}

static void values_come_back_as_they_went(void **state)
{
        _cleanup_(free_p) char *path = object_path("eeee");
        Db *db = open_object(path, (Slice){});
        DbValue values[] = {
                DB_INT(INT64_MIN),
                DB_INT(0),
                DB_STR(SLICE("a\0b")),
                DB_STR(((Slice){})),
                { .type = DB_BLOB, .bytes = SLICE("\0\xff") },
                { .type = DB_BLOB },
                { .type = DB_NULL },
        };

        run(db, "CREATE TABLE t(a, b, c, d, e, f, g)");
        assert_int_equal(db_run(db, "INSERT INTO t VALUES(?, ?, ?, ?, ?, ?, ?)", values,
                                 ELEMENTSOF(values), NULL, NULL),
                0);
        /* What the callback returns stops the statement and is returned. */
        assert_int_equal(db_run(db, "SELECT t.* FROM t, (SELECT 1 UNION SELECT 2)", NULL, 0,
                                 compare_values, values),
                77);
        assert_text(db, "SELECT 1.5", "1.5");
        db_close(db);
}

static void what_is_not_one_statement_with_its_values_is_refused(void **state)
{
        _cleanup_(free_p) char *path = object_path("ffff");
        Db *db = open_object(path, (Slice){});
        DbValue value = DB_INT(1);

        assert_int_equal(db_run(db, "SELECT 1; SELECT 2", NULL, 0, NULL, NULL), -EINVAL);
        assert_int_equal(db_run(db, "", NULL, 0, NULL, NULL), -EINVAL);
        assert_int_equal(db_run(db, "SELECT ?", NULL, 0, NULL, NULL), -EINVAL);
        assert_int_equal(db_run(db, "SELECT 1", &value, 1, NULL, NULL), -EINVAL);
        assert_int_equal(db_run(db, "SELEKT", NULL, 0, NULL, NULL), -EINVAL);
        assert_non_null(strstr(db_get_error(db), "SELEKT"));
        run(db, "SELECT 1; \n");
        db_close(db);
}

static void errors_are_told_apart(void **state)
{
        _cleanup_(free_p) char *path = object_path("0000");
        Db *db = open_object(path, (Slice){}), *other = open_object(path, (Slice){});

        run(db, "CREATE TABLE t(a PRIMARY KEY)");
        run(db, "INSERT INTO t VALUES(1)");
        assert_int_equal(db_run(db, "INSERT INTO t VALUES(1)", NULL, 0, NULL, NULL), -EEXIST);
        run(other, "PRAGMA busy_timeout = 10");
        assert_int_equal(db_begin(db), 0);
        assert_int_equal(db_begin(other), -EBUSY);
        db_rollback(other);
        db_rollback(db);
        assert_int_equal(db_begin(other), 0);
        assert_int_equal(db_commit(other), 0);
        assert_int_equal(db_commit(other), -EINVAL);
        run(db, "PRAGMA max_page_count = 10");
        assert_int_equal(
                db_run(db, "INSERT INTO t VALUES(zeroblob(100000))", NULL, 0, NULL, NULL), -ENOSPC);
        assert_int_equal(ask(db, "SELECT count(*) FROM t"), 1);
        db_close(other);
        db_close(db);
}

static void what_was_not_committed_is_gone(void **state)
{
        _cleanup_(free_p) char *path = object_path("1111");
        Db *db = open_object(path, (Slice){});

        run(db, "CREATE TABLE t(a)");
        assert_int_equal(db_begin(db), 0);
        run(db, "INSERT INTO t VALUES(1)");
        db_rollback(db);
        assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0);
        assert_int_equal(db_begin(db), 0);
        run(db, "INSERT INTO t VALUES(2)");
        db_close(db);
        db = open_object(path, (Slice){});
        assert_int_equal(ask(db, "SELECT count(*) FROM t"), 0);
        db_close(db);
}

static void what_was_committed_survives_the_death_of_its_process(void **state)
{
        _cleanup_(free_p) char *path = object_path("2222");
        pid_t child = fork();
        int status;
        Db *db;

        if (child == 0) {
                db = open_object(path, SLICE("zoe"));
                run(db, "CREATE TABLE t(a)");
                if (db_begin(db) == 0 &&
                        !db_run(db, "INSERT INTO t VALUES(7)", NULL, 0, NULL, NULL) &&
                        db_commit(db) == 0)
                        kill(getpid(), SIGKILL);
                _exit(1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        db = open_object(path, SLICE("zoe"));
        assert_int_equal(ask(db, "SELECT a FROM t"), 7);
        db_close(db);
}

static void own_databases_are_brought_up_to_date_script_by_script(void **state)
{
        static const char *const scripts[] = {
                "CREATE TABLE a(x); INSERT INTO a VALUES(1);",
                "CREATE TABLE b(x); INSERT INTO b SELECT x + 1 FROM a;",
                "CREATE TABLE c(x); INSERT INTO nowhere VALUES(1);",
        };
        _cleanup_(free_p) char *path = path_join(folder, "deep/er/own.sqlite");
        Db *db = NULL;

        assert_int_equal(db_open_own(path, scripts, 1, &db), 0);
        assert_int_equal(ask(db, "PRAGMA user_version"), 1);
        db_close(TAKE_PTR(db));
        assert_int_equal(db_open_own(path, scripts, 2, &db), 0);
        assert_int_equal(ask(db, "SELECT x FROM b"), 2);
        assert_int_equal(ask(db, "SELECT count(*) FROM a"), 1);
        db_close(TAKE_PTR(db));
        /* The third fails in its second statement: its first is not there either. */
        assert_int_equal(db_open_own(path, scripts, 3, &db), -EINVAL);
        assert_null(db);
        assert_int_equal(db_open_own(path, scripts, 2, &db), 0);
        assert_int_equal(ask(db, "PRAGMA user_version"), 2);
        assert_int_equal(ask(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'c'"), 0);
        db_close(TAKE_PTR(db));
        /* A file of a newer program is not touched. */
        assert_int_equal(db_open_own(path, scripts, 1, &db), -ENOTSUP);
        assert_null(db);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_object_has_a_file_of_its_own_in_wal_mode_with_its_name),
                cmocka_unit_test(a_name_is_kept_from_the_first_time_it_is_known),
                cmocka_unit_test(a_file_that_is_no_database_stays_as_it_is),
                cmocka_unit_test(a_creation_that_fails_leaves_no_file),
                cmocka_unit_test(a_folder_that_cannot_be_made_is_an_error),
                cmocka_unit_test(values_come_back_as_they_went),
                cmocka_unit_test(what_is_not_one_statement_with_its_values_is_refused),
                cmocka_unit_test(errors_are_told_apart),
                cmocka_unit_test(what_was_not_committed_is_gone),
                cmocka_unit_test(what_was_committed_survives_the_death_of_its_process),
                cmocka_unit_test(own_databases_are_brought_up_to_date_script_by_script),
        };

        return cmocka_run_group_tests_name("store/db", tests, make_folder, remove_folder);
}
