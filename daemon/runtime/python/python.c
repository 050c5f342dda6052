/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/python.h"

#include "daemon/core/log.h"
#include "daemon/runtime/python/call.h"
#include "daemon/runtime/python/job.h"
#include "lib/base/file.h"

#include <errno.h>

#define RUNNERS_MAX 64u
#define BATON_MS 5u
#define STALL_MS 10000u

PythonRuntime *python_runtime;

static PythonRuntime *from_runtime(Runtime *runtime)
{
        return CONTAINER_OF(runtime, PythonRuntime, runtime);
}

static void python_set_state(PythonRuntime *python, PythonState state)
{
        static const bool allowed[5][5] = {
                [PYTHON_LOADING] = { [PYTHON_RUNNING] = true },
                [PYTHON_RUNNING] = { [PYTHON_STOPPING] = true },
                [PYTHON_STOPPING] = { [PYTHON_CLOSING] = true },
                [PYTHON_CLOSING] = { [PYTHON_STOPPED] = true },
        };

        dd_assert(allowed[python->state][state]);
        python->state = state;
}

/* On the first runner */

static int find_functions(PythonRuntime *python, PyObject *host)
{
        const struct {
                const char *name;
                PyObject **to;
        } functions[] = {
                { "start", &python->start },
                { "resume", &python->resume },
                { "cancel", &python->cancel },
                { "evict", &python->evict },
                { "call_done", &python->call_done },
                { "shutdown", &python->shutdown },
        };

        for (size_t i = 0; i < ELEMENTSOF(functions); i++) {
                *functions[i].to = PyObject_GetAttrString(host, functions[i].name);
                if (!*functions[i].to)
                        return -1;
        }
        return 0;
}

static int load_app(PythonRuntime *python)
{
        _cleanup_(py_decref_p) PyObject *host = NULL, *config = NULL, *done = NULL;

        host = PyImport_ImportModule("durabled_host");
        if (!host)
                return -1;
        python->shutdown = PyObject_GetAttrString(host, "shutdown");
        if (!python->shutdown)
                return -1;
        config = interpreter_new_config(python->config);
        if (!config)
                return -1;
        done = PyObject_CallMethod(host, "load", "O", config);
        if (!done)
                return -1;
        Py_CLEAR(python->shutdown);
        return find_functions(python, host);
}

static int python_open(void *data)
{
        PythonRuntime *python = data;
        int r;

        r = interpreter_open(python->config->host_modules, &python->load_error);
        if (r == 0 && load_app(python) < 0)
                python->load_error = interpreter_take_error();
        if (r < 0 && !python->load_error)
                python->load_error = strdup("out of memory");
        ring_post(python->config->ring, &python->loaded_post);
        return r;
}

static void python_close(void *data)
{
        PythonRuntime *python = data;
        PyObject *result;

        if (python->shutdown) {
                result = PyObject_CallNoArgs(python->shutdown);
                if (!result)
                        interpreter_log_error("the Python side did not shut down in order");
                Py_XDECREF(result);
        }
        call_drop_kept(python);
        guest_drop_all(python);
        Py_CLEAR(python->start);
        Py_CLEAR(python->resume);
        Py_CLEAR(python->cancel);
        Py_CLEAR(python->evict);
        Py_CLEAR(python->call_done);
        Py_CLEAR(python->shutdown);
        interpreter_close();
}

static void python_closed(void *data)
{
        PythonRuntime *python = data;

        ring_post(python->config->ring, &python->stopped_post);
}

/* On the loop */

static void python_tell_loaded(RingPost *post)
{
        PythonRuntime *python = CONTAINER_OF(post, PythonRuntime, loaded_post);

        if (python->state == PYTHON_LOADING)
                python_set_state(python, PYTHON_RUNNING);
        python->loaded(&python->runtime, python->load_error, python->loaded_data);
        if (python->stopped)
                python_settle(python);
}

static void python_tell_stopped(RingPost *post)
{
        PythonRuntime *python = CONTAINER_OF(post, PythonRuntime, stopped_post);
        List *link;

        while ((link = list_first(&python->calls)))
                call_abandon(list_entry(link, Call, link));
        python_set_state(python, PYTHON_STOPPED);
        guest_tell_late(python);
        python->stopped(&python->runtime, python->stopped_data);
}

