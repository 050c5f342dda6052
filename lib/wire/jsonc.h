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

/* 0, a JSONC_E_*, or -ENOMEM. The value is a new reference. At most 64 levels deep, 4 MiB long. */
int jsonc_parse(Slice text, json_t **ret, JsoncError *error);
/*
 * The line (1-based) of the value at a path of keys and indexes as in
 * "durable_objects.bindings[0].name", of its key where it has one; 0 when there is none.
 */
unsigned jsonc_find_line(Slice text, const char *path);
