/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/journal-format.h"
#include "tests/unit/store/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a record tells of what was before: going back over the journal gives each earlier content */

#define ARCHIVE "/state/archive/shop/0"

static World world;

static Notes notes;

static int start(void **state)
{
        world_init(&world, 11);
        world.options.archive = ARCHIVE;
        /* Nothing of a test is retired. */
        world.options.segment_size = 768 << 10;
        world.options.n_segments = 100;
        world.options.spill_size = 128 << 10;
        world.options.checkpoint_at = 16;
        world_start(&world);
        return 0;
}

static int stop(void **state)
{
        notes_forget(&notes, 0);
        world_done(&world);
        return 0;
}

static void check_all(const char *name)
{
        Walk walk = {};
        Content content = {};

        store_loop_run(world.store);
        walk_read_journal(&world, name, &walk);
        assert_true(notes.n > 0);
        content.size = notes.commits[notes.n - 1].content.size;
        content.data = malloc(content.size);
        memcpy(content.data, notes.commits[notes.n - 1].content.data, content.size);
        for (size_t i = notes.n; i-- > 0;) {
                walk_back(&world, &walk, notes.commits[i].lsn, &content, walk_read_spill);
                content_check(&content, &notes.commits[i].content, notes.commits[i].lsn);
        }
        walk_back(&world, &walk, 0, &content, walk_read_spill);
        assert_true(walk.is_absent);
        walk_done(&walk);
        content_free(&content);
}

/* As SQLite does it when the wal-index cannot grow after the log was synced. */
static void give_up_a_commit(sqlite3 *db)
{
        sqlite3_file *file = NULL, *wal = NULL;
        unsigned char frame[24] = { 0, 0, 0, 1, 0, 0, 0, 1 }, page[4096] = "garbage";
        sqlite3_int64 size;

        sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
        sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
        assert_int_equal(wal->pMethods->xFileSize(wal, &size), SQLITE_OK);
        if (size < 32)
                return;
        assert_int_equal(
                file->pMethods->xShmLock(file, 0, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE),
                SQLITE_OK);
        assert_int_equal(wal->pMethods->xWrite(wal, frame, sizeof frame, size), SQLITE_OK);
        assert_int_equal(wal->pMethods->xWrite(wal, page, sizeof page, size + 24), SQLITE_OK);
        assert_int_equal(wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL), SQLITE_OK);
        assert_int_equal(
                file->pMethods->xShmLock(file, 0, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE),
                SQLITE_OK);
}

static void transact(sqlite3 *db)
{
        static const char *const steps[] = {
                "INSERT INTO t VALUES(NULL, abs(random() % 100), randomblob(10))",
                "INSERT INTO t VALUES(NULL, abs(random() % 100), randomblob(3000))",
                "INSERT INTO t VALUES(NULL, abs(random() % 100), zeroblob(9000))",
                "UPDATE t SET n = n + 1",
                "UPDATE t SET n = n + 1 WHERE id % 7 = 3",
                "UPDATE t SET body = randomblob(length(body)) WHERE id % 5 = 1",
                "DELETE FROM t WHERE id % 3 = 0",
                "DELETE FROM t WHERE id > (SELECT max(id) / 2 FROM t)",
                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 60)"
                " INSERT INTO t SELECT NULL, i, randomblob(2500) FROM c",
                "SAVEPOINT s; UPDATE t SET body = randomblob(2000); DELETE FROM t WHERE n < 50;"
                " ROLLBACK TO s; RELEASE s",
                "PRAGMA incremental_vacuum(5)",
        };
        unsigned n = 1 + world_draw(&world, 4);

        run(db, "BEGIN");
        for (unsigned i = 0; i < n; i++)
                run(db, steps[world_draw(&world, ELEMENTSOF(steps))]);
        run(db, world_draw(&world, 8) ? "COMMIT" : "ROLLBACK");
}

static void do_something(const char *name, sqlite3 **db)
{
        switch (world_draw(&world, 16)) {
        case 0:
                run(*db, "VACUUM");
                break;
        case 1:
                give_up_a_commit(*db);
                break;
        case 2:
                run(*db, "DELETE FROM t WHERE id % 4; PRAGMA incremental_vacuum");
                break;
        case 3:
        case 4:
        case 5:
                store_loop_run(world.store);
                store_background_step(world.store);
                break;
        case 6:
                world_settle(&world);
                break;
        case 7:
                disconnect(*db);
                *db = world_connect(&world, name);
                run(*db, "PRAGMA cache_size = 10");
                break;
        default:
                transact(*db);
                break;
        }
        notes_take(&notes, &world, name, *db);
}

