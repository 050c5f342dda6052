/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The methods of io.durabled.Objects
 *
 * A request names an object by name or id, and where more than one class could have it, the class.
 * Without one the workers of all classes that could are asked which has it; then the one object's
 * worker gets the request (daemon/operator.h).
 */

#include "daemon/host/interfaces.h"
#include "daemon/host/supervisor-private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#define INTERFACE "io.durabled.Objects."
#define CANDIDATES_MAX 64u
/* Asked at a time whether they have an object: a worker takes no more than 16 requests. */
#define FINDS_MAX 8u
#define NAME_SHOWN 200u

typedef struct Candidate {
        struct ObjectsCall *owner;
        SupervisorApp *app;
        char *class_name, *unique_key;
        ObjectId id;
        bool exists;
} Candidate;

typedef struct ObjectsWork {
        const char *verb; /* of the worker (daemon/operator.h) */
        /* Before the worker is asked; may be NULL. False: the call has been answered. */
        bool (*prepare)(struct ObjectsCall *objects, const Candidate *object);
        /* fd: -1, or what came with the answer; taken. */
        void (*done)(struct ObjectsCall *objects, const Candidate *object, json_t *answer, int fd);
} ObjectsWork;

/* One request on its way. */
typedef struct ObjectsCall {
        Supervisor *supervisor;
        ControlCall *call;
        bool gone; /* who asked has left */
        json_t *parameters;
        const ObjectsWork *work;
        Candidate *candidates;
        size_t n_candidates, n_asked, n_waiting;
        Candidate *to;         /* of a snapshot */
        char unreachable[400]; /* which class could not be asked, and why */
} ObjectsCall;

static void candidate_done(Candidate *candidate)
{
        free(candidate->class_name);
        free(candidate->unique_key);
}

static void objects_free(ObjectsCall *objects)
{
        for (size_t i = 0; i < objects->n_candidates; i++)
                candidate_done(&objects->candidates[i]);
        if (objects->to)
                candidate_done(objects->to);
        free(objects->to);
        free(objects->candidates);
        json_decref(objects->parameters);
        free(objects);
}

/* Who asked has left: so may all that was asked of workers. */
static void objects_gone(void *data)
{
        ObjectsCall *objects = data;

        objects->gone = true;
        for (size_t i = 0; i < objects->n_candidates; i++)
                operate_abandon(objects->supervisor, &objects->candidates[i]);
        if (objects->to)
                operate_abandon(objects->supervisor, objects->to);
}

/* NULL: the call has been answered. */
static ObjectsCall *objects_new(ControlCall *call, json_t *parameters, Supervisor *supervisor)
{
        ObjectsCall *objects = calloc(1, sizeof(*objects));

        if (objects)
                objects->candidates = calloc(CANDIDATES_MAX, sizeof(*objects->candidates));
        if (!objects || !objects->candidates) {
                free(objects);
                control_reply_error(call, INTERFACE "Failed", NULL);
                return NULL;
        }
        objects->supervisor = supervisor;
        objects->call = call;
        objects->parameters = json_incref(parameters);
        control_on_gone(call, objects_gone, objects);
        return objects;
}

/* Answers, which ends the request. */
static void objects_fail(ObjectsCall *objects, const char *error, const char *key, const char *text)
{
        _cleanup_(json_decref_p) json_t *parameters = json_pack("{s:s}", key, text);
        char name[128];

        snprintf(name, sizeof(name), INTERFACE "%s", error);
        control_reply_error(objects->call, name, parameters);
        objects_free(objects);
}

static void objects_reply(ObjectsCall *objects, json_t *answer, int fd)
{
        control_reply_fd(objects->call, answer, fd);
        objects_free(objects);
}

static const char *objects_get(const ObjectsCall *objects, const char *key)
{
        return json_string_value(json_object_get(objects->parameters, key));
}

/* ---- what is asked ---- */

static bool has_type(const json_t *value, char type)
{
        return json_is_null(value) || (type == 's'          ? json_is_string(value)
                                              : type == 'i' ? json_is_integer(value)
                                                            : json_is_boolean(value));
}

/* What is misspelt or of another type would be as if it had not been said: an export of the
 * present where the past was wanted. own: the keys of the method's own, each after a blank. False:
 * the call has been answered. */
