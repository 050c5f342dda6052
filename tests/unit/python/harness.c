/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/python/harness.h"

#include "lib/base/file.h"

#include <errno.h>

#define PATIENCE_NS (20 * NSEC_PER_SEC)

static const RuntimeClass classes[] = {
        { "Room", "test-Room" },
        { "Store", "test-Store" },
};

static const RuntimeBinding bindings[] = {
        { "ROOM", 0 },
        { "STORE", 1 },
};

static void event_on_change(Response *response, void *data)
{
        TestEvent *event = data;
        Chunk *chunk;

        if (event->hold)
                return;
        while ((chunk = response_pop(response))) {
                assert_int_equal(buf_append(&event->body, chunk->data, chunk->len), 0);
                chunk_free(chunk);
        }
}

static const ResponseConsumer event_consumer = { .on_change = event_on_change };

static void event_suspended(RuntimeEvent *runtime_event)
{
        TestEvent *event = CONTAINER_OF(runtime_event, TestEvent, runtime);

        event->n_suspended++;
}

static void event_ready(RuntimeEvent *runtime_event)
{
        TestEvent *event = CONTAINER_OF(runtime_event, TestEvent, runtime);
        Runtime *runtime = event->host->runtime;

        event->n_ready++;
        if (!event->manual)
                runtime->vtable->resume(runtime, runtime_event);
}

static void event_done(RuntimeEvent *runtime_event)
{
        TestEvent *event = CONTAINER_OF(runtime_event, TestEvent, runtime);

        assert_int_equal(event->n_done, 0);
        event->n_done++;
        assert_true(response_get_state(event->runtime.response) >= RESPONSE_ENDED ||
                    response_is_forwarded(event->runtime.response));
}

static TestEvent *event_new(Host *host, TestObject *object, Request *request)
{
        TestEvent *event = calloc(1, sizeof *event);
        Response *response = NULL;

        assert_non_null(event);
        assert_int_equal(response_new(&response), 0);
        event->host = host;
        event->runtime = (RuntimeEvent){
                .kind = object ? RUNTIME_OBJECT_FETCH : RUNTIME_ENTRY_FETCH,
                .object = object ? &object->runtime : NULL,
                .request = request,
                .response = response,
                .suspended = event_suspended,
                .ready = event_ready,
                .done = event_done,
        };
        list_init(&event->link);
        list_append(&host->events, &event->link);
        return event;
}

static int host_stub_fetch(void *data, RuntimeEvent *caller, unsigned class_index,
        const ObjectId *id, Slice name, Request *request, Response **ret)
{
        Host *host = data;
        TestEvent *event;
        char text[64];

        host->seen_blocking = MAX(host->seen_blocking, caller->blocking);
        snprintf(host->chain, sizeof host->chain, "%.*s", SLICE_FMT(request->chain));
        if (host->call_error)
                return host->call_error;
        snprintf(text, sizeof text, "%.*s", SLICE_FMT(name));
        event = event_new(host, host_get_object(host, class_index, text), request_ref(request));
        event->is_call = true;
        assert_true(ident_equal(id, &event->runtime.object->id));
        if (!host->hold_calls)
                host->runtime->vtable->deliver(host->runtime, &event->runtime);
        *ret = response_ref(event->runtime.response);
        return 0;
}

static const RuntimeHost runtime_host = { .stub_fetch = host_stub_fetch };

void host_release(Host *host)
{
        host->hold_calls = false;
        list_for_each(link, &host->events) {
                TestEvent *event = list_entry(link, TestEvent, link);

                if (event->is_call && !event->runtime.guest && !event->n_done)
                        host->runtime->vtable->deliver(host->runtime, &event->runtime);
        }
}

static void host_loaded(Runtime *runtime, const char *error, void *data)
{
        Host *host = data;

        assert_false(host->loaded);
        host->loaded = true;
        host->error = error ? strdup(error) : NULL;
}

static void host_stopped(Runtime *runtime, void *data)
{
        Host *host = data;

        assert_false(host->stopped);
        host->stopped = true;
}

