/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A host for the Python runtime in tests: a real Ring, real Requests and Responses, and objects
 * that execute one event at a time
 */

#include "daemon/runtime/runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

typedef struct Host Host;

typedef struct TestObject {
        RuntimeObject runtime;
        char path[256];
        bool evicted;
} TestObject;

/* One event and what came of it. Freed by host_stop(). */
typedef struct TestEvent {
        RuntimeEvent runtime;
        Host *host;
        List link;
        unsigned n_suspended, n_ready, n_done;
        bool hold;   /* does not read the answer */
        bool manual; /* is not resumed by itself */
        Buf body;
        bool freed;
        bool is_call;
} TestEvent;

struct Host {
        Ring *ring;
        Runtime *runtime;
        RuntimeConfig config;
        Manifest manifest;
        bool loaded, stopping, stopped;
        char *error;
        List events;
        TestObject objects[8];
        unsigned n_objects;
        int call_error; /* what stub_fetch() returns */
        unsigned seen_blocking;
        char chain[256];
        bool hold_calls; /* events of calls are not delivered before host_release() */
};

/* Nobody takes a baton away: who waits without giving it up waits for ever. */
#define NO_MONITOR 600000u

/* app_name decides what the test's durabled_host does; limits may be NULL. */
void host_start(Host *host, const char *app_name, const RuntimeLimits *limits);
/* Stops, unloads and frees all. */
void host_stop(Host *host);
void host_release(Host *host);
/* The parts of the above: host_start() and host_stop() do the rest. */
void host_begin_start(Host *host, const char *app_name, const RuntimeLimits *limits);
void host_begin_stop(Host *host);

void host_evict(Host *host, TestObject *object);
/* The event of the last call. */
TestEvent *host_get_call(Host *host);
/* Of a text answer. */
size_t host_count_lines(TestEvent *event);

TestObject *host_get_object(Host *host, unsigned class_index, const char *name);
/* object may be NULL. body is copied. */
TestEvent *host_deliver(Host *host, TestObject *object, const char *path);
TestEvent *host_deliver_with(
        Host *host, TestObject *object, const char *method, const char *path, const char *body);
TestEvent *host_deliver_parts(Host *host, TestObject *object, RequestParts *parts);
void host_read(TestEvent *event); /* reads from now on */

/* Runs the loop until *condition, at most 20 s. */
void host_run_until_set(Host *host, const bool *condition);
void host_run_until_done(Host *host, TestEvent *event);
/* Until the answer has come as a whole or was aborted. */
void host_run_until_answered(Host *host, TestEvent *event);
void host_run_for(Host *host, uint64_t ns);

/* The status; text is the body's or the abort's. */
unsigned event_get_status(TestEvent *event);
const char *event_get_text(TestEvent *event);

/* Delivers path to the entrypoint, and compares. */
void assert_answer(Host *host, const char *path, unsigned status, const char *text);
void assert_answer_of(
        Host *host, TestObject *object, const char *path, unsigned status, const char *text);
