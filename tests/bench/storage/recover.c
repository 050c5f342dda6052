/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

/*
 * Recovery of a full journal of 512 MiB
 *
 * --kind small: one-row updates, until the journal is full; wide: transactions of many pages, most
 * of them whole in the journal; small-late, wide-late: objects are redone behind, as in a worker. A
 * process fills and ends without closing; another opens, and has all redone. The journal may have
 * twice as many segments, since retirement begins when half are in use.
 */

#define SEGMENT (UINT64_C(64) << 20)
#define N_SEGMENTS 8u
#define WIDE_ROWS 200
#define TURN_COMMITS 64u
#define LATE_MAX 65536u

static const StoreOptions options = { .segment_size = SEGMENT, .n_segments = 2 * N_SEGMENTS };

static void prepare_wide(sqlite3 *db)
{
        run_sql(db, "CREATE TABLE wide(id INTEGER PRIMARY KEY, v BLOB)");
}

static void commit_wide(sqlite3 *db, uint64_t *random)
{
        char sql[160];

        snprintf(sql, sizeof sql,
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 4) "
                "REPLACE INTO wide SELECT (%llu + i) %% %d, randomblob(3500) FROM n",
                (unsigned long long)(random_next(random) % WIDE_ROWS), WIDE_ROWS);
        run_sql(db, sql);
}

static bool is_full(Engine *engine)
{
        StoreStats stats;

        store_get_stats(engine->store, &stats);
        return stats.segments_live > N_SEGMENTS;
}

_noreturn_ static void fill(const Args *args)
{
        bool wide = args->kind && strncmp(args->kind, "wide", 4) == 0;
        Connection *objects = calloc(args->objects, sizeof *objects);
        uint64_t random = UINT64_C(88172645463325252);
        Engine engine;

        engine_open(&engine, args->folder, &options, false);
        for (unsigned i = 0; i < args->objects; i++) {
                engine_wait_room(&engine);
                objects[i].path = object_path(engine.objects, i);
                connection_open(&objects[i], objects[i].path, NULL);
                make_table(objects[i].db);
                if (wide)
                        prepare_wide(objects[i].db);
                if (i % TURN_COMMITS == 0)
                        engine_turn(&engine, 0);
        }
        for (unsigned i = 1; i % TURN_COMMITS || !is_full(&engine); i++) {
                Connection *object = &objects[random_next(&random) % args->objects];

                engine_wait_room(&engine);
                if (wide)
                        commit_wide(object->db, &random);
                else
                        connection_update(object);
                if (i % TURN_COMMITS == 0)
                        engine_turn(&engine, 0);
        }
        engine_sync(&engine);
        _exit(0);
}

/* The background does it. */
static void wait_redone(Engine *engine, StoreStats *ret)
{
        const struct timespec pause = { .tv_nsec = 1000000 };

        for (;;) {
                store_get_stats(engine->store, ret);
                if (!ret->redo_left)
                        return;
                nanosleep(&pause, NULL);
        }
}

_noreturn_ static void recover(const Args *args)
{
        bool late = args->kind && strstr(args->kind, "-late");
        uint64_t begun = now_ns(), cpu = cpu_ns(), ns, served_ns;
        StoreOptions own = options;
        struct rusage usage;
        StoreStats stats;
        Engine engine;

        own.late_max = late ? LATE_MAX : 0;
        engine_open(&engine, args->folder, &own, false);
        served_ns = now_ns() - begun;
        wait_redone(&engine, &stats);
        ns = now_ns() - begun;
        cpu = cpu_ns() - cpu;
        getrusage(RUSAGE_SELF, &usage);
        printf("{\"kind\": \"%s\", \"objects\": %u, \"seconds\": %.2f, "
               "\"served_seconds\": %.2f, \"cpu_seconds\": %.2f, "
               "\"max_mib\": %.0f, \"commits\": %llu, \"pages\": %llu, \"journal_mib\": %.0f}\n",
                args->kind ?: "small", args->objects, (double)ns / 1e9, (double)served_ns / 1e9,
                (double)cpu / 1e9, (double)usage.ru_maxrss / 1024,
                (unsigned long long)stats.redone_commits, (unsigned long long)stats.redone_pages,
                (double)stats.redo_bytes / (late ? 1 : 2) / 1048576);
        fflush(stdout);
        _exit(0);
}

static void run_in_child(const Args *args, void (*fn)(const Args *args))
{
        pid_t pid = fork();
        int status;

        if (pid == 0)
                fn(args);
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
                die("a child failed");
}

void case_recover(const Args *args)
{
        run_in_child(args, fill);
        run_in_child(args, recover);
}
