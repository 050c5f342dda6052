/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The boot message as a worker reads it
 *
 * Checks the supervisor's JSON (core/boot.h) and keeps its own copy of everything: strings live as
 * long as the view. File descriptors are the view's once boot_view_take_fds() was called, until a
 * user takes one out by setting fds[i] to -1.
 */

#include "daemon/edge/edge.h"
#include "daemon/object/object.h"
#include "lib/wire/jsonc.h"

#include <netinet/in.h>

typedef struct BootView {
        json_t *json;
        const char *app, *directory, *admin_token;
        unsigned slot, n_slots;
        unsigned shard_slots[IDENT_SHARDS];
        bool development;
        int log_level;
        uint32_t address_ipv4; /* 127.(64 + app).0.0 in host order, 0: none */
        bool has_address_ipv6;
        struct in6_addr address_ipv6; /* the /64 prefix */
        const char **sockets;         /* of each slot */
        const char **fd_names;
        int *fds;
        size_t n_fds;
        RuntimeClass *classes;
        RuntimeConfig runtime; /* ring, manifest, host and bindings are left to the service */
        char *env_json;
        RegistryOptions registry;
        EdgeOptions edge;
        unsigned archive_days; /* 0: no archive */
        uint64_t archive_max;
} BootView;

/* 0, -EPROTO after a log line that names what is missing, or -ENOMEM. */
int boot_view_new(json_t *boot, BootView **ret);
/* Closes the descriptors that nobody took. */
BootView *boot_view_free(BootView *view);
DEFINE_CLEANUP(BootView *, boot_view_free)
/* n must be the number of names. */
void boot_view_take_fds(BootView *view, const int *fds, size_t n);
