/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Memory for the pages of logs, of the process
 *
 * A log is short-lived, and what SQLite holds for an open object is not: side by side in malloc's
 * heap the first leaves holes between the second that are too small to be given back, about 7 KiB
 * an open object. So pages of the usual size come from chunks of their own, which go back to the
 * system when they are empty; other sizes are malloc's. Any thread.
 */

#include <stddef.h>

#define POOL_PAGE_SIZE 4096u

/* Not cleared; NULL when memory is out. */
void *page_pool_get(size_t size);
/* page: from page_pool_get() of that size, or NULL. */
void page_pool_put(void *page, size_t size);
/* Gives back what is free. */
void page_pool_trim(void);
