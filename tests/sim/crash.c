/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Crashes of the storage engine, simulated: each seed is a world, run to its end
 *
 * A line of TAP to each block of seeds. What fails is told with its seed, and that seed alone does
 * the same again: crash --first-seed THAT --seeds 1 --verbose.
 */

#include "tests/sim/temp-files.h"
#include "tests/sim/world.h"

#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SEED_SECONDS 180
#define BLOCK_SEEDS 250
#define SEEDS_DEFAULT 100
#define PROCESSES_MAX 64

typedef struct Options {
        uint64_t first, n;
        unsigned processes;
        uint64_t end_at; /* no block begins after that second; 0: all do */
        const char *replay;
        bool verbose, trace, until_failure;
} Options;

#ifdef STORE_SABOTAGE
/* lib/store/store-private.h: what the engine leaves out, in that build alone. */
extern unsigned store_sabotage;

static const struct {
        const char *name, *what;
        unsigned bit;
} sabotages[] = {
        { "early-flush", "what was submitted counts as flushed (1)", 1 },
        { "wal-rule", "files are written before the journal is durable (2)", 2 },
        { "retire-sync", "segments go without a sync of the files (3)", 4 },
        { "copy-forward", "segments go though a reader pins them (3)", 8 },
        { "low-mark", "segments are overwritten before the mark is durable (4)", 16 },
        { "redo-sync", "the epoch is switched before the files are synced (5)", 32 },
        { "write-error", "a failed write of the journal counts as done (6)", 64 },
        { "cancel", "a commit that failed is not cancelled (7)", 128 },
        { "folder-sync", "folders of new files are not synced (3)", 256 },
        { "tail", "a redo does not make the last batch durable first (2)", 1024 },
        { "parents", "folders of new folders are not synced (3)", 2048 },
        { "archive", "a segment goes without a file in the archive (8)", 4096 },
        { "archive-sync", "a segment goes before its archive file is synced (8)", 16384 },
        { "copy", "the copy of a journal's last batch is not taken (2)", 65536 },
        { "late", "segments go while something in them is still to be redone (5)", 32768 },
        { "undo", "what was before a page is left out of the journal", 8192 },
        { "crc", "a torn batch is believed", 512 },
};

static bool parse_sabotage(const char *name)
{
        for (size_t i = 0; i < ELEMENTSOF(sabotages); i++)
                if (strcmp(name, sabotages[i].name) == 0) {
                        store_sabotage = sabotages[i].bit;
                        return true;
                }
        return false;
}

static int list_sabotages(void)
{
        for (size_t i = 0; i < ELEMENTSOF(sabotages); i++)
                printf("%s\t%s\n", sabotages[i].name, sabotages[i].what);
        return 0;
}
#else
static bool parse_sabotage(const char *name)
{
        return false;
}

static int list_sabotages(void)
{
        return 0;
}
#endif

static World world;
static WorldStats total;

static const char usage[] =
        "usage: crash [--first-seed N] [--seeds N] [--replay FILE] [--processes N]\n"
        "             [--minutes N] [--until-failure] [--verbose]\n"
        "       crash --list-faults | --list-sabotages\n"
        "\n"
        "  --first-seed N    begin with this seed (1)\n"
        "  --seeds N         run so many (100)\n"
        "  --replay FILE     first run the seeds of a file, one a line, # begins a comment\n"
        "  --minutes N       begin no block of 250 seeds after so long\n"
        "  --processes N     so many at once (1)\n"
        "  --until-failure   end with the first failure\n"
        "  --verbose         tell each commit and crash\n"
        "  --trace           tell each write, sync and change of a name as well\n"
        "  --sabotage NAME   leave an invariant of the engine out (a build of its own)\n"
        "  --list-faults     the kinds of faults of the disk\n";

/* Async-signal-safe: which seed it was. */
static void on_signal(int number)
{
        char text[64] = "\nnot ok - died in seed ";
        size_t len = strlen(text), end;
        uint64_t seed = world.seed;
        char digits[24];

        end = sizeof digits;
        do
                digits[--end] = (char)('0' + seed % 10);
        while ((seed /= 10) > 0);
        memcpy(text + len, digits + end, sizeof digits - end);
        len += sizeof digits - end;
        text[len++] = '\n';
        if (write(STDOUT_FILENO, text, len) < 0)
                _exit(3);
        signal(number, SIG_DFL);
        raise(number);
}

