/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * SQLite's temporary files, which are real ones, and now and then find no room
 *
 * Takes the place of SQLite's VFS "unix". A COMMIT that writes a temporary table as well can fail
 * after the engine has captured it: that is where invariant 7 of lib/store/store.h is at stake.
 */

#include "tests/sim/rng.h"

/* Once in a process. */
void temp_files_register(void);
/* From now on so many of 1,000 writes fail with SQLITE_FULL; 0: none. */
void temp_files_fail(Rng *rng, unsigned permille);
