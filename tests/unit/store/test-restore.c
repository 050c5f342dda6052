/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/map.h"
#include "lib/store/archive-read.h"
#include "tests/unit/store/world.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
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
        world.options.segment_size = 256 << 10;
        world.options.n_segments = n_segments;
        world.options.archive = "/state/archive/shop/0";
        random_state = 5;
}

static int start(void **state)
{
        prepare(8);
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
        bool is_flushed;
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
} Model;

static const char schema[] = "CREATE TABLE t(k INTEGER PRIMARY KEY, v); CREATE INDEX ti ON t(v);"
                             "CREATE TABLE u(k INTEGER PRIMARY KEY, v)";

static void model_connect(Model *model)
{
        model->db = world_connect(&world, model->name);
        assert_non_null(model->db);
}

static void model_open(Model *model, const char *name, const char *before)
{
        *model = (Model){ .name = name, .db = world_connect(&world, name) };
        run(model->db, before);
        run(model->db, schema);
}

static void model_close(Model *model)
{
        disconnect(TAKE_PTR(model->db));
}

static void set_row(Model *model, int table, int64_t key, const unsigned char *value, size_t len)
{
        static const char *const put[] = { "REPLACE INTO t VALUES(?, ?)",
                "REPLACE INTO u VALUES(?, ?)" };
        static const char *const drop[] = { "DELETE FROM t WHERE k = ?",
                "DELETE FROM u WHERE k = ?" };
        sqlite3_stmt *statement = NULL;
        uint64_t hash = value ? hash_row(table, key, slice_of(value, len)) : 0;
        int rc;

        rc = sqlite3_prepare_v2(model->db, value ? put[table] : drop[table], -1, &statement, NULL);
        assert_int_equal(rc, SQLITE_OK);
        sqlite3_bind_int64(statement, 1, key);
        if (value)
                sqlite3_bind_blob(statement, 2, value, (int)len, SQLITE_STATIC);
        sqlite3_step(statement);
        assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
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
        ret->is_flushed = store_object_lsn(world.store, object_path(model->name)) <=
                          store_flushed(world.store);
        assert_int_equal(store_get_bookmark(world.store, object_path(model->name), ret->mark), 0);
}

/* What waits for room elsewhere has nobody to wait for here. */
static void make_room(void)
{
        StoreStats stats;

        store_get_stats(world.store, &stats);
        if (!stats.segments_free || !store_has_room(world.store))
                world_settle(&world);
}

static int restore(const char *name, const char *mark, const char *to)
{
        int r;

        make_room();
        r = store_restore(world.store, object_path(name), mark, object_path(to), undo);
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
                make_room();
                if (draw((uint64_t)(n - i)) < (uint64_t)(n_moments - noted))
                        note_moment(model, &moments[noted++]);
        }
        world_settle(&world);
        assert_int_equal(noted, n_moments);
}

static size_t count_files(void)
{
        uint64_t *files;
        size_t n;

        assert_int_equal(archive_list(world.disk, world.options.archive, &files, &n), 0);
        free(files);
        return n;
}

static void any_bookmark_restores_to_exactly_its_content(void **state)
{
        const char *text = getenv("DURABLED_LONG");
        bool is_long = text && *text;
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
                (double)(made - begin) / 1e9, n_moments, (double)ns / 1e9, count_files());
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

