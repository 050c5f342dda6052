/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/manifest-keys.h"

#define OBJECT_NAME_MAX_LENGTH 255u

/*
 * One {placeholder} of a pattern or a name: *rest is moved behind it. False when it is never closed
 * or no identifier.
 */
static bool take_placeholder(Slice *rest, Slice *ret)
{
        ptrdiff_t end = slice_find(*rest, '}');

        if (end < 0)
                return false;
        *ret = slice_of(rest->data + 1, (size_t)end - 1);
        *rest = slice_skip(*rest, (size_t)end + 1);
        return manifest_is_identifier(*ret);
}

static bool pattern_has(Slice pattern, Slice placeholder)
{
        for (size_t i = 0; i + placeholder.len + 2 <= pattern.len; i++)
                if (pattern.data[i] == '{' && pattern.data[i + placeholder.len + 1] == '}' &&
                        slice_equal(slice_of(pattern.data + i + 1, placeholder.len), placeholder))
                        return true;
        return false;
}

const char *manifest_find_pattern_fault(Slice pattern)
{
        ptrdiff_t slash = slice_find(pattern, '/');
        Slice name, rest = pattern;

        if (slash < 0)
                return "it has no /: write HOST/PATH, or /PATH for every host";
        while (rest.len) {
                char c = rest.data[0], before = rest.data == pattern.data ? '/' : rest.data[-1];
                bool host = rest.data < pattern.data + slash;

                if (c <= ' ' || c >= 0x7f || strchr("}?#%\\", c))
                        return "it holds a character that no pattern has";
                if (c == '*' && (before != '/' || host || rest.len != 1))
                        return "* stands at the end alone, behind a /";
                if (c != '{') {
                        rest = slice_skip(rest, 1);
                        continue;
                }
                if (before != '/' && !(host && before == '.'))
                        return "a {placeholder} stands for a whole segment or label";
                if (!take_placeholder(&rest, &name))
                        return "a {placeholder} needs a name of letters, digits and _";
                if (rest.len && rest.data[0] != '/' && !(host && strchr(".:", rest.data[0])))
                        return "a {placeholder} stands for a whole segment or label";
                if (pattern_has(rest, name))
                        return "a {placeholder} stands twice";
        }
        return NULL;
}

const char *manifest_find_object_name_fault(Slice name, Slice pattern)
{
        Slice rest = name, placeholder;

        if (name.len > OBJECT_NAME_MAX_LENGTH)
                return "it is longer than 255 bytes";
        while (rest.len) {
                if (rest.data[0] == '}')
                        return "a } stands without its {";
                if (rest.data[0] != '{') {
                        rest = slice_skip(rest, 1);
                        continue;
                }
                if (!take_placeholder(&rest, &placeholder))
                        return "a {placeholder} needs a name of letters, digits and _";
                if (!pattern_has(pattern, placeholder))
                        return "it has a {placeholder} that the pattern has not";
        }
        return NULL;
}
