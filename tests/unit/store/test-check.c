/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/archive-read.h"
#include "lib/store/check.h"
#include "lib/store/journal-format.h"
#include "tests/unit/store/world.h"

#include <errno.h>
#include <string.h>

/*
 * Damage of each kind is named with its place; what is in order is not; nothing is changed.
 */

#define ARCHIVE "/state/archive/shop/0"
#define NAME_A "aa01000000000000000000000000000000000000000000000000000000000001"
#define NAME_B "ab02000000000000000000000000000000000000000000000000000000000002"

static World world;
static char findings[16384];
static unsigned n_damage, n_odd, n_notes;
static CheckJournal journal;

static int start(void **state)
{
        world_init(&world, 11);
        world.options.segment_size = 256 << 10;
        return 0;
}

static int stop(void **state)
{
        check_journal_done(&journal);
        world_done(&world);
        return 0;
}

static void on_found(const CheckFinding *finding, void *data)
{
        size_t used = strlen(findings);
        char place[32] = "";

        n_damage += finding->level == CHECK_DAMAGE;
        n_odd += finding->level == CHECK_ODD;
        n_notes += finding->level == CHECK_NOTE;
        if (finding->offset != CHECK_NOWHERE)
                snprintf(place, sizeof place, "@%llu", (unsigned long long)finding->offset);
        snprintf(findings + used, sizeof findings - used, "%s %s%s %s\n", finding->what,
                finding->path, place, finding->text);
}

static bool name_fits(Slice unique_key, Slice id, Slice name, void *data)
{
        assert_true(slice_equal(unique_key, SLICE("shop-cart")));
        return id.len == 64 && name.len == 4 && memcmp(id.data, name.data, 4) == 0;
}

/* The whole of a stopped state. */
static int check_all(bool quick)
{
        _cleanup_(check_free_p) Check *check = NULL;
        CheckOptions options = { .disk = world.disk,
                .objects = OBJECTS,
                .quick = quick,
                .scratch = "/tmp",
                .found = on_found,
                .name_fits = name_fits };
        uint64_t calls = memory_disk_get_calls(world.memory);
        int r;

        findings[0] = '\0';
        n_damage = n_odd = n_notes = 0;
        check_journal_done(&journal);
        assert_int_equal(check_new(&options, &check), 0);
        r = check_archive(check, ARCHIVE);
        r = r ?: check_journal(check, JOURNAL, &journal);
        r = r ?: check_objects(check, NULL, 1);
        assert_int_equal(memory_disk_get_calls(world.memory), calls);
        return r;
}

static int check_all_archives(void)
{
        _cleanup_(check_free_p) Check *check = NULL;
        CheckOptions options = {
                .disk = world.disk, .objects = OBJECTS, .scratch = "/tmp", .found = on_found
        };

        findings[0] = '\0';
        n_damage = n_odd = n_notes = 0;
        assert_int_equal(check_new(&options, &check), 0);
        return check_archive(check, ARCHIVE);
}

static void expect(const char *text)
{
        if (!strstr(findings, text))
                fail_msg("'%s' is not among: %s", text, findings);
}

static void expect_damage(const char *text)
{
        assert_int_equal(check_all(false), 0);
        expect(text);
        assert_true(n_damage > 0);
}

static void add_rows(sqlite3 *db, int n)
{
        for (int i = 0; i < n; i++) {
                run(db, "INSERT INTO t(v) VALUES(hex(randomblob(300)))");
                store_loop_run(world.store);
                if (i % 16 == 15)
                        world_settle(&world);
        }
}

static sqlite3 *make_object(const char *name)
{
        sqlite3 *db = world_connect(&world, name);
        char sql[160];

        snprintf(sql, sizeof sql, "INSERT INTO _cf_METADATA VALUES('name', '%.4s')", name);
        run(db, "CREATE TABLE _cf_METADATA(key TEXT PRIMARY KEY, value)");
        run(db, sql);
        run(db, "CREATE TABLE t(k INTEGER PRIMARY KEY, v); CREATE INDEX i ON t(v)");
        return db;
}

