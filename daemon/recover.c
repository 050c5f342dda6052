/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/recover.h"

#include "lib/base/file.h"
#include "lib/store/check.h"
#include "lib/store/salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#define SHOWN_MAX 20u     /* objects named one by one */
#define CHECKED_MAX 1000u /* databases looked at as a decision would leave them */

enum { RECOVER_DONE, RECOVER_LEFT, RECOVER_USAGE };

typedef struct Recover {
        const RecoverOptions *options;
        char *state, *objects;
        const char *only;  /* APP/SLOT that this pass is about; NULL: all */
        bool was_seen;     /* `only` is there */
        bool is_left;      /* something is damaged or has failed */
        uint64_t n_faults; /* of the databases at hand */
} Recover;

typedef struct Place {
        Recover *recover;
        char name[160]; /* APP/SLOT */
        const char *path;
} Place;

static void on_found(const CheckFinding *finding, void *data)
{
        ((Recover *)data)->n_faults += finding->level == CHECK_DAMAGE;
}

static void on_line(int priority, const char *line, void *data)
{
        fprintf(stderr, "durabled: %s\n", line);
}

static const char *plural(uint64_t n)
{
        return n == 1 ? "" : "s";
}

/* Another process, or this one's check of the same journal, must not hold it. */
static int new_check(Recover *recover, uint64_t until, Check **ret)
{
        CheckOptions options = {
                .objects = recover->objects, .until = until, .found = on_found, .data = recover
        };

        return check_new(&options, ret);
}

static const char *explain(int error)
{
        switch (-error) {
        case EAGAIN:
                return "another process has it; a worker may still be ending";
        case EBUSY:
                return "another program has a database open that it must be redone into";
        case ENOSPC:
                return "no room in $TMPDIR for what it would change";
        default:
                return strerror(-error);
        }
}

/* What SQLite's check says of the objects that the decision concerns, as the check sees them. */
static void count_faults(Recover *recover, Check *check, const CheckJournal *journal, bool with_all,
        uint64_t *ret_checked, uint64_t *ret_faulty)
{
        uint64_t checked = 0, faulty = 0;

        for (size_t i = 0; i < journal->n_objects && checked < CHECKED_MAX; i++) {
                _cleanup_(free_p) char *path =
                        path_join(recover->objects, journal->objects[i].name);

                if (!path || (!with_all && !journal->objects[i].after))
                        continue;
                recover->n_faults = 0;
                if (check_database(check, path))
                        continue;
                checked++;
                if (!recover->n_faults)
                        continue;
                if (faulty++ < SHOWN_MAX)
                        printf("        not sound then: %s\n", journal->objects[i].name);
        }
        *ret_checked = checked;
        *ret_faulty = faulty;
}

static void print_faults(uint64_t checked, uint64_t faulty)
{
        if (!checked)
                return;
        if (faulty)
                printf("        %llu of %llu databases would not pass SQLite's check, the others "
                       "would\n",
                        (unsigned long long)faulty, (unsigned long long)checked);
        else
                printf("        all %llu databases that were looked at would pass SQLite's check\n",
                        (unsigned long long)checked);
}

static void print_objects(const CheckJournal *journal)
{
        uint64_t n = 0;

        for (size_t i = 0; i < journal->n_objects; i++) {
                const CheckObject *object = &journal->objects[i];

                if (!object->after)
                        continue;
                if (n++ < SHOWN_MAX)
                        printf("        %s: %llu commit%s%s\n", object->name,
                                (unsigned long long)object->after, plural(object->after),
                                object->is_ahead ? ", of which its file has some; a cut leaves it"
                                                 : "");
        }
        n += journal->n_more;
        if (n > SHOWN_MAX)
                printf("        and of %llu more objects\n", (unsigned long long)(n - SHOWN_MAX));
}

static void print_torn(const CheckJournal *journal)
{
        if (journal->is_torn)
                printf("    The last batch, %s at offset %llu, is not whole: a write that a crash "
                       "interrupted.\n    That is normal; it was never acknowledged and is left "
                       "out.\n",
                        journal->torn_path, (unsigned long long)journal->torn_offset);
}

static void print_pending(const CheckJournal *journal)
{
        printf("%llu commit%s of %zu object%s, %llu bytes, up to LSN %llu",
                (unsigned long long)journal->commits, plural(journal->commits),
                journal->n_objects + journal->n_more, plural(journal->n_objects + journal->n_more),
                (unsigned long long)journal->bytes, (unsigned long long)journal->last_lsn);
}

