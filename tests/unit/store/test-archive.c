/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive-read.h"
#include "tests/unit/store/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ARCHIVE "/state/archive/shop/0"

static World world;

static Notes notes;

static const DiskOps *real_ops;
static DiskOps ops;
static bool is_full, is_pruning, is_unreadable;
static DiskFile *segment; /* as the archive has it */
/* Of the file of the archive that is being written. */
static const DiskFile *new_file;
static size_t unsynced, unsynced_most, in_step, in_step_most;

static int open_unless_full(Disk *disk, const char *path, unsigned flags, DiskFile **ret)
{
        int r = is_full && flags & DISK_CREATE && strstr(path, "/archive/")
                        ? -ENOSPC
                        : real_ops->open(disk, path, flags, ret);

        if (!r && strstr(path, ".archive.new"))
                new_file = *ret;
        if (!r && strstr(path, "/segment-") && flags & DISK_READ_ONLY)
                segment = *ret;
        return r;
}

static int read_if_readable(
        DiskFile *file, void *data, size_t len, uint64_t offset, size_t *ret_len)
{
        if (is_unreadable && file == segment)
                return -EIO;
        return real_ops->read(file, data, len, offset, ret_len);
}

static int count_write(
        DiskFile *file, const void *data, size_t len, uint64_t offset, unsigned flags)
{
        if (file == new_file) {
                unsynced += len;
                in_step += len;
                unsynced_most = MAX(unsynced_most, unsynced);
                in_step_most = MAX(in_step_most, in_step);
        }
        return real_ops->write(file, data, len, offset, flags);
}

static int count_sync(DiskFile *file)
{
        if (file == new_file)
                unsynced = 0;
        return real_ops->sync(file);
}

/* A slot's start prunes the others' folders: a file may go at any time. */
static int stat_unless_pruned(Disk *disk, const char *path, uint64_t *ret)
{
        if (is_pruning && strstr(path, ".archive"))
                disk_unlink(disk, path);
        return real_ops->stat_size(disk, path, ret);
}

static int start(void **state)
{
        world_init(&world, 5);
        real_ops = world.disk->ops;
        ops = *real_ops;
        ops.open = open_unless_full;
        ops.stat_size = stat_unless_pruned;
        ops.write = count_write;
        ops.sync = count_sync;
        world.disk->ops = &ops;
        ops.read = read_if_readable;
        is_full = is_pruning = is_unreadable = false;
        new_file = NULL;
        unsynced = unsynced_most = in_step_most = 0;
        world.options.archive = ARCHIVE;
        world.options.segment_size = 256 << 10;
        world.options.n_segments = 4;
        world.options.spill_size = 96 << 10;
        world.options.checkpoint_at = 16;
        world_start(&world);
        notes_forget(&notes, 0);
        return 0;
}

static int stop(void **state)
{
        notes_forget(&notes, 0);
        world_done(&world);
        return 0;
}

static ArchiveFile *open_file(uint64_t first_lsn)
{
        _cleanup_(free_p) char *path = archive_path(ARCHIVE, first_lsn);
        static ArchiveDamage damage;
        ArchiveFile *file = NULL;
        int r = archive_open(world.disk, path, &damage, &file);

        if (r)
                print_message("%s: offset %llu: %s\n", path, (unsigned long long)damage.offset,
                        damage.what);
        assert_int_equal(r, 0);
        r = archive_verify(file);
        if (r)
                print_message("%s: offset %llu: %s\n", path, (unsigned long long)damage.offset,
                        damage.what);
        assert_int_equal(r, 0);
        return file;
}

/* Every file is whole and follows the one before; their number. */
static size_t check_chain(uint64_t *ret_last)
{
        uint64_t *lsns, last = 0;
        size_t n;

        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        for (size_t i = 0; i < n; i++) {
                ArchiveFile *file = open_file(lsns[i]);
                const ArchiveHeader *header = archive_get_header(file);

                assert_int_equal(header->first_lsn, lsns[i]);
                if (i)
                        assert_int_equal(header->follows, last);
                last = header->last_lsn;
                archive_close(file);
        }
        free(lsns);
        *ret_last = last;
        return n;
}

