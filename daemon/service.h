/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The service of a worker: what joins the edge, the app, the objects and the runtime
 *
 * Decides for each request where it belongs: a static asset, an object by a declared route, the
 * app's entrypoint, or another slot. Owns every part and takes them down in order. Loop thread
 * alone.
 *
 *   service_new() -> loading -> serving (after loaded with no error) -> service_drain() -> drained
 *
 * Guarantees:
 * 1. Listeners are served only after the app has been loaded.
 * 2. An object runs here only while the shard map says that its shard is this slot's.
 * 3. A path with a segment of the form __name__ is answered 401 without the admin token, unless the
 *    app's settings or development say otherwise.
 */

#include "lib/loop/ring.h"
#include "lib/wire/jsonc.h"

typedef struct Service Service;

typedef struct ServiceOptions {
        Ring *ring;
        json_t *boot;   /* core/boot.h; borrowed during service_new() */
        const int *fds; /* named by boot's "fds"; taken on success */
        size_t n_fds;
        /* error: NULL, or why the app could not be loaded (several lines, for people) */
        void (*loaded)(Service *service, const char *error, void *data);
        void (*drained)(Service *service, void *data);
        /* The answer to service_operate(); message and fd (-1: none) are borrowed. */
        void (*operated)(Service *service, json_t *message, int fd, void *data);
        void *data;
} ServiceOptions;

/* 0, or a negative errno after a log line that says what is wrong. */
int service_new(const ServiceOptions *options, Service **ret);
/* Before the app was loaded or after drained(). */
Service *service_free(Service *service);
DEFINE_CLEANUP(Service *, service_free)

/*
 * In development, after loaded() told an error: serves the listeners all the same and answers every
 * request with 503 and the message, until the process ends. -ENOTSUP outside of development.
 */
int service_serve_error(Service *service, const char *message);
/* An operator's request to one object (operator.h): message is the supervisor's, fd (-1: none) is
 * taken. */
void service_operate(Service *service, json_t *message, int fd);
/* Nobody waits for the answer to the request of that id. */
void service_abandon(Service *service, json_int_t id);
/* Stops accepting, lets what is in flight end until timeout_ns from now, then calls drained(). */
void service_drain(Service *service, uint64_t timeout_ns);
/* Counters, a new reference: {edge: {...}, objects: {...}, runtime: {...}}. NULL: memory is out. */
json_t *service_get_stats(Service *service);
