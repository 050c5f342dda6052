/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim-disk.h"

#include <errno.h>
#include <stdarg.h>

#include <setjmp.h>

#include <cmocka.h>

#define SEEDS 200

static DiskFile *open_file(SimDisk *sim, const char *path, unsigned flags)
{
        DiskFile *file = NULL;

        assert_int_equal(disk_open(sim_disk_get(sim), path, flags, &file), 0);
        return file;
}

static SimDisk *new_disk(uint64_t seed)
{
        SimDisk *sim = NULL;

        assert_int_equal(sim_disk_new(seed, &sim), 0);
        assert_int_equal(disk_mkdir(sim_disk_get(sim), "/a"), 0);
        assert_int_equal(disk_sync_folder(sim_disk_get(sim), "/"), 0);
        return sim;
}

static DiskFile *new_safe_file(SimDisk *sim)
{
        DiskFile *file = open_file(sim, "/a/f", DISK_CREATE);

        assert_int_equal(disk_sync_folder(sim_disk_get(sim), "/a"), 0);
        return file;
}

static Slice peek(SimDisk *sim, const char *path)
{
        Slice content = { 0 };

        assert_int_equal(sim_disk_peek(sim, path, &content), 0);
        return content;
}

static void what_was_synced_survives_each_power_cut(void **state)
{
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
                SimDisk *sim = new_disk(seed);
                DiskFile *file = new_safe_file(sim);

                assert_int_equal(disk_write(file, "hello", 5, 510, 0), 0);
                assert_int_equal(disk_sync(file), 0);
                assert_int_equal(disk_write(file, "world", 5, 4096, DISK_DSYNC), 0);
                disk_close(file);
                assert_int_equal(sim_disk_crash(sim, SIM_CRASH_POWER), 0);
                assert_int_equal(peek(sim, "/a/f").len, 4101);
                assert_memory_equal(peek(sim, "/a/f").data + 510, "hello", 5);
                assert_memory_equal(peek(sim, "/a/f").data + 4096, "world", 5);
                sim_disk_free(sim);
        }
}

/* Of two sectors without a sync each combination comes up: none, either, both, and garbage. */
static void unsynced_sectors_are_lost_in_each_combination(void **state)
{
        unsigned seen[4] = { 0 }, garbled = 0;
        unsigned char data[1024];

        memset(data, 0xaa, sizeof data);
        for (uint64_t seed = 0; seed < SEEDS * 10; seed++) {
                SimDisk *sim = new_disk(seed);
                DiskFile *file = new_safe_file(sim);
                unsigned char got[1024] = { 0 };

                assert_int_equal(disk_write(file, data, sizeof data, 0, 0), 0);
                disk_close(file);
                assert_int_equal(sim_disk_crash(sim, SIM_CRASH_POWER), 0);
                if (peek(sim, "/a/f").len > 0)
                        memcpy(got, peek(sim, "/a/f").data, peek(sim, "/a/f").len);
                seen[(got[0] == 0xaa) + 2 * (got[512] == 0xaa)]++;
                garbled += (got[0] != 0xaa && got[0] != 0) || (got[512] != 0xaa && got[512] != 0);
                sim_disk_free(sim);
        }
        for (size_t i = 0; i < 4; i++)
                assert_true(seen[i] > 0);
        assert_true(garbled > 0);
}

static void a_killed_process_loses_nothing_that_it_wrote(void **state)
{
        SimDisk *sim = new_disk(1);
        DiskFile *file = open_file(sim, "/a/f", DISK_CREATE);

        assert_int_equal(disk_write(file, "hello", 5, 0, 0), 0);
        disk_close(file);
        assert_int_equal(sim_disk_crash(sim, SIM_CRASH_KILL), 0);
        assert_true(slice_equal(peek(sim, "/a/f"), SLICE("hello")));
        sim_disk_free(sim);
}