static bool parameters_check(ControlCall *call, json_t *parameters, const char *own)
{
        static const struct {
                const char *key;
                char type;
                bool own;
        } known[] = {
                { " app", 's', false },
                { " class", 's', false },
                { " name", 's', false },
                { " id", 's', false },
                { " time_ns", 'i', true },
                { " bookmark", 's', true },
                { " to", 's', true },
                { " to_id", 's', true },
                { " overwrite", 'b', true },
        };
        const char *key;
        json_t *value;

        json_object_foreach(parameters, key, value)
        {
                bool right = false;

                for (size_t i = 0; i < ELEMENTSOF(known) && !right; i++)
                        right = strcmp(known[i].key + 1, key) == 0 &&
                                (!known[i].own || strstr(own, known[i].key)) &&
                                has_type(value, known[i].type);
                if (right)
                        continue;
                control_reply_invalid(call, key);
                return false;
        }
        return true;
}

/* ---- which object ---- */

static const char *id_problem(int r)
{
        return r == IDENT_E_LENGTH  ? "an id has 64 digits"
               : r == IDENT_E_DIGIT ? "an id is written with the digits 0-9 and a-f"
               : r == 0             ? "the name cannot be used"
                                    : "this id belongs to no class that could be meant";
}

/* The id of the object in that class. 0, IDENT_E_*, or a negative errno. */
static int class_find_id(const char *key, const char *name, const char *id, ObjectId *ret)
{
        int r;

        if (name)
                return ident_from_name(slice_from(key), slice_from(name), ret);
        r = ident_parse(slice_from(id), ret);
        return r ?: ident_check(slice_from(key), ret);
}

static int add_candidate(
        ObjectsCall *objects, SupervisorApp *app, const CatalogClass *class, const ObjectId *id)
{
        Candidate *candidate = &objects->candidates[objects->n_candidates];

        if (objects->n_candidates == CANDIDATES_MAX)
                return -E2BIG;
        objects->n_candidates++;
        *candidate = (Candidate){
                .owner = objects,
                .app = app,
                .class_name = strdup(class->class_name),
                .unique_key = strdup(class->unique_key),
                .id = *id,
        };
        return candidate->class_name && candidate->unique_key ? 0 : -ENOMEM;
}

typedef struct Search {
        const char *app, *class, *name, *id;
        bool has_app, has_class;
        int problem; /* of the id or name in a class that was looked at */
} Search;

static int collect(ObjectsCall *objects, Search *search)
{
        Supervisor *supervisor = objects->supervisor;
        int r = 0;

        for (size_t i = 0; i < supervisor->n_apps; i++) {
                SupervisorApp *app = &supervisor->apps[i];

                if (search->app && strcmp(app->config->name, search->app) != 0)
                        continue;
                search->has_app = true;
                for (size_t j = 0; j < app->host->n_classes && r >= 0; j++) {
                        const CatalogClass *class = &app->host->classes[j];
                        ObjectId id;

                        if (search->class && strcmp(class->class_name, search->class) != 0)
                                continue;
                        search->has_class = true;
                        r = class_find_id(class->unique_key, search->name, search->id, &id);
                        if (r > 0)
                                search->problem = r;
                        else if (r == 0)
                                r = add_candidate(objects, app, class, &id);
                }
        }
        return MIN(r, 0);
}

/* Fills the candidates. False: the call has been answered. */
static bool objects_search(ObjectsCall *objects)
{
        Search search = { .app = objects_get(objects, "app"),
                .class = objects_get(objects, "class"),
                .name = objects_get(objects, "name"),
                .id = objects_get(objects, "id") };
        int r;

        if (!search.name == !search.id) {
                control_reply_invalid(objects->call, search.name ? "id" : "name");
                objects_free(objects);
                return false;
        }
        r = collect(objects, &search);
        if (r < 0)
                objects_fail(objects, "Failed", "message",
                        r == -E2BIG ? "too many classes could have it: name the class"
                                    : strerror(-r));
        else if (objects->n_candidates)
                return true;
        else if (!search.has_app)
                objects_fail(objects, "NoSuchApp", "app", search.app ? search.app : "");
        else if (!search.has_class)
                objects_fail(objects, "NoSuchClass", "class", search.class ? search.class : "");
        else
                objects_fail(objects, "InvalidId", "message", id_problem(search.problem));
        return false;
}

/* " 'NAME'", or nothing when it is long: an error is to be read. */
static const char *shown_name(const char *name, char out[NAME_SHOWN + 4])
{
        out[0] = '\0';
        if (name && *name && strlen(name) <= NAME_SHOWN)
                snprintf(out, NAME_SHOWN + 4, " '%s'", name);
        return out;
}

