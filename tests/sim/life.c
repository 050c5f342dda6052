/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/temp-files.h"
#include "tests/sim/turns.h"
#include "tests/sim/world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define JOURNAL "/state/journal"
#define OBJECTS "/state/objects"
#define ARCHIVE "/state/archive/app/00"
#define DAY_NS (UINT64_C(86400) * 1000000000u)
#define LOOP_PASS_NS 50000u
#define OPEN_ATTEMPTS 50

void world_fail(World *world, const char *format, ...)
{
        va_list args;

        if (!world->failed) {
                world->failed = true;
                world->failed_life = world->life;
                world->failed_step = world->stats.steps;
                va_start(args, format);
                vsnprintf(world->message, sizeof world->message, format, args);
                va_end(args);
                world_log(world, "FAILED: %s", world->message);
        }
        sim_disk_cut(world->disk);
}

void world_log(const World *world, const char *format, ...)
{
        va_list args;

        if (!world->verbose)
                return;
        printf("# %llu.%llu.%llu ", (unsigned long long)world->seed,
                (unsigned long long)world->life, (unsigned long long)world->stats.steps);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
        fflush(stdout);
}

bool world_excuses(const World *world)
{
        return world->faulty || sim_disk_is_dead(world->disk) ||
               (world->store && store_get_failure(world->store));
}

bool world_is_over(const World *world)
{
        return world->failed || world->steps_left == 0 || sim_disk_is_dead(world->disk) ||
               store_get_failure(world->store);
}

/* The actors. */

typedef struct Runner {
        World *world;
        unsigned number;
} Runner;

static void run_objects(void *data)
{
        const Runner *runner = data;
        World *world = runner->world;

        /* Objects are dealt out to the runners. */
        unsigned n = (world->n_objects - runner->number + world->n_runners - 1) / world->n_runners;

        while (!world_is_over(world)) {
                unsigned i = (unsigned)rng_below(&world->rng, n) * world->n_runners;

                world->steps_left--;
                world->stats.steps++;
                if (world->fills_up && rng_chance(&world->rng, 20))
                        sim_disk_set_full(world->disk, rng_chance(&world->rng, 400));
                object_step(&world->objects[runner->number + i]);
                if (rng_chance(&world->rng, 500))
                        turns_wait();
        }
        world->runners_left--;
}

/* What the store says is flushed: invariant 1, and nothing comes from a dead disk. */
static void on_answer(StoreWaiter *waiter, int result)
{
        Answer *answer = CONTAINER_OF(waiter, Answer, waiter);
        Object *object = answer->object;
        World *world = object->world;

        list_unlink(&answer->link);
        if (result == 0) {
                if (store_flushed(world->store) < waiter->lsn)
                        world_fail(world, "object %u: an answer left before LSN %llu was flushed",
                                object->number, (unsigned long long)waiter->lsn);
                if (answer->entry > object->shown && !sim_disk_is_dead(world->disk)) {
                        object->shown = answer->entry;
                        object->entries[answer->entry].shown_at =
                                disk_clock_realtime(sim_disk_get(world->disk));
                }
                world->stats.answers++;
        } else if (!world_excuses(world))
                world_fail(world, "object %u: an answer was held back: %d", object->number, result);
        free(answer);
}

static void take_answers(World *world)
{
        List *link;

        while ((link = list_pop(&world->answers))) {
                Answer *answer = list_entry(link, Answer, link);
                uint64_t lsn = answer->waiter.lsn;

                store_waiter_init(&answer->waiter, on_answer);
                list_append(&world->waiting, &answer->link);
                if (store_wait(world->store, &answer->waiter, lsn)) {
                        answer->waiter.lsn = lsn;
                        on_answer(&answer->waiter, 0);
                }
        }
}

static bool loop_wants(void *data)
{
        World *world = data;

        return world->woken || sim_disk_count_in_flight(world->disk) > 0 ||
               !list_is_empty(&world->answers);
}

static bool background_wants(void *data)
{
        return ((World *)data)->has_work;
}

static void run_loop(void *data)
{
        World *world = data;

        while (world->runners_left > 0) {
                take_answers(world);
                if (world->woken || rng_chance(&world->rng, 200)) {
                        world->woken = false;
                        store_loop_flush(world->store);
                }
                disk_poll(sim_disk_get(world->disk));
                sim_disk_pass(world->disk, rng_below(&world->rng, LOOP_PASS_NS));
                if (world->prunes && rng_chance(&world->rng, 1))
                        sim_disk_pass(world->disk, rng_below(&world->rng, 2 * DAY_NS));
                turns_wait();
        }
}