static void a_name_needs_the_sync_of_its_folder(void **state)
{
        unsigned lost = 0, kept = 0;

        for (uint64_t seed = 0; seed < SEEDS; seed++) {
                SimDisk *sim = new_disk(seed);
                DiskFile *file = open_file(sim, "/a/f", DISK_CREATE);
                Slice content;

                assert_int_equal(disk_write(file, "x", 1, 0, DISK_DSYNC), 0);
                disk_close(file);
                assert_int_equal(sim_disk_crash(sim, SIM_CRASH_POWER), 0);
                if (sim_disk_peek(sim, "/a/f", &content) == 0)
                        kept++;
                else
                        lost++;
                sim_disk_free(sim);
        }
        assert_true(lost > 0 && kept > 0);
}

static void a_rename_replaces_whole_or_not_at_all(void **state)
{
        unsigned old = 0, fresh = 0;

        for (uint64_t seed = 0; seed < SEEDS; seed++) {
                SimDisk *sim = new_disk(seed);
                DiskFile *file = new_safe_file(sim);

                assert_int_equal(disk_write(file, "old", 3, 0, DISK_DSYNC), 0);
                disk_close(file);
                file = open_file(sim, "/a/g", DISK_CREATE);
                assert_int_equal(disk_write(file, "new", 3, 0, DISK_DSYNC), 0);
                disk_close(file);
                assert_int_equal(disk_sync_folder(sim_disk_get(sim), "/a"), 0);
                assert_int_equal(disk_rename(sim_disk_get(sim), "/a/g", "/a/f"), 0);
                if (seed % 2)
                        assert_int_equal(disk_sync_folder(sim_disk_get(sim), "/a"), 0);
                assert_int_equal(sim_disk_crash(sim, SIM_CRASH_POWER), 0);
                if (slice_equal(peek(sim, "/a/f"), SLICE("new")))
                        fresh++;
                else {
                        assert_true(slice_equal(peek(sim, "/a/f"), SLICE("old")));
                        assert_int_equal(seed % 2, 0);
                        old++;
                }
                sim_disk_free(sim);
        }
        assert_true(old > 0 && fresh > 0);
}

static void a_failed_sync_is_not_healed_by_the_next(void **state)
{
        unsigned lost = 0;

        for (uint64_t seed = 0; seed < SEEDS; seed++) {
                SimDisk *sim = new_disk(seed);
                DiskFile *file = new_safe_file(sim);

                assert_int_equal(disk_write(file, "x", 1, 0, 0), 0);
                sim_disk_set_fault(sim, SIM_FAULT_SYNC, 100000);
                assert_int_equal(disk_sync(file), -EIO);
                sim_disk_set_fault(sim, SIM_FAULT_SYNC, 0);
                assert_true(slice_equal(peek(sim, "/a/f"), SLICE("x")));
                assert_int_equal(disk_sync(file), 0);
                disk_close(file);
                assert_int_equal(sim_disk_crash(sim, SIM_CRASH_POWER), 0);
                lost += peek(sim, "/a/f").len == 0;
                sim_disk_free(sim);
        }
        assert_true(lost > 0);
}

static int n_told, told_result;

static void count_told(DiskWrite *write, int result)
{
        n_told++;
        told_result = result;
}

static void a_submitted_write_is_told_once_and_then_safe(void **state)
{
        _Alignas(DISK_BLOCK) static char block[DISK_BLOCK] = "journal";

        for (uint64_t seed = 0; seed < SEEDS; seed++) {
                SimDisk *sim = new_disk(seed);
                DiskFile *file = new_safe_file(sim);
                DiskWrite write = { .fn = count_told,
                        .file = file,
                        .data = block,
                        .len = sizeof block,
                        .flags = DISK_DSYNC };

                n_told = 0;
                assert_int_equal(disk_submit(sim_disk_get(sim), &write), 0);
                assert_int_equal(peek(sim, "/a/f").len, 0);
                if (seed % 2) {
                        sim_disk_pass(sim, 1000000);
                        assert_int_equal(disk_poll(sim_disk_get(sim)), 1);
                        assert_int_equal(told_result, 0);
                } else {
                        sim_disk_cut(sim);
                        assert_int_equal(disk_poll(sim_disk_get(sim)), 1);
                        assert_int_equal(told_result, -EIO);
                }
                assert_int_equal(disk_poll(sim_disk_get(sim)), 0);
                assert_int_equal(n_told, 1);
                disk_close(file);
                assert_int_equal(sim_disk_crash(sim, SIM_CRASH_POWER), 0);
                if (seed % 2)
                        assert_memory_equal(peek(sim, "/a/f").data, block, sizeof block);
                sim_disk_free(sim);
        }
}

