/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The objects of a worker: registry, mailbox, life cycle
 *
 * Loop thread alone. An object is created in memory by its first event, owns its mailbox and one
 * execution token, and leaves memory by eviction: when the registry holds more than objects_max,
 * the least recently used idle one goes; one idle for idle_ns goes as well.
 *
 *   NEW --first event--> ACTIVE <--events--> IDLE --evict()--> EVICTING --evicted--> GONE
 *                           ^                                     |
 *                           \____ an event that came meanwhile ___/ (reopened)
 *
 * Guarantees:
 * 1. One event of an object executes at a time; suspended events that became ready go before queued
 *    ones, each in order of arrival.
 * 2. A mailbox holds at most mailbox_max events (queued and suspended); beyond it the response is
 *    aborted with 503 and Retry-After. So it is when OBJECTS_HARD_FACTOR * objects_max objects are
 *    in memory and the event needs one more.
 * 3. A call whose chain already holds this object, while this object is inside a step of that chain
 *    that waits for the call (RuntimeEvent.blocking), is aborted with 508 at once instead of
 *    waiting for ever; while it is inside a step that may yet end, after OBJECT_CHAIN_GRACE_NS of
 *    that step. A step is of the chain when it is of the same request (its id) and the call's chain
 *    goes on from the step's.
 * 4. Every response of an object, errors too, passes the gate (lib/store/store.h, invariant 1): no
 *    head and no chunk leaves before what the object had committed by then is durable.
 * 5. An operator's event (Operation) is one of the object's events: it holds the token while it
 *    runs, on a thread of the pool, and starts no guest. At most operations_max of them at a time.
 * 6. A reset lets nothing of the guest outlive it: events that have begun are cancelled and answer
 *    503, the runtime evicts the object, and only then the next event begins, on a new instance. It
 *    comes before an exclusive operation, and when an event asks for it (RuntimeEvent.reset).
 * 7. Before a step begins, the journal has room for what it may write (StoreRoom), or the step
 *    waits for that in the mailbox: for OBJECT_ROOM_WAIT_NS at most and within its deadline. Then,
 *    or at once where the disk is full, it begins without: what reads goes on, and what writes is
 *    told by the store. No event fails for want of room before it begins.
 */

#include "daemon/runtime/runtime.h"
#include "lib/loop/pool.h"

/* How long a step may keep a call of its own chain waiting when it is not known to wait for it. */
#define OBJECT_CHAIN_GRACE_NS UINT64_C(1000000000)
/* How long events that a reset has cancelled may take to end; then the runtime ends them. */
#define OBJECT_RESET_GRACE_NS UINT64_C(5000000000)
/* How long a step may wait for room in the journal. */
#define OBJECT_ROOM_WAIT_NS UINT64_C(1000000000)
/* Objects that are not idle cannot be evicted: at most this many times objects_max in memory. */
#define OBJECTS_HARD_FACTOR 4u

typedef struct Registry Registry;

typedef struct Operation Operation;

/* What an operator wants of one object; embedded in the structure of who asks. */
struct Operation {
        /* On a thread of the pool, which may block. path: of the object's database. */
        void (*run)(Operation *operation, const char *path);
        /* On the loop, after run(): answers, by a response that is OPEN. */
        void (*answer)(Operation *operation, Response *response);
        /* The last word, also of one that never ran. */
        void (*end)(Operation *operation);
        bool exclusive;   /* the guest must be gone: a reset comes first */
        uint64_t wait_ns; /* how long it may wait for its turn: 504 then */
        uint64_t run_ns;  /* answered with 504 when it takes longer, while it goes on */
};

typedef struct RegistryOptions {
        Ring *ring;
        Runtime *runtime;
        const RuntimeClass *classes;
        size_t n_classes;
        const char *objects_directory;
        struct Store *store;     /* whose gate answers pass; NULL: none, for tests */
        unsigned objects_max;    /* in memory; default 1000 */
        unsigned mailbox_max;    /* events of one object; default 1024 */
        unsigned entry_max;      /* events of the app's entrypoint; default 4096 */
        uint64_t idle_ns;        /* default 60 s */
        Pool *pool;              /* of operations; NULL: none are possible */
        unsigned operations_max; /* default 16 */
} RegistryOptions;

typedef struct RegistryStats {
        uint64_t events, rejected, evicted;
        unsigned objects, executing, queued; /* queued: and suspended */
} RegistryStats;

int registry_new(const RegistryOptions *options, Registry **ret);
/* All objects must be gone: after registry_stop()'s callback. */
Registry *registry_free(Registry *registry);
DEFINE_CLEANUP(Registry *, registry_free)

/* Queues a fetch for an object of this worker; the answer comes through *ret (a new reference).
 * -ENOMEM; everything else is told by an aborted response. */
int registry_fetch(Registry *registry, unsigned class_index, const ObjectId *id, Slice name,
        Request *request, Response **ret);
/* The same for an operator's event. operation->end() is called in any case but an error's. */
int registry_operate(Registry *registry, unsigned class_index, const ObjectId *id, Slice name,
        Operation *operation, Response **ret);
/* Runs the app's entrypoint: no object, no mailbox; beyond entry_max events 503. */
int registry_fetch_entry(Registry *registry, Request *request, Response **ret);
void registry_get_stats(const Registry *registry, RegistryStats *ret);
/* Rejects what is new, waits for every event that it has, suspended ones too, evicts all, and calls
 * stopped() once, from the loop. The registry may be freed there. */
void registry_stop(Registry *registry, void (*stopped)(void *data), void *data);
