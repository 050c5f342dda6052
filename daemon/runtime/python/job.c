/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/job.h"

#include "daemon/runtime/python/call.h"
#include "daemon/runtime/python/module.h"
#include "lib/store/store.h"

#include <errno.h>

/* The job whose step this thread executes. */
static _Thread_local Job *current_job;

static void job_set_state(Job *job, JobState state)
{
        static const bool allowed[4][4] = {
                [JOB_EXECUTING] = { [JOB_SUSPENDED] = true, [JOB_OVER] = true },
                [JOB_SUSPENDED] = { [JOB_READY] = true, [JOB_EXECUTING] = true },
                [JOB_READY] = { [JOB_EXECUTING] = true },
        };

        dd_assert(allowed[job->state][state]);
        job->state = state;
}

Job *job_ref(Job *job)
{
        __atomic_add_fetch(&job->refs, 1, __ATOMIC_RELAXED);
        return job;
}

static void job_drop_outbox(Job *job)
{
        List *link;

        while ((link = list_pop(&job->outbox)))
                chunk_free(list_entry(link, Chunk, link));
        job->outbox_len = 0;
}

Job *job_unref(Job *job)
{
        if (!job || __atomic_sub_fetch(&job->refs, 1, __ATOMIC_ACQ_REL))
                return NULL;
        dd_assert(!job->python_event && !job->notes.forward);
        job_drop_outbox(job);
        free(job->notes.head);
        free(job->notes.abort_message);
        pthread_cond_destroy(&job->room);
        pthread_mutex_destroy(&job->lock);
        request_unref(job->request);
        free(job);
        return NULL;
}

/* Takes what is noted to the loop. With the lock; the post holds a reference. */
static void job_post(Job *job)
{
        if (job->posted)
                return;
        job->posted = true;
        job_ref(job);
        python_post(job->python, &job->post);
}

/* Notes of a step travel with its end, others at once. With the lock. */
static void job_noted(Job *job)
{
        if (current_job != job)
                job_post(job);
}

void job_flush(void)
{
        Job *job = current_job;

        if (!job)
                return;
        pthread_mutex_lock(&job->lock);
        if (job->notes.head || job->notes.ended || job->notes.abort_status || job->notes.forward)
                job_post(job);
        pthread_mutex_unlock(&job->lock);
}

void job_ready(Job *job)
{
        pthread_mutex_lock(&job->lock);
        job->wake = true;
        job_post(job);
        pthread_mutex_unlock(&job->lock);
}

/* The loop's side */

static Chunk *job_pop(Job *job)
{
        Chunk *chunk = NULL;
        List *link;

        pthread_mutex_lock(&job->lock);
        link = list_pop(&job->outbox);
        if (link) {
                chunk = list_entry(link, Chunk, link);
                if (job->outbox_len >= JOB_OUTBOX_MAX &&
                        job->outbox_len - chunk->len < JOB_OUTBOX_MAX)
                        pthread_cond_broadcast(&job->room);
                job->outbox_len -= chunk->len;
        }
        pthread_mutex_unlock(&job->lock);
        return chunk;
}

/* Moves what the response has room for; all of it when no more comes. */
static void job_pump(Job *job, Response *response, bool all)
{
        Chunk *chunk;

        while ((all || !response_is_full(response)) && (chunk = job_pop(job)))
                response_push(response, chunk);
}

static void job_on_room(Response *response, void *data)
{
        Job *job = data;

        job_ref(job);
        job_pump(job, response, false);
        job_unref(job);
}

static void job_on_cancel(Response *response, void *data)
{
        job_cancel(data);
}

static const ResponseProducer job_producer = {
        .on_room = job_on_room,
        .on_cancel = job_on_cancel,
};