static void a_dead_disk_changes_nothing_more(void **state)
{
        SimDisk *sim = new_disk(1);
        DiskFile *file = new_safe_file(sim), *other;

        assert_int_equal(disk_write(file, "x", 1, 0, DISK_DSYNC), 0);
        sim_disk_arm(sim, 2);
        assert_int_equal(disk_sync(file), 0);
        assert_int_equal(disk_sync(file), -EIO);
        assert_true(sim_disk_is_dead(sim));
        assert_int_equal(disk_write(file, "y", 1, 0, DISK_DSYNC), -EIO);
        assert_int_equal(disk_open(sim_disk_get(sim), "/a/g", DISK_CREATE, &other), -EIO);
        assert_int_equal(sim_disk_crash(sim, SIM_CRASH_POWER), -EBUSY);
        disk_close(file);
        assert_int_equal(sim_disk_crash(sim, SIM_CRASH_POWER), 0);
        assert_true(slice_equal(peek(sim, "/a/f"), SLICE("x")));
        sim_disk_free(sim);
}

static void a_full_disk_writes_a_part_and_says_so(void **state)
{
        SimDisk *sim = new_disk(3);
        DiskFile *file = new_safe_file(sim);

        assert_int_equal(disk_write(file, "0123456789", 10, 0, 0), 0);
        sim_disk_set_full(sim, true);
        assert_int_equal(disk_write(file, "abcdefghij", 10, 5, 0), -ENOSPC);
        assert_true(sim_disk_take_faulted(sim));
        assert_int_equal(disk_write(file, "xx", 2, 0, 0), 0);
        assert_int_equal(disk_allocate(file, 0, 100000), -ENOSPC);
        sim_disk_set_full(sim, false);
        assert_int_equal(disk_write(file, "abcdefghij", 10, 5, 0), 0);
        assert_int_equal(peek(sim, "/a/f").len, 15);
        disk_close(file);
        sim_disk_free(sim);
}

static void a_truncation_that_is_safe_brings_nothing_back(void **state)
{
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
                SimDisk *sim = new_disk(seed);
                DiskFile *file = new_safe_file(sim);

                assert_int_equal(disk_write(file, "0123456789", 10, 2000, 0), 0);
                assert_int_equal(disk_truncate(file, 4), 0);
                assert_int_equal(disk_write(file, "abcd", 4, 0, DISK_DSYNC), 0);
                disk_close(file);
                assert_int_equal(sim_disk_crash(sim, SIM_CRASH_POWER), 0);
                assert_true(slice_equal(peek(sim, "/a/f"), SLICE("abcd")));
                sim_disk_free(sim);
        }
}

static void a_lock_ends_with_its_handle(void **state)
{
        SimDisk *sim = new_disk(1);
        DiskFile *file = new_safe_file(sim), *other = open_file(sim, "/a/f", 0);

        assert_int_equal(disk_lock(file, 0, 1), 0);
        assert_int_equal(disk_lock(other, 0, 1), -EAGAIN);
        disk_close(file);
        assert_int_equal(disk_lock(other, 0, 1), 0);
        disk_close(other);
        sim_disk_free(sim);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_was_synced_survives_each_power_cut),
                cmocka_unit_test(unsynced_sectors_are_lost_in_each_combination),
                cmocka_unit_test(a_killed_process_loses_nothing_that_it_wrote),
                cmocka_unit_test(a_name_needs_the_sync_of_its_folder),
                cmocka_unit_test(a_rename_replaces_whole_or_not_at_all),
                cmocka_unit_test(a_failed_sync_is_not_healed_by_the_next),
                cmocka_unit_test(a_submitted_write_is_told_once_and_then_safe),
                cmocka_unit_test(a_dead_disk_changes_nothing_more),
                cmocka_unit_test(a_full_disk_writes_a_part_and_says_so),
                cmocka_unit_test(a_truncation_that_is_safe_brings_nothing_back),
                cmocka_unit_test(a_lock_ends_with_its_handle),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
