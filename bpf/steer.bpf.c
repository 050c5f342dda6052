/* SPDX-License-Identifier: GPL-2.0 */

/*
 * The steering program: which socket of a SO_REUSEPORT group takes a new connection
 *
 * Runs in the kernel for each SYN (and, once late steering is there, for first data). It always
 * chooses itself: SK_PASS without a selected socket would let the kernel's own hash choose, over
 * sockets that must not be chosen. What cannot be given to anyone is refused (SK_DROP answers with
 * a reset).
 *
 * Each group has its own instance: a socket of another group cannot be selected (-77). Loads with
 * CAP_BPF and CAP_NET_ADMIN, without CAP_PERFMON: map values are read at constant offsets only.
 */

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "bpf/steer.h"

/* slot -> the slot's listening socket of this group */
struct {
        __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
        __uint(max_entries, STEER_SLOTS_MAX);
        __type(key, __u32);
        __type(value, __u64);
} sockets SEC(".maps");

/* key (app, shard) -> slot. User space sets max_entries for the number of apps. */
struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, STEER_SHARDS);
        __type(key, __u32);
        __type(value, __u32);
} shards SEC(".maps");

/* 0..config.n_live-1 -> slot */
struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, STEER_SLOTS_MAX);
        __type(key, __u32);
        __type(value, __u32);
} live SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, SteerConfig);
} config SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
        __uint(max_entries, STEER_COUNT_MAX);
        __type(key, __u32);
        __type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 index)
{
        __u64 *counter = bpf_map_lookup_elem(&counters, &index);

        if (counter)
                *counter += 1;
}

/* The key of the destination address. A dual-stack socket sees the real IPv4 header. */
static __always_inline __u32 key_of_address(
        struct sk_reuseport_md *context, const SteerConfig *settings)
{
        if (context->eth_protocol == bpf_htons(ETH_P_IP)) {
                __u32 address = 0;

                if (!(settings->flags & STEER_BY_IPV4))
                        return STEER_NO_KEY;
                if (bpf_skb_load_bytes_relative(context, offsetof(struct iphdr, daddr), &address,
                            sizeof(address), BPF_HDR_START_NET) < 0)
                        return STEER_NO_KEY;
                return steer_key_ipv4(bpf_ntohl(address), settings);
        }
        if (context->eth_protocol == bpf_htons(ETH_P_IPV6)) {
                __u32 address[4] = { 0 };

                if (!(settings->flags & STEER_BY_IPV6))
                        return STEER_NO_KEY;
                if (bpf_skb_load_bytes_relative(context, offsetof(struct ipv6hdr, daddr), address,
                            sizeof(address), BPF_HDR_START_NET) < 0)
                        return STEER_NO_KEY;
                return steer_key_ipv6(address, settings);
        }
        return STEER_NO_KEY;
}

/* True when the owner of the key has taken the connection. */
static __always_inline int select_key(struct sk_reuseport_md *context, __u32 key)
{
        __u32 *found = bpf_map_lookup_elem(&shards, &key);
        __u32 slot;

        if (!found)
                return 0;
        slot = *found;
        if (bpf_sk_select_reuseport(context, &sockets, &slot, 0) < 0)
                return 0;
        if (slot < STEER_SLOTS_MAX)
                count(STEER_COUNT_SLOTS + slot);
        return 1;
}

static __always_inline int select_live(struct sk_reuseport_md *context, __u32 n_live)
{
        __u32 first;

        if (n_live == 0 || n_live > STEER_SLOTS_MAX)
                return 0;
        first = steer_pick(context->hash, n_live);
#pragma unroll
        for (__u32 i = 0; i < STEER_TRIES_MAX; i++) {
                __u32 index = first + i, *found, slot;

                if (index >= n_live)
                        index -= n_live;
                found = bpf_map_lookup_elem(&live, &index);
                if (!found)
                        return 0;
                slot = *found;
                if (bpf_sk_select_reuseport(context, &sockets, &slot, 0) < 0)
                        continue;
                if (slot < STEER_SLOTS_MAX)
                        count(STEER_COUNT_SLOTS_FALLBACK + slot);
                return 1;
        }
        return 0;
}

SEC("sk_reuseport")
int steer(struct sk_reuseport_md *context)
{
        __u32 zero = 0, key;
        SteerConfig *settings = bpf_map_lookup_elem(&config, &zero);

        if (!settings)
                return SK_DROP;
        key = key_of_address(context, settings);
        if (key != STEER_NO_KEY && select_key(context, key)) {
                count(STEER_COUNT_ADDRESS);
                return SK_PASS;
        }
        if (key == STEER_NO_KEY && settings->flags & STEER_ADDRESSES_ONLY) {
                count(STEER_COUNT_REFUSED);
                return SK_DROP;
        }
        if (select_live(context, settings->n_live)) {
                count(STEER_COUNT_FALLBACK);
                return SK_PASS;
        }
        count(STEER_COUNT_LOST);
        return SK_DROP;
}

char _license[] SEC("license") = "GPL";
