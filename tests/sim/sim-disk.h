/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A disk in memory that forgets, tears and fails: lib/store/disk.h for simulations
 *
 * Of each file it keeps what a crash cannot take (the safe content) and, in order, what was written
 * since, sector by sector; of the folders the safe names and the renames, creations and removals
 * since. A power cut keeps any part of what is not safe: a sector is there or not (or garbled, when
 * it was never called safe), whatever was written before or after it, and the same is true of
 * names. It exploits all that disk.h does not promise, and nothing more.
 *
 *        alive ---the armed operation comes, or sim_disk_cut()---> dead ---sim_disk_crash()--->
 * alive
 *
 * Dead, every call fails with -EIO and changes nothing: the engine is taken down by its own error
 * paths, in the same process, and what is then on the disk is what the instant of death left there.
 *
 * Guarantees:
 * 1. The same seed and the same calls give the same results, errors, contents and clocks.
 * 2. What disk.h calls durable survives every crash, until it is overwritten or removed durably.
 * 3. A sync() that failed leaves each sector that it was to write either safe or lost for good; it
 *    is still read until the next power cut.
 * 4. Faults come only of the kinds and at the rates that were set, and never while dead.
 *
 * Single-threaded: whoever has the turn (turns.h). yield is called at the start of each operation.
 */

#include "lib/store/disk.h"
#include "tests/sim/rng.h"

typedef struct SimDisk SimDisk;

typedef enum SimFault {
        SIM_FAULT_READ,   /* EIO of read() */
        SIM_FAULT_WRITE,  /* EIO of write(), truncate() and allocate(), after any part of it */
        SIM_FAULT_SYNC,   /* EIO of sync(), sync_all() and of DISK_DSYNC after the write */
        SIM_FAULT_FULL,   /* ENOSPC of what makes a file grow, after any part of it */
        SIM_FAULT_NAMES,  /* EIO of open(), rename(), unlink(), mkdir(), list(), sync_folder() */
        SIM_FAULT_SUBMIT, /* EIO of a submitted write, after any part of it, or of submit() itself
                           */
        _SIM_FAULT_MAX,
} SimFault;

/* What to die after. */
typedef enum SimEvent {
        SIM_EVENT_SEGMENT, /* the first block of a file is submitted */
        SIM_EVENT_WRITE,   /* that is not submitted */
        SIM_EVENT_SYNC,
        SIM_EVENT_MKDIR,
        SIM_EVENT_RENAME,
        SIM_EVENT_UNLINK,
        SIM_EVENT_TRUNCATE,
        _SIM_EVENT_MAX,
} SimEvent;

typedef enum SimCrash {
        SIM_CRASH_POWER, /* what is not safe is lost in part */
        SIM_CRASH_KILL,  /* the process ends: the kernel keeps what was written */
} SimCrash;

typedef struct SimDiskStats {
        uint64_t operations, faults[_SIM_FAULT_MAX];
        uint64_t cuts_in_flight; /* power cuts with a submitted write under way */
        uint64_t cuts_dirty;     /* power cuts with un-synced data */
        uint64_t sectors_lost, sectors_kept, sectors_garbled, names_lost;
} SimDiskStats;

int sim_disk_new(uint64_t seed, SimDisk **ret);
SimDisk *sim_disk_free(SimDisk *sim);
DEFINE_CLEANUP(SimDisk *, sim_disk_free)

Disk *sim_disk_get(SimDisk *sim);
const SimDiskStats *sim_disk_get_stats(const SimDisk *sim);
const char *sim_fault_get_name(SimFault fault);

void sim_disk_set_yield(SimDisk *sim, void (*yield)(void *data), void *data);
/* So many of 100,000 operations of the kind fail. */
void sim_disk_set_fault(SimDisk *sim, SimFault fault, unsigned rate);
/* Prints what changes something or syncs. */
void sim_disk_set_trace(SimDisk *sim, bool trace);
/* No room: everything that makes a file grow fails with -ENOSPC, until it is taken back. */
void sim_disk_set_full(SimDisk *sim, bool full);
/* A sabotage: calls of that kind answer 0 and make nothing durable. pattern is a part of the path;
 * NULL ends it. */
void sim_disk_set_liar(SimDisk *sim, const char *pattern);
/* True when a fault was given out or the disk was full since the last call of it. */
bool sim_disk_take_faulted(SimDisk *sim);

/* Dies in the n-th operation from now: 1 is the next one. 0 takes it back. */
void sim_disk_arm(SimDisk *sim, uint64_t n);
/* Dies in the n-th operation after the k-th event of a kind from now. 0 takes it back. */
void sim_disk_arm_at(SimDisk *sim, SimEvent event, unsigned k, uint64_t n);
void sim_disk_cut(SimDisk *sim);
bool sim_disk_is_dead(const SimDisk *sim);
/* All files must be closed: with -EBUSY nothing happened, the engine has leaked a handle. Cuts
 * first when it is alive. Submitted writes that nobody polled for are forgotten: cut before their
 * memory goes. */
int sim_disk_crash(SimDisk *sim, SimCrash how);

/* Lets the clock go on, so that submitted writes come to their end. */
void sim_disk_pass(SimDisk *sim, uint64_t ns);
/* The number of submitted writes that poll() has not told yet. */
unsigned sim_disk_count_in_flight(const SimDisk *sim);

/* What a file reads as, in place, past all faults: valid until the next call of the disk. -ENOENT
 */
int sim_disk_peek(SimDisk *sim, const char *path, Slice *ret);
/* Overwrites bytes in every copy of a file, as a failing medium does. -ENOENT, -ERANGE */
int sim_disk_damage(SimDisk *sim, const char *path, uint64_t offset, size_t len);
