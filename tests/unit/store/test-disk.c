/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/store/disk-memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

typedef struct Done {
        DiskWrite write;
        int n, result;
} Done;

static void on_done(DiskWrite *write, int result)
{
        Done *done = (Done *)write;

        done->n++;
        done->result = result;
}

static int count_name(const char *name, void *data)
{
        ++*(int *)data;
        return 0;
}

/* What any disk does, in a folder that is there. */
static void check_disk(Disk *disk, const char *folder)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL, *other = NULL;
        char path[256], moved[256], data[16];
        uint64_t size;
        size_t len;
        int n = 0;

        snprintf(path, sizeof path, "%s/a", folder);
        snprintf(moved, sizeof moved, "%s/b", folder);
        assert_int_equal(disk_open(disk, path, 0, &file), -ENOENT);
        assert_int_equal(disk_open(disk, path, DISK_CREATE, &file), 0);
        assert_int_equal(disk_open(disk, path, DISK_CREATE | DISK_EXCLUSIVE, &other), -EEXIST);
        assert_int_equal(disk_write(file, "hello", 5, 3, 0), 0);
        assert_int_equal(disk_read(file, data, sizeof data, 0, &len), 0);
        assert_int_equal(len, 8);
        assert_memory_equal(data, "\0\0\0hello", 8);
        assert_int_equal(disk_allocate(file, 0, 4096), 0);
        assert_int_equal(disk_get_size(file, &size), 0);
        assert_int_equal(size, 4096);
        assert_int_equal(disk_truncate(file, 4), 0);
        assert_int_equal(disk_sync(file), 0);
        assert_int_equal(disk_stat_size(disk, path, &size), 0);
        assert_int_equal(size, 4);
        assert_int_equal(disk_stat_size(disk, folder, &size), -EISDIR);
        assert_int_equal(disk_open(disk, path, 0, &other), 0);
        assert_int_equal(disk_lock(file, 0x40000000, 512), 0);
        assert_int_equal(disk_lock(file, 0x40000000, 512), 0);
        assert_int_equal(disk_lock(other, 0x40000000, 512), -EAGAIN);
        assert_int_equal(disk_rename(disk, path, moved), 0);
        assert_int_equal(disk_list(disk, folder, count_name, &n), 0);
        assert_int_equal(n, 1);
        assert_int_equal(disk_sync_folder(disk, folder), 0);
        assert_int_equal(disk_sync_all(disk, folder), 0);
        assert_int_equal(disk_unlink(disk, moved), 0);
        assert_int_equal(disk_unlink(disk, moved), -ENOENT);
        assert_true(disk_clock_realtime(disk) > UINT64_C(1600000000) * 1000000000u);
}

static void check_submit(Disk *disk, const char *path)
{
        _cleanup_(disk_close_p) DiskFile *file = NULL;
        Done done = { .write = { .fn = on_done, .data = "x", .len = 1, .flags = DISK_DSYNC } };
        uint64_t size;

        assert_int_equal(disk_open(disk, path, DISK_CREATE, &file), 0);
        done.write.file = file;
        assert_int_equal(disk_submit(disk, &done.write), 0);
        assert_int_equal(done.n, 0);
        assert_int_equal(disk_poll(disk), 1);
        assert_int_equal(done.n, 1);
        assert_int_equal(done.result, 0);
        assert_int_equal(disk_get_size(file, &size), 0);
        assert_int_equal(size, 1);
        assert_int_equal(disk_poll(disk), 0);
        assert_int_equal(disk_unlink(disk, path), 0);
}

static void the_real_disk_does_what_a_disk_does(void **state)
{
        char folder[] = "/tmp/test-disk-XXXXXX", path[64];

        assert_non_null(mkdtemp(folder));
        check_disk(disk_real(), folder);
        snprintf(path, sizeof path, "%s/s", folder);
        check_submit(disk_real(), path);
        assert_int_equal(rmdir(folder), 0);
}

