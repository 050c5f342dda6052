/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The disk of a worker: plain system calls, and the journal's write by the loop's ring
 *
 * Wraps disk_real(): everything but submit() goes there. submit() belongs to the ring's thread and
 * makes one io_uring write (RWF_DSYNC with DISK_DSYNC); completions come from ring_run(). At most
 * DISK_RING_WRITES are in flight.
 */

#include "lib/loop/ring.h"
#include "lib/store/disk.h"

#define DISK_RING_WRITES 4u

typedef struct DiskRing DiskRing;

int disk_ring_new(Ring *ring, DiskRing **ret);
/* No write is in flight, or the ring has been freed. */
DiskRing *disk_ring_free(DiskRing *disk);
DEFINE_CLEANUP(DiskRing *, disk_ring_free)
/* Borrowed: lives as long as the DiskRing. */
Disk *disk_ring_get_disk(DiskRing *disk);
