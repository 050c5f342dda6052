/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * An operator's request to one object, as the worker that owns the object serves it
 *
 * It comes as a message of the supervisor (core/boot.h, "operate") and becomes an event of the
 * object (object/object.h, Operation): it waits for its turn, runs on a thread of the pool with the
 * object's token, and its answer ("operated") leaves through the gate. An object that does not
 * exist is an error, it is not created by asking; no guest is started.
 *
 *   find      {}                         -> {}, or the error NoSuchObject
 *   bookmark  {time_ns: ?int}            -> {bookmark}
 *   export    {bookmark: ?string}        -> {size} and a descriptor of the file, which has no name
 *   restore   {bookmark}                 -> {bookmark: the one that undoes it}      exclusive
 *   import    {overwrite} + a descriptor -> {bookmark: the same, created}           exclusive
 *
 * Exclusive: the object's guest is made anew. An import creates the object when there is none; to
 * replace one it has to be told so.
 *
 * An error has a name, which is that of io.durabled.Objects (host/objects.varlink), and a message
 * for people. Loop thread.
 */

#include "daemon/object/object.h"
#include "lib/wire/jsonc.h"

/* How long a request may wait for its turn, and how long it may take then. */
#define OPERATOR_WAIT_NS (30 * NSEC_PER_SEC)
#define OPERATOR_RUN_NS (600 * NSEC_PER_SEC)

typedef struct Operator {
        Registry *registry; /* NULL: the app could not be loaded */
        struct Store *store;
        const RuntimeClass *classes;
        size_t n_classes;
        const char *objects; /* their folder */
        const char *scratch; /* a folder for files that have no name for long */
        /* Whether the object is this worker's. */
        bool (*owns)(const ObjectId *id, void *data);
        /* message and fd (-1: none) are borrowed. */
        void (*answer)(json_t *message, int fd, void *data);
        void *data;
        List tasks; /* that are not answered yet; list_init() by who makes it */
} Operator;

/* message is the supervisor's; fd (-1: none) is taken. Answers once, at any time. */
void operator_take(Operator *host, json_t *message, int fd);
/* Nobody waits for it any more: what has not begun never does and gives its place back, what has
 * begun goes on to its end. It is answered all the same, at once. */
void operator_abandon(Operator *host, json_int_t id);
/* Removes the scratch files that a worker before this one left. */
void operator_clean(const char *scratch);
