/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/service.h"

#include "daemon/app/assets.h"
#include "daemon/app/routes.h"
#include "daemon/boot-view.h"
#include "daemon/core/log.h"
#include "daemon/edge/edge.h"
#include "daemon/edge/proxy.h"
#include "daemon/guard.h"
#include "daemon/object/object.h"
#include "daemon/operator.h"
#include "daemon/outgoing.h"
#include "daemon/storage.h"
#include "lib/base/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>

#define LEARNED_ROUTES_MAX 65536u
#define POOL_THREADS 2u /* each may hold the images of a restore: 128 MiB */

typedef enum ServiceState {
        SERVICE_LOADING,
        SERVICE_SERVING,
        SERVICE_DRAINING,
        SERVICE_DRAINED,
} ServiceState;

/* What route() found and serve() acts on: EdgeDecision.value[0]. */
typedef enum RouteKind { ROUTE_ENTRY, ROUTE_ASSET, ROUTE_OBJECT, ROUTE_INTERNAL } RouteKind;

struct Service {
        Ring *ring;
        ServiceState state;
        BootView *boot;
        Manifest *manifest;
        Storage *storage;
        Runtime *runtime;
        RuntimeConfig runtime_config;
        RuntimeHost host;
        Pool *pool;
        Registry *registry;
        Operator desk; /* operators' requests */
        Edge *edge;
        Proxy *proxy;
        Assets *assets;
        Routes *routes;
        Guard guard;
        char *broken; /* why the app could not be loaded, when that is served */
        void (*loaded)(Service *service, const char *error, void *data);
        void (*drained)(Service *service, void *data);
        void (*operated)(Service *service, json_t *message, int fd, void *data);
        void *data;
};

static void service_set_state(Service *service, ServiceState state)
{
        switch (state) {
        case SERVICE_LOADING:
                dd_unreachable();
        case SERVICE_SERVING:
                dd_assert(service->state == SERVICE_LOADING);
                break;
        case SERVICE_DRAINING:
                dd_assert(service->state == SERVICE_SERVING);
                break;
        case SERVICE_DRAINED:
                dd_assert(service->state == SERVICE_DRAINING);
                break;
        }
        service->state = state;
}

static unsigned service_get_slot_of(const Service *service, const ObjectId *id)
{
        return service->boot->shard_slots[ident_get_shard(id)];
}

/* The shard that the local address of a connection to an object address names, or -1. */
static int shard_of_address(const Service *service, const struct sockaddr_storage *local)
{
        if (local->ss_family == AF_INET) {
                const struct sockaddr_in *in = (const struct sockaddr_in *)local;
                uint32_t address = ntohl(in->sin_addr.s_addr);

                if (!service->boot->address_ipv4 ||
                        (address & 0xffff0000u) != service->boot->address_ipv4)
                        return -1;
                return (int)(address & (IDENT_SHARDS - 1));
        }
        if (local->ss_family == AF_INET6) {
                const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)local;

                if (!service->boot->has_address_ipv6 ||
                        memcmp(&in6->sin6_addr, &service->boot->address_ipv6, 8) != 0)
                        return -1;
                return in6->sin6_addr.s6_addr[8] << 4 | in6->sin6_addr.s6_addr[9] >> 4;
        }
        return -1;
}

static bool find_route(Service *service, Slice authority, Slice path, RouteTarget *ret)
{
        return service->routes && routes_find(service->routes, authority, path, ret);
}

/* The object that a declared route names. False: the binding has no class (the manifest checks it).
 */
static bool route_to_object(
        Service *service, const RouteTarget *target, unsigned *ret_class, ObjectId *ret_id)
{
        const RuntimeBinding *bindings = service->runtime_config.bindings;

        for (size_t i = 0; i < service->runtime_config.n_bindings; i++) {
                const RuntimeClass *class;

                if (strcmp(bindings[i].name, target->route->binding) != 0)
                        continue;
                class = &service->runtime_config.classes[bindings[i].class_index];
                if (ident_from_name(
                            slice_from(class->unique_key), slice_from(target->name), ret_id))
                        return false;
                *ret_class = bindings[i].class_index;
                return true;
        }
        return false;
}

