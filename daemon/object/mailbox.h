/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Inside of daemon/object: events, objects and the registry that holds them
 *
 * Nobody outside of the room includes this. An event is in exactly one place: its object's queued,
 * suspended or ready list, or the object's executing pointer; an entry event is in none.
 *
 *   QUEUED --> EXECUTING <--> SUSPENDED --> READY --> EXECUTING
 *      \___________\_______________\__________\__> GONE
 *
 * Whatever calls out (a runtime, a consumer) may come back into this room before it returns, and an
 * object that goes idle may be freed by that. So: object_run() is the last use of an object in each
 * function, and a response is aborted after its event and object have been dealt with.
 */

#include "daemon/object/object.h"
#include "lib/base/list.h"
#include "lib/base/map.h"
#include "lib/store/store.h"

typedef struct Object Object;

typedef enum EventState {
        EVENT_QUEUED,
        EVENT_EXECUTING,
        EVENT_SUSPENDED,
        EVENT_READY,
        EVENT_GONE,
        _EVENT_STATES,
} EventState;

typedef struct Event {
        RuntimeEvent runtime;
        Registry *registry;
        Object *object; /* NULL: an entry event */
        EventState state;
        bool cancelled;       /* the runtime was told, or will never be */
        bool late;            /* its deadline passed while it executed */
        bool given_up;        /* its object is reset; deadline: when it is ended by force */
        bool reenters;        /* its chain holds its object */
        List link;            /* in one of the object's lists */
        RingTimer timer;      /* the deadline, or the end of the grace of reenters */
        uint64_t grace_end;   /* 0: no step of its own chain executes */
        Operation *operation; /* NULL: the runtime's */
        PoolWork work;
        uint64_t deadline; /* monotonic ns, 0: none */
} Event;

typedef enum ObjectState {
        OBJECT_NEW,
        OBJECT_ACTIVE,
        OBJECT_IDLE,
        OBJECT_EVICTING,
        OBJECT_GONE,
        _OBJECT_STATES,
} ObjectState;

#define OBJECT_KEY_SIZE (sizeof(uint32_t) + IDENT_SIZE)

struct Object {
        RuntimeObject runtime;
        Registry *registry;
        MapNode node;
        char key[OBJECT_KEY_SIZE]; /* class index and id */
        ObjectState state;
        bool running; /* inside object_run() */
        bool reset;   /* the guest has to go before the next event */
        bool leaving; /* it is going */
        Event *executing;
        List queued, suspended, ready;
        unsigned n_waiting;   /* in the three lists */
        unsigned n_reenters;  /* queued events that may wait for their own chain */
        StoreRoom room;       /* in the journal, for what executes */
        RingTimer room_timer; /* the end of the wait for it */
        bool room_granted;    /* the wait is over: the next step begins */
        List idle_link;
        uint64_t idle_since;
        char *path, *name;
        char *next_name; /* learned while the runtime may read name: used when reopened */
};

struct Registry {
        RegistryOptions options;
        Map objects;
        List idle; /* least recently used first */
        unsigned n_evicting, n_entry, n_executing, n_waiting, n_operations;
        uint64_t n_events, n_rejected, n_evicted;
        RingTimer idle_timer;
        bool stopping;
        bool stop_posted;
        bool settling; /* inside registry_settle() */
        RingPost stop_post;
        void (*stopped)(void *data);
        void *stopped_data;
};

int event_new(
        Registry *registry, Object *object, Request *request, Response *response, Event **ret);
/* Makes a new event one of an operator's. */
void event_set_operation(Event *event, Operation *operation);
/* Tells the runtime, once, that nobody waits for it any more. */
void event_cancel(Event *event);
/* Cancels one that has begun because its object is reset. */
void event_give_up(Event *event);
/* Out of whatever list it is in, then gone. Does not run the object. */
Event *event_free(Event *event);
DEFINE_CLEANUP(Event *, event_free)
void event_set_state(Event *event, EventState state);
/* Begins or continues a step. The event may be gone when it returns. */
void event_step(Event *event);
/* Arms the timer for what comes first. */
void event_arm(Event *event);
/* Its chain waits for this step: would wait for ever, or may. */
bool event_is_of_chain(const Event *step, const Event *call);

int object_new(
        Registry *registry, unsigned class_index, const ObjectId *id, Slice name, Object **ret);
Object *object_free(Object *object);
DEFINE_CLEANUP(Object *, object_free)
void object_set_state(Object *object, ObjectState state);
void object_make_key(unsigned class_index, const ObjectId *id, char out[OBJECT_KEY_SIZE]);
/* Keeps a name that was not known before. */
int object_learn_name(Object *object, Slice name);
/* Takes the event into the mailbox; run it with object_run(). */
void object_queue(Object *object, Event *event);
/* Executes what can be; the object may be gone when it returns. */
void object_run(Object *object);
void object_evict(Object *object);

/* Evicts what is too much; goes on with stopping. */
void registry_settle(Registry *registry);
