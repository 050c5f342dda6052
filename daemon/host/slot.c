/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/slot.h"

#include "lib/wire/ident.h"

static const char *const state_names[] = {
        [SLOT_STOPPED] = "stopped",
        [SLOT_STARTING] = "starting",
        [SLOT_READY] = "ready",
        [SLOT_DRAINING] = "draining",
        [SLOT_BACKOFF] = "backoff",
        [SLOT_FAILED] = "failed",
};

/* Bit n of a row: the state n may follow. */
static const unsigned state_changes[] = {
        [SLOT_STOPPED] = 1u << SLOT_STARTING | 1u << SLOT_BACKOFF,
        [SLOT_STARTING] =
                1u << SLOT_READY | 1u << SLOT_DRAINING | 1u << SLOT_BACKOFF | 1u << SLOT_FAILED,
        [SLOT_READY] = 1u << SLOT_DRAINING | 1u << SLOT_BACKOFF,
        [SLOT_DRAINING] = 1u << SLOT_STOPPED,
        [SLOT_BACKOFF] = 1u << SLOT_STARTING | 1u << SLOT_STOPPED | 1u << SLOT_BACKOFF,
        [SLOT_FAILED] = 1u << SLOT_STARTING | 1u << SLOT_STOPPED | 1u << SLOT_BACKOFF,
};

bool slot_may_change(SlotState from, SlotState to)
{
        dd_assert((size_t)from < ELEMENTSOF(state_changes));
        return state_changes[from] >> to & 1;
}

void slot_set_state(SlotLife *life, SlotState state, uint64_t now)
{
        dd_assert(slot_may_change(life->state, state));
        life->state = state;
        life->since = now;
}

const char *slot_state_name(SlotState state)
{
        dd_assert((size_t)state < ELEMENTSOF(state_names));
        return state_names[state];
}

uint64_t slot_backoff(SlotLife *life, uint64_t now)
{
        if (life->state == SLOT_READY && now - life->since >= SLOT_BACKOFF_RESET_NS)
                life->backoff_ns = 0;
        if (life->backoff_ns == 0)
                life->backoff_ns = SLOT_BACKOFF_FIRST_NS;
        else
                life->backoff_ns = MIN(life->backoff_ns * 2, SLOT_BACKOFF_MAX_NS);
        life->restarts++;
        return life->backoff_ns;
}

json_t *slot_shard_runs(unsigned n_slots)
{
        _cleanup_(json_decref_p) json_t *runs = json_array();
        unsigned first = 0;

        if (!runs)
                return NULL;
        for (unsigned shard = 1; shard <= IDENT_SHARDS; shard++) {
                unsigned slot = slot_of_shard(first, n_slots);
                json_t *run;

                if (shard < IDENT_SHARDS && slot_of_shard(shard, n_slots) == slot)
                        continue;
                run = json_pack("[i, i]", (int)slot, (int)(shard - first));
                if (!run || json_array_append_new(runs, run) < 0)
                        return NULL;
                first = shard;
        }
        return TAKE_PTR(runs);
}