static void hand_off_unless_ours(Service *service, unsigned shard, EdgeDecision *ret)
{
        unsigned slot = service->boot->shard_slots[shard];

        if (slot == service->boot->slot)
                return;
        ret->action = EDGE_HAND_OFF;
        ret->slot = slot;
}

static void service_route(void *data, const HttpHead *head, const EdgePeer *peer, EdgeDecision *ret)
{
        Service *service = data;
        RouteTarget target;
        unsigned class_index;
        ObjectId id;
        int shard;

        if (peer->origin == EDGE_INTERNAL) {
                ret->value[0] = ROUTE_INTERNAL;
                return;
        }
        ret->status = guard_check(&service->guard, head, &ret->message);
        if (ret->status) {
                ret->action = EDGE_REFUSE;
                return;
        }
        if (service->assets && assets_has(service->assets, head->method, head->path)) {
                ret->value[0] = ROUTE_ASSET;
                return;
        }
        shard = peer->origin == EDGE_ADDRESS ? shard_of_address(service, &peer->local) : -1;
        if (peer->origin == EDGE_ADDRESS && shard < 0) {
                /* Without the kernel's program this group takes what is none of its own. */
                ret->action = EDGE_REFUSE;
                ret->status = 421;
                ret->message = "this is no object's address";
                return;
        }
        if (find_route(service, head->authority, head->path, &target)) {
                if (!target.route)
                        shard = shard < 0 ? target.shard : shard;
                else if (route_to_object(service, &target, &class_index, &id)) {
                        ret->value[0] = ROUTE_OBJECT;
                        shard = (int)ident_get_shard(&id);
                }
        }
        if (shard >= 0 && peer->hops == 0)
                hand_off_unless_ours(service, (unsigned)shard, ret);
}

static int service_fetch(void *data, const OutgoingCall *call, Response **ret)
{
        Service *service = data;
        unsigned slot = service_get_slot_of(service, &call->id);
        int r;

        if (slot == service->boot->slot)
                return registry_fetch(service->registry, call->class_index, &call->id, call->name,
                        call->request, ret);
        r = proxy_fetch(
                service->proxy, slot, call->class_index, &call->id, call->name, call->request, ret);
        if (!r)
                response_set_shard(*ret, (int)ident_get_shard(&call->id));
        return r;
}

static int refuse(unsigned status, const char *message, Response **ret)
{
        _cleanup_(response_unref_p) Response *response = NULL;
        int r;

        r = response_new(&response);
        if (r)
                return r;
        response_abort(response, status, status == 503, message);
        *ret = TAKE_PTR(response);
        return 0;
}

static int serve_internal(Service *service, Request *received, Response **ret)
{
        ProxyCall call;
        int r;

        r = proxy_parse(received, &call);
        if (r == -EPROTO)
                return refuse(400, "the internal request is malformed", ret);
        if (r)
                return r;
        if (call.class_index >= service->runtime_config.n_classes)
                r = refuse(503, "the peer runs another version of the app", ret);
        else if (service_get_slot_of(service, &call.id) != service->boot->slot)
                r = refuse(503, "the object has moved to another worker", ret);
        else
                r = registry_fetch(service->registry, call.class_index, &call.id, call.name,
                        call.request, ret);
        proxy_call_done(&call);
        return r;
}

