/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The manifest of an app: wrangler.jsonc
 *
 * Parsed strictly: a key is used, accepted with a note, or refused with its line. Nothing is
 * silently dropped. The table of keys is in docs/compatibility.md and in manifest.c. All strings
 * are owned by the Manifest. Source: Cloudflare's "Wrangler configuration" page.
 */

#include "lib/wire/jsonc.h"

enum {
        _MANIFEST_E_SUCCESS = 0,
        MANIFEST_E_SYNTAX,      /* not JSON with comments */
        MANIFEST_E_INVALID,     /* a known key with a wrong value, or a missing one */
        MANIFEST_E_UNSUPPORTED, /* a key that means something we do not have */
};

typedef struct ManifestError {
        unsigned line, column;
        char key[128];
        char message[360]; /* what is wrong and what would be right, without the position */
} ManifestError;

typedef struct ManifestBinding {
        char *name; /* env.NAME */
        char *class_name;
        unsigned line;
} ManifestBinding;

typedef enum MigrationKind {
        MIGRATION_NEW, /* new_classes: accepted, stored as SQLite like the next */
        MIGRATION_NEW_SQLITE,
        MIGRATION_RENAMED, /* from -> to */
        MIGRATION_DELETED,
        MIGRATION_TRANSFERRED, /* from of from_script -> to */
} MigrationKind;

typedef struct ManifestMigration {
        char *tag; /* steps of one tag stand together, in order */
        MigrationKind kind;
        char *class_name; /* new, deleted: the class; renamed, transferred: "to" */
        char *from;       /* renamed, transferred */
        char *from_script;
        unsigned line;
} ManifestMigration;

/* "durabled": {"routes": [{"pattern": "host/path", "binding": "...", "name": "..."}]} */
typedef struct ManifestRoute {
        char *pattern;
        char *binding;
        char *name; /* may hold {placeholders} of the pattern */
        unsigned line;
} ManifestRoute;

typedef struct ManifestNote {
        unsigned line;
        char *key;
        char *message;
} ManifestNote;

typedef enum ManifestDjango { MANIFEST_DJANGO_OURS, MANIFEST_DJANGO_VENDORED } ManifestDjango;

typedef struct Manifest {
        char *name;
        char *main;               /* relative to the folder of the manifest, as "src/index.py" */
        char *compatibility_date; /* NULL when absent */
        char **compatibility_flags;
        size_t n_compatibility_flags;
        ManifestBinding *bindings;
        size_t n_bindings;
        ManifestMigration *migrations;
        size_t n_migrations;
        char *assets_directory; /* assets.directory or site.bucket, NULL when absent */
        char *assets_binding;   /* assets.binding, NULL when absent */
        char *build_command;    /* NULL when absent */
        char *build_cwd;        /* NULL: the folder of the manifest */
        json_t *vars;           /* an object, never NULL; values are any JSON */
        ManifestDjango django_cf;
        bool migrate_on_first_event; /* "durabled": {"migrate": "auto" (default) | "manual"} */
        bool management_open;        /* "durabled": {"management": "token" (default) | "open"} */
        ManifestRoute *routes;
        size_t n_routes;
        ManifestNote *notes; /* what was accepted and has no effect, for the user to read */
        size_t n_notes;
} Manifest;

typedef enum ManifestKeyUse {
        MANIFEST_KEY_USED,
        MANIFEST_KEY_NOTED,   /* accepted, without effect: a note says so */
        MANIFEST_KEY_REFUSED, /* unless its value is empty, which asks for nothing */
} ManifestKeyUse;

typedef struct ManifestKey {
        const char *path; /* "build.cwd", "migrations[].tag" */
        ManifestKeyUse use;
        const char *text; /* what it does, or what to do instead */
} ManifestKey;

/* The table, in the order of docs/compatibility.md. */
const ManifestKey *manifest_get_keys(size_t *ret_n);

#define MANIFEST_SIZE_MAX (1u << 20)
#define MANIFEST_BINDINGS_MAX 256u
#define MANIFEST_STEPS_MAX 1024u /* of migrations */
#define MANIFEST_ROUTES_MAX 256u
#define MANIFEST_FLAGS_MAX 64u

/* 0, MANIFEST_E_* (error is filled), or -ENOMEM. */
int manifest_parse(Slice text, Manifest **ret, ManifestError *error);
Manifest *manifest_free(Manifest *manifest);
DEFINE_CLEANUP(Manifest *, manifest_free)

/* NULL when absent. */
const ManifestBinding *manifest_find_binding(const Manifest *manifest, Slice name);
/* Plays the whole migrations history and says whether the class exists at its end. */
bool manifest_has_class(const Manifest *manifest, Slice class_name);
/* a-z, 0-9, - and _, not - first, at most 63. */
bool manifest_is_app_name(Slice name);
/* Letters, digits and _, no digit first, at most 127: class names, binding names. */
bool manifest_is_identifier(Slice name);
