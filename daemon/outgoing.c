/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/outgoing.h"

#include <errno.h>

/* A call that waits; gone when it was made or its caller no longer wants it. */
typedef struct Held {
        StoreWaiter waiter;
        Store *store;
        OutgoingCall call;
        OutgoingFetch fetch;
        void *data;
        Response *to;
        char name[];
} Held;

static void held_free(Held *held)
{
        store_wait_cancel(held->store, &held->waiter);
        response_unref(held->to);
        request_unref(held->call.request);
        free(held);
}

static void held_on_cancel(Response *response, void *data)
{
        held_free(data);
}

static const ResponseProducer held_producer = { .on_cancel = held_on_cancel };

static void held_on_flushed(StoreWaiter *waiter, int result)
{
        Held *held = CONTAINER_OF(waiter, Held, waiter);
        _cleanup_(response_unref_p) Response *from = NULL, *to = response_ref(held->to);
        int r = result;

        response_set_producer(to, NULL, NULL);
        if (!r)
                r = held->fetch(held->data, &held->call, &from);
        held_free(held);
        if (!r)
                r = response_forward(from, to);
        if (r)
                response_abort(to, 503, 1,
                        result ? "The journal cannot be written." : "The call could not be made.");
}

int outgoing_call(Store *store, const char *path, const OutgoingCall *call, OutgoingFetch fetch,
        void *data, Response **ret)
{
        Held *held;
        int r;

        held = malloc(sizeof *held + call->name.len + 1);
        if (!held)
                return -ENOMEM;
        store_waiter_init(&held->waiter, held_on_flushed);
        if (store_wait(store, &held->waiter, store_object_lsn(store, path))) {
                free(held);
                return fetch(data, call, ret);
        }
        held->store = store;
        held->call = *call;
        held->fetch = fetch;
        held->data = data;
        r = response_new(&held->to);
        if (r) {
                store_wait_cancel(store, &held->waiter);
                free(held);
                return r;
        }
        if (call->name.len)
                memcpy(held->name, call->name.data, call->name.len);
        held->call.name = slice_of(held->name, call->name.len);
        request_ref(held->call.request);
        response_set_producer(held->to, &held_producer, held);
        *ret = response_ref(held->to);
        return 0;
}
