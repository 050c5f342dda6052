/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

/*
 * What retirement of segments adds to the time from commit to durable: rounds on a journal that is
 * large enough to retire nothing, and on one of small segments that retires all the time, in turn.
 * A commit every 500 us or so, as clients that are not many would make them, by the loop's thread.
 */

#define PAUSE_NS 500000u

typedef struct Wait {
        StoreWaiter waiter;
        uint64_t begun;
        Samples *samples;
        bool pending;
} Wait;

static void on_durable(StoreWaiter *waiter, int result)
{
        Wait *wait = CONTAINER_OF(waiter, Wait, waiter);

        check(result, "a commit");
        samples_add(wait->samples, now_ns() - wait->begun);
        wait->pending = false;
}

static void run_round(Engine *engine, Connection *objects, const Args *args, Samples *samples)
{
        uint64_t random = now_ns() | 1, end = now_ns() + (uint64_t)(args->seconds * 1e9);
        uint64_t next = now_ns();
        Wait *waits = calloc(args->in_flight, sizeof *waits);

        for (unsigned i = 0; i < args->in_flight; i++) {
                store_waiter_init(&waits[i].waiter, on_durable);
                waits[i].samples = samples;
        }
        for (unsigned i = 0; now_ns() < end; i = (i + 1) % args->in_flight) {
                Connection *object = &objects[random_next(&random) % args->objects];
                Wait *wait = &waits[i];

                while (wait->pending || now_ns() < next)
                        engine_turn(engine, wait->pending ? UINT64_MAX : 0);
                next += PAUSE_NS;
                wait->begun = now_ns();
                engine_wait_room(engine);
                connection_update(object);
                wait->pending = true;
                if (store_wait(engine->store, &wait->waiter,
                            store_object_lsn(engine->store, object->path)))
                        on_durable(&wait->waiter, 0);
                engine_turn(engine, 0);
        }
        engine_sync(engine);
        free(waits);
}

static void run_side(const Args *args, const char *side, const StoreOptions *options)
{
        Connection *objects = calloc(args->objects, sizeof *objects);
        StoreStats before, after;
        Samples samples = {};
        Engine engine;

        engine_open(&engine, args->folder, options, false);
        for (unsigned i = 0; i < args->objects; i++) {
                objects[i].path = object_path(engine.objects, i);
                engine_wait_room(&engine);
                connection_open(&objects[i], objects[i].path, NULL);
                make_table(objects[i].db);
                if (i % 64 == 63)
                        engine_turn(&engine, 0);
        }
        engine_sync(&engine);
        store_get_stats(engine.store, &before);
        run_round(&engine, objects, args, &samples);
        store_get_stats(engine.store, &after);
        printf("{\"side\": \"%s\", \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, "
               "\"commits\": %zu, \"retired\": %llu}\n",
                side, samples_get(&samples, 0.5), samples_get(&samples, 0.99),
                samples_get(&samples, 1), samples.n,
                (unsigned long long)(after.retired_segments - before.retired_segments));
        fflush(stdout);
        for (unsigned i = 0; i < args->objects; i++) {
                connection_close(&objects[i]);
                free(objects[i].path);
        }
        free(objects);
        samples_done(&samples);
        engine_drain(&engine);
        engine_close(&engine);
}

void case_retire(const Args *args)
{
        const StoreOptions large = {}, small = { .segment_size = 1 << 20, .n_segments = 8 };

        for (unsigned i = 0; i < args->pairs; i++) {
                run_side(args, "large", &large);
                run_side(args, "small", &small);
        }
}
