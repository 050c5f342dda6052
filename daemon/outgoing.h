/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Calls that objects make to other objects wait at the output gate
 *
 * What an object tells another must be as durable as what it tells a client: a call leaves when all
 * that its caller had committed by then is on disk (lib/store/store.h, invariant 1). Loop thread.
 */

#include "daemon/runtime/message.h"
#include "lib/store/store.h"
#include "lib/wire/ident.h"

typedef struct OutgoingCall {
        unsigned class_index;
        ObjectId id;
        Slice name;
        Request *request;
} OutgoingCall;

/* 0 and a new reference, or a negative errno. */
typedef int (*OutgoingFetch)(void *data, const OutgoingCall *call, Response **ret);

/*
 * Calls fetch now when nothing of the object at path waits, else when it is durable; *ret (a new
 * reference) gets the answer in either case. call is borrowed, what it points to is copied or held.
 */
int outgoing_call(Store *store, const char *path, const OutgoingCall *call, OutgoingFetch fetch,
        void *data, Response **ret);