static void add_stats(const WorldStats *stats)
{
        uint64_t *to = (uint64_t *)&total;
        const uint64_t *from = (const uint64_t *)stats;

        _Static_assert(sizeof total % sizeof *to == 0, "sums of 64 bits");
        for (size_t i = 0; i < sizeof total / sizeof *to; i++)
                to[i] += from[i];
}

static bool run_seed(const Options *options, uint64_t seed)
{
        memset(&world, 0, sizeof world);
        world.seed = seed;
        world.verbose = options->verbose;
        world.trace = options->trace;
        alarm(SEED_SECONDS);
        world_run(&world);
        alarm(0);
        world.stats.worlds = 1;
        add_stats(&world.stats);
        if (!world.failed)
                return true;
        printf("# seed %llu, life %llu, step %llu: %s\n", (unsigned long long)seed,
                (unsigned long long)world.failed_life, (unsigned long long)world.failed_step,
                world.message);
        fflush(stdout);
        return false;
}

#define PRINT(_text, _value) printf("#   %-44s %llu\n", _text, (unsigned long long)(_value))

static void print_total(void)
{
        PRINT("worlds", total.worlds);
        PRINT("lives", total.lives);
        PRINT("recoveries / cut on their way", total.recoveries);
        PRINT("", total.recoveries_cut);
        PRINT("recoveries with objects redone late", total.late);
        PRINT("  not redone at a life's end", total.left);
        PRINT("power cuts with a journal write in flight", total.disk.cuts_in_flight);
        PRINT("power cuts with un-synced data", total.disk.cuts_dirty);
        PRINT("sectors lost", total.disk.sectors_lost);
        PRINT("sectors kept", total.disk.sectors_kept);
        PRINT("sectors garbled", total.disk.sectors_garbled);
        PRINT("names lost", total.disk.names_lost);
        PRINT("commits", total.commits);
        PRINT("commits that failed", total.failed_commits);
        PRINT("a full journal or disk", total.full);
        PRINT("deletes", total.deletes);
        PRINT("vacuums", total.vacuums);
        PRINT("segments archived / archive files pruned", total.archived);
        PRINT("", total.pruned);
        PRINT("restores and snapshots / refused", total.restores);
        PRINT("", total.restores_refused);
        PRINT("restores to a time", total.times);
        PRINT("exports", total.exports);
        PRINT("answers through the gate", total.answers);
        PRINT("unshown entries lost", total.entries_lost);
        PRINT("files checked without the engine", total.drains);
        PRINT("journal batches", total.batches);
        PRINT("copied forward", total.copies);
        PRINT("page sets spilled to files", total.spills);
        PRINT("cancels", total.cancels);
        PRINT("wal-index that did not grow", total.index_failures);
        PRINT("checkpoints", total.checkpoints);
        PRINT("segments retired", total.retired);
        PRINT("commits redone", total.redone);
        for (unsigned i = 0; i < _SIM_FAULT_MAX; i++) {
                printf("#   fault %-38s %llu\n", sim_fault_get_name(i),
                        (unsigned long long)total.disk.faults[i]);
        }
}

static int list_faults(void)
{
        for (unsigned i = 0; i < _SIM_FAULT_MAX; i++)
                printf("%s\n", sim_fault_get_name(i));
        return 0;
}

/* The seeds of a file are a block of their own. */
static int replay(const Options *options, unsigned *bad, unsigned *ret_n)
{
        FILE *file = fopen(options->replay, "re");
        char line[256];

        if (!file) {
                fprintf(stderr, "crash: %s: %s\n", options->replay, strerror(errno));
                return -errno;
        }
        while (fgets(line, sizeof line, file)) {
                Slice rest = slice_of(line, strcspn(line, "#\n")), word;
                uint64_t seed;

                word = slice_trim(rest);
                if (word.len == 0)
                        continue;
                if (!slice_to_u64(word, &seed)) {
                        fprintf(stderr, "crash: %s: \"%.*s\" is no seed\n", options->replay,
                                SLICE_FMT(word));
                        fclose(file);
                        return -EINVAL;
                }
                *bad += !run_seed(options, seed);
                ++*ret_n;
        }
        fclose(file);
        return 0;
}

