/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include "lib/base/file.h"

#include <string.h>
#include <syslog.h>

#define TURN_NS NSEC_PER_MSEC

static void on_flush(RingPost *post)
{
        Engine *engine = CONTAINER_OF(post, Engine, flush);

        atomic_store(&engine->posted, false);
        store_loop_flush(engine->store);
}

static void on_stop(RingPost *post)
{
        ring_stop(CONTAINER_OF(post, Engine, stop)->ring);
}

static void wake(void *data)
{
        Engine *engine = data;

        if (!engine->threaded && pthread_equal(engine->loop, pthread_self()))
                engine->due = true;
        else if (!atomic_exchange(&engine->posted, true))
                ring_post(engine->ring, &engine->flush);
}

static void failed(int error, const char *why, void *data)
{
        die("the store has failed: %s (%s)", why, strerror(-error));
}

static void log_line(int priority, const char *line, void *data)
{
        if (priority <= LOG_WARNING)
                fprintf(stderr, "store: %s\n", line);
}

static void start(Engine *engine)
{
        check(ring_new(&(RingOptions){}, &engine->ring), "the ring");
        check(disk_ring_new(engine->ring, &engine->disk), "the ring's disk");
        engine->options.disk = disk_ring_get_disk(engine->disk);
        check(store_open(&engine->options, &engine->store), "the store");
}

static void *run_loop(void *data)
{
        Engine *engine = data;

        start(engine);
        pthread_barrier_wait(&engine->ready);
        check(ring_run(engine->ring), "the loop");
        return NULL;
}

void engine_open(Engine *engine, const char *folder, const StoreOptions *options, bool threaded)
{
        *engine = (Engine){ .threaded = threaded, .loop = pthread_self() };
        if (asprintf(&engine->objects, "%s/objects", folder) < 0 ||
                asprintf(&engine->journal, "%s/journal", folder) < 0 ||
                asprintf(&engine->archive, "%s/archive", folder) < 0)
                die("out of memory");
        engine->options = *options;
        engine->options.objects = engine->objects;
        engine->options.journal = engine->journal;
        if (!getenv("BENCH_NO_ARCHIVE"))
                engine->options.archive = engine->archive;
        engine->options.wake = wake;
        engine->options.failed = failed;
        engine->options.log = log_line;
        engine->options.data = engine;
        engine->flush.fn = on_flush;
        engine->stop.fn = on_stop;
        if (threaded) {
                pthread_barrier_init(&engine->ready, NULL, 2);
                check(-pthread_create(&engine->loop, NULL, run_loop, engine), "a thread");
                pthread_barrier_wait(&engine->ready);
        } else {
                start(engine);
        }
        check(store_start_background(engine->store), "the background");
        make_folders(engine->objects);
}

void engine_close(Engine *engine)
{
        if (engine->threaded) {
                store_sync(engine->store, store_get_lsn(engine->store));
                ring_post(engine->ring, &engine->stop);
                pthread_join(engine->loop, NULL);
                pthread_barrier_destroy(&engine->ready);
                engine->threaded = false;
                engine->loop = pthread_self();
        }
        engine_sync(engine);
        store_stop_background(engine->store);
        engine_sync(engine);
        store_close(engine->store);
        disk_ring_free(engine->disk);
        ring_free(engine->ring);
        free(engine->objects);
        free(engine->journal);
        free(engine->archive);
}

void engine_turn(Engine *engine, uint64_t timeout_ns)
{
        if (engine->due) {
                engine->due = false;
                store_loop_flush(engine->store);
        }
        check(ring_run_once(engine->ring, timeout_ns), "the loop");
}

void engine_sync(Engine *engine)
{
        if (engine->threaded) {
                check(store_sync(engine->store, store_get_lsn(engine->store)), "a sync");
                return;
        }
        store_loop_flush(engine->store);
        while (!store_loop_is_idle(engine->store))
                engine_turn(engine, TURN_NS);
}

void engine_drain(Engine *engine)
{
        StoreStats stats;

        store_set_draining(engine->store, true);
        do {
                if (engine->threaded)
                        usleep(1000);
                else
                        engine_turn(engine, TURN_NS);
                store_get_stats(engine->store, &stats);
        } while (stats.dirty_objects || stats.segments_live > 1);
        store_set_draining(engine->store, false);
        engine_sync(engine);
}

uint64_t engine_wait_room(Engine *engine)
{
        uint64_t begun;

        if (store_has_room(engine->store))
                return 0;
        begun = now_ns();
        while (!store_has_room(engine->store)) {
                if (engine->threaded)
                        usleep(100);
                else
                        engine_turn(engine, TURN_NS);
        }
        return now_ns() - begun;
}
