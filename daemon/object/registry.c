/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/object/mailbox.h"

#include "lib/base/file.h"

#include <errno.h>

#define OBJECTS_MAX 1000u
#define MAILBOX_MAX 1024u
#define ENTRY_MAX 4096u
#define IDLE_NS (60 * NSEC_PER_SEC)
#define OPERATIONS_MAX 16u
#define RETRY_AFTER 1u /* seconds; a mailbox that is full moves on within that or not at all */

static void registry_on_idle_timer(RingTimer *timer);
static void registry_on_stop_post(RingPost *post);

int registry_new(const RegistryOptions *options, Registry **ret)
{
        Registry *registry = calloc(1, sizeof *registry);

        if (!registry)
                return -ENOMEM;
        registry->options = *options;
        if (!registry->options.objects_max)
                registry->options.objects_max = OBJECTS_MAX;
        if (!registry->options.mailbox_max)
                registry->options.mailbox_max = MAILBOX_MAX;
        if (!registry->options.entry_max)
                registry->options.entry_max = ENTRY_MAX;
        if (!registry->options.idle_ns)
                registry->options.idle_ns = IDLE_NS;
        if (!registry->options.operations_max)
                registry->options.operations_max = OPERATIONS_MAX;
        map_init(&registry->objects);
        list_init(&registry->idle);
        ring_timer_init(&registry->idle_timer, registry_on_idle_timer);
        registry->stop_post.fn = registry_on_stop_post;
        *ret = registry;
        return 0;
}

Registry *registry_free(Registry *registry)
{
        if (!registry)
                return NULL;
        dd_assert(registry->objects.len == 0 && registry->n_entry == 0);
        ring_timer_disarm(registry->options.ring, &registry->idle_timer);
        map_done(&registry->objects);
        free(registry);
        return NULL;
}

static void registry_on_stop_post(RingPost *post)
{
        Registry *registry = CONTAINER_OF(post, Registry, stop_post);

        registry->stopped(registry->stopped_data);
}

/* A runtime may answer evict() at once, which comes back here: each turn of the loop looks anew. */
void registry_settle(Registry *registry)
{
        const RegistryOptions *options = &registry->options;
        uint64_t now = ring_now(options->ring);
        Object *oldest;

        if (registry->settling)
                return;
        registry->settling = true;
        while (!list_is_empty(&registry->idle)) {
                oldest = list_entry(list_first(&registry->idle), Object, idle_link);
                if (!registry->stopping &&
                        registry->objects.len - registry->n_evicting <= options->objects_max &&
                        now - oldest->idle_since < options->idle_ns)
                        break;
                object_evict(oldest);
        }
        registry->settling = false;
        if (registry->stopping) {
                if (registry->objects.len || registry->n_entry || registry->stop_posted)
                        return;
                registry->stop_posted = true;
                ring_timer_disarm(options->ring, &registry->idle_timer);
                ring_defer(options->ring, &registry->stop_post);
        } else if (!list_is_empty(&registry->idle) && !ring_timer_is_armed(&registry->idle_timer)) {
                oldest = list_entry(list_first(&registry->idle), Object, idle_link);
                /* Without memory for a timer the next object that goes idle tries again. */
                (void)ring_timer_arm(options->ring, &registry->idle_timer,
                        oldest->idle_since + options->idle_ns);
        }
}

static void registry_on_idle_timer(RingTimer *timer)
{
        registry_settle(CONTAINER_OF(timer, Registry, idle_timer));
}

static void registry_reject(
        Registry *registry, Response *response, unsigned status, const char *message)
{
        registry->n_rejected++;
        response_abort(response, status, status == 503 ? RETRY_AFTER : 0, message);
}

static bool chain_is_too_long(Slice chain)
{
        unsigned n = chain.len > 0;

        for (size_t i = 0; i < chain.len; i++)
                n += chain.data[i] == ',';
        return n > CHAIN_MAX;
}

/* Whether the registry can take an event for an object (NULL: one that is not in memory). */
static bool registry_admit(Registry *registry, const Object *object, unsigned class_index,
        const Request *request, Response *response)
{
        const RegistryOptions *options = &registry->options;
        unsigned status = 503;
        const char *message = NULL;

        if (class_index >= options->n_classes) {
                status = 500;
                message = "The app has no class of this number.";
        } else if (registry->stopping) {
                message = "The service is stopping.";
        } else if (request->deadline && request->deadline <= ring_now(options->ring)) {
                status = 504;
                message = "The request's deadline has passed.";
        } else if (chain_is_too_long(request->chain)) {
                status = 508;
                message = "Objects called each other too many levels deep (at most 32).";
        } else if (object && object->n_waiting >= options->mailbox_max) {
                message = "The object has too many requests waiting.";
        } else if (!object &&
                   registry->objects.len >= (size_t)options->objects_max * OBJECTS_HARD_FACTOR) {
                message = "Too many objects are busy.";
        }
        if (message)
                registry_reject(registry, response, status, message);
        return !message;
}

