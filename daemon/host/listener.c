/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/listener.h"

#include "daemon/host/route.h"
#include "lib/base/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#define BACKLOG_DEFAULT 4096

bool listener_parse_address(const char *text, struct sockaddr_storage *ret, socklen_t *ret_len)
{
        const char *colon = strrchr(text, ':');
        char host[64];
        uint64_t port;
        size_t len;

        if (!colon || !slice_to_u64(slice_from(colon + 1), &port) || port > UINT16_MAX)
                return false;
        len = (size_t)(colon - text);
        if (len == 0 || len >= sizeof(host))
                return false;
        memset(ret, 0, sizeof(*ret));
        if (text[0] == '[') {
                struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)ret;

                if (len < 3 || text[len - 1] != ']')
                        return false;
                memcpy(host, text + 1, len - 2);
                host[len - 2] = 0;
                if (inet_pton(AF_INET6, host, &ipv6->sin6_addr) != 1)
                        return false;
                ipv6->sin6_family = AF_INET6;
                ipv6->sin6_port = htons((uint16_t)port);
                *ret_len = sizeof(*ipv6);
        } else {
                struct sockaddr_in *ipv4 = (struct sockaddr_in *)ret;

                memcpy(host, text, len);
                host[len] = 0;
                if (inet_pton(AF_INET, host, &ipv4->sin_addr) != 1)
                        return false;
                ipv4->sin_family = AF_INET;
                ipv4->sin_port = htons((uint16_t)port);
                *ret_len = sizeof(*ipv4);
        }
        return true;
}

bool listener_parse_prefix(const char *text, uint8_t ret[16])
{
        const char *slash = strchr(text, '/');
        static const uint8_t zero[8];
        uint8_t address[16];
        char host[64];

        if (!slash || strcmp(slash, "/64") != 0 || (size_t)(slash - text) >= sizeof(host))
                return false;
        memcpy(host, text, (size_t)(slash - text));
        host[slash - text] = 0;
        if (inet_pton(AF_INET6, host, address) != 1 || memcmp(address + 8, zero, 8) != 0 ||
                memcmp(address, zero, 8) == 0)
                return false;
        memcpy(ret, address, 16);
        return true;
}

void listener_format_address(const struct sockaddr_storage *address, char *out, size_t size)
{
        char host[INET6_ADDRSTRLEN] = "?";

        if (address->ss_family == AF_INET6) {
                const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)address;

                inet_ntop(AF_INET6, &ipv6->sin6_addr, host, sizeof(host));
                snprintf(out, size, "[%s]:%u", host, ntohs(ipv6->sin6_port));
        } else {
                const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)address;

                inet_ntop(AF_INET, &ipv4->sin_addr, host, sizeof(host));
                snprintf(out, size, "%s:%u", host, ntohs(ipv4->sin_port));
        }
}

static uint16_t address_port(const struct sockaddr_storage *address)
{
        if (address->ss_family == AF_INET6)
                return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
        return ntohs(((const struct sockaddr_in *)address)->sin_port);
}

/* Says why a bind failed in words that name the remedy. */
static int bind_failed(const char *name, int error, ListenerError *ret_error)
{
        const char *remedy;

        switch (error) {
        case EADDRINUSE:
                remedy = "another process listens there: stop it (see `ss -ltnp`) or set another "
                         "port in listen=";
                break;
        case EACCES:
        case EPERM:
                remedy = "not permitted: ports below 1024 need CAP_NET_BIND_SERVICE; give it or "
                         "set a higher port in listen=";
                break;
        case EADDRNOTAVAIL:
                remedy = "this machine has no such address: see `ip address`, correct listen=";
                break;
        default:
                remedy = strerror(error);
                break;
        }
        snprintf(ret_error->message, sizeof(ret_error->message), "cannot listen on %s: %s", name,
                remedy);
        return LISTENER_E_BIND;
}

