/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/runner.h"

#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* How many quiet looks the monitor takes before it sleeps until it is called. */
#define MONITOR_QUIET 20u
#define RUNNER_STACK (8u << 20)

typedef enum RunnerState {
        RUNNER_IDLE,
        RUNNER_ACTIVE,
        RUNNER_STUCK,
        RUNNER_AWAY,
        RUNNER_RETURNING,
} RunnerState;

typedef struct Runner {
        Runners *runners;
        pthread_t thread;
        pthread_cond_t wake;
        RunnerState state;
        List link;      /* in idle or returning */
        uint64_t began; /* the present work; 0: none */
        uint64_t since; /* of the present work, or of its return to it */
        unsigned away;  /* depth of runner_leave() */
        bool first;
        bool working; /* has work and the GIL */
        clockid_t clock;
        pid_t tid;
        uint64_t seen_since, seen_cpu; /* the monitor's first look at the present work */
} Runner;

struct Runners {
        RunnersOptions options;
        pthread_mutex_t lock;
        pthread_cond_t monitor_wake;
        pthread_t monitor;
        bool monitor_started, monitor_asleep, opened, closing, ended;
        uint64_t noted; /* atomic; since when something waits to be flushed, 0: nothing does */
        Runner *holder; /* the ACTIVE one */
        List queue, idle, returning;
        unsigned queued; /* atomic to be read without the lock */
        unsigned n_runners, n_busy;
        uint64_t busy_ns, revoked, refused;
        uint64_t stalled_since; /* nobody can take what is queued; 0: somebody can */
        Runner *all[];
};

static _Thread_local Runner *current_runner;

static void runner_set_state(Runner *runner, RunnerState state)
{
        static const bool allowed[5][5] = {
                [RUNNER_IDLE] = { [RUNNER_ACTIVE] = true },
                [RUNNER_ACTIVE] = { [RUNNER_IDLE] = true,
                        [RUNNER_STUCK] = true,
                        [RUNNER_AWAY] = true },
                [RUNNER_STUCK] = { [RUNNER_IDLE] = true, [RUNNER_AWAY] = true },
                [RUNNER_AWAY] = { [RUNNER_RETURNING] = true },
                [RUNNER_RETURNING] = { [RUNNER_ACTIVE] = true },
        };
        Runners *runners = runner->runners;

        dd_assert(allowed[runner->state][state]);
        if (runner->state == RUNNER_ACTIVE)
                runners->holder = NULL;
        runner->state = state;
        if (state == RUNNER_ACTIVE) {
                dd_assert(!runners->holder);
                runners->holder = runner;
                runner->working = false;
        }
}

static int runner_start(Runners *runners);

/* Gives a free baton to who can use it: the one to signal, or NULL. With the lock. */
static Runner *baton_pass(Runners *runners)
{
        Runner *next;
        List *link;

        if (runners->holder || !runners->opened)
                return NULL;
        link = list_pop(&runners->returning);
        if (!link && runners->queued) {
                if (list_is_empty(&runners->idle) &&
                        runners->n_runners < runners->options.runners_max)
                        (void)runner_start(runners);
                link = list_pop(&runners->idle);
        }
        if (!link)
                return NULL;
        next = list_entry(link, Runner, link);
        runner_set_state(next, RUNNER_ACTIVE);
        return next;
}

static void runner_signal(Runner *runner)
{
        if (runner)
                pthread_cond_signal(&runner->wake);
}

/* Somebody waits: the monitor must look. With the lock. */
static void monitor_call(Runners *runners)
{
        if (runners->monitor_asleep) {
                runners->monitor_asleep = false;
                pthread_cond_signal(&runners->monitor_wake);
        }
}

/* What is queued has become one more or less. With the lock. */
static void runners_count(Runners *runners, int by)
{
        __atomic_store_n(&runners->queued, runners->queued + (unsigned)by, __ATOMIC_RELAXED);
}