static void job_apply_answer(Job *job, Response *response, JobNotes *notes)
{
        bool last = notes->ended || notes->step == JOB_STEP_DONE;
        ResponseHead *head = TAKE_PTR(notes->head);
        Call *forward = TAKE_PTR(notes->forward);
        bool single;

        if (head && notes->ended) {
                pthread_mutex_lock(&job->lock);
                single = list_first(&job->outbox) == list_last(&job->outbox);
                pthread_mutex_unlock(&job->lock);
                if (single) {
                        response_finish(response, head, job_pop(job));
                        return;
                }
        }
        if (head)
                response_start(response, head);
        if (response_get_state(response) == RESPONSE_STARTED ||
                response_get_state(response) == RESPONSE_ABORTED)
                job_pump(job, response, last);
        if (notes->ended)
                response_end(response);
        if (notes->abort_status)
                response_abort(
                        response, notes->abort_status, notes->retry_after, notes->abort_message);
        if (forward) {
                call_forward(forward, response);
                call_unref(forward);
        }
}

static void job_finish(Job *job, Response *response)
{
        PythonRuntime *python = job->python;
        RuntimeEvent *event = TAKE_PTR(job->event);

        job_set_state(job, JOB_OVER);
        list_unlink(&job->link);
        python->n_jobs--;
        event->guest = NULL;
        if (!response_is_forwarded(response)) {
                response_set_producer(response, NULL, NULL);
                response_abort(response, 500, 0, "The app ended without an answer.");
        }
        event->done(event);
        job_unref(job);
        python_settle(python);
}

/* Executes on a runner: only lets go of the Python side. */
static void job_push_drop(Job *job)
{
        pthread_mutex_lock(&job->lock);
        job->drop = true;
        pthread_mutex_unlock(&job->lock);
        job_set_state(job, JOB_EXECUTING);
        if (!runners_push(job->python->runners, &job->work))
                dd_unreachable();
}

void job_settle(Job *job)
{
        bool stopping = job->python->state >= PYTHON_STOPPING;
        bool wake, tell = false;

        if (job->state != JOB_SUSPENDED)
                return;
        if (job->forced || (stopping && job->n_cancels >= JOB_CANCELS_MAX)) {
                job_push_drop(job);
                return;
        }
        if (stopping || (job->cancelled && job->n_cancels == 0)) {
                tell = true;
                job->n_cancels++;
        }
        pthread_mutex_lock(&job->lock);
        wake = job->wake || tell;
        job->tell_cancel |= tell;
        job->wake = false;
        pthread_mutex_unlock(&job->lock);
        if (!wake)
                return;
        job_set_state(job, JOB_READY);
        job->event->ready(job->event);
}

static void job_run_post(RingPost *post)
{
        Job *job = CONTAINER_OF(post, Job, post);
        Response *response;
        JobNotes notes;

        pthread_mutex_lock(&job->lock);
        notes = job->notes;
        job->notes = (JobNotes){ 0 };
        job->posted = false;
        pthread_mutex_unlock(&job->lock);
        if (job->event) {
                response = response_ref(job->event->response);
                if (notes.reset && job->state == JOB_EXECUTING)
                        job->event->reset(job->event);
                job_apply_answer(job, response, &notes);
                if (notes.step == JOB_STEP_DONE) {
                        job_finish(job, response);
                } else if (notes.step == JOB_STEP_SUSPENDED) {
                        job_set_state(job, JOB_SUSPENDED);
                        job->event->suspended(job->event);
                        job_settle(job);
                } else {
                        job_settle(job);
                }
                response_unref(response);
        }
        free(notes.head);
        free(notes.abort_message);
        dd_assert(!notes.forward);
        job_unref(job);
}

void job_cancel(Job *job)
{
        if (job->cancelled)
                return;
        __atomic_store_n(&job->cancelled, true, __ATOMIC_RELAXED);
        pthread_mutex_lock(&job->lock);
        pthread_cond_broadcast(&job->room);
        /* A step that is due tells it. */
        if (job->event && job->state == JOB_READY && job->n_cancels == 0) {
                job->n_cancels++;
                job->tell_cancel = true;
        }
        pthread_mutex_unlock(&job->lock);
        if (job->event)
                job_settle(job);
}

void job_cancel_by_host(Job *job)
{
        job->forced = job->told;
        job->told = true;
        if (job->forced)
                job_settle(job);
        else
                job_cancel(job);
}

static void job_work(Work *work);

/* Ends an event that has not begun, without Python. With the lock. */
static void job_note_refusal(Job *job, const char *message)
{
        job->notes.abort_status = 503;
        job->notes.retry_after = 1;
        job->notes.abort_message = strdup(message);
        job->notes.step = JOB_STEP_DONE;
}

