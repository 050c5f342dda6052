/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Runners: the threads that execute Python, and the baton that at most one of them holds
 *
 * Threads that fight for the GIL convoy on it, so that work is done by one runner at a time: the
 * holder of the baton. A holder that keeps it for baton_ns while others wait loses it: the monitor
 * hands it on, the loser finishes its work beside the new holder (the GIL still orders them) and
 * finds itself without a baton then. Whoever waits for something that is not Python steps aside
 * with runner_leave(), and comes back with runner_return() before work that has not begun.
 *
 *                  work                    finished, nothing queued
 *      IDLE ----------------> ACTIVE --------------------------------> IDLE
 *                            |  ^  \___monitor___> STUCK __finished___/
 *             runner_leave() |  |
 *                            v  | baton
 *                          AWAY --runner_return()--> RETURNING
 *
 * Guarantees:
 * 1. Work runs in the order in which it was pushed, each on one runner, with the GIL held.
 * 2. At most one runner is ACTIVE. At most runners_max threads exist, made when they are needed.
 * 3. A holder that waits for the GIL, or for a processor, keeps the baton: another could do no
 *    better.
 * 4. No signal is delivered to a runner.
 * 5. What is noted by several short pieces of work is flushed once: each flush wakes a thread.
 * 6. open() is called first and close() last, both on the first runner, when no other has the
 *    interpreter in use.
 * Lock order: the GIL, then the lock in here; nobody waits for the GIL with that lock held.
 */

#include "daemon/runtime/python/interpreter.h"
#include "lib/base/list.h"

/* What waits to be flushed waits no longer than this, and the work that has begun by then. */
#define RUNNER_FLUSH_NS 100000u

typedef struct Runners Runners;

typedef struct Work {
        List link;
        void (*run)(struct Work *work); /* may free the work */
        /*
         * When no runner has taken work for stall_ns, since all of them wait for something (that
         * may well be this work): true when it ends itself without the GIL and without being run.
         * May be NULL. On the monitor's thread, with no lock held.
         */
        bool (*refuse)(struct Work *work);
} Work;

typedef struct RunnersOptions {
        unsigned runners_max;
        uint64_t baton_ns;
        uint64_t stall_ns;
        int (*open)(void *data);   /* without the GIL; returns 0 with it, or an error without it */
        void (*close)(void *data); /* with the GIL; returns without it. Not after a failed open() */
        void (*closed)(void *data); /* the last word of the first runner */
        void (*flush)(void *data);  /* of what was noted; any thread, must not wait */
        void *data;
} RunnersOptions;

typedef struct RunnersStats {
        uint64_t busy_ns;
        unsigned runners, busy, queued;
        uint64_t revoked; /* batons taken from a holder that kept them too long */
        uint64_t refused; /* pieces of work that waited in vain */
} RunnersStats;

/* Starts the first runner and the monitor. */
int runners_new(const RunnersOptions *options, Runners **ret);
/* After closed(). Joins what is left. */
Runners *runners_free(Runners *runners);

/* Any thread, with or without the GIL. False after runners_close(): the work is not run. */
bool runners_push(Runners *runners, Work *work);
/*
 * On a runner: something waits to be flushed. True: that happens when the runner has nothing to do,
 * steps aside, or ends a piece of work RUNNER_FLUSH_NS later, at the latest after baton_ns. False:
 * nobody else has work for it, or this is no runner: the caller does it now.
 */
bool runner_note(void);
/* No runner can take work until one of those that wait or hang comes back, and at least runners_max
 * pieces of work are queued. Any thread. */
bool runners_is_saturated(Runners *runners);
/* Ends all runners when the queue is empty, then calls close() and closed(). Any thread. */
void runners_close(Runners *runners);
void runners_get_stats(Runners *runners, RunnersStats *ret);

/*
 * Steps aside while something other than Python is waited for; on a thread that is no runner the
 * baton is none of its business and only the GIL is given up. May nest.
 */
/* Gives the baton up, keeps the GIL. */
void runner_leave(void);
/* Waits for the baton, without the GIL if it must. */
void runner_return(void);
/* Gives up both. */
PyThreadState *runner_pause(void);
void runner_unpause(PyThreadState *thread_state);
