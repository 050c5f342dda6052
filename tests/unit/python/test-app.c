/* SPDX-License-Identifier: Apache-2.0 */

/* The real Python side, the real registry, a Django project: all of a worker but its edge. */

#include "daemon/object/object.h"
#include "lib/base/file.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define PATIENCE_NS (60 * NSEC_PER_SEC)
#define TENANTS 10u
#define ROUNDS 5u

typedef struct App {
        Ring *ring;
        Runtime *runtime;
        Registry *registry;
        Manifest manifest;
        RuntimeConfig config;
        char folder[64];
        bool loaded, drained, stopped;
        char *error;
        bool answered;
        unsigned n_answered;
} App;

static const RuntimeClass classes[] = { { "TenantDO", "tenants-TenantDO" } };
static const RuntimeBinding bindings[] = { { "TENANTS", 0 } };

static int app_stub_fetch(void *data, RuntimeEvent *event, unsigned class_index, const ObjectId *id,
        Slice name, Request *request, Response **ret)
{
        App *app = data;

        return registry_fetch(app->registry, class_index, id, name, request, ret);
}

static const RuntimeHost runtime_host = { .stub_fetch = app_stub_fetch };

static void app_loaded(Runtime *runtime, const char *error, void *data)
{
        App *app = data;

        app->loaded = true;
        app->error = error ? strdup(error) : NULL;
}

static void app_drained(void *data)
{
        ((App *)data)->drained = true;
}

static void app_stopped(Runtime *runtime, void *data)
{
        ((App *)data)->stopped = true;
}

static void app_run(App *app, const bool *condition)
{
        uint64_t end = clock_monotonic_ns() + PATIENCE_NS;

        while (!*condition) {
                assert_true(clock_monotonic_ns() < end);
                assert_int_equal(ring_run_once(app->ring, 100 * NSEC_PER_MSEC), 0);
        }
}

static int app_open(void **state)
{
        static App app;

        app = (App){
                .folder = "/tmp/durabled-test-XXXXXX",
                .manifest = { .main = (char *)"src/index.py", .migrate_on_first_event = true },
        };
        assert_non_null(mkdtemp(app.folder));
        assert_int_equal(ring_new(&(RingOptions){ .entries = 64 }, &app.ring), 0);
        app.config = (RuntimeConfig){
                .ring = app.ring,
                .manifest = &app.manifest,
                .app_name = "tenants",
                .app_directory = TEST_FIXTURE,
                .host_modules = HOST_MODULES,
                .env_json = "{}",
                .development = true,
                .classes = classes,
                .n_classes = ELEMENTSOF(classes),
                .bindings = bindings,
                .n_bindings = ELEMENTSOF(bindings),
                .host = &runtime_host,
                .host_data = &app,
        };
        assert_int_equal(runtime_python.load(&app.config, app_loaded, &app, &app.runtime), 0);
        app_run(&app, &app.loaded);
        if (app.error)
                fail_msg("%s", app.error);
        assert_int_equal(registry_new(
                                 &(RegistryOptions){
                                         .ring = app.ring,
                                         .runtime = app.runtime,
                                         .classes = classes,
                                         .n_classes = ELEMENTSOF(classes),
                                         .objects_directory = app.folder,
                                         .objects_max = TENANTS / 2,
                                 },
                                 &app.registry),
                0);
        *state = &app;
        return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        return remove(path);
}

static int app_close(void **state)
{
        App *app = *state;

        registry_stop(app->registry, app_drained, app);
        app_run(app, &app->drained);
        app->runtime->vtable->stop(app->runtime, app_stopped, app);
        app_run(app, &app->stopped);
        app->runtime->vtable->unload(app->runtime);
        registry_free(app->registry);
        ring_free(app->ring);
        free(app->error);
        nftw(app->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        return 0;
}

typedef struct Answer {
        App *app;
        Response *response;
        Buf body;
        bool answered;
        unsigned status;
} Answer;

static void answer_on_change(Response *response, void *data)
{
        Answer *answer = data;
        Chunk *chunk;

        while ((chunk = response_pop(response))) {
                assert_int_equal(buf_append(&answer->body, chunk->data, chunk->len), 0);
                chunk_free(chunk);
        }
        if (answer->answered)
                return;
        if (response_get_state(response) == RESPONSE_ABORTED)
                answer->status = response_get_abort(response, NULL, NULL);
        else if (response_is_drained(response))
                answer->status = response_get_head(response)->status;
        else
                return;
        answer->answered = true;
        answer->app->n_answered++;
}

static const ResponseConsumer answer_consumer = { .on_change = answer_on_change };

static void app_get(App *app, Answer *answer, const char *path)
{
        RequestParts parts = {
                .method = SLICE("GET"),
                .scheme = SLICE("http"),
                .authority = SLICE("test"),
                .target = slice_from(path),
                .path = slice_from(path),
                .peer = SLICE("192.0.2.1"),
                .body_fd = -1,
        };
        Request *request = NULL;

        *answer = (Answer){ .app = app };
        assert_int_equal(request_new(&parts, &request), 0);
        assert_int_equal(registry_fetch_entry(app->registry, request, &answer->response), 0);
        request_unref(request);
        response_set_consumer(answer->response, &answer_consumer, answer);
        answer_on_change(answer->response, answer);
}

static void answer_done(Answer *answer)
{
        response_unref(answer->response);
        buf_done(&answer->body);
}

static void every_tenant_counts_in_its_own_database(void **state)
{
        static Answer answers[TENANTS * ROUNDS];
        App *app = *state;
        uint64_t end = clock_monotonic_ns() + PATIENCE_NS;
        char path[64], expected[64];

        app->n_answered = 0;
        for (unsigned i = 0; i < ELEMENTSOF(answers); i++) {
                snprintf(path, sizeof path, "/t/tenant-%u/increment/", i % TENANTS);
                app_get(app, &answers[i], path);
        }
        while (app->n_answered < ELEMENTSOF(answers)) {
                assert_true(clock_monotonic_ns() < end);
                assert_int_equal(ring_run_once(app->ring, 100 * NSEC_PER_MSEC), 0);
        }
        for (unsigned i = 0; i < ELEMENTSOF(answers); i++) {
                if (answers[i].status != 200)
                        fail_msg("%u: %s", answers[i].status, buf_data(&answers[i].body));
                answer_done(&answers[i]);
        }
        snprintf(expected, sizeof expected, "\"value\": %u", ROUNDS);
        for (unsigned i = 0; i < TENANTS; i++) {
                snprintf(path, sizeof path, "/t/tenant-%u/rows/", i);
                app_get(app, &answers[0], path);
                app_run(app, &answers[0].answered);
                assert_int_equal(answers[0].status, 200);
                assert_non_null(strstr(buf_data(&answers[0].body), expected));
                answer_done(&answers[0]);
        }
}

static void what_no_tenant_serves_is_answered_by_the_entrypoint(void **state)
{
        App *app = *state;
        Answer answer;

        app_get(app, &answer, "/elsewhere");
        app_run(app, &answer.answered);
        assert_int_equal(answer.status, 404);
        answer_done(&answer);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_no_tenant_serves_is_answered_by_the_entrypoint),
                cmocka_unit_test(every_tenant_counts_in_its_own_database),
        };

        return cmocka_run_group_tests(tests, app_open, app_close);
}
