/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* -1 stands for an error that world_excuses(). */

void object_init(Object *object, World *world, unsigned number)
{
        static const unsigned page_sizes[] = { 512, 1024, 4096, 4096, 4096, 8192 };

        *object = (Object){ .world = world, .number = number, .next_counter = 1 };
        snprintf(object->path, sizeof object->path, "/state/objects/key%u/%02x/object%u.sqlite",
                number % 2, number / 2 % 2, number);
        object->page_size = page_sizes[rng_below(&world->rng, ELEMENTSOF(page_sizes))];
        object->auto_vacuum = (int)rng_below(&world->rng, 3);
        object->hoards = world->hoards && number == 0;
        if (object->hoards)
                object->page_size = 512;
}

static void begin_anew(Object *object, const Content *content);

/* As lib/store/db.c makes them, by the first who comes: one that is there may be another's, who has
 * not synced its name yet. */
static int make_folder(Disk *disk, const char *path)
{
        char parent[sizeof((Object *)0)->path];
        int r = disk_mkdir(disk, path);

        if (r == -EEXIST)
                return 0;
        snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(path, '/') - path), path);
        if (r == -ENOENT) {
                r = make_folder(disk, parent);
                if (!r)
                        r = disk_mkdir(disk, path);
                if (r == -EEXIST)
                        r = 0;
        }
        return r ? r : disk_sync_folder(disk, parent);
}

static int make_folder_of(Object *object)
{
        char folder[sizeof object->path];

        snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(object->path, '/') - object->path),
                object->path);
        return make_folder(sim_disk_get(object->world->disk), folder);
}

/* A database that was made elsewhere, in rollback mode, with pages of another size. */
static void bring(Object *object)
{
        Disk *disk = sim_disk_get(object->world->disk);
        DiskFile *file = NULL;
        unsigned char *bytes = NULL;
        sqlite3_int64 size = 0;
        sqlite3 *db = NULL;
        Content content;
        int r;

        sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE, "unix");
        r = txn_execute(db, "PRAGMA page_size = %u; PRAGMA auto_vacuum = %d; %s", object->page_size,
                object->auto_vacuum, content_get_schema());
        if (r == SQLITE_OK)
                r = content_read(db, &content);
        if (r == SQLITE_OK)
                bytes = sqlite3_serialize(db, "main", &size, 0);
        dd_assert(bytes);
        content_close(db);
        r = make_folder_of(object);
        if (!r)
                r = disk_open(disk, object->path, DISK_CREATE, &file);
        if (!r)
                r = disk_write(file, bytes, (size_t)size, 0, 0);
        disk_close(file);
        sqlite3_free(bytes);
        if (!r)
                r = disk_sync_all(disk, "/");
        dd_assert(r == 0);
        begin_anew(object, &content);
}

void object_create(Object *object)
{
        Content none;

        content_clear(&none);
        if (object->hoards || rng_chance(&object->world->rng, 250))
                bring(object);
        else
                begin_anew(object, &none);
}

void object_done(Object *object)
{
        free(object->entries);
        free(object->pasts);
        object->entries = NULL;
        object->pasts = NULL;
}

static Entry *get_last(Object *object)
{
        return &object->entries[object->n_entries - 1];
}

/* The last one that is certain: what the object holds now. */
size_t object_find_current(const Object *object)
{
        size_t i = object->n_entries - 1;

        while (!object->entries[i].certain)
                i--;
        return i;
}

static void push_entry(Object *object, const Content *what, uint64_t lsn, bool certain)
{
        Content content = *what; /* may lie in what is moved */

        if (object->n_entries == object->room) {
                object->room = object->room ? object->room * 2 : 16;
                object->entries = realloc(object->entries, object->room * sizeof *object->entries);
                dd_assert(object->entries);
        }
        object->entries[object->n_entries++] = (Entry){
                .content = content,
                .hash = content_hash(&content),
                .lsn = lsn,
                .made_at = disk_clock_realtime(sim_disk_get(object->world->disk)),
                .certain = certain,
        };
}

static void close_db(Object *object, sqlite3 **db)
{
        sqlite3 *handle = TAKE_PTR(*db);
        int r;

        if (!handle)
                return;
        r = content_close(handle);
        if (r != SQLITE_OK)
                world_fail(
                        object->world, "object %u: close: %s", object->number, sqlite3_errstr(r));
}

