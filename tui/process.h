/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Child processes of durablectl, and where its companions are installed
 */

#include "lib/base/buf.h"

#include <sys/types.h>

/*
 * Runs argv in folder (NULL: here) with "NAME=value" additions to the environment and waits for it.
 * Standard output goes to out when given (at most its limit), else with standard error to errors.
 * Returns the exit status (128 + signal when it was killed), or a negative errno.
 */
int process_run(const char *const *argv, const char *folder, const char *const *environment,
        Buf *out, Buf *errors);
/* Starts argv and returns its pid or a negative errno. The child gets SIGTERM when we die. */
pid_t process_start(const char *const *argv);

/* The path of a companion program or folder: "durabled", "prepare-python", "modules", "template".
 * Looked for in $DURABLED_LIBEXEC, the build tree and the installed places. -ENOENT when nowhere.
 */
int companion_find(const char *name, char **ret);
