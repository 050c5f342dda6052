/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/object/mailbox.h"
#include "lib/store/db.h"

#include <errno.h>

void object_set_state(Object *object, ObjectState state)
{
        static const bool allowed[_OBJECT_STATES][_OBJECT_STATES] = {
                [OBJECT_NEW] = { [OBJECT_ACTIVE] = true, [OBJECT_GONE] = true },
                [OBJECT_ACTIVE] = { [OBJECT_IDLE] = true },
                [OBJECT_IDLE] = { [OBJECT_ACTIVE] = true, [OBJECT_EVICTING] = true },
                [OBJECT_EVICTING] = { [OBJECT_ACTIVE] = true, [OBJECT_GONE] = true },
        };
        Registry *registry = object->registry;

        dd_assert(allowed[object->state][state]);
        if (object->state == OBJECT_IDLE)
                list_unlink(&object->idle_link);
        if (object->state == OBJECT_EVICTING)
                registry->n_evicting--;
        object->state = state;
        if (state == OBJECT_IDLE) {
                object->idle_since = ring_now(registry->options.ring);
                list_append(&registry->idle, &object->idle_link);
        }
        if (state == OBJECT_EVICTING)
                registry->n_evicting++;
}

void object_make_key(unsigned class_index, const ObjectId *id, char out[OBJECT_KEY_SIZE])
{
        uint32_t index = class_index;

        memcpy(out, &index, sizeof index);
        memcpy(out + sizeof index, id->bytes, IDENT_SIZE);
}

/* Room for what the next step may write */

static void object_end_room_wait(Object *object)
{
        ring_timer_disarm(object->registry->options.ring, &object->room_timer);
        object->room_granted = true;
        object_run(object);
}

static void object_on_room(StoreRoom *room)
{
        object_end_room_wait(CONTAINER_OF(room, Object, room));
}

static void object_on_room_timer(RingTimer *timer)
{
        Object *object = CONTAINER_OF(timer, Object, room_timer);

        store_give_room(object->registry->options.store, &object->room);
        object_end_room_wait(object);
}

/* Whether the next step may begin; when not, the object is run again. */
static bool object_take_room(Object *object)
{
        const RegistryOptions *options = &object->registry->options;

        if (!options->store || object->room_granted) {
                object->room_granted = false;
                return true;
        }
        if (store_room_is_waiting(&object->room))
                return false;
        if (store_take_room(options->store, &object->room, object->path))
                return true;
        if (ring_timer_arm(options->ring, &object->room_timer,
                    ring_now(options->ring) + OBJECT_ROOM_WAIT_NS) == 0)
                return false;
        store_give_room(options->store, &object->room);
        return true;
}

/* Nothing executes, and nothing is about to. */
static void object_give_room(Object *object)
{
        const RegistryOptions *options = &object->registry->options;

        if (!options->store)
                return;
        object->room_granted = false;
        ring_timer_disarm(options->ring, &object->room_timer);
        store_give_room(options->store, &object->room);
}

int object_new(
        Registry *registry, unsigned class_index, const ObjectId *id, Slice name, Object **ret)
{
        Object *object = calloc(1, sizeof *object);
        int r;

        if (!object)
                return -ENOMEM;
        object->registry = registry;
        object->runtime.class_index = class_index;
        object->runtime.id = *id;
        ident_format(id, object->runtime.id_text);
        object_make_key(class_index, id, object->key);
        list_init(&object->queued);
        list_init(&object->suspended);
        list_init(&object->ready);
        list_init(&object->idle_link);
        store_room_init(&object->room, object_on_room);
        ring_timer_init(&object->room_timer, object_on_room_timer);
        object->path = db_object_path(registry->options.objects_directory,
                registry->options.classes[class_index].unique_key, object->runtime.id_text);
        object->name = slice_dup(name);
        if (!object->path || !object->name)
                r = -ENOMEM;
        else
                r = map_insert(
                        &registry->objects, &object->node, slice_of(object->key, OBJECT_KEY_SIZE));
        if (r) {
                free(object->path);
                free(object->name);
                free(object);
                return r;
        }
        object->runtime.path = object->path;
        object->runtime.name = slice_of(object->name, name.len);
        *ret = object;
        return 0;
}

Object *object_free(Object *object)
{
        if (!object)
                return NULL;
        object_set_state(object, OBJECT_GONE);
        dd_assert(!object->executing && object->n_waiting == 0);
        map_remove(&object->registry->objects, &object->node);
        free(object->path);
        free(object->name);
        free(object->next_name);
        free(object);
        return NULL;
}

