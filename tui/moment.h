/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Moments as people write them
 *
 *   2026-11-22T18:30:00Z, 2026-11-22 18:30:00.5+01:00   RFC 3339; without a zone: local time
 *   2026-11-22, 18:30, 18:30:15                         local; a time alone is today's
 *   -90s, -15m, -1h30m, -2d, -1w                        before now
 *   1790000000, 1790000000.25                           seconds since 1970
 *   now
 */

#include "lib/base/slice.h"

/* Nanoseconds since 1970. now_ns: the present. False: text is none of the above. */
bool moment_parse(const char *text, uint64_t now_ns, uint64_t *ret);
/* As RFC 3339 in UTC, to the second. */
void moment_format(uint64_t seconds, char out[32]);