static void print_damage(const Place *place, const CheckJournal *journal)
{
        printf("%s: DAMAGED, its worker does not start\n", place->name);
        if (!*journal->damage_path)
                printf("    %s: %s\n", place->path, journal->damage_text);
        else if (journal->damage_offset == CHECK_NOWHERE)
                printf("    %s/%s: %s\n", place->path, journal->damage_path, journal->damage_text);
        else
                printf("    %s/%s at offset %llu: %s\n", place->path, journal->damage_path,
                        (unsigned long long)journal->damage_offset, journal->damage_text);
        if (journal->has_epoch)
                printf("    Before it: %llu commit%s that can be redone.\n",
                        (unsigned long long)journal->commits, plural(journal->commits));
        if (journal->cut_lsn)
                printf("    From LSN %llu on: what is damaged, and at least %llu commit%s that can "
                       "be read but follow it:\n",
                        (unsigned long long)journal->cut_lsn,
                        (unsigned long long)journal->lost_commits, plural(journal->lost_commits));
        print_objects(journal);
}

/* The databases as a cut would leave them are on the check's overlay. */
static void print_choices(const Place *place, const CheckJournal *journal, Check *check)
{
        Recover *recover = place->recover;
        const char *config = recover->options->config_path;
        uint64_t checked, faulty;
        char command[600];

        snprintf(command, sizeof command, "durabled --recover%s%s", config ? " --config " : "",
                config ?: "");
        printf("    What can be done:\n"
               "      - put back what is damaged or missing from a copy of it, then start\n");
        if (journal->has_epoch) {
                printf("      - %s --cut-at-damage %s\n"
                       "        redoes what lies before the damage, sets the rest aside\n",
                        command, place->name);
                count_faults(recover, check, journal, false, &checked, &faulty);
                print_faults(checked, faulty);
        }
        printf("      - %s --set-aside %s\n"
               "        redoes nothing: the %llu commit%s above are lost too as far as files lack "
               "them,\n"
               "        and a database that was being written may not be sound\n",
                command, place->name, (unsigned long long)journal->commits,
                plural(journal->commits));
        printf("      Either moves the journal to %s/damaged-<time>, with copies of the databases\n"
               "      concerned as they are now. Nothing is deleted.\n",
                place->path);
}

static int explain_journal(const Place *place)
{
        _cleanup_(check_free_p) Check *check = NULL;
        CheckJournal journal;
        int r = new_check(place->recover, 0, &check);

        r = r ?: check_journal(check, place->path, &journal);
        if (r)
                return r;
        switch (journal.state) {
        case CHECK_EMPTY:
                printf("%s: nothing to redo\n", place->name);
                break;
        case CHECK_PENDING:
                printf("%s: the next start redoes ", place->name);
                print_pending(&journal);
                putchar('\n');
                break;
        case CHECK_DAMAGED:
                place->recover->is_left = true;
                print_damage(place, &journal);
                break;
        }
        print_torn(&journal);
        if (journal.state == CHECK_DAMAGED)
                print_choices(place, &journal, check);
        check_journal_done(&journal);
        return 0;
}

/* The archive that the slot has, if it has one: it takes what the journal holds. */
static int find_archive(const Place *place, char **ret)
{
        _cleanup_(free_p) char *path = NULL;

        *ret = NULL;
        if (asprintf(&path, "%s/archive/%s", place->recover->state, place->name) < 0) {
                path = NULL;
                return -ENOMEM;
        }
        if (access(path, F_OK) == 0)
                *ret = TAKE_PTR(path);
        return 0;
}

static int redo_journal(const Place *place)
{
        _cleanup_(free_p) char *archive = NULL;
        SalvageOptions options = {
                .journal = place->path, .objects = place->recover->objects, .log = on_line
        };
        SalvageResult result = {};
        int r = find_archive(place, &archive);

        options.archive = archive;
        r = r ?: store_empty(&options, &result);

        if (r == -EUCLEAN) {
                printf("%s: damaged, not redone\n", place->name);
                place->recover->is_left = true;
                return 0;
        }
        if (!r)
                printf("%s: redid %llu commit%s of %llu object%s, the journal is empty\n",
                        place->name, (unsigned long long)result.commits, plural(result.commits),
                        (unsigned long long)result.objects, plural(result.objects));
        return r;
}

typedef enum Which { WHICH_ALL, WHICH_AFTER, WHICH_AHEAD } Which;

static bool is_one(const CheckObject *object, Which which)
{
        return which == WHICH_ALL || (which == WHICH_AFTER && object->after) ||
               (which == WHICH_AHEAD && object->is_ahead);
}