/* Two objects with n commits each, left as a kill leaves them; ends[i] where the i-th batch of the
 * first object's rows ends. */
static void make_state(int n, uint64_t *ends)
{
        sqlite3 *a, *b;
        StoreStats stats;

        world_start(&world);
        a = make_object(NAME_A);
        b = make_object(NAME_B);
        for (int i = 0; i < n; i++) {
                add_rows(a, 1);
                store_get_stats(world.store, &stats);
                if (ends)
                        ends[i] = stats.disk_bytes;
        }
        add_rows(b, n);
        disconnect(a);
        disconnect(b);
        world_stop(&world);
}

/* Nothing is left to redo; n rows more in the first object. */
static void make_drained_with(bool is_first, int n)
{
        sqlite3 *db;

        if (is_first) {
                make_state(1, NULL);
                n--;
        }
        world_start(&world);
        db = world_connect(&world, NAME_A);
        add_rows(db, n);
        disconnect(db);
        store_set_draining(world.store, true);
        world_settle(&world);
        world_stop(&world);
        /* What the current segment holds is redone by the next start, and then void. */
        world_start(&world);
        world_stop(&world);
}

static void make_drained(int n)
{
        make_drained_with(true, n);
}

static unsigned char *find(const char *path, size_t *ret_size)
{
        unsigned char *bytes = memory_disk_find(world.memory, path, ret_size);

        assert_non_null(bytes);
        return bytes;
}

static void a_stopped_state_is_clean(void **state)
{
        make_drained(5);
        assert_int_equal(check_all(false), 0);
        assert_string_equal(findings, "");
        assert_int_equal(journal.state, CHECK_EMPTY);
}

static void what_a_start_redoes_is_told_and_checked(void **state)
{
        make_state(6, NULL);
        assert_int_equal(check_all(false), 0);
        assert_int_equal(n_damage, 0);
        expect("journal-pending " JOURNAL " the next start redoes 20 commits of 2 objects");
        assert_int_equal(journal.state, CHECK_PENDING);
        assert_int_equal(journal.n_objects, 2);
        assert_int_equal(journal.objects[0].before, 10);
        world_start(&world);
}

/* Killed again while objects were left: commits in the epochs before and in the last. */
static void what_is_in_several_epochs_is_one_journal(void **state)
{
        sqlite3 *db;
        size_t size;

        world.options.late_max = 10;
        make_state(3, NULL);
        for (int life = 0; life < 2; life++) {
                world_start(&world);
                db = world_connect(&world, NAME_A);
                add_rows(db, 2);
                disconnect(db);
                world_stop(&world);
        }
        assert_int_equal(check_all(false), 0);
        assert_int_equal(n_damage, 0);
        expect("journal-pending " JOURNAL " the next start redoes 18 commits of 2 objects");
        find(JOURNAL "/segment-00", &size)[200] ^= 1;
        expect_damage("journal-damage " JOURNAL "/segment-00@0");
        find(JOURNAL "/segment-00", &size)[200] ^= 1;
        find(JOURNAL "/segment-01", &size)[200] ^= 1;
        expect_damage("journal-damage " JOURNAL "/segment-01@0");
        find(JOURNAL "/segment-01", &size)[200] ^= 1;
        world_start(&world);
}

/* An object's number holds within an epoch. */
static void what_is_lost_of_a_later_epoch_is_told_of_the_right_object(void **state)
{
        sqlite3 *db;
        size_t size;

        world.options.late_max = 10;
        make_state(3, NULL);
        world_start(&world);
        db = world_connect(&world, NAME_B);
        add_rows(db, 3);
        disconnect(db);
        world_stop(&world);
        /* Its name is lost, too. */
        find(JOURNAL "/segment-01", &size)[68] ^= 1;
        expect_damage("journal-damage " JOURNAL "/segment-01@0");
        assert_int_equal(journal.n_objects, 3);
        assert_int_equal(journal.lost_commits, 2);
        for (size_t i = 0; i < journal.n_objects; i++) {
                bool is_known = strstr(journal.objects[i].name, ".sqlite") != NULL;

                assert_int_equal(journal.objects[i].before, is_known ? 7 : 0);
                assert_int_equal(journal.objects[i].after, is_known ? 0 : 2);
        }
}

