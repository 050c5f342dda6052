/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/turns.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define STUCK_TURNS 1000000u
#define STACK_BYTES ((size_t)1 << 20)
#define TIMED_OUT_PERMILLE 250
#define SELDOM_PERMILLE 100

typedef struct Actor {
        TurnsActor what;
        pthread_t thread;
        sem_t turn;
        bool ended;
} Actor;

/* Simulations of a process come one after the other. */
static Actor actors[TURNS_MAX];
static size_t n_actors;
static Rng *chance;
static unsigned change_permille;
static unsigned stuck;
static sem_t all_ended;
static _Thread_local Actor *self;

bool turns_is_actor(void)
{
        return self != NULL;
}

static void take(sem_t *semaphore)
{
        while (sem_wait(semaphore) != 0)
                ;
}

static bool may_go(const Actor *actor, bool seldom)
{
        return !actor->ended && actor != self &&
               (seldom || !actor->what.wants || actor->what.wants(actor->what.data));
}

/* Another actor that has not ended, or NULL. */
static Actor *choose_other(void)
{
        bool seldom = rng_chance(chance, SELDOM_PERMILLE);
        Actor *others[TURNS_MAX];
        size_t n = 0;

        for (int round = 0; n == 0 && round < 2; round++) {
                for (size_t i = 0; i < n_actors; i++)
                        if (may_go(&actors[i], seldom || round > 0))
                                others[n++] = &actors[i];
        }
        return n > 0 ? others[rng_below(chance, n)] : NULL;
}

static void give_turn(void)
{
        Actor *other = choose_other();

        if (!other)
                return;
        sem_post(&other->turn);
        take(&self->turn);
}

void turns_yield(void)
{
        if (!self)
                return;
        stuck = 0;
        if (rng_chance(chance, change_permille))
                give_turn();
}

void turns_wait(void)
{
        if (!self)
                return;
        if (++stuck > STUCK_TURNS) {
                fprintf(stderr, "# nobody gets on: a dead lock\n");
                abort();
        }
        give_turn();
}

static void *actor_main(void *data)
{
        Actor *other;

        self = data;
        take(&self->turn);
        self->what.fn(self->what.data);
        self->ended = true;
        other = choose_other();
        sem_post(other ? &other->turn : &all_ended);
        return NULL;
}

int turns_run(Rng *rng, const TurnsActor *what, size_t n, unsigned change)
{
        pthread_attr_t attributes;
        int r = 0;

        if (n == 0 || n > TURNS_MAX)
                return -EINVAL;
        chance = rng;
        change_permille = change;
        stuck = 0;
        n_actors = 0;
        sem_init(&all_ended, 0, 0);
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, STACK_BYTES);
        for (size_t i = 0; i < n && r == 0; i++) {
                actors[i] = (Actor){ .what = what[i] };
                sem_init(&actors[i].turn, 0, 0);
                r = pthread_create(&actors[i].thread, &attributes, actor_main, &actors[i]);
                if (r == 0)
                        n_actors++;
        }
        pthread_attr_destroy(&attributes);
        if (r) {
                fprintf(stderr, "# no thread: the simulation cannot go on\n");
                abort();
        }
        sem_post(&actors[rng_below(rng, n)].turn);
        take(&all_ended);
        for (size_t i = 0; i < n_actors; i++) {
                pthread_join(actors[i].thread, NULL);
                sem_destroy(&actors[i].turn);
        }
        sem_destroy(&all_ended);
        return 0;
}

typedef int (*LockFn)(pthread_mutex_t *mutex);
typedef int (*WaitFn)(pthread_cond_t *cond, pthread_mutex_t *mutex);
typedef int (*TimedWaitFn)(
        pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until);

/* POSIX has dlsym() give functions as data pointers. */
#define FIND(_type, _name, _version)                               \
        ({                                                         \
                void *found_ = dlvsym(RTLD_NEXT, _name, _version); \
                _type fn_;                                         \
                if (!found_)                                       \
                        found_ = dlsym(RTLD_NEXT, _name);          \
                memcpy(&fn_, &found_, sizeof fn_);                 \
                fn_;                                               \
        })

__attribute__((__visibility__("default"))) int pthread_mutex_lock(pthread_mutex_t *mutex)
{
        static LockFn real;
        int r;

        if (self) {
                while ((r = pthread_mutex_trylock(mutex)) == EBUSY)
                        turns_wait();
                return r;
        }
        if (!real)
                real = FIND(LockFn, "pthread_mutex_lock", "GLIBC_2.2.5");
        return real(mutex);
}

__attribute__((__visibility__("default"))) int pthread_cond_wait(
        pthread_cond_t *cond, pthread_mutex_t *mutex)
{
        static WaitFn real;

        if (self) {
                pthread_mutex_unlock(mutex);
                turns_wait();
                return pthread_mutex_lock(mutex);
        }
        if (!real)
                real = FIND(WaitFn, "pthread_cond_wait", "GLIBC_2.3.2");
        return real(cond, mutex);
}

static int wait_or_time_out(pthread_mutex_t *mutex)
{
        bool out;

        pthread_mutex_unlock(mutex);
        turns_wait();
        pthread_mutex_lock(mutex);
        out = rng_chance(chance, TIMED_OUT_PERMILLE);
        return out ? ETIMEDOUT : 0;
}

__attribute__((__visibility__("default"))) int pthread_cond_timedwait(
        pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
        static TimedWaitFn real;

        if (self)
                return wait_or_time_out(mutex);
        if (!real)
                real = FIND(TimedWaitFn, "pthread_cond_timedwait", "GLIBC_2.3.2");
        return real(cond, mutex, until);
}