static int service_serve(void *data, const EdgeDecision *decision, const EdgePeer *peer,
        Request *request, Response **ret)
{
        Service *service = data;
        OutgoingCall call = { .request = request };
        RouteTarget target;
        int r;

        switch ((RouteKind)decision->value[0]) {
        case ROUTE_INTERNAL:
                return serve_internal(service, request, ret);
        case ROUTE_ASSET:
                r = assets_serve(service->assets, request, ret);
                if (r || *ret)
                        return r;
                break;
        case ROUTE_OBJECT:
                if (find_route(service, request->authority, request->path, &target) &&
                        target.route &&
                        route_to_object(service, &target, &call.class_index, &call.id)) {
                        call.name = slice_from(target.name);
                        return service_fetch(service, &call, ret);
                }
                break;
        case ROUTE_ENTRY:
                break;
        }
        return registry_fetch_entry(service->registry, request, ret);
}

static void service_finished(void *data, const EdgeDecision *decision, const Request *request,
        const Response *response, unsigned status)
{
        Service *service = data;
        int shard;

        if (decision->value[0] != ROUTE_ENTRY || !request || !response || !status || status >= 500)
                return;
        shard = response_get_shard(response);
        if (shard >= 0 && service->routes)
                routes_learn(service->routes, request->authority, request->path, (unsigned)shard);
}

static void service_add_headers(
        void *data, const EdgeDecision *decision, const Response *response, Buf *head)
{
        Service *service = data;
        char text[INET6_ADDRSTRLEN + 1];
        struct in6_addr ipv6;
        int shard = response_get_shard(response);

        if (shard < 0 || decision->value[0] == ROUTE_INTERNAL)
                return;
        if (service->boot->has_address_ipv6) {
                ipv6 = service->boot->address_ipv6;
                ipv6.s6_addr[8] = (uint8_t)(shard >> 4);
                ipv6.s6_addr[9] = (uint8_t)(shard << 4);
                if (!inet_ntop(AF_INET6, &ipv6, text, sizeof text))
                        return;
        } else if (service->boot->address_ipv4) {
                struct in_addr ipv4 = { htonl(service->boot->address_ipv4 | (uint32_t)shard) };

                if (!inet_ntop(AF_INET, &ipv4, text, sizeof text))
                        return;
        } else {
                return;
        }
        (void)http_write_header(head, SLICE("X-Durable-Address"), slice_from(text));
}

static const EdgeHandler edge_handler = {
        .route = service_route,
        .serve = service_serve,
        .finished = service_finished,
        .add_headers = service_add_headers,
};

static int service_stub_fetch(void *data, RuntimeEvent *event, unsigned class_index,
        const ObjectId *id, Slice name, Request *request, Response **ret)
{
        OutgoingCall call = { class_index, *id, name, request };
        Service *service = data;

        /* The first object that an entrypoint asks is what its route is learned by. */
        if (!event->object && response_get_shard(event->response) < 0)
                response_set_shard(event->response, (int)ident_get_shard(id));
        if (!event->object)
                return service_fetch(service, &call, ret);
        return outgoing_call(storage_get_store(service->storage), event->object->path, &call,
                service_fetch, service, ret);
}

static int service_new_parts(Service *service)
{
        const BootView *boot = service->boot;
        RegistryOptions registry = boot->registry;
        EdgeOptions edge = boot->edge;
        ProxyOptions proxy = {
                .ring = service->ring,
                .paths = (const char *const *)boot->sockets,
                .n_slots = boot->n_slots,
        };
        AssetsOptions assets = { .ring = service->ring };
        int r;

        registry.ring = service->ring;
        registry.store = storage_get_store(service->storage);
        registry.runtime = service->runtime;
        registry.classes = service->runtime_config.classes;
        registry.n_classes = service->runtime_config.n_classes;
        r = pool_new(service->ring, POOL_THREADS, &service->pool);
        if (r)
                return r;
        registry.pool = service->pool;
        r = registry_new(&registry, &service->registry);
        if (r)
                return r;
        service->desk.registry = service->registry;
        r = proxy_new(&proxy, &service->proxy);
        if (r)
                return r;
        r = routes_new(service->manifest, LEARNED_ROUTES_MAX, &service->routes);
        if (r)
                return r;
        if (service->manifest->assets_directory) {
                _cleanup_(free_p) char *directory =
                        path_join(boot->directory, service->manifest->assets_directory);

                if (!directory)
                        return -ENOMEM;
                assets.directory = directory;
                r = assets_new(&assets, &service->assets);
                if (r == -ENOENT)
                        log_warn("the assets directory '%s' does not exist: no static files",
                                directory);
                else if (r)
                        return r;
        }
        edge.ring = service->ring;
        edge.handler = &edge_handler;
        edge.handler_data = service;
        return edge_new(&edge, &service->edge);
}

