/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A disk over another: reads see the one below, changes stay in a scratch file
 *
 * For looking at what a recovery would do: it runs as it is, on an overlay, and what lies below is
 * never written, created, renamed or removed. Blocks that are written go to one nameless file in
 * the scratch folder, so memory holds a small entry for each of them alone.
 *
 * Guarantees:
 * 1. Nothing below is changed. lock() is passed on and so keeps others out; a lock of a file that
 *    is not there below, or whose file system cannot be written, is no lock.
 * 2. What was changed through the overlay is seen by all handles that may write, and by those that
 *    were opened after the file's first change; syncs do nothing.
 * Folders need not be there to create a file in them. Any thread. submit() is refused.
 */

#include "lib/store/disk.h"

/* scratch: a folder with room for what changes; used when the first block is written. */
int disk_overlay_new(Disk *below, const char *scratch, Disk **ret);
/* Every file is closed. */
Disk *disk_overlay_free(Disk *disk);
DEFINE_CLEANUP(Disk *, disk_overlay_free)
/* A file is as it is below again; no handle of it is open. */
void disk_overlay_revert(Disk *disk, const char *path);
/* Bytes of the scratch file. */
uint64_t disk_overlay_get_size(Disk *disk);
