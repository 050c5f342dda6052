/* SPDX-License-Identifier: Apache-2.0 */

/*
 * durablectl objects: what can be asked of one object
 */

#include "tui/ask.h"
#include "tui/moment.h"

#include "lib/base/file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#define ID_DIGITS 64u
#define COPY_SIZE (1u << 20)
/* The daemon gives up first, and says why. */
#define OBJECT_TIMEOUT_MS 700000

typedef struct Wish {
        const char *verb;
        const char *socket, *app, *class, *at, *bookmark;
        bool json, id, yes, force;
        char **arguments; /* what is no option, without the verb */
        int n_arguments;
} Wish;

typedef struct WishVerb {
        const char *name, *usage, *options; /* the letters of those that it takes */
        int arguments_min, arguments_max;
        int (*run)(const Wish *wish);
} WishVerb;

static bool is_id(const char *text)
{
        size_t n = 0;

        for (; isxdigit((unsigned char)text[n]); n++)
                ;
        return n == ID_DIGITS && !text[n];
}

/* What names the object, and what is given: a new reference, NULL when a text is not UTF-8. */
static json_t *wish_parameters(const Wish *wish)
{
        const char *name = wish->arguments[0];

        return json_pack("{s:s, s:s*, s:s*}", wish->id || is_id(name) ? "id" : "name", name, "app",
                wish->app, "class", wish->class);
}

static int wish_ask(const Wish *wish, const char *method, const char *key, json_t *value,
        json_t **ret, int *ret_fd)
{
        _cleanup_(json_decref_p) json_t *parameters = wish_parameters(wish);
        char name[64];

        if (!parameters || (key && json_object_set_new(parameters, key, value) < 0)) {
                complain("names and bookmarks are written in UTF-8");
                return EXIT_USAGE;
        }
        snprintf(name, sizeof name, "io.durabled.Objects.%s", method);
        return ask(wish->socket, name, parameters, OBJECT_TIMEOUT_MS, ret, ret_fd);
}

static int objects_address(const Wish *wish)
{
        _cleanup_(json_decref_p) json_t *answer = NULL, *parameters = NULL;
        const char *address;
        int r;

        parameters = json_pack("{s:s,s:s,s:s}", "app", wish->arguments[0], "class",
                wish->arguments[1], wish->id ? "id" : "name", wish->arguments[2]);
        if (!parameters) {
                complain("APP, CLASS and NAME must be UTF-8");
                return EXIT_USAGE;
        }
        r = ask(wish->socket, "io.durabled.Objects.Address", parameters, ASK_TIMEOUT_MS, &answer,
                NULL);
        if (r)
                return r;
        if (wish->json) {
                print_json(answer);
                return EXIT_OK;
        }
        printf("id      %s\nshard   %lld\nslot    %lld\n", text_of(answer, "id"),
                number_of(answer, "shard"), number_of(answer, "slot"));
        address = text_of(answer, "ipv6");
        if (!*address)
                address = text_of(answer, "ipv4");
        printf("address %s\n", *address ? address : "none: object addresses are off");
        if (*text_of(answer, "url"))
                printf("url     %s\n", text_of(answer, "url"));
        return EXIT_OK;
}

/* ---- bookmarks ---- */

static int objects_bookmark(const Wish *wish)
{
        _cleanup_(json_decref_p) json_t *answer = NULL;
        uint64_t time_ns;
        int r;

        if (!wish->at) {
                r = wish_ask(wish, "Bookmark", NULL, NULL, &answer, NULL);
        } else if (moment_parse(wish->at, clock_realtime_ns(), &time_ns)) {
                r = wish_ask(wish, "Bookmark", "time_ns", json_integer((json_int_t)time_ns),
                        &answer, NULL);
        } else {
                complain("--at '%s' is no moment: write 2026-11-22T18:30:00Z, '2026-11-22 18:30', "
                         "18:30, -1h30m, or seconds since 1970",
                        wish->at);
                r = EXIT_USAGE;
        }
        if (r)
                return r;
        if (wish->json)
                print_json(answer);
        else
                puts(text_of(answer, "bookmark"));
        return EXIT_OK;
}

