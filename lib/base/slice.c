/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/slice.h"

static char lower(char c)
{
        return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool slice_equal_case(Slice a, Slice b)
{
        if (a.len != b.len)
                return false;
        for (size_t i = 0; i < a.len; i++)
                if (lower(a.data[i]) != lower(b.data[i]))
                        return false;
        return true;
}

bool slice_has_prefix(Slice s, Slice prefix)
{
        return s.len >= prefix.len && slice_equal(slice_head(s, prefix.len), prefix);
}

bool slice_has_suffix(Slice s, Slice suffix)
{
        return s.len >= suffix.len && slice_equal(slice_skip(s, s.len - suffix.len), suffix);
}

ptrdiff_t slice_find(Slice s, char c)
{
        const char *found = s.len ? memchr(s.data, c, s.len) : NULL;

        return found ? found - s.data : -1;
}

Slice slice_trim(Slice s)
{
        while (s.len && (s.data[0] == ' ' || s.data[0] == '\t'))
                s = slice_skip(s, 1);
        while (s.len && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
                s.len--;
        return s;
}

Slice slice_cut(Slice *rest, char separator)
{
        Slice all = *rest;
        ptrdiff_t at = slice_find(all, separator);

        if (at < 0) {
                *rest = slice_skip(all, all.len);
                return all;
        }
        *rest = slice_skip(all, (size_t)at + 1);
        return slice_head(all, (size_t)at);
}

bool slice_to_u64(Slice s, uint64_t *ret)
{
        uint64_t value = 0;

        if (s.len == 0)
                return false;
        for (size_t i = 0; i < s.len; i++) {
                if (s.data[i] < '0' || s.data[i] > '9')
                        return false;
                if (__builtin_mul_overflow(value, 10, &value) ||
                        __builtin_add_overflow(value, (uint64_t)(s.data[i] - '0'), &value))
                        return false;
        }
        *ret = value;
        return true;
}

char *slice_dup(Slice s)
{
        char *copy = malloc(s.len + 1);

        if (!copy)
                return NULL;
        if (s.len)
                memcpy(copy, s.data, s.len);
        copy[s.len] = '\0';
        return copy;
}
