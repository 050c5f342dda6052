/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the files of the supervisor share: supervisor.c (start, signals, stop), process.c (a slot's
 * worker), boot-message.c (what a worker is told), operate.c (what operators ask of it), reload.c,
 * status.c, announce.c (what systemd is told), watch.c (workers that hang), manager.c and objects.c
 * (the Varlink methods).
 */

#include "daemon/core/boot.h"
#include "daemon/host/app.h"
#include "daemon/host/control.h"
#include "daemon/host/listener.h"
#include "daemon/host/slot.h"
#include "daemon/host/steer.h"
#include "daemon/host/supervisor.h"
#include "lib/base/list.h"
#include "lib/loop/ring.h"
#include "lib/wire/ident.h"

#define SLOTS_MAX 128u /* of an app: their hand-off descriptors fit in one boot message */
#define SLOT_READY_TIMEOUT_NS (120 * NSEC_PER_SEC)
#define SLOT_LEAVE_TIMEOUT_NS (2 * NSEC_PER_SEC) /* after draining, after closing its socket */
#define STATS_TIMEOUT_NS NSEC_PER_SEC
#define SLOT_ERROR_MAX 4096u
#define ANNOUNCE_TEXT_MAX 400u

typedef struct SupervisorApp SupervisorApp;

typedef struct Slot {
        Supervisor *supervisor;
        SupervisorApp *app;
        unsigned index; /* in the app */
        SlotLife life;
        uint64_t heard;      /* its last sign of life; 0: none since it was started, or killed */
        uint64_t generation; /* of the app's code that its worker was started with */
        char *error;         /* why it cannot be loaded; NULL: nothing known */
        bool error_told;     /* it stands in the log, by this slot or another */
        pid_t pid;           /* 0: no process */
        int pidfd, boot_fd;
        bool exited; /* the process has been waited for */
        int status;  /* CLD_EXITED: its exit status; otherwise minus the signal */
        RingOp exit_op, boot_op;
        RingTimer timer; /* by state: ready in time, gone in time, the next try */
        int internal_fd, hand_off_receive, hand_off_send;
        char *internal_path;
} Slot;

struct SupervisorApp {
        const ConfigApp *config;
        unsigned index;
        HostApp *host;
        HostApp *next; /* while manifests are read: takes host's place when all are right */
        Slot *slots;
        unsigned n_slots;
};

typedef struct StatsQuery {
        List link;
        Supervisor *supervisor;
        uint64_t id;
        RingTimer timer;
        unsigned n_waiting;
        bool *waiting;  /* by slot over all apps */
        json_t **stats; /* the same; NULL: no answer */
        void (*fn)(json_t *status, void *data);
        void *data;
} StatsQuery;

typedef struct ReloadCall {
        List link;
        ControlCall *call;
} ReloadCall;

typedef enum AnnounceState {
        ANNOUNCE_STARTING,
        ANNOUNCE_UP,
        ANNOUNCE_RELOADING,
        ANNOUNCE_STOPPING,
} AnnounceState;

typedef struct Announce {
        AnnounceState state;
        char text[ANNOUNCE_TEXT_MAX]; /* the last status */
        RingTimer watchdog;
        uint64_t watchdog_ns; /* how often; 0: nobody waits for it */
} Announce;

struct Supervisor {
        const Config *config;
        char *state, *runtime, *objects, *worker_path, *host_modules;
        char *admin_token, *admin_password;
        int state_lock, runtime_lock;
        Ring *ring;
        Catalog *catalog;
        SupervisorApp *apps;
        size_t n_apps;
        unsigned n_slots; /* over all apps */
        Listener *listener;
        Steer *steer;
        Control *control;
        uint64_t started;
        uint64_t generation;
        bool stopping, reloading, reload_again;
        List reload_calls;
        List queries;
        uint64_t query_last;
        List operations;
        uint64_t operate_last;
        int signal_fd;
        RingOp signal_op;
        Announce announce;
        RingTimer watch_timer;
        uint64_t watch_last;
};

/* process.c */
void slot_start(Slot *slot);
void slot_drain(Slot *slot);
void slot_kill(Slot *slot);
/* Of why it cannot be loaded, the line that names the fault; "" when nothing is known. */
Slice slot_error_line(const Slot *slot);
/* The number of a slot over all apps: its index in groups and in the steering tables. */
unsigned slot_number(const Slot *slot);
/* Sends a stats message; false when the worker cannot be asked now. */
bool slot_ask_stats(Slot *slot, uint64_t id);

/* boot-message.c: a new reference, or NULL when memory is out. *fds has room for BOOT_FDS_MAX. */
json_t *boot_message_new(const Slot *slot, int *fds, size_t *ret_n_fds);

/* supervisor.c */
Slot *supervisor_get_slot(Supervisor *supervisor, unsigned number);
/* A slot's state has changed: the steering tables, a reload and a stop go on. */
void supervisor_changed(Supervisor *supervisor);
void supervisor_stop(Supervisor *supervisor);

/* announce.c: both do nothing when no manager listens. */
void announce_begin(Supervisor *supervisor);
/* A slot's or the supervisor's state has changed. */
void announce_step(Supervisor *supervisor);

/* watch.c */
void watch_begin(Supervisor *supervisor);
/* A worker's loop has answered. */
void watch_heard(Slot *slot);

/* reload.c */
/* call: answered when the reload is over; NULL: a signal asked for it. */
void supervisor_reload(Supervisor *supervisor, ControlCall *call);
void reload_step(Supervisor *supervisor);
int supervisor_load_apps(Supervisor *supervisor, Catalog *catalog, HostAppError *error);

/* status.c: fn gets a borrowed reference, NULL when memory is out; exactly once. */
void supervisor_query(Supervisor *supervisor, void (*fn)(json_t *status, void *data), void *data);
/* stats: the worker's answer to id, borrowed; NULL: it will not answer any more. */
void query_answered(Slot *slot, uint64_t id, json_t *stats);
void query_slot_lost(Slot *slot);
/* Answers all with what is known. */
void query_end_all(Supervisor *supervisor);

/* operate.c */
/* answer: the worker's, or {error, message}; borrowed, NULL when memory is out. fd: -1 or what came
 * with it, the callee's. */
typedef void (*OperateFn)(json_t *answer, int fd, void *data);
/* Sends {verb, class, object, ...}, to which the rest is added; fd (-1: none) is borrowed. fn is
 * called once, later. -EHOSTDOWN: the worker is not ready; else fn is not called either. */
int slot_operate(Slot *slot, json_t *message, int fd, OperateFn fn, void *data);
/* Nobody waits any more for what slot_operate() was asked with that data: the worker is told, which
 * does what it has begun and drops the rest. fn is called all the same. */
void operate_abandon(Supervisor *supervisor, const void *data);
/* fd is taken. */
void operate_answered(Slot *slot, json_t *message, int fd);
void operate_slot_lost(Slot *slot);
void operate_end_all(Supervisor *supervisor);

/* objects.c */
extern const ControlInterface objects_interface;

/* manager.c */
int manager_open(Supervisor *supervisor);
