/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The one interface between the host and a runtime (python; later builtin and native)
 *
 * All calls below and all callbacks run on the worker's loop thread and none of them blocks; a
 * runtime does its work on threads of its own and comes back by ring_post().
 *
 * An event is delivered to the app's entrypoint (no object) or to an object. It runs in *steps*:
 * the first begins with deliver(), each further one with resume(). Between steps it waits for
 * something that is not the object's storage, and the object may execute other events.
 *
 *            deliver()            suspended()
 *   QUEUED -----------> EXECUTING -----------> SUSPENDED --ready()--> READY
 *                        |    ^                                         |
 *                 done() |    \________________ resume() _______________/
 *                        v
 *                      DONE
 *
 * Guarantees of a runtime:
 * 1. For each delivered event done() is called exactly once, after its last use of the event.
 * 2. An object's guest code runs between deliver()/resume() and suspended()/done() alone.
 * 3. After evict() of an object and its callback, nothing of the object is open.
 * 4. stop() lets what executes finish, cancels what is suspended, then calls stopped(), once.
 * 5. Before done() the answer is ended, aborted, or handed on by response_forward(), which may then
 *    outlive the event.
 * Guarantees of the host:
 * 6. No two events of one object execute at a time. resume() is called only after ready().
 * 7. evict() is called only when no event of the object is with the runtime, and none is delivered
 *    before its callback.
 */

#include "daemon/runtime/message.h"
#include "lib/loop/ring.h"
#include "lib/wire/ident.h"
#include "lib/wire/manifest.h"

typedef struct Runtime Runtime;
typedef struct RuntimeEvent RuntimeEvent;

/* A class of the app that has objects. Lives as long as the runtime. */
typedef struct RuntimeClass {
        const char *class_name; /* in the app's code */
        const char *unique_key;
} RuntimeClass;

typedef struct RuntimeBinding {
        const char *name; /* env.NAME */
        unsigned class_index;
} RuntimeBinding;

/* The runtime's view of an object. Owned by object/, alive until evict()'s callback. */
typedef struct RuntimeObject {
        unsigned class_index;
        ObjectId id;
        char id_text[IDENT_TEXT_SIZE];
        Slice name;       /* empty: known by id alone */
        const char *path; /* of its database file */
        void *guest;      /* the runtime's own: NULL before the first event and after evict() */
} RuntimeObject;

typedef enum RuntimeEventKind {
        RUNTIME_ENTRY_FETCH,  /* the app's entrypoint; object is NULL */
        RUNTIME_OBJECT_FETCH, /* an object's fetch() */
} RuntimeEventKind;

/* Owned by whoever delivers it, alive until done(). */
struct RuntimeEvent {
        RuntimeEventKind kind;
        RuntimeObject *object;
        Request *request;   /* the event's reference */
        Response *response; /* where the answer goes; the event's reference */
        /* Called by the runtime, on the loop thread. */
        void (*suspended)(RuntimeEvent *event);
        void (*ready)(RuntimeEvent *event);
        void (*done)(RuntimeEvent *event);
        /* Between deliver() or resume() and the end of that step: the object's guest is to be made
         * anew. Events of the object that have begun are cancelled, no other begins before. */
        void (*reset)(RuntimeEvent *event);
        void *guest; /* the runtime's own */
        /* Calls that the current step waits for without suspending. The runtime counts one up
         * before stub_fetch() and down when it is answered: a chain that comes back is failed at
         * once then, and otherwise only when the step goes on for OBJECT_CHAIN_GRACE_NS. Loop
         * thread. */
        unsigned blocking;
};

/* What a guest may call back; implemented by the worker. Loop thread. */
typedef struct RuntimeHost {
        /*
         * Calls another object. The answer comes through *ret (a new reference). event is the
         * caller's. 0 or a negative errno (nothing was called).
         */
        int (*stub_fetch)(void *host, RuntimeEvent *event, unsigned class_index, const ObjectId *id,
                Slice name, Request *request, Response **ret);
} RuntimeHost;

typedef struct RuntimeLimits {
        unsigned runners_max; /* threads; default 64 */
        unsigned baton_ms; /* after which another runner may start beside a busy one; default 5 */
        unsigned stall_ms; /* after which events are refused when no runner takes any; default
                              10,000 */
} RuntimeLimits;

typedef struct RuntimeConfig {
        Ring *ring;
        const Manifest *manifest;
        const char *app_name;
        const char *app_directory;  /* the folder of the manifest; its main is relative to it */
        const char *python_path;    /* colon separated: dependencies of the app; may be NULL */
        const char *host_modules;   /* the folder of workers/, django_cf/, js/, pyodide/ */
        const char *env_json;       /* an object: vars and secrets, values as given */
        const char *admin_password; /* NULL: none */
        bool development;           /* durablectl dev: tracebacks in answers */
        const RuntimeClass *classes;
        size_t n_classes;
        const RuntimeBinding *bindings;
        size_t n_bindings;
        RuntimeLimits limits;
        const RuntimeHost *host;
        void *host_data;
        struct Store *store; /* NULL: plain files, for tests */
} RuntimeConfig;

typedef struct RuntimeStats {
        uint64_t events, busy_ns;
        unsigned runners, runners_busy, queued;
} RuntimeStats;

typedef struct RuntimeVtable {
        const char *name;
        /* Starts its threads and loads the app; loaded() is called once, with NULL or what went
         * wrong (for people: may be several lines, a traceback). config outlives the runtime. */
        int (*load)(const RuntimeConfig *config,
                void (*loaded)(Runtime *runtime, const char *error, void *data), void *data,
                Runtime **ret);
        void (*deliver)(Runtime *runtime, RuntimeEvent *event);
        void (*resume)(Runtime *runtime, RuntimeEvent *event);
        /* The consumer is gone or the deadline passed: advice; done() still comes. The second time:
         * no further step of it begins, done() comes when the one that executes has ended. */
        void (*cancel)(Runtime *runtime, RuntimeEvent *event);
        void (*evict)(Runtime *runtime, RuntimeObject *object,
                void (*evicted)(RuntimeObject *object, void *data), void *data);
        void (*get_stats)(Runtime *runtime, RuntimeStats *ret);
        void (*stop)(Runtime *runtime, void (*stopped)(Runtime *runtime, void *data), void *data);
        /* After stopped(). */
        void (*unload)(Runtime *runtime);
} RuntimeVtable;

struct Runtime {
        const RuntimeVtable *vtable;
};

/* Each runtime's one symbol, in its own folder. */
extern const RuntimeVtable runtime_python;