bool runners_push(Runners *runners, Work *work)
{
        Runner *next;

        pthread_mutex_lock(&runners->lock);
        if (runners->closing) {
                pthread_mutex_unlock(&runners->lock);
                return false;
        }
        list_append(&runners->queue, &work->link);
        runners_count(runners, 1);
        next = baton_pass(runners);
        if (!next)
                monitor_call(runners);
        pthread_mutex_unlock(&runners->lock);
        runner_signal(next);
        return true;
}

static Work *runner_pop(Runner *runner)
{
        Runners *runners = runner->runners;
        List *link;

        if (runner->state != RUNNER_ACTIVE || !list_is_empty(&runners->returning))
                return NULL;
        link = list_pop(&runners->queue);
        if (!link)
                return NULL;
        runners_count(runners, -1);
        return list_entry(link, Work, link);
}

/* Gives up the baton, waits until it comes back with work. NULL: the runners are closing. */
static Work *runner_wait(Runner *runner)
{
        Runners *runners = runner->runners;
        Work *work;

        for (;;) {
                work = runner_pop(runner);
                if (work)
                        return work;
                if (runner->state != RUNNER_IDLE) {
                        runner_set_state(runner, RUNNER_IDLE);
                        list_prepend(&runners->idle, &runner->link);
                        runner_signal(baton_pass(runners));
                }
                while (runner->state == RUNNER_IDLE) {
                        if (runners->closing && !runners->queued) {
                                list_unlink(&runner->link);
                                return NULL;
                        }
                        pthread_cond_wait(&runner->wake, &runners->lock);
                }
        }
}

