/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include <malloc.h>

/*
 * Memory of open objects: N connections, each of which has read and written a row, right after that
 * and when the engine has nothing left to do.
 */

static void print_memory(const char *when, uint64_t before, unsigned n)
{
        uint64_t now = memory_resident();

        printf("{\"when\": \"%s\", \"objects\": %u, \"mib\": %.1f, \"kib_each\": %.1f}\n", when, n,
                (double)(now - before) / 1048576, (double)(now - before) / 1024 / n);
        fflush(stdout);
}

void case_memory(const Args *args)
{
        unsigned n = args->objects;
        Connection *objects = calloc(n, sizeof *objects);
        uint64_t before;
        Engine engine;

        engine_open(&engine, args->folder, &(StoreOptions){}, false);
        before = memory_resident();
        for (unsigned i = 0; i < n; i++) {
                engine_wait_room(&engine);
                objects[i].path = object_path(engine.objects, i);
                connection_open(&objects[i], objects[i].path, NULL);
                make_table(objects[i].db);
                connection_update(&objects[i]);
                if (i % 64 == 63)
                        engine_turn(&engine, 0);
        }
        engine_sync(&engine);
        print_memory("written", before, n);
        engine_drain(&engine);
        print_memory("idle", before, n);
        for (unsigned i = 0; i < n; i++) {
                connection_close(&objects[i]);
                free(objects[i].path);
        }
        engine_drain(&engine);
        malloc_trim(0);
        print_memory("closed", before, n);
        free(objects);
        engine_close(&engine);
}
