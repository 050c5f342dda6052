/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The storage engine of a worker, joined to its loop
 *
 * Opens the slot's journal (and with that redoes what the worker before it left), gives its writes
 * to the ring, runs the background thread, and ends the process when the store has failed: what
 * waits for it is answered with 503 within a fraction of a second, nothing else of an object
 * leaves, the successor replays (lib/store/store.h, invariant 6). Loop thread.
 */

#include "lib/loop/ring.h"
#include "lib/store/store.h"

#define STORAGE_EXIT_FAILED 4 /* exit status: the store has failed */

typedef struct Storage Storage;

typedef struct StorageOptions {
        Ring *ring;
        const char *state; /* the journal is <state>/journal/<app>/<slot> */
        const char *app;
        unsigned slot;
        const char *objects;
        unsigned archive_days; /* 0: none; else it is <state>/archive/<app>/<slot> */
        uint64_t archive_max;
} StorageOptions;

/* Blocks while it recovers. 0, or a negative errno after a log line that says what is wrong. */
int storage_open(const StorageOptions *options, Storage **ret);
/* Why storage_open() failed, in one line; NULL when it did not. */
const char *storage_get_error(void);
/* No connection is open and no runner inside. Writes out what is flushed, so that the next start
 * has nothing to redo. */
Storage *storage_close(Storage *storage);
DEFINE_CLEANUP(Storage *, storage_close)
Store *storage_get_store(Storage *storage);
/* The journal's folder: files of the slot's own may be made there. */
const char *storage_get_journal(const Storage *storage);

/*
 * Redoes a journal into the databases and empties it, without a loop: for a slot that no worker
 * will fill again. An archive that it has takes the rest. 0 or a negative errno after a log line.
 */
int storage_empty(const char *journal, const char *objects);
