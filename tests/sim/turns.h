/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Turns: real threads of which exactly one runs, in an order that a seed decides
 *
 * The engine is used by several threads at once: runners inside SQLite, the loop, the background.
 * Here each is a thread, so that locks have their owners, but a thread goes on only while it has
 * the turn. It may lose it at each operation of the disk (turns_yield()), at a lock that another
 * one holds, at a wait for a condition, and at its end.
 *
 * pthread_mutex_lock(), pthread_cond_wait() and pthread_cond_timedwait() of the whole program,
 * SQLite's as well, are defined here: an actor tries, and gives the turn away when it has to wait.
 * A wait for a condition always comes back with the next turn, as it may ("spurious wake-ups").
 *
 * Guarantees:
 * 1. The same seed and the same program give the same order.
 * 2. A dead lock (nobody gets on in a million turns) ends the program with a message.
 * 3. Outside turns_run() all of this is transparent.
 */

#include "tests/sim/rng.h"

#define TURNS_MAX 8

typedef struct TurnsActor {
        void (*fn)(void *data);
        void *data;
        /* May be NULL. While it says no, the actor seldom gets the turn when others would take it.
         */
        bool (*wants)(void *data);
} TurnsActor;

/* Runs all actors to their ends. change: in so many of 1,000 yields somebody else goes on. 0, or a
 * negative errno when a thread could not be started. */
int turns_run(Rng *rng, const TurnsActor *actors, size_t n, unsigned change);
void turns_yield(void);
/* As turns_yield(), for who has nothing to do: somebody else goes on, when there is somebody. */
void turns_wait(void);
/* Whether the calling thread is an actor. */
bool turns_is_actor(void);
