/* SPDX-License-Identifier: Apache-2.0 */

/*
 * JSON with comments: plain JSON means what it always meant, and every place has a line
 *
 * Input: the text. Its beginning also serves as a path to look for.
 */

#include "lib/wire/jsonc.h"

#include <stdio.h>

#define PATH_SIZE 600u
#define PLACES_MAX 300u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Walk {
        Slice text;
        unsigned lines, places;
} Walk;

static void visit(Walk *walk, json_t *json, char path[static PATH_SIZE], unsigned line);

static void visit_member(
        Walk *walk, json_t *value, char path[static PATH_SIZE], unsigned line, size_t length)
{
        unsigned at = jsonc_find_line(walk->text, path);

        dd_assert(at >= line && at <= walk->lines);
        visit(walk, value, path, at);
        path[length] = '\0';
}

/* Every member that has a path is found, not before what holds it and not behind the end. */
static void visit(Walk *walk, json_t *json, char path[static PATH_SIZE], unsigned line)
{
        size_t length = strlen(path), i;
        const char *key;
        json_t *value;

        if (walk->places++ > PLACES_MAX)
                return;
        json_object_foreach(json, key, value)
        {
                if (length + strlen(key) + 8 > PATH_SIZE || strchr(key, '"'))
                        continue;
                snprintf(path + length, PATH_SIZE - length, "[\"%s\"]", key);
                visit_member(walk, value, path, line, length);
        }
        json_array_foreach(json, i, value)
        {
                if (length + 32 > PATH_SIZE)
                        return;
                snprintf(path + length, PATH_SIZE - length, "[%zu]", i);
                visit_member(walk, value, path, line, length);
        }
}

static void check_value(Walk *walk, json_t *json)
{
        char *text = json_dumps(json, JSON_ENCODE_ANY);
        char path[PATH_SIZE] = "";
        JsoncError error = { 0 };
        json_t *again = NULL;

        dd_assert(text && jsonc_parse(slice_from(text), &again, &error) == 0);
        json_decref(again);
        free(text);
        visit(walk, json, path, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        Walk walk = { .text = slice_of(data, size), .lines = 1 };
        json_t *json = NULL, *plain;
        JsoncError error = { 0 };
        char path[64];
        int r;

        for (size_t i = 0; i < size; i++)
                walk.lines += data[i] == '\n';
        r = jsonc_parse(walk.text, &json, &error);
        plain = json_loadb(
                (const char *)data, size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
        if (r) {
                dd_assert(r == JSONC_E_SYNTAX || r == JSONC_E_DUPLICATE);
                dd_assert(!json && error.message[0] && error.line <= walk.lines);
                /* jansson takes a NUL byte behind the value for the end. */
                dd_assert(!plain || strstr(error.message, "levels") || memchr(data, 0, size));
        } else {
                dd_assert(!plain || json_equal(json, plain));
                check_value(&walk, json);
        }
        snprintf(path, sizeof path, "%.*s", (int)MIN(size, (size_t)40), (const char *)data);
        dd_assert(jsonc_find_line(walk.text, path) <= walk.lines);
        json_decref(plain);
        json_decref(json);
        return 0;
}
