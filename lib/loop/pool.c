/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/loop/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

struct Pool {
        Ring *ring;
        pthread_mutex_t mutex;
        pthread_cond_t changed;
        List queue;
        unsigned n_queued, n_idle, n_threads, threads_max;
        bool ending;
        pthread_t threads[];
};

static void pool_tell(RingPost *post)
{
        PoolWork *work = CONTAINER_OF(post, PoolWork, post);

        work->done(work);
}

static void *pool_thread(void *data)
{
        Pool *pool = data;

        pthread_mutex_lock(&pool->mutex);
        for (;;) {
                List *link = list_pop(&pool->queue);
                PoolWork *work;

                if (link) {
                        work = list_entry(link, PoolWork, link);
                        pool->n_queued--;
                        pthread_mutex_unlock(&pool->mutex);
                        work->run(work);
                        work->post.fn = pool_tell;
                        ring_post(pool->ring, &work->post);
                        pthread_mutex_lock(&pool->mutex);
                        continue;
                }
                if (pool->ending)
                        break;
                pool->n_idle++;
                pthread_cond_wait(&pool->changed, &pool->mutex);
                pool->n_idle--;
        }
        pthread_mutex_unlock(&pool->mutex);
        return NULL;
}

int pool_new(Ring *ring, unsigned threads_max, Pool **ret)
{
        Pool *pool = calloc(1, sizeof *pool + threads_max * sizeof *pool->threads);

        dd_assert(threads_max > 0);
        if (!pool)
                return -ENOMEM;
        pool->ring = ring;
        pool->threads_max = threads_max;
        list_init(&pool->queue);
        pthread_mutex_init(&pool->mutex, NULL);
        pthread_cond_init(&pool->changed, NULL);
        *ret = pool;
        return 0;
}

Pool *pool_free(Pool *pool)
{
        if (!pool)
                return NULL;
        dd_assert(list_is_empty(&pool->queue));
        pthread_mutex_lock(&pool->mutex);
        pool->ending = true;
        pthread_cond_broadcast(&pool->changed);
        pthread_mutex_unlock(&pool->mutex);
        for (unsigned i = 0; i < pool->n_threads; i++)
                pthread_join(pool->threads[i], NULL);
        pthread_cond_destroy(&pool->changed);
        pthread_mutex_destroy(&pool->mutex);
        free(pool);
        return NULL;
}

static int pool_add_thread(Pool *pool)
{
        sigset_t all, before;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&pool->threads[pool->n_threads], NULL, pool_thread, pool);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r == 0)
                pool->n_threads++;
        return -r;
}

int pool_push(Pool *pool, PoolWork *work)
{
        int r = 0;

        pthread_mutex_lock(&pool->mutex);
        if (pool->n_queued >= pool->n_idle && pool->n_threads < pool->threads_max)
                r = pool_add_thread(pool);
        if (pool->n_threads) {
                r = 0; /* one of those that there are comes to it */
                list_append(&pool->queue, &work->link);
                pool->n_queued++;
                pthread_cond_signal(&pool->changed);
        }
        pthread_mutex_unlock(&pool->mutex);
        return r;
}