static void walk_read_archive(const char *name, Walk *walk)
{
        Slice wanted = slice_from(object_path(name) + sizeof OBJECTS);
        uint64_t *lsns;
        size_t n;

        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        for (size_t i = 0; i < n; i++) {
                ArchiveFile *file = open_file(lsns[i]);
                ArchiveObject *object;
                ArchiveEntry entry;
                int r = archive_find(file, wanted, &entry);

                assert_true(r == 0 || r == ARCHIVE_E_ABSENT);
                if (r == 0) {
                        assert_int_equal(archive_object_open(file, &entry, &object), 0);
                        for (size_t j = 0; j < archive_object_get_count(object); j++) {
                                Record record;

                                archive_object_get_record(object, j, &record);
                                walk_add(walk, &record);
                        }
                        archive_object_close(object);
                }
                archive_close(file);
        }
        free(lsns);
}

typedef struct Past {
        PastFn fn;
        void *data;
        size_t n;
} Past;

static int see_past(uint32_t number, const unsigned char *page, void *data)
{
        Past *past = data;

        past->fn(number, page, past->data);
        past->n++;
        return 0;
}

static Slice walked;

static void read_past(World *w, const Record *record, PastFn fn, void *data)
{
        Past past = { .fn = fn, .data = data };
        uint64_t *lsns;
        size_t n, at;

        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        for (at = n; at > 0 && lsns[at - 1] > record->lsn; at--)
                ;
        if (at > 0) {
                ArchiveFile *file = open_file(lsns[at - 1]);
                ArchiveObject *object;
                ArchiveEntry entry;

                if (record->lsn <= archive_get_header(file)->last_lsn) {
                        assert_int_equal(archive_find(file, walked, &entry), 0);
                        assert_int_equal(archive_object_open(file, &entry, &object), 0);
                        assert_int_equal(
                                archive_object_read_past(object, record, see_past, &past), 0);
                        archive_object_close(object);
                        archive_close(file);
                        free(lsns);
                        return;
                }
                archive_close(file);
        }
        free(lsns);
        walk_read_spill(w, record, fn, data);
}

/* Goes back from what the object is to all that was noted. */
static void check_history(const char *name)
{
        sqlite3 *db = world_connect(&world, name);
        Content content = content_of(db);
        Walk walk = {}, journal = {};
        uint64_t last = 0;

        disconnect(db);
        walked = slice_from(object_path(name) + sizeof OBJECTS);
        check_chain(&last);
        walk_read_archive(name, &walk);
        walk_read_journal(&world, name, &journal);
        for (size_t i = 0; i < journal.n; i++)
                if (journal.records[i].lsn > last)
                        walk_add(&walk, &journal.records[i]);
        walk_done(&journal);
        for (size_t i = notes.n; i-- > 0;) {
                walk_back(&world, &walk, notes.commits[i].lsn, &content, read_past);
                content_check(&content, &notes.commits[i].content, notes.commits[i].lsn);
        }
        walk_done(&walk);
        content_free(&content);
}

static int transact(sqlite3 *db)
{
        static const char *const steps[] = {
                "INSERT INTO t VALUES(NULL, 1, randomblob(2000))",
                "INSERT INTO t VALUES(NULL, 2, randomblob(6000))",
                "UPDATE t SET n = n + 1 WHERE id % 7 = 3",
                "UPDATE t SET body = randomblob(length(body)) WHERE id % 5 = 1",
                "DELETE FROM t WHERE id % 3 = 0 AND id > 20",
                ("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 12)"
                 " INSERT INTO t SELECT NULL, i, randomblob(2500) FROM c"),
                "DELETE FROM t WHERE id % 40 > 20; VACUUM",
        };

        return try_run(db, steps[world_draw(&world, ELEMENTSOF(steps))]);
}