static const char busy_message[] = "All runners are busy: try again later.";

/* Nobody has run it and nobody else can: began is the runner's, and the queue has let go of it. */
static bool job_refuse(Work *work)
{
        Job *job = CONTAINER_OF(work, Job, work);

        if (job->began)
                return false;
        job->over = true;
        pthread_mutex_lock(&job->lock);
        job_note_refusal(job, busy_message);
        job_post(job);
        pthread_mutex_unlock(&job->lock);
        return true;
}

static Job *job_new(PythonRuntime *python, RuntimeEvent *event)
{
        Job *job = calloc(1, sizeof *job);

        if (!job)
                return NULL;
        job->refs = 1;
        job->python = python;
        job->object = event->object;
        job->request = request_ref(event->request);
        job->event = event;
        job->state = JOB_EXECUTING;
        job->work.run = job_work;
        job->work.refuse = job_refuse;
        job->post.fn = job_run_post;
        list_init(&job->work.link);
        list_init(&job->link);
        list_init(&job->outbox);
        pthread_mutex_init(&job->lock, NULL);
        pthread_cond_init(&job->room, NULL);
        return job;
}

void job_deliver(PythonRuntime *python, RuntimeEvent *event)
{
        const char *refusal = NULL;
        Job *job = job_new(python, event);

        if (!job) {
                response_abort(event->response, 503, 1, "out of memory");
                event->done(event);
                return;
        }
        event->guest = job;
        list_append(&python->jobs, &job->link);
        python->n_jobs++;
        python->events++;
        response_set_producer(event->response, &job_producer, job);
        if (python->load_error)
                refusal = "The app could not be loaded.";
        else if (python->state >= PYTHON_STOPPING)
                refusal = "The app is being stopped.";
        else if (response_is_cancelled(event->response))
                refusal = "The request was cancelled.";
        else if (runners_is_saturated(python->runners))
                refusal = busy_message;
        if (!refusal && runners_push(python->runners, &job->work))
                return;
        /* Never from inside this call. */
        pthread_mutex_lock(&job->lock);
        job_note_refusal(job, refusal);
        job->posted = true;
        job_ref(job);
        pthread_mutex_unlock(&job->lock);
        ring_defer(python->config->ring, &job->post);
}

void job_resume(Job *job)
{
        if (job->forced) {
                pthread_mutex_lock(&job->lock);
                job->drop = true;
                pthread_mutex_unlock(&job->lock);
        }
        job_set_state(job, JOB_EXECUTING);
        if (!runners_push(job->python->runners, &job->work))
                dd_unreachable();
}

/* The runner's side: all with the GIL */

/* What a step that failed in the host itself leaves to the client. */
static void job_fail(Job *job, const char *what)
{
        interpreter_log_error(what);
        job_abort(job, 500, 0, "The app's host failed; its log says why.");
}

/* Calls durabled_host. 1: over, 0: suspended, -1 with an exception. */
static int job_call(Job *job, bool first, bool tell_cancel)
{
        PythonRuntime *python = job->python;
        PyObject *result;
        int over;

        /* This thread may open that object's database alone (ATTACH to another's is refused). */
        if (python->config->store && job->event->object)
                (void)store_set_current(python->config->store, job->event->object->path);
        if (first) {
                job->python_event = (PyObject *)event_object_new(job);
                if (!job->python_event)
                        return -1;
        }
        if (tell_cancel) {
                result = PyObject_CallOneArg(python->cancel, job->python_event);
                if (!result)
                        return -1;
                Py_DECREF(result);
        }
        result = PyObject_CallOneArg(first ? python->start : python->resume, job->python_event);
        if (!result)
                return -1;
        over = result == Py_True ? 1 : PyObject_IsTrue(result);
        Py_DECREF(result);
        return over;
}

static void job_detach(Job *job)
{
        PyObject *python_event = TAKE_PTR(job->python_event);

        job->over = true;
        if (!python_event)
                return;
        Py_CLEAR(((EventObject *)python_event)->state);
        Py_DECREF(python_event);
}

