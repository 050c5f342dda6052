/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A call that a guest makes to an object
 *
 * Made on any Python thread, run on the loop, where its Response is consumed. What it waits for is
 * the head, or, after collect(), the whole body; then whoever is set to be woken is woken, once.
 *
 *   PENDING --> HEAD --collect()--> COMPLETE
 *      \_________\____________________> FAILED
 *
 * The Response is let go of on the loop alone: by the release that the Python side's end posts, by
 * a forward that takes it over, or when the runtime stops.
 */

#include "daemon/runtime/python/job.h"

#define CALL_BODY_MAX (100u << 20)

typedef enum CallStage {
        CALL_PENDING,
        CALL_HEAD,
        CALL_COMPLETE,
        CALL_FAILED,
} CallStage;

typedef enum CallWake { CALL_WAKE_NONE, CALL_WAKE_JOB, CALL_WAKE_FUNCTION } CallWake;

struct Call {
        unsigned refs; /* atomic */
        PythonRuntime *python;
        RingPost post;
        /* What is called; the loop's from the first post on. */
        Job *caller;
        unsigned class_index;
        ObjectId id;
        char *name;
        size_t name_len;
        Request *request;
        /* Loop thread. */
        List link;
        Response *response;
        bool counted; /* in the event's count of calls that it waits for inside a step */
        /* Under the lock. */
        pthread_mutex_t lock;
        pthread_cond_t reached;
        bool posted, begun, blocking, collect, cancel, released, forwarding;
        CallStage stage;
        const ResponseHead *head; /* the response's */
        unsigned status;
        List body; /* the loop's until COMPLETE, Python's then */
        size_t body_len;
        unsigned error_status, retry_after;
        char *error;
        CallWake wake;
        Job *wake_job;
        bool wake_due, work_queued;
        Work work;
        /* With the GIL. */
        PyObject *kept; /* the CallObject itself, while a callable is to be told */
        List kept_link;
};

typedef struct CallParts {
        Job *caller;
        unsigned class_index;
        const ObjectId *id;
        Slice name;
        Request *request; /* taken on success */
        bool blocking;    /* the caller's step will wait for it */
} CallParts;

/* With the GIL. */
int call_new(PythonRuntime *python, const CallParts *parts, Call **ret);
Call *call_ref(Call *call);
Call *call_unref(Call *call);
/* The Python side is gone. */
void call_release(Call *call);
/* self: the CallObject. */
void call_collect(Call *call, PyObject *self);
void call_cancel(Call *call);
/* Until the head, or after collect() the body, is there; without baton and GIL. */
void call_wait(Call *call);
void call_set_wake(Call *call, CallWake wake, Job *job, PyObject *self);

/* malloc'd; NULL when there is none (any more) or memory is out. */
ResponseHead *call_copy_head(Call *call);

/* Loop thread. The call's answer becomes that of response. */
void call_forward(Call *call, Response *response);
/* Loop thread, when the runtime has stopped: no Python is left. */
void call_abandon(Call *call);
/* With the GIL, before the interpreter ends. */
void call_drop_kept(PythonRuntime *python);
