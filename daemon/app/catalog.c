/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/app/catalog.h"

#include "daemon/app/catalog-scripts.h"
#include "lib/base/buf.h"
#include "lib/store/db.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define KEY_SUFFIX_MAX 10000u
#define KEY_SIZE 256u
#define STEPS_TEXT_MAX (1u << 20)

struct Catalog {
        Db *db;
};

/* One call of catalog_apply(). */
typedef struct Deploy {
        Db *db;
        const Manifest *manifest;
        CatalogError *error;
} Deploy;

/* A tag that has been played. */
typedef struct Played {
        char *tag;
        char *steps;
} Played;

typedef struct History {
        Played *items;
        size_t n;
} History;

static void set_fault(CatalogError *error, unsigned line, const char *format, ...) _printf_(3, 4);

static void set_fault(CatalogError *error, unsigned line, const char *format, ...)
{
        va_list args;

        *error = (CatalogError){ .line = line };
        va_start(args, format);
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
}

/* Fills the error; its value is the code. */
#define refuse(_deploy, _code, _line, ...) \
        (set_fault((_deploy)->error, _line, __VA_ARGS__), (_code))

int catalog_open(const char *path, Catalog **ret)
{
        _cleanup_(free_p) Catalog *catalog = calloc(1, sizeof *catalog);
        int r;

        if (!catalog)
                return -ENOMEM;
        r = db_open_own(path, catalog_scripts, ELEMENTSOF(catalog_scripts), &catalog->db);
        if (r)
                return r;
        *ret = TAKE_PTR(catalog);
        return 0;
}

Catalog *catalog_close(Catalog *catalog)
{
        if (!catalog)
                return NULL;
        db_close(catalog->db);
        free(catalog);
        return NULL;
}

static void history_done(History *history)
{
        for (size_t i = 0; i < history->n; i++) {
                free(history->items[i].tag);
                free(history->items[i].steps);
        }
        free(history->items);
}

static int take_played(const DbValue *values, size_t n, void *data)
{
        History *history = data;
        Played *grown = realloc(history->items, (history->n + 1) * sizeof *grown);

        if (!grown)
                return -ENOMEM;
        history->items = grown;
        grown += history->n++;
        grown->tag = slice_dup(values[0].bytes);
        grown->steps = slice_dup(values[1].bytes);
        return grown->tag && grown->steps ? 0 : -ENOMEM;
}

static int read_history(Deploy *deploy, History *history)
{
        DbValue app = DB_STR(slice_from(deploy->manifest->name));

        return db_run(deploy->db,
                "SELECT tag, steps FROM migrations WHERE app = ? ORDER BY position", &app, 1,
                take_played, history);
}

