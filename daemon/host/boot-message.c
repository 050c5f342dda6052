/* SPDX-License-Identifier: Apache-2.0 */

/* What a worker is told at its start; the form is in daemon/core/boot.h. */

#include "daemon/host/supervisor-private.h"

#include <arpa/inet.h>
#include <stdio.h>

static json_t *integer(uint64_t value)
{
        return json_integer((json_int_t)value);
}

static json_t *string_or_null(const char *text)
{
        return text ? json_string(text) : json_null();
}

static json_t *address_of(const Slot *slot)
{
        const Listener *listener = slot->supervisor->listener;
        char ipv4[32], ipv6[INET6_ADDRSTRLEN];

        snprintf(ipv4, sizeof(ipv4), "127.%u.0.0", STEER_IPV4_FIRST + slot->app->index);
        inet_ntop(AF_INET6, listener->prefix, ipv6, sizeof(ipv6));
        return json_pack("{s:o, s:o, s:i}", "ipv4", string_or_null(listener->ipv4 ? ipv4 : NULL),
                "ipv6", string_or_null(listener->ipv6 && slot->app->index == 0 ? ipv6 : NULL),
                "port", (int)listener->port);
}

static json_t *http_of(const Config *config)
{
        return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "body_max",
                integer(config->body_max), "head_max", integer(config->head_max), "target_max",
                integer(config->target_max), "headers_max", integer(config->headers_max),
                "head_timeout_ns", integer(config->head_timeout_ns), "body_timeout_ns",
                integer(config->body_timeout_ns), "send_timeout_ns",
                integer(config->send_timeout_ns), "idle_timeout_ns",
                integer(config->idle_timeout_ns), "connections_max",
                integer(config->connections_max), "requests_max", integer(config->requests_max));
}

static json_t *classes_of(const HostApp *app)
{
        _cleanup_(json_decref_p) json_t *classes = json_array();

        for (size_t i = 0; classes && i < app->n_classes; i++) {
                json_t *class = json_pack("{s:s, s:s}", "class_name", app->classes[i].class_name,
                        "unique_key", app->classes[i].unique_key);

                if (json_array_append_new(classes, class) < 0)
                        return NULL;
        }
        return TAKE_PTR(classes);
}

static json_t *sockets_of(const SupervisorApp *app)
{
        _cleanup_(json_decref_p) json_t *sockets = json_array();

        for (unsigned i = 0; sockets && i < app->n_slots; i++)
                if (json_array_append_new(sockets, json_string(app->slots[i].internal_path)) < 0)
                        return NULL;
        return TAKE_PTR(sockets);
}

/* Adds one descriptor and its name. */
static int add_fd(json_t *names, const char *name, int fd, int *fds, size_t *n_fds)
{
        dd_assert(*n_fds < BOOT_FDS_MAX);
        fds[(*n_fds)++] = fd;
        return json_array_append_new(names, json_string(name));
}

static json_t *fds_of(const Slot *slot, int *fds, size_t *ret_n_fds)
{
        _cleanup_(json_decref_p) json_t *names = json_array();
        const Listener *listener = slot->supervisor->listener;
        const SupervisorApp *app = slot->app;
        size_t n = 0;
        int r = 0;

        if (!names)
                return NULL;
        for (size_t i = 0; i < listener->n_groups && r == 0; i++) {
                const ListenerGroup *group = &listener->groups[i];

                r = add_fd(names,
                        group->kind == LISTENER_PUBLIC ? "listener:public" : "listener:address",
                        group->fds[slot_number(slot)], fds, &n);
        }
        if (r == 0)
                r = add_fd(names, "internal", slot->internal_fd, fds, &n);
        if (r == 0)
                r = add_fd(names, "hand-off", slot->hand_off_receive, fds, &n);
        for (unsigned i = 0; i < app->n_slots && r == 0; i++) {
                char name[32];

                if (i == slot->index)
                        continue;
                snprintf(name, sizeof(name), "hand-off:%u", i);
                r = add_fd(names, name, app->slots[i].hand_off_send, fds, &n);
        }
        if (r < 0)
                return NULL;
        *ret_n_fds = n;
        return TAKE_PTR(names);
}

/* Sets a key; value is taken. */
static void put(json_t *message, const char *key, json_t *value, int *result)
{
        if (json_object_set_new(message, key, value) < 0)
                *result = -1;
}

json_t *boot_message_new(const Slot *slot, int *fds, size_t *ret_n_fds)
{
        const Supervisor *supervisor = slot->supervisor;
        const Config *config = supervisor->config;
        const SupervisorApp *app = slot->app;
        _cleanup_(json_decref_p) json_t *m = json_pack("{s:s}", "type", "boot");
        int r = 0;

        if (!m)
                return NULL;
        put(m, "app", json_string(app->config->name), &r);
        put(m, "slot", integer(slot->index), &r);
        put(m, "n_slots", integer(app->n_slots), &r);
        put(m, "version", integer(supervisor->generation), &r);
        put(m, "shards", slot_shard_runs(app->n_slots), &r);
        put(m, "fds", fds_of(slot, fds, ret_n_fds), &r);
        put(m, "directory", json_string(app->host->directory), &r);
        put(m, "python_path", string_or_null(app->config->python_path), &r);
        put(m, "host_modules", json_string(supervisor->host_modules), &r);
        put(m, "state", json_string(supervisor->state), &r);
        put(m, "runtime", json_string(supervisor->runtime), &r);
        put(m, "objects", json_string(supervisor->objects), &r);
        put(m, "sockets", sockets_of(app), &r);
        put(m, "vars", json_incref(app->host->vars), &r);
        put(m, "classes", classes_of(app->host), &r);
        put(m, "development", json_boolean(config->development), &r);
        put(m, "admin_token", json_string(supervisor->admin_token), &r);
        put(m, "admin_password", json_string(supervisor->admin_password), &r);
        put(m, "log_level", integer((uint64_t)config->log_level), &r);
        put(m, "address", address_of(slot), &r);
        put(m, "http", http_of(config), &r);
        put(m, "objects_limits",
                json_pack("{s:o, s:o, s:o}", "objects_max", integer(config->objects_max),
                        "mailbox_max", integer(config->mailbox_max), "idle_ns",
                        integer(config->objects_idle_ns)),
                &r);
        put(m, "storage_limits",
                json_pack("{s:o, s:o}", "archive_days", integer(config->archive_days),
                        "archive_max", integer(config->archive_max)),
                &r);
        put(m, "runtime_limits",
                json_pack("{s:o, s:o}", "runners_max", integer(config->runners_max), "baton_ms",
                        integer(config->baton_ms)),
                &r);
        put(m, "drain_timeout_ns", integer(config->drain_timeout_ns), &r);
        return r == 0 ? TAKE_PTR(m) : NULL;
}