static void job_work(Work *work)
{
        Job *job = CONTAINER_OF(work, Job, work);
        bool first = !job->began, tell_cancel, drop;
        int over;

        pthread_mutex_lock(&job->lock);
        tell_cancel = job->tell_cancel;
        drop = job->drop;
        job->tell_cancel = false;
        pthread_mutex_unlock(&job->lock);
        job->began = true;
        current_job = job;
        if (drop || (first && __atomic_load_n(&job->cancelled, __ATOMIC_RELAXED))) {
                job_abort(job, 503, 0, "The request was cancelled.");
                over = 1;
        } else {
                over = job_call(job, first, tell_cancel);
                if (over < 0) {
                        job_fail(job, "durabled_host failed");
                        over = 1;
                }
        }
        if (over)
                job_detach(job);
        current_job = NULL;
        pthread_mutex_lock(&job->lock);
        job->notes.step = over ? JOB_STEP_DONE : JOB_STEP_SUSPENDED;
        job_post(job);
        pthread_mutex_unlock(&job->lock);
}

void job_respond(Job *job, ResponseHead *head, Chunk *chunk)
{
        job->answer = JOB_ANSWER_GIVEN;
        pthread_mutex_lock(&job->lock);
        job->notes.head = head;
        job->notes.ended = true;
        list_append(&job->outbox, &chunk->link);
        job->outbox_len += chunk->len;
        job_noted(job);
        pthread_mutex_unlock(&job->lock);
}

void job_start(Job *job, ResponseHead *head)
{
        job->answer = JOB_ANSWER_STARTED;
        pthread_mutex_lock(&job->lock);
        job->notes.head = head;
        job_noted(job);
        pthread_mutex_unlock(&job->lock);
}

static bool job_is_unwanted(const Job *job)
{
        return __atomic_load_n(&job->cancelled, __ATOMIC_RELAXED);
}

static void job_wait_for_room(Job *job)
{
        PyThreadState *thread_state = runner_pause();

        pthread_mutex_lock(&job->lock);
        while (job->outbox_len >= JOB_OUTBOX_MAX && !job_is_unwanted(job))
                pthread_cond_wait(&job->room, &job->lock);
        pthread_mutex_unlock(&job->lock);
        runner_unpause(thread_state);
}

int job_write(Job *job, const void *data, size_t len)
{
        const char *from = data;

        while (len) {
                size_t piece = MIN(len, (size_t)JOB_PIECE_MAX);
                Chunk *chunk;
                bool full;

                if (job_is_unwanted(job))
                        return -EPIPE;
                chunk = chunk_new(from, piece);
                if (!chunk)
                        return -ENOMEM;
                pthread_mutex_lock(&job->lock);
                list_append(&job->outbox, &chunk->link);
                job->outbox_len += piece;
                full = job->outbox_len >= JOB_OUTBOX_MAX;
                job_post(job);
                pthread_mutex_unlock(&job->lock);
                from += piece;
                len -= piece;
                if (full)
                        job_wait_for_room(job);
        }
        return job_is_unwanted(job) ? -EPIPE : 0;
}

void job_end(Job *job)
{
        job->answer = JOB_ANSWER_GIVEN;
        pthread_mutex_lock(&job->lock);
        job->notes.ended = true;
        job_noted(job);
        pthread_mutex_unlock(&job->lock);
}

void job_abort(Job *job, unsigned status, unsigned retry_after, const char *message)
{
        job->answer = JOB_ANSWER_GIVEN;
        pthread_mutex_lock(&job->lock);
        if (!job->notes.abort_status) {
                job->notes.abort_status = status;
                job->notes.retry_after = retry_after;
                job->notes.abort_message = strdup(message);
        }
        job_noted(job);
        pthread_mutex_unlock(&job->lock);
}

void job_forward(Job *job, Call *call)
{
        job->answer = JOB_ANSWER_GIVEN;
        pthread_mutex_lock(&job->lock);
        job->notes.forward = call_ref(call);
        job_noted(job);
        pthread_mutex_unlock(&job->lock);
}

void job_reset(Job *job)
{
        pthread_mutex_lock(&job->lock);
        job->notes.reset = true;
        job_noted(job);
        pthread_mutex_unlock(&job->lock);
}
