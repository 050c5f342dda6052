/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/runtime/response.h"

#include "lib/store/store.h"

#include <errno.h>

/*
 * One forward. It lives until `from` has ended, been aborted or been cancelled; both Responses are
 * held until then.
 */
typedef struct Forward {
        Response *from, *to;
        bool busy;    /* inside forward_pump(): on_room from a push in it needs no second one */
        bool more;    /* from said more while the gate was closed for what it had said before */
        bool let;     /* the gate has opened for what is there */
        Store *store; /* NULL: no gate */
        StoreWaiter waiter;
        char path[]; /* of the object's database */
} Forward;

static void forward_end(Forward *forward)
{
        Response *from = forward->from, *to = forward->to;

        response_set_consumer(from, NULL, NULL);
        response_set_producer(to, NULL, NULL);
        if (forward->store)
                store_wait_cancel(forward->store, &forward->waiter);
        free(forward);
        response_unref(from);
        response_unref(to);
}

/* The head, and what there is already, so that a short answer is one change for the consumer. */
static int forward_head(Forward *forward)
{
        Response *from = forward->from, *to = forward->to;
        const ResponseHead *head = response_get_head(from);
        ResponseHead *copy;
        Chunk *chunk;
        int r;

        if (!head || response_get_head(to))
                return 0;
        r = response_head_new(
                head->status, head->headers, head->n_headers, head->content_length, &copy);
        if (r)
                return r;
        /* What another worker answered says nothing of its object: the caller knows which it asked.
         */
        if (response_get_shard(from) >= 0)
                response_set_shard(to, response_get_shard(from));
        chunk = response_pop(from);
        if (response_is_drained(from)) {
                response_finish(to, copy, chunk);
                return 0;
        }
        response_start(to, copy);
        if (chunk)
                response_push(to, chunk);
        return 0;
}

/* from or to has come to a bad end, which the other is told. */
static bool forward_has_failed(Forward *forward)
{
        Response *from = forward->from, *to = forward->to;
        const char *message;
        unsigned status, retry_after;

        if (response_is_cancelled(to) || response_get_state(to) == RESPONSE_ABORTED) {
                response_cancel(from);
                return true;
        }
        if (response_get_state(from) == RESPONSE_ABORTED) {
                status = response_get_abort(from, &retry_after, &message);
                response_abort(to, status, retry_after, message);
                return true;
        }
        return response_is_cancelled(from);
}

/* Moves what can be moved. Returns true when the forward has come to its end. */
static bool forward_move(Forward *forward)
{
        Response *from = forward->from, *to = forward->to;
        Chunk *chunk;

        if (forward_has_failed(forward))
                return true;
        if (forward_head(forward)) {
                response_abort(to, 500, 0, "out of memory");
                response_cancel(from);
                return true;
        }
        while (!response_is_full(to) && (chunk = response_pop(from)))
                response_push(to, chunk);
        /* Again: a good deal may have happened in there. */
        if (forward_has_failed(forward))
                return true;
        if (!response_is_drained(from))
                return false;
        if (response_get_state(to) == RESPONSE_STARTED)
                response_end(to);
        return true;
}

/*
 * Invariant 1 of store.h: what an object says waits until everything it could know is durable. That
 * is asked when it says it; what it says meanwhile waits once more, so that a busy object's answers
 * wait for their own commits and not for all that follow.
 */
static bool forward_may_pass(Forward *forward)
{
        if (!forward->store || forward->let || response_is_cancelled(forward->to))
                return true;
        if (list_is_linked(&forward->waiter.link)) {
                forward->more = true;
                return false;
        }
        forward->more = false;
        return store_wait(
                forward->store, &forward->waiter, store_object_lsn(forward->store, forward->path));
}

static void forward_pump(Forward *forward)
{
        if (forward->busy || !forward_may_pass(forward))
                return;
        forward->busy = true;
        if (forward_move(forward)) {
                forward_end(forward);
        } else {
                forward->busy = false;
                forward->let = false;
        }
}

static void forward_on_flushed(StoreWaiter *waiter, int result)
{
        Forward *forward = CONTAINER_OF(waiter, Forward, waiter);

        if (result) {
                /* Not known to be on disk: it must not look like a success (store.h, 6). */
                response_cancel(forward->from);
                if (response_get_state(forward->to) != RESPONSE_ABORTED)
                        response_abort(forward->to, 503, 1, "The journal cannot be written.");
                forward_end(forward);
                return;
        }
        forward->let = !forward->more;
        forward_pump(forward);
}

static void forward_on_change(Response *response, void *data)
{
        forward_pump(data);
}

static void forward_on_room(Response *response, void *data)
{
        forward_pump(data);
}

static void forward_on_cancel(Response *response, void *data)
{
        Forward *forward = data;

        /* While it moves, the loop there sees the cancel itself. */
        response_cancel(forward->from);
        forward_pump(forward);
}

static const ResponseConsumer forward_consumer = { .on_change = forward_on_change };
static const ResponseProducer forward_producer = {
        .on_room = forward_on_room,
        .on_cancel = forward_on_cancel,
};

static int forward_start(Response *from, Response *to, Store *store, const char *path)
{
        size_t size = strlen(path) + 1;
        Forward *forward = malloc(sizeof *forward + size);

        if (!forward)
                return -ENOMEM;
        dd_assert(response_get_state(to) == RESPONSE_OPEN || response_is_cancelled(to) ||
                  response_get_state(to) == RESPONSE_ABORTED);
        *forward = (Forward){ .from = response_ref(from), .to = response_ref(to), .store = store };
        memcpy(forward->path, path, size);
        store_waiter_init(&forward->waiter, forward_on_flushed);
        to->forwarded = true;
        response_set_consumer(from, &forward_consumer, forward);
        response_set_producer(to, &forward_producer, forward);
        forward_pump(forward);
        return 0;
}

int response_forward(Response *from, Response *to)
{
        return forward_start(from, to, NULL, "");
}

int response_forward_durable(Response *from, Response *to, Store *store, const char *path)
{
        return forward_start(from, to, store, path);
}

bool response_is_forwarded(const Response *response)
{
        return response->forwarded;
}