/* "hand-off:3" is the sending end to slot 3. */
static bool parse_hand_off_name(const char *name, unsigned *ret_slot)
{
        const Slice prefix = SLICE("hand-off:");
        uint64_t slot;

        if (!slice_has_prefix(slice_from(name), prefix) ||
                !slice_to_u64(slice_from(name + prefix.len), &slot) || slot > UINT_MAX)
                return false;
        *ret_slot = (unsigned)slot;
        return true;
}

static int service_listen(Service *service)
{
        BootView *boot = service->boot;
        unsigned slot;
        int r = 0;

        for (size_t i = 0; i < boot->n_fds && !r; i++) {
                const char *name = boot->fd_names[i];
                int fd = boot->fds[i];

                if (strcmp(name, "listener:public") == 0)
                        r = edge_listen(service->edge, fd, EDGE_PUBLIC);
                else if (strcmp(name, "listener:address") == 0)
                        r = edge_listen(service->edge, fd, EDGE_ADDRESS);
                else if (strcmp(name, "internal") == 0)
                        r = edge_listen(service->edge, fd, EDGE_INTERNAL);
                else if (strcmp(name, "hand-off") == 0)
                        r = edge_receive_hand_offs(service->edge, fd);
                else if (parse_hand_off_name(name, &slot))
                        r = edge_set_hand_off(service->edge, slot, fd);
                else
                        continue;
                if (!r)
                        boot->fds[i] = -1;
        }
        return r;
}

static void service_loaded(Runtime *runtime, const char *error, void *data)
{
        Service *service = data;
        char message[128];
        int r;

        if (!error) {
                r = service_new_parts(service);
                if (!r)
                        r = service_listen(service);
                if (!r) {
                        service_set_state(service, SERVICE_SERVING);
                } else {
                        snprintf(message, sizeof message, "the worker could not start: %s",
                                strerror(-r));
                        error = message;
                }
        }
        service->loaded(service, error, service->data);
}

/* Before the guest: what it opens must be redone, and on our VFS. */
static int open_storage(Service *service)
{
        StorageOptions options = {
                .ring = service->ring,
                .state = service->boot->edge.spool_directory,
                .app = service->boot->app,
                .slot = service->boot->slot,
                .objects = service->boot->registry.objects_directory,
                .archive_days = service->boot->archive_days,
                .archive_max = service->boot->archive_max,
        };

        return storage_open(&options, &service->storage);
}

static void broken_route(void *data, const HttpHead *head, const EdgePeer *peer, EdgeDecision *ret)
{
}

static int broken_serve(void *data, const EdgeDecision *decision, const EdgePeer *peer,
        Request *request, Response **ret)
{
        const Service *service = data;
        _cleanup_(response_unref_p) Response *response = NULL;
        int r;

        r = response_new(&response);
        if (r)
                return r;
        response_finish_text(response, 503, service->broken);
        *ret = TAKE_PTR(response);
        return 0;
}

static const EdgeHandler broken_handler = { .route = broken_route, .serve = broken_serve };

