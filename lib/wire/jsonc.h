/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * JSON with comments and trailing commas, and where in the text a value stands
 *
 * Comments and trailing commas are blanked out, byte for byte, so that every position in an error
 * is the position in the file; then jansson parses. This room alone includes jansson.h, and hands
 * its json_t on: other rooms use it by including this header.
 */

#include "lib/base/slice.h"

#include <jansson.h>

enum {
        _JSONC_E_SUCCESS = 0,
        JSONC_E_SYNTAX,    /* error says what and where */
        JSONC_E_DUPLICATE, /* a key stands twice in one object */
};

typedef struct JsoncError {
        unsigned line, column; /* 1-based; 0 when unknown */
        char message[240];
} JsoncError;

static inline void json_decref_p(json_t **json)
{
        json_decref(*json);
}

#define JSONC_SIZE_MAX (4u << 20)
#define JSONC_DEPTH_MAX 64u

/*
 * 0, a JSONC_E_* (error is filled), or -ENOMEM. The value is a new reference and of any type. The
 * text is UTF-8 without NUL bytes; a byte order mark in front is skipped.
 */
int jsonc_parse(Slice text, json_t **ret, JsoncError *error);
/*
 * The line (1-based) of the value at a path of keys and indexes as in
 * "durable_objects.bindings[0].name", of its key where it has one; 0 when there is none. A key that
 * itself holds a dot or a bracket is written ["like.this"]. For text that jsonc_parse() accepts.
 */
unsigned jsonc_find_line(Slice text, const char *path);