static void a_torn_tail_is_a_note_with_its_place(void **state)
{
        uint64_t ends[4];
        char place[96];
        size_t size;

        world_start(&world);
        sqlite3 *db = make_object(NAME_A);
        StoreStats stats;
        for (int i = 0; i < 4; i++) {
                add_rows(db, 1);
                store_get_stats(world.store, &stats);
                ends[i] = stats.disk_bytes;
        }
        disconnect(db);
        world_stop(&world);
        find(JOURNAL "/segment-00", &size)[ends[2] + 700] ^= 4;
        assert_int_equal(check_all(false), 0);
        assert_int_equal(n_damage, 0);
        snprintf(place, sizeof place, "journal-torn-tail " JOURNAL "/segment-00@%llu",
                (unsigned long long)ends[2]);
        expect(place);
        assert_true(journal.is_torn);
}

static void damage_in_the_middle_is_named_with_what_stands_behind_it(void **state)
{
        uint64_t ends[8];
        char place[96];
        size_t size;

        make_state(8, ends);
        find(JOURNAL "/segment-00", &size)[ends[1] + 100] ^= 1;
        snprintf(place, sizeof place, "journal-damage " JOURNAL "/segment-00@%llu",
                (unsigned long long)ends[1]);
        expect_damage(place);
        assert_int_equal(journal.state, CHECK_DAMAGED);
        assert_int_equal(journal.damage_offset, ends[1]);
        /* One row of A is in the batch itself, where it can be made out, 5 and the 8 of B behind.
         */
        assert_int_equal(journal.lost_commits, 14);
        assert_int_equal(journal.objects[0].after, 6);
        assert_int_equal(journal.objects[1].after, 8);
}

static void a_missing_or_garbled_epoch_file_is_named(void **state)
{
        size_t size;

        make_state(3, NULL);
        find(JOURNAL "/epoch", &size)[20] ^= 1;
        expect_damage("journal-damage " JOURNAL "/epoch its epoch file does not check");
        assert_false(journal.has_epoch);
        assert_int_equal(journal.lost_commits, 14);
        assert_int_equal(disk_unlink(world.disk, JOURNAL "/epoch"), 0);
        expect_damage("its epoch file is missing, but segment-00 holds batches");
}

static void fill_segments(unsigned n)
{
        StoreStats stats = {};
        sqlite3 *db;

        world.options.n_segments = 8;
        world.options.checkpoint_at = 1u << 30;
        world_start(&world);
        db = make_object(NAME_A);
        for (int i = 0; i < 500 && stats.segments_live < n; i++) {
                run(db, "INSERT INTO t(v) VALUES(hex(randomblob(9000)))");
                store_loop_run(world.store);
                store_background_step(world.store);
                store_get_stats(world.store, &stats);
        }
        disconnect(db);
        world_stop(&world);
        assert_true(stats.segments_live >= n);
}

static int list_mark(const char *name, void *data)
{
        snprintf(data, 64, "%s/%s", OBJECTS, name);
        return strncmp(name, ".journal-", 9) == 0;
}

/* As of a file system that is not mounted: a start refuses, and so does the check. */
static void objects_of_another_journal_are_named(void **state)
{
        char mark[64];

        make_drained(3);
        assert_int_equal(disk_list(world.disk, OBJECTS, list_mark, mark), 1);
        assert_int_equal(disk_unlink(world.disk, mark), 0);
        assert_int_equal(world_try_start(&world), -EUCLEAN);
        expect_damage("journal-damage " JOURNAL "/epoch");
        expect("is its file system mounted?");
        assert_int_equal(journal.state, CHECK_DAMAGED);
}

