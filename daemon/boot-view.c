/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/boot-view.h"

#include "daemon/core/boot.h"
#include "daemon/core/log.h"

#include <arpa/inet.h>
#include <errno.h>

static int missing(const char *what)
{
        log_error("the boot message has no valid '%s'", what);
        return -EPROTO;
}

static uint64_t get_number(json_t *object, const char *key)
{
        json_int_t value = json_integer_value(json_object_get(object, key));

        return value > 0 ? (uint64_t)value : 0;
}

static const char *get_string(json_t *object, const char *key)
{
        return json_string_value(json_object_get(object, key));
}

/* "shards": [[slot, count], ...] in the order of the shards, 4096 in all. */
static int read_shards(BootView *view)
{
        json_t *runs = json_object_get(view->json, "shards");
        size_t at = 0, index;
        json_t *run;

        json_array_foreach(runs, index, run)
        {
                json_int_t slot = json_integer_value(json_array_get(run, 0));
                json_int_t count = json_integer_value(json_array_get(run, 1));

                if (slot < 0 || slot >= (json_int_t)view->n_slots || count < 0 ||
                        (size_t)count > IDENT_SHARDS - at)
                        return missing("shards");
                while (count-- > 0)
                        view->shard_slots[at++] = (unsigned)slot;
        }
        return at == IDENT_SHARDS ? 0 : missing("shards");
}

static int read_strings(BootView *view, const char *key, const char ***ret, size_t *ret_n)
{
        json_t *array = json_object_get(view->json, key);
        size_t n = json_array_size(array), index;
        json_t *item;

        *ret = calloc(n + 1, sizeof **ret);
        if (!*ret)
                return -ENOMEM;
        json_array_foreach(array, index, item)
        {
                (*ret)[index] = json_string_value(item);
                if (!(*ret)[index])
                        return missing(key);
        }
        *ret_n = n;
        return 0;
}

static int read_classes(BootView *view)
{
        json_t *array = json_object_get(view->json, "classes"), *item;
        size_t index;

        view->classes = calloc(json_array_size(array) + 1, sizeof *view->classes);
        if (!view->classes)
                return -ENOMEM;
        json_array_foreach(array, index, item)
        {
                view->classes[index].class_name = get_string(item, "class_name");
                view->classes[index].unique_key = get_string(item, "unique_key");
                if (!view->classes[index].class_name || !view->classes[index].unique_key)
                        return missing("classes");
        }
        view->runtime.classes = view->classes;
        view->runtime.n_classes = json_array_size(array);
        return 0;
}

static int read_addresses(BootView *view)
{
        json_t *address = json_object_get(view->json, "address");
        const char *ipv4 = get_string(address, "ipv4");
        const char *ipv6 = get_string(address, "ipv6");
        _cleanup_(free_p) char *prefix = NULL;
        struct in_addr in;

        if (ipv4) {
                if (inet_pton(AF_INET, ipv4, &in) != 1)
                        return missing("address.ipv4");
                view->address_ipv4 = ntohl(in.s_addr);
        }
        if (ipv6) {
                /* With or without its "/64". */
                prefix = slice_dup(slice_head(slice_from(ipv6), strcspn(ipv6, "/")));
                if (!prefix)
                        return -ENOMEM;
                if (inet_pton(AF_INET6, prefix, &view->address_ipv6) != 1)
                        return missing("address.ipv6");
                view->has_address_ipv6 = true;
        }
        return 0;
}

