/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A job: one event while the runtime has it
 *
 * The loop's side of an event and what its Python side says meet here. Whatever a step says (the
 * answer, its end) is noted under the lock and taken to the loop by one post; several notes share
 * it. Python's Event may outlive the job's work: it holds a reference.
 *
 *   EXECUTING --suspended--> SUSPENDED --ready--> READY --resume()--> EXECUTING
 *       \______done______________________________________________________> OVER
 *
 * Guarantees:
 * 1. The answer given in a step reaches the loop at the end of the step or before it waits,
 *    whichever comes first; a stream's pieces at once.
 * 2. A ready() is never lost: one that comes before the step has ended counts when it has.
 * 3. What waits to be sent is at most RESPONSE_QUEUE_MAX in the Response and JOB_OUTBOX_MAX here.
 */

#include "daemon/runtime/python/python.h"

#include <pthread.h>

#define JOB_OUTBOX_MAX (128u << 10)
#define JOB_PIECE_MAX (64u << 10)
/* How often a suspended event is cancelled when the runtime stops, before it is dropped. */
#define JOB_CANCELS_MAX 3u

typedef struct Call Call;

typedef enum JobState {
        JOB_EXECUTING,
        JOB_SUSPENDED,
        JOB_READY,
        JOB_OVER,
} JobState;

typedef enum JobStep {
        JOB_STEP_NONE,
        JOB_STEP_SUSPENDED,
        JOB_STEP_DONE,
} JobStep;

typedef enum JobAnswer {
        JOB_ANSWER_NONE,
        JOB_ANSWER_STARTED,
        JOB_ANSWER_GIVEN,
} JobAnswer;

/* What goes to the loop with the next post. */
typedef struct JobNotes {
        ResponseHead *head;
        bool ended;
        unsigned abort_status, retry_after; /* 0: no abort */
        bool reset;
        char *abort_message;
        Call *forward;
        JobStep step;
} JobNotes;

typedef struct Job {
        unsigned refs; /* atomic */
        PythonRuntime *python;
        RuntimeObject *object; /* NULL: the entrypoint. While not over */
        Request *request;
        Work work;
        RingPost post;
        /* Loop thread. */
        JobState state;
        RuntimeEvent *event; /* NULL: over */
        List link;
        unsigned n_cancels;
        bool told;   /* the host has cancelled it */
        bool forced; /* twice: no further step */
        /* With the GIL. */
        PyObject *python_event; /* strong until the event is over */
        bool began, over;
        JobAnswer answer;
        /* Under the lock. */
        pthread_mutex_t lock;
        pthread_cond_t room; /* the outbox has room, or nobody wants it */
        JobNotes notes;
        List outbox;
        size_t outbox_len;
        bool posted, wake, tell_cancel, drop;
        bool cancelled; /* atomic; set on the loop */
} Job;

/* Loop thread. */
void job_deliver(PythonRuntime *python, RuntimeEvent *event);
void job_resume(Job *job);
void job_cancel(Job *job);
/* As job_cancel(), for the host, which may say it twice. */
void job_cancel_by_host(Job *job);
/* Goes on with what waits for a stop. */
void job_settle(Job *job);

Job *job_ref(Job *job);
Job *job_unref(Job *job);

/* Any thread: the event may be resumed. */
void job_ready(Job *job);

/* With the GIL; the caller has checked job->answer. Head and chunk are taken. */
void job_respond(Job *job, ResponseHead *head, Chunk *chunk);
void job_start(Job *job, ResponseHead *head);
/* Waits for room without baton and GIL. 0, -ENOMEM, -EPIPE (nobody wants it any more). */
int job_write(Job *job, const void *data, size_t len);
void job_end(Job *job);
/* message is copied. */
void job_abort(Job *job, unsigned status, unsigned retry_after, const char *message);
/* Takes a reference of the call. */
void job_forward(Job *job, Call *call);
/* In a step of an object: its guest is to be made anew after it (RuntimeEvent.reset). */
void job_reset(Job *job);
/* Sends what this thread's step has noted: before it waits for something. */
void job_flush(void);