static void make_table(const char *name)
{
        sqlite3 *db = world_connect(&world, name);

        run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, n, body)");
        notes_take(&notes, &world, name, db);
        store_loop_run(world.store);
        disconnect(db);
}

static void what_is_retired_is_in_the_archive(void **state)
{
        StoreStats stats;
        uint64_t last;

        make_table("aa01");
        for (int life = 0; life < 5; life++) {
                sqlite3 *db = world_connect(&world, "aa01");
                sqlite3 *other = world_connect(&world, "aa02");

                run(db, "PRAGMA cache_size = 10");
                run(other, "CREATE TABLE IF NOT EXISTS t(a)");
                for (int i = 0; i < 120; i++) {
                        assert_int_equal(transact(db), SQLITE_OK);
                        notes_take(&notes, &world, "aa01", db);
                        run(other, "INSERT INTO t VALUES(randomblob(300))");
                        world_settle(&world);
                }
                store_get_stats(world.store, &stats);
                assert_true(stats.archived_segments > 3 && stats.retired_segments > 3);
                disconnect(db);
                disconnect(other);
                if (life % 2)
                        world_crash(&world, CRASH_TEAR);
                else
                        world_settle(&world);
                check_history("aa01");
        }
        assert_true(check_chain(&last) > 10);
        store_get_stats(world.store, &stats);
        assert_true(stats.archive_bytes > 0 && stats.archive_files > 10);
        assert_int_equal(stats.spills > 0, 1);
}

/* The world's power fails at a call; what was flushed stays, and its history. */
static bool live_until(uint64_t call)
{
        sqlite3 *db;
        uint64_t flushed;
        bool is_cut;

        memory_disk_cut(world.memory, memory_disk_get_calls(world.memory) + call);
        db = world_connect(&world, "aa01");
        for (int i = 0; db && i < 12 && transact(db) == SQLITE_OK; i++) {
                if (!memory_disk_is_cut(world.memory))
                        notes_take(&notes, &world, "aa01", db);
                store_loop_run(world.store);
                while (store_background_step(world.store) > 0)
                        store_loop_run(world.store);
        }
        flushed = store_flushed(world.store);
        while (notes.n && notes.commits[notes.n - 1].lsn > flushed)
                notes_forget(&notes, notes.n - 1);
        is_cut = memory_disk_is_cut(world.memory);
        world_stop(&world);
        memory_disk_cut(world.memory, 0);
        memory_disk_crash(world.memory, CRASH_TEAR);
        return is_cut;
}

static void a_cut_at_any_point_leaves_no_gap(void **state)
{
        uint64_t call = 1;
        int r;

        make_table("aa01");
        for (int i = 0; i < 60; i++) {
                live_until(call);
                call += 1 + world_draw(&world, 40);
                /* And in the recovery. */
                memory_disk_cut(world.memory,
                        memory_disk_get_calls(world.memory) + 1 + (uint64_t)world_draw(&world, 60));
                r = world_try_start(&world);
                if (r == 0)
                        world_stop(&world);
                memory_disk_cut(world.memory, 0);
                memory_disk_crash(world.memory, CRASH_TEAR);
                world_start(&world);
                if (i % 6 == 5)
                        check_history("aa01");
                if (notes.n > 300)
                        notes_forget(&notes, 1);
        }
}

static void a_full_disk_keeps_the_journal_until_there_is_room(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        StoreStats stats;
        uint64_t last;
        int rc = SQLITE_OK;

        run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, n, body)");
        is_full = true;
        for (int i = 0; i < 1000 && rc == SQLITE_OK; i++) {
                rc = try_run(db, "INSERT INTO t VALUES(NULL, 1, randomblob(3000))");
                notes_take(&notes, &world, "aa01", db);
                world_settle(&world);
        }
        assert_int_equal(rc, SQLITE_FULL);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.retired_segments, 0);
        assert_int_equal(stats.archive_files, 0);
        assert_non_null(strstr(world.log, "cannot be archived"));
        is_full = false;
        world_settle(&world);
        assert_non_null(strstr(world.log, "archived again"));
        run(db, "INSERT INTO t VALUES(NULL, 1, randomblob(3000))");
        notes_take(&notes, &world, "aa01", db);
        world_settle(&world);
        assert_true(check_chain(&last) > 1);
        disconnect(db);
        check_history("aa01");
}