static void read_limits(BootView *view)
{
        json_t *http = json_object_get(view->json, "http");
        json_t *objects = json_object_get(view->json, "objects_limits");
        json_t *runtime = json_object_get(view->json, "runtime_limits");
        json_t *storage = json_object_get(view->json, "storage_limits");

        view->edge = (EdgeOptions){
                .http = {
                        .head_max = get_number(http, "head_max"),
                        .target_max = get_number(http, "target_max"),
                        .headers_max = get_number(http, "headers_max"),
                        .body_max = get_number(http, "body_max"),
                },
                .spool_directory = get_string(view->json, "state"),
                .connections_max = (unsigned)get_number(http, "connections_max"),
                .head_timeout_ns = get_number(http, "head_timeout_ns"),
                .body_timeout_ns = get_number(http, "body_timeout_ns"),
                .send_timeout_ns = get_number(http, "send_timeout_ns"),
                .idle_timeout_ns = get_number(http, "idle_timeout_ns"),
                .requests_max = (unsigned)get_number(http, "requests_max"),
        };
        view->registry = (RegistryOptions){
                .objects_directory = get_string(view->json, "objects"),
                .objects_max = (unsigned)get_number(objects, "objects_max"),
                .mailbox_max = (unsigned)get_number(objects, "mailbox_max"),
                .idle_ns = get_number(objects, "idle_ns"),
        };
        view->runtime.limits = (RuntimeLimits){
                .runners_max = (unsigned)get_number(runtime, "runners_max"),
                .baton_ms = (unsigned)get_number(runtime, "baton_ms"),
        };
        view->archive_days = (unsigned)get_number(storage, "archive_days");
        view->archive_max = get_number(storage, "archive_max");
}

static int read_runtime(BootView *view)
{
        json_t *vars = json_object_get(view->json, "vars");

        view->env_json = vars ? json_dumps(vars, JSON_COMPACT) : strdup("{}");
        if (!view->env_json)
                return -ENOMEM;
        view->runtime.app_name = view->app;
        view->runtime.app_directory = view->directory;
        view->runtime.python_path = get_string(view->json, "python_path");
        view->runtime.host_modules = get_string(view->json, "host_modules");
        view->runtime.env_json = view->env_json;
        view->runtime.admin_password = get_string(view->json, "admin_password");
        view->runtime.development = view->development;
        return view->runtime.host_modules ? 0 : missing("host_modules");
}

static int boot_view_read(BootView *view)
{
        size_t n_sockets = 0;
        int r;

        view->app = get_string(view->json, "app");
        view->directory = get_string(view->json, "directory");
        view->admin_token = get_string(view->json, "admin_token");
        view->slot = (unsigned)get_number(view->json, "slot");
        view->n_slots = (unsigned)get_number(view->json, "n_slots");
        view->development = json_is_true(json_object_get(view->json, "development"));
        view->log_level = (int)get_number(view->json, "log_level");
        if (!view->app || !view->directory || !view->n_slots || view->slot >= view->n_slots)
                return missing("app, directory, slot or n_slots");
        r = read_shards(view);
        if (!r)
                r = read_strings(view, "sockets", &view->sockets, &n_sockets);
        if (!r && n_sockets != view->n_slots)
                r = missing("sockets");
        if (!r)
                r = read_strings(view, "fds", &view->fd_names, &view->n_fds);
        if (!r)
                r = read_classes(view);
        if (!r)
                r = read_addresses(view);
        if (!r)
                r = read_runtime(view);
        if (r)
                return r;
        read_limits(view);
        if (!view->registry.objects_directory || !view->edge.spool_directory)
                return missing("objects or state");
        view->fds = calloc(view->n_fds + 1, sizeof *view->fds);
        if (!view->fds)
                return -ENOMEM;
        for (size_t i = 0; i < view->n_fds; i++)
                view->fds[i] = -1;
        return 0;
}

int boot_view_new(json_t *boot, BootView **ret)
{
        _cleanup_(boot_view_free_p) BootView *view = calloc(1, sizeof *view);
        int r;

        if (!view)
                return -ENOMEM;
        view->json = json_incref(boot);
        r = boot_view_read(view);
        if (r)
                return r;
        *ret = TAKE_PTR(view);
        return 0;
}

BootView *boot_view_free(BootView *view)
{
        if (!view)
                return NULL;
        for (size_t i = 0; view->fds && i < view->n_fds; i++)
                close_p(&view->fds[i]);
        free(view->fds);
        free(view->fd_names);
        free(view->sockets);
        free(view->classes);
        free(view->env_json);
        json_decref(view->json);
        free(view);
        return NULL;
}

void boot_view_take_fds(BootView *view, const int *fds, size_t n)
{
        dd_assert(n == view->n_fds);
        memcpy(view->fds, fds, n * sizeof *fds);
}