static void run_background(void *data)
{
        World *world = data;

        while (world->runners_left > 0) {
                if (world->has_work || rng_chance(&world->rng, 100)) {
                        int r = store_background_step(world->store);

                        world->has_work = r > 0;
                        if (r < 0 && !world_excuses(world))
                                world_fail(world, "a background step: %d", r);
                }
                turns_wait();
        }
}

/* Opening and closing the store. */

static void on_wake(void *data)
{
        ((World *)data)->woken = true;
}

static void on_work(void *data)
{
        ((World *)data)->has_work = true;
}

static void on_failed(int error, const char *why, void *data)
{
        world_log(data, "the store failed: %d, %s", error, why);
}

static void on_log(int priority, const char *line, void *data)
{
        world_log(data, "log <%d> %s", priority, line);
}

static void set_faults(World *world, bool on)
{
        static const unsigned rates[] = { 20, 100, 400 };
        Rng rng = { world->seed };

        /* The kinds and rates are the seed's. */
        for (unsigned i = 0; i < _SIM_FAULT_MAX; i++) {
                unsigned rate = rng_chance(&rng, 350) ? rates[rng_below(&rng, 3)] : 0;

                sim_disk_set_fault(world->disk, i, on ? rate : 0);
        }
        sim_disk_set_full(world->disk, false);
        world->temporaries_fail = on && rng_chance(&rng, 300);
        temp_files_fail(&world->rng, world->temporaries_fail ? 30 : 0);
        world->fills_up = on && rng_chance(&rng, 300);
        world->faulty = on || world->hoards;
}

static bool is_faulty_seed(const World *world)
{
        return rng_mix(world->seed) % 5 < 2;
}

static void crash(World *world)
{
        /* After a kill what can be read need not be durable: then the power fails more often. */
        unsigned power = world->killed ? 850 : 600;
        SimCrash how = rng_chance(&world->rng, power) ? SIM_CRASH_POWER : SIM_CRASH_KILL;
        int r = sim_disk_crash(world->disk, how);

        world->killed = how == SIM_CRASH_KILL;
        world_log(world, "crash: %s", how == SIM_CRASH_POWER ? "power cut" : "kill");
        if (r)
                world_fail(world, "a file is still open after the end");
}

/* When the power fails: at any operation, or soon after something of interest. */

static void arm_soon_after(World *world)
{
        Rng *rng = &world->rng;

        sim_disk_arm_at(world->disk, (SimEvent)rng_below(rng, _SIM_EVENT_MAX),
                1 + (unsigned)rng_below(rng, 1u << rng_below(rng, 6)),
                1 + rng_below(rng, 1u << rng_below(rng, 6)));
}

static void disarm(World *world)
{
        sim_disk_arm(world->disk, 0);
        sim_disk_arm_at(world->disk, 0, 0, 0);
}

/* In a recovery. */
static void arm(World *world)
{
        Rng *rng = &world->rng;

        /* Files of the archive, and the epoch, get their names late. */
        if (rng_chance(rng, 200))
                sim_disk_arm_at(world->disk, SIM_EVENT_RENAME, 1 + (unsigned)rng_below(rng, 4),
                        1 + rng_below(rng, 2));
        else if (rng_chance(rng, 500))
                sim_disk_arm(world->disk, 1 + rng_below(rng, 1u << rng_below(rng, 10)));
        else
                arm_soon_after(world);
}

/* When objects are opened for the first time since: at the very first time folders are made. */
static void arm_verification(World *world)
{
        Rng *rng = &world->rng;

        if (world->life == 0 && rng_chance(rng, 600))
                sim_disk_arm_at(world->disk, SIM_EVENT_MKDIR, 1 + (unsigned)rng_below(rng, 4),
                        1 + rng_below(rng, 2));
        else if (rng_chance(rng, 100))
                sim_disk_arm(world->disk, 1 + rng_below(rng, 1u << rng_below(rng, 8)));
        else if (rng_chance(rng, 50))
                arm_soon_after(world);
}

/* In a life, or not at all before its end. */
static void arm_life(World *world)
{
        Rng *rng = &world->rng;
        unsigned how = (unsigned)rng_below(rng, world->hoards ? 20 : 10);

        if (how < 4)
                sim_disk_arm(world->disk, 1 + rng_below(rng, 16u << rng_below(rng, 9)));
        else if (how < 8)
                arm_soon_after(world);
}