bool runner_note(void)
{
        Runner *runner = current_runner;
        uint64_t none = 0;

        /* With work queued the monitor is awake: it flushes when the next piece of work is long. */
        if (!runner || runner->away || !__atomic_load_n(&runner->runners->queued, __ATOMIC_RELAXED))
                return false;
        __atomic_compare_exchange_n(&runner->runners->noted, &none, clock_monotonic_ns(), false,
                __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        return true;
}

/* Flushes what was noted until then. */
static void runners_flush(Runners *runners, uint64_t until)
{
        uint64_t noted = __atomic_load_n(&runners->noted, __ATOMIC_RELAXED);

        if (noted && noted <= until && __atomic_exchange_n(&runners->noted, 0, __ATOMIC_SEQ_CST))
                runners->options.flush(runners->options.data);
}

/* Counts the work that is finished. With the lock. */
static void runner_account(Runner *runner, uint64_t now)
{
        if (!runner->began)
                return;
        runner->runners->busy_ns += now - runner->began;
        runner->runners->n_busy--;
        runner->began = 0;
}

/* Has work and the GIL from now on. With the lock. */
static void runner_begin(Runner *runner, uint64_t now)
{
        runner->began = runner->since = now;
        runner->working = true;
        runner->runners->n_busy++;
}

/* With the GIL, given up only while there is nothing to do. */
static Work *runner_next(Runner *runner)
{
        Runners *runners = runner->runners;
        uint64_t now = clock_monotonic_ns();
        PyThreadState *thread_state;
        Work *work;

        pthread_mutex_lock(&runners->lock);
        runner_account(runner, now);
        work = runner_pop(runner);
        if (work)
                runner_begin(runner, now);
        pthread_mutex_unlock(&runners->lock);
        runners_flush(runners, work ? now - RUNNER_FLUSH_NS : UINT64_MAX);
        if (work)
                return work;
        /* Whoever gets the baton next needs the GIL at once: it goes first. */
        thread_state = PyEval_SaveThread();
        pthread_mutex_lock(&runners->lock);
        work = runner_wait(runner);
        pthread_mutex_unlock(&runners->lock);
        PyEval_RestoreThread(thread_state);
        if (!work)
                return NULL;
        now = clock_monotonic_ns();
        pthread_mutex_lock(&runners->lock);
        runner_begin(runner, now);
        pthread_mutex_unlock(&runners->lock);
        return work;
}

static void runner_loop(Runner *runner)
{
        Work *work;

        while ((work = runner_next(runner))) {
                work->run(work);
                dd_assert(runner->away == 0);
                dd_assert(!PyErr_Occurred());
        }
}

static void runner_main_first(Runner *runner)
{
        Runners *runners = runner->runners;
        const RunnersOptions *options = &runners->options;
        PyThreadState *thread_state;
        int r;

        r = options->open(options->data);
        if (r == 0) {
                pthread_mutex_lock(&runners->lock);
                runners->opened = true;
                (void)baton_pass(runners);
                pthread_mutex_unlock(&runners->lock);
                runner_loop(runner);
                thread_state = PyEval_SaveThread();
                for (unsigned i = 1; i < runners->n_runners; i++)
                        pthread_join(runners->all[i]->thread, NULL);
                PyEval_RestoreThread(thread_state);
                options->close(options->data);
        } else {
                /* Nothing but the end can be asked for. */
                pthread_mutex_lock(&runners->lock);
                while (!runners->closing)
                        pthread_cond_wait(&runner->wake, &runners->lock);
                pthread_mutex_unlock(&runners->lock);
        }
        options->closed(options->data);
}

static void *runner_main(void *data)
{
        Runner *runner = data;
        PyGILState_STATE state;

        current_runner = runner;
        runner->tid = gettid();
        if (runner->first) {
                runner_main_first(runner);
        } else {
                state = PyGILState_Ensure();
                runner_loop(runner);
                PyGILState_Release(state);
        }
        return NULL;
}

static int thread_start(pthread_t *ret, void *(*fn)(void *), void *data, const char *name)
{
        pthread_attr_t attr;
        sigset_t all, old;
        int r;

        /* What the kernel raises for a fault of the thread itself stays open. */
        sigfillset(&all);
        sigdelset(&all, SIGSEGV);
        sigdelset(&all, SIGBUS);
        sigdelset(&all, SIGILL);
        sigdelset(&all, SIGFPE);
        sigdelset(&all, SIGABRT);
        sigdelset(&all, SIGTRAP);
        r = pthread_attr_init(&attr);
        if (r)
                return -r;
        pthread_attr_setstacksize(&attr, RUNNER_STACK);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(ret, &attr, fn, data);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
        if (r)
                return -r;
        pthread_setname_np(*ret, name);
        return 0;
}

/* With the lock. The new one is idle: what it is wanted for finds it there. */
static int runner_start(Runners *runners)
{
        Runner *runner = calloc(1, sizeof *runner);
        int r;

        if (!runner)
                return -ENOMEM;
        runner->runners = runners;
        runner->first = runners->n_runners == 0;
        runner->state = RUNNER_IDLE;
        list_init(&runner->link);
        pthread_cond_init(&runner->wake, NULL);
        list_prepend(&runners->idle, &runner->link);
        r = thread_start(&runner->thread, runner_main, runner, "runner");
        if (r) {
                list_unlink(&runner->link);
                pthread_cond_destroy(&runner->wake);
                free(runner);
                return r;
        }
        if (pthread_getcpuclockid(runner->thread, &runner->clock))
                runner->clock = CLOCK_MONOTONIC;
        runners->all[runners->n_runners++] = runner;
        return 0;
}

static uint64_t runner_get_cpu(const Runner *runner)
{
        struct timespec used;

        if (clock_gettime(runner->clock, &used) < 0)
                return 0;
        return (uint64_t)used.tv_sec * NSEC_PER_SEC + (uint64_t)used.tv_nsec;
}

/* Whether the thread runs or could run, for all that the kernel says. */
static bool runner_is_runnable(const Runner *runner)
{
        char path[64], text[256];
        const char *end;
        ssize_t n;
        int fd;

        snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)runner->tid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = '\0';
        end = strrchr(text, ')');
        return end && end[1] == ' ' && end[2] == 'R';
}

/*
 * Whether the processor was others' for most of the time: the holder would lose the baton for
 * nothing it did, and two runners would fight for the GIL. With the lock.
 */
static bool runner_is_starved(Runner *runner)
{
        return runner_get_cpu(runner) - runner->seen_cpu < runner->runners->options.baton_ns / 4 &&
               runner_is_runnable(runner);
}

/* Whether work or a runner waits for the baton. With the lock. */
static bool monitor_has_demand(const Runners *runners)
{
        return runners->queued || !list_is_empty(&runners->returning);
}