static const char **get_names(const CheckJournal *journal, Which which, size_t *ret_n)
{
        const char **names = calloc(journal->n_objects + 1, sizeof *names);
        size_t n = 0;

        for (size_t i = 0; names && i < journal->n_objects; i++)
                if (is_one(&journal->objects[i], which))
                        names[n++] = journal->objects[i].name;
        *ret_n = n;
        return names;
}

static void check_after(const Place *place, const CheckJournal *journal, bool with_all)
{
        _cleanup_(check_free_p) Check *check = NULL;
        uint64_t checked, faulty;

        if (new_check(place->recover, 0, &check))
                return;
        count_faults(place->recover, check, journal, with_all, &checked, &faulty);
        if (faulty)
                printf("    %llu of %llu databases do not pass SQLite's check: restore these\n",
                        (unsigned long long)faulty, (unsigned long long)checked);
        else if (checked)
                printf("    all %llu databases concerned pass SQLite's check\n",
                        (unsigned long long)checked);
}

/* What the survey found decides what is kept. */
static int decide(const Place *place, SalvageMode mode, const CheckJournal *journal)
{
        bool is_cut = mode == SALVAGE_CUT;
        size_t n_names, n_ahead;
        _cleanup_(free_p) const char **names =
                get_names(journal, is_cut ? WHICH_AFTER : WHICH_ALL, &n_names);
        _cleanup_(free_p) const char **ahead = get_names(journal, WHICH_AHEAD, &n_ahead);
        SalvageOptions options = {
                .journal = place->path,
                .objects = place->recover->objects,
                .mode = mode,
                .cut_lsn = is_cut ? journal->cut_lsn : 0,
                .keep = names,
                .n_keep = n_names,
                .leave = ahead,
                .n_leave = n_ahead,
                .log = on_line,
        };
        SalvageResult result = {};
        uint64_t lost;
        int r = names && ahead ? store_salvage(&options, &result) : -ENOMEM;

        if (r)
                return r;
        printf("%s: redid %llu commit%s of %llu object%s; %u file%s of the journal, and the "
               "databases concerned as they were, are in\n    %s\n",
                place->name, (unsigned long long)result.commits, plural(result.commits),
                (unsigned long long)result.objects, plural(result.objects), result.n_files,
                plural(result.n_files), result.folder);
        lost = journal->lost_commits + (is_cut ? 0 : journal->commits);
        printf("    not redone: %llu commit%s\n", (unsigned long long)lost, plural(lost));
        print_objects(journal);
        free(result.folder);
        check_after(place, journal, !is_cut);
        return 0;
}

static int decide_journal(const Place *place, SalvageMode mode)
{
        Recover *recover = place->recover;
        uint64_t until = mode == SALVAGE_CUT ? recover->options->until : 0;
        Check *check = NULL;
        CheckJournal journal;
        int r = new_check(recover, until, &check);

        r = r ?: check_journal(check, place->path, &journal);
        /* It holds the journal's lock. */
        check_free(check);
        if (r)
                return r;
        if (journal.state != CHECK_DAMAGED && mode == SALVAGE_CUT && !until) {
                printf("%s: there is no damage to cut at; the next start redoes all of it\n",
                        place->name);
        } else if (mode == SALVAGE_CUT && !journal.has_epoch) {
                printf("%s: without its epoch file nobody knows what counts: it can be set aside, "
                       "or the epoch file be put back\n",
                        place->name);
                recover->is_left = true;
        } else {
                r = decide(place, mode, &journal);
        }
        check_journal_done(&journal);
        return r;
}

typedef int (*PlaceFn)(const Place *place);

static int cut_journal(const Place *place)
{
        return decide_journal(place, SALVAGE_CUT);
}

static int set_journal_aside(const Place *place)
{
        return decide_journal(place, SALVAGE_SET_ASIDE);
}

typedef struct Pass {
        Recover *recover;
        PlaceFn fn;
        char **paths, **names;
        size_t n;
} Pass;

static int see_slot(const char *app, unsigned slot, const char *path, void *data)
{
        Pass *pass = data;
        char **paths = realloc(pass->paths, (pass->n + 1) * sizeof *paths), **names;
        char name[160];

        if (!paths)
                return -ENOMEM;
        pass->paths = paths;
        names = realloc(pass->names, (pass->n + 1) * sizeof *names);
        if (!names)
                return -ENOMEM;
        pass->names = names;
        snprintf(name, sizeof name, "%s/%u", app, slot);
        if (pass->recover->only && strcmp(name, pass->recover->only) != 0)
                return 0;
        paths[pass->n] = strdup(path);
        names[pass->n] = strdup(name);
        pass->n++;
        return paths[pass->n - 1] && names[pass->n - 1] ? 0 : -ENOMEM;
}