static void open_store(World *world)
{
        StoreOptions options = {
                .disk = sim_disk_get(world->disk),
                .journal = JOURNAL,
                .objects = OBJECTS,
                .archive_days = 1,
                .archive_max = world->archive_max,
                .segment_size = world->segment_size,
                .n_segments = world->n_segments,
                .queue_max = world->queue_max,
                .wal_heap_max = world->wal_heap_max,
                .spill_size = world->spill_size,
                .checkpoint_at = world->checkpoint_at,
                .late_max = world->late_max,
                .wake = on_wake,
                .work = on_work,
                .failed = on_failed,
                .log = on_log,
                .data = world,
        };
        bool faults = is_faulty_seed(world);

        /* Where gaps are excused, an archive may come and go. */
        if (world->forgets && rng_chance(&world->rng, 100))
                world->archives = !world->archives;
        options.archive = world->archives ? ARCHIVE : NULL;
        for (unsigned i = 0; i < OPEN_ATTEMPTS && !world->failed; i++) {
                bool fails = faults && rng_chance(&world->rng, 300);
                int r;

                set_faults(world, fails);
                /* A disk that fails in a recovery leaves a gap; in a life it is tried again. */
                world->forgets |= fails;
                if (rng_chance(&world->rng, world->killed ? 700 : 400))
                        arm(world);
                r = store_open(&options, &world->store);
                disarm(world);
                world_log(world, "open: %d", r);
                if (r == 0 && !sim_disk_is_dead(world->disk)) {
                        StoreStats stats;

                        store_get_stats(world->store, &stats);
                        set_faults(world, false);
                        world->stats.recoveries++;
                        world->stats.late += stats.redo_left > 0;
                        return;
                }
                if (r == 0)
                        world->store = store_close(world->store);
                else if (!sim_disk_is_dead(world->disk) && !world->faulty)
                        world_fail(world, "the store does not open: %d", r);
                world->stats.recoveries_cut++;
                crash(world);
        }
        if (!world->failed)
                world_fail(world, "the store never opened");
}

static void sum_up(World *world)
{
        WorldStats *to = &world->stats;
        StoreStats now = { 0 };

        store_get_stats(world->store, &now);
        to->batches += now.batches;
        to->journal_bytes += now.disk_bytes;
        to->cancels += now.cancels;
        to->copies += now.copies;
        to->spills += now.spills;
        to->archived += now.archived_segments;
        to->pruned += now.archive_pruned;
        to->checkpoints += now.checkpoints;
        to->retired += now.retired_segments;
        to->redone += now.redone_commits;
        to->left += now.redo_left;
        /* The disk did not give a segment back, for long. */
        world->forgets |= now.archive_gaps > 0;
}

static void drain(World *world)
{
        int r = 0;

        store_set_draining(world->store, true);
        for (unsigned i = 0; i < 100000 && r >= 0; i++) {
                r = store_loop_run(world->store);
                sim_disk_pass(world->disk, LOOP_PASS_NS);
                if (r >= 0)
                        r = store_background_step(world->store);
                if (r == 0 && store_loop_is_idle(world->store))
                        break;
        }
        if (r && !world_excuses(world))
                world_fail(world, "draining: %d", r);
        if (r || world_excuses(world))
                return;
        world->stats.drains++;
        for (unsigned i = 0; i < world->n_objects; i++)
                if (!world->objects[i].broken && !world->objects[i].unseen)
                        object_verify_file(&world->objects[i]);
}

static void end_life(World *world)
{
        List *link;

        for (unsigned i = 0; i < world->n_objects; i++)
                object_close(&world->objects[i]);
        if (!world_excuses(world) && rng_chance(&world->rng, 200))
                drain(world);
        sim_disk_cut(world->disk);
        take_answers(world);
        while ((link = list_pop(&world->waiting))) {
                Answer *answer = list_entry(link, Answer, link);

                store_wait_cancel(world->store, &answer->waiter);
                free(answer);
        }
        sum_up(world);
        world->store = store_close(world->store);
        crash(world);
}

/* Below n, and rather a small number: most defects need few steps and lives, some need many. */
static unsigned small_below(Rng *rng, unsigned n, unsigned draws)
{
        unsigned least = n;

        while (draws-- > 0)
                least = MIN(least, (unsigned)rng_below(rng, n));
        return least;
}

