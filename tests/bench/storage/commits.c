/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/storage/bench.h"

#include <string.h>
#include <sys/resource.h>

/*
 * Durable commits: one-row updates of objects drawn at random, by one thread that is the loop too
 *
 * One process is one side; each line of its input ("ours", "full", "off") asks for a round, so that
 * the driver can alternate.
 *
 * Ours: at most in_flight commits wait for the disk, as many requests would; the loop turns after
 * each burst of them. The peers: the same files by SQLite's unix VFS in WAL mode, with
 * synchronous=FULL, where a commit is a sync, and OFF, which is not durable. They need two or three
 * descriptors for each file: where those do not suffice, "unix-excl", which needs two, and the
 * connection used least recently makes room.
 */

#define SPARE_FDS 200u

typedef struct Flight Flight;

typedef struct Slot {
        StoreWaiter waiter;
        uint64_t begun;
        Flight *flight;
        struct Slot *next;
} Slot;

struct Flight {
        Slot *slots, *idle;
        unsigned n_idle;
        Samples samples;
};

typedef struct Peer {
        Connection *connections;
        unsigned *order; /* the open ones, by when they were opened */
        unsigned n_open, max_open, next;
        const char *vfs;
        const char *synchronous;
} Peer;

typedef struct Run {
        const Args *args;
        Engine engine;
        Connection *ours;
        Peer peer;
        uint64_t random;
} Run;

static void on_durable(StoreWaiter *waiter, int result)
{
        Slot *slot = CONTAINER_OF(waiter, Slot, waiter);
        Flight *flight = slot->flight;

        check(result, "a commit");
        samples_add(&flight->samples, now_ns() - slot->begun);
        slot->next = flight->idle;
        flight->idle = slot;
        flight->n_idle++;
}

static void flight_init(Flight *flight, unsigned n)
{
        *flight = (Flight){ .slots = calloc(n, sizeof(Slot)) };
        for (unsigned i = 0; i < n; i++) {
                Slot *slot = &flight->slots[i];

                store_waiter_init(&slot->waiter, on_durable);
                slot->flight = flight;
                slot->next = flight->idle;
                flight->idle = slot;
        }
        flight->n_idle = n;
}

static void commit_one(Run *run, Flight *flight)
{
        Connection *object = &run->ours[random_next(&run->random) % run->args->objects];
        Slot *slot = flight->idle;
        uint64_t lsn;

        flight->idle = slot->next;
        flight->n_idle--;
        connection_update(object);
        slot->begun = now_ns();
        lsn = store_object_lsn(run->engine.store, object->path);
        if (store_wait(run->engine.store, &slot->waiter, lsn))
                on_durable(&slot->waiter, 0);
}

static void print_ours(Run *run, const StoreStats *before, uint64_t ns, uint64_t cpu,
        uint64_t stalled, Samples *samples)
{
        StoreStats after;
        double n;

        store_get_stats(run->engine.store, &after);
        n = (double)(after.commits - before->commits);
        printf("{\"side\": \"ours\", \"objects\": %u, \"rate\": %.0f, \"cpu_us\": %.2f, "
               "\"record_bytes\": %.1f, \"disk_bytes\": %.1f, \"p50_us\": %.0f, \"p99_us\": %.0f, "
               "\"batch\": %.1f, \"stalled_ms\": %.1f}\n",
                run->args->objects, n * 1e9 / (double)ns, (double)cpu / 1e3 / n,
                (double)(after.record_bytes - before->record_bytes) / n,
                (double)(after.disk_bytes - before->disk_bytes) / n, samples_get(samples, 0.5),
                samples_get(samples, 0.99), n / (double)(after.batches - before->batches),
                (double)stalled / 1e6);
        fflush(stdout);
}

static void run_ours(Run *run, double seconds, bool print)
{
        uint64_t begun = now_ns(), end = begun + (uint64_t)(seconds * 1e9), cpu = cpu_ns();
        uint64_t stalled = 0;
        StoreStats before;
        Flight flight;

        store_get_stats(run->engine.store, &before);
        flight_init(&flight, run->args->in_flight);
        do {
                unsigned n = MIN(run->args->burst, flight.n_idle);

                stalled += engine_wait_room(&run->engine);
                for (unsigned i = 0; i < n; i++)
                        commit_one(run, &flight);
                engine_turn(&run->engine, flight.n_idle ? 0 : UINT64_MAX);
        } while (now_ns() < end);
        while (flight.n_idle < run->args->in_flight)
                engine_turn(&run->engine, UINT64_MAX);
        if (print)
                print_ours(
                        run, &before, now_ns() - begun, cpu_ns() - cpu, stalled, &flight.samples);
        samples_done(&flight.samples);
        free(flight.slots);
}

