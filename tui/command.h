/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * durablectl's subcommands
 *
 * Each is a function of its arguments (argv[0] is its own name) that returns an exit status:
 */

#include "lib/base/slice.h"

enum {
        EXIT_OK = 0,
        EXIT_FAILED = 1,    /* it was tried and did not work; the reason is on standard error */
        EXIT_USAGE = 2,     /* the arguments are wrong */
        EXIT_ABSENT = 3,    /* there is no such object */
        EXIT_NO_DAEMON = 4, /* no daemon answers on the control socket */
};

typedef struct Command {
        const char *name;
        const char *arguments; /* for the usage line */
        const char *summary;   /* one line */
        const char *help;      /* what --help adds: options and examples */
        int (*run)(int argc, char **argv);
} Command;

extern const Command commands[];
extern const size_t n_commands;

int command_dev(int argc, char **argv);
int command_fsck(int argc, char **argv);
int command_init(int argc, char **argv);
int command_status(int argc, char **argv);
int command_reload(int argc, char **argv);
int command_objects(int argc, char **argv);

/* "durablectl: <message>" on standard error. */
void complain(const char *format, ...) __attribute__((__format__(printf, 1, 2)));
/* Whether colour may be used on that stream: a terminal, TERM is not dumb, NO_COLOR is unset. */
bool may_colour(int fd);
