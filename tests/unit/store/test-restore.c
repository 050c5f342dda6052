/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/map.h"
#include "tests/unit/store/world.h"

#include <errno.h>
#include <string.h>

/* Going back: over the journal and the archive, against a model that knows each moment's content.
 */

#define NAME "aa01"
#define OTHER "bb01"

static World world;
static char undo[STORE_BOOKMARK_LEN + 1];
static uint64_t random_state;

static uint64_t draw(uint64_t n)
{
        random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (random_state >> 33) % n;
}

static void prepare(unsigned n_segments)
{
        world_init(&world, 11);
        world.options.segment_size = 64 << 20;
        world.options.n_segments = n_segments;
        world.options.archive = "/state/archive/shop/0";
        random_state = 5;
}

static int start(void **state)
{
        prepare(4);
        world_start(&world);
        return 0;
}

static int stop(void **state)
{
        world_done(&world);
        return 0;
}

/* A moment: what the tables held then, and the bookmark of it. */
typedef struct Moment {
        uint64_t sum, time;
        char mark[STORE_BOOKMARK_LEN + 1];
} Moment;

static uint64_t hash_row(int table, int64_t key, Slice value)
{
        const uint64_t secret[2] = { (uint64_t)table, (uint64_t)key };

        return siphash24(secret, value) + 1;
}

/* All rows of t and u, in any order. */
static uint64_t sum_content(sqlite3 *db)
{
        sqlite3_stmt *statement = NULL;
        uint64_t sum = 0;
        int rc = sqlite3_prepare_v2(
                db, "SELECT 0, k, v FROM t UNION ALL SELECT 1, k, v FROM u", -1, &statement, NULL);

        assert_int_equal(rc, SQLITE_OK);
        while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
                sum += hash_row(sqlite3_column_int(statement, 0),
                        sqlite3_column_int64(statement, 1),
                        slice_of(sqlite3_column_blob(statement, 2),
                                (size_t)sqlite3_column_bytes(statement, 2)));
        assert_int_equal(rc, SQLITE_DONE);
        sqlite3_finalize(statement);
        return sum;
}

#define MODEL_KEYS 400

/* An object and what it ought to hold. */
typedef struct Model {
        const char *name;
        sqlite3 *db;
        uint64_t rows[2][MODEL_KEYS]; /* hashes, 0: none */
        uint64_t sum;
        sqlite3_stmt *put[2], *drop[2];
} Model;

static const char schema[] = "CREATE TABLE t(k INTEGER PRIMARY KEY, v); CREATE INDEX ti ON t(v);"
                             "CREATE TABLE u(k INTEGER PRIMARY KEY, v)";

static void model_prepare(Model *model)
{
        static const char *const put[] = { "REPLACE INTO t VALUES(?, ?)",
                "REPLACE INTO u VALUES(?, ?)" };
        static const char *const drop[] = { "DELETE FROM t WHERE k = ?",
                "DELETE FROM u WHERE k = ?" };

        for (int i = 0; i < 2; i++) {
                assert_int_equal(
                        sqlite3_prepare_v2(model->db, put[i], -1, &model->put[i], NULL), SQLITE_OK);
                assert_int_equal(sqlite3_prepare_v2(model->db, drop[i], -1, &model->drop[i], NULL),
                        SQLITE_OK);
        }
}

static void model_open(Model *model, const char *name, const char *before)
{
        *model = (Model){ .name = name, .db = world_connect(&world, name) };
        run(model->db, before);
        run(model->db, schema);
        model_prepare(model);
}

static void model_close(Model *model)
{
        for (int i = 0; i < 2; i++) {
                sqlite3_finalize(TAKE_PTR(model->put[i]));
                sqlite3_finalize(TAKE_PTR(model->drop[i]));
        }
        disconnect(TAKE_PTR(model->db));
}

static void set_row(Model *model, int table, int64_t key, const unsigned char *value, size_t len)
{
        sqlite3_stmt *statement = value ? model->put[table] : model->drop[table];
        uint64_t hash = value ? hash_row(table, key, slice_of(value, len)) : 0;

        sqlite3_bind_int64(statement, 1, key);
        if (value)
                sqlite3_bind_blob(statement, 2, value, (int)len, SQLITE_STATIC);
        assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
        sqlite3_reset(statement);
        model->sum += hash - model->rows[table][key];
        model->rows[table][key] = hash;
}

static void change_row(Model *model, size_t most)
{
        unsigned char value[20000];
        size_t len = 1 + draw(draw(20) ? 60 : most);
        int table = (int)draw(2);
        int64_t key = (int64_t)draw(MODEL_KEYS);

        for (size_t i = 0; i < len; i++)
                value[i] = (unsigned char)draw(256);
        set_row(model, table, key, draw(4) ? value : NULL, len);
}

