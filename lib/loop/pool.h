/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A few threads for work that blocks on disks, beside a loop that never does
 *
 *   pool_push() --> queued --a thread is free--> run() --post--> done() on the loop
 *
 * Guarantees:
 * 1. run() is called once, on a thread of the pool; done() once afterwards, on the loop's thread,
 *    which sees all that run() wrote. The work may be freed or pushed again from inside done().
 * 2. Work begins in the order in which it was pushed; at most threads_max pieces run at a time.
 *    Threads are made when they are needed. How much may be queued is for who pushes to limit.
 * 3. No signal is delivered to the threads.
 */

#include "lib/loop/ring.h"

typedef struct Pool Pool;
typedef struct PoolWork PoolWork;

struct PoolWork {
        void (*run)(PoolWork *work);
        void (*done)(PoolWork *work);
        List link;     /* the pool's own */
        RingPost post; /* the pool's own */
};

static inline void pool_work_init(
        PoolWork *work, void (*run)(PoolWork *work), void (*done)(PoolWork *work))
{
        *work = (PoolWork){ .run = run, .done = done };
        list_init(&work->link);
}

int pool_new(Ring *ring, unsigned threads_max, Pool **ret);
/* Every done() must have been called. */
Pool *pool_free(Pool *pool);
DEFINE_CLEANUP(Pool *, pool_free)
/* Loop thread. A negative errno, and nothing has happened, when there is no thread and none can be
 * made. */
int pool_push(Pool *pool, PoolWork *work);
