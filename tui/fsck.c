/* SPDX-License-Identifier: Apache-2.0 */

/*
 * durablectl fsck: the check of a stopped state, told to people or as lines of JSON
 */

#include "lib/base/file.h"
#include "lib/store/check.h"
#include "lib/wire/ident.h"
#include "lib/wire/jsonc.h"
#include "tui/command.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/file.h>

#define JOBS_MAX 64u
#define PROGRESS_NS (100 * NSEC_PER_MSEC)

typedef struct Fsck {
        char *state;
        const char *app;
        bool quick, json;
        unsigned jobs;
        Check *check;
        bool is_terminal, has_progress;
        uint64_t told_at, n_databases;
        uint64_t n_damage, n_odd, n_notes, n_journals, n_archives;
        uint64_t pending_commits;
        bool incomplete; /* something could not be looked at; it was said */
} Fsck;

static void hide_progress(Fsck *fsck)
{
        if (fsck->has_progress)
                fputs("\r\033[K", stderr);
        fsck->has_progress = false;
}

static void on_progress(uint64_t n_databases, void *data)
{
        Fsck *fsck = data;
        uint64_t now = clock_monotonic_ns();

        fsck->n_databases = n_databases;
        if (!fsck->is_terminal || now - fsck->told_at < PROGRESS_NS)
                return;
        fsck->told_at = now;
        fsck->has_progress = true;
        fprintf(stderr, "\r%llu databases checked", (unsigned long long)n_databases);
}

/* Names come from disks: a control character is not for a terminal. */
static void print_clean(const char *text)
{
        for (; *text; text++)
                putchar((unsigned char)*text < ' ' || *text == 127 ? '?' : *text);
}

static void print_finding(const CheckFinding *finding)
{
        static const char *const levels[] = { "note", "odd", "DAMAGE" };

        printf("%s: ", levels[finding->level]);
        print_clean(finding->path);
        if (finding->offset != CHECK_NOWHERE)
                printf(" at offset %llu", (unsigned long long)finding->offset);
        fputs(": ", stdout);
        print_clean(finding->text);
        putchar('\n');
}