/* object: NULL when all classes were asked. */
static void objects_fail_absent(ObjectsCall *objects, const Candidate *object)
{
        const char *name = objects_get(objects, "name");
        char text[NAME_SHOWN + 400], shown[NAME_SHOWN + 4];
        bool past = !object && json_is_string(json_object_get(objects->parameters, "bookmark"));

        shown_name(name ? name : objects_get(objects, "id"), shown);
        if (object)
                snprintf(text, sizeof(text), "there is no object%s in class %s of app %s", shown,
                        object->class_name, object->app->config->name);
        else
                snprintf(text, sizeof(text), "there is no object%s in any of %zu classes%s", shown,
                        objects->n_candidates,
                        past ? "; to reach the past of one that was deleted, name its class" : "");
        objects_fail(objects, "NoSuchObject", "message", text);
}

static Slot *candidate_get_slot(const Candidate *candidate)
{
        SupervisorApp *app = candidate->app;

        return &app->slots[slot_of_shard(ident_get_shard(&candidate->id), app->n_slots)];
}

/* ---- to the worker ---- */

static const char *send_problem(int r)
{
        return r == -EHOSTDOWN ? "the object's worker is not ready"
               : r == -EAGAIN  ? "the object's worker is behind with what it was told"
                               : strerror(-r);
}

static json_t *message_new(const Candidate *object, const char *verb, const char *name)
{
        char id[IDENT_TEXT_SIZE];

        ident_format(&object->id, id);
        return json_pack("{s:s, s:s, s:s, s:s*}", "verb", verb, "class", object->unique_key,
                "object", id, "name", name);
}

/* answer: an error, or NULL when memory is out. */
static void object_failed(ObjectsCall *objects, const Candidate *object, json_t *answer)
{
        const char *error = json_string_value(json_object_get(answer, "error"));
        const char *message = json_string_value(json_object_get(answer, "message"));
        char text[NAME_SHOWN + 200], shown[NAME_SHOWN + 4];

        if (error && strcmp(error, "NoSuchObject") == 0) {
                objects_fail_absent(objects, object);
        } else if (error && strcmp(error, "ObjectExists") == 0) {
                snprintf(text, sizeof(text),
                        "there is an object%s: it is replaced only when that is asked for "
                        "(overwrite; durablectl: --force)",
                        shown_name(objects_get(objects, "to"), shown));
                objects_fail(objects, error, "message", text);
        } else {
                objects_fail(objects, error ? error : "Failed", "message",
                        message ? message : strerror(ENOMEM));
        }
}

static void object_answered(json_t *answer, int fd, void *data)
{
        const Candidate *object = data;
        ObjectsCall *objects = object->owner;

        if (answer && !json_object_get(answer, "error")) {
                objects->work->done(objects, object, answer, fd);
                return;
        }
        close_p(&fd);
        object_failed(objects, object, answer);
}

/* Parameters of the verb are handed on by name. */
static void object_operate(ObjectsCall *objects, const Candidate *object)
{
        static const char *const keys[] = { "time_ns", "bookmark" };
        _cleanup_(json_decref_p) json_t *message =
                message_new(object, objects->work->verb, objects_get(objects, "name"));
        int r = message ? 0 : -ENOMEM;

        if (objects->work->prepare && !objects->work->prepare(objects, object))
                return;
        for (size_t i = 0; i < ELEMENTSOF(keys) && !r; i++) {
                json_t *value = json_object_get(objects->parameters, keys[i]);

                if (value && json_object_set(message, keys[i], value) < 0)
                        r = -ENOMEM;
        }
        if (!r && objects->gone)
                r = -EPIPE;
        r = r
                    ?: slot_operate(candidate_get_slot(object), message, -1, object_answered,
                               (void *)(uintptr_t)object);
        if (r < 0)
                objects_fail(objects, "Unavailable", "message", send_problem(r));
}

/* All classes that could have the object have been asked. */
static void objects_choose(ObjectsCall *objects)
{
        const Candidate *found = NULL;
        char text[800] = "";
        size_t len = 0, n_found = 0;

        for (size_t i = 0; i < objects->n_candidates; i++) {
                const Candidate *candidate = &objects->candidates[i];

                if (!candidate->exists)
                        continue;
                found = candidate;
                n_found++;
                if (len < sizeof(text))
                        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s of app %s",
                                len ? ", " : "", candidate->class_name,
                                candidate->app->config->name);
        }
        if (objects->unreachable[0])
                objects_fail(objects, "Unavailable", "message", objects->unreachable);
        else if (n_found == 0)
                objects_fail_absent(objects, NULL);
        else if (n_found > 1)
                objects_fail(objects, "AmbiguousObject", "classes", text);
        else
                object_operate(objects, found);
}

