/* SPDX-License-Identifier: Apache-2.0 */

/* The methods of io.durabled.Manager and io.durabled.Objects. */

#include "daemon/host/interfaces.h"
#include "daemon/host/supervisor-private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#define OUT_OF_MEMORY "io.durabled.Manager.OutOfMemory"

/* ---- io.durabled.Manager ---- */

static void status_ready(json_t *status, void *data)
{
        ControlCall *call = data;

        if (status)
                control_reply(call, status);
        else
                control_reply_error(call, OUT_OF_MEMORY, NULL);
}

static void manager_status(ControlCall *call, json_t *parameters, void *data)
{
        supervisor_query(data, status_ready, call);
}

static void manager_reload(ControlCall *call, json_t *parameters, void *data)
{
        supervisor_reload(data, call);
}

static void manager_stop(ControlCall *call, json_t *parameters, void *data)
{
        control_reply(call, NULL);
        supervisor_stop(data);
}

/* ---- io.durabled.Objects ---- */

static void reply_error_text(
        ControlCall *call, const char *error, const char *key, const char *text)
{
        _cleanup_(json_decref_p) json_t *parameters = json_pack("{s:s}", key, text);

        control_reply_error(call, error, parameters);
}

static const SupervisorApp *find_app(const Supervisor *supervisor, const char *name)
{
        for (size_t i = 0; i < supervisor->n_apps; i++)
                if (strcmp(supervisor->apps[i].config->name, name) == 0)
                        return &supervisor->apps[i];
        return NULL;
}

/* The object's id by name or by id; answers the call itself when it returns false. */
static bool objects_find_id(
        ControlCall *call, json_t *parameters, const CatalogClass *class, ObjectId *ret)
{
        const char *name = json_string_value(json_object_get(parameters, "name"));
        const char *id = json_string_value(json_object_get(parameters, "id"));
        int r;

        if (!name == !id) {
                control_reply_invalid(call, name ? "id" : "name");
                return false;
        }
        if (name) {
                r = ident_from_name(slice_from(class->unique_key), slice_from(name), ret);
                if (r == 0)
                        return true;
                reply_error_text(call, "io.durabled.Objects.Failed", "message",
                        r < 0 ? strerror(-r) : "the name cannot be used");
                return false;
        }
        r = ident_parse(slice_from(id), ret);
        if (r == 0)
                r = ident_check(slice_from(class->unique_key), ret);
        if (r == 0)
                return true;
        reply_error_text(call, "io.durabled.Objects.InvalidId", "message",
                r == IDENT_E_LENGTH  ? "an id has 64 digits"
                : r == IDENT_E_DIGIT ? "an id is written with the digits 0-9 and a-f"
                                     : "this id belongs to another class");
        return false;
}

static json_t *address_new(
        const Supervisor *supervisor, const SupervisorApp *app, const ObjectId *id)
{
        const Listener *listener = supervisor->listener;
        unsigned shard = ident_get_shard(id);
        struct in_addr ipv4 = { htonl(steer_ipv4_of(app->index, shard)) };
        char id_text[IDENT_TEXT_SIZE], text4[INET_ADDRSTRLEN], text6[INET6_ADDRSTRLEN];
        char url[INET6_ADDRSTRLEN + 32] = "";
        bool has6 = listener->ipv6 && app->index == 0;
        struct in6_addr ipv6;

        ident_format(id, id_text);
        inet_ntop(AF_INET, &ipv4, text4, sizeof(text4));
        memcpy(&ipv6, listener->prefix, 8);
        memcpy((char *)&ipv6 + 8, id->bytes, 8);
        inet_ntop(AF_INET6, &ipv6, text6, sizeof(text6));
        if (listener->ipv4)
                snprintf(url, sizeof(url), "http://%s:%u/", text4, listener->port);
        else if (has6)
                snprintf(url, sizeof(url), "http://[%s]:%u/", text6, listener->port);
        return json_pack("{s:s, s:i, s:i, s:o, s:o, s:o}", "id", id_text, "shard", (int)shard,
                "slot", (int)slot_of_shard(shard, app->n_slots), "ipv4",
                listener->ipv4 ? json_string(text4) : json_null(), "ipv6",
                has6 ? json_string(text6) : json_null(), "url",
                url[0] ? json_string(url) : json_null());
}

static void objects_address(ControlCall *call, json_t *parameters, void *data)
{
        const char *app_name = json_string_value(json_object_get(parameters, "app"));
        const char *class_name = json_string_value(json_object_get(parameters, "class"));
        _cleanup_(json_decref_p) json_t *answer = NULL;
        const Supervisor *supervisor = data;
        const CatalogClass *class;
        const SupervisorApp *app;
        ObjectId id;

        if (!app_name || !class_name) {
                control_reply_invalid(call, app_name ? "class" : "app");
                return;
        }
        app = find_app(supervisor, app_name);
        if (!app) {
                reply_error_text(call, "io.durabled.Objects.NoSuchApp", "app", app_name);
                return;
        }
        class = host_app_find_class(app->host, class_name);
        if (!class) {
                reply_error_text(call, "io.durabled.Objects.NoSuchClass", "class", class_name);
                return;
        }
        if (!objects_find_id(call, parameters, class, &id))
                return;
        answer = address_new(supervisor, app, &id);
        control_reply(call, answer);
}

static const ControlMethod manager_methods[] = {
        { "Status", manager_status },
        { "Reload", manager_reload },
        { "Stop", manager_stop },
};

static const ControlMethod objects_methods[] = {
        { "Address", objects_address },
};

static const ControlInterface interfaces[] = {
        { "io.durabled.Manager", interface_io_durabled_Manager, manager_methods,
                ELEMENTSOF(manager_methods) },
        { "io.durabled.Objects", interface_io_durabled_Objects, objects_methods,
                ELEMENTSOF(objects_methods) },
};

int manager_open(Supervisor *supervisor)
{
        _cleanup_(free_p) char *path = path_join(supervisor->runtime, "control");
        ControlOptions options = {
                .ring = supervisor->ring,
                .path = path,
                .interfaces = interfaces,
                .n_interfaces = ELEMENTSOF(interfaces),
                .data = supervisor,
        };

        return path ? control_open(&options, &supervisor->control) : -ENOMEM;
}
