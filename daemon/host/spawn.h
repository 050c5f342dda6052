/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Starting a worker process
 *
 * The child has standard output and error of the supervisor, /dev/null as its input, the boot
 * socket as BOOT_FD, and no other descriptor. It is in a process group of its own (a terminal's
 * interrupt reaches the supervisor alone), has no capability in any set, no way to get one
 * (no_new_privs, SECBIT_NOROOT) and default signal handling. A worker ends by itself when its boot
 * socket is closed.
 */

#include "lib/base/macro.h"

#include <sys/types.h>

/* argv[0] is the program's name for people. path must be absolute or relative to the working
 * folder. 0, or a negative errno: of exec as well, nothing runs then. *ret_pidfd is the caller's.
 */
int spawn_worker(const char *path, char *const argv[], int boot_fd, pid_t *ret_pid, int *ret_pidfd);
