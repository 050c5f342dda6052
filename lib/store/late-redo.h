/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Objects that are redone after store_open()
 *
 *     LEFT -> BUSY -> done: a node that is not synced, or gone
 *               `--> LEFT, when the disk refuses
 *
 * 1. Whoever opens an object that is left redoes it himself, first; a second one waits for him.
 * 2. The background redoes the others, one in a step.
 * 3. While one is left nothing is retired, so that all of it can be redone once more. What has been
 *    redone is, until it is synced, as any other object that was written behind.
 *
 * Any thread; the store's mutex guards the plan's files.
 */

#include "lib/store/redo.h"

typedef struct LateRedo {
        Found found;
        Redo redo;
        size_t n_failed; /* in a row */
        uint64_t started;
} LateRedo;

LateRedo *late_free(LateRedo *late);
DEFINE_CLEANUP(LateRedo *, late_free)
/* Takes it: from now on its files are left. */
void late_begin(Store *store, LateRedo *late);