void object_close(Object *object)
{
        close_db(object, &object->reader);
        close_db(object, &object->db[0]);
        close_db(object, &object->db[1]);
}

/* An error of SQLite that nothing excuses fails the world; BUSY and a full journal are answers. */
static int judge(Object *object, sqlite3 *db, const char *what, int r)
{
        World *world = object->world;

        if (r == SQLITE_OK || r == SQLITE_BUSY)
                return r;
        if ((r & 0xff) == SQLITE_CORRUPT || (r & 0xff) == SQLITE_NOTADB ||
                ((r & 0xff) != SQLITE_FULL && !world_excuses(world))) {
                if (!sim_disk_is_dead(world->disk))
                        world_fail(world, "object %u: %s: %s (%d)", object->number, what,
                                sqlite3_errmsg(db), sqlite3_extended_errcode(db));
        } else if ((r & 0xff) == SQLITE_FULL)
                world->stats.full++;
        return r;
}

static int configure(Object *object, sqlite3 *db)
{
        Rng *rng = &object->world->rng;
        int r;

        sqlite3_extended_result_codes(db, 1);
        r = txn_execute(db, "PRAGMA page_size = %u; PRAGMA auto_vacuum = %d", object->page_size,
                object->auto_vacuum);
        if (r == SQLITE_OK)
                r = txn_execute(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = %s",
                        rng_chance(rng, 700) ? "FULL" : "OFF");
        if (r == SQLITE_OK)
                r = txn_execute(db, "PRAGMA cache_size = %d; PRAGMA cache_spill = 5",
                        object->hoards         ? 4000
                        : rng_chance(rng, 500) ? 10
                                               : 300);
        if (r == SQLITE_OK)
                r = txn_execute(db, "PRAGMA temp_store = FILE; PRAGMA temp.cache_size = 10");
        if (r == SQLITE_OK && rng_chance(rng, 500))
                r = txn_execute(db, "PRAGMA wal_autocheckpoint = %d", (int)rng_below(rng, 40));
        return r;
}

