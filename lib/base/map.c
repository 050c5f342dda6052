/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/map.h"

#include <errno.h>
#include <sys/random.h>

#define MAP_MIN_BUCKETS 16u

static uint64_t rotate(uint64_t x, int b)
{
        return (x << b) | (x >> (64 - b));
}

static void sip_round(uint64_t v[4])
{
        v[0] += v[1];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[0] = rotate(v[0], 32);
        v[2] += v[3];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[2] = rotate(v[2], 32);
}

uint64_t siphash24(const uint64_t secret[2], Slice data)
{
        uint64_t v[4] = { secret[0] ^ 0x736f6d6570736575ULL, secret[1] ^ 0x646f72616e646f6dULL,
                secret[0] ^ 0x6c7967656e657261ULL, secret[1] ^ 0x7465646279746573ULL };
        uint64_t word, last = (uint64_t)data.len << 56;
        size_t whole = data.len & ~(size_t)7;

        for (size_t i = 0; i < whole; i += 8) {
                memcpy(&word, data.data + i, 8);
                v[3] ^= word;
                sip_round(v);
                sip_round(v);
                v[0] ^= word;
        }
        for (size_t i = whole; i < data.len; i++)
                last |= (uint64_t)(unsigned char)data.data[i] << (8 * (i - whole));
        v[3] ^= last;
        sip_round(v);
        sip_round(v);
        v[0] ^= last;
        v[2] ^= 0xff;
        for (int i = 0; i < 4; i++)
                sip_round(v);
        return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void map_init(Map *map)
{
        *map = (Map){ 0 };
        dd_assert(getrandom(map->secret, sizeof map->secret, 0) == sizeof map->secret);
}

void map_done(Map *map)
{
        free(map->buckets);
        *map = (Map){ 0 };
}

static int map_grow(Map *map)
{
        size_t n = map->n_buckets ? map->n_buckets * 2 : MAP_MIN_BUCKETS;
        MapNode **buckets = calloc(n, sizeof *buckets);

        if (!buckets)
                return -ENOMEM;
        for (size_t i = 0; i < map->n_buckets; i++) {
                for (MapNode *node = map->buckets[i], *next; node; node = next) {
                        MapNode **to = &buckets[node->hash & (n - 1)];

                        next = node->next;
                        node->next = *to;
                        *to = node;
                }
        }
        free(map->buckets);
        map->buckets = buckets;
        map->n_buckets = n;
        return 0;
}

int map_insert(Map *map, MapNode *node, Slice key)
{
        MapNode **to;
        int r;

        if (map->len >= map->n_buckets) {
                r = map_grow(map);
                if (r && map->n_buckets == 0)
                        return r;
        }
        node->key = key;
        node->hash = siphash24(map->secret, key);
        to = &map->buckets[node->hash & (map->n_buckets - 1)];
        node->next = *to;
        *to = node;
        map->len++;
        return 0;
}

MapNode *map_find(const Map *map, Slice key)
{
        uint64_t hash;

        if (map->len == 0)
                return NULL;
        hash = siphash24(map->secret, key);
        for (MapNode *node = map->buckets[hash & (map->n_buckets - 1)]; node; node = node->next)
                if (node->hash == hash && slice_equal(node->key, key))
                        return node;
        return NULL;
}

void map_remove(Map *map, MapNode *node)
{
        MapNode **at = &map->buckets[node->hash & (map->n_buckets - 1)];

        while (*at != node) {
                dd_assert(*at);
                at = &(*at)->next;
        }
        *at = node->next;
        node->next = NULL;
        map->len--;
}

MapNode *map_first(const Map *map)
{
        for (size_t i = 0; map->len && i < map->n_buckets; i++)
                if (map->buckets[i])
                        return map->buckets[i];
        return NULL;
}

void map_for_each(Map *map, void (*fn)(MapNode *node, void *data), void *data)
{
        for (size_t i = 0; i < map->n_buckets; i++)
                for (MapNode *node = map->buckets[i], *next; node; node = next) {
                        next = node->next;
                        fn(node, data);
                }
}
