/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The Python runtime of this process: what its parts share
 *
 *   LOADING -> RUNNING -> STOPPING -> CLOSING -> STOPPED
 *
 * LOADING until loaded() has been called (RUNNING also after a failed load: nothing is delivered
 * then); STOPPING until no event is left; CLOSING while the interpreter ends.
 */

#include "daemon/runtime/python/runner.h"
#include "daemon/runtime/runtime.h"

typedef enum PythonState {
        PYTHON_LOADING,
        PYTHON_RUNNING,
        PYTHON_STOPPING,
        PYTHON_CLOSING,
        PYTHON_STOPPED,
} PythonState;

typedef struct PythonRuntime {
        Runtime runtime;
        const RuntimeConfig *config;
        Runners *runners;
        /* Loop thread. */
        PythonState state;
        List jobs, calls, late_evictions;
        unsigned n_jobs, n_evicting;
        uint64_t events;
        void (*loaded)(Runtime *runtime, const char *error, void *data);
        void *loaded_data;
        void (*stopped)(Runtime *runtime, void *data);
        void *stopped_data;
        /* From the first runner to the loop. */
        RingPost loaded_post, stopped_post;
        char *load_error;
        /* With the GIL. */
        PyObject *start, *resume, *cancel, *evict, *call_done, *shutdown;
        List guests;     /* objects that have a Python side */
        List kept_calls; /* that wait to be told to a callable */
} PythonRuntime;

/* One a process, NULL when there is none. */
extern PythonRuntime *python_runtime;

/* Any thread. The post of a runner that has more to do may take RUNNER_FLUSH_NS longer. */
void python_post(PythonRuntime *python, RingPost *post);

/* Loop thread: something came to its end; a stop that waits goes on when it was the last. */
void python_settle(PythonRuntime *python);

/* The Python side of an object; RuntimeObject.guest. Freed on the loop after its eviction. */
typedef struct Guest {
        PythonRuntime *python;
        RuntimeObject *object;
        PyObject *python_object; /* an ObjectObject; with the GIL */
        List link;
        Work work;
        RingPost post;
        void (*evicted)(RuntimeObject *object, void *data);
        void *evicted_data;
} Guest;

/* On a runner, inside a step of the object: a borrowed ObjectObject, or NULL with an exception. */
PyObject *guest_get_object(PythonRuntime *python, RuntimeObject *object);
/* Loop thread. */
void guest_evict(PythonRuntime *python, RuntimeObject *object,
        void (*evicted)(RuntimeObject *object, void *data), void *data);
/* Loop thread: what was evicted while the interpreter ended. */
void guest_tell_late(PythonRuntime *python);
/* At the end, with the GIL: lets go of all. */
void guest_drop_all(PythonRuntime *python);