/* shared: with others of this user, by SO_REUSEPORT. */
static int socket_bind(const struct sockaddr_storage *address, socklen_t len, const char *device,
        bool shared, int backlog, int *ret)
{
        _cleanup_(close_p) int fd = -1;
        const int one = 1, share = shared;

        fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
                setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &share, sizeof(share)) < 0)
                return -errno;
        if (address->ss_family == AF_INET6 &&
                setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) < 0)
                return -errno;
        if (device &&
                setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)strlen(device)) < 0)
                return -errno;
        if (bind(fd, (const struct sockaddr *)address, len) < 0 || listen(fd, backlog) < 0)
                return -errno;
        *ret = TAKE_FD(fd);
        return 0;
}

static void group_done(ListenerGroup *group)
{
        for (size_t i = 0; i < group->n_fds; i++)
                close(group->fds[i]);
        free(group->fds);
        *group = (ListenerGroup){ 0 };
}

/* Fills a group: kind, address and address_len are set; all other fields follow. */
static int group_bind(ListenerGroup *group, const ListenerOptions *options, const char *device,
        ListenerError *error)
{
        int backlog = options->backlog ? options->backlog : BACKLOG_DEFAULT, r;

        listener_format_address(&group->address, group->name, sizeof(group->name));
        group->fds = calloc(options->n_slots, sizeof(*group->fds));
        if (!group->fds)
                return -ENOMEM;
        for (size_t i = 0; i < options->n_slots; i++) {
                r = socket_bind(
                        &group->address, group->address_len, device, true, backlog, &group->fds[i]);
                if (r < 0) {
                        r = bind_failed(group->name, -r, error);
                        group_done(group);
                        return r;
                }
                group->n_fds = i + 1;
                if (i == 0) { /* port 0 has become one */
                        socklen_t len = sizeof(group->address);

                        if (getsockname(group->fds[0], (struct sockaddr *)&group->address, &len) <
                                0) {
                                r = -errno;
                                group_done(group);
                                return r;
                        }
                        listener_format_address(&group->address, group->name, sizeof(group->name));
                }
        }
        return 0;
}

/* Whether a public group already takes what an address group of this family would. */
static bool has_wildcard(const Listener *listener, sa_family_t family)
{
        for (size_t i = 0; i < listener->n_groups; i++) {
                const struct sockaddr_storage *a = &listener->groups[i].address;

                if (a->ss_family != family || address_port(a) != listener->port)
                        continue;
                if (family == AF_INET6
                                ? IN6_IS_ADDR_UNSPECIFIED(
                                          &((const struct sockaddr_in6 *)a)->sin6_addr)
                                : ((const struct sockaddr_in *)a)->sin_addr.s_addr == INADDR_ANY)
                        return true;
        }
        return false;
}

static int open_address_ipv4(
        Listener *listener, const ListenerOptions *options, ListenerError *error)
{
        ListenerGroup *group = &listener->groups[listener->n_groups];
        struct sockaddr_in *address = (struct sockaddr_in *)&group->address;
        int r;

        listener->ipv4 = true;
        if (has_wildcard(listener, AF_INET))
                return 0;
        group->kind = LISTENER_ADDRESS;
        address->sin_family = AF_INET;
        address->sin_port = htons(listener->port);
        group->address_len = sizeof(*address);
        r = group_bind(group, options, "lo", error);
        if (r != 0)
                return r;
        listener->n_groups++;
        return 0;
}