/* A commit of any kind. */
static void model_step(Model *model)
{
        uint64_t what = draw(1000);

        if (what == 0) {
                run(model->db, "VACUUM");
        } else if (what < 3) {
                run(model->db, "DELETE FROM u");
                for (int i = 0; i < MODEL_KEYS; i++) {
                        model->sum -= model->rows[1][i];
                        model->rows[1][i] = 0;
                }
        } else if (what < 5) {
                run(model->db, "DROP INDEX IF EXISTS ti");
                run(model->db, "CREATE INDEX ti ON t(v)");
        } else if (what < 8) {
                run(model->db, "PRAGMA incremental_vacuum");
        } else if (what < 50) {
                run(model->db, "BEGIN");
                for (uint64_t n = draw(30); n; n--)
                        change_row(model, 20000);
                run(model->db, "COMMIT");
        } else {
                change_row(model, 3000);
        }
}

static void note_moment(const Model *model, Moment *ret)
{
        uint64_t time = disk_clock_realtime(world.disk);

        *ret = (Moment){ .sum = model->sum, .time = time };
        assert_int_equal(store_get_bookmark(world.store, object_path(model->name), ret->mark), 0);
}

static int restore(const char *name, const char *mark, const char *to)
{
        int r = store_restore(world.store, object_path(name), mark, object_path(to), undo);

        store_loop_run(world.store);
        return r;
}

static uint64_t sum_of(const char *name)
{
        sqlite3 *db = world_connect(&world, name);
        uint64_t sum = sum_content(db);

        disconnect(db);
        return sum;
}

static void check_sound(const char *name)
{
        sqlite3 *db = world_connect(&world, name);

        assert_string_equal(ask_text(db, "PRAGMA integrity_check"), "ok");
        disconnect(db);
}

static void check_restore(const Model *model, const Moment *moment, const char *to)
{
        int r = restore(model->name, moment->mark, to);

        if (r)
                print_message("%s\n%s\n", store_history_error(r), world.log);
        assert_int_equal(r, 0);
        assert_true(sum_of(to) == moment->sum);
        check_sound(to);
}

/* n commits; those of them that are noted. */
static void live(Model *model, int n, Moment *moments, int n_moments)
{
        int noted = 0;

        for (int i = 0; i < n; i++) {
                model_step(model);
                memory_disk_advance(world.memory, 20 * NSEC_PER_MSEC);
                if (draw(5) == 0)
                        store_loop_run(world.store);
                if (draw(20) == 0)
                        world_settle(&world);
                if (draw((uint64_t)(n - i)) < (uint64_t)(n_moments - noted))
                        note_moment(model, &moments[noted++]);
        }
        world_settle(&world);
        assert_int_equal(noted, n_moments);
}

static void any_bookmark_restores_to_exactly_its_content(void **state)
{
        bool is_long = getenv("DURABLED_LONG") != NULL;
        int n = is_long ? 100000 : 4000, n_moments = is_long ? 1000 : 60;
        Moment *moments = calloc((size_t)n_moments, sizeof *moments), last;
        uint64_t begin, made, ns;
        Model model;

        begin = clock_monotonic_ns();
        model_open(&model, NAME, "");
        live(&model, n, moments, n_moments);
        note_moment(&model, &last);
        made = clock_monotonic_ns();
        for (int i = 0; i < n_moments; i++)
                check_restore(&model, &moments[draw((uint64_t)n_moments)], OTHER);
        ns = clock_monotonic_ns() - made;
        print_message("# %d commits in %.1f s, %d restores in %.1f s, %zu files\n", n,
                (double)(made - begin) / 1e9, n_moments, (double)ns / 1e9, (size_t)0);
        assert_true(sum_content(model.db) == last.sum);
        model_close(&model);
        free(moments);
}

static void a_restore_undone_gives_the_content_before(void **state)
{
        char back[STORE_BOOKMARK_LEN + 1], again[STORE_BOOKMARK_LEN + 1];
        Moment moments[10], before;
        Model model;

        model_open(&model, NAME, "");
        live(&model, 800, moments, 10);
        for (int i = 0; i < 10; i++) {
                note_moment(&model, &before);
                assert_int_equal(restore(NAME, moments[i].mark, NAME), 0);
                assert_true(sum_content(model.db) == moments[i].sum);
                strcpy(back, undo);
                assert_int_equal(restore(NAME, back, NAME), 0);
                assert_true(sum_content(model.db) == before.sum);
                strcpy(again, undo);
                assert_int_equal(restore(NAME, again, NAME), 0);
                assert_true(sum_content(model.db) == moments[i].sum);
                assert_int_equal(restore(NAME, back, NAME), 0);
                check_sound(NAME);
                world_settle(&world);
                live(&model, 50, &before, 1);
        }
        model_close(&model);
}

