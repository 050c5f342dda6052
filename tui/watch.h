/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Tells when files below a folder change (inotify), for durablectl dev
 *
 * Left out: names that start with ".", __pycache__, node_modules, editors' swap files, and the
 * folders named by skip (absolute). At most 4,096 folders are watched; what is beyond them is not,
 * with a warning.
 */

#include "lib/base/slice.h"

typedef struct Watch Watch;

int watch_new(const char *folder, const char *const *skip, Watch **ret);
Watch *watch_free(Watch *watch);
DEFINE_CLEANUP(Watch *, watch_free)
/* To poll for POLLIN. */
int watch_get_fd(const Watch *watch);
/* Reads what happened; true when a file that counts has changed. name gets the last one's name. */
bool watch_read(Watch *watch, char *name, size_t name_size);
