/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Small files, folders and the clock
 *
 * For settings, tokens and set-up, not for the way of a request: these calls block.
 * All return 0 or a negative errno and log nothing.
 */

#include "lib/base/buf.h"

#include <sys/types.h>

/* Reads a whole file of at most max bytes into buf (appended); -EFBIG beyond. */
int file_read(const char *path, size_t max, Buf *buf);
/* Writes path by way of a synced temporary file and a rename, then syncs the folder. */
int file_write_atomic(const char *path, Slice data, mode_t mode);
/* Creates the folder and its missing parents. */
int dir_create(const char *path, mode_t mode);
/* Writes all of it or fails. */
int fd_write_all(int fd, const void *data, size_t len);
int fd_set_nonblocking(int fd);
/* Path joined of a folder and a name, malloc'd; NULL when memory is out. */
char *path_join(const char *folder, const char *name);

uint64_t clock_monotonic_ns(void);
uint64_t clock_realtime_ns(void);
/* n random bytes as 2n lower-case hex digits and a NUL; out has 2n + 1 bytes. */
void random_hex(char *out, size_t n);

#define NSEC_PER_SEC UINT64_C(1000000000)
#define NSEC_PER_MSEC UINT64_C(1000000)
