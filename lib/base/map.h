/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Intrusive hash map
 *
 * Separate chaining; an element embeds a MapNode and keeps its own key. Keys are byte strings that
 * the element owns and that must not change while it is in the map. The hash is SipHash-2-4
 * (Aumasson and Bernstein, 2012) with a key drawn at map_init(), so that clients who choose keys
 * cannot choose collisions. Not locked: one map belongs to one thread.
 */

#include "lib/base/slice.h"

typedef struct MapNode {
        struct MapNode *next;
        Slice key;
        uint64_t hash;
} MapNode;

typedef struct Map {
        MapNode **buckets;
        size_t n_buckets; /* a power of two, or 0 before the first insert */
        size_t len;
        uint64_t secret[2];
} Map;

void map_init(Map *map);
/* The elements are not touched. */
void map_done(Map *map);

/* The key must not be in the map. -ENOMEM leaves the map as it was. */
int map_insert(Map *map, MapNode *node, Slice key);
/* NULL when absent. */
MapNode *map_find(const Map *map, Slice key);
/* The node must be in the map. */
void map_remove(Map *map, MapNode *node);
/* Some element, or NULL when empty: for tearing down. */
MapNode *map_first(const Map *map);
/* Calls fn for each element; fn must not insert, and may remove none but its own. */
void map_for_each(Map *map, void (*fn)(MapNode *node, void *data), void *data);

uint64_t siphash24(const uint64_t secret[2], Slice data);