static int open_db(Object *object, sqlite3 **ret)
{
        sqlite3 *db = NULL;
        int r = make_folder_of(object);

        if (r) {
                if (!world_excuses(object->world))
                        world_fail(object->world, "object %u: its folder: %d", object->number, r);
                return SQLITE_CANTOPEN;
        }
        r = sqlite3_open_v2(object->path, &db,
                SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
        if (r == SQLITE_OK)
                r = configure(object, db);
        if (r != SQLITE_OK) {
                judge(object, db, "open", r);
                if (r == SQLITE_BUSY)
                        world_fail(object->world, "object %u: open: busy", object->number);
                content_close(db);
                return r;
        }
        if (object->hoards)
                index_fault_install(object->world, db);
        *ret = db;
        return SQLITE_OK;
}

static sqlite3 *get_db(Object *object, unsigned i)
{
        if (!object->db[i] && open_db(object, &object->db[i]) != SQLITE_OK)
                return NULL;
        return object->db[i];
}

/* An answer that shows an entry goes to the gate. */
static void answer(Object *object, size_t entry)
{
        World *world = object->world;
        Answer *one = calloc(1, sizeof *one);

        dd_assert(one);
        one->object = object;
        one->entry = entry;
        one->waiter.lsn = store_object_lsn(world->store, object->path);
        list_init(&one->link);
        list_append(&world->answers, &one->link);
}

void object_explain(Object *object, const char *what, const Content *want, const Content *got)
{
        char text[200];

        content_explain(want, got, text, sizeof text);
        world_fail(object->world, "object %u: %s: %s", object->number, what, text);
}

static void expect(Object *object, const char *what, const Content *got, size_t entry)
{
        if (content_hash(got) != object->entries[entry].hash)
                object_explain(object, what, &object->entries[entry].content, got);
}

static void read_and_expect(Object *object, sqlite3 *db, const char *what)
{
        Content got;

        if (judge(object, db, what, content_read(db, &got)) == SQLITE_OK)
                expect(object, what, &got, object_find_current(object));
}

/*
 * After a commit that failed: the object, opened anew, must be without it. SQLite commits the
 * object before a temporary file: where that one found no room, the object may have it as well.
 */
static void mend(Object *object)
{
        World *world = object->world;
        sqlite3 *db = get_db(object, 0);
        const Entry *last = get_last(object);
        Content got;

        if (!db || judge(object, db, "read after an error", content_read(db, &got)) != SQLITE_OK) {
                object_close(object);
                return;
        }
        if (!world->temporaries_fail || last->certain || content_hash(&got) != last->hash)
                expect(object, "a commit failed, and then", &got, object_find_current(object));
        push_entry(object, &got, store_object_lsn(world->store, object->path), true);
        object->broken = false;
        answer(object, object->n_entries - 1);
}

void object_abandon(Object *object, const Content *maybe)
{
        if (maybe)
                push_entry(object, maybe, UINT64_MAX, false);
        object->broken = true;
        object_close(object);
}

void object_committed(Object *object, const Content *content)
{
        push_entry(object, content, store_object_lsn(object->world->store, object->path), true);
        answer(object, object->n_entries - 1);
}

static void roll_back(Object *object, sqlite3 *db)
{
        if (!sqlite3_get_autocommit(db) &&
                judge(object, db, "rollback", txn_step(db, "ROLLBACK")) != SQLITE_OK)
                object_abandon(object, NULL);
        object->world->stats.rollbacks++;
}

static void commit(Object *object, sqlite3 *db, const Content *content)
{
        World *world = object->world;
        int r;

        r = judge(object, db, "commit", txn_step(db, "COMMIT"));
        if (r == SQLITE_OK) {
                object_committed(object, content);
                world_log(world, "object %u: commit %lld, lsn %llu", object->number,
                        (long long)content->counter, (unsigned long long)get_last(object)->lsn);
                world->stats.commits++;
                if (rng_chance(&world->rng, 150))
                        past_note(object);
                return;
        }
        if (r == SQLITE_BUSY) {
                roll_back(object, db);
                return;
        }
        world_log(world, "object %u: commit %lld failed: %d", object->number,
                (long long)content->counter, r);
        world->stats.failed_commits++;
        if (!sqlite3_get_autocommit(db))
                txn_step(db, "ROLLBACK");
        object_abandon(object, content);
}

static void transaction(Object *object)
{
        World *world = object->world;
        Rng *rng = &world->rng;
        unsigned i = (unsigned)rng_below(rng, 2);
        sqlite3 *db = get_db(object, i);
        Content content = object->entries[object_find_current(object)].content;
        int r;

        if (!db || !store_has_room(world->store))
                return;
        r = judge(object, db, "begin",
                txn_step(db, rng_chance(rng, 700) ? "BEGIN IMMEDIATE" : "BEGIN"));
        if (r != SQLITE_OK)
                return;
        r = judge(object, db, "change", txn_run(object, db, &content));
        /* What is not committed is seen by nobody else. */
        if (r == SQLITE_OK && object->db[!i] && rng_chance(rng, 60))
                read_and_expect(object, object->db[!i], "a read beside a transaction");
        if (r == SQLITE_OK && rng_chance(rng, 880))
                commit(object, db, &content);
        else
                roll_back(object, db);
}

bool object_look(Object *object, Content *ret)
{
        sqlite3 *db = get_db(object, 0);

        return db && judge(object, db, "a look", content_read(db, ret)) == SQLITE_OK;
}

void object_read_now(Object *object)
{
        sqlite3 *db = get_db(object, (unsigned)rng_below(&object->world->rng, 2));

        if (!db)
                return;
        read_and_expect(object, db, "a read");
        answer(object, object_find_current(object));
        object->world->stats.reads++;
}

/* A reader that stays on its snapshot, looks again, and ends. */
static void read_long(Object *object)
{
        Rng *rng = &object->world->rng;
        Content got;
        int r;

        if (object->entries[object_find_current(object)].content.counter < 0)
                return;
        if (!object->reader) {
                if (open_db(object, &object->reader) != SQLITE_OK)
                        return;
                r = txn_execute(object->reader, "BEGIN; SELECT count(*) FROM t");
                object->reader_entry = object_find_current(object);
                if (judge(object, object->reader, "begin to read", r) != SQLITE_OK)
                        close_db(object, &object->reader);
                return;
        }
        r = judge(object, object->reader, "a long read", content_read(object->reader, &got));
        if (r == SQLITE_OK)
                expect(object, "a long read", &got, object->reader_entry);
        if (r != SQLITE_OK || rng_chance(rng, object->hoards ? 5 : 400))
                close_db(object, &object->reader);
}

static void tune(Object *object)
{
        static const char *const pragmas[] = {
                "PRAGMA wal_checkpoint(PASSIVE)",
                "PRAGMA wal_checkpoint(FULL)",
                "PRAGMA wal_checkpoint(RESTART)",
                "PRAGMA wal_checkpoint(TRUNCATE)",
                "PRAGMA journal_mode = DELETE",
                "PRAGMA locking_mode = EXCLUSIVE",
                "PRAGMA synchronous = OFF",
                "PRAGMA journal_size_limit = 1000",
        };
        const char *pragma = pragmas[rng_below(&object->world->rng, ELEMENTSOF(pragmas))];
        sqlite3 *db = get_db(object, 0);

        if (db)
                judge(object, db, pragma, txn_execute(db, "%s", pragma));
}

static void vacuum(Object *object)
{
        World *world = object->world;
        sqlite3 *db = get_db(object, 1);
        Content same = object->entries[object_find_current(object)].content;
        const char *sql = rng_chance(&world->rng, 500) ? "VACUUM" : "PRAGMA incremental_vacuum";
        int r;

        if (!db || !store_has_room(world->store))
                return;
        r = judge(object, db, sql, txn_execute(db, "%s", sql));
        if (r == SQLITE_BUSY)
                return;
        if (r != SQLITE_OK) {
                object_abandon(object, &same);
                return;
        }
        object_committed(object, &same);
        world->stats.vacuums++;
}

static void delete (Object *object)
{
        World *world = object->world;
        StoreStats stats;
        Content none;
        int r;

        content_clear(&none);
        object_close(object);
        r = store_delete(world->store, object->path);
        if (r == 0) {
                store_get_stats(world->store, &stats);
                world->forgets |= stats.deletes_untold > 0;
                object_committed(object, &none);
                world_log(world, "object %u: deleted, lsn %llu", object->number,
                        (unsigned long long)get_last(object)->lsn);
                world->stats.deletes++;
                past_note(object);
                return;
        }
        if (r == -ENOENT && object->entries[object_find_current(object)].content.counter < 0)
                return;
        if (r != -ENOSPC && !world_excuses(world))
                world_fail(world, "object %u: delete: %d", object->number, r);
        object_abandon(object, &none);
}

static void sync_now(Object *object)
{
        World *world = object->world;
        size_t entry = object_find_current(object);
        uint64_t lsn = store_object_lsn(world->store, object->path);
        int r;

        r = store_sync(world->store, lsn);
        if (r == 0 && sim_disk_is_dead(world->disk) && store_flushed(world->store) < lsn)
                world_fail(world, "object %u: a sync came back from a dead disk", object->number);
        else if (r == 0 && entry > object->shown)
                object->shown = entry;
        else if (r && !world_excuses(world))
                world_fail(world, "object %u: sync: %d", object->number, r);
}

static void check(Object *object)
{
        sqlite3 *db = get_db(object, 0);
        char text[200] = "";

        if (db &&
                judge(object, db, "integrity_check", content_check(db, text, sizeof text)) ==
                        SQLITE_OK &&
                strcmp(text, "ok") != 0 && !world_excuses(object->world))
                world_fail(object->world, "object %u: integrity_check: %s", object->number, text);
}

void object_step(Object *object)
{
        Rng *rng = &object->world->rng;
        unsigned action = (unsigned)rng_below(rng, 1000);

        if (object->unseen)
                object_verify(object);
        else if (object->broken)
                mend(object);
        else if (action < 640)
                transaction(object);
        else if (action < 760)
                object_read_now(object);
        else if (action < 840)
                read_long(object);
        else if (action < 880)
                tune(object);
        else if (action < 905)
                vacuum(object);
        else if (action < 940)
                close_db(object, &object->db[action % 2]);
        else if (action < 955)
                delete (object);
        else if (action < 970)
                sync_now(object);
        else if (action < 992)
                past_step(object);
        else
                check(object);
}

static size_t find_allowed(const Object *object, const Content *got)
{
        uint64_t hash = content_hash(got);

        for (size_t i = object->n_entries; i-- > object->shown;)
                if (object->entries[i].hash == hash)
                        return i;
        return SIZE_MAX;
}

/* Several may hold the same: the first of them is what is there for certain. */
static size_t find_certain(const Object *object, size_t entry)
{
        size_t i = object->shown;

        while (object->entries[i].hash != object->entries[entry].hash)
                i++;
        return i;
}

static void begin_anew(Object *object, const Content *content)
{
        object->n_entries = 0;
        object->shown = 0;
        object->broken = false;
        push_entry(object, content, 0, true);
        get_last(object)->shown_at = get_last(object)->made_at;
}

/* Of SQLite's integrity_check. */
static bool tells_of_reads(const char *text)
{
        static const char *const words[] = { "unable to get", "ailed to read", "ailed to get" };

        for (size_t i = 0; i < ELEMENTSOF(words); i++)
                if (strstr(text, words[i]))
                        return true;
        return false;
}

void object_verify(Object *object)
{
        World *world = object->world;
        sqlite3 *db = NULL;
        char text[200] = "";
        Content got;
        size_t i;

        if (open_db(object, &db) != SQLITE_OK)
                return;
        if (judge(object, db, "read after recovery", content_read(db, &got)) == SQLITE_OK &&
                judge(object, db, "integrity_check", content_check(db, text, sizeof text)) ==
                        SQLITE_OK) {
                i = find_allowed(object, &got);
                if (strcmp(text, "ok") != 0) {
                        /* It tells that it cannot read like any other finding; that may be a
                         * fault of the disk, and what it could not read is read another time. */
                        bool is_fault = world_excuses(world) && tells_of_reads(text);

                        if (!is_fault && !sim_disk_is_dead(world->disk))
                                world_fail(world, "object %u after recovery: %s", object->number,
                                        text);
                } else if (i == SIZE_MAX) {
                        content_explain(
                                &object->entries[object->shown].content, &got, text, sizeof text);
                        world_fail(world,
                                "object %u after recovery: none of %zu entries from the last one "
                                "shown: %s",
                                object->number, object->n_entries - object->shown, text);
                } else {
                        world->stats.entries_shown += object->shown;
                        world->stats.entries_lost += object->n_entries - 1 - i;
                        world_log(world, "object %u: recovered commit %lld, entry %zu of %zu..%zu",
                                object->number, (long long)got.counter, i, object->shown,
                                object->n_entries - 1);
                        past_settle(object, find_certain(object, i));
                        begin_anew(object, &got);
                        object->unseen = false;
                }
        }
        close_db(object, &db);
}

/* The file's bytes in SQLite's memory VFS, which knows no WAL: the header says otherwise. */
bool object_read_file(Object *object, const char *path, Content *ret)
{
        World *world = object->world;
        sqlite3 *db = NULL;
        unsigned char *copy;
        char text[200] = "";
        Slice file;
        int r;

        content_clear(ret);
        if (sim_disk_peek(world->disk, path, &file) != 0 || file.len < 512)
                return false;
        copy = sqlite3_malloc64(file.len);
        dd_assert(copy);
        memcpy(copy, file.data, file.len);
        copy[18] = copy[19] = 1;
        sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE, NULL);
        r = sqlite3_deserialize(db, "main", copy, (sqlite3_int64)file.len, (sqlite3_int64)file.len,
                SQLITE_DESERIALIZE_FREEONCLOSE);
        if (r == SQLITE_OK)
                r = content_read(db, ret);
        if (r == SQLITE_OK)
                r = content_check(db, text, sizeof text);
        if (r != SQLITE_OK || strcmp(text, "ok") != 0)
                world_fail(world, "object %u: the file alone: %s, %s", object->number,
                        sqlite3_errmsg(db), text);
        content_close(db);
        return true;
}

void object_verify_file(Object *object)
{
        Content got;

        object_read_file(object, object->path, &got);
        expect(object, "the file alone", &got, object_find_current(object));
}
