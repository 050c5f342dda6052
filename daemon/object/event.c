/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/object/mailbox.h"

#include <errno.h>

static const char late_message[] = "The app did not answer before the request's deadline.";
static const char late_operation_message[] =
        "It takes longer than it may, and goes on: look later whether it was done.";
static const char reset_message[] = "The object was reset while it answered: try again.";

static Event *event_from_runtime(RuntimeEvent *event)
{
        return CONTAINER_OF(event, Event, runtime);
}

static bool is_waiting(EventState state)
{
        return state == EVENT_QUEUED || state == EVENT_SUSPENDED || state == EVENT_READY;
}

void event_set_state(Event *event, EventState state)
{
        /* A runtime may end an event without another step of it: hence SUSPENDED to GONE. */
        static const bool allowed[_EVENT_STATES][_EVENT_STATES] = {
                [EVENT_QUEUED] = { [EVENT_EXECUTING] = true, [EVENT_GONE] = true },
                [EVENT_EXECUTING] = { [EVENT_SUSPENDED] = true, [EVENT_GONE] = true },
                [EVENT_SUSPENDED] = { [EVENT_READY] = true, [EVENT_GONE] = true },
                [EVENT_READY] = { [EVENT_EXECUTING] = true, [EVENT_GONE] = true },
        };
        Registry *registry = event->registry;

        dd_assert(allowed[event->state][state]);
        if (is_waiting(event->state)) {
                list_unlink(&event->link);
                registry->n_waiting--;
                if (event->object)
                        event->object->n_waiting--;
                if (event->object && event->state == EVENT_QUEUED && event->reenters)
                        event->object->n_reenters--;
        } else if (event->state == EVENT_EXECUTING) {
                registry->n_executing--;
                if (event->object)
                        event->object->executing = NULL;
        }
        event->state = state;
        if (is_waiting(state)) {
                registry->n_waiting++;
                if (event->object)
                        event->object->n_waiting++;
        } else if (state == EVENT_EXECUTING) {
                registry->n_executing++;
                if (event->object) {
                        dd_assert(!event->object->executing);
                        event->object->executing = event;
                }
        }
}

Event *event_free(Event *event)
{
        if (!event)
                return NULL;
        event_set_state(event, EVENT_GONE);
        ring_timer_disarm(event->registry->options.ring, &event->timer);
        if (!event->object)
                event->registry->n_entry--;
        if (event->operation) {
                event->registry->n_operations--;
                event->operation->end(event->operation);
        }
        if (!response_is_forwarded(event->runtime.response))
                response_set_producer(event->runtime.response, NULL, NULL);
        response_unref(event->runtime.response);
        request_unref(event->runtime.request);
        free(event);
        return NULL;
}

/* Ends an event that was never delivered. */
static void event_drop(Event *event, unsigned status, const char *message)
{
        Response *response = response_ref(event->runtime.response);
        Object *object = event->object;
        Registry *registry = event->registry;

        dd_assert(event->state == EVENT_QUEUED);
        event_free(event);
        if (status)
                registry->n_rejected++;
        object_run(object);
        if (status)
                response_abort(response, status, 0, message);
        response_unref(response);
}

void event_cancel(Event *event)
{
        Runtime *runtime = event->registry->options.runtime;

        if (event->cancelled)
                return;
        event->cancelled = true;
        /* What an operation has begun it ends. */
        if (!event->operation)
                runtime->vtable->cancel(runtime, &event->runtime);
}

void event_give_up(Event *event)
{
        Registry *registry = event->registry;
        Response *response = response_ref(event->runtime.response);

        /* Before it is told: it may be gone when that returns. */
        event->given_up = true;
        event->deadline = ring_now(registry->options.ring) + OBJECT_RESET_GRACE_NS;
        (void)ring_timer_arm(registry->options.ring, &event->timer, event->deadline);
        event_cancel(event);
        response_abort(response, 503, 1, reset_message);
        response_unref(response);
}

static void event_on_cancel(Response *response, void *data)
{
        Event *event = data;

        if (event->state == EVENT_QUEUED)
                event_drop(event, 0, NULL);
        else
                event_cancel(event);
}

static void event_on_timer(RingTimer *timer)
{
        static const char chain_message[] =
                "A chain of calls came back to an object that is inside a step of the same chain: "
                "it would wait for itself. Await the call in an async handler instead.";
        static const char deadline_message[] =
                "The object did not get to this request before its deadline.";
        Event *event = CONTAINER_OF(timer, Event, timer);
        uint64_t now = ring_now(event->registry->options.ring);
        uint64_t deadline = event->deadline;
        Response *response;

        if (event->state == EVENT_QUEUED) {
                if (event->grace_end && event->grace_end <= now)
                        event_drop(event, 508, chain_message);
                else if (deadline && deadline <= now)
                        event_drop(event, 504, deadline_message);
                else
                        event_arm(event);
                return;
        }
        if (!deadline || deadline > now) {
                event_arm(event);
                return;
        }
        if (event->given_up) {
                event->registry->options.runtime->vtable->cancel(
                        event->registry->options.runtime, &event->runtime);
                return;
        }
        response = response_ref(event->runtime.response);
        event->late = true;
        event_cancel(event);
        if (response_get_state(response) == RESPONSE_OPEN)
                response_abort(
                        response, 504, 0, event->operation ? late_operation_message : late_message);
        response_unref(response);
}