/* Takes what can be refused out of the queue and refuses it. With the lock, given up meanwhile. */
static void monitor_refuse(Runners *runners)
{
        List refused = LIST_INIT(refused), *link;

        list_for_each_safe(queued, &runners->queue) {
                if (!list_entry(queued, Work, link)->refuse)
                        continue;
                list_unlink(queued);
                list_append(&refused, queued);
                runners_count(runners, -1);
        }
        pthread_mutex_unlock(&runners->lock);
        while ((link = list_pop(&refused))) {
                Work *work = list_entry(link, Work, link);
                bool done = work->refuse(work);

                pthread_mutex_lock(&runners->lock);
                if (done) {
                        runners->refused++;
                } else {
                        list_append(&runners->queue, &work->link);
                        runners_count(runners, 1);
                }
                pthread_mutex_unlock(&runners->lock);
        }
        pthread_mutex_lock(&runners->lock);
}

/* With the lock. */
static void monitor_look(Runners *runners)
{
        Runner *holder = runners->holder, *next;
        uint64_t now;

        runners_flush(runners, clock_monotonic_ns() - RUNNER_FLUSH_NS);
        if (!monitor_has_demand(runners) || (holder && !holder->working)) {
                runners->stalled_since = 0;
                return;
        }
        now = clock_monotonic_ns();
        if (holder) {
                runners->stalled_since = 0;
                if (holder->seen_since != holder->since) {
                        holder->seen_since = holder->since;
                        holder->seen_cpu = runner_get_cpu(holder);
                }
                if (now - holder->since < runners->options.baton_ns || runner_is_starved(holder))
                        return;
                runner_set_state(holder, RUNNER_STUCK);
                runners->revoked++;
        }
        next = baton_pass(runners);
        if (next || !runners->opened) {
                runner_signal(next);
        } else if (!runners->stalled_since) {
                runners->stalled_since = now;
        } else if (now - runners->stalled_since >= runners->options.stall_ns) {
                runners->stalled_since = now;
                monitor_refuse(runners);
        }
}

static void *monitor_main(void *data)
{
        Runners *runners = data;
        unsigned quiet = 0;

        pthread_mutex_lock(&runners->lock);
        while (!runners->ended) {
                if (quiet >= MONITOR_QUIET) {
                        runners->monitor_asleep = true;
                        while (runners->monitor_asleep && !runners->ended)
                                pthread_cond_wait(&runners->monitor_wake, &runners->lock);
                        quiet = 0;
                } else {
                        uint64_t at = clock_monotonic_ns() + runners->options.baton_ns / 2;
                        struct timespec until = { .tv_sec = (time_t)(at / NSEC_PER_SEC),
                                .tv_nsec = (long)(at % NSEC_PER_SEC) };

                        pthread_cond_clockwait(
                                &runners->monitor_wake, &runners->lock, CLOCK_MONOTONIC, &until);
                }
                quiet = monitor_has_demand(runners) ? 0 : quiet + 1;
                monitor_look(runners);
        }
        pthread_mutex_unlock(&runners->lock);
        return NULL;
}

int runners_new(const RunnersOptions *options, Runners **ret)
{
        Runners *runners;
        int r;

        dd_assert(options->runners_max > 0 && options->baton_ns > 0);
        runners = calloc(1, sizeof *runners + options->runners_max * sizeof *runners->all);
        if (!runners)
                return -ENOMEM;
        runners->options = *options;
        pthread_mutex_init(&runners->lock, NULL);
        pthread_cond_init(&runners->monitor_wake, NULL);
        list_init(&runners->queue);
        list_init(&runners->idle);
        list_init(&runners->returning);
        r = thread_start(&runners->monitor, monitor_main, runners, "monitor");
        if (r) {
                runners_free(runners);
                return r;
        }
        runners->monitor_started = true;
        pthread_mutex_lock(&runners->lock);
        r = runner_start(runners);
        pthread_mutex_unlock(&runners->lock);
        if (r) {
                runners_free(runners);
                return r;
        }
        *ret = runners;
        return 0;
}

