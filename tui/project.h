/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * An app's project folder, made ready to be served: manifest, dependencies, build command
 */

#include "lib/wire/manifest.h"

typedef struct Project {
        char *directory; /* absolute */
        char *state;     /* absolute; deps and the python shim live here */
        Manifest *manifest;
        char *python_path; /* colon separated, "" when there is none */
} Project;

/* 0, or EXIT_FAILED after saying that directory has no wrangler.jsonc; makes and changes nothing.
 */
int project_check(const char *directory);

/*
 * Reads wrangler.jsonc, installs what the project depends on and runs its build command; says on
 * standard error what it does and what it found. 0, or an EXIT_* status after the reason was
 * printed. first: tell the manifest's notes too.
 */
int project_prepare(const char *directory, const char *state, bool first, Project **ret);
Project *project_free(Project *project);
DEFINE_CLEANUP(Project *, project_free)