static void peer_close_oldest(Peer *peer)
{
        connection_close(&peer->connections[peer->order[peer->next]]);
        peer->n_open--;
}

static Connection *peer_get(Peer *peer, unsigned number)
{
        Connection *connection = &peer->connections[number];

        if (connection->db)
                return connection;
        if (peer->n_open == peer->max_open)
                peer_close_oldest(peer);
        connection_open(connection, connection->path, peer->vfs);
        sqlite3_exec(connection->db, peer->synchronous, NULL, NULL, NULL);
        peer->order[peer->next] = number;
        peer->next = (peer->next + 1) % peer->max_open;
        peer->n_open++;
        return connection;
}

static void run_peer(Run *run, const char *side, const char *synchronous, double seconds)
{
        uint64_t begun, now, end, cpu, n = 0;
        Samples samples = {};

        run->peer.synchronous = synchronous;
        for (unsigned i = 0; i < run->args->objects; i++)
                if (run->peer.connections[i].db)
                        run_sql(run->peer.connections[i].db, synchronous);
        begun = now = now_ns();
        end = begun + (uint64_t)(seconds * 1e9);
        cpu = cpu_ns();
        for (; now < end; n++) {
                uint64_t before = now;

                connection_update(
                        peer_get(&run->peer, random_next(&run->random) % run->args->objects));
                now = now_ns();
                samples_add(&samples, now - before);
        }
        printf("{\"side\": \"%s\", \"objects\": %u, \"rate\": %.0f, \"cpu_us\": %.2f, "
               "\"p50_us\": %.0f, \"p99_us\": %.0f}\n",
                side, run->args->objects, (double)n * 1e9 / (double)(now - begun),
                (double)(cpu_ns() - cpu) / 1e3 / (double)n, samples_get(&samples, 0.5),
                samples_get(&samples, 0.99));
        fflush(stdout);
        samples_done(&samples);
}

static void prepare_ours(Run *run)
{
        unsigned n = run->args->objects;

        engine_open(&run->engine, run->args->folder, &(StoreOptions){}, false);
        run->ours = calloc(n, sizeof *run->ours);
        for (unsigned i = 0; i < n; i++) {
                _cleanup_(free_p) char *path = object_path(run->engine.objects, i);

                engine_wait_room(&run->engine);
                connection_open(&run->ours[i], path, NULL);
                make_table(run->ours[i].db);
                if (i % 64 == 0)
                        engine_turn(&run->engine, 0);
        }
        engine_sync(&run->engine);
}

static void prepare_peer(Run *run)
{
        _cleanup_(free_p) char *folder = NULL;
        unsigned n = run->args->objects;
        struct rlimit limit;
        bool few;

        getrlimit(RLIMIT_NOFILE, &limit);
        if (asprintf(&folder, "%s/peer", run->args->folder) < 0)
                die("out of memory");
        make_folders(folder);
        few = limit.rlim_cur < 3 * n + SPARE_FDS;
        run->peer.vfs = few ? "unix-excl" : "unix";
        run->peer.max_open = MIN((unsigned)(limit.rlim_cur - SPARE_FDS) / (few ? 2 : 3), n);
        run->peer.connections = calloc(n, sizeof *run->peer.connections);
        run->peer.order = calloc(n, sizeof *run->peer.order);
        run->peer.synchronous = "PRAGMA synchronous = OFF";
        for (unsigned i = 0; i < n; i++) {
                run->peer.connections[i].path = object_path(folder, i);
                make_table(peer_get(&run->peer, i)->db);
        }
}

static void run_done(Run *run)
{
        Connection *connections = run->ours ?: run->peer.connections;

        for (unsigned i = 0; i < run->args->objects; i++) {
                if (connections[i].db)
                        connection_close(&connections[i]);
                free(connections[i].path);
        }
        free(connections);
        free(run->peer.order);
        if (run->ours)
                engine_close(&run->engine);
}

static void take_turn(Run *run, const char *turn)
{
        double seconds = run->args->seconds;

        if (strcmp(turn, "ours\n") == 0)
                run_ours(run, seconds, true);
        else if (strcmp(turn, "full\n") == 0)
                run_peer(run, "full", "PRAGMA synchronous = FULL", seconds);
        else
                run_peer(run, "off", "PRAGMA synchronous = OFF", seconds);
}

void case_commits(const Args *args)
{
        Run run = { .args = args, .random = UINT64_C(88172645463325252) };
        char turn[16];

        if (strcmp(args->kind, "peer") == 0) {
                prepare_peer(&run);
        } else {
                prepare_ours(&run);
                run_ours(&run, 0.5, false);
        }
        printf("{\"ready\": true}\n");
        fflush(stdout);
        while (fgets(turn, sizeof turn, stdin))
                take_turn(&run, turn);
        run_done(&run);
}