/* Until enough segments have been begun for one to be retired. */
static int write_some(sqlite3 *db)
{
        int rc = SQLITE_OK, n = 0;

        for (; n < 1000 && rc == SQLITE_OK; n++) {
                rc = try_run(db, "INSERT INTO t VALUES(NULL, 1, randomblob(3000))");
                world_settle(&world);
        }
        assert_true(rc == SQLITE_OK || rc == SQLITE_FULL);
        return n;
}

static void a_segment_that_cannot_be_read_for_long_leaves_a_gap(void **state)
{
        sqlite3 *db = world_connect(&world, "aa01");
        char early[STORE_BOOKMARK_LEN + 1], undo[STORE_BOOKMARK_LEN + 1];
        StoreStats stats;
        int64_t n;

        run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, n, body)");
        assert_int_equal(store_get_bookmark(world.store, object_path("aa01"), early), 0);
        is_unreadable = true;
        n = write_some(db) - 1;
        assert_int_equal(
                try_run(db, "INSERT INTO t VALUES(NULL, 1, randomblob(3000))"), SQLITE_FULL);
        assert_non_null(strstr(world.log, "cannot be archived"));
        memory_disk_advance(world.memory, UINT64_C(9) * 1000000000);
        world_settle(&world);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.archive_gaps, 0);
        assert_int_equal(stats.retired_segments, 0);
        memory_disk_advance(world.memory, UINT64_C(2) * 1000000000);
        world_settle(&world);
        world_settle(&world);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.archive_gaps, 1);
        assert_non_null(strstr(world.log, "of the journal cannot be read: Input/output error"));
        /* The next one can be read. */
        is_unreadable = false;
        world_settle(&world);
        assert_non_null(strstr(world.log, "archived again"));
        run(db, "INSERT INTO t VALUES(NULL, 1, randomblob(3000))");
        world_settle(&world);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.archive_gaps, 1);
        assert_true(stats.retired_segments > 0);
        assert_int_equal(ask(db, "SELECT count(*) FROM t"), n + 1);
        assert_int_equal(
                store_restore(world.store, object_path("aa01"), early, object_path("aa01"), undo),
                STORE_E_PRUNED);
        disconnect(db);
}

static void recovery_on_a_full_disk_goes_on_with_a_gap(void **state)
{
        uint64_t *lsns;
        size_t n;
        ArchiveFile *file;

        make_table("aa01");
        world_crash(&world, CRASH_DROP);
        make_table("aa02");
        is_full = true;
        world_crash(&world, CRASH_DROP);
        assert_non_null(strstr(world.log, "cannot be archived"));
        is_full = false;
        make_table("aa03");
        world_crash(&world, CRASH_DROP);
        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        assert_int_equal(n, 2);
        file = open_file(lsns[1]);
        assert_int_equal(archive_get_header(file)->follows, lsns[1] - 1);
        archive_close(file);
        file = open_file(lsns[0]);
        assert_true(archive_get_header(file)->last_lsn < lsns[1] - 1);
        archive_close(file);
        free(lsns);
}

static void a_life_without_an_archive_is_a_gap(void **state)
{
        uint64_t *lsns;
        size_t n;
        ArchiveFile *file;

        make_table("aa01");
        world_stop(&world);
        world.options.archive = NULL;
        world_start(&world);
        make_table("aa02");
        world_stop(&world);
        world.options.archive = ARCHIVE;
        world_start(&world);
        /* A life without records is none. */
        world_crash(&world, CRASH_DROP);
        make_table("aa03");
        world_crash(&world, CRASH_DROP);
        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        assert_int_equal(n, 1);
        file = open_file(lsns[0]);
        assert_true(archive_get_header(file)->follows > 0);
        archive_close(file);
        free(lsns);
}

