/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Slices: borrowed bytes with a length
 *
 * A Slice never owns memory, is not NUL-terminated and may hold NUL bytes. { NULL, 0 } is empty.
 * Comparisons that say "case" fold ASCII letters only, as HTTP and DNS names do.
 */

#include "lib/base/macro.h"

#include <stdbool.h>
#include <string.h>

typedef struct Slice {
        const char *data;
        size_t len;
} Slice;

#define SLICE(_literal) ((Slice){ ("" _literal ""), sizeof(_literal) - 1 })

/* For printf("%.*s"). */
#define SLICE_FMT(_slice) (int)(_slice).len, (_slice).data ? (_slice).data : ""

static inline Slice slice_from(const char *string)
{
        return (Slice){ string, string ? strlen(string) : 0 };
}

static inline Slice slice_of(const void *data, size_t len)
{
        return (Slice){ data, len };
}

static inline bool slice_equal(Slice a, Slice b)
{
        return a.len == b.len &&
               (a.len == 0 || (a.data && b.data && memcmp(a.data, b.data, a.len) == 0));
}

static inline Slice slice_skip(Slice s, size_t n)
{
        return n >= s.len ? (Slice){ s.data + s.len, 0 } : (Slice){ s.data + n, s.len - n };
}

static inline Slice slice_head(Slice s, size_t n)
{
        return (Slice){ s.data, n < s.len ? n : s.len };
}

bool slice_equal_case(Slice a, Slice b);
bool slice_has_prefix(Slice s, Slice prefix);
bool slice_has_suffix(Slice s, Slice suffix);
/* Index of the first c, or -1. */
ptrdiff_t slice_find(Slice s, char c);
/* Without leading and trailing spaces and tabs. */
Slice slice_trim(Slice s);
/* Cuts at the first separator: returns what is before it, leaves what is after in *rest. */
Slice slice_cut(Slice *rest, char separator);
/* Decimal digits alone; false on anything else, on overflow and on an empty slice. */
bool slice_to_u64(Slice s, uint64_t *ret);
/* A NUL-terminated copy, owned by the caller; NULL when memory is out. */
char *slice_dup(Slice s);