void host_run_until_set(Host *host, const bool *condition)
{
        uint64_t end = clock_monotonic_ns() + PATIENCE_NS;

        while (!*condition) {
                assert_true(clock_monotonic_ns() < end);
                assert_int_equal(ring_run_once(host->ring, 100 * NSEC_PER_MSEC), 0);
        }
}

void host_run_for(Host *host, uint64_t ns)
{
        uint64_t end = clock_monotonic_ns() + ns;

        while (clock_monotonic_ns() < end)
                assert_int_equal(ring_run_once(host->ring, 1 * NSEC_PER_MSEC), 0);
}

void host_run_until_done(Host *host, TestEvent *event)
{
        uint64_t end = clock_monotonic_ns() + PATIENCE_NS;

        while (!event->n_done) {
                assert_true(clock_monotonic_ns() < end);
                assert_int_equal(ring_run_once(host->ring, 100 * NSEC_PER_MSEC), 0);
        }
}

void host_run_until_answered(Host *host, TestEvent *event)
{
        uint64_t end = clock_monotonic_ns() + PATIENCE_NS;

        while (response_get_state(event->runtime.response) != RESPONSE_ABORTED &&
                !response_is_drained(event->runtime.response)) {
                assert_true(clock_monotonic_ns() < end);
                assert_int_equal(ring_run_once(host->ring, 100 * NSEC_PER_MSEC), 0);
        }
}

void host_begin_start(Host *host, const char *app_name, const RuntimeLimits *limits)
{
        static char *flags[] = { (char *)"python_workers" };

        *host = (Host){ .n_objects = 0 };
        list_init(&host->events);
        host->manifest = (Manifest){
                .main = (char *)"src/index.py",
                .compatibility_flags = flags,
                .n_compatibility_flags = 1,
                .migrate_on_first_event = true,
        };
        assert_int_equal(ring_new(&(RingOptions){ .entries = 64 }, &host->ring), 0);
        host->config = (RuntimeConfig){
                .ring = host->ring,
                .manifest = &host->manifest,
                .app_name = app_name,
                .app_directory = "/nowhere",
                .python_path = "/a::/b",
                .host_modules = TEST_MODULES,
                .env_json = "{\"GREETING\": \"hi\", \"LIMIT\": 3}",
                .classes = classes,
                .n_classes = ELEMENTSOF(classes),
                .bindings = bindings,
                .n_bindings = ELEMENTSOF(bindings),
                .limits = limits ? *limits : (RuntimeLimits){ 0 },
                .host = &runtime_host,
                .host_data = host,
        };
        assert_int_equal(runtime_python.load(&host->config, host_loaded, host, &host->runtime), 0);
}

void host_start(Host *host, const char *app_name, const RuntimeLimits *limits)
{
        host_begin_start(host, app_name, limits);
        host_run_until_set(host, &host->loaded);
}

void host_begin_stop(Host *host)
{
        host->stopping = true;
        host->runtime->vtable->stop(host->runtime, host_stopped, host);
}

static void host_evicted(RuntimeObject *runtime_object, void *data)
{
        TestObject *object = CONTAINER_OF(runtime_object, TestObject, runtime);

        object->evicted = true;
}

void host_evict(Host *host, TestObject *object)
{
        object->evicted = false;
        host->runtime->vtable->evict(host->runtime, &object->runtime, host_evicted, host);
        assert_false(object->evicted);
        host_run_until_set(host, &object->evicted);
}

TestEvent *host_get_call(Host *host)
{
        TestEvent *last = NULL;

        list_for_each(link, &host->events) {
                TestEvent *event = list_entry(link, TestEvent, link);

                if (event->is_call)
                        last = event;
        }
        assert_non_null(last);
        return last;
}

size_t host_count_lines(TestEvent *event)
{
        size_t n = 0;

        for (const char *text = event_get_text(event); *text; text++)
                n += *text == '\n';
        return n + 1;
}

static void event_free(TestEvent *event)
{
        list_unlink(&event->link);
        response_set_consumer(event->runtime.response, NULL, NULL);
        response_cancel(event->runtime.response);
        response_unref(event->runtime.response);
        request_unref(event->runtime.request);
        buf_done(&event->body);
        free(event);
}