/* Some files, of one life each. */
static void make_files(unsigned n, uint64_t ns_between)
{
        for (unsigned i = 0; i < n; i++) {
                char name[16];

                snprintf(name, sizeof name, "cc%02u", i);
                make_table(name);
                memory_disk_advance(world.memory, ns_between);
                world_crash(&world, CRASH_DROP);
        }
}

static size_t count_files(void)
{
        uint64_t *lsns;
        size_t n;

        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        free(lsns);
        return n;
}

static void files_go_when_they_are_too_old(void **state)
{
        uint64_t day = UINT64_C(86400) * 1000000000, last;
        StoreStats stats;

        world_stop(&world);
        world.options.archive_days = 4;
        world_start(&world);
        make_files(6, day / 2);
        world_settle(&world);
        assert_int_equal(count_files(), 6);
        memory_disk_advance(world.memory, day + 1000000000);
        world_settle(&world);
        assert_int_equal(count_files(), 5);
        memory_disk_advance(world.memory, day);
        world_settle(&world);
        assert_int_equal(count_files(), 3);
        assert_int_equal(check_chain(&last), 3);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.archive_pruned, 3);
        assert_int_equal(stats.archive_files, 3);
        memory_disk_advance(world.memory, 10 * day);
        world_settle(&world);
        assert_int_equal(count_files(), 0);
}

static void what_a_slot_left_goes_when_it_is_too_old(void **state)
{
        uint64_t day = UINT64_C(86400) * 1000000000;

        make_files(3, day);
        world_stop(&world);
        world.options.archive = "/state/archive/shop/1";
        world.options.journal = "/state/journal/shop-1";
        world.options.archive_days = 40;
        world_start(&world);
        assert_int_equal(count_files(), 3);
        world_stop(&world);
        memory_disk_advance(world.memory, 38 * day);
        world_start(&world);
        assert_int_equal(count_files(), 1);
}

static void a_start_while_another_slot_prunes_is_a_start(void **state)
{
        StoreStats stats;

        make_files(3, 1000);
        world_stop(&world);
        is_pruning = true;
        world_start(&world);
        is_pruning = false;
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.archive_files, 0);
        assert_int_equal(stats.archive_bytes, 0);
}

/* Recovery finds one that is damaged and has what it held. */
/* Journal writes do not queue behind all of a file, nor does the rest of the background. */
static void a_large_file_is_written_in_short_steps(void **state)
{
        sqlite3 *db;

        world_stop(&world);
        world.options.segment_size = 16 << 20;
        world.options.spill_size = 2 << 20;
        world_start(&world);
        db = world_connect(&world, "aa01");
        run(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, n, body)");
        run(db, "INSERT INTO t(body) VALUES(randomblob(12000000))");
        world_settle(&world);
        run(db, "UPDATE t SET body = randomblob(12000000)");
        for (int i = 0; i < 40; i++) {
                run(db, "INSERT INTO t(body) VALUES(randomblob(400000))");
                store_loop_run(world.store);
        }
        disconnect(db);
        store_set_draining(world.store, true);
        do {
                in_step = 0;
                store_loop_run(world.store);
        } while (store_background_step(world.store) > 0);
        assert_in_range(in_step_most, 1 << 20, 3 << 20);
        assert_in_range(unsynced_most, 1 << 20, 5 << 20);
}

static void a_file_that_is_written_anew_counts_once(void **state)
{
        uint64_t *lsns, bytes = 0, size;
        unsigned char *data;
        StoreStats stats;
        size_t n, len;
        sqlite3 *db;
        char *path;

        world_stop(&world);
        world.options.n_segments = 8;
        world_start(&world);
        db = world_connect(&world, "aa01");
        run(db, "CREATE TABLE t(a)");
        for (int i = 0; i < 15; i++) {
                run(db, "INSERT INTO t VALUES(randomblob(30000))");
                world_settle(&world);
        }
        disconnect(db);
        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        assert_true(n >= 2);
        path = archive_path(ARCHIVE, lsns[0]);
        data = memory_disk_find(world.memory, path, &len);
        data[20] ^= 1;
        store_get_stats(world.store, &stats);
        assert_true(stats.segments_live > n);
        world_stop(&world);
        world_start(&world);
        free(path);
        free(lsns);
        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        for (size_t i = 0; i < n; i++) {
                path = archive_path(ARCHIVE, lsns[i]);
                assert_int_equal(disk_stat_size(world.disk, path, &size), 0);
                bytes += size;
                free(path);
        }
        free(lsns);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.archive_files, n);
        assert_int_equal(stats.archive_bytes, bytes);
}