int service_serve_error(Service *service, const char *message)
{
        EdgeOptions edge = service->boot->edge;
        int r;

        if (!service->boot->development || service->edge)
                return -ENOTSUP;
        if (asprintf(&service->broken, "The app cannot be loaded:\n\n%s\n", message) < 0) {
                service->broken = NULL;
                return -ENOMEM;
        }
        edge.ring = service->ring;
        edge.handler = &broken_handler;
        edge.handler_data = service;
        r = edge_new(&edge, &service->edge);
        if (r)
                return r;
        return service_listen(service);
}

static int load_manifest(Service *service)
{
        _cleanup_(free_p) char *path = path_join(service->boot->directory, "wrangler.jsonc");
        Buf text = BUF_INIT(0);
        ManifestError error = { 0 };
        int r;

        if (!path)
                return -ENOMEM;
        r = file_read(path, 4u << 20, &text);
        if (r)
                log_error("cannot read '%s': %s", path, strerror(-r));
        else
                r = manifest_parse(buf_slice(&text), &service->manifest, &error);
        if (r > 0) {
                log_error("%s:%u: %s: %s", path, error.line, error.key, error.message);
                r = -EINVAL;
        }
        buf_done(&text);
        return r;
}

/* Bindings of the manifest to the classes that the supervisor's catalog gave. */
static int link_bindings(Service *service)
{
        RuntimeConfig *config = &service->runtime_config;
        RuntimeBinding *bindings = calloc(service->manifest->n_bindings + 1, sizeof *bindings);

        if (!bindings)
                return -ENOMEM;
        config->bindings = bindings;
        for (size_t i = 0; i < service->manifest->n_bindings; i++) {
                const ManifestBinding *from = &service->manifest->bindings[i];
                size_t at = 0;

                while (at < config->n_classes &&
                        strcmp(config->classes[at].class_name, from->class_name) != 0)
                        at++;
                if (at == config->n_classes) {
                        log_error("binding '%s' names class '%s', which the catalog does not have",
                                from->name, from->class_name);
                        return -EINVAL;
                }
                bindings[config->n_bindings++] =
                        (RuntimeBinding){ .name = from->name, .class_index = (unsigned)at };
        }
        return 0;
}

static bool service_owns(const ObjectId *id, void *data)
{
        const Service *service = data;

        return service_get_slot_of(service, id) == service->boot->slot;
}

static void service_operated(json_t *message, int fd, void *data)
{
        Service *service = data;

        service->operated(service, message, fd, service->data);
}

/* The registry is still to come. */
static void open_operator(Service *service, const ServiceOptions *options)
{
        service->operated = options->operated;
        service->desk = (Operator){
                .store = storage_get_store(service->storage),
                .classes = service->runtime_config.classes,
                .n_classes = service->runtime_config.n_classes,
                .objects = service->boot->registry.objects_directory,
                .scratch = storage_get_journal(service->storage),
                .owns = service_owns,
                .answer = service_operated,
                .data = service,
        };
        list_init(&service->desk.tasks);
        operator_clean(service->desk.scratch);
}

void service_operate(Service *service, json_t *message, int fd)
{
        operator_take(&service->desk, message, fd);
}

void service_abandon(Service *service, json_int_t id)
{
        operator_abandon(&service->desk, id);
}

int service_new(const ServiceOptions *options, Service **ret)
{
        _cleanup_(service_free_p) Service *service = calloc(1, sizeof *service);
        RuntimeConfig *config;
        int r;

        if (!service)
                return -ENOMEM;
        service->ring = options->ring;
        service->loaded = options->loaded;
        service->drained = options->drained;
        service->data = options->data;
        r = boot_view_new(options->boot, &service->boot);
        if (r)
                return r;
        r = load_manifest(service);
        if (!r)
                r = open_storage(service);
        if (r)
                return r;
        config = &service->runtime_config;
        *config = service->boot->runtime;
        config->ring = service->ring;
        config->manifest = service->manifest;
        config->host = &service->host;
        config->host_data = service;
        config->store = storage_get_store(service->storage);
        service->host.stub_fetch = service_stub_fetch;
        r = link_bindings(service);
        if (r)
                return r;
        open_operator(service, options);
        guard_init(&service->guard, slice_from(service->boot->admin_token),
                service->boot->development || service->manifest->management_open);
        r = runtime_python.load(config, service_loaded, service, &service->runtime);
        if (r) {
                log_error("the Python runtime cannot start: %s", strerror(-r));
                return r;
        }
        boot_view_take_fds(service->boot, options->fds, options->n_fds);
        *ret = TAKE_PTR(service);
        return 0;
}

