/* SPDX-License-Identifier: Apache-2.0 */

/*
 * durablectl: a table of subcommands
 */

#include "tui/command.h"

#include <stdarg.h>
#include <stdio.h>

const Command commands[] = {
        { "init", "DIR", "make a new Django project for durable objects in DIR",
                "Copies the template into DIR, which must not exist or be empty.\n\n"
                "  durablectl init blog && durablectl dev blog\n",
                command_init },
        { "dev", "[DIR] [OPTION...]", "serve a project in the foreground, reload it on change",
                "  --listen ADDR:PORT   where to listen (default 127.0.0.1:8787)\n"
                "  --state DIR          where objects and settings are kept (default "
                "DIR/.durabled)\n"
                "  --workers N          worker processes (default: one per core)\n"
                "  --steering HOW       how connections find their worker: auto, address, late, "
                "off\n"
                "  --create-admin       make Django's first admin and print its password\n"
                "  --no-reload          do not watch the project's files\n\n"
                "DIR (default: the current folder) holds wrangler.jsonc. Needs no privileges: "
                "without\n"
                "them connections are handed to the right worker in user space instead of the "
                "kernel.\n\n"
                "  durablectl dev . --listen 127.0.0.1:9000 --workers 2\n",
                command_dev },
        { "status", "[--json] [--socket PATH]", "show workers, objects, requests and steering",
                "  --json               the daemon's answer as it is\n"
                "  --socket PATH        the control socket (default: $DURABLED_SOCKET, then\n"
                "                       ./.durabled/run/control, then /run/durabled/control)\n",
                command_status },
        { "reload", "[--socket PATH]", "load the apps anew, worker by worker",
                "  --socket PATH        the control socket (as for 'status')\n", command_reload },
        { "fsck", "[--state DIR] [--app NAME] [--quick] [--jobs N] [--json]",
                "check journals, archives and databases of a stopped service",
                "  --state DIR          the state folder (default: ./.durabled, then "
                "/var/lib/durabled)\n"
                "  --app NAME           this app alone\n"
                "  --quick              leave out databases' indexes and the archives' content\n"
                "  --jobs N             databases at a time (default: one per core)\n"
                "  --json               a line of JSON for each finding, then a summary\n\n"
                "Changes nothing. What the next start would redo from the journals is redone into\n"
                "a file in $TMPDIR (default /var/tmp), and databases are checked as that leaves\n"
                "them. While a service runs only its archives can be checked.\n\n"
                "Exit status: 0 clean (notes are no fault), 1 damage or files that do not belong\n"
                "there, 2 not everything could be checked. 'durabled --recover' tells what can be\n"
                "done about a damaged journal.\n\n"
                "  systemctl stop durabled && durablectl fsck --state /var/lib/durabled\n",
                command_fsck },
        { "objects", "address|bookmark|restore|snapshot|export ... [OPTION...]",
                "one object: its address, its history, a copy of it",
                "  address APP CLASS NAME      its id, shard, worker and address\n"
                "  bookmark NAME [--at TIME]   print the bookmark of now, or of a moment\n"
                "  restore NAME BOOKMARK       make it what it was; prints the bookmark that "
                "undoes it\n"
                "  snapshot NAME TO            copy it into another object of its class\n"
                "  export NAME [FILE|-]        copy it into an ordinary SQLite file (default "
                "NAME.sqlite)\n\n"
                "NAME is the object's name or its id of 64 hex digits. An object that does not "
                "exist is an\n"
                "error: exit status 3.\n\n"
                "  --app APP, --class CLASS    where more than one class has such an object\n"
                "  --id                        NAME is an id\n"
                "  --at TIME                   2026-11-22T18:30:00Z, '2026-11-22 18:30' and 18:30 "
                "(local\n"
                "                              time), -90s, -15m, -1h30m, -2d, seconds since "
                "1970\n"
                "  --yes                       do not ask before a restore\n"
                "  --bookmark BOOKMARK         snapshot and export: as it was then\n"
                "  --force                     replace FILE, or the object TO\n"
                "  --json                      the daemon's answer as it is\n"
                "  --socket PATH               the control socket (as for 'status')\n\n"
                "  durablectl objects bookmark acme --at -1h\n"
                "  durablectl objects restore acme \"$(durablectl objects bookmark acme --at "
                "18:30)\"\n"
                "  durablectl objects export acme - | ssh backup 'cat > acme.sqlite'\n",
                command_objects },
};
const size_t n_commands = ELEMENTSOF(commands);

void complain(const char *format, ...)
{
        va_list args;

        va_start(args, format);
        fputs("durablectl: ", stderr);
        vfprintf(stderr, format, args);
        fputc('\n', stderr);
        va_end(args);
}

bool may_colour(int fd)
{
        const char *term = getenv("TERM");
        const char *no = getenv("NO_COLOR");

        return isatty(fd) && term && strcmp(term, "dumb") != 0 && (!no || !*no);
}

static void print_help(void)
{
        printf("durablectl %s - run and look after durable objects\n\nUsage: durablectl COMMAND "
               "[ARGUMENT...]\n\n",
                DURABLED_VERSION);
        for (size_t i = 0; i < n_commands; i++)
                printf("  %-9s %s\n", commands[i].name, commands[i].summary);
        printf("\n'durablectl COMMAND --help' tells more about one. Exit status: 0 done, 1 "
               "failed,\n"
               "2 wrong arguments, 3 no such object, 4 no daemon answers.\n");
}

static void print_command_help(const Command *command)
{
        printf("durablectl %s %s\n    %s\n", command->name, command->arguments, command->summary);
        if (*command->help)
                printf("\n%s", command->help);
}

static const Command *find_command(const char *name)
{
        for (size_t i = 0; i < n_commands; i++)
                if (strcmp(commands[i].name, name) == 0)
                        return &commands[i];
        return NULL;
}

int main(int argc, char **argv)
{
        const Command *command;
        char name[64];

        if (argc < 2) {
                print_help();
                return EXIT_USAGE;
        }
        if (strcmp(argv[1], "--version") == 0) {
                printf("durablectl %s\n", DURABLED_VERSION);
                return EXIT_OK;
        }
        if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
                print_help();
                return EXIT_OK;
        }
        if (strcmp(argv[1], "help") == 0) {
                command = argc > 2 ? find_command(argv[2]) : NULL;
                if (command)
                        print_command_help(command);
                else
                        print_help();
                return EXIT_OK;
        }
        command = find_command(argv[1]);
        if (!command) {
                complain("there is no command '%s'; 'durablectl --help' lists them", argv[1]);
                return EXIT_USAGE;
        }
        for (int i = 2; i < argc; i++)
                if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
                        print_command_help(command);
                        return EXIT_OK;
                }
        /* As getopt() says it in its messages. */
        snprintf(name, sizeof name, "durablectl %s", command->name);
        argv[1] = name;
        return command->run(argc - 1, argv + 1);
}