static void objects_step(ObjectsCall *objects);

static void candidate_unreachable(const Candidate *candidate, const char *why)
{
        snprintf(candidate->owner->unreachable, sizeof(candidate->owner->unreachable),
                "class %s of app %s could have the object and cannot be asked now (%s): name the "
                "class that you mean, or try again",
                candidate->class_name, candidate->app->config->name, why);
}

static void find_answered(json_t *answer, int fd, void *data)
{
        Candidate *candidate = data;
        ObjectsCall *objects = candidate->owner;
        const char *error = json_string_value(json_object_get(answer, "error"));
        const char *message = json_string_value(json_object_get(answer, "message"));

        close_p(&fd);
        candidate->exists = answer && !error;
        if (!answer || (error && strcmp(error, "NoSuchObject") != 0))
                candidate_unreachable(candidate, message ? message : strerror(ENOMEM));
        objects->n_waiting--;
        objects_step(objects);
}

/* A few at a time; the choice comes with the last answer. */
static void objects_step(ObjectsCall *objects)
{
        while (objects->n_waiting < FINDS_MAX && objects->n_asked < objects->n_candidates) {
                Candidate *candidate = &objects->candidates[objects->n_asked++];
                _cleanup_(json_decref_p) json_t *message = message_new(candidate, "find", NULL);
                int r = message ? slot_operate(candidate_get_slot(candidate), message, -1,
                                          find_answered, candidate)
                                : -ENOMEM;

                if (r < 0)
                        candidate_unreachable(candidate, send_problem(r));
                else
                        objects->n_waiting++;
        }
        if (objects->n_waiting == 0)
                objects_choose(objects);
}

static void objects_start(
        ControlCall *call, json_t *parameters, Supervisor *supervisor, const ObjectsWork *work)
{
        ObjectsCall *objects = objects_new(call, parameters, supervisor);

        if (!objects || !objects_search(objects))
                return;
        objects->work = work;
        if (objects->n_candidates == 1)
                object_operate(objects, &objects->candidates[0]);
        else
                objects_step(objects);
}

/* ---- the methods ---- */

/* What every answer says of the object. */
static json_t *reply_new(const Candidate *object)
{
        char id[IDENT_TEXT_SIZE];

        ident_format(&object->id, id);
        return json_pack("{s:s, s:s, s:s}", "app", object->app->config->name, "class",
                object->class_name, "id", id);
}

/* Answers with one more key, which is the worker's under another name perhaps. */
static void reply_with(
        ObjectsCall *objects, const Candidate *object, const char *key, json_t *value, int fd)
{
        _cleanup_(json_decref_p) json_t *reply = reply_new(object);

        if (!reply || json_object_set(reply, key, value) < 0 ||
                (fd >= 0 && json_object_set_new(reply, "fd", json_integer(0)) < 0)) {
                close_p(&fd);
                objects_fail(objects, "Failed", "message", strerror(ENOMEM));
                return;
        }
        objects_reply(objects, reply, fd);
}

static void bookmark_done(ObjectsCall *objects, const Candidate *object, json_t *answer, int fd)
{
        close_p(&fd);
        reply_with(objects, object, "bookmark", json_object_get(answer, "bookmark"), -1);
}

static void objects_bookmark(ControlCall *call, json_t *parameters, void *data)
{
        static const ObjectsWork work = { "bookmark", NULL, bookmark_done };
        const json_t *time_ns = json_object_get(parameters, "time_ns");

        if (!parameters_check(call, parameters, " time_ns"))
                return;
        if (json_integer_value(time_ns) < 0)
                control_reply_invalid(call, "time_ns");
        else
                objects_start(call, parameters, data, &work);
}

static void export_done(ObjectsCall *objects, const Candidate *object, json_t *answer, int fd)
{
        if (fd < 0)
                objects_fail(objects, "Failed", "message", "the worker gave no file");
        else
                reply_with(objects, object, "size", json_object_get(answer, "size"), fd);
}

static void objects_export(ControlCall *call, json_t *parameters, void *data)
{
        static const ObjectsWork work = { "export", NULL, export_done };

        if (parameters_check(call, parameters, " bookmark"))
                objects_start(call, parameters, data, &work);
}

static void restore_done(ObjectsCall *objects, const Candidate *object, json_t *answer, int fd)
{
        close_p(&fd);
        reply_with(objects, object, "undo", json_object_get(answer, "bookmark"), -1);
}