static void going_back_gives_each_earlier_content(void **state)
{
        for (int trial = 0; trial < 6; trial++) {
                static const char *const modes[] = { "0", "1", "2" };
                char name[16], sql[64];
                sqlite3 *db;

                start(state);
                snprintf(name, sizeof name, "aa%02d", trial);
                for (int i = 0; i < trial; i++)
                        world_draw(&world, 2);
                db = world_connect(&world, name);
                snprintf(sql, sizeof sql, "PRAGMA cache_size = 10; PRAGMA auto_vacuum = %s; VACUUM",
                        modes[trial % 3]);
                run(db, sql);
                notes_take(&notes, &world, name, db);
                run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, n, body); CREATE INDEX i ON t(n)");
                notes_take(&notes, &world, name, db);
                for (int i = 0; i < 120; i++)
                        do_something(name, &db);
                disconnect(db);
                check_all(name);
                stop(state);
        }
        start(state);
}

static void a_deletion_can_be_taken_back(void **state)
{
        for (int rows = 5; rows <= 200; rows += 195) {
                char name[16], sql[256];
                sqlite3 *db;
                Walk walk = {};
                Content content = {};

                snprintf(name, sizeof name, "bb%02d", rows % 99);
                snprintf(sql, sizeof sql,
                        "CREATE TABLE t(a); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + "
                        "1 "
                        "FROM c WHERE i < %d) INSERT INTO t SELECT randomblob(3000) FROM c",
                        rows);
                db = world_connect(&world, name);
                run(db, sql);
                notes_take(&notes, &world, name, db);
                run(db, "UPDATE t SET a = randomblob(3000) WHERE rowid = 3");
                notes_take(&notes, &world, name, db);
                disconnect(db);
                if (rows > 5)
                        world_settle(&world);
                assert_int_equal(store_delete(world.store, object_path(name)), 0);
                store_loop_run(world.store);
                walk_read_journal(&world, name, &walk);
                for (size_t i = notes.n; i-- > 0;) {
                        walk_back(&world, &walk, notes.commits[i].lsn, &content, walk_read_spill);
                        content_check(&content, &notes.commits[i].content, notes.commits[i].lsn);
                        content_free(&notes.commits[i].content);
                }
                walk_done(&walk);
                content_free(&content);
                /* And it is gone all the same. */
                world_settle(&world);
                world_crash(&world, CRASH_DROP);
                assert_int_equal(store_delete(world.store, object_path(name)), -ENOENT);
        }
}

static void a_one_row_update_takes_few_bytes_with_what_was_before(void **state)
{
        StoreStats before, after;
        sqlite3 *db;

        world_stop(&world);
        world.options.segment_size = 4 << 20;
        world_start(&world);
        db = world_connect(&world, "cc01");
        run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, n, body)");
        run(db, "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 1000)"
                " INSERT INTO t SELECT i, 100000, randomblob(30) FROM c");
        disconnect(db);
        world_settle(&world);
        db = world_connect(&world, "cc01");
        store_get_stats(world.store, &before);
        for (int i = 0; i < 2000; i++) {
                char sql[80];

                snprintf(sql, sizeof sql, "UPDATE t SET n = n + 1 WHERE id = %u",
                        1 + world_draw(&world, 1000));
                run(db, sql);
                if (i % 100 == 99)
                        store_loop_run(world.store);
        }
        store_get_stats(world.store, &after);
        assert_true((after.record_bytes - before.record_bytes) / 2000 <= 200);
        disconnect(db);
}

static void without_an_archive_nothing_of_it_is_written(void **state)
{
        Walk walk = {};
        sqlite3 *db;

        world_stop(&world);
        world.options.archive = NULL;
        world_start(&world);
        db = world_connect(&world, "dd01");
        run(db, "CREATE TABLE t(a); INSERT INTO t VALUES(1); UPDATE t SET a = 2");
        disconnect(db);
        world_settle(&world);
        assert_int_equal(store_delete(world.store, object_path("dd01")), 0);
        store_loop_run(world.store);
        walk_read_journal(&world, "dd01", &walk);
        assert_true(walk.n >= 4);
        for (size_t i = 0; i < walk.n; i++) {
                const Record *record = &walk.records[i];
                Slice rest = record->payload;

                assert_int_equal(record->pages_before, 0);
                for (uint32_t j = 0; j < record->n_pages; j++) {
                        Page page;

                        assert_int_equal(page_decode(&rest, record->page_size, &page), 0);
                        assert_false(page_is_past(page.kind));
                }
                assert_true(record->type != RECORD_DELETE || !record->page_size);
        }
        walk_done(&walk);
}

#define TEST(_fn) cmocka_unit_test_setup_teardown(_fn, start, stop)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(going_back_gives_each_earlier_content, stop),
                TEST(a_deletion_can_be_taken_back),
                TEST(a_one_row_update_takes_few_bytes_with_what_was_before),
                TEST(without_an_archive_nothing_of_it_is_written),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