/* What the processes of a run share. */
typedef struct Shared {
        atomic_uint_least64_t next_block;
        atomic_bool stop; /* one that was to be the last has failed */
        WorldStats sums[];
} Shared;

static bool run_block(const Options *options, Shared *shared, uint64_t block)
{
        uint64_t i = block * BLOCK_SEEDS, end = MIN(i + BLOCK_SEEDS, options->n);
        bool bad = false;

        for (uint64_t j = i; j < end && !shared->stop; j++) {
                bad |= !run_seed(options, options->first + j);
                if (bad && options->until_failure)
                        shared->stop = true;
        }
        printf("%sok %llu - worlds %llu to %llu lose nothing that was shown\n", bad ? "not " : "",
                (unsigned long long)(options->replay != NULL) + block + 1,
                (unsigned long long)(options->first + i),
                (unsigned long long)(options->first + end - 1));
        fflush(stdout);
        return !bad;
}

/* One block after the other that nobody has begun; their number that failed. */
static int run_blocks(const Options *options, Shared *shared)
{
        int failed = 0;
        uint64_t block;

        for (;;) {
                if (shared->stop || (options->end_at && (uint64_t)time(NULL) >= options->end_at))
                        return failed;
                block = atomic_fetch_add(&shared->next_block, 1);
                if (block * BLOCK_SEEDS >= options->n)
                        return failed;
                failed += !run_block(options, shared, block);
        }
}

/*
 * A world's threads run one at a time: on one processor the turn passes without waking another one
 * up. Where it cannot be, nothing but time is lost.
 */
static void stay_on_one_processor(unsigned number)
{
        cpu_set_t allowed, one;
        unsigned n = 0;

        if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) == 0)
                return;
        number %= (unsigned)CPU_COUNT(&allowed);
        for (unsigned i = 0; i < CPU_SETSIZE; i++)
                if (CPU_ISSET(i, &allowed) && n++ == number) {
                        CPU_ZERO(&one);
                        CPU_SET(i, &one);
                        sched_setaffinity(0, sizeof one, &one);
                        return;
                }
}

static int run_processes(const Options *options, Shared *shared)
{
        unsigned started = 0;
        int failed = 0, status;

        fflush(stdout);
        for (; started < options->processes; started++) {
                pid_t pid = fork();

                if (pid < 0)
                        return -errno;
                if (pid == 0) {
                        memset(&total, 0, sizeof total);
                        stay_on_one_processor(started);
                        failed = run_blocks(options, shared);
                        shared->sums[started] = total;
                        fflush(stdout);
                        _exit(failed != 0);
                }
        }
        while (started > 0 && wait(&status) > 0) {
                failed += status != 0;
                started--;
        }
        for (unsigned i = 0; i < options->processes; i++)
                add_stats(&shared->sums[i]);
        return failed;
}

static int run(const Options *options)
{
        uint64_t blocks = (options->n + BLOCK_SEEDS - 1) / BLOCK_SEEDS;
        size_t size = sizeof(Shared) + options->processes * sizeof(WorldStats);
        Shared *shared =
                mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        unsigned bad = 0, n = 0;
        int r;

        if (shared == MAP_FAILED) {
                fprintf(stderr, "crash: memory to share: %s\n", strerror(errno));
                return 2;
        }
        if (!options->end_at)
                printf("1..%llu\n", (unsigned long long)blocks + (options->replay != NULL));
        if (options->replay) {
                if (replay(options, &bad, &n))
                        return 2;
                printf("%sok 1 - the %u worlds that once failed lose nothing\n", bad ? "not " : "",
                        n);
        }
        r = options->processes > 1 ? run_processes(options, shared) : run_blocks(options, shared);
        munmap(shared, size);
        print_total();
        return r || bad ? 1 : 0;
}