static void objects_restore(ControlCall *call, json_t *parameters, void *data)
{
        static const ObjectsWork work = { "restore", NULL, restore_done };

        if (!parameters_check(call, parameters, " bookmark"))
                return;
        if (!json_is_string(json_object_get(parameters, "bookmark")))
                control_reply_invalid(call, "bookmark");
        else
                objects_start(call, parameters, data, &work);
}

/* The copy has been made; it goes into the other object, which may be another worker's. */
static void snapshot_imported(json_t *answer, int fd, void *data)
{
        const Candidate *to = data;
        ObjectsCall *objects = to->owner;
        bool created = json_is_true(json_object_get(answer, "created"));
        _cleanup_(json_decref_p) json_t *null = json_null();

        close_p(&fd);
        if (!answer || json_object_get(answer, "error"))
                object_failed(objects, to, answer);
        else
                reply_with(objects, to, "undo",
                        created ? null : json_object_get(answer, "bookmark"), -1);
}

static int snapshot_find_target(ObjectsCall *objects, const Candidate *from)
{
        Candidate *to = calloc(1, sizeof(*to));

        objects->to = to;
        if (!to)
                return -ENOMEM;
        to->owner = objects;
        to->app = from->app;
        to->class_name = strdup(from->class_name);
        to->unique_key = strdup(from->unique_key);
        if (!to->class_name || !to->unique_key)
                return -ENOMEM;
        return class_find_id(
                to->unique_key, objects_get(objects, "to"), objects_get(objects, "to_id"), &to->id);
}

static int snapshot_send(ObjectsCall *objects, int fd)
{
        _cleanup_(json_decref_p) json_t *message =
                message_new(objects->to, "import", objects_get(objects, "to"));
        bool overwrite = json_is_true(json_object_get(objects->parameters, "overwrite"));

        if (!message || json_object_set_new(message, "overwrite", json_boolean(overwrite)) < 0)
                return -ENOMEM;
        return slot_operate(
                candidate_get_slot(objects->to), message, fd, snapshot_imported, objects->to);
}

static void snapshot_exported(ObjectsCall *objects, const Candidate *object, json_t *answer, int fd)
{
        int r = fd < 0 ? -EBADF : objects->gone ? -EPIPE : snapshot_send(objects, fd);

        if (r < 0)
                objects_fail(objects, "Unavailable", "message", send_problem(r));
        close_p(&fd);
}

/* Before the copy is made. False: the call has been answered. */
static bool snapshot_prepare(ObjectsCall *objects, const Candidate *from)
{
        int r = snapshot_find_target(objects, from);

        if (r == 0 && !ident_equal(&objects->to->id, &from->id))
                return true;
        if (r != 0)
                objects_fail(objects, r < 0 ? "Failed" : "InvalidId", "message",
                        r < 0 ? strerror(-r) : id_problem(r));
        else
                objects_fail(objects, "Failed", "message",
                        "the destination is the object itself: that is a restore");
        return false;
}

static void objects_snapshot(ControlCall *call, json_t *parameters, void *data)
{
        static const ObjectsWork work = { "export", snapshot_prepare, snapshot_exported };
        bool has_name = json_is_string(json_object_get(parameters, "to"));
        bool has_id = json_is_string(json_object_get(parameters, "to_id"));

        if (!parameters_check(call, parameters, " bookmark to to_id overwrite"))
                return;
        if (has_name == has_id)
                control_reply_invalid(call, has_name ? "to_id" : "to");
        else
                objects_start(call, parameters, data, &work);
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
        _cleanup_(json_decref_p) json_t *answer = NULL;
        ObjectsCall *objects;

        if (!parameters_check(call, parameters, ""))
                return;
        for (int i = 0; i < 2; i++) {
                const char *key = i ? "class" : "app";

                if (!json_is_string(json_object_get(parameters, key))) {
                        control_reply_invalid(call, key);
                        return;
                }
        }
        objects = objects_new(call, parameters, data);
        if (!objects || !objects_search(objects))
                return;
        answer = address_new(data, objects->candidates[0].app, &objects->candidates[0].id);
        objects_reply(objects, answer, -1);
}

static const ControlMethod methods[] = {
        { "Address", objects_address },
        { "Bookmark", objects_bookmark },
        { "Export", objects_export },
        { "Restore", objects_restore },
        { "Snapshot", objects_snapshot },
};

const ControlInterface objects_interface = { "io.durabled.Objects", interface_io_durabled_Objects,
        methods, ELEMENTSOF(methods) };