int object_learn_name(Object *object, Slice name)
{
        if (name.len == 0 || object->runtime.name.len || object->next_name)
                return 0;
        object->next_name = slice_dup(name);
        return object->next_name ? 0 : -ENOMEM;
}

/* While no event has begun and no guest is there to read it. */
static void object_take_name(Object *object)
{
        if (!object->next_name)
                return;
        free(object->name);
        object->name = TAKE_PTR(object->next_name);
        object->runtime.name = slice_from(object->name);
}

static bool has_begun(const Object *object)
{
        return object->executing || !list_is_empty(&object->suspended) ||
               !list_is_empty(&object->ready);
}

/* A reset */

static bool object_wants_reset(const Object *object)
{
        const List *link = list_first(&object->queued);
        const Event *next = link ? list_entry(link, Event, link) : NULL;

        return object->reset || (next && next->operation && next->operation->exclusive);
}

/* One that is cancelled may come back as ready before this returns: hence from the beginning. */
static void object_give_up(Object *object, List *list)
{
        bool more;

        do {
                more = false;
                list_for_each(link, list) {
                        Event *event = list_entry(link, Event, link);

                        if (event->given_up)
                                continue;
                        event_give_up(event);
                        more = true;
                        break;
                }
        } while (more);
}

static void object_guest_left(RuntimeObject *runtime_object, void *data)
{
        Object *object = data;

        dd_assert(object->leaving);
        object->leaving = false;
        object->runtime.guest = NULL;
        object_run(object);
}

/* True when the next event may begin; what has begun goes on to its end first. */
static bool object_step_reset(Object *object)
{
        Runtime *runtime = object->registry->options.runtime;

        object_give_up(object, &object->suspended);
        object_give_up(object, &object->ready);
        if (has_begun(object))
                return false;
        if (object->runtime.guest) {
                object->leaving = true;
                runtime->vtable->evict(runtime, &object->runtime, object_guest_left, object);
        }
        if (object->leaving)
                return false;
        object->reset = false;
        return true;
}

/* A step begins or an event comes: how long may the event wait for its own chain? */
static void object_judge(Object *object, Event *event)
{
        Ring *ring = object->registry->options.ring;
        const Event *step = object->executing;

        if (!event->reenters)
                return;
        event->grace_end = 0;
        if (step && event_is_of_chain(step, event))
                event->grace_end =
                        ring_now(ring) + (step->runtime.blocking ? 0 : OBJECT_CHAIN_GRACE_NS);
        event_arm(event);
}

void object_queue(Object *object, Event *event)
{
        if (object->state == OBJECT_NEW || object->state == OBJECT_IDLE)
                object_set_state(object, OBJECT_ACTIVE);
        list_append(&object->queued, &event->link);
        event_arm(event);
        object_judge(object, event);
}

static Event *object_next(Object *object)
{
        List *link;

        if (object->executing || object->leaving)
                return NULL;
        if (object_wants_reset(object) && !object_step_reset(object)) {
                link = list_first(&object->ready);
                return link ? list_entry(link, Event, link) : NULL;
        }
        if (!object->runtime.guest && !has_begun(object))
                object_take_name(object);
        link = list_first(&object->ready);
        if (!link)
                link = list_first(&object->queued);
        return link ? list_entry(link, Event, link) : NULL;
}

void object_run(Object *object)
{
        Registry *registry = object->registry;
        Event *event;

        if (object->state != OBJECT_ACTIVE || object->running)
                return;
        object->running = true;
        while ((event = object_next(object)) && object_take_room(object)) {
                event_step(event);
                if (!object->n_reenters)
                        continue;
                list_for_each(link, &object->queued)
                        object_judge(object, list_entry(link, Event, link));
        }
        object->running = false;
        if (!object->executing && !event)
                object_give_room(object);
        if (object->executing || object->n_waiting || object->leaving)
                return;
        object_set_state(object, OBJECT_IDLE);
        registry_settle(registry);
}

static void object_evicted(RuntimeObject *runtime_object, void *data)
{
        Object *object = data;
        Registry *registry = object->registry;

        dd_assert(object->state == OBJECT_EVICTING);
        registry->n_evicted++;
        object->runtime.guest = NULL;
        if (object->n_waiting == 0) {
                object_free(object);
                registry_settle(registry);
                return;
        }
        object_take_name(object);
        object_set_state(object, OBJECT_ACTIVE);
        object_run(object);
}

void object_evict(Object *object)
{
        Runtime *runtime = object->registry->options.runtime;

        object_set_state(object, OBJECT_EVICTING);
        runtime->vtable->evict(runtime, &object->runtime, object_evicted, object);
}
