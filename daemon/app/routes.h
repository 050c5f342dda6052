/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Which object, and so which slot, a request belongs to, as far as it can be told without the guest
 *
 * Declared routes (the manifest's "durabled": {"routes": [...]}) name the object: host and path
 * pattern with {placeholders} (one path segment or one host label each) and a final "*". Learned
 * routes remember which shard the app's entrypoint chose for requests like this one: a bounded
 * table keyed by a keyed hash of Host and the first 0..ROUTES_DEPTH path segments; the deepest
 * entry that has proved stable wins. Learned routes steer, they never decide which object answers.
 * Loop thread alone.
 */

#include "lib/wire/ident.h"
#include "lib/wire/manifest.h"

#define ROUTES_DEPTH 4u

typedef struct Routes Routes;

typedef struct RouteTarget {
        const ManifestRoute *route; /* a declared one: object by binding and name; or NULL */
        char name[256];             /* its name, placeholders filled in */
        int shard;                  /* a learned one: 0..4095; or -1 */
} RouteTarget;

int routes_new(const Manifest *manifest, size_t learned_max, Routes **ret);
Routes *routes_free(Routes *routes);
DEFINE_CLEANUP(Routes *, routes_free)
/* True when something is known. */
bool routes_find(Routes *routes, Slice authority, Slice path, RouteTarget *ret);
void routes_learn(Routes *routes, Slice authority, Slice path, unsigned shard);
