/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/steer.h"

#include "daemon/core/log.h"
#include "lib/base/file.h"

#include <errno.h>
#include <stdio.h>

#if HAVE_STEER

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/socket.h>

#include "bpf/steer.skel.h"

#define ATTACH_TRIES 100
#define ATTACH_PAUSE_US 5000

typedef struct SteerGroup {
        struct steer_program *program;
        SteerConfig config;
} SteerGroup;

struct Steer {
        unsigned n_slots, n_apps;
        bool active, has_prefix;
        uint8_t prefix[16];
        uint16_t *shards; /* by key */
        bool live[STEER_SLOTS_MAX];
        SteerGroup *groups;
        size_t n_groups;
        int n_cpus;
        char reason[240];
};

/* What libbpf says of a program that does not load is for the debug log. */
static int libbpf_print(enum libbpf_print_level level, const char *format, va_list args)
{
        char text[512];

        if (level == LIBBPF_DEBUG)
                return 0;
        vsnprintf(text, sizeof(text), format, args);
        text[strcspn(text, "\n")] = 0;
        log_debug("libbpf: %s", text);
        return 0;
}

static void steer_set_reason(Steer *steer, int error)
{
        const char *remedy = strerror(error);

        if (error == EPERM || error == EACCES)
                remedy = "not permitted: it needs CAP_BPF and CAP_NET_ADMIN";
        else if (error == ENOSYS || error == EOPNOTSUPP)
                remedy = "this kernel has no BPF, or not this kind of program";
        snprintf(steer->reason, sizeof(steer->reason), "the steering program cannot be loaded: %s",
                remedy);
        steer->active = false;
}

static int program_open(const Steer *steer, struct steer_program **ret)
{
        struct steer_program *program;
        int r;

        program = steer_program__open();
        if (!program)
                return -errno;
        r = bpf_map__set_max_entries(program->maps.shards, STEER_SHARDS * steer->n_apps);
        if (r == 0)
                r = steer_program__load(program);
        if (r < 0) {
                steer_program__destroy(program);
                return r;
        }
        *ret = program;
        return 0;
}

int steer_new(const SteerOptions *options, Steer **ret)
{
        _cleanup_(steer_free_p) Steer *steer = calloc(1, sizeof(*steer));
        struct steer_program *probe = NULL;
        int r;

        if (!steer)
                return -ENOMEM;
        dd_assert(options->n_apps > 0 && options->n_apps <= STEER_APPS_MAX);
        dd_assert(options->n_slots > 0 && options->n_slots <= STEER_SLOTS_MAX);
        steer->n_slots = options->n_slots;
        steer->n_apps = options->n_apps;
        steer->has_prefix = options->prefix;
        if (options->prefix)
                memcpy(steer->prefix, options->prefix, sizeof(steer->prefix));
        steer->shards = calloc((size_t)STEER_SHARDS * options->n_apps, sizeof(*steer->shards));
        if (!steer->shards)
                return -ENOMEM;
        if (options->off) {
                snprintf(steer->reason, sizeof(steer->reason), "steering=off in the settings");
        } else {
                libbpf_set_print(libbpf_print);
                steer->n_cpus = libbpf_num_possible_cpus();
                r = steer->n_cpus < 0 ? steer->n_cpus : program_open(steer, &probe);
                if (r < 0) {
                        steer_set_reason(steer, -r);
                } else {
                        steer_program__destroy(probe);
                        steer->active = true;
                }
        }
        *ret = TAKE_PTR(steer);
        return 0;
}

Steer *steer_free(Steer *steer)
{
        if (!steer)
                return NULL;
        for (size_t i = 0; i < steer->n_groups; i++)
                steer_program__destroy(steer->groups[i].program);
        free(steer->groups);
        free(steer->shards);
        free(steer);
        return NULL;
}

bool steer_is_active(const Steer *steer)
{
        return steer->active;
}

const char *steer_get_reason(const Steer *steer)
{
        return steer->reason;
}

static int map_set(const struct bpf_map *map, uint32_t key, const void *value)
{
        return bpf_map_update_elem(bpf_map__fd(map), &key, value, BPF_ANY) < 0 ? -errno : 0;
}

static int group_set_shards(const Steer *steer, SteerGroup *group)
{
        for (uint32_t key = 0; key < STEER_SHARDS * steer->n_apps; key++) {
                uint32_t slot = steer->shards[key];
                int r = map_set(group->program->maps.shards, key, &slot);

                if (r < 0)
                        return r;
        }
        return 0;
}

/* The entries first, then how many of them count: the program never reads past what is written. */
static int group_set_live(const Steer *steer, SteerGroup *group)
{
        bool any = false;
        uint32_t n = 0;
        int r;

        for (unsigned slot = 0; slot < steer->n_slots; slot++)
                any = any || steer->live[slot];
        for (uint32_t slot = 0; slot < steer->n_slots; slot++) {
                if (any && !steer->live[slot])
                        continue;
                r = map_set(group->program->maps.live, n++, &slot);
                if (r < 0)
                        return r;
        }
        group->config.n_live = n;
        return map_set(group->program->maps.config, 0, &group->config);
}

/*
 * A socket that an earlier program's table still holds is refused with EBUSY: that table lives as
 * long as its program is attached, and is freed some milliseconds after it is detached.
 */
static int group_set_sockets(SteerGroup *group, const int *fds, size_t n_fds)
{
        int none = 0;

        for (uint32_t i = 0; i < n_fds; i++) {
                uint64_t fd = (uint64_t)fds[i];
                int r = 0;

                for (unsigned try = 0; try < ATTACH_TRIES; try++) {
                        r = map_set(group->program->maps.sockets, i, &fd);
                        if (r != -EBUSY)
                                break;
                        (void)setsockopt(
                                fds[i], SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, &none, sizeof(none));
                        usleep(ATTACH_PAUSE_US);
                }
                if (r < 0)
                        return r;
        }
        return 0;
}

