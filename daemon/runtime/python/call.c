/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/python/call.h"

#include "daemon/runtime/python/module.h"

#include <errno.h>
#include <stdio.h>

Call *call_ref(Call *call)
{
        __atomic_add_fetch(&call->refs, 1, __ATOMIC_RELAXED);
        return call;
}

static void call_drop_body(Call *call)
{
        List *link;

        while ((link = list_pop(&call->body)))
                chunk_free(list_entry(link, Chunk, link));
        call->body_len = 0;
}

Call *call_unref(Call *call)
{
        if (!call || __atomic_sub_fetch(&call->refs, 1, __ATOMIC_ACQ_REL))
                return NULL;
        dd_assert(!call->response && !call->kept);
        call_drop_body(call);
        job_unref(call->caller);
        job_unref(call->wake_job);
        request_unref(call->request);
        free(call->name);
        free(call->error);
        pthread_cond_destroy(&call->reached);
        pthread_mutex_destroy(&call->lock);
        free(call);
        return NULL;
}

/* With the lock; the post holds a reference. */
static void call_post(Call *call)
{
        if (call->posted)
                return;
        call->posted = true;
        call_ref(call);
        python_post(call->python, &call->post);
}

/* With the lock. */
static bool call_is_reached(const Call *call)
{
        return call->stage >= CALL_COMPLETE || (call->stage == CALL_HEAD && !call->collect);
}

/*
 * Tells whoever is to be told, if there is something to tell. With the lock, which is given up
 * meanwhile.
 */
static void call_tell(Call *call)
{
        CallWake wake = call->wake;
        Job *job;

        if (!call_is_reached(call))
                return;
        pthread_cond_broadcast(&call->reached);
        if (!call->wake_due || wake == CALL_WAKE_NONE)
                return;
        call->wake_due = false;
        if (wake == CALL_WAKE_JOB) {
                job = job_ref(call->wake_job);
                pthread_mutex_unlock(&call->lock);
                job_ready(job);
                job_unref(job);
                pthread_mutex_lock(&call->lock);
        } else if (!call->work_queued) {
                /* Refused only when the interpreter ends: nobody can be told then. */
                call->work_queued = runners_push(call->python->runners, &call->work);
        }
}

static void call_set_stage(Call *call, CallStage stage)
{
        static const bool allowed[4][4] = {
                [CALL_PENDING] = { [CALL_HEAD] = true, [CALL_FAILED] = true },
                [CALL_HEAD] = { [CALL_COMPLETE] = true, [CALL_FAILED] = true },
        };

        dd_assert(allowed[call->stage][stage]);
        call->stage = stage;
}

/* The loop's side */

/* The step that waited for it may be about to go on. */
static void call_uncount(Call *call)
{
        if (!call->counted)
                return;
        call->counted = false;
        if (call->caller->event)
                call->caller->event->blocking--;
}

static void call_fail(Call *call, unsigned status, unsigned retry_after, const char *message)
{
        call_uncount(call);
        pthread_mutex_lock(&call->lock);
        if (call->stage < CALL_COMPLETE) {
                call_set_stage(call, CALL_FAILED);
                call->error_status = status;
                call->retry_after = retry_after;
                call->error = strdup(message);
                call_tell(call);
        }
        pthread_mutex_unlock(&call->lock);
}

static void call_drop_response(Call *call)
{
        Response *response = TAKE_PTR(call->response);

        call_uncount(call);
        if (!response)
                return;
        pthread_mutex_lock(&call->lock);
        call->head = NULL;
        pthread_mutex_unlock(&call->lock);
        response_set_consumer(response, NULL, NULL);
        response_cancel(response);
        response_unref(response);
}

/* Takes what has come, when the whole body is asked for. True when it is complete. */
static bool call_take_body(Call *call)
{
        Chunk *chunk;

        while (call->body_len <= CALL_BODY_MAX && (chunk = response_pop(call->response))) {
                call->body_len += chunk->len;
                list_append(&call->body, &chunk->link);
        }
        return call->body_len <= CALL_BODY_MAX && response_is_drained(call->response);
}