static void a_file_that_others_empty_is_told_from_one_that_is_new(void **state)
{
        char folder[] = "/tmp/durabled-disk-XXXXXX", path[64];
        Disk *disk = disk_real();
        struct statx times;
        DiskFile *file;
        bool emptied;

        assert_non_null(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/a", folder);
        assert_int_equal(disk_open(disk, path, DISK_CREATE, &file), 0);
        assert_int_equal(disk_is_emptied(file, &emptied), 0);
        assert_false(emptied);
        assert_int_equal(disk_write(file, "one", 3, 0, 0), 0);
        assert_int_equal(disk_is_emptied(file, &emptied), 0);
        assert_false(emptied);
        /* A disk's own truncate() is no fault. */
        assert_int_equal(disk_truncate(file, 0), 0);
        assert_int_equal(disk_is_emptied(file, &emptied), 0);
        assert_false(emptied);
        assert_int_equal(disk_write(file, "one", 3, 0, 0), 0);
        usleep(20000);
        assert_int_equal(truncate(path, 0), 0);
        assert_int_equal(disk_is_emptied(file, &emptied), 0);
        assert_int_equal(statx(AT_FDCWD, path, 0, STATX_BTIME, &times), 0);
        /* Where the file system keeps no time of birth it cannot be told. */
        assert_int_equal(emptied, (times.stx_mask & STATX_BTIME) != 0);
        disk_close(file);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rmdir(folder), 0);
}

static void the_disk_in_memory_does_what_a_disk_does(void **state)
{
        _cleanup_(memory_disk_free_p) MemoryDisk *memory = memory_disk_new(1);

        assert_int_equal(disk_mkdir(memory_disk_get(memory), "/f"), 0);
        check_disk(memory_disk_get(memory), "/f");
        check_submit(memory_disk_get(memory), "/f/s");
}

static void a_crash_keeps_what_was_synced_alone(void **state)
{
        _cleanup_(memory_disk_free_p) MemoryDisk *memory = memory_disk_new(1);
        Disk *disk = memory_disk_get(memory);
        DiskFile *file, *lost;
        const unsigned char *data;
        size_t size;

        assert_int_equal(disk_mkdir(disk, "/f"), 0);
        assert_int_equal(disk_sync_folder(disk, "/"), 0);
        assert_int_equal(disk_open(disk, "/f/a", DISK_CREATE, &file), 0);
        assert_int_equal(disk_sync_folder(disk, "/f"), 0);
        assert_int_equal(disk_write(file, "one", 3, 0, 0), 0);
        assert_int_equal(disk_sync(file), 0);
        assert_int_equal(disk_write(file, "two", 3, 0, 0), 0);
        assert_int_equal(disk_open(disk, "/f/lost", DISK_CREATE, &lost), 0);
        memory_disk_crash(memory, CRASH_DROP);
        assert_int_equal(disk_write(file, "bad", 3, 0, 0), -EIO);
        disk_close(file);
        disk_close(lost);
        data = memory_disk_find(memory, "/f/a", &size);
        assert_int_equal(size, 3);
        assert_memory_equal(data, "one", 3);
        assert_null(memory_disk_find(memory, "/f/lost", &size));
}

static void a_cut_write_is_half_done_and_the_last(void **state)
{
        _cleanup_(memory_disk_free_p) MemoryDisk *memory = memory_disk_new(1);
        Disk *disk = memory_disk_get(memory);
        DiskFile *file;
        size_t size;

        assert_int_equal(disk_open(disk, "/a", DISK_CREATE, &file), 0);
        memory_disk_cut(memory, memory_disk_get_calls(memory) + 1);
        assert_int_equal(disk_write(file, "four", 4, 0, 0), -EIO);
        assert_int_equal(disk_write(file, "more", 4, 4, 0), -EIO);
        memory_disk_crash(memory, CRASH_KEEP);
        disk_close(file);
        assert_non_null(memory_disk_find(memory, "/a", &size));
        assert_int_equal(size, 2);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_real_disk_does_what_a_disk_does),
                cmocka_unit_test(a_file_that_others_empty_is_told_from_one_that_is_new),
                cmocka_unit_test(the_disk_in_memory_does_what_a_disk_does),
                cmocka_unit_test(a_crash_keeps_what_was_synced_alone),
                cmocka_unit_test(a_cut_write_is_half_done_and_the_last),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
