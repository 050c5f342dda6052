/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Calls to objects of other workers: internal HTTP/1.1 over Unix sockets
 *
 * The request goes out as it is, with X-Durabled-* headers that name the object and carry the chain
 * and the deadline; the peer's EDGE_INTERNAL listener takes it. Keep-alive connections are pooled
 * per slot. An answer that the peer aborted carries X-Durabled-Abort and aborts here alike. Loop
 * thread alone.
 *
 *   X-Durabled-Class: <index>    X-Durabled-Object: <64 hex>     X-Durabled-Name: <percent-encoded>
 *   X-Durabled-Chain: <ids>      X-Durabled-Timeout: <ms left>   X-Durabled-Request: <request id>
 *   X-Durabled-Peer, -Scheme, -Authority: the client's address and what the caller's request said
 *
 * A request that fails before a byte of it was taken by the peer is tried once more on a new
 * connection; after that, never: the object may have run it.
 */

#include "daemon/runtime/message.h"
#include "lib/loop/ring.h"
#include "lib/wire/ident.h"

typedef struct Proxy Proxy;

typedef struct ProxyOptions {
        Ring *ring;
        const char *const *paths; /* the Unix socket of each slot */
        unsigned n_slots;
        unsigned connections_max; /* per slot, default 256; beyond it calls wait, at most queue_max
                                   */
        unsigned queue_max;       /* default 4096; beyond it 503 */
        uint64_t timeout_ns;      /* for a request without a deadline; default 60 s */
} ProxyOptions;

int proxy_new(const ProxyOptions *options, Proxy **ret);
Proxy *proxy_free(Proxy *proxy);
DEFINE_CLEANUP(Proxy *, proxy_free)
int proxy_fetch(Proxy *proxy, unsigned slot, unsigned class_index, const ObjectId *id, Slice name,
        Request *request, Response **ret);
/* Aborts what is in flight, closes all; stopped() once. */
void proxy_stop(Proxy *proxy, void (*stopped)(void *data), void *data);

/* What an internal request says: the Request as the caller made it, and the object. 0, -EPROTO. */
typedef struct ProxyCall {
        unsigned class_index;
        ObjectId id;
        Slice name;       /* inside request */
        Request *request; /* a new reference, without the X-Durabled-* headers */
        char *name_data;  /* what name points to */
} ProxyCall;
int proxy_parse(Request *received, ProxyCall *ret);
void proxy_call_done(ProxyCall *call);
