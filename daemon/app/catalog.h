/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The catalog: which apps, classes and versions this host knows (<state>/catalog.sqlite)
 *
 * Supervisor alone, at start and deploy. Keeps each class's uniqueKey, stable across renames,
 * unique in the catalog; plays the manifest's migrations in order and remembers the tags it has
 * played: the whole history may be presented again at every deploy.
 *
 * Guarantees:
 * 1. catalog_apply() either records everything the manifest asks for, in one transaction, or
 * nothing.
 * 2. No uniqueKey is given twice: a class created under the old name of a renamed one gets a
 * suffix.
 * 3. A deleted class's objects are not touched: the class is marked, its key is never given again.
 */

#include "lib/wire/manifest.h"

enum {
        _CATALOG_E_SUCCESS = 0,
        CATALOG_E_MIGRATION, /* the history contradicts what is recorded; error says how */
        CATALOG_E_CLASS,     /* a binding names a class that no migration created */
};

typedef struct Catalog Catalog;

typedef struct CatalogClass {
        char *class_name;
        char *unique_key;
} CatalogClass;

typedef struct CatalogError {
        unsigned line; /* of the manifest; 0 when unknown */
        char message[360];
} CatalogError;

int catalog_open(const char *path, Catalog **ret);
Catalog *catalog_close(Catalog *catalog);
DEFINE_CLEANUP(Catalog *, catalog_close)
/* Records app and migrations; *ret_classes are the app's live classes, in order of creation. */
int catalog_apply(Catalog *catalog, const Manifest *manifest, CatalogClass **ret_classes,
        size_t *ret_n, CatalogError *error);
void catalog_classes_free(CatalogClass *classes, size_t n);
