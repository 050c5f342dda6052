/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Page deltas: XOR against an earlier image, runs of zeros left out
 *
 *     delta = { skip: varint, count: varint, count bytes }*
 *
 * Each group leaves skip bytes as they are and XORs count bytes into those that follow; what is
 * after the last group stays as it is. varint: 7 bits to a byte, low ones first, the high bit says
 * that more follow; at most 3 bytes. A run of fewer than DELTA_GAP equal bytes between two changes
 * is not worth a group of its own. Without a base the page is taken against zeros.
 *
 * Guarantees:
 * 1. delta_encode() writes at most its limit or says that it does not fit.
 * 2. delta_apply() judges any bytes: it never writes beyond the page, and a delta that reaches
 *    beyond it or ends early is -EBADMSG.
 */

#include <stddef.h>
#include <stdint.h>

#define DELTA_GAP 4u
#define DELTA_PAGE_MAX 65536u

/* The length of the delta that makes page of base (NULL: zeros), or -ENOBUFS beyond limit. */
int delta_encode(const void *base, const void *page, size_t page_size, void *out, size_t limit);
/* Turns the base in page into the new page. */
int delta_apply(const void *delta, size_t len, void *page, size_t page_size);