static bool registry_admit_operation(Registry *registry, Response *response)
{
        if (registry->n_operations < registry->options.operations_max)
                return true;
        registry_reject(registry, response, 503, "Too many operators' requests are under way.");
        return false;
}

static Object *registry_find(Registry *registry, unsigned class_index, const ObjectId *id)
{
        char key[OBJECT_KEY_SIZE];
        MapNode *node;

        object_make_key(class_index, id, key);
        node = map_find(&registry->objects, slice_of(key, sizeof key));
        return node ? CONTAINER_OF(node, Object, node) : NULL;
}

/* What the caller gets of what the object says: the same, once it is durable. */
static int registry_gate(Registry *registry, Object *object, Response *response, Response **ret)
{
        _cleanup_(response_unref_p) Response *answer = NULL;
        int r;

        if (!registry->options.store) {
                *ret = response_ref(response);
                return 0;
        }
        r = response_new(&answer);
        if (r)
                return r;
        response_set_shard(answer, response_get_shard(response));
        r = response_forward_durable(response, answer, registry->options.store, object->path);
        if (r)
                return r;
        *ret = TAKE_PTR(answer);
        return 0;
}

/* An event for an object; operation: NULL when the runtime gets it. */
static int registry_deliver(Registry *registry, unsigned class_index, const ObjectId *id,
        Slice name, Request *request, Operation *operation, Response **ret)
{
        _cleanup_(response_unref_p) Response *response = NULL, *answer = NULL;
        Object *object = registry_find(registry, class_index, id);
        bool created = !object;
        Event *event;
        int r;

        r = response_new(&response);
        if (r)
                return r;
        response_set_shard(response, (int)ident_get_shard(id));
        if (!registry_admit(registry, object, class_index, request, response) ||
                (operation && !registry_admit_operation(registry, response))) {
                if (operation)
                        operation->end(operation);
                *ret = TAKE_PTR(response);
                return 0;
        }
        r = object ? object_learn_name(object, name)
                   : object_new(registry, class_index, id, name, &object);
        if (r)
                return r;
        r = registry_gate(registry, object, response, &answer);
        if (!r)
                r = event_new(registry, object, request, response, &event);
        if (r) {
                if (object->state == OBJECT_NEW)
                        object_free(object);
                return r;
        }
        if (operation)
                event_set_operation(event, operation);
        object_queue(object, event);
        object_run(object);
        if (created)
                registry_settle(registry);
        *ret = TAKE_PTR(answer);
        return 0;
}

int registry_fetch(Registry *registry, unsigned class_index, const ObjectId *id, Slice name,
        Request *request, Response **ret)
{
        return registry_deliver(registry, class_index, id, name, request, NULL, ret);
}

int registry_operate(Registry *registry, unsigned class_index, const ObjectId *id, Slice name,
        Operation *operation, Response **ret)
{
        RequestParts parts = { .method = SLICE("OPERATE"), .path = SLICE("/"), .body_fd = -1 };
        _cleanup_(request_unref_p) Request *request = NULL;
        int r;

        dd_assert(registry->options.pool);
        r = request_new(&parts, &request);
        if (r)
                return r;
        return registry_deliver(registry, class_index, id, name, request, operation, ret);
}

int registry_fetch_entry(Registry *registry, Request *request, Response **ret)
{
        _cleanup_(response_unref_p) Response *response = NULL;
        const char *message = NULL;
        Event *event;
        int r;

        r = response_new(&response);
        if (r)
                return r;
        if (registry->stopping)
                message = "The service is stopping.";
        else if (registry->n_entry >= registry->options.entry_max)
                message = "The app has too many requests in flight.";
        if (message) {
                registry_reject(registry, response, 503, message);
        } else if (request->deadline && request->deadline <= ring_now(registry->options.ring)) {
                registry_reject(registry, response, 504, "The request's deadline has passed.");
        } else {
                r = event_new(registry, NULL, request, response, &event);
                if (r)
                        return r;
                event_step(event);
        }
        *ret = TAKE_PTR(response);
        return 0;
}

void registry_get_stats(const Registry *registry, RegistryStats *ret)
{
        *ret = (RegistryStats){
                .events = registry->n_events,
                .rejected = registry->n_rejected,
                .evicted = registry->n_evicted,
                .objects = (unsigned)registry->objects.len,
                .executing = registry->n_executing,
                .queued = registry->n_waiting,
        };
}

void registry_stop(Registry *registry, void (*stopped)(void *data), void *data)
{
        dd_assert(!registry->stopping);
        registry->stopping = true;
        registry->stopped = stopped;
        registry->stopped_data = data;
        registry_settle(registry);
}