static void files_go_when_they_are_too_many(void **state)
{
        StoreStats stats;
        uint64_t size;

        make_files(6, 1000);
        world_settle(&world);
        store_get_stats(world.store, &stats);
        assert_int_equal(stats.archive_files, 6);
        size = stats.archive_bytes;
        world_stop(&world);
        world.options.archive_max = size / 2;
        world_start(&world);
        while (store_background_step(world.store) > 0)
                ;
        store_get_stats(world.store, &stats);
        assert_in_range(stats.archive_files, 2, 3);
        assert_true(stats.archive_bytes <= size / 2);
        assert_int_equal(count_files(), stats.archive_files);
        store_get_stats(world.store, &stats);
}

static int judge(const char *path, ArchiveDamage *damage)
{
        ArchiveFile *file = NULL;
        int r = archive_open(world.disk, path, damage, &file);

        if (!r)
                r = archive_verify(file);
        archive_close(file);
        return r;
}

static void a_torn_file_is_refused_where_it_is_torn(void **state)
{
        _cleanup_(free_p) char *path = NULL;
        ArchiveDamage damage = {};
        DiskFile *file;
        uint64_t *lsns;
        size_t n, size;
        unsigned char *bytes;

        make_files(1, 1000);
        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        path = archive_path(ARCHIVE, lsns[0]);
        free(lsns);
        bytes = memory_disk_find(world.memory, path, &size);
        assert_int_equal(judge(path, &damage), 0);
        for (size_t i = 0; i < size; i++) {
                bytes[i] ^= 0x40;
                assert_int_equal(judge(path, &damage), -EBADMSG);
                assert_true(damage.offset <= i && damage.what[0]);
                bytes[i] ^= 0x40;
        }
        assert_int_equal(disk_open(world.disk, path, 0, &file), 0);
        assert_int_equal(disk_truncate(file, size - 7), 0);
        assert_int_equal(judge(path, &damage), -EBADMSG);
        assert_int_equal(damage.offset, size - 7);
        assert_int_equal(disk_truncate(file, 50), 0);
        assert_int_equal(judge(path, &damage), -EBADMSG);
        assert_int_equal(damage.offset, 50);
        disk_close(file);
}

static void a_header_of_more_objects_than_fit_is_refused(void **state)
{
        ArchiveHeader header = { .first_lsn = 1,
                .last_lsn = 2,
                .index_offset = ARCHIVE_HEADER_SIZE,
                .names_offset = ARCHIVE_HEADER_SIZE + ARCHIVE_BLOCK_SIZE,
                .samples_offset = ARCHIVE_HEADER_SIZE + ARCHIVE_BLOCK_SIZE,
                .size = ARCHIVE_HEADER_SIZE + ARCHIVE_BLOCK_SIZE,
                .n_objects = ARCHIVE_BLOCK_ENTRIES };
        unsigned char bytes[ARCHIVE_HEADER_SIZE];

        archive_header_encode(&header, bytes);
        assert_int_equal(archive_header_decode(slice_of(bytes, sizeof bytes), &header), 0);
        header.n_objects++;
        archive_header_encode(&header, bytes);
        assert_int_equal(archive_header_decode(slice_of(bytes, sizeof bytes), &header), -EBADMSG);
        /* So many that their blocks could be too many for 32 bits. */
        for (uint32_t less = 0; less < ARCHIVE_BLOCK_ENTRIES; less++) {
                header.n_objects = UINT32_MAX - less;
                header.names_offset = header.samples_offset = header.size = ARCHIVE_HEADER_SIZE;
                archive_header_encode(&header, bytes);
                assert_int_equal(
                        archive_header_decode(slice_of(bytes, sizeof bytes), &header), -EBADMSG);
        }
}