static void live(World *world)
{
        Runner runners[WORLD_RUNNERS];
        TurnsActor actors[WORLD_RUNNERS + 2];
        size_t n = 0;

        world->life++;
        world->stats.lives++;
        world->woken = world->has_work = true;
        world->steps_left = 5 + rng_below(&world->rng, 64u << small_below(&world->rng, 5, 3));
        if (world->hoards)
                world->steps_left += 300;
        world->runners_left = world->n_runners;
        set_faults(world, is_faulty_seed(world));
        arm_life(world);
        for (unsigned i = 0; i < world->n_runners; i++) {
                runners[i] = (Runner){ world, i };
                actors[n++] = (TurnsActor){ run_objects, &runners[i], NULL };
        }
        actors[n++] = (TurnsActor){ run_loop, world, loop_wants };
        actors[n++] = (TurnsActor){ run_background, world, background_wants };
        turns_run(&world->turns, actors, n,
                (unsigned)rng_below(&world->rng, 2u << rng_below(&world->rng, 8)));
        end_life(world);
}

static void make_folders(World *world)
{
        static const char *const folders[] = { "/state", OBJECTS };
        Disk *disk = sim_disk_get(world->disk);
        int r = 0;

        for (size_t i = 0; r == 0 && i < ELEMENTSOF(folders); i++)
                r = disk_mkdir(disk, folders[i]);
        if (r == 0)
                r = disk_sync_all(disk, "/");
        if (r)
                world_fail(world, "folders: %d", r);
}

static void set_up(World *world)
{
        Rng *rng = &world->rng;
        int r;

        *rng = (Rng){ world->seed };
        world->turns = rng_fork(rng);
        list_init(&world->answers);
        list_init(&world->waiting);
        r = sim_disk_new(rng_next(rng), &world->disk);
        dd_assert(r == 0);
        sim_disk_set_trace(world->disk, world->trace);
        sim_disk_set_yield(world->disk, (void (*)(void *))turns_yield, NULL);
        world->hoards = rng_chance(rng, 40);
        world->n_objects = (unsigned)rng_between(rng, 1, world->hoards ? 2 : WORLD_OBJECTS);
        world->n_runners = (unsigned)rng_between(rng, 1, MIN(WORLD_RUNNERS, world->n_objects));
        world->segment_size = 256u * 1024u << rng_below(rng, 2);
        world->n_segments = (unsigned)rng_between(rng, 3, 6);
        world->queue_max = 1024u * 1024u << rng_below(rng, 3);
        world->wal_heap_max = 8192u << rng_below(rng, 6);
        world->spill_size = 32768u << rng_below(rng, 4);
        world->checkpoint_at = 4u << rng_below(rng, 6);
        world->late_max = rng_mix(world->seed + 1) % 4 ? WORLD_OBJECTS : 0;
        world->archives = rng_chance(rng, 700);
        world->prunes = world->archives && rng_chance(rng, 250);
        world->archive_max = world->prunes ? 65536u << rng_below(rng, 5) : UINT64_C(1) << 40;
        world->forgets = !world->archives || world->prunes;
        for (unsigned i = 0; i < world->n_objects; i++)
                object_init(&world->objects[i], world, i);
        make_folders(world);
        for (unsigned i = 0; i < world->n_objects; i++)
                object_create(&world->objects[i]);
}

/* Opens the store and looks at each object; the power may fail there as well. Where objects are
 * redone late some are left to the life that follows. */
static void recover(World *world, bool is_last)
{
        do {
                open_store(world);
                if (world->failed)
                        return;
                arm_verification(world);
                for (unsigned o = 0; o < world->n_objects && !world->failed; o++) {
                        world->objects[o].unseen = true;
                        if (is_last || !world->late_max || rng_chance(&world->rng, 300))
                                object_verify(&world->objects[o]);
                }
                disarm(world);
                if (!sim_disk_is_dead(world->disk) || world->failed)
                        return;
                world->store = store_close(world->store);
                crash(world);
        } while (!world->failed);
}

void world_run(World *world)
{
        uint64_t lives;

        set_up(world);
        lives = 1 + small_below(&world->rng, 4, 2);
        for (uint64_t i = 0; i < lives && !world->failed; i++) {
                recover(world, false);
                if (!world->failed)
                        live(world);
        }
        if (!world->failed)
                recover(world, true);
        if (world->store) {
                sim_disk_cut(world->disk);
                world->store = store_close(world->store);
                crash(world);
        }
        world->stats.disk = *sim_disk_get_stats(world->disk);
        for (unsigned i = 0; i < world->n_objects; i++)
                object_done(&world->objects[i]);
        world->disk = sim_disk_free(world->disk);
}
