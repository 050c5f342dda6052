/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A disk in memory for the unit tests: it counts calls, fails one of them, and crashes
 *
 * Calls that change something or sync are numbered from 1. The crash forgets what disk.h does not
 * promise: unsynced writes by 512-byte sectors, names of unsynced folders. The clock stands still
 * but for memory_disk_advance(); random bytes come from the seed.
 */

#include "lib/store/disk.h"

typedef struct MemoryDisk MemoryDisk;

typedef enum MemoryCrash {
        CRASH_DROP, /* nothing unsynced survives */
        CRASH_KEEP, /* all of it does */
        CRASH_TEAR, /* each sector, truncation and name by the toss of a coin */
} MemoryCrash;

MemoryDisk *memory_disk_new(uint64_t seed);
MemoryDisk *memory_disk_free(MemoryDisk *memory);
DEFINE_CLEANUP(MemoryDisk *, memory_disk_free)
/* Another disk with the same files and content, all of it durable. */
MemoryDisk *memory_disk_copy(const MemoryDisk *memory);
Disk *memory_disk_get(MemoryDisk *memory);

/* No file can be larger: -EFBIG. */
void memory_disk_set_max(MemoryDisk *memory, uint64_t size);
/* Numbered calls so far. */
uint64_t memory_disk_get_calls(const MemoryDisk *memory);
/* The call with this number, and with `forever` each later one, fails with -error; a write then
 * has written the first half. 0 disarms. */
void memory_disk_fail(MemoryDisk *memory, uint64_t call, int error, bool forever);
/* The power fails at this call, which may have been half done: it and each later one return -EIO
 * and change nothing more. */
void memory_disk_cut(MemoryDisk *memory, uint64_t call);
bool memory_disk_is_cut(const MemoryDisk *memory);
/* The power comes back: handles become stale (close them), locks are gone. */
void memory_disk_crash(MemoryDisk *memory, MemoryCrash crash);
/* Submitted writes wait for memory_disk_release(), then for disk_poll(). */
void memory_disk_hold(MemoryDisk *memory, bool hold);
void memory_disk_advance(MemoryDisk *memory, uint64_t ns);

/* The bytes of a file as they are now, to look at and to damage; NULL when there is none. */
unsigned char *memory_disk_find(MemoryDisk *memory, const char *path, size_t *ret_size);
/* Number of files open, and the most there have been since the last crash. */
size_t memory_disk_get_open(const MemoryDisk *memory);
size_t memory_disk_get_open_most(const MemoryDisk *memory);