static void a_missing_segment_is_named(void **state)
{
        fill_segments(3);
        assert_int_equal(disk_unlink(world.disk, JOURNAL "/segment-01"), 0);
        expect_damage("journal-damage " JOURNAL "/segment-01 the segment is missing");
}

static void a_cut_segment_is_named(void **state)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;

        make_state(5, NULL);
        assert_int_equal(disk_open(world.disk, JOURNAL "/segment-00", 0, &file), 0);
        assert_int_equal(disk_truncate(file, 8192), 0);
        expect_damage("journal-damage " JOURNAL "/segment-00@8192 the segment is cut");
}

static char spill_path[128];

static int see_spill(const char *name, void *data)
{
        if (strncmp(name, "spill-", 6) != 0)
                return 0;
        snprintf(spill_path, sizeof spill_path, JOURNAL "/%s", name);
        return 1;
}

static void make_spill(void)
{
        sqlite3 *db;

        world.options.spill_size = 64 << 10;
        world_start(&world);
        db = make_object(NAME_A);
        run(db, "INSERT INTO t(v) VALUES(randomblob(200000))");
        store_loop_run(world.store);
        disconnect(db);
        world_stop(&world);
        assert_int_equal(disk_list(world.disk, JOURNAL, see_spill, NULL), 1);
}

static void a_garbled_spill_file_is_named(void **state)
{
        size_t size;

        make_spill();
        find(spill_path, &size)[5000] ^= 128;
        expect_damage("spill");
        expect("does not check");
        expect(strrchr(spill_path, '/') + 1);
}

static void a_missing_spill_file_is_named(void **state)
{
        make_spill();
        assert_int_equal(disk_unlink(world.disk, spill_path), 0);
        expect_damage(strrchr(spill_path, '/') + 1);
        expect("is missing");
}

static void a_garbled_page_is_named(void **state)
{
        size_t size;
        unsigned char *bytes;

        make_drained(40);
        bytes = find(object_path(NAME_A), &size);
        memset(bytes + 2 * 4096 + 8, 0xa5, 600);
        expect_damage("database-corrupt ");
        expect(NAME_A ".sqlite");
        assert_null(strstr(findings, NAME_B));
}

static int compare_texts(void *data, int n_a, const void *a, int n_b, const void *b)
{
        int order = memcmp(a, b, (size_t)MIN(n_a, n_b));

        return order ? order : n_a - n_b;
}

/* The app's own functions and collations are not here. */
static void what_only_the_app_can_compute_is_no_damage(void **state)
{
        unsigned char *bytes;
        sqlite3 *db;
        size_t size;

        world_start(&world);
        db = make_object(NAME_A);
        sqlite3_create_collation(db, "mine", SQLITE_UTF8, NULL, compare_texts);
        run(db, "CREATE TABLE u(a TEXT COLLATE mine UNIQUE)");
        store_loop_run(world.store);
        disconnect(db);
        world_stop(&world);
        make_drained_with(false, 40);
        assert_int_equal(check_all(false), 0);
        assert_int_equal(n_damage, 0);
        assert_int_equal(n_odd, 1);
        expect("database-unchecked ");
        expect("no such collation sequence: mine");
        bytes = find(object_path(NAME_A), &size);
        memset(bytes + 2 * 4096 + 8, 0xa5, 600);
        expect_damage("database-corrupt ");
}

static void a_garbled_header_is_named(void **state)
{
        size_t size;

        make_drained(3);
        find(object_path(NAME_A), &size)[0] ^= 1;
        expect_damage("database-header ");
        find(object_path(NAME_A), &size)[0] ^= 1;
        find(object_path(NAME_A), &size)[18] ^= 1;
        expect_damage("versions of the file format 3 and 2");
        find(object_path(NAME_A), &size)[18] ^= 1;
        find(object_path(NAME_A), &size)[16] ^= 1;
        expect_damage("a page size of");
}