static void call_look(Call *call)
{
        Response *response = call->response;
        const char *message;
        unsigned status, retry_after;
        bool collect, pending;

        if (response_get_state(response) == RESPONSE_ABORTED) {
                status = response_get_abort(response, &retry_after, &message);
                call_fail(call, status, retry_after, message);
                return;
        }
        if (!response_get_head(response))
                return;
        pthread_mutex_lock(&call->lock);
        collect = call->collect;
        pending = call->stage < CALL_COMPLETE;
        if (call->stage == CALL_PENDING) {
                call->head = response_get_head(response);
                call->status = call->head->status;
                call_set_stage(call, CALL_HEAD);
        }
        pthread_mutex_unlock(&call->lock);
        if (!collect)
                call_uncount(call);
        if (collect && pending && call_take_body(call)) {
                call_uncount(call);
                pthread_mutex_lock(&call->lock);
                call_set_stage(call, CALL_COMPLETE);
                pthread_mutex_unlock(&call->lock);
        } else if (call->body_len > CALL_BODY_MAX && pending) {
                call_fail(call, 502, 0, "The answer is larger than 100 MiB.");
                response_cancel(response);
        } else if (response_get_state(response) == RESPONSE_ABORTED) {
                /* While its chunks were taken. */
                call_look(call);
                return;
        }
        pthread_mutex_lock(&call->lock);
        call_tell(call);
        pthread_mutex_unlock(&call->lock);
}

static void call_on_change(Response *response, void *data)
{
        Call *call = data;

        call_ref(call);
        call_look(call);
        call_unref(call);
}

static const ResponseConsumer call_consumer = { .on_change = call_on_change };

static void call_begin(Call *call)
{
        const RuntimeConfig *config = call->python->config;
        RuntimeEvent *event = call->caller->event;
        char message[80];
        int r;

        list_append(&call->python->calls, &call->link);
        if (!event) {
                call_fail(call, 500, 0, "The event that made this call is over.");
                return;
        }
        if (call->blocking) {
                call->counted = true;
                event->blocking++;
        }
        r = config->host->stub_fetch(config->host_data, event, call->class_index, &call->id,
                (Slice){ call->name, call->name_len }, call->request, &call->response);
        call->request = request_unref(call->request);
        if (r < 0) {
                snprintf(message, sizeof message, "The call could not be made: %s.", strerror(-r));
                call_fail(call, 503, r == -ENOMEM ? 1 : 0, message);
                return;
        }
        response_set_consumer(call->response, &call_consumer, call);
}

static void call_run_post(RingPost *post)
{
        Call *call = CONTAINER_OF(post, Call, post);
        bool begin, cancel, release, forwarding;

        pthread_mutex_lock(&call->lock);
        call->posted = false;
        begin = !call->begun;
        call->begun = true;
        cancel = call->cancel;
        call->cancel = false;
        release = call->released;
        forwarding = call->forwarding;
        pthread_mutex_unlock(&call->lock);
        if (begin)
                call_begin(call);
        if (cancel && call->response) {
                call_fail(call, 499, 0, "The call was cancelled.");
                response_cancel(call->response);
        }
        if (call->response && !forwarding)
                call_look(call);
        if (release && list_is_linked(&call->link)) {
                if (!forwarding)
                        call_drop_response(call);
                list_unlink(&call->link);
        }
        call_unref(call);
}

void call_forward(Call *call, Response *to)
{
        Response *from = TAKE_PTR(call->response);

        call_uncount(call);
        pthread_mutex_lock(&call->lock);
        call->head = NULL;
        pthread_mutex_unlock(&call->lock);
        if (!from) {
                response_abort(to, call->error_status ? call->error_status : 500, call->retry_after,
                        call->error ? call->error : "The call could not be made.");
                return;
        }
        response_set_consumer(from, NULL, NULL);
        if (response_get_state(to) == RESPONSE_ENDED) {
                response_cancel(from);
        } else if (response_forward(from, to)) {
                response_abort(to, 503, 1, "out of memory");
                response_cancel(from);
        }
        response_unref(from);
}

void call_abandon(Call *call)
{
        list_unlink(&call->link);
        if (!call->forwarding)
                call_drop_response(call);
}

/* Python's side: with the GIL */

static void call_work(Work *work)
{
        Call *call = CONTAINER_OF(work, Call, work);
        PyObject *self = TAKE_PTR(call->kept), *result;

        pthread_mutex_lock(&call->lock);
        call->work_queued = false;
        pthread_mutex_unlock(&call->lock);
        if (!self)
                return;
        list_unlink(&call->kept_link);
        if (call->wake == CALL_WAKE_FUNCTION) {
                result = PyObject_CallOneArg(call->python->call_done, self);
                if (!result)
                        interpreter_log_error("a call's end could not be told");
                Py_XDECREF(result);
        }
        Py_DECREF(self);
}

