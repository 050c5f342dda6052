/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Chance that repeats: one 64-bit state, the same numbers from the same seed on every machine
 *
 * Splitmix64. Each part of a simulation has a stream of its own, so that one more call in one part
 * leaves the others as they were. One stream belongs to whoever has the turn (turns.h).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct Rng {
        uint64_t state;
} Rng;

static inline uint64_t rng_mix(uint64_t z)
{
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

static inline uint64_t rng_next(Rng *rng)
{
        rng->state += 0x9e3779b97f4a7c15u;
        return rng_mix(rng->state);
}

/* 0 <= it < n; n > 0. */
static inline uint64_t rng_below(Rng *rng, uint64_t n)
{
        return rng_next(rng) % n;
}

/* low <= it <= high. */
static inline uint64_t rng_between(Rng *rng, uint64_t low, uint64_t high)
{
        return low + rng_below(rng, high - low + 1);
}

/* True in n of 1,000 calls. */
static inline bool rng_chance(Rng *rng, unsigned n)
{
        return rng_below(rng, 1000) < n;
}

static inline Rng rng_fork(Rng *rng)
{
        return (Rng){ rng_next(rng) };
}

static inline void rng_fill(Rng *rng, void *data, size_t len)
{
        for (size_t i = 0; i < len; i += 8) {
                uint64_t bits = rng_next(rng);

                memcpy((char *)data + i, &bits, len - i < 8 ? len - i : 8);
        }
}