Service *service_free(Service *service)
{
        if (!service)
                return NULL;
        edge_free(service->edge);
        proxy_free(service->proxy);
        registry_free(service->registry);
        pool_free(service->pool);
        routes_free(service->routes);
        assets_free(service->assets);
        if (service->runtime)
                service->runtime->vtable->unload(service->runtime);
        storage_close(service->storage);
        free((void *)(uintptr_t)service->runtime_config.bindings);
        manifest_free(service->manifest);
        free(service->broken);
        boot_view_free(service->boot);
        free(service);
        return NULL;
}

static void runtime_stopped(Runtime *runtime, void *data)
{
        Service *service = data;

        service_set_state(service, SERVICE_DRAINED);
        service->drained(service, service->data);
}

static void proxy_stopped(void *data)
{
        Service *service = data;

        service->runtime->vtable->stop(service->runtime, runtime_stopped, service);
}

static void registry_stopped(void *data)
{
        Service *service = data;

        proxy_stop(service->proxy, proxy_stopped, service);
}

static void edge_stopped(void *data)
{
        Service *service = data;

        registry_stop(service->registry, registry_stopped, service);
}

void service_drain(Service *service, uint64_t timeout_ns)
{
        if (service->state != SERVICE_SERVING)
                return;
        service_set_state(service, SERVICE_DRAINING);
        /* Requests in flight may still call objects here and elsewhere, so the edge goes first. */
        edge_stop(service->edge, clock_monotonic_ns() + timeout_ns, edge_stopped, service);
}

json_t *service_get_stats(Service *service)
{
        EdgeStats edge = { 0 };
        RegistryStats objects = { 0 };
        RuntimeStats runtime = { 0 };

        if (service->edge)
                edge_get_stats(service->edge, &edge);
        if (service->registry)
                registry_get_stats(service->registry, &objects);
        if (service->runtime)
                service->runtime->vtable->get_stats(service->runtime, &runtime);
        return json_pack("{s:{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:i},"
                         "s:{s:I,s:I,s:I,s:i,s:i,s:i},s:{s:I,s:I,s:i,s:i,s:i}}",
                "edge", "accepted_public", (json_int_t)edge.accepted[EDGE_PUBLIC],
                "accepted_address", (json_int_t)edge.accepted[EDGE_ADDRESS], "accepted_internal",
                (json_int_t)edge.accepted[EDGE_INTERNAL], "requests", (json_int_t)edge.requests,
                "handed_out", (json_int_t)edge.handed_out, "handed_in", (json_int_t)edge.handed_in,
                "hand_off_failed", (json_int_t)edge.hand_off_failed, "errors_4xx",
                (json_int_t)edge.errors_4xx, "errors_5xx", (json_int_t)edge.errors_5xx, "bytes_in",
                (json_int_t)edge.bytes_in, "bytes_out", (json_int_t)edge.bytes_out, "connections",
                (int)edge.connections, "objects", "events", (json_int_t)objects.events, "rejected",
                (json_int_t)objects.rejected, "evicted", (json_int_t)objects.evicted, "open",
                (int)objects.objects, "executing", (int)objects.executing, "queued",
                (int)objects.queued, "runtime", "events", (json_int_t)runtime.events, "busy_ns",
                (json_int_t)runtime.busy_ns, "runners", (int)runtime.runners, "runners_busy",
                (int)runtime.runners_busy, "queued", (int)runtime.queued);
}