static int group_attach(
        const Steer *steer, SteerGroup *group, const int *fds, size_t n_fds, bool addresses_only)
{
        int program, r;

        group->config = (SteerConfig){
                .flags = STEER_BY_IPV4 | (steer->has_prefix ? STEER_BY_IPV6 : 0u) |
                         (addresses_only ? STEER_ADDRESSES_ONLY : 0u),
                .n_apps = steer->n_apps,
        };
        memcpy(group->config.prefix, steer->prefix, sizeof(group->config.prefix));
        r = group_set_shards(steer, group);
        if (r == 0)
                r = group_set_live(steer, group);
        if (r == 0)
                r = group_set_sockets(group, fds, n_fds);
        if (r < 0)
                return r;
        program = bpf_program__fd(group->program->progs.steer);
        if (setsockopt(fds[0], SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program, sizeof(program)) < 0)
                return -errno;
        return 0;
}

int steer_attach(Steer *steer, const int *fds, size_t n_fds, bool addresses_only)
{
        SteerGroup group = { 0 }, *groups;
        int r;

        if (!steer->active)
                return 0;
        dd_assert(n_fds > 0 && n_fds <= steer->n_slots);
        groups = realloc(steer->groups, (steer->n_groups + 1) * sizeof(*groups));
        if (!groups)
                return -ENOMEM;
        steer->groups = groups;
        r = program_open(steer, &group.program);
        if (r < 0)
                return r;
        r = group_attach(steer, &group, fds, n_fds, addresses_only);
        if (r < 0) {
                steer_program__destroy(group.program);
                return r;
        }
        steer->groups[steer->n_groups++] = group;
        return 0;
}

static void table_failed(Steer *steer, const char *what, int error)
{
        log_error("steering: cannot write the table of %s: %s. Connections are handed off until "
                  "the next change",
                what, strerror(error));
}

void steer_set_shards(Steer *steer, const uint16_t *slots)
{
        memcpy(steer->shards, slots, (size_t)STEER_SHARDS * steer->n_apps * sizeof(*slots));
        for (size_t i = 0; i < steer->n_groups; i++) {
                int r = group_set_shards(steer, &steer->groups[i]);

                if (r < 0)
                        table_failed(steer, "shards", -r);
        }
}

void steer_set_live(Steer *steer, const bool *live, size_t n_slots)
{
        dd_assert(n_slots == steer->n_slots);
        memcpy(steer->live, live, n_slots * sizeof(*live));
        for (size_t i = 0; i < steer->n_groups; i++) {
                int r = group_set_live(steer, &steer->groups[i]);

                if (r < 0)
                        table_failed(steer, "live slots", -r);
        }
}

static uint64_t counter_get(const Steer *steer, uint32_t index)
{
        _cleanup_(free_p) uint64_t *values = NULL;
        uint64_t sum = 0;

        if (steer->n_groups == 0)
                return 0;
        values = calloc((size_t)steer->n_cpus, sizeof(*values));
        if (!values)
                return 0;
        for (size_t i = 0; i < steer->n_groups; i++) {
                int map = bpf_map__fd(steer->groups[i].program->maps.counters);

                if (bpf_map_lookup_elem(map, &index, values) < 0)
                        continue;
                for (int cpu = 0; cpu < steer->n_cpus; cpu++)
                        sum += values[cpu];
        }
        return sum;
}

void steer_get_counters(const Steer *steer, SteerCounters *ret)
{
        *ret = (SteerCounters){
                .address = counter_get(steer, STEER_COUNT_ADDRESS),
                .fallback = counter_get(steer, STEER_COUNT_FALLBACK),
                .refused = counter_get(steer, STEER_COUNT_REFUSED),
                .lost = counter_get(steer, STEER_COUNT_LOST),
        };
}

void steer_get_slot_counters(
        const Steer *steer, unsigned slot, uint64_t *ret_address, uint64_t *ret_fallback)
{
        dd_assert(slot < steer->n_slots);
        *ret_address = counter_get(steer, STEER_COUNT_SLOTS + slot);
        *ret_fallback = counter_get(steer, STEER_COUNT_SLOTS_FALLBACK + slot);
}

#else

struct Steer {
        const char *reason;
};

int steer_new(const SteerOptions *options, Steer **ret)
{
        Steer *steer = calloc(1, sizeof(*steer));

        if (!steer)
                return -ENOMEM;
        steer->reason = options->off ? "steering=off in the settings"
                                     : "built without steering (clang, bpftool, libbpf)";
        *ret = steer;
        return 0;
}

Steer *steer_free(Steer *steer)
{
        free(steer);
        return NULL;
}

bool steer_is_active(const Steer *steer)
{
        return false;
}

const char *steer_get_reason(const Steer *steer)
{
        return steer->reason;
}

int steer_attach(Steer *steer, const int *fds, size_t n_fds, bool addresses_only)
{
        return 0;
}

void steer_set_shards(Steer *steer, const uint16_t *slots)
{
}

void steer_set_live(Steer *steer, const bool *live, size_t n_slots)
{
}

void steer_get_counters(const Steer *steer, SteerCounters *ret)
{
        *ret = (SteerCounters){ 0 };
}

void steer_get_slot_counters(
        const Steer *steer, unsigned slot, uint64_t *ret_address, uint64_t *ret_fallback)
{
        *ret_address = *ret_fallback = 0;
}

#endif