static int run_pass(Pass *pass)
{
        Recover *recover = pass->recover;
        _cleanup_(free_p) char *folder = path_join(recover->state, "journal");
        Check *check = NULL;
        int r = folder ? new_check(recover, 0, &check) : -ENOMEM;

        r = r ?: check_each_slot(check, folder, NULL, see_slot, pass);
        check_free(check);
        recover->was_seen = pass->n > 0;
        for (size_t i = 0; !r && i < pass->n; i++) {
                Place place = { .recover = recover, .path = pass->paths[i] };

                snprintf(place.name, sizeof place.name, "%s", pass->names[i]);
                r = pass->fn(&place);
                fflush(stdout);
                if (!r || r == -ENOMEM)
                        continue;
                fprintf(stderr, "durabled: %s: %s\n", place.path, explain(r));
                recover->is_left = true;
                r = 0;
        }
        return r;
}

static int run(Recover *recover, const char *only, PlaceFn fn)
{
        Pass pass = { .recover = recover, .fn = fn };
        int r;

        recover->only = only;
        r = run_pass(&pass);
        for (size_t i = 0; i < pass.n; i++) {
                free(pass.paths[i]);
                free(pass.names[i]);
        }
        free(pass.paths);
        free(pass.names);
        if (!r && only && !recover->was_seen) {
                fprintf(stderr, "durabled: %s/journal/%s: there is no such journal\n",
                        recover->state, only);
                return -ENOENT;
        }
        return r;
}

/* A service with a user of its own could not open what root has made: root becomes that user. */
static int become_owner(const char *state)
{
        struct stat st;
        int r;

        if (geteuid() != 0)
                return 0;
        if (stat(state, &st) == 0 &&
                (st.st_uid == 0 || (setgroups(1, &st.st_gid) == 0 &&
                                           setresgid(st.st_gid, st.st_gid, st.st_gid) == 0 &&
                                           setresuid(st.st_uid, st.st_uid, st.st_uid) == 0)))
                return 0;
        r = -errno;
        fprintf(stderr, "durabled: cannot become the user to whom %s belongs: %s\n", state,
                strerror(-r));
        return r;
}

/* As the supervisor takes it: exclusive, and its content says who has it. */
static int lock_state(const char *state, int *ret)
{
        _cleanup_(free_p) char *path = path_join(state, "lock");
        _cleanup_(close_p) int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
        char pid[24] = "?";
        ssize_t n;

        if (fd < 0) {
                fprintf(stderr, "durabled: %s/lock: %s\n", state, strerror(errno));
                return -errno;
        }
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
                *ret = TAKE_FD(fd);
                return 0;
        }
        n = pread(fd, pid, sizeof pid - 1, 0);
        pid[MAX(n, (ssize_t)0)] = '\0';
        pid[strcspn(pid, "\n")] = '\0';
        fprintf(stderr,
                "durabled: %s is used by a durabled that runs (process %s): stop it first\n", state,
                pid);
        return -EWOULDBLOCK;
}

static int run_decisions(Recover *recover)
{
        const RecoverOptions *options = recover->options;
        int r = 0;

        if (options->cut)
                r = run(recover, options->cut, cut_journal);
        if (!r && options->set_aside)
                r = run(recover, options->set_aside, set_journal_aside);
        if (!r && options->redo)
                r = run(recover, NULL, redo_journal);
        if (!r && !options->cut && !options->set_aside && !options->redo) {
                r = run(recover, NULL, explain_journal);
                if (!r && !recover->was_seen)
                        printf("%s has no journals\n", recover->state);
        }
        return r;
}

int recover_run(const Config *config, const RecoverOptions *options)
{
        _cleanup_(free_p) char *state = realpath(config->state, NULL);
        _cleanup_(free_p) char *objects = state ? path_join(state, "objects") : NULL;
        _cleanup_(close_p) int lock = -1;
        Recover recover = { .options = options, .state = state, .objects = objects };
        int r;

        if (!objects) {
                fprintf(stderr, "durabled: state=%s: %s\n", config->state, strerror(errno));
                return RECOVER_LEFT;
        }
        r = become_owner(state);
        r = r ?: lock_state(state, &lock);
        if (r)
                return RECOVER_LEFT;
        r = run_decisions(&recover);
        if (r && r != -ENOENT)
                fprintf(stderr, "durabled: %s: %s\n", state, explain(r));
        if (r)
                return r == -ENOENT ? RECOVER_USAGE : RECOVER_LEFT;
        return recover.is_left ? RECOVER_LEFT : RECOVER_DONE;
}