static int compare_lines(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *describe_step(const ManifestMigration *step)
{
        char *line = NULL;
        int n;

        switch (step->kind) {
        case MIGRATION_NEW:
        case MIGRATION_NEW_SQLITE:
                /* The same here: a tag may turn one into the other. */
                n = asprintf(&line, "new %s\n", step->class_name);
                break;
        case MIGRATION_DELETED:
                n = asprintf(&line, "deleted %s\n", step->class_name);
                break;
        case MIGRATION_RENAMED:
                n = asprintf(&line, "renamed %s %s\n", step->from, step->class_name);
                break;
        case MIGRATION_TRANSFERRED:
                n = asprintf(&line, "transferred %s %s %s\n", step->from_script, step->from,
                        step->class_name);
                break;
        default:
                dd_unreachable();
        }
        return n < 0 ? NULL : line;
}

/* The steps of one tag as text, the same for every order in which the file may name them. */
static int describe_steps(const ManifestMigration *steps, size_t n, char **ret)
{
        char **lines = calloc(n, sizeof *lines);
        Buf buf = BUF_INIT(STEPS_TEXT_MAX);
        char *text = NULL;
        int r = lines ? 0 : -ENOMEM;

        for (size_t i = 0; !r && i < n; i++) {
                lines[i] = describe_step(&steps[i]);
                if (!lines[i])
                        r = -ENOMEM;
        }
        if (!r)
                qsort(lines, n, sizeof *lines, compare_lines);
        for (size_t i = 0; !r && i < n; i++)
                r = buf_append_string(&buf, lines[i]);
        if (!r) {
                text = buf_take(&buf);
                r = text ? 0 : -ENOMEM;
        }
        for (size_t i = 0; lines && i < n; i++)
                free(lines[i]);
        free(lines);
        buf_done(&buf);
        if (!r)
                *ret = text;
        return r;
}

typedef struct Found {
        bool found;
        int64_t integer;
} Found;

static int take_found(const DbValue *values, size_t n, void *data)
{
        *(Found *)data = (Found){ .found = true, .integer = values[0].integer };
        return 0;
}

/* The row of a live class; *ret->found tells whether there is one. */
static int find_class(Deploy *deploy, const char *app, const char *class_name, Found *ret)
{
        DbValue values[] = { DB_STR(slice_from(app)), DB_STR(slice_from(class_name)) };

        *ret = (Found){};
        return db_run(deploy->db,
                "SELECT id FROM classes WHERE app = ? AND class_name = ? AND state = 'live'",
                values, ELEMENTSOF(values), take_found, ret);
}

/* The unique key of a new class: <app>-<class>, with a number where that has been given before. */
static int choose_key(Deploy *deploy, const char *class_name, char out[static KEY_SIZE])
{
        const char *app = deploy->manifest->name;

        for (unsigned i = 1; i <= KEY_SUFFIX_MAX; i++) {
                Found taken = {};
                DbValue value;
                int r;

                if (i == 1)
                        snprintf(out, KEY_SIZE, "%s-%s", app, class_name);
                else
                        snprintf(out, KEY_SIZE, "%s-%s-%u", app, class_name, i);
                value = DB_STR(slice_from(out));
                r = db_run(deploy->db, "SELECT 1 FROM classes WHERE unique_key = ?", &value, 1,
                        take_found, &taken);
                if (r || !taken.found)
                        return r;
        }
        return -EEXIST;
}

static int play_new(Deploy *deploy, const ManifestMigration *step)
{
        char key[KEY_SIZE];
        DbValue values[3];
        Found found;
        int r = find_class(deploy, deploy->manifest->name, step->class_name, &found);

        if (!r && found.found)
                return refuse(deploy, CATALOG_E_MIGRATION, step->line,
                        "migration %s creates the class %s, which exists: give the file its whole "
                        "history back, or leave the step out",
                        step->tag, step->class_name);
        r = r ?: choose_key(deploy, step->class_name, key);
        if (r)
                return r;
        values[0] = DB_STR(slice_from(deploy->manifest->name));
        values[1] = DB_STR(slice_from(step->class_name));
        values[2] = DB_STR(slice_from(key));
        return db_run(deploy->db,
                "INSERT INTO classes(app, class_name, unique_key) VALUES(?, ?, ?)", values, 3, NULL,
                NULL);
}

static int play_deleted(Deploy *deploy, const ManifestMigration *step)
{
        Found found;
        DbValue id;
        int r = find_class(deploy, deploy->manifest->name, step->class_name, &found);

        if (!r && !found.found)
                return refuse(deploy, CATALOG_E_MIGRATION, step->line,
                        "migration %s deletes the class %s, which does not exist", step->tag,
                        step->class_name);
        id = DB_INT(found.integer);
        return r
                       ?: db_run(deploy->db,
                                  "UPDATE classes SET state = 'deleted', deleted_at = unixepoch() "
                                  "WHERE id = ?",
                                  &id, 1, NULL, NULL);
}

/* Renamed and transferred: the row moves to its new name, and with it the key and the objects. */
static int play_moved(Deploy *deploy, const ManifestMigration *step)
{
        const char *app = deploy->manifest->name;
        const char *from_app = step->from_script ?: app;
        Found found, taken;
        DbValue values[3];
        int r = find_class(deploy, from_app, step->from, &found);

        r = r ?: find_class(deploy, app, step->class_name, &taken);
        if (r)
                return r;
        if (!found.found)
                return refuse(deploy, CATALOG_E_MIGRATION, step->line,
                        "migration %s moves the class %s of the app %s, which does not exist",
                        step->tag, step->from, from_app);
        if (taken.found)
                return refuse(deploy, CATALOG_E_MIGRATION, step->line,
                        "migration %s gives a class the name %s, which another has", step->tag,
                        step->class_name);
        values[0] = DB_STR(slice_from(app));
        values[1] = DB_STR(slice_from(step->class_name));
        values[2] = DB_INT(found.integer);
        return db_run(deploy->db, "UPDATE classes SET app = ?, class_name = ? WHERE id = ?", values,
                3, NULL, NULL);
}

static int play_step(Deploy *deploy, const ManifestMigration *step)
{
        switch (step->kind) {
        case MIGRATION_NEW:
        case MIGRATION_NEW_SQLITE:
                return play_new(deploy, step);
        case MIGRATION_DELETED:
                return play_deleted(deploy, step);
        case MIGRATION_RENAMED:
        case MIGRATION_TRANSFERRED:
                return play_moved(deploy, step);
        }
        dd_unreachable();
}

static int play_tag(
        Deploy *deploy, const ManifestMigration *steps, size_t n, size_t position, const char *text)
{
        DbValue values[] = {
                DB_STR(slice_from(deploy->manifest->name)),
                DB_INT((int64_t)position),
                DB_STR(slice_from(steps->tag)),
                DB_STR(slice_from(text)),
        };
        int r = 0;

        for (size_t i = 0; !r && i < n; i++)
                r = play_step(deploy, &steps[i]);
        return r
                       ?: db_run(deploy->db,
                                  "INSERT INTO migrations(app, position, tag, steps) VALUES(?, ?, "
                                  "?, ?)",
                                  values, ELEMENTSOF(values), NULL, NULL);
}

/*
 * One tag of the file. Played ones must come in the order in which they were played and say what
 * they said then; *next is where in the history the next one may be. The first new one must come
 * behind the last that was played.
 */
static int apply_tag(Deploy *deploy, const ManifestMigration *steps, size_t n,
        const History *history, size_t *next, size_t *n_new)
{
        _cleanup_(free_p) char *text = NULL;
        int r = describe_steps(steps, n, &text);

        if (r)
                return r;
        for (size_t i = 0; i < history->n; i++) {
                if (strcmp(history->items[i].tag, steps->tag) != 0)
                        continue;
                if (i < *next || *n_new)
                        return refuse(deploy, CATALOG_E_MIGRATION, steps->line,
                                "migration %s was played before: it must stand where it stood",
                                steps->tag);
                if (strcmp(history->items[i].steps, text) != 0)
                        return refuse(deploy, CATALOG_E_MIGRATION, steps->line,
                                "migration %s has been played and has changed since: put it back "
                                "and write the change as a new tag",
                                steps->tag);
                *next = i + 1;
                return 0;
        }
        if (*next < history->n)
                return refuse(deploy, CATALOG_E_MIGRATION, steps->line,
                        "migration %s is new, so it must stand behind %s, the last that was played",
                        steps->tag, history->items[history->n - 1].tag);
        return play_tag(deploy, steps, n, history->n + (*n_new)++, text);
}

static int apply_migrations(Deploy *deploy)
{
        _cleanup_(history_done) History history = {};
        const Manifest *manifest = deploy->manifest;
        size_t next = 0, n_new = 0, end;
        int r = read_history(deploy, &history);

        for (size_t i = 0; !r && i < manifest->n_migrations; i = end) {
                const ManifestMigration *steps = &manifest->migrations[i];

                end = i + 1;
                while (end < manifest->n_migrations &&
                        strcmp(manifest->migrations[end].tag, steps->tag) == 0)
                        end++;
                r = apply_tag(deploy, steps, end - i, &history, &next, &n_new);
        }
        return r;
}

static int check_bindings(Deploy *deploy)
{
        const Manifest *manifest = deploy->manifest;

        for (size_t i = 0; i < manifest->n_bindings; i++) {
                const ManifestBinding *binding = &manifest->bindings[i];
                Found found;
                int r = find_class(deploy, manifest->name, binding->class_name, &found);

                if (r)
                        return r;
                if (!found.found)
                        return refuse(deploy, CATALOG_E_CLASS, binding->line,
                                "the binding %s names the class %s, which does not exist",
                                binding->name, binding->class_name);
        }
        return 0;
}

typedef struct Classes {
        CatalogClass *items;
        size_t n;
} Classes;

static int take_class(const DbValue *values, size_t n, void *data)
{
        Classes *classes = data;
        CatalogClass *grown = realloc(classes->items, (classes->n + 1) * sizeof *grown);

        if (!grown)
                return -ENOMEM;
        classes->items = grown;
        grown += classes->n++;
        grown->class_name = slice_dup(values[0].bytes);
        grown->unique_key = slice_dup(values[1].bytes);
        return grown->class_name && grown->unique_key ? 0 : -ENOMEM;
}

static int apply_all(Deploy *deploy, Classes *classes)
{
        DbValue app = DB_STR(slice_from(deploy->manifest->name));
        int r = db_run(deploy->db, "INSERT INTO apps(name) VALUES(?) ON CONFLICT DO NOTHING", &app,
                1, NULL, NULL);

        r = r ?: apply_migrations(deploy);
        r = r ?: check_bindings(deploy);
        return r
                       ?: db_run(deploy->db,
                                  "SELECT class_name, unique_key FROM classes "
                                  "WHERE app = ? AND state = 'live' ORDER BY id",
                                  &app, 1, take_class, classes);
}

int catalog_apply(Catalog *catalog, const Manifest *manifest, CatalogClass **ret_classes,
        size_t *ret_n, CatalogError *error)
{
        Deploy deploy = { .db = catalog->db, .manifest = manifest, .error = error };
        Classes classes = {};
        int r = db_begin(catalog->db);

        if (r)
                return r;
        r = apply_all(&deploy, &classes);
        r = r ?: db_commit(catalog->db);
        if (r) {
                db_rollback(catalog->db);
                catalog_classes_free(classes.items, classes.n);
                return r;
        }
        *ret_classes = classes.items;
        *ret_n = classes.n;
        return 0;
}

void catalog_classes_free(CatalogClass *classes, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                free(classes[i].class_name);
                free(classes[i].unique_key);
        }
        free(classes);
}
