/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A slot: the place that one worker process fills, and what the supervisor knows of it
 *
 * The state machine, the backoff and the shard map; no processes, no clock: supervisor.c feeds it
 * and acts. Supervisor's thread alone.
 *
 *                      spawned            ready
 *   STOPPED, BACKOFF ----------> STARTING ------> READY
 *   FAILED                        |  |             |  |
 *                            died |  | drain       |  | died
 *                                 |  v             |  v
 *                                 |  DRAINING <----/  BACKOFF (retried after slot_backoff())
 *                                 v     \-- exited --> STOPPED
 *                  BACKOFF, or FAILED: the app cannot be loaded and its developer was told;
 *                                      waits for a reload
 *
 * Guarantees:
 * 1. slot_set_state() asserts that the change is one of those above.
 * 2. The n-th restart in a row waits SLOT_BACKOFF_FIRST_NS * 2^(n-1), at most SLOT_BACKOFF_MAX_NS;
 *    a worker that was ready for SLOT_BACKOFF_RESET_NS starts the row again.
 * 3. Each shard belongs to exactly one slot, and slots' shares differ by at most one shard.
 */

#include "lib/base/file.h"
#include "lib/wire/jsonc.h"

#define SLOT_BACKOFF_FIRST_NS (100 * NSEC_PER_MSEC)
#define SLOT_BACKOFF_MAX_NS (10 * NSEC_PER_SEC)
#define SLOT_BACKOFF_RESET_NS (30 * NSEC_PER_SEC)

typedef enum SlotState {
        SLOT_STOPPED,
        SLOT_STARTING,
        SLOT_READY,
        SLOT_DRAINING,
        SLOT_BACKOFF,
        SLOT_FAILED,
} SlotState;

typedef struct SlotLife {
        SlotState state;
        uint64_t since;      /* monotonic ns of the last change */
        uint64_t backoff_ns; /* how long the last wait was; 0: none yet in this row */
        unsigned restarts;   /* deaths that nobody asked for */
} SlotLife;

void slot_set_state(SlotLife *life, SlotState state, uint64_t now);
bool slot_may_change(SlotState from, SlotState to);
const char *slot_state_name(SlotState state);
/* The worker died on its own: how long to wait before the next. Call before the state changes. */
uint64_t slot_backoff(SlotLife *life, uint64_t now);

static inline unsigned slot_of_shard(unsigned shard, unsigned n_slots)
{
        return shard * n_slots / 4096;
}

/* [[slot, count], ...] over all shards in order, as a worker's boot message has it. NULL: -ENOMEM.
 */
json_t *slot_shard_runs(unsigned n_slots);