/* Whoever is at a terminal types the object's name. */
static int confirm(const Wish *wish, const char *name, const char *what)
{
        _cleanup_(free_p) char *line = NULL;
        size_t room = 0;
        ssize_t n;

        if (wish->yes)
                return EXIT_OK;
        if (!isatty(STDIN_FILENO)) {
                complain("%s: say --yes, since nobody can be asked here", what);
                return EXIT_USAGE;
        }
        fprintf(stderr, "%s. Type the object's name to go on: ", what);
        n = getline(&line, &room, stdin);
        if (n > 0 && line[n - 1] == '\n')
                line[n - 1] = '\0';
        if (n > 0 && strcmp(line, name) == 0)
                return EXIT_OK;
        complain("that is not its name: nothing has been done");
        return EXIT_FAILED;
}

static int objects_restore(const Wish *wish)
{
        _cleanup_(json_decref_p) json_t *answer = NULL;
        _cleanup_(free_p) char *what = NULL;
        const char *name = wish->arguments[0];
        int r;

        if (asprintf(&what, "This replaces all that '%s' holds by what it held at the bookmark",
                    name) < 0) {
                what = NULL;
                return EXIT_FAILED;
        }
        r = confirm(wish, name, what);
        if (r)
                return r;
        r = wish_ask(wish, "Restore", "bookmark", json_string(wish->arguments[1]), &answer, NULL);
        if (r)
                return r;
        if (wish->json) {
                print_json(answer);
                return EXIT_OK;
        }
        fprintf(stderr, "restored '%s'; to undo it, restore it to\n", name);
        puts(text_of(answer, "undo"));
        return EXIT_OK;
}

/* ---- export ---- */

static int copy_all(int from, int to)
{
        _cleanup_(free_p) char *buffer = malloc(COPY_SIZE);
        off_t at = 0;

        if (!buffer)
                return -ENOMEM;
        for (;;) {
                ssize_t n = pread(from, buffer, COPY_SIZE, at);
                int r;

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n ? -errno : 0;
                r = fd_write_all(to, buffer, (size_t)n);
                if (r)
                        return r;
                at += n;
        }
}

static int sync_folder_of(const char *path)
{
        _cleanup_(free_p) char *copy = strdup(path);
        _cleanup_(close_p) int fd = -1;

        if (!copy)
                return -ENOMEM;
        fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 || fsync(fd) ? -errno : 0;
}

/* Where link() is not possible, as on FAT. */
static int move(const char *from, const char *to, bool force)
{
        return renameat2(AT_FDCWD, from, AT_FDCWD, to, force ? 0 : RENAME_NOREPLACE) ? -errno : 0;
}

/* A name beside the path that nothing has. Malloc'd. */
static char *name_beside(const char *path)
{
        uint64_t number;
        char *name;

        if (getrandom(&number, sizeof number, 0) != sizeof number ||
                asprintf(&name, "%s.%016llx", path, (unsigned long long)number) < 0)
                return NULL;
        return name;
}

/* Gives the finished file, which has no name, its own; without force only when nothing has it. */
static int give_name(int fd, const char *path, bool force)
{
        _cleanup_(free_p) char *temporary = NULL;
        char source[40];
        int r;

        snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
        if (!force)
                return linkat(AT_FDCWD, source, AT_FDCWD, path, AT_SYMLINK_FOLLOW) ? -errno : 0;
        temporary = name_beside(path);
        if (!temporary)
                return -ENOMEM;
        if (linkat(AT_FDCWD, source, AT_FDCWD, temporary, AT_SYMLINK_FOLLOW))
                return -errno;
        r = move(temporary, path, true);
        if (r)
                (void)unlink(temporary);
        return r;
}

/* In the folder of path: a file that goes with the process until it has its name. Where the file
 * system has no such thing, one with another name, which is *ret_name then. */