static void an_object_is_found_among_many(void **state)
{
        uint64_t *lsns;
        ArchiveEntry entry;
        ArchiveFile *file;
        size_t n;

        for (int i = 0; i < 300; i++) {
                char name[16];

                snprintf(name, sizeof name, "%02x%04d", i % 200, i);
                make_table(name);
                world_settle(&world);
        }
        world_crash(&world, CRASH_DROP);
        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        for (int i = 0; i < 300; i++) {
                size_t found = 0;
                char name[16], path[256];

                snprintf(name, sizeof name, "%02x%04d", i % 200, i);
                snprintf(path, sizeof path, "%s", object_path(name) + sizeof OBJECTS);
                for (size_t j = 0; j < n; j++) {
                        file = open_file(lsns[j]);
                        found += archive_find(file, slice_from(path), &entry) == 0;
                        path[strlen(path) - 1] ^= 1;
                        assert_int_equal(
                                archive_find(file, slice_from(path), &entry), ARCHIVE_E_ABSENT);
                        path[strlen(path) - 1] ^= 1;
                        archive_close(file);
                }
                assert_int_equal(found, 1);
        }
        free(lsns);
}

static void a_time_leads_to_the_last_record_before_it(void **state)
{
        uint64_t lsns[40], times[40], *firsts, found;
        ArchiveFile *file;
        sqlite3 *db = world_connect(&world, "aa01");
        size_t n;

        run(db, "CREATE TABLE t(a)");
        store_loop_run(world.store);
        for (int i = 0; i < 40; i++) {
                memory_disk_advance(world.memory, 20000000);
                run(db, "INSERT INTO t VALUES(1)");
                store_loop_run(world.store);
                lsns[i] = store_object_lsn(world.store, object_path("aa01"));
                times[i] = disk_clock_realtime(world.disk);
        }
        disconnect(db);
        world_crash(&world, CRASH_DROP);
        assert_int_equal(archive_list(world.disk, ARCHIVE, &firsts, &n), 0);
        assert_int_equal(n, 1);
        file = open_file(firsts[0]);
        for (int i = 0; i < 40; i++) {
                assert_int_equal(archive_find_time(file, times[i], &found), 0);
                assert_int_equal(found, lsns[i]);
                assert_int_equal(archive_find_time(file, times[i] + 15000000, &found), 0);
                assert_int_equal(found, lsns[i]);
        }
        assert_int_equal(archive_find_time(file, times[0] - 10000000000, &found), ARCHIVE_E_ABSENT);
        archive_close(file);
        free(firsts);
}

#define TEST(_fn) cmocka_unit_test_setup_teardown(_fn, start, stop)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(what_is_retired_is_in_the_archive),
                TEST(a_cut_at_any_point_leaves_no_gap),
                TEST(a_full_disk_keeps_the_journal_until_there_is_room),
                TEST(a_segment_that_cannot_be_read_for_long_leaves_a_gap),
                TEST(recovery_on_a_full_disk_goes_on_with_a_gap),
                TEST(a_life_without_an_archive_is_a_gap),
                TEST(files_go_when_they_are_too_old),
                TEST(what_a_slot_left_goes_when_it_is_too_old),
                TEST(a_start_while_another_slot_prunes_is_a_start),
                TEST(a_file_that_is_written_anew_counts_once),
                TEST(a_large_file_is_written_in_short_steps),
                TEST(files_go_when_they_are_too_many),
                TEST(a_torn_file_is_refused_where_it_is_torn),
                TEST(a_header_of_more_objects_than_fit_is_refused),
                TEST(an_object_is_found_among_many),
                TEST(a_time_leads_to_the_last_record_before_it),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