Runners *runners_free(Runners *runners)
{
        if (!runners)
                return NULL;
        /* The others were joined by the first. */
        if (runners->n_runners)
                pthread_join(runners->all[0]->thread, NULL);
        if (runners->monitor_started) {
                pthread_mutex_lock(&runners->lock);
                runners->ended = true;
                pthread_cond_signal(&runners->monitor_wake);
                pthread_mutex_unlock(&runners->lock);
                pthread_join(runners->monitor, NULL);
        }
        for (unsigned i = 0; i < runners->n_runners; i++) {
                pthread_cond_destroy(&runners->all[i]->wake);
                free(runners->all[i]);
        }
        pthread_cond_destroy(&runners->monitor_wake);
        pthread_mutex_destroy(&runners->lock);
        free(runners);
        return NULL;
}

bool runners_is_saturated(Runners *runners)
{
        bool saturated;

        pthread_mutex_lock(&runners->lock);
        saturated = !runners->holder && list_is_empty(&runners->idle) &&
                    runners->n_runners == runners->options.runners_max &&
                    runners->queued >= runners->options.runners_max;
        pthread_mutex_unlock(&runners->lock);
        return saturated;
}

void runners_close(Runners *runners)
{
        pthread_mutex_lock(&runners->lock);
        runners->closing = true;
        for (unsigned i = 0; i < runners->n_runners; i++)
                pthread_cond_signal(&runners->all[i]->wake);
        pthread_mutex_unlock(&runners->lock);
}

void runners_get_stats(Runners *runners, RunnersStats *ret)
{
        pthread_mutex_lock(&runners->lock);
        *ret = (RunnersStats){
                .busy_ns = runners->busy_ns,
                .runners = runners->n_runners,
                .busy = runners->n_busy,
                .queued = runners->queued,
                .revoked = runners->revoked,
                .refused = runners->refused,
        };
        pthread_mutex_unlock(&runners->lock);
}

void runner_leave(void)
{
        Runner *runner = current_runner, *next;

        if (!runner || runner->away++)
                return;
        runners_flush(runner->runners, UINT64_MAX);
        pthread_mutex_lock(&runner->runners->lock);
        runner_set_state(runner, RUNNER_AWAY);
        next = baton_pass(runner->runners);
        pthread_mutex_unlock(&runner->runners->lock);
        runner_signal(next);
}

/* Queues for the baton. True when it came at once. */
static bool runner_queue_up(Runner *runner)
{
        Runners *runners = runner->runners;
        Runner *next;

        pthread_mutex_lock(&runners->lock);
        runner_set_state(runner, RUNNER_RETURNING);
        list_append(&runners->returning, &runner->link);
        next = baton_pass(runners);
        if (!next)
                monitor_call(runners);
        pthread_mutex_unlock(&runners->lock);
        if (next != runner)
                runner_signal(next);
        return next == runner;
}

static void runner_wait_for_baton(Runner *runner)
{
        pthread_mutex_lock(&runner->runners->lock);
        while (runner->state == RUNNER_RETURNING)
                pthread_cond_wait(&runner->wake, &runner->runners->lock);
        pthread_mutex_unlock(&runner->runners->lock);
}

/* Back at work, with baton and GIL. */
static void runner_rejoin(Runner *runner)
{
        pthread_mutex_lock(&runner->runners->lock);
        runner->since = clock_monotonic_ns();
        runner->working = true;
        pthread_mutex_unlock(&runner->runners->lock);
}

void runner_return(void)
{
        Runner *runner = current_runner;
        PyThreadState *thread_state;

        if (!runner || --runner->away)
                return;
        if (!runner_queue_up(runner)) {
                thread_state = PyEval_SaveThread();
                runner_wait_for_baton(runner);
                PyEval_RestoreThread(thread_state);
        }
        runner_rejoin(runner);
}

PyThreadState *runner_pause(void)
{
        PyThreadState *thread_state = PyEval_SaveThread();

        runner_leave();
        return thread_state;
}

void runner_unpause(PyThreadState *thread_state)
{
        Runner *runner = current_runner;
        bool back = runner && --runner->away == 0;

        if (back && !runner_queue_up(runner))
                runner_wait_for_baton(runner);
        PyEval_RestoreThread(thread_state);
        if (back)
                runner_rejoin(runner);
}