/* Cannot fail an event for want of a timer: without one it only waits longer. */
void event_arm(Event *event)
{
        Ring *ring = event->registry->options.ring;
        uint64_t at = event->deadline;

        if (event->state == EVENT_QUEUED && event->grace_end && (!at || event->grace_end < at))
                at = event->grace_end;
        if (at && (!event->cancelled || event->given_up))
                (void)ring_timer_arm(ring, &event->timer, at);
        else
                ring_timer_disarm(ring, &event->timer);
}

bool event_is_of_chain(const Event *step, const Event *call)
{
        Slice before = step->runtime.request->chain, chain = call->runtime.request->chain;

        if (memcmp(step->runtime.request->id, call->runtime.request->id,
                    sizeof step->runtime.request->id) != 0)
                return false;
        if (!slice_has_prefix(chain, before))
                return false;
        chain = slice_skip(chain, before.len);
        if (before.len && slice_has_prefix(chain, SLICE(",")))
                chain = slice_skip(chain, 1);
        return slice_equal(slice_cut(&chain, ','), slice_from(step->runtime.object->id_text));
}

static void event_suspended(RuntimeEvent *runtime_event)
{
        Event *event = event_from_runtime(runtime_event);
        Object *object = event->object;

        event_set_state(event, EVENT_SUSPENDED);
        if (!object)
                return;
        list_append(&object->suspended, &event->link);
        object_run(object);
}

static void event_ready(RuntimeEvent *runtime_event)
{
        Event *event = event_from_runtime(runtime_event);
        Object *object = event->object;

        event_set_state(event, EVENT_READY);
        if (!object) {
                event_step(event);
                return;
        }
        list_append(&object->ready, &event->link);
        object_run(object);
}

static void event_done(RuntimeEvent *runtime_event)
{
        Event *event = event_from_runtime(runtime_event);
        Response *response = response_ref(event->runtime.response);
        Registry *registry = event->registry;
        Object *object = event->object;

        bool late = event->late;

        dd_assert(event->state != EVENT_QUEUED);
        event_free(event);
        if (object)
                object_run(object);
        else
                registry_settle(registry);
        if (late)
                response_abort(response, 504, 0, late_message);
        else if (!response_is_forwarded(response))
                response_abort(response, 500, 0, "The app ended without an answer.");
        response_unref(response);
}

/* Of the step that executes: the guest is not to outlive it. */
static void event_reset(RuntimeEvent *runtime_event)
{
        Event *event = event_from_runtime(runtime_event);

        dd_assert(event->state == EVENT_EXECUTING);
        if (event->object)
                event->object->reset = true;
}

static const ResponseProducer event_producer = { .on_cancel = event_on_cancel };

static void operation_work(PoolWork *work)
{
        const Event *event = CONTAINER_OF(work, Event, work);

        event->operation->run(event->operation, event->object->path);
}

static void operation_done(PoolWork *work)
{
        Event *event = CONTAINER_OF(work, Event, work);
        Response *response = event->runtime.response;
        Object *object = event->object;

        if (response_get_state(response) == RESPONSE_OPEN)
                event->operation->answer(event->operation, response);
        event_free(event);
        object_run(object);
}

static void event_operate(Event *event)
{
        const Registry *registry = event->registry;
        Response *response;
        Object *object = event->object;

        event->deadline = ring_now(registry->options.ring) + event->operation->run_ns;
        event_arm(event);
        pool_work_init(&event->work, operation_work, operation_done);
        if (pool_push(registry->options.pool, &event->work) == 0)
                return;
        response = response_ref(event->runtime.response);
        event_free(event);
        object_run(object);
        response_abort(response, 503, 1, "No thread can be made for it.");
        response_unref(response);
}

void event_step(Event *event)
{
        Runtime *runtime = event->registry->options.runtime;
        bool first = event->state == EVENT_QUEUED;

        event_set_state(event, EVENT_EXECUTING);
        event->grace_end = 0;
        if (first) {
                event->registry->n_events++;
                event_arm(event);
                if (event->operation)
                        event_operate(event);
                else
                        runtime->vtable->deliver(runtime, &event->runtime);
        } else {
                runtime->vtable->resume(runtime, &event->runtime);
        }
}

/* Whether a chain (comma separated ids) holds the id. */
static bool chain_holds(Slice chain, const char *id_text)
{
        while (chain.len)
                if (slice_equal(slice_cut(&chain, ','), slice_from(id_text)))
                        return true;
        return false;
}

int event_new(Registry *registry, Object *object, Request *request, Response *response, Event **ret)
{
        Event *event = calloc(1, sizeof *event);

        if (!event)
                return -ENOMEM;
        event->runtime = (RuntimeEvent){
                .kind = object ? RUNTIME_OBJECT_FETCH : RUNTIME_ENTRY_FETCH,
                .object = object ? &object->runtime : NULL,
                .request = request_ref(request),
                .response = response_ref(response),
                .suspended = event_suspended,
                .ready = event_ready,
                .done = event_done,
                .reset = event_reset,
        };
        event->registry = registry;
        event->object = object;
        event->state = EVENT_QUEUED;
        event->deadline = request->deadline;
        event->reenters = object && chain_holds(request->chain, object->runtime.id_text);
        list_init(&event->link);
        ring_timer_init(&event->timer, event_on_timer);
        registry->n_waiting++;
        if (object) {
                object->n_waiting++;
                object->n_reenters += event->reenters;
        } else {
                registry->n_entry++;
        }
        response_set_producer(response, &event_producer, event);
        *ret = event;
        return 0;
}

void event_set_operation(Event *event, Operation *operation)
{
        Registry *registry = event->registry;

        dd_assert(event->state == EVENT_QUEUED && event->object);
        event->operation = operation;
        event->deadline = ring_now(registry->options.ring) + operation->wait_ns;
        registry->n_operations++;
}