void host_stop(Host *host)
{
        List *link;

        if (!host->stopping)
                host_begin_stop(host);
        host_run_until_set(host, &host->stopped);
        host->runtime->vtable->unload(host->runtime);
        while ((link = list_first(&host->events))) {
                TestEvent *event = list_entry(link, TestEvent, link);

                assert_true(event->n_done == 1 || (event->is_call && host->hold_calls));
                event_free(event);
        }
        for (unsigned i = 0; i < host->n_objects; i++) {
                assert_null(host->objects[i].runtime.guest);
                free((char *)(uintptr_t)host->objects[i].runtime.name.data);
        }
        ring_free(host->ring);
        free(host->error);
}

TestObject *host_get_object(Host *host, unsigned class_index, const char *name)
{
        TestObject *object;

        for (unsigned i = 0; i < host->n_objects; i++)
                if (host->objects[i].runtime.class_index == class_index &&
                        slice_equal(host->objects[i].runtime.name, slice_from(name)))
                        return &host->objects[i];
        assert_true(host->n_objects < ELEMENTSOF(host->objects));
        object = &host->objects[host->n_objects++];
        *object = (TestObject){ .runtime.class_index = class_index };
        object->runtime.name = slice_from(strdup(name));
        assert_int_equal(ident_from_name(slice_from(classes[class_index].unique_key),
                                 object->runtime.name, &object->runtime.id),
                0);
        ident_format(&object->runtime.id, object->runtime.id_text);
        snprintf(object->path, sizeof object->path, "/nowhere/%s.sqlite", name);
        object->runtime.path = object->path;
        return object;
}

TestEvent *host_deliver_with(
        Host *host, TestObject *object, const char *method, const char *path, const char *body)
{
        static const HttpHeader headers[] = {
                { { "Host", 4 }, { "test", 4 } },
                { { "X-Caf\xe9", 6 }, { "\xe9", 1 } },
        };
        Slice target = slice_from(path), query = target, before = slice_cut(&query, '?');
        RequestParts parts = {
                .method = slice_from(method),
                .scheme = SLICE("http"),
                .authority = SLICE("test"),
                .target = target,
                .path = before,
                .query = query,
                .peer = SLICE("192.0.2.1"),
                .headers = headers,
                .n_headers = ELEMENTSOF(headers),
                .body = body ? strdup(body) : NULL,
                .body_len = body ? strlen(body) : 0,
                .body_fd = -1,
        };

        return host_deliver_parts(host, object, &parts);
}

TestEvent *host_deliver_parts(Host *host, TestObject *object, RequestParts *parts)
{
        Request *request = NULL;
        TestEvent *event;

        assert_int_equal(request_new(parts, &request), 0);
        event = event_new(host, object, request);
        response_set_consumer(event->runtime.response, &event_consumer, event);
        host->runtime->vtable->deliver(host->runtime, &event->runtime);
        return event;
}

TestEvent *host_deliver(Host *host, TestObject *object, const char *path)
{
        return host_deliver_with(host, object, "GET", path, NULL);
}

void host_read(TestEvent *event)
{
        event->hold = false;
        event_on_change(event->runtime.response, event);
}

unsigned event_get_status(TestEvent *event)
{
        Response *response = event->runtime.response;

        if (response_get_state(response) == RESPONSE_ABORTED)
                return response_get_abort(response, NULL, NULL);
        return response_get_head(response) ? response_get_head(response)->status : 0;
}

const char *event_get_text(TestEvent *event)
{
        Response *response = event->runtime.response;
        const char *message = "";

        if (response_get_state(response) == RESPONSE_ABORTED) {
                response_get_abort(response, NULL, &message);
                return message;
        }
        return buf_data(&event->body) ? buf_data(&event->body) : "";
}

void assert_answer_of(
        Host *host, TestObject *object, const char *path, unsigned status, const char *text)
{
        TestEvent *event = host_deliver(host, object, path);

        host_run_until_answered(host, event);
        assert_string_equal(event_get_text(event), text);
        assert_int_equal(event_get_status(event), status);
        host_run_until_done(host, event);
}

void assert_answer(Host *host, const char *path, unsigned status, const char *text)
{
        assert_answer_of(host, NULL, path, status, text);
}