static int open_prefix(Listener *listener, const ListenerOptions *options, ListenerError *error)
{
        ListenerGroup *group = &listener->groups[listener->n_groups];
        struct sockaddr_in6 *address = (struct sockaddr_in6 *)&group->address;
        bool there = false;
        int r;

        if (!listener_parse_prefix(options->object_prefix, listener->prefix)) {
                snprintf(error->message, sizeof(error->message),
                        "object_prefix=%s: expected an IPv6 network of 64 bits, as fd00:1::/64",
                        options->object_prefix);
                return LISTENER_E_INVALID;
        }
        r = route_find(listener->prefix, &there);
        if (r == 0 && !there) {
                r = route_add(listener->prefix);
                listener->route_added = r == 0;
        }
        if (r < 0 && r != -EEXIST) {
                snprintf(listener->note, sizeof(listener->note),
                        "object_prefix=%s is not served, its route is missing (%s): run `ip -6 "
                        "route add local %s dev lo` as root, then restart",
                        options->object_prefix, strerror(-r), options->object_prefix);
                return 0;
        }
        if (!has_wildcard(listener, AF_INET6)) {
                group->kind = LISTENER_ADDRESS;
                address->sin6_family = AF_INET6;
                address->sin6_port = htons(listener->port);
                group->address_len = sizeof(*address);
                r = group_bind(group, options, NULL, error);
                if (r != 0)
                        return r;
                listener->n_groups++;
        }
        listener->ipv6 = true;
        return 0;
}

/*
 * Another daemon of the same user would share the port with us, by SO_REUSEPORT and unnoticed: a
 * socket that shares with nobody finds out.
 */
static int probe_public(const char *text, ListenerError *error)
{
        struct sockaddr_storage address = { 0 };
        _cleanup_(close_p) int fd = -1;
        char name[80];
        socklen_t len;
        int r;

        if (!listener_parse_address(text, &address, &len))
                return 0; /* open_public() says what is wrong */
        r = socket_bind(&address, len, NULL, false, 1, &fd);
        if (r != -EADDRINUSE)
                return 0;
        listener_format_address(&address, name, sizeof(name));
        return bind_failed(name, -r, error);
}

static int open_public(
        Listener *listener, const char *text, const ListenerOptions *options, ListenerError *error)
{
        ListenerGroup *group = &listener->groups[listener->n_groups];
        int r;

        if (!listener_parse_address(text, &group->address, &group->address_len)) {
                snprintf(error->message, sizeof(error->message),
                        "listen=%s: expected ADDRESS:PORT, as 127.0.0.1:8787 or [::1]:8787", text);
                return LISTENER_E_INVALID;
        }
        group->kind = LISTENER_PUBLIC;
        r = group_bind(group, options, NULL, error);
        if (r != 0)
                return r;
        if (listener->n_groups++ == 0)
                listener->port = address_port(&group->address);
        return 0;
}

int listener_open(const ListenerOptions *options, Listener **ret, ListenerError *error)
{
        _cleanup_(listener_close_p) Listener *listener = NULL;
        int r;

        dd_assert(options->n_slots > 0 && options->n_listen > 0);
        listener = calloc(1, sizeof(*listener));
        if (!listener)
                return -ENOMEM;
        listener->groups = calloc(options->n_listen + 2, sizeof(*listener->groups));
        if (!listener->groups)
                return -ENOMEM;
        for (size_t i = 0; i < options->n_listen; i++) {
                r = probe_public(options->listen[i], error);
                if (r != 0)
                        return r;
        }
        for (size_t i = 0; i < options->n_listen; i++) {
                r = open_public(listener, options->listen[i], options, error);
                if (r != 0)
                        return r;
        }
        if (options->object_addresses) {
                r = open_address_ipv4(listener, options, error);
                if (r != 0)
                        return r;
        }
        if (options->object_addresses && options->object_prefix) {
                r = open_prefix(listener, options, error);
                if (r != 0)
                        return r;
        }
        *ret = TAKE_PTR(listener);
        return 0;
}

Listener *listener_close(Listener *listener)
{
        if (!listener)
                return NULL;
        for (size_t i = 0; i < listener->n_groups; i++)
                group_done(&listener->groups[i]);
        if (listener->route_added)
                (void)route_remove(listener->prefix); /* the machine keeps a harmless local route */
        free(listener->groups);
        free(listener);
        return NULL;
}