static void a_database_that_is_cut_is_named(void **state)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        uint64_t size;

        make_drained(40);
        assert_int_equal(disk_open(world.disk, object_path(NAME_A), 0, &file), 0);
        assert_int_equal(disk_get_size(file, &size), 0);
        assert_int_equal(disk_truncate(file, size - 4096), 0);
        expect_damage("database-size ");
        assert_int_equal(disk_truncate(file, size + 4096), 0);
        expect_damage("database-size ");
}

static void a_missing_database_of_a_commit_is_named(void **state)
{
        make_drained(2);
        world_start(&world);
        sqlite3 *db = world_connect(&world, NAME_A);
        add_rows(db, 1);
        disconnect(db);
        world_stop(&world);
        assert_int_equal(disk_unlink(world.disk, object_path(NAME_A)), 0);
        expect_damage("journal-lost-file ");
}

static void put(const char *path)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;

        assert_int_equal(disk_open(world.disk, path, DISK_CREATE, &file), 0);
        assert_int_equal(disk_write(file, "x", 1, 0, 0), 0);
}

static void what_does_not_belong_there_is_named(void **state)
{
        make_drained(2);
        put(OBJECTS "/shop-cart/aa/" NAME_A ".sqlite-wal");
        put(OBJECTS "/shop-cart/aa/notes.txt");
        put(OBJECTS "/shop-cart/file");
        put(JOURNAL "/epoch.new");
        put(JOURNAL "/core");
        assert_int_equal(disk_rename(world.disk, object_path(NAME_B),
                                 OBJECTS "/shop-cart/aa/" NAME_B ".sqlite"),
                0);
        assert_int_equal(check_all(false), 0);
        expect("stray-log " OBJECTS "/shop-cart/aa/" NAME_A ".sqlite-wal");
        expect("stray-file " OBJECTS "/shop-cart/aa/notes.txt");
        expect("stray-file " OBJECTS "/shop-cart/file");
        expect("journal-leftover " JOURNAL "/epoch.new");
        expect("stray-file " JOURNAL "/core");
        expect("in the wrong folder, nobody finds it here: it belongs into 'ab'");
        assert_int_equal(n_odd, 5);
        assert_int_equal(n_damage, 0);
}

static void a_name_of_another_object_is_named(void **state)
{
        make_drained(2);
        assert_int_equal(disk_rename(world.disk, object_path(NAME_B), object_path(NAME_A)), 0);
        expect_damage("database-name ");
}

static void a_journal_in_use_is_not_checked(void **state)
{
        make_drained(1);
        world_start(&world);
        assert_int_equal(check_all(false), -EAGAIN);
}

static int64_t sum_of(const char *name)
{
        sqlite3 *db = world_connect(&world, name);
        int64_t sum = ask(db, "SELECT coalesce(sum(k * 7 + length(v)), 0) FROM t");

        disconnect(db);
        return sum;
}

/* The world goes on with a copy of its disk, which is returned by use_original(). */
static MemoryDisk *use_copy(void)
{
        MemoryDisk *original = world.memory;

        world.memory = memory_disk_copy(original);
        world.disk = world.options.disk = memory_disk_get(world.memory);
        return original;
}

static void use_original(MemoryDisk *original)
{
        memory_disk_free(world.memory);
        world.memory = original;
        world.disk = world.options.disk = memory_disk_get(original);
}

/* Whether a start would redo the same as ever. */
static bool is_harmless(const int64_t *want)
{
        bool same;

        if (world_try_start(&world))
                return false;
        same = sum_of(NAME_A) == want[0] && sum_of(NAME_B) == want[1];
        world_stop(&world);
        return same;
}