static void a_time_leads_to_the_commit_before_it(void **state)
{
        char mark[STORE_BOOKMARK_LEN + 1];
        Moment moments[30];
        Model model;

        model_open(&model, NAME, "");
        for (int i = 0; i < 30; i++) {
                Moment rest;

                live(&model, 40, &rest, 1);
                memory_disk_advance(world.memory, NSEC_PER_SEC);
                note_moment(&model, &moments[i]);
                memory_disk_advance(world.memory, NSEC_PER_SEC);
        }
        for (int i = 29; i >= 0; i--) {
                assert_int_equal(
                        store_find_bookmark(world.store, object_path(NAME), moments[i].time, mark),
                        0);
                assert_int_equal(restore(NAME, mark, OTHER), 0);
                assert_true(sum_of(OTHER) == moments[i].sum);
        }
        assert_int_equal(store_find_bookmark(world.store, object_path(NAME), UINT64_MAX, mark), 0);
        assert_int_equal(restore(NAME, mark, OTHER), 0);
        assert_true(sum_of(OTHER) == model.sum);
        assert_int_equal(store_find_bookmark(world.store, object_path(NAME), 1, mark), 0);
        assert_int_equal(restore(NAME, mark, OTHER), STORE_E_ABSENT);
        model_close(&model);
}

static void deleted_and_recreated_objects_come_back(void **state)
{
        Moment first[5], second[5], gone, between;
        Model model;

        model_open(&model, NAME, "");
        live(&model, 300, first, 5);
        model_close(&model);
        assert_int_equal(store_delete(world.store, object_path(NAME)), 0);
        store_loop_run(world.store);
        note_moment(&model, &gone);
        /* Of a deleted object the past can be read, into another and into itself. */
        for (int i = 0; i < 5; i++)
                check_restore(&model, &first[i], OTHER);
        assert_int_equal(restore(NAME, gone.mark, OTHER), STORE_E_ABSENT);
        assert_int_equal(restore(NAME, NULL, OTHER), -ENOENT);
        check_restore(&model, &first[4], NAME);
        world_settle(&world);
        assert_int_equal(store_delete(world.store, object_path(NAME)), 0);
        world_settle(&world);
        note_moment(&model, &between);
        model_open(&model, NAME, "");
        live(&model, 300, second, 5);
        for (int i = 0; i < 5; i++) {
                check_restore(&model, &first[i], OTHER);
                check_restore(&model, &second[i], OTHER);
        }
        assert_int_equal(restore(NAME, between.mark, OTHER), STORE_E_ABSENT);
        assert_int_equal(restore(NAME, gone.mark, OTHER), STORE_E_ABSENT);
        assert_true(sum_of(OTHER) == second[4].sum);
        assert_int_equal(restore(NAME, first[2].mark, NAME), 0);
        assert_true(sum_content(model.db) == first[2].sum);
        model_close(&model);
}

static void commits_that_spill_are_taken_back(void **state)
{
        Moment moments[12];
        Model model;

        model_open(&model, NAME, "");
        for (int i = 0; i < 4; i++) {
                live(&model, 60, &moments[(ptrdiff_t)i * 3], 2);
                run(model.db, "BEGIN");
                for (int key = 0; key < MODEL_KEYS; key++) {
                        unsigned char value[4000];

                        memset(value, (int)draw(256), sizeof value);
                        set_row(&model, key & 1, key, value, sizeof value);
                }
                run(model.db, "COMMIT");
                store_loop_run(world.store);
                note_moment(&model, &moments[i * 3 + 2]);
                run(model.db, "VACUUM");
        }
        live(&model, 60, NULL, 0);
        for (int i = 11; i >= 0; i--)
                check_restore(&model, &moments[i], OTHER);
        for (int i = 0; i < 12; i++) {
                assert_int_equal(restore(NAME, moments[i].mark, NAME), 0);
                assert_true(sum_content(model.db) == moments[i].sum);
                world_settle(&world);
        }
        model_close(&model);
}

static void a_database_with_auto_vacuum_grows_and_shrinks_back(void **state)
{
        static const char *const modes[] = { "PRAGMA auto_vacuum = FULL; VACUUM",
                "PRAGMA auto_vacuum = INCREMENTAL; VACUUM" };

        for (int mode = 0; mode < 2; mode++) {
                Moment moments[25];
                Model model;

                model_open(&model, mode ? "ac01" : "ad01", modes[mode]);
                assert_int_equal(ask(model.db, "PRAGMA auto_vacuum"), 1 + mode);
                for (int i = 0; i < 5; i++) {
                        live(&model, 100, &moments[(ptrdiff_t)i * 5], 5);
                        for (int key = 0; key < MODEL_KEYS; key++)
                                set_row(&model, 0, key, NULL, 0);
                        run(model.db, "PRAGMA incremental_vacuum");
                }
                for (int i = 24; i >= 0; i--)
                        check_restore(&model, &moments[i], OTHER);
                model_close(&model);
        }
}