void python_settle(PythonRuntime *python)
{
        if (python->state == PYTHON_RUNNING && python->stopped)
                python_set_state(python, PYTHON_STOPPING);
        if (python->state != PYTHON_STOPPING || python->n_jobs || python->n_evicting)
                return;
        python_set_state(python, PYTHON_CLOSING);
        runners_close(python->runners);
}

static void python_flush(void *data)
{
        PythonRuntime *python = data;

        ring_wake(python->config->ring);
}

void python_post(PythonRuntime *python, RingPost *post)
{
        ring_post_quietly(python->config->ring, post);
        if (!runner_note())
                ring_wake(python->config->ring);
}

static int python_load(const RuntimeConfig *config,
        void (*loaded)(Runtime *runtime, const char *error, void *data), void *data, Runtime **ret)
{
        const RuntimeLimits *limits = &config->limits;
        PythonRuntime *python;
        int r;

        if (python_runtime)
                return -EBUSY;
        python = calloc(1, sizeof *python);
        if (!python)
                return -ENOMEM;
        python->runtime.vtable = &runtime_python;
        python->config = config;
        python->loaded = loaded;
        python->loaded_data = data;
        python->loaded_post.fn = python_tell_loaded;
        python->stopped_post.fn = python_tell_stopped;
        list_init(&python->jobs);
        list_init(&python->calls);
        list_init(&python->late_evictions);
        list_init(&python->guests);
        list_init(&python->kept_calls);
        python_runtime = python;
        r = runners_new(
                &(RunnersOptions){
                        .runners_max = limits->runners_max ? limits->runners_max : RUNNERS_MAX,
                        .baton_ns =
                                (limits->baton_ms ? limits->baton_ms : BATON_MS) * NSEC_PER_MSEC,
                        .stall_ns =
                                (limits->stall_ms ? limits->stall_ms : STALL_MS) * NSEC_PER_MSEC,
                        .open = python_open,
                        .close = python_close,
                        .closed = python_closed,
                        .flush = python_flush,
                        .data = python,
                },
                &python->runners);
        if (r < 0) {
                python_runtime = NULL;
                free(python);
                return r;
        }
        *ret = &python->runtime;
        return 0;
}

static void python_deliver(Runtime *runtime, RuntimeEvent *event)
{
        job_deliver(from_runtime(runtime), event);
}

static void python_resume(Runtime *runtime, RuntimeEvent *event)
{
        job_resume(event->guest);
}

static void python_cancel(Runtime *runtime, RuntimeEvent *event)
{
        job_cancel_by_host(event->guest);
}

static void python_evict(Runtime *runtime, RuntimeObject *object,
        void (*evicted)(RuntimeObject *object, void *data), void *data)
{
        guest_evict(from_runtime(runtime), object, evicted, data);
}

static void python_get_stats(Runtime *runtime, RuntimeStats *ret)
{
        PythonRuntime *python = from_runtime(runtime);
        RunnersStats stats;

        runners_get_stats(python->runners, &stats);
        *ret = (RuntimeStats){
                .events = python->events,
                .busy_ns = stats.busy_ns,
                .runners = stats.runners,
                .runners_busy = stats.busy,
                .queued = stats.queued,
        };
}

static void python_stop(Runtime *runtime, void (*stopped)(Runtime *runtime, void *data), void *data)
{
        PythonRuntime *python = from_runtime(runtime);

        dd_assert(!python->stopped);
        python->stopped = stopped;
        python->stopped_data = data;
        if (python->state != PYTHON_RUNNING)
                return;
        python_set_state(python, PYTHON_STOPPING);
        list_for_each_safe(link, &python->jobs) {
                Job *job = list_entry(link, Job, link);

                job_settle(job);
        }
        python_settle(python);
}

static void python_unload(Runtime *runtime)
{
        PythonRuntime *python = from_runtime(runtime);

        dd_assert(python->state == PYTHON_STOPPED);
        runners_free(python->runners);
        free(python->load_error);
        free(python);
        python_runtime = NULL;
}

const RuntimeVtable runtime_python = {
        .name = "python",
        .load = python_load,
        .deliver = python_deliver,
        .resume = python_resume,
        .cancel = python_cancel,
        .evict = python_evict,
        .get_stats = python_get_stats,
        .stop = python_stop,
        .unload = python_unload,
};