/* Every byte of the file that may matter, by steps; the disk is put back after each. */
static void flip_bits(const char *path, size_t end, size_t step, const int64_t *want)
{
        size_t n = 0, reported = 0;

        for (size_t at = 0; at < end; at += 1 + (at * 2654435761u >> 7) % step, n++) {
                unsigned char bit = (unsigned char)(1u << (at * 11 + n) % 8);
                size_t size;

                find(path, &size)[at] ^= bit;
                assert_int_equal(check_all(true), 0);
                if (findings[0] && (n_damage || journal.is_torn)) {
                        reported++;
                } else {
                        MemoryDisk *original = use_copy();

                        if (!is_harmless(want))
                                fail_msg("bit %u of byte %zu of %s: not reported, not harmless",
                                        bit, at, path);
                        use_original(original);
                }
                find(path, &size)[at] ^= bit;
        }
        print_message("# %s: %zu bits, %zu reported\n", path, n, reported);
        assert_true(reported > n / 2);
}

static void any_bit_of_a_journal_is_reported_or_harmless(void **state)
{
        int64_t want[2];
        uint64_t ends[8];
        MemoryDisk *original;
        size_t size;

        make_state(8, ends);
        original = use_copy();
        world_start(&world);
        want[0] = sum_of(NAME_A);
        want[1] = sum_of(NAME_B);
        world_stop(&world);
        use_original(original);
        find(JOURNAL "/epoch", &size);
        flip_bits(JOURNAL "/epoch", size, 1, want);
        flip_bits(JOURNAL "/segment-00", ends[7] + 8 * 4096 + 64, 60, want);
}

/* Files of an archive, three at least; their paths. */
static size_t make_archive(char paths[8][96])
{
        _cleanup_(free_p) uint64_t *lsns = NULL;
        size_t n = 0;

        world.options.archive = ARCHIVE;
        for (int i = 0; i < 3; i++)
                make_drained_with(i == 0, 3);
        assert_int_equal(archive_list(world.disk, ARCHIVE, &lsns, &n), 0);
        assert_true(n >= 3 && n <= 8);
        for (size_t i = 0; i < n; i++) {
                _cleanup_(free_p) char *path = archive_path(ARCHIVE, lsns[i]);

                snprintf(paths[i], sizeof paths[i], "%s", path);
        }
        return n;
}

static void a_damaged_archive_is_named_with_its_place(void **state)
{
        char paths[8][96];
        size_t size;

        make_archive(paths);
        assert_int_equal(check_all(false), 0);
        assert_string_equal(findings, "");
        find(paths[1], &size)[40] ^= 1;
        expect_damage("archive-damage ");
        expect(paths[1]);
        find(paths[1], &size)[40] ^= 1;
        find(paths[1], &size)[150] ^= 1;
        expect_damage("archive-damage ");
        expect("@");
        /* The content is left out then. */
        assert_int_equal(check_all(true), 0);
        assert_int_equal(n_damage, 0);
}

static void a_torn_or_missing_archive_file_is_named(void **state)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        char paths[8][96];
        uint64_t size;
        size_t n = make_archive(paths);

        put(ARCHIVE "/0000000000000001.archive.new");
        put(ARCHIVE "/readme");
        assert_int_equal(disk_open(world.disk, paths[n - 1], 0, &file), 0);
        assert_int_equal(disk_get_size(file, &size), 0);
        assert_int_equal(disk_truncate(file, size - 100), 0);
        expect_damage("archive-damage ");
        expect(paths[n - 1]);
        expect("archive-leftover " ARCHIVE "/0000000000000001.archive.new");
        expect("stray-file " ARCHIVE "/readme");
        assert_int_equal(disk_unlink(world.disk, paths[1]), 0);
        assert_int_equal(check_all(false), 0);
        expect("archive-gap ");
}

