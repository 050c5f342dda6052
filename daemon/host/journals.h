/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The journals of an app's slots, when their number changes
 *
 * A journal belongs to its slot; the shards of a slot depend on how many slots there are. Before
 * any worker starts with another number than before, every journal that is there is redone into the
 * databases and emptied, so that no slot finds its objects' commits in another's journal. The
 * number is kept in <state>/journal/<app>/slots, written before the first worker starts.
 * Supervisor, at start.
 */

#include "lib/base/slice.h"

typedef struct JournalsOptions {
        const char *state, *objects, *worker_path, *app;
        unsigned n_slots;
} JournalsOptions;

enum {
        _JOURNALS_E_SUCCESS = 0,
        JOURNALS_E_RECOVERY, /* a journal could not be emptied; the log says why */
};

/* Blocks while it recovers. 0, JOURNALS_E_RECOVERY, or a negative errno. */
int journals_prepare(const JournalsOptions *options);