/*
 * Memory that was once taken is kept, and all threads, of which one runs, share it; the workload's
 * temporary files need no disk.
 */
static void set_up_process(void)
{
        mallopt(M_ARENA_MAX, 1);
        mallopt(M_MMAP_THRESHOLD, 32 << 20);
        mallopt(M_TRIM_THRESHOLD, 1 << 30);
        mallopt(M_TOP_PAD, 16 << 20);
        sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
        if (access("/dev/shm", W_OK) == 0)
                setenv("SQLITE_TMPDIR", "/dev/shm", 0);
}

/* SQLite's unix VFS begins SQLite's random numbers anew the first time that it makes a file: that
 * first time must not be in a seed. */
static void warm_up(void)
{
        sqlite3 *db = NULL;

        sqlite3_initialize();
        sqlite3_open_v2("", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
        sqlite3_exec(db,
                "PRAGMA cache_size = 1; PRAGMA temp_store = 1; CREATE TABLE a(b);"
                "INSERT INTO a VALUES(zeroblob(100000))",
                NULL, NULL, NULL);
        sqlite3_close(db);
}

static bool parse_number(const char *text, uint64_t *ret)
{
        return slice_to_u64(slice_from(text), ret);
}

static bool parse_minutes(const char *text, uint64_t *ret_end)
{
        uint64_t n;

        if (!parse_number(text, &n) || n > 100000)
                return false;
        *ret_end = (uint64_t)time(NULL) + 60 * n;
        return true;
}

static bool parse_processes(const char *text, unsigned *ret)
{
        uint64_t n;

        if (!parse_number(text, &n) || n < 1 || n > PROCESSES_MAX)
                return false;
        *ret = (unsigned)n;
        return true;
}

static const struct option known[] = {
        { "first-seed", required_argument, NULL, 'f' },
        { "seeds", required_argument, NULL, 'n' },
        { "minutes", required_argument, NULL, 'm' },
        { "processes", required_argument, NULL, 'p' },
        { "replay", required_argument, NULL, 'r' },
        { "until-failure", no_argument, NULL, 'u' },
        { "verbose", no_argument, NULL, 'v' },
        { "trace", no_argument, NULL, 't' },
        { "list-faults", no_argument, NULL, 'l' },
        { "list-sabotages", no_argument, NULL, 'L' },
        { "sabotage", required_argument, NULL, 's' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
};

/* 0, or the status to end with; *ret_done when nothing is to be run. */
static int parse(int argc, char **argv, Options *options, bool *ret_done)
{
        bool good = true;
        int c;

        while (good && (c = getopt_long(argc, argv, "", known, NULL)) != -1)
                switch (c) {
                case 'f':
                        good = parse_number(optarg, &options->first);
                        break;
                case 'n':
                        good = parse_number(optarg, &options->n);
                        break;
                case 'm':
                        good = parse_minutes(optarg, &options->end_at);
                        break;
                case 'p':
                        good = parse_processes(optarg, &options->processes);
                        break;
                case 'r':
                        options->replay = optarg;
                        break;
                case 'u':
                        options->until_failure = true;
                        break;
                case 'v':
                        options->verbose = true;
                        break;
                case 't':
                        options->verbose = options->trace = true;
                        break;
                case 's':
                        good = parse_sabotage(optarg);
                        break;
                case 'L':
                        *ret_done = true;
                        return list_sabotages();
                case 'l':
                        *ret_done = true;
                        return list_faults();
                case 'h':
                        fputs(usage, stdout);
                        *ret_done = true;
                        return 0;
                default:
                        good = false;
                }
        if (good && optind == argc)
                return 0;
        fputs(usage, stderr);
        return 2;
}

int main(int argc, char **argv)
{
        Options options = { .first = 1, .n = SEEDS_DEFAULT, .processes = 1 };
        bool done = false;
        int r = parse(argc, argv, &options, &done);

        if (r || done)
                return r;
        signal(SIGABRT, on_signal);
        signal(SIGSEGV, on_signal);
        signal(SIGBUS, on_signal);
        signal(SIGALRM, on_signal);
        set_up_process();
        temp_files_register();
        warm_up();
        return run(&options);
}