static void commits_given_up_are_no_part_of_the_past(void **state)
{
        Moment moments[20];
        Model model;

        model_open(&model, NAME, "");
        for (int i = 0; i < 20; i++) {
                live(&model, 20, NULL, 0);
                run(model.db, "BEGIN");
                for (int n = 0; n < 20; n++) {
                        char sql[128];

                        snprintf(sql, sizeof sql, "REPLACE INTO t VALUES(%d, randomblob(4000))", n);
                        run(model.db, sql);
                }
                run(model.db, "ROLLBACK");
                note_moment(&model, &moments[i]);
        }
        for (int i = 19; i >= 0; i--)
                check_restore(&model, &moments[i], OTHER);
        model_close(&model);
}

static void a_large_object_is_restored_through_the_scratch_file(void **state)
{
        static const char fill[] =
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) "
                "INSERT INTO u SELECT 1000 + i, randomblob(80000) FROM n";
        Moment moments[6];
        uint64_t sums[6];
        Model model;

        model_open(&model, NAME, "");
        run(model.db, fill);
        world_settle(&world);
        assert_true(ask(model.db, "PRAGMA page_count") * 4096 > 64 << 20);
        for (int i = 0; i < 6; i++) {
                char sql[128];

                snprintf(
                        sql, sizeof sql, "UPDATE u SET v = randomblob(60000) WHERE k %% 6 = %d", i);
                run(model.db, sql);
                for (int n = 0; n < 20; n++)
                        change_row(&model, 100);
                store_loop_run(world.store);
                note_moment(&model, &moments[i]);
                sums[i] = sum_content(model.db);
                world_settle(&world);
        }
        for (int i = 5; i >= 0; i -= 2) {
                assert_int_equal(restore(NAME, moments[i].mark, OTHER), 0);
                assert_true(sum_of(OTHER) == sums[i]);
                world_settle(&world);
        }
        model_close(&model);
}

static void open_connections_see_a_restore_as_anothers_commit(void **state)
{
        sqlite3 *reader, *second;
        Moment moments[3];
        Model model;

        model_open(&model, NAME, "");
        live(&model, 200, moments, 3);
        reader = world_connect(&world, NAME);
        second = world_connect(&world, NAME);
        run(reader, "BEGIN");
        assert_true(sum_content(reader) == model.sum);
        assert_int_equal(restore(NAME, moments[1].mark, NAME), 0);
        assert_true(sum_content(reader) == model.sum);
        assert_true(sum_content(second) == moments[1].sum);
        assert_true(sum_content(model.db) == moments[1].sum);
        run(reader, "COMMIT");
        assert_true(sum_content(reader) == moments[1].sum);
        run(second, "BEGIN IMMEDIATE");
        assert_int_equal(restore(NAME, moments[0].mark, NAME), -EBUSY);
        run(second, "ROLLBACK");
        assert_int_equal(restore(NAME, moments[0].mark, NAME), 0);
        assert_true(sum_content(second) == moments[0].sum);
        disconnect(reader);
        disconnect(second);
        model_close(&model);
}

static int start_without(void **state)
{
        prepare(4);
        world.options.archive = NULL;
        world_start(&world);
        return 0;
}

static void without_an_archive_the_past_is_gone(void **state)
{
        Moment moment, now;
        char mark[STORE_BOOKMARK_LEN + 1];
        Model model;

        model_open(&model, NAME, "");
        live(&model, 50, &moment, 1);
        live(&model, 50, NULL, 0);
        note_moment(&model, &now);
        assert_int_equal(restore(NAME, moment.mark, OTHER), STORE_E_PRUNED);
        assert_int_equal(restore(NAME, now.mark, OTHER), 0);
        assert_true(sum_of(OTHER) == now.sum);
        assert_int_equal(store_find_bookmark(world.store, object_path(NAME), moment.time, mark),
                STORE_E_PRUNED);
        model_close(&model);
}

#define TEST(_fn) cmocka_unit_test_setup_teardown(_fn, start, stop)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(any_bookmark_restores_to_exactly_its_content),
                TEST(a_restore_undone_gives_the_content_before),
                TEST(a_time_leads_to_the_commit_before_it),
                TEST(deleted_and_recreated_objects_come_back),
                TEST(commits_that_spill_are_taken_back),
                TEST(a_database_with_auto_vacuum_grows_and_shrinks_back),
                TEST(commits_given_up_are_no_part_of_the_past),
                TEST(a_large_object_is_restored_through_the_scratch_file),
                TEST(open_connections_see_a_restore_as_anothers_commit),
                cmocka_unit_test_setup_teardown(
                        without_an_archive_the_past_is_gone, start_without, stop),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
