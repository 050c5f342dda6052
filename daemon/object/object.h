/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The objects of a worker: registry, mailbox, life cycle
 *
 * Loop thread alone. An object is created in memory by its first event, owns its mailbox and one
 * execution token, and leaves memory by eviction: when the registry holds more than objects_max,
 * the least recently used idle one goes; one idle for idle_ns goes as well.
 *
 *   NEW --first event--> ACTIVE <--events--> IDLE --evict()--> EVICTING --evicted--> (gone)
 *                           ^                                     |
 *                           \____ an event that came meanwhile ___/ (reopened)
 *
 * Guarantees:
 * 1. One event of an object executes at a time; suspended events that became ready go before queued
 *    ones, each in order of arrival.
 * 2. A mailbox holds at most mailbox_max events (queued and suspended); beyond it the response is
 *    aborted with 503 and Retry-After.
 * 3. A call whose chain already holds this object, while this object is inside a step of that chain
 *    that cannot end before the call does, fails at once with a clear error instead of waiting for
 *    ever: an event whose chain holds the object waits only while no step of the chain executes.
 * 4. Every response of an object passes the gate (store/) before it is started: today the database
 *    commits with synchronous=FULL, so the gate is open.
 */

#include "daemon/runtime/runtime.h"

typedef struct Registry Registry;

typedef struct RegistryOptions {
        Ring *ring;
        Runtime *runtime;
        const RuntimeClass *classes;
        size_t n_classes;
        const char *objects_directory;
        unsigned objects_max; /* in memory; default 1000 */
        unsigned mailbox_max; /* events of one object; default 1024 */
        uint64_t idle_ns;     /* default 60 s */
} RegistryOptions;

typedef struct RegistryStats {
        uint64_t events, rejected, evicted;
        unsigned objects, executing, queued;
} RegistryStats;

int registry_new(const RegistryOptions *options, Registry **ret);
/* All objects must be gone: after registry_stop()'s callback. */
Registry *registry_free(Registry *registry);
DEFINE_CLEANUP(Registry *, registry_free)

/* Queues a fetch for an object of this worker; the answer comes through *ret (a new reference).
 * -ENOMEM; everything else is told by an aborted response. */
int registry_fetch(Registry *registry, unsigned class_index, const ObjectId *id, Slice name,
        Request *request, Response **ret);
/* Runs the app's entrypoint: no object, no mailbox; bounded by entry_max (default 4096) events. */
int registry_fetch_entry(Registry *registry, Request *request, Response **ret);
void registry_get_stats(const Registry *registry, RegistryStats *ret);
/* Rejects what is new, waits for what executes, evicts all, calls stopped() once. */
void registry_stop(Registry *registry, void (*stopped)(void *data), void *data);
