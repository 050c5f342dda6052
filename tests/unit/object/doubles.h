/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Stand-ins for what daemon/object calls: a ring with a clock that the test moves, and a runtime
 * whose events the test ends by hand
 */

#include "daemon/object/object.h"

#define T0 UINT64_C(1000000000000)
#define MS UINT64_C(1000000)

/* Sets the clock, fires what is due, runs what was deferred. */
void fake_advance(uint64_t ns);
void fake_run_deferred(void);
void fake_reset(void);
/* The pool: runs what was pushed first; false when there is nothing. */
bool fake_work(void);
extern bool fake_pool_is_broken;

#define FAKE_EVENTS 64

typedef struct FakeRuntime {
        Runtime runtime;
        RuntimeEvent *events[FAKE_EVENTS]; /* in order of their first delivery; NULL when done */
        size_t n_events;
        char log[1024]; /* "d0 r0 c0 e" : delivered, resumed, cancelled, evicting */
        bool evict_at_once, done_at_once, end_on_cancel;
        RuntimeObject *evicting;
        void (*evicted)(RuntimeObject *object, void *data);
        void *evicted_data;
} FakeRuntime;

void fake_runtime_init(FakeRuntime *fake);
void fake_finish(FakeRuntime *fake, size_t index); /* 200 and done */
void fake_evicted(FakeRuntime *fake);
