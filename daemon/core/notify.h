/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the service tells systemd about itself
 *
 * Every call does nothing and returns 0 when nobody asked for it (no $NOTIFY_SOCKET): `durabled`
 * in the foreground. Errors are negative errno values; a service goes on without. Any thread.
 */

#include "lib/base/macro.h"

#include <stdbool.h>

/* Is somebody listening? */
bool notify_is_wanted(void);
/* Serving. status: one line for `systemctl status`, or NULL. */
int notify_ready(const char *status, ...) _printf_(1, 2);
int notify_status(const char *format, ...) _printf_(1, 2);
/* Takes up new settings or code, until the next notify_ready(). */
int notify_reloading(const char *format, ...) _printf_(1, 2);
/* Ends; the status says why. */
int notify_stopping(const char *format, ...) _printf_(1, 2);
/* The start, reload or stop that goes on may take this much longer, from now. */
int notify_extend(uint64_t ns);
/* Alive. */
int notify_watchdog(void);
/* How often notify_watchdog() is due, half of the unit's limit; 0: never. */
uint64_t notify_watchdog_ns(void);
/* Keeps fd (not taken) under name over a restart of the service; a second call with the same name
 * adds one. poll: drop it when it hangs up; BPF maps need false. */
int notify_store_fd(const char *name, int fd, bool poll);
/* Lets go of all that are kept under name. */
int notify_remove_fds(const char *name);
