/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The table of the manifest's keys, and the grammar of its routes
 *
 * One row for each key, as docs/compatibility.md prints it. A parent is a row's path without its
 * last name: "" is the file's object, "migrations[]" an element of the list. For manifest.c alone.
 */

#include "lib/wire/manifest.h"

/* NULL when there is no such row. */
const ManifestKey *manifest_find_key(const char *parent, const char *name);
/* The name below parent that is closest to a mistyped one; NULL when none is close. */
const char *manifest_suggest_key(const char *parent, const char *name);
/* NULL, or what is wrong with the pattern of a route. */
const char *manifest_find_pattern_fault(Slice pattern);
/* NULL, or what is wrong with the object name of a route that has this pattern. */
const char *manifest_find_object_name_fault(Slice name, Slice pattern);