static void print_json(json_t *line)
{
        if (line) {
                json_dumpf(line, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
                putchar('\n');
        }
        json_decref(line);
}

/* What is not UTF-8 in a name is shown, not lost: jansson takes nothing else. */
static json_t *json_text(const char *text)
{
        json_t *value = json_string(text);
        char *copy;

        if (value)
                return value;
        copy = strdup(text);
        for (char *at = copy; at && *at; at++)
                if ((unsigned char)*at >= 128)
                        *at = '?';
        value = copy ? json_string(copy) : NULL;
        free(copy);
        return value;
}

static void print_finding_json(const CheckFinding *finding)
{
        static const char *const levels[] = { "note", "odd", "damage" };
        json_t *line = json_pack("{s:s, s:s, s:o}", "level", levels[finding->level], "what",
                finding->what, "path", json_text(finding->path));

        if (line && finding->offset != CHECK_NOWHERE)
                json_object_set_new(line, "offset", json_integer((json_int_t)finding->offset));
        if (line)
                json_object_set_new(line, "text", json_text(finding->text));
        print_json(line);
}

static void on_found(const CheckFinding *finding, void *data)
{
        Fsck *fsck = data;

        fsck->n_damage += finding->level == CHECK_DAMAGE;
        fsck->n_odd += finding->level == CHECK_ODD;
        fsck->n_notes += finding->level == CHECK_NOTE;
        hide_progress(fsck);
        if (fsck->json)
                print_finding_json(finding);
        else
                print_finding(finding);
}

static bool name_fits(Slice unique_key, Slice id, Slice name, void *data)
{
        char text[IDENT_TEXT_SIZE];
        ObjectId object;

        if (ident_from_name(unique_key, name, &object) != 0)
                return true;
        ident_format(&object, text);
        return slice_equal(id, slice_from(text));
}

/* What was not looked at, and why. */
static void leave_out(Fsck *fsck, const char *path, const char *why)
{
        hide_progress(fsck);
        fsck->incomplete = true;
        complain("%s is not checked: %s", path, why);
}

static const char *explain(int error)
{
        switch (-error) {
        case EAGAIN:
                return "another process has it; stop the service first";
        case EBUSY:
                return "another program has a database open that the journal must be redone into";
        case ENOSPC:
                return "no room in $TMPDIR for what the journal would change";
        default:
                return strerror(-error);
        }
}

static int see_journal(const char *app, unsigned slot, const char *path, void *data)
{
        Fsck *fsck = data;
        CheckJournal journal;
        int r = check_journal(fsck->check, path, &journal);

        if (r) {
                leave_out(fsck, path, explain(r));
                return r == -ENOMEM ? r : 0;
        }
        fsck->n_journals++;
        fsck->pending_commits += journal.commits;
        if (journal.state == CHECK_DAMAGED && !fsck->json)
                printf("        %llu commits behind the damage; 'durabled --recover' tells whose, "
                       "and what can be done\n",
                        (unsigned long long)journal.lost_commits);
        check_journal_done(&journal);
        return 0;
}

static int see_archive(const char *app, unsigned slot, const char *path, void *data)
{
        Fsck *fsck = data;
        int r = check_archive(fsck->check, path);

        if (r) {
                leave_out(fsck, path, strerror(-r));
                return r == -ENOMEM ? r : 0;
        }
        fsck->n_archives++;
        return 0;
}

typedef int (*FsckSlotFn)(const char *app, unsigned slot, const char *path, void *data);

static int run_slots(Fsck *fsck, const char *name, FsckSlotFn fn)
{
        _cleanup_(free_p) char *folder = path_join(fsck->state, name);

        if (!folder)
                return -ENOMEM;
        return check_each_slot(fsck->check, folder, fsck->app, fn, fsck);
}

static int run_objects(Fsck *fsck)
{
        _cleanup_(free_p) char *prefix = NULL;

        if (fsck->app && asprintf(&prefix, "%s-", fsck->app) < 0) {
                prefix = NULL;
                return -ENOMEM;
        }
        return check_objects(fsck->check, prefix, fsck->jobs);
}

/* The service's own database, which has a log of its own beside it until it is opened. */
static int run_catalog(Fsck *fsck)
{
        _cleanup_(free_p) char *path = path_join(fsck->state, "catalog.sqlite");
        _cleanup_(free_p) char *log = path_join(fsck->state, "catalog.sqlite-wal");
        uint64_t size;
        int r;

        if (!path || !log)
                return -ENOMEM;
        if (disk_stat_size(disk_real(), log, &size) == 0 && size) {
                const CheckFinding pending = {
                        .level = CHECK_NOTE,
                        .what = "catalog-pending",
                        .path = log,
                        .offset = CHECK_NOWHERE,
                        .text = "the next start reads this log into the catalog, which is not "
                                "looked at before",
                };

                on_found(&pending, fsck);
                return 0;
        }
        r = check_database(fsck->check, path);
        return r == -ENOENT ? 0 : r;
}

static bool has(const Fsck *fsck, const char *name)
{
        _cleanup_(free_p) char *path = path_join(fsck->state, name);

        return path && access(path, F_OK) == 0;
}

/* A journal that was begun has left its mark among the objects. */
static bool has_journal_marks(const Fsck *fsck)
{
        _cleanup_(free_p) char *path = path_join(fsck->state, "objects");
        DIR *folder = path ? opendir(path) : NULL;
        const struct dirent *entry;
        bool found = false;

        if (!folder)
                return false;
        while (!found && (entry = readdir(folder)))
                found = strncmp(entry->d_name, ".journal-", 9) == 0;
        closedir(folder);
        return found;
}

static int run_stopped(Fsck *fsck)
{
        int r;

        if (!has(fsck, "objects")) {
                leave_out(fsck, "objects", "this folder is gone; put it back, then check again");
                return 0;
        }
        if (!has(fsck, "journal") && has_journal_marks(fsck))
                leave_out(fsck, "journal", "this folder is gone; put it back, then check again");
        r = run_slots(fsck, "journal", see_journal);
        r = r ?: run_objects(fsck);
        return r ?: run_catalog(fsck);
}

static int run_all(Fsck *fsck, bool is_served)
{
        int r = run_slots(fsck, "archive", see_archive);

        return is_served ? r : r ?: run_stopped(fsck);
}

/* What is no state, or has nothing of the app, is not to be called clean. */
static bool is_there(const Fsck *fsck)
{
        static const char *const parts[] = { "objects", "journal", "catalog.sqlite", "lock" };

        for (size_t i = 0; i < ELEMENTSOF(parts); i++)
                if (has(fsck, parts[i]))
                        return true;
        complain("%s is no state folder of durabled: there are neither objects nor a journal; name "
                 "another with --state",
                fsck->state);
        return false;
}

static bool has_app(const Fsck *fsck)
{
        if (!fsck->app || fsck->incomplete ||
                fsck->n_journals + fsck->n_archives + fsck->n_databases)
                return true;
        complain("--app %s: %s has nothing of such an app", fsck->app, fsck->state);
        return false;
}

static void print_summary(const Fsck *fsck)
{
        if (fsck->json) {
                print_json(json_pack("{s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}}", "summary",
                        "damage", (json_int_t)fsck->n_damage, "odd", (json_int_t)fsck->n_odd,
                        "notes", (json_int_t)fsck->n_notes, "journals",
                        (json_int_t)fsck->n_journals, "archives", (json_int_t)fsck->n_archives,
                        "databases", (json_int_t)fsck->n_databases, "pending_commits",
                        (json_int_t)fsck->pending_commits, "complete", !fsck->incomplete));
                return;
        }
        printf("%s: %llu journals, %llu archives, %llu databases checked: ", fsck->state,
                (unsigned long long)fsck->n_journals, (unsigned long long)fsck->n_archives,
                (unsigned long long)fsck->n_databases);
        if (fsck->n_damage)
                printf("%llu damaged, ", (unsigned long long)fsck->n_damage);
        if (fsck->n_odd)
                printf("%llu things that do not belong there", (unsigned long long)fsck->n_odd);
        else
                printf("%s", fsck->n_damage     ? "nothing else"
                             : fsck->incomplete ? "nothing wrong found"
                                                : "clean");
        printf("%s\n", fsck->incomplete ? " (not everything was checked)" : "");
}

/* Shared: two checks are no harm, a service that starts meanwhile is. *ret_fd stays open. */
static int lock_state(const Fsck *fsck, int *ret_fd, bool *ret_is_served)
{
        _cleanup_(free_p) char *path = path_join(fsck->state, "lock");
        _cleanup_(close_p) int fd = -1;

        *ret_is_served = false;
        if (!path)
                return -ENOMEM;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        if (flock(fd, LOCK_SH | LOCK_NB) == 0)
                *ret_fd = TAKE_FD(fd);
        else if (errno == EWOULDBLOCK)
                *ret_is_served = true;
        else
                return -errno;
        return 0;
}

static int run(Fsck *fsck)
{
        _cleanup_(free_p) char *objects = path_join(fsck->state, "objects");
        _cleanup_(close_p) int lock = -1;
        CheckOptions options = { .objects = objects,
                .quick = fsck->quick,
                .found = on_found,
                .progress = on_progress,
                .name_fits = name_fits,
                .data = fsck };
        bool is_served;
        int r = objects ? lock_state(fsck, &lock, &is_served) : -ENOMEM;

        if (r) {
                complain("%s: %s", fsck->state, strerror(-r));
                return EXIT_USAGE;
        }
        if (!is_there(fsck))
                return EXIT_USAGE;
        if (is_served)
                leave_out(fsck, fsck->state,
                        "a durabled serves from it, so that only archives can be looked at; stop "
                        "it ('systemctl stop durabled') and begin again");
        r = check_new(&options, &fsck->check);
        r = r ?: run_all(fsck, is_served);
        hide_progress(fsck);
        fsck->check = check_free(fsck->check);
        if (r) {
                complain("the check of %s ended early: %s", fsck->state, explain(r));
                fsck->incomplete = true;
        }
        if (!has_app(fsck))
                return EXIT_USAGE;
        print_summary(fsck);
        return fsck->n_damage || fsck->n_odd ? EXIT_FAILED : fsck->incomplete ? EXIT_USAGE : 0;
}

static unsigned count_cores(void)
{
        cpu_set_t set;

        return sched_getaffinity(0, sizeof set, &set) ? 1 : (unsigned)MAX(CPU_COUNT(&set), 1);
}

static int parse(int argc, char **argv, Fsck *fsck, const char **ret_state)
{
        static const struct option options[] = {
                { "state", required_argument, NULL, 's' },
                { "app", required_argument, NULL, 'a' },
                { "quick", no_argument, NULL, 'q' },
                { "jobs", required_argument, NULL, 'n' },
                { "json", no_argument, NULL, 'j' },
                { 0 },
        };
        uint64_t jobs = count_cores();
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
                if (c == 's')
                        *ret_state = optarg;
                else if (c == 'a')
                        fsck->app = optarg;
                else if (c == 'q')
                        fsck->quick = true;
                else if (c == 'j')
                        fsck->json = true;
                else if (c != 'n')
                        return EXIT_USAGE;
                else if (!slice_to_u64(slice_from(optarg), &jobs) || !jobs || jobs > JOBS_MAX) {
                        complain("--jobs %s: expected a number from 1 to %u", optarg, JOBS_MAX);
                        return EXIT_USAGE;
                }
        }
        fsck->jobs = (unsigned)MIN(jobs, (uint64_t)JOBS_MAX);
        if (optind == argc)
                return 0;
        complain("fsck takes no argument '%s'; the folder is named with --state", argv[optind]);
        return EXIT_USAGE;
}

int command_fsck(int argc, char **argv)
{
        const char *state = access(".durabled", F_OK) == 0 ? ".durabled" : "/var/lib/durabled";
        Fsck fsck = { .is_terminal = isatty(STDERR_FILENO) == 1 };
        int r = parse(argc, argv, &fsck, &state);

        if (r)
                return r;
        fsck.state = realpath(state, NULL);
        if (!fsck.state) {
                complain("--state %s: %s", state, strerror(errno));
                return EXIT_USAGE;
        }
        r = run(&fsck);
        free(fsck.state);
        return r;
}
