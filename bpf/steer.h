/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
#pragma once

/*
 * Steering: the constants and the derivation of keys that the program and user space share
 *
 * A key is (app, shard), written as app * STEER_SHARDS + shard; STEER_NO_KEY when the address names
 * no object. Everything here is a pure function of its arguments, free of loops and of
 * variable offsets, so that Debian 12's verifier takes it with CAP_BPF and CAP_NET_ADMIN alone and
 * the host's tests run the very same code.
 *
 *   IPv4 object address   127.(64 + app).(shard >> 8).(shard & 255)
 *   IPv6 object address   prefix (64 bits), then the object id's first 8 bytes: the shard is their
 *                         first 12 bits; the prefix belongs to app 0
 *
 * How a socket is found, in order (the first that gives one wins):
 *   1. the destination address       STEER_COUNT_ADDRESS
 *   2. the data of a SYN, and 3. late steering, are not there yet: their keys end in the same
 *      `shards` map, their counters go before STEER_COUNT_SLOTS
 *   4. a hash over the live slots    STEER_COUNT_FALLBACK
 */

#include <linux/types.h>

#define STEER_SHARDS 4096u
#define STEER_APPS_MAX 64u /* 127.64 to 127.127 */
#define STEER_IPV4_FIRST 64u
#define STEER_SLOTS_MAX 256u
#define STEER_NO_KEY 0xffffffffu
#define STEER_TRIES_MAX 8u /* neighbours that the fallback tries when a slot has no socket */

/* SteerConfig.flags */
#define STEER_BY_IPV4 (1u << 0)
#define STEER_BY_IPV6 (1u << 1)
/* The group serves object addresses alone: a connection to another address is refused. */
#define STEER_ADDRESSES_ONLY (1u << 2)

typedef struct SteerConfig {
        __u32 flags;
        __u32 n_apps;
        __u32 n_live;    /* entries of the `live` map that count */
        __u32 prefix[2]; /* the first 64 bits of an IPv6 object address, in network order */
} SteerConfig;

/* Indexes of the `counters` map, one counter a CPU. */
enum {
        STEER_COUNT_ADDRESS,    /* found by the destination address */
        STEER_COUNT_FALLBACK,   /* by the hash */
        STEER_COUNT_REFUSED,    /* no object address, in a group that serves these alone */
        STEER_COUNT_LOST,       /* no slot had a socket: refused as well */
        STEER_COUNT_SLOTS = 16, /* then by slot: address hits */
        STEER_COUNT_SLOTS_FALLBACK = 16 + STEER_SLOTS_MAX, /* and what the hash gave it */
        STEER_COUNT_MAX = STEER_COUNT_SLOTS_FALLBACK + STEER_SLOTS_MAX,
};

/* address: in host order. */
static inline __u32 steer_key_ipv4(__u32 address, const SteerConfig *config)
{
        __u32 app = (address >> 16 & 0xff) - STEER_IPV4_FIRST; /* wraps below the first */

        if (address >> 24 != 127 || app >= config->n_apps || app >= STEER_APPS_MAX)
                return STEER_NO_KEY;
        if (address & 0xf000)
                return STEER_NO_KEY;
        return app * STEER_SHARDS + (address & 0xfff);
}

/* address: as it stands in the header. */
static inline __u32 steer_key_ipv6(const __u32 address[4], const SteerConfig *config)
{
        const __u8 *low = (const __u8 *)&address[2];

        if (address[0] != config->prefix[0] || address[1] != config->prefix[1])
                return STEER_NO_KEY;
        return (__u32)low[0] << 4 | low[1] >> 4;
}

/* Spreads a 32-bit hash evenly over 0..n-1; n > 0. */
static inline __u32 steer_pick(__u32 hash, __u32 n)
{
        return (__u32)(((__u64)hash * n) >> 32);
}

/* The other direction: the address of an object, for people and for tests. */
static inline __u32 steer_ipv4_of(__u32 app, __u32 shard)
{
        return 127u << 24 | (STEER_IPV4_FIRST + app) << 16 | (shard & 0xfff);
}