static void bookmarks_outlive_stops_and_crashes(void **state)
{
        Moment moments[60];
        Model model;

        model_open(&model, NAME, "");
        for (int i = 0; i < 6; i++) {
                live(&model, 150, &moments[(ptrdiff_t)i * 10], 10);
                model_close(&model);
                if (i % 2) {
                        world_crash(&world, CRASH_DROP);
                } else {
                        world_stop(&world);
                        world_start(&world);
                }
                model_connect(&model);
                assert_true(sum_content(model.db) == model.sum);
                for (int n = 0; n < 5; n++)
                        check_restore(&model, &moments[draw((uint64_t)(i + 1) * 10)], OTHER);
        }
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
                world_settle(&world);
                note_moment(&model, &moments[i * 3 + 2]);
                run(model.db, "VACUUM");
                world_settle(&world);
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
                        for (int key = 0; key < MODEL_KEYS; key++) {
                                set_row(&model, 0, key, NULL, 0);
                                if (key % 20 == 0)
                                        world_settle(&world);
                        }
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

static uint64_t read_bytes;
static const DiskOps *plain_ops;

static int count_read(DiskFile *file, void *data, size_t len, uint64_t offset, size_t *ret)
{
        int r = plain_ops->read(file, data, len, offset, ret);

        if (!r)
                read_bytes += *ret;
        return r;
}

static void one_object_among_many_is_restored_from_its_own_data(void **state)
{
        DiskOps ops = *world.disk->ops;
        Moment moment;
        Model model;
        uint64_t all;
        StoreStats stats;

        plain_ops = world.disk->ops;
        ops.read = count_read;
        model_open(&model, NAME, "");
        live(&model, 30, &moment, 1);
        for (int i = 0; i < 10000; i++) {
                char name[16];
                sqlite3 *db;

                snprintf(name, sizeof name, "%02x%06d", i % 256, i);
                db = world_connect(&world, name);
                run(db, "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, hex(randomblob(100)))");
                disconnect(db);
                if (i % 100 == 99) {
                        change_row(&model, 100);
                        world_settle(&world);
                }
        }
        store_get_stats(world.store, &stats);
        all = stats.record_bytes;
        world.disk->ops = &ops;
        read_bytes = 0;
        check_restore(&model, &moment, OTHER);
        world.disk->ops = plain_ops;
        print_message("# %llu KiB read of %llu KiB\n", (unsigned long long)read_bytes >> 10,
                (unsigned long long)all >> 10);
        assert_true(all > 4 << 20);
        assert_true(read_bytes < all / 4);
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

/* Where the row's bytes are in the file. */
static unsigned char *find_row(unsigned char fill)
{
        unsigned char *bytes, want[64];
        size_t size;

        memset(want, fill, sizeof want);
        bytes = memory_disk_find(world.memory, object_path(NAME), &size);
        assert_non_null(bytes);
        bytes = memmem(bytes, size, want, sizeof want);
        assert_non_null(bytes);
        return bytes;
}

static void a_file_changed_by_another_program_is_not_restored(void **state)
{
        unsigned char value[2000];
        Moment first, second, third;
        Model model;

        model_open(&model, NAME, "");
        live(&model, 100, NULL, 0);
        memset(value, 0x5c, sizeof value);
        set_row(&model, 1, 7, value, sizeof value);
        note_moment(&model, &first);
        set_row(&model, 1, 7, value, 1000);
        store_loop_run(world.store);
        note_moment(&model, &second);
        model_close(&model);
        world_settle(&world);
        world_stop(&world);
        world_start(&world);
        check_restore(&model, &first, OTHER);
        world_settle(&world);
        world_stop(&world);
        /* All that SQLite checks stays as it should be. */
        find_row(0x5c)[10] ^= 1;
        world_start(&world);
        model_connect(&model);
        model.sum = sum_content(model.db);
        world.log[0] = '\0';
        assert_int_equal(restore(NAME, first.mark, NAME), STORE_E_CHANGED);
        assert_non_null(strstr(world.log, "changed by another program"));
        assert_int_equal(restore(NAME, second.mark, NAME), STORE_E_CHANGED);
        assert_true(sum_content(model.db) == model.sum);
        check_sound(NAME);
        /* What comes after it is history again. */
        note_moment(&model, &third);
        set_row(&model, 0, 1, value, 50);
        check_restore(&model, &third, OTHER);
        assert_int_equal(restore(NAME, second.mark, NAME), STORE_E_CHANGED);
        model_close(&model);
}

static void a_file_grown_by_another_program_is_not_restored(void **state)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        Moment moment, now;
        uint64_t size;
        Model model;

        model_open(&model, NAME, "");
        live(&model, 300, &moment, 1);
        run(model.db, "VACUUM");
        model_close(&model);
        world_settle(&world);
        world_stop(&world);
        /* Otherwise it would be cut when the journal is redone. */
        world_start(&world);
        world_stop(&world);
        assert_int_equal(disk_open(world.disk, object_path(NAME), 0, &file), 0);
        assert_int_equal(disk_get_size(file, &size), 0);
        assert_int_equal(disk_truncate(file, size + 4096), 0);
        file = disk_close(file);
        world_start(&world);
        note_moment(&model, &now);
        assert_int_equal(restore(NAME, moment.mark, NAME), STORE_E_CHANGED);
        assert_true(sum_of(NAME) == model.sum);
}

static int start_without(void **state)
{
        prepare(8);
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
        /* An archive begins with what is written from now on. */
        model_close(&model);
        world_stop(&world);
        world.options.archive = "/state/archive/shop/0";
        world_start(&world);
        model_connect(&model);
        assert_int_equal(restore(NAME, moment.mark, OTHER), STORE_E_PRUNED);
        note_moment(&model, &now);
        live(&model, 500, NULL, 0);
        check_restore(&model, &now, OTHER);
        model_close(&model);
}

#define FOLDER "/state/archive/shop"

static size_t list_files(char paths[256][64])
{
        uint64_t *files;
        size_t n;

        assert_int_equal(archive_list(world.disk, FOLDER "/0", &files, &n), 0);
        assert_true(n <= 256);
        for (size_t i = 0; i < n; i++) {
                char *path = archive_path(FOLDER "/0", files[i]);

                snprintf(paths[i], sizeof paths[i], "%s", path);
                free(path);
        }
        free(files);
        return n;
}

static void what_a_missing_or_damaged_file_held_is_not_restored(void **state)
{
        static char paths[256][64];
        char mark[STORE_BOOKMARK_LEN + 1];
        unsigned char *bytes;
        Moment moments[30];
        size_t n, size;
        Model model;
        int reached = 0;

        model_open(&model, NAME, "");
        live(&model, 1500, moments, 30);
        n = list_files(paths);
        assert_true(n > 4);
        /* Damaged where the object's records are. */
        bytes = memory_disk_find(world.memory, paths[n / 2], &size);
        bytes[200] ^= 4;
        for (int i = 29; i >= 0; i--) {
                int r = restore(NAME, moments[i].mark, OTHER);

                assert_true(r == (reached ? 0 : r));
                if (r == 0)
                        assert_true(sum_of(OTHER) == moments[i].sum);
                else
                        assert_int_equal(r, STORE_E_PRUNED);
        }
        assert_non_null(strstr(world.log, "is damaged at offset"));
        assert_int_equal(restore(NAME, moments[0].mark, OTHER), STORE_E_PRUNED);
        bytes[200] ^= 4;
        assert_int_equal(restore(NAME, moments[0].mark, OTHER), 0);
        /* A file in the middle, and the oldest. */
        assert_int_equal(disk_unlink(world.disk, paths[n / 2]), 0);
        for (int i = 29; i >= 0; i--) {
                int r = restore(NAME, moments[i].mark, OTHER);

                if (r == 0)
                        assert_true(sum_of(OTHER) == moments[i].sum);
                else
                        assert_int_equal(r, STORE_E_PRUNED);
                reached += r == 0;
        }
        assert_true(reached > 3 && reached < 27);
        assert_int_equal(store_find_bookmark(world.store, object_path(NAME), moments[0].time, mark),
                STORE_E_PRUNED);
        assert_int_equal(
                store_find_bookmark(world.store, object_path(NAME), moments[29].time, mark), 0);
        model_close(&model);
}

static void change_slot(int slot)
{
        static char archive[32];

        world_settle(&world);
        store_set_draining(world.store, true);
        world_settle(&world);
        world_stop(&world);
        memory_disk_advance(world.memory, NSEC_PER_SEC);
        /* As who takes the objects over sees to it that the journal left is empty. */
        world_start(&world);
        world_stop(&world);
        snprintf(archive, sizeof archive, FOLDER "/%d", slot);
        snprintf(world.journal, sizeof world.journal, "/state/journal/shop-%d", slot);
        world.options.archive = archive;
        world_start(&world);
}

static void an_object_that_lived_in_other_slots_keeps_its_past(void **state)
{
        static const int slots[] = { 0, 1, 0, 2, 1, 0 };
        char mark[STORE_BOOKMARK_LEN + 1];
        Moment moments[60];
        Model model;

        model_open(&model, NAME, "");
        for (int i = 0; i < 6; i++) {
                live(&model, 200, &moments[(ptrdiff_t)i * 10], 10);
                model_close(&model);
                change_slot(i < 5 ? slots[i + 1] : 1);
                model_connect(&model);
                for (int n = 0; n < 10; n++) {
                        const Moment *moment = &moments[draw((uint64_t)(i + 1) * 10)];

                        check_restore(&model, moment, OTHER);
                        if (!moment->is_flushed)
                                continue;
                        assert_int_equal(store_find_bookmark(world.store, object_path(NAME),
                                                 moment->time, mark),
                                0);
                        assert_int_equal(restore(NAME, mark, OTHER), 0);
                        assert_true(sum_of(OTHER) == moment->sum);
                }
        }
        model_close(&model);
}

static void a_journal_that_was_lost_is_a_gap(void **state)
{
        Moment moment, later;
        Model model;

        model_open(&model, NAME, "");
        live(&model, 600, &moment, 1);
        check_restore(&model, &moment, OTHER);
        model_close(&model);
        store_set_draining(world.store, true);
        world_settle(&world);
        world_stop(&world);
        memory_disk_advance(world.memory, NSEC_PER_SEC);
        snprintf(world.journal, sizeof world.journal, "/state/journal/shop-new");
        world_start(&world);
        model_connect(&model);
        note_moment(&model, &later);
        live(&model, 600, NULL, 0);
        assert_int_equal(restore(NAME, moment.mark, OTHER), STORE_E_PRUNED);
        check_restore(&model, &later, OTHER);
        model_close(&model);
}

static void a_crash_during_a_restore_leaves_all_or_nothing(void **state)
{
        Moment moments[2], now;
        uint64_t sum;
        Model model;
        int done = 0;

        model_open(&model, NAME, "");
        live(&model, 200, moments, 2);
        model_close(&model);
        for (int call = 1; done < 5; call++) {
                const Moment *to = &moments[call % 2];
                int r;

                sum = sum_of(NAME);
                world_settle(&world);
                memory_disk_cut(world.memory, memory_disk_get_calls(world.memory) + (uint64_t)call);
                r = store_restore(
                        world.store, object_path(NAME), to->mark, object_path(NAME), undo);
                store_loop_run(world.store);
                if (!memory_disk_is_cut(world.memory)) {
                        assert_int_equal(r, 0);
                        done++;
                }
                world_crash(&world, CRASH_TEAR);
                if (r == 0 && done)
                        assert_true(sum_of(NAME) == to->sum);
                else
                        assert_true(sum_of(NAME) == to->sum || sum_of(NAME) == sum);
                check_sound(NAME);
        }
        now = moments[0];
        model_connect(&model);
        check_restore(&model, &now, OTHER);
        model_close(&model);
}

typedef struct Crew {
        pthread_t threads[3];
        atomic_int running;
        atomic_int restores;
} Crew;

static void *commit_all_the_time(void *data)
{
        Crew *crew = data;
        sqlite3 *db = NULL;

        if (sqlite3_open(object_path("cc01"), &db) == SQLITE_OK)
                try_run(db, "CREATE TABLE t(a, b)");
        for (int i = 0; i < 1500; i++)
                if (try_run(db, "INSERT INTO t VALUES(1, randomblob(1000))") != SQLITE_OK)
                        break;
        sqlite3_close(db);
        crew->running--;
        return NULL;
}

/* Commits and goes back to them, as an object's runner does. */
static void *restore_all_the_time(void *data)
{
        Crew *crew = data;
        char marks[20][STORE_BOOKMARK_LEN + 1], undone[STORE_BOOKMARK_LEN + 1];
        sqlite3 *db = NULL;
        bool good = true;
        int n = 0;

        if (sqlite3_open(object_path("dd01"), &db) == SQLITE_OK)
                try_run(db, "CREATE TABLE t(a, b); INSERT INTO t VALUES(0, NULL)");
        for (; n < 20 && good; n++) {
                char sql[128];

                for (int i = 0; i < 20; i++) {
                        snprintf(sql, sizeof sql, "UPDATE t SET a = %d, b = randomblob(9000)", n);
                        good &= try_run(db, sql) == SQLITE_OK;
                }
                good &= store_get_bookmark(world.store, object_path("dd01"), marks[n]) == 0;
        }
        for (n = 19; n >= 0 && good; n--) {
                good &= store_restore(world.store, object_path("dd01"), marks[n],
                                object_path("dd01"), undone) == 0;
                good &= ask(db, "SELECT a FROM t") == n;
                crew->restores += good;
        }
        sqlite3_close(db);
        crew->running--;
        return NULL;
}

static void threads_commit_and_the_journal_moves_on_during_a_restore(void **state)
{
        Crew crew = { .running = 2 };

        disconnect(world_connect(&world, "cc01"));
        disconnect(world_connect(&world, "dd01"));
        assert_int_equal(store_start_background(world.store), 0);
        assert_int_equal(pthread_create(&crew.threads[0], NULL, commit_all_the_time, &crew), 0);
        assert_int_equal(pthread_create(&crew.threads[1], NULL, restore_all_the_time, &crew), 0);
        while (crew.running) {
                assert_int_equal(store_loop_run(world.store), 0);
                usleep(100);
        }
        for (int i = 0; i < 2; i++)
                pthread_join(crew.threads[i], NULL);
        store_stop_background(world.store);
        assert_int_equal(crew.restores, 20);
}

#define TEST(_fn) cmocka_unit_test_setup_teardown(_fn, start, stop)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(any_bookmark_restores_to_exactly_its_content),
                TEST(a_restore_undone_gives_the_content_before),
                TEST(a_time_leads_to_the_commit_before_it),
                TEST(bookmarks_outlive_stops_and_crashes),
                TEST(deleted_and_recreated_objects_come_back),
                TEST(commits_that_spill_are_taken_back),
                TEST(a_database_with_auto_vacuum_grows_and_shrinks_back),
                TEST(commits_given_up_are_no_part_of_the_past),
                TEST(one_object_among_many_is_restored_from_its_own_data),
                TEST(a_large_object_is_restored_through_the_scratch_file),
                TEST(open_connections_see_a_restore_as_anothers_commit),
                TEST(a_file_changed_by_another_program_is_not_restored),
                TEST(a_file_grown_by_another_program_is_not_restored),
                TEST(what_a_missing_or_damaged_file_held_is_not_restored),
                TEST(an_object_that_lived_in_other_slots_keeps_its_past),
                TEST(a_journal_that_was_lost_is_a_gap),
                TEST(a_crash_during_a_restore_leaves_all_or_nothing),
                TEST(threads_commit_and_the_journal_moves_on_during_a_restore),
                cmocka_unit_test_setup_teardown(
                        without_an_archive_the_past_is_gone, start_without, stop),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
