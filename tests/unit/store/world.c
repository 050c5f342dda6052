/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store/world.h"

#include <string.h>

/* Connections that are open, so that a test that fails can be torn down. */
/* A run with the thread sanitizer takes those that have threads: the others are slow with it. */
static __attribute__((constructor)) void take_filter(void)
{
        const char *filter = getenv("DURABLED_TEST_FILTER");

        if (filter)
                cmocka_set_test_filter(filter);
}

static sqlite3 *connections[64];
/* Of the world that was made last. */
static const char *objects = OBJECTS;

static void note_connection(sqlite3 *db, sqlite3 *instead)
{
        for (size_t i = 0; i < ELEMENTSOF(connections); i++)
                if (connections[i] == db) {
                        connections[i] = instead;
                        return;
                }
}

static void on_log(int priority, const char *line, void *data)
{
        World *world = data;
        size_t used = strlen(world->log);

        snprintf(world->log + used, sizeof world->log - used, "%s\n", line);
}

static void on_failed(int error, const char *why, void *data)
{
        ((World *)data)->failures++;
}

static void set_options(World *world)
{
        objects = world->objects;
        world->options = (StoreOptions){
                .disk = world->disk,
                .journal = world->journal,
                .objects = world->objects,
                .segment_size = 2 << 20,
                .n_segments = 4,
                .log = on_log,
                .failed = on_failed,
                .data = world,
        };
}

void world_init(World *world, uint64_t seed)
{
        *world = (World){ .memory = memory_disk_new(seed), .objects = OBJECTS, .journal = JOURNAL };
        world->disk = memory_disk_get(world->memory);
        set_options(world);
}

void world_init_real(World *world)
{
        *world = (World){ .disk = disk_real(), .place = "/tmp/test-store-XXXXXX" };
        assert_non_null(mkdtemp(world->place));
        snprintf(world->objects, sizeof world->objects, "%s/objects", world->place);
        snprintf(world->journal, sizeof world->journal, "%s/journal/shop-0", world->place);
        set_options(world);
}

void world_done(World *world)
{
        char command[128];

        world_stop(world);
        if (world->memory) {
                memory_disk_free(world->memory);
        } else {
                snprintf(command, sizeof command, "rm -r %s", world->place);
                assert_int_equal(system(command), 0);
        }
}

int world_try_start(World *world)
{
        return store_open(&world->options, &world->store);
}

void world_start(World *world)
{
        int r = world_try_start(world);

        if (r)
                print_message("%s", world->log);
        assert_int_equal(r, 0);
}

void world_stop(World *world)
{
        for (size_t i = 0; i < ELEMENTSOF(connections); i++)
                sqlite3_close_v2(TAKE_PTR(connections[i]));
        if (world->store)
                world->store = store_close(world->store);
}

void world_crash(World *world, MemoryCrash crash)
{
        world_stop(world);
        memory_disk_crash(world->memory, crash);
        world_start(world);
}

void world_settle(World *world)
{
        int steps = 0;

        store_loop_run(world->store);
        while (store_background_step(world->store) > 0) {
                store_loop_run(world->store);
                assert_true(++steps < 100000);
        }
        store_loop_run(world->store);
}

const char *object_path(const char *name)
{
        static _Thread_local char paths[8][256];
        static _Thread_local unsigned next;
        char *path = paths[next++ % 8];

        snprintf(path, sizeof paths[0], "%s/shop-cart/%.2s/%s.sqlite", objects, name, name);
        return path;
}

static void make_folder(Disk *disk, const char *path)
{
        char part[256];

        for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
                if (disk_mkdir(disk, part) == 0) {
                        *strrchr(part, '/') = '\0';
                        disk_sync_folder(disk, part[0] ? part : "/");
                }
        }
}

sqlite3 *world_connect(World *world, const char *name)
{
        sqlite3 *db = NULL;

        make_folder(world->disk, object_path(name));
        if (sqlite3_open(object_path(name), &db) != SQLITE_OK) {
                disconnect(db);
                return NULL;
        }
        sqlite3_extended_result_codes(db, 1);
        note_connection(NULL, db);
        return db;
}

int try_run(sqlite3 *db, const char *sql)
{
        return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

void run(sqlite3 *db, const char *sql)
{
        int rc = try_run(db, sql);

        if (rc != SQLITE_OK)
                print_message("%s: %s\n", sql, sqlite3_errmsg(db));
        assert_int_equal(rc, SQLITE_OK);
}

int64_t ask(sqlite3 *db, const char *sql)
{
        sqlite3_stmt *statement = NULL;
        int64_t value = INT64_MIN;

        if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
                sqlite3_step(statement) == SQLITE_ROW)
                value = sqlite3_column_int64(statement, 0);
        sqlite3_finalize(statement);
        return value;
}

const char *ask_text(sqlite3 *db, const char *sql)
{
        static _Thread_local char texts[8][256];
        static _Thread_local unsigned next;
        char *text = texts[next++ % 8];
        sqlite3_stmt *statement = NULL;

        text[0] = '\0';
        if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
                sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_text(statement, 0))
                snprintf(text, sizeof texts[0], "%s",
                        (const char *)sqlite3_column_text(statement, 0));
        sqlite3_finalize(statement);
        return text;
}

int64_t rows(sqlite3 *db)
{
        return ask(db, "SELECT count(*) FROM t");
}

bool is_sound(sqlite3 *db)
{
        return strcmp(ask_text(db, "PRAGMA integrity_check"), "ok") == 0;
}

void disconnect(sqlite3 *db)
{
        note_connection(db, NULL);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
}
