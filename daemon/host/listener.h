/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Listeners: the SO_REUSEPORT groups of the daemon
 *
 * The supervisor alone binds. A group is one address:port with one socket per slot; the supervisor
 * keeps them open, workers get copies, so that what waits in a dead worker's queue is served by
 * its successor.
 *
 *   public     an address:port of the settings
 *   address    the group of object addresses: 0.0.0.0:port on device lo (a socket bound to
 *              127.0.0.1 itself wins for its own address), and [::]:port for object_prefix
 *
 * Guarantees:
 * 1. listener_open() leaves nothing bound when it fails; error names address, port and what to do.
 * 2. Port 0 is drawn once by the first socket of a group; the others follow it. The address groups
 *    use the port of the first public group.
 * 3. The route of object_prefix is added when it is missing and allowed, and removed by
 *    listener_close() only when it was added here.
 */

#include "lib/base/slice.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum {
        _LISTENER_E_SUCCESS = 0,
        LISTENER_E_INVALID, /* an address or a prefix that cannot be read; error says which */
        LISTENER_E_BIND,    /* the system refused; error says what and what to do */
};

typedef enum ListenerKind { LISTENER_PUBLIC, LISTENER_ADDRESS } ListenerKind;

typedef struct ListenerGroup {
        ListenerKind kind;
        char name[80]; /* "127.0.0.1:8787", for people */
        struct sockaddr_storage address;
        socklen_t address_len;
        int *fds; /* one per slot, listening, non-blocking, close-on-exec */
        size_t n_fds;
} ListenerGroup;

typedef struct ListenerOptions {
        const char *const *listen; /* "ADDRESS:PORT", "[IPV6]:PORT" */
        size_t n_listen;
        size_t n_slots;
        bool object_addresses;
        const char *object_prefix; /* "fd00:1::/64", or NULL */
        int backlog;               /* 0: 4096 */
} ListenerOptions;

typedef struct ListenerError {
        char message[400];
} ListenerError;

typedef struct Listener {
        ListenerGroup *groups;
        size_t n_groups;
        uint16_t port; /* of the first group, host order */
        bool ipv4;     /* 127.(64+app).x.y is served */
        bool ipv6;     /* so is the prefix */
        uint8_t prefix[16];
        bool route_added;
        char note[240]; /* what is not served, and what to do about it; "" when all is */
} Listener;

/* 0, LISTENER_E_*, or -ENOMEM. */
int listener_open(const ListenerOptions *options, Listener **ret, ListenerError *error);
Listener *listener_close(Listener *listener);
DEFINE_CLEANUP(Listener *, listener_close)

/* "127.0.0.1:8787" or "[::1]:8787" -> address. False when it is neither. */
bool listener_parse_address(const char *text, struct sockaddr_storage *ret, socklen_t *ret_len);
/* "fd00:1::/64" -> 16 bytes, the last 8 zero. False when it is not a /64. */
bool listener_parse_prefix(const char *text, uint8_t ret[16]);
/* out: at least 80 bytes. */
void listener_format_address(const struct sockaddr_storage *address, char *out, size_t size);