int call_new(PythonRuntime *python, const CallParts *parts, Call **ret)
{
        Call *call = calloc(1, sizeof *call);

        if (!call)
                return -ENOMEM;
        if (parts->name.len) {
                call->name = slice_dup(parts->name);
                if (!call->name) {
                        free(call);
                        return -ENOMEM;
                }
        }
        call->refs = 1;
        call->python = python;
        call->post.fn = call_run_post;
        call->work.run = call_work;
        call->caller = job_ref(parts->caller);
        call->class_index = parts->class_index;
        call->id = *parts->id;
        call->name_len = parts->name.len;
        call->request = parts->request;
        call->blocking = parts->blocking;
        call->wake_due = true;
        list_init(&call->link);
        list_init(&call->body);
        list_init(&call->work.link);
        list_init(&call->kept_link);
        pthread_mutex_init(&call->lock, NULL);
        pthread_cond_init(&call->reached, NULL);
        pthread_mutex_lock(&call->lock);
        call_post(call);
        pthread_mutex_unlock(&call->lock);
        *ret = call;
        return 0;
}

void call_release(Call *call)
{
        pthread_mutex_lock(&call->lock);
        call->released = true;
        call_post(call);
        pthread_mutex_unlock(&call->lock);
        call_unref(call);
}

/* While a callable is to be told, the Python side stays alive. With the lock. */
static void call_keep(Call *call, PyObject *self)
{
        if (call->wake != CALL_WAKE_FUNCTION || !call->wake_due || call->kept)
                return;
        call->kept = Py_NewRef(self);
        list_append(&call->python->kept_calls, &call->kept_link);
}

void call_collect(Call *call, PyObject *self)
{
        pthread_mutex_lock(&call->lock);
        if (!call->collect && call->stage < CALL_COMPLETE) {
                call->collect = true;
                call->wake_due = true;
                call_keep(call, self);
                call_post(call);
        }
        pthread_mutex_unlock(&call->lock);
}

void call_cancel(Call *call)
{
        pthread_mutex_lock(&call->lock);
        if (call->stage < CALL_COMPLETE && !call->forwarding) {
                call->cancel = true;
                call_post(call);
        }
        pthread_mutex_unlock(&call->lock);
}

void call_wait(Call *call)
{
        PyThreadState *thread_state;
        bool reached;

        pthread_mutex_lock(&call->lock);
        reached = call_is_reached(call);
        pthread_mutex_unlock(&call->lock);
        if (reached)
                return;
        job_flush();
        thread_state = runner_pause();
        pthread_mutex_lock(&call->lock);
        while (!call_is_reached(call))
                pthread_cond_wait(&call->reached, &call->lock);
        pthread_mutex_unlock(&call->lock);
        runner_unpause(thread_state);
}

void call_set_wake(Call *call, CallWake wake, Job *job, PyObject *self)
{
        PyObject *kept = NULL;
        Job *old;

        pthread_mutex_lock(&call->lock);
        old = TAKE_PTR(call->wake_job);
        call->wake = wake;
        call->wake_job = wake == CALL_WAKE_JOB ? job_ref(job) : NULL;
        call->wake_due = true;
        call_keep(call, self);
        if (wake != CALL_WAKE_FUNCTION && call->kept && !call->work_queued) {
                kept = TAKE_PTR(call->kept);
                list_unlink(&call->kept_link);
        }
        call_tell(call);
        pthread_mutex_unlock(&call->lock);
        job_unref(old);
        Py_XDECREF(kept);
}

void call_drop_kept(PythonRuntime *python)
{
        List *link;

        while ((link = list_pop(&python->kept_calls))) {
                Call *call = list_entry(link, Call, kept_link);

                Py_DECREF(TAKE_PTR(call->kept));
        }
}

ResponseHead *call_copy_head(Call *call)
{
        ResponseHead *copy = NULL;

        pthread_mutex_lock(&call->lock);
        if (call->head)
                (void)response_head_new(call->head->status, call->head->headers,
                        call->head->n_headers, call->head->content_length, &copy);
        pthread_mutex_unlock(&call->lock);
        return copy;
}