static void any_bit_of_an_archive_is_reported(void **state)
{
        char paths[8][96];
        size_t n = make_archive(paths), size, total = 0;

        for (size_t i = 0; i < n; i++) {
                find(paths[i], &size);
                for (size_t at = 0; at < size; at += 1 + (at * 2654435761u >> 7) % 16, total++) {
                        unsigned char bit = (unsigned char)(1u << (at * 11 + total) % 8);

                        find(paths[i], &size)[at] ^= bit;
                        assert_int_equal(check_all_archives(), 0);
                        if (!n_damage)
                                fail_msg("bit %u of byte %zu of %s is not reported", bit, at,
                                        paths[i]);
                        find(paths[i], &size)[at] ^= bit;
                }
        }
        print_message("# archive: %zu bits\n", total);
        assert_true(total > 1000);
}

/* The number of rows that can be read, or -1. */
static int64_t count_rows(const char *name)
{
        sqlite3 *db = world_connect(&world, name);
        int64_t n = db && try_run(db, "SELECT k, v FROM t; SELECT v FROM t INDEXED BY i; "
                                      "SELECT * FROM _cf_METADATA; PRAGMA quick_check") == SQLITE_OK
                            ? ask(db, "SELECT count(*) FROM t")
                            : -1;

        if (db)
                disconnect(db);
        return n;
}

/* SQLite has no checksums: a value may change unseen, but the rest works. */
static void any_bit_of_a_database_is_reported_or_leaves_it_readable(void **state)
{
        size_t n = 0, reported = 0, size;

        make_drained(30);
        find(object_path(NAME_A), &size);
        for (size_t at = 0; at < size; at += 1 + (at * 2654435761u >> 7) % 60, n++) {
                unsigned char bit = (unsigned char)(1u << (at * 11 + n) % 8);

                find(object_path(NAME_A), &size)[at] ^= bit;
                assert_int_equal(check_all(false), 0);
                if (n_damage) {
                        reported++;
                } else {
                        MemoryDisk *original = use_copy();

                        world_start(&world);
                        if (count_rows(NAME_A) != 30)
                                fail_msg("bit %u of byte %zu: not reported, not readable", bit, at);
                        world_stop(&world);
                        use_original(original);
                }
                find(object_path(NAME_A), &size)[at] ^= bit;
        }
        print_message("# database: %zu bits, %zu reported\n", n, reported);
        assert_true(reported > n / 10);
}

int main(void)
{
#define TEST(_name) cmocka_unit_test_setup_teardown(_name, start, stop)
        const struct CMUnitTest tests[] = {
                TEST(a_stopped_state_is_clean),
                TEST(what_a_start_redoes_is_told_and_checked),
                TEST(what_is_in_several_epochs_is_one_journal),
                TEST(what_is_lost_of_a_later_epoch_is_told_of_the_right_object),
                TEST(a_torn_tail_is_a_note_with_its_place),
                TEST(damage_in_the_middle_is_named_with_what_stands_behind_it),
                TEST(a_missing_or_garbled_epoch_file_is_named),
                TEST(objects_of_another_journal_are_named),
                TEST(a_missing_segment_is_named),
                TEST(a_cut_segment_is_named),
                TEST(a_garbled_spill_file_is_named),
                TEST(a_missing_spill_file_is_named),
                TEST(a_garbled_page_is_named),
                TEST(what_only_the_app_can_compute_is_no_damage),
                TEST(a_garbled_header_is_named),
                TEST(a_database_that_is_cut_is_named),
                TEST(a_missing_database_of_a_commit_is_named),
                TEST(what_does_not_belong_there_is_named),
                TEST(a_name_of_another_object_is_named),
                TEST(a_journal_in_use_is_not_checked),
                TEST(a_damaged_archive_is_named_with_its_place),
                TEST(a_torn_or_missing_archive_file_is_named),
                TEST(any_bit_of_an_archive_is_reported),
                TEST(any_bit_of_a_journal_is_reported_or_harmless),
                TEST(any_bit_of_a_database_is_reported_or_leaves_it_readable),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
