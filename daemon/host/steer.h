/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Steering: the kernel gives a new connection to the worker that owns its object
 *
 * Loads the program of bpf/ once per listening group and keeps its tables: which slot owns a
 * shard, which slots are live. Supervisor's thread alone. libbpf is included by steer.c alone.
 *
 *   steer_new() ---> INACTIVE (reason says why) when the build, the settings, the privileges or
 *               \    the kernel do not allow it: every call below is then a no-op, connections are
 *                \   spread by the kernel and handed off
 *                 -> ACTIVE: steer_attach() for each group
 *
 * Guarantees:
 * 1. Nothing here stops the service: what fails turns into a reason, said once.
 * 2. The tables are filled before a group's program is attached.
 * 3. A group that still has an earlier program (handed on over a restart) is detached and tried
 *    again.
 */

#include "bpf/steer.h"
#include "lib/base/slice.h"

typedef struct Steer Steer;

typedef struct SteerOptions {
        bool off;              /* by the settings */
        unsigned n_slots;      /* at most STEER_SLOTS_MAX */
        unsigned n_apps;       /* at most STEER_APPS_MAX */
        const uint8_t *prefix; /* 16 bytes, or NULL: no IPv6 object addresses */
} SteerOptions;

typedef struct SteerCounters {
        uint64_t address, fallback, refused, lost;
} SteerCounters;

/* 0 also when it is inactive; -ENOMEM. */
int steer_new(const SteerOptions *options, Steer **ret);
Steer *steer_free(Steer *steer);
DEFINE_CLEANUP(Steer *, steer_free)

bool steer_is_active(const Steer *steer);
/* Why it is not active; "" when it is. */
const char *steer_get_reason(const Steer *steer);

/* Attaches to a group: fds are its listening sockets, by slot. addresses_only: connections to
 * anything but an object address are refused. 0, or a negative errno: this group is not steered. */
int steer_attach(Steer *steer, const int *fds, size_t n_fds, bool addresses_only);
/* slots: STEER_SHARDS * n_apps entries, by key. */
void steer_set_shards(Steer *steer, const uint16_t *slots);
/* Which slots the fallback may choose; when none is live, it chooses among all. */
void steer_set_live(Steer *steer, const bool *live, size_t n_slots);

/* Sums over groups and CPUs. */
void steer_get_counters(const Steer *steer, SteerCounters *ret);
void steer_get_slot_counters(
        const Steer *steer, unsigned slot, uint64_t *ret_address, uint64_t *ret_fallback);