static int create_unnamed(const char *path, char **ret_name, int *ret)
{
        _cleanup_(free_p) char *copy = strdup(path), *name = NULL;

        *ret_name = NULL;
        if (!copy)
                return -ENOMEM;
        *ret = open(dirname(copy), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
        if (*ret >= 0)
                return 0;
        if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
                return -errno;
        name = name_beside(path);
        if (!name)
                return -ENOMEM;
        *ret = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (*ret < 0)
                return -errno;
        *ret_name = TAKE_PTR(name);
        return 0;
}

/* A file that is all there or is not there. */
static int save(int from, const char *path, bool force)
{
        _cleanup_(free_p) char *name = NULL;
        _cleanup_(close_p) int to = -1;
        int r = create_unnamed(path, &name, &to);

        if (r)
                return r;
        r = copy_all(from, to);
        if (!r && fsync(to))
                r = -errno;
        r = r ?: name ? move(name, path, force) : give_name(to, path, force);
        if (r && name)
                (void)unlink(name);
        return r ?: sync_folder_of(path);
}

/* NAME.sqlite, with nothing in it that leads to another folder. Malloc'd. */
static char *file_of_name(const char *name)
{
        char *path;

        if (asprintf(&path, "%s.sqlite", name) < 0)
                return NULL;
        for (char *c = path; *c; c++)
                if (*c == '/' || iscntrl((unsigned char)*c))
                        *c = '_';
        if (path[0] == '.' || path[0] == '-')
                path[0] = '_';
        return path;
}

static int export_to(const Wish *wish, const char *path)
{
        _cleanup_(json_decref_p) json_t *answer = NULL;
        _cleanup_(close_p) int fd = -1;
        bool to_stdout = strcmp(path, "-") == 0;
        int r;

        r = wish_ask(wish, "Export", wish->bookmark ? "bookmark" : NULL,
                wish->bookmark ? json_string(wish->bookmark) : NULL, &answer, &fd);
        if (r)
                return r;
        if (fd < 0) {
                complain("the daemon's answer brought no file");
                return EXIT_FAILED;
        }
        r = to_stdout ? copy_all(fd, STDOUT_FILENO) : save(fd, path, wish->force);
        if (r == -EEXIST) {
                complain("'%s' exists: name another file, or say --force to replace it", path);
                return EXIT_FAILED;
        }
        if (r) {
                complain("cannot write '%s': %s", path, strerror(-r));
                return EXIT_FAILED;
        }
        if (wish->json) {
                (void)json_object_del(answer, "fd");
                (void)json_object_set_new(answer, "file", json_string(path));
                print_json(answer);
        } else {
                fprintf(stderr, "wrote %lld bytes%s%s\n", number_of(answer, "size"),
                        to_stdout ? "" : " to ", to_stdout ? "" : path);
        }
        return EXIT_OK;
}

static int objects_snapshot(const Wish *wish)
{
        _cleanup_(json_decref_p) json_t *answer = NULL, *parameters = wish_parameters(wish);
        const char *from = wish->arguments[0], *to = wish->arguments[1];
        int r;

        if (!parameters ||
                json_object_set_new(
                        parameters, wish->id || is_id(to) ? "to_id" : "to", json_string(to)) < 0 ||
                json_object_set_new(parameters, "overwrite", json_boolean(wish->force)) < 0 ||
                (wish->bookmark && json_object_set_new(parameters, "bookmark",
                                           json_string(wish->bookmark)) < 0)) {
                complain("names and bookmarks are written in UTF-8");
                return EXIT_USAGE;
        }
        r = ask(wish->socket, "io.durabled.Objects.Snapshot", parameters, OBJECT_TIMEOUT_MS,
                &answer, NULL);
        if (r)
                return r;
        if (wish->json) {
                print_json(answer);
                return EXIT_OK;
        }
        if (*text_of(answer, "undo")) {
                fprintf(stderr, "replaced '%s' by a copy of '%s'; to undo it, restore it to\n", to,
                        from);
                puts(text_of(answer, "undo"));
        } else {
                fprintf(stderr, "made '%s', a copy of '%s'\n", to, from);
        }
        return EXIT_OK;
}

static int objects_export(const Wish *wish)
{
        _cleanup_(free_p) char *own =
                wish->n_arguments < 2 ? file_of_name(wish->arguments[0]) : NULL;
        const char *path = wish->n_arguments < 2 ? own : wish->arguments[1];
        bool to_stdout;

        if (!path)
                return EXIT_FAILED;
        to_stdout = strcmp(path, "-") == 0;
        if (to_stdout && (wish->json || isatty(STDOUT_FILENO))) {
                complain(wish->json ? "--json and the file cannot both go to standard output"
                                    : "a database is nothing for a terminal: name a file, or "
                                      "send it to a program");
                return EXIT_USAGE;
        }
        /* Said before the object's worker has made the file. */
        if (!to_stdout && !wish->force && access(path, F_OK) == 0) {
                complain("'%s' exists: name another file, or say --force to replace it", path);
                return EXIT_FAILED;
        }
        return export_to(wish, path);
}

/* ---- the table ---- */

static const WishVerb verbs[] = {
        { "address", "address APP CLASS NAME [--id]", "jsi", 3, 3, objects_address },
        { "bookmark", "bookmark NAME [--at TIME]", "jsiact", 1, 1, objects_bookmark },
        { "export", "export NAME [FILE|-] [--bookmark BOOKMARK] [--force]", "jsiacfb", 1, 2,
                objects_export },
        { "restore", "restore NAME BOOKMARK [--yes]", "jsiacy", 2, 2, objects_restore },
        { "snapshot", "snapshot NAME TO [--bookmark BOOKMARK] [--force]", "jsiacfb", 2, 2,
                objects_snapshot },
};

static int wish_parse(int argc, char **argv, Wish *ret, char *ret_used, size_t size)
{
        static const struct option options[] = {
                { "json", no_argument, NULL, 'j' },
                { "id", no_argument, NULL, 'i' },
                { "yes", no_argument, NULL, 'y' },
                { "force", no_argument, NULL, 'f' },
                { "socket", required_argument, NULL, 's' },
                { "app", required_argument, NULL, 'a' },
                { "class", required_argument, NULL, 'c' },
                { "at", required_argument, NULL, 't' },
                { "bookmark", required_argument, NULL, 'b' },
                { 0 },
        };
        Wish wish = { 0 };
        const char **texts[128] = { ['s'] = &wish.socket,
                ['a'] = &wish.app,
                ['c'] = &wish.class,
                ['t'] = &wish.at,
                ['b'] = &wish.bookmark };
        bool *flags[128] = {
                ['j'] = &wish.json, ['i'] = &wish.id, ['y'] = &wish.yes, ['f'] = &wish.force
        };
        size_t n = 0;
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
                if (c == '?')
                        return EXIT_USAGE;
                if (texts[c])
                        *texts[c] = optarg;
                else
                        *flags[c] = true;
                if (n + 1 < size)
                        ret_used[n++] = (char)c;
        }
        ret_used[n] = '\0';
        wish.verb = optind < argc ? argv[optind] : "";
        wish.arguments = argv + optind + 1;
        wish.n_arguments = MAX(argc - optind - 1, 0);
        *ret = wish;
        return EXIT_OK;
}

int command_objects(int argc, char **argv)
{
        char used[32];
        Wish wish;
        int r;

        r = wish_parse(argc, argv, &wish, used, sizeof used);
        if (r)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++) {
                const WishVerb *verb = &verbs[i];

                if (strcmp(verb->name, wish.verb) != 0)
                        continue;
                if (wish.n_arguments >= verb->arguments_min &&
                        wish.n_arguments <= verb->arguments_max &&
                        strspn(used, verb->options) == strlen(used))
                        return verb->run(&wish);
                complain("usage: durablectl objects %s%s [--json] [--socket PATH]", verb->usage,
                        strchr(verb->options, 'c') ? " [--app APP] [--class CLASS] [--id]" : "");
                return EXIT_USAGE;
        }
        complain("objects %s: there is only address, bookmark, restore, snapshot and export; "
                 "'durablectl objects --help' tells more",
                *wish.verb ? wish.verb : "needs a word");
        return EXIT_USAGE;
}
