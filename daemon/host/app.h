/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * An app as the supervisor knows it: its manifest, its classes in the catalog, its vars
 *
 * Read at start and at each reload; immutable then. Nothing of the guest's code is loaded here.
 *
 * vars_file holds KEY=value lines as `.dev.vars` does (# comments, an optional "export ", single or
 * double quotes, \n in double quotes) or one JSON object; its values win over the manifest's.
 */

#include "daemon/app/catalog.h"
#include "daemon/core/config.h"
#include "lib/wire/manifest.h"

#define HOST_APP_VARS_MAX (64u << 10)

enum {
        _HOST_APP_E_SUCCESS = 0,
        HOST_APP_E_INVALID, /* error says which file, where and what */
};

typedef struct HostApp {
        const ConfigApp *config; /* borrowed */
        char *directory;         /* absolute */
        Manifest *manifest;
        CatalogClass *classes;
        size_t n_classes;
        json_t *vars; /* an object */
} HostApp;

typedef struct HostAppError {
        char message[800];
} HostAppError;

/* Also records the manifest in the catalog; NULL: reads alone, there are no classes then. 0,
 * HOST_APP_E_INVALID, or a negative errno. */
int host_app_load(const ConfigApp *config, Catalog *catalog, HostApp **ret, HostAppError *error);
HostApp *host_app_free(HostApp *app);
DEFINE_CLEANUP(HostApp *, host_app_free)
/* NULL when absent. */
const CatalogClass *host_app_find_class(const HostApp *app, const char *class_name);

/* Puts the vars of text over what is in vars. 0, HOST_APP_E_INVALID, -ENOMEM. */
int host_app_read_vars(Slice text, const char *path, json_t *vars, HostAppError *error);
