/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/manifest.h"

#include "lib/base/buf.h"
#include "lib/wire/manifest-keys.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define PATH_SIZE 512u
#define NAME_MAX_LENGTH 127u
#define APP_NAME_MAX_LENGTH 63u

/* The file being read. A path is the place of a value in it, as jsonc_find_line() reads it. */
typedef struct Reader {
        Slice text;
        Manifest *manifest;
        ManifestError *error;
} Reader;

static void set_fault(Reader *reader, const char *path, const char *format, ...) _printf_(3, 4);

static void set_fault(Reader *reader, const char *path, const char *format, ...)
{
        ManifestError *error = reader->error;
        va_list args;

        *error = (ManifestError){ .line = jsonc_find_line(reader->text, path) };
        snprintf(error->key, sizeof error->key, "%s", path);
        va_start(args, format);
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
}

/* Fills the error; its value is the code. */
#define fail(_reader, _code, _path, ...) (set_fault(_reader, _path, __VA_ARGS__), (_code))

/* A path that does not fit ends in a dot, so that it leads nowhere: line 0. */
static const char *cut(char out[static PATH_SIZE], int length)
{
        if (length < 0 || (size_t)length >= PATH_SIZE)
                memcpy(out + PATH_SIZE - 2, ".", 2);
        return out;
}

/* The path of a member. */
static const char *join(char out[static PATH_SIZE], const char *parent, const char *key)
{
        if (strpbrk(key, ".[]\""))
                return cut(out, snprintf(out, PATH_SIZE, "%s[\"%s\"]", parent, key));
        return cut(out, snprintf(out, PATH_SIZE, "%s%s%s", parent, *parent ? "." : "", key));
}

static const char *join_index(char out[static PATH_SIZE], const char *parent, size_t index)
{
        return cut(out, snprintf(out, PATH_SIZE, "%s[%zu]", parent, index));
}

/* Appends one zeroed element to a list of the manifest. NULL when memory is out. */
static void *append(void *list, size_t *n, size_t size)
{
        void **items = list;
        char *grown = realloc(*items, (*n + 1) * size);

        if (!grown)
                return NULL;
        *items = grown;
        return memset(grown + (*n)++ * size, 0, size);
}

static int add_note(Reader *reader, const char *path, const char *message)
{
        Manifest *manifest = reader->manifest;
        ManifestNote *note = append(&manifest->notes, &manifest->n_notes, sizeof *note);

        if (!note)
                return -ENOMEM;
        note->line = jsonc_find_line(reader->text, path);
        note->key = strdup(path);
        note->message = strdup(message);
        return note->key && note->message ? 0 : -ENOMEM;
}

static bool is_empty(const json_t *value)
{
        return json_is_null(value) || json_is_false(value) ||
               (json_is_array(value) && json_array_size(value) == 0) ||
               (json_is_object(value) && json_object_size(value) == 0);
}

static int refuse_unknown(Reader *reader, const char *parent, const char *path, const char *name)
{
        const char *meant = manifest_suggest_key(parent, name);

        if (meant)
                return fail(reader, MANIFEST_E_INVALID, path,
                        "this key is not known: did you mean \"%s\"?", meant);
        return fail(reader, MANIFEST_E_INVALID, path,
                "this key is not known: see docs/compatibility.md for those that are");
}

/* Holds every key of an object to the table. The parent is the object's path in the table. */
static int check_keys(Reader *reader, json_t *object, const char *parent, const char *path)
{
        char buffer[PATH_SIZE];
        const char *name;
        json_t *value;
        int r = 0;

        json_object_foreach(object, name, value)
        {
                const ManifestKey *key = manifest_find_key(parent, name);

                join(buffer, path, name);
                if (!key)
                        r = refuse_unknown(reader, parent, buffer, name);
                else if (key->use == MANIFEST_KEY_NOTED)
                        r = add_note(reader, buffer, key->text);
                else if (key->use == MANIFEST_KEY_REFUSED && is_empty(value))
                        r = add_note(reader, buffer, "It is empty, so it asks for nothing.");
                else if (key->use == MANIFEST_KEY_REFUSED)
                        r = fail(reader, MANIFEST_E_UNSUPPORTED, buffer, "%s", key->text);
                if (r)
                        return r;
        }
        return 0;
}

/* An object whose keys are in the table; absent is 0 with NULL. */
static int read_object(Reader *reader, json_t *parent, const char *row, const char *path,
        const char *name, json_t **ret)
{
        json_t *value = json_object_get(parent, name);

        if (value && !json_is_object(value))
                return fail(reader, MANIFEST_E_INVALID, path, "it must be an object: { ... }");
        if (value) {
                int r = check_keys(reader, value, row, path);

                if (r)
                        return r;
        }
        *ret = value;
        return 0;
}

/* A list of at most max elements; absent is 0 with NULL. */
static int read_list(Reader *reader, json_t *parent, const char *path, const char *name, size_t max,
        json_t **ret)
{
        json_t *value = json_object_get(parent, name);

        if (value && !json_is_array(value))
                return fail(reader, MANIFEST_E_INVALID, path, "it must be a list: [ ... ]");
        if (json_array_size(value) > max)
                return fail(reader, MANIFEST_E_INVALID, path,
                        "%zu entries are more than the %zu allowed", json_array_size(value), max);
        *ret = value;
        return 0;
}

/* An element of a list that must be an object whose keys are in the table. */
static int check_element(Reader *reader, json_t *element, const char *row, const char *path)
{
        if (!json_is_object(element))
                return fail(reader, MANIFEST_E_INVALID, path, "it must be an object: { ... }");
        return check_keys(reader, element, row, path);
}

/* A string that is not empty and holds no control characters; absent is 0 with NULL. */
static int find_string(
        Reader *reader, json_t *object, const char *parent, const char *name, const char **ret)
{
        json_t *value = json_object_get(object, name);
        char path[PATH_SIZE];
        const char *string;

        if (!value) {
                *ret = NULL;
                return 0;
        }
        string = json_string_value(value);
        join(path, parent, name);
        if (!string)
                return fail(reader, MANIFEST_E_INVALID, path, "it must be a string");
        if (!*string)
                return fail(reader, MANIFEST_E_INVALID, path, "it is empty");
        for (const char *at = string; *at; at++)
                if ((unsigned char)*at < 0x20 && *at != '\n' && *at != '\t')
                        return fail(reader, MANIFEST_E_INVALID, path,
                                "it holds the control character 0x%02x", (unsigned char)*at);
        *ret = string;
        return 0;
}

static int need_string(
        Reader *reader, json_t *object, const char *parent, const char *name, const char **ret)
{
        int r = find_string(reader, object, parent, name, ret);

        if (!r && !*ret)
                return fail(reader, MANIFEST_E_INVALID, parent, "the key \"%s\" is missing", name);
        return r;
}

static int copy_string(char **ret, const char *string)
{
        char *copy = strdup(string);

        if (!copy)
                return -ENOMEM;
        *ret = copy;
        return 0;
}

bool manifest_is_app_name(Slice name)
{
        if (name.len == 0 || name.len > APP_NAME_MAX_LENGTH || name.data[0] == '-')
                return false;
        for (size_t i = 0; i < name.len; i++) {
                char c = name.data[i];

                if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
                        return false;
        }
        return true;
}

bool manifest_is_identifier(Slice name)
{
        if (name.len == 0 || name.len > NAME_MAX_LENGTH)
                return false;
        for (size_t i = 0; i < name.len; i++) {
                char c = name.data[i];
                bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';

                if (!letter && (i == 0 || c < '0' || c > '9'))
                        return false;
        }
        return true;
}

static int check_identifier(Reader *reader, const char *path, const char *name)
{
        if (manifest_is_identifier(slice_from(name)))
                return 0;
        return fail(reader, MANIFEST_E_INVALID, path,
                "\"%.*s\" is no name: letters, digits and _, no digit first, at most %u", 64, name,
                NAME_MAX_LENGTH);
}

/* A name that code refers to: env.NAME, a class. */
static int need_identifier(
        Reader *reader, json_t *object, const char *parent, const char *name, const char **ret)
{
        char path[PATH_SIZE];
        int r = need_string(reader, object, parent, name, ret);

        return r ?: check_identifier(reader, join(path, parent, name), *ret);
}

/* A path below the folder of the manifest, without "." and doubled or final slashes. */
static int copy_folder_path(Reader *reader, const char *path, const char *value, char **ret)
{
        Buf buf = BUF_INIT(4096);
        Slice rest = slice_from(value);
        int r = 0;

        if (value[0] == '/')
                return fail(reader, MANIFEST_E_INVALID, path,
                        "\"%.*s\" is absolute: it must be relative to the folder of this file", 64,
                        value);
        while (rest.len && !r) {
                Slice part = slice_cut(&rest, '/');

                if (slice_find(part, '\n') >= 0 || slice_find(part, '\t') >= 0)
                        r = fail(reader, MANIFEST_E_INVALID, path, "it holds a tab or a line feed");
                else if (slice_equal(part, SLICE("..")))
                        r = fail(reader, MANIFEST_E_INVALID, path,
                                "\"%.*s\" leads out of the folder of this file", 64, value);
                else if (part.len && !slice_equal(part, SLICE(".")))
                        r = buf_printf(&buf, "%s%.*s", buf.len ? "/" : "", SLICE_FMT(part));
        }
        if (r == -ENOBUFS)
                r = fail(reader, MANIFEST_E_INVALID, path, "it is longer than 4096 bytes");
        if (!r) {
                char *taken = buf_take(&buf);

                if (!taken)
                        r = -ENOMEM;
                else
                        *ret = taken;
        }
        buf_done(&buf);
        return r;
}

/* The same for a key that may be absent; *ret stays as it is then. */
static int read_folder_path(
        Reader *reader, json_t *object, const char *parent, const char *name, char **ret)
{
        char path[PATH_SIZE];
        const char *value;
        int r = find_string(reader, object, parent, name, &value);

        if (r || !value)
                return r;
        return copy_folder_path(reader, join(path, parent, name), value, ret);
}

static int read_name(Reader *reader, json_t *root)
{
        const char *name;
        int r = need_string(reader, root, "", "name", &name);

        if (r)
                return r;
        if (!manifest_is_app_name(slice_from(name)))
                return fail(reader, MANIFEST_E_INVALID, "name",
                        "\"%.*s\" is no app's name: a-z, 0-9, - and _, no - first, at most %u", 64,
                        name, APP_NAME_MAX_LENGTH);
        return copy_string(&reader->manifest->name, name);
}

static int read_main(Reader *reader, json_t *root)
{
        const char *value;
        int r = need_string(reader, root, "", "main", &value);

        r = r ?: copy_folder_path(reader, "main", value, &reader->manifest->main);
        if (r)
                return r;
        if (!slice_has_suffix(slice_from(reader->manifest->main), SLICE(".py")))
                return fail(reader, MANIFEST_E_UNSUPPORTED, "main",
                        "\"%.*s\" is no Python file: name the entry file, as \"src/index.py\"", 64,
                        value);
        return 0;
}

static bool is_date(Slice date)
{
        static const unsigned days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
        uint64_t year, month, day;
        bool leap;

        if (date.len != 10 || date.data[4] != '-' || date.data[7] != '-' ||
                !slice_to_u64(slice_head(date, 4), &year) ||
                !slice_to_u64(slice_of(date.data + 5, 2), &month) ||
                !slice_to_u64(slice_of(date.data + 8, 2), &day))
                return false;
        leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        return month >= 1 && month <= 12 && day >= 1 &&
               day <= days[month - 1] + (leap && month == 2 ? 1 : 0);
}

static int read_compatibility(Reader *reader, json_t *root)
{
        Manifest *manifest = reader->manifest;
        const char *date;
        json_t *flags;
        int r = find_string(reader, root, "", "compatibility_date", &date);

        if (!r && date && !is_date(slice_from(date)))
                r = fail(reader, MANIFEST_E_INVALID, "compatibility_date",
                        "\"%.*s\" is no date: write it as \"2025-11-30\"", 64, date);
        if (!r && date)
                r = copy_string(&manifest->compatibility_date, date);
        r = r
                    ?: read_list(reader, root, "compatibility_flags", "compatibility_flags",
                               MANIFEST_FLAGS_MAX, &flags);
        for (size_t i = 0; !r && i < json_array_size(flags); i++) {
                const char *flag = json_string_value(json_array_get(flags, i));
                char path[PATH_SIZE];
                char **copy;

                join_index(path, "compatibility_flags", i);
                if (!flag || !*flag)
                        return fail(reader, MANIFEST_E_INVALID, path, "it must be a string");
                copy = append(&manifest->compatibility_flags, &manifest->n_compatibility_flags,
                        sizeof *copy);
                r = copy ? copy_string(copy, flag) : -ENOMEM;
                if (!r && strncmp(flag, "python", 6) != 0)
                        r = add_note(reader, path, "This flag is not about Python: no effect.");
        }
        return r;
}

static int read_binding(Reader *reader, json_t *element, const char *path)
{
        Manifest *manifest = reader->manifest;
        const char *name, *class_name, *script;
        char place[PATH_SIZE];
        ManifestBinding *binding;
        int r = check_element(reader, element, "durable_objects.bindings[]", path);

        r = r ?: need_identifier(reader, element, path, "name", &name);
        r = r ?: need_identifier(reader, element, path, "class_name", &class_name);
        r = r ?: find_string(reader, element, path, "script_name", &script);
        if (r)
                return r;
        if (script && strcmp(script, manifest->name) != 0)
                return fail(reader, MANIFEST_E_UNSUPPORTED, join(place, path, "script_name"),
                        "a class of another app (\"%.*s\") cannot be bound: call that app over "
                        "HTTP",
                        64, script);
        if (manifest_find_binding(manifest, slice_from(name)))
                return fail(reader, MANIFEST_E_INVALID, join(place, path, "name"),
                        "env.%s is bound already", name);
        binding = append(&manifest->bindings, &manifest->n_bindings, sizeof *binding);
        if (!binding)
                return -ENOMEM;
        binding->line = jsonc_find_line(reader->text, path);
        r = copy_string(&binding->name, name);
        return r ?: copy_string(&binding->class_name, class_name);
}

static int read_bindings(Reader *reader, json_t *root)
{
        static const char path[] = "durable_objects.bindings";
        json_t *object, *list = NULL;
        char element[PATH_SIZE];
        int r = read_object(
                reader, root, "durable_objects", "durable_objects", "durable_objects", &object);

        r = r ?: read_list(reader, object, path, "bindings", MANIFEST_BINDINGS_MAX, &list);
        for (size_t i = 0; !r && i < json_array_size(list); i++)
                r = read_binding(reader, json_array_get(list, i), join_index(element, path, i));
        return r;
}

/* Whether the class exists before the step numbered n. */
static bool exists_before(const Manifest *manifest, size_t n, Slice class_name)
{
        bool exists = false;

        for (size_t i = 0; i < n; i++) {
                const ManifestMigration *step = &manifest->migrations[i];

                if (step->kind == MIGRATION_RENAMED &&
                        slice_equal(slice_from(step->from), class_name))
                        exists = false;
                if (slice_equal(slice_from(step->class_name), class_name))
                        exists = step->kind != MIGRATION_DELETED;
        }
        return exists;
}

bool manifest_has_class(const Manifest *manifest, Slice class_name)
{
        return exists_before(manifest, manifest->n_migrations, class_name);
}

const ManifestBinding *manifest_find_binding(const Manifest *manifest, Slice name)
{
        for (size_t i = 0; i < manifest->n_bindings; i++)
                if (slice_equal(slice_from(manifest->bindings[i].name), name))
                        return &manifest->bindings[i];
        return NULL;
}

/* A step must be possible where it stands in the history. */
static int check_step(Reader *reader, const char *path, const ManifestMigration *step)
{
        const Manifest *manifest = reader->manifest;
        size_t n = (size_t)(step - manifest->migrations);
        const char *gone = step->kind == MIGRATION_DELETED   ? step->class_name
                           : step->kind == MIGRATION_RENAMED ? step->from
                                                             : NULL;

        if (gone && !exists_before(manifest, n, slice_from(gone)))
                return fail(reader, MANIFEST_E_INVALID, path,
                        "the class %s does not exist at this point of the history", gone);
        if (step->kind != MIGRATION_DELETED &&
                exists_before(manifest, n, slice_from(step->class_name)))
                return fail(reader, MANIFEST_E_INVALID, path,
                        "the class %s exists already at this point of the history",
                        step->class_name);
        return 0;
}

typedef struct StepList {
        const char *key, *row;
        MigrationKind kind;
} StepList;

/* Within one tag, in this order: names become free before they are taken. */
static const StepList step_lists[] = {
        { "deleted_classes", NULL, MIGRATION_DELETED },
        { "renamed_classes", "migrations[].renamed_classes[]", MIGRATION_RENAMED },
        { "transferred_classes", "migrations[].transferred_classes[]", MIGRATION_TRANSFERRED },
        { "new_classes", NULL, MIGRATION_NEW },
        { "new_sqlite_classes", NULL, MIGRATION_NEW_SQLITE },
};

/* What a step's element names. */
static int read_step_names(Reader *reader, json_t *element, const StepList *list, const char *path,
        const char **ret_class, const char **ret_from, const char **ret_script)
{
        char place[PATH_SIZE];
        int r;

        if (!list->row) {
                *ret_class = json_string_value(element);
                if (!*ret_class)
                        return fail(reader, MANIFEST_E_INVALID, path,
                                "it must be the name of a class, a string");
                return check_identifier(reader, path, *ret_class);
        }
        r = check_element(reader, element, list->row, path);
        r = r ?: need_identifier(reader, element, path, "from", ret_from);
        r = r ?: need_identifier(reader, element, path, "to", ret_class);
        if (r || list->kind != MIGRATION_TRANSFERRED)
                return r;
        r = need_string(reader, element, path, "from_script", ret_script);
        if (!r && !manifest_is_app_name(slice_from(*ret_script)))
                return fail(reader, MANIFEST_E_INVALID, join(place, path, "from_script"),
                        "\"%.*s\" is no app's name", 64, *ret_script);
        if (!r && strcmp(*ret_script, reader->manifest->name) == 0)
                return fail(reader, MANIFEST_E_INVALID, join(place, path, "from_script"),
                        "it is this app itself: write it as one of \"renamed_classes\"");
        return r;
}

static int read_step(
        Reader *reader, json_t *element, const StepList *list, const char *tag, const char *path)
{
        const char *class_name = NULL, *from = NULL, *script = NULL;
        Manifest *manifest = reader->manifest;
        ManifestMigration *step;
        int r = read_step_names(reader, element, list, path, &class_name, &from, &script);

        if (r)
                return r;
        if (manifest->n_migrations == MANIFEST_STEPS_MAX)
                return fail(reader, MANIFEST_E_INVALID, path, "more than %u steps of migrations",
                        MANIFEST_STEPS_MAX);
        step = append(&manifest->migrations, &manifest->n_migrations, sizeof *step);
        if (!step)
                return -ENOMEM;
        step->kind = list->kind;
        step->line = jsonc_find_line(reader->text, path);
        r = copy_string(&step->tag, tag);
        r = r ?: copy_string(&step->class_name, class_name);
        if (!r && from)
                r = copy_string(&step->from, from);
        if (!r && script)
                r = copy_string(&step->from_script, script);
        return r ?: check_step(reader, path, step);
}

static int read_migration(Reader *reader, json_t *element, const char *path)
{
        Manifest *manifest = reader->manifest;
        size_t before = manifest->n_migrations;
        const char *tag;
        int r = check_element(reader, element, "migrations[]", path);

        r = r ?: need_string(reader, element, path, "tag", &tag);
        for (size_t i = 0; !r && i < ELEMENTSOF(step_lists); i++) {
                char list_path[PATH_SIZE], step_path[PATH_SIZE];
                json_t *list;

                join(list_path, path, step_lists[i].key);
                r = read_list(
                        reader, element, list_path, step_lists[i].key, MANIFEST_STEPS_MAX, &list);
                for (size_t j = 0; !r && j < json_array_size(list); j++)
                        r = read_step(reader, json_array_get(list, j), &step_lists[i], tag,
                                join_index(step_path, list_path, j));
        }
        if (!r && manifest->n_migrations == before)
                r = fail(reader, MANIFEST_E_INVALID, path,
                        "it changes no class: name some with \"new_sqlite_classes\"");
        return r;
}

static int check_tags(Reader *reader, json_t *list)
{
        char path[PATH_SIZE];

        for (size_t i = 0; i < json_array_size(list); i++) {
                json_t *tag = json_object_get(json_array_get(list, i), "tag");

                for (size_t j = 0; j < i; j++)
                        if (json_equal(tag, json_object_get(json_array_get(list, j), "tag")))
                                return fail(reader, MANIFEST_E_INVALID,
                                        join_index(path, "migrations", i),
                                        "the tag \"%.*s\" stands twice", 64,
                                        json_string_value(tag));
        }
        return 0;
}

static int read_migrations(Reader *reader, json_t *root)
{
        char path[PATH_SIZE];
        json_t *list;
        int r = read_list(reader, root, "migrations", "migrations", MANIFEST_STEPS_MAX, &list);

        for (size_t i = 0; !r && i < json_array_size(list); i++)
                r = read_migration(
                        reader, json_array_get(list, i), join_index(path, "migrations", i));
        return r ?: check_tags(reader, list);
}

static int check_classes(Reader *reader)
{
        const Manifest *manifest = reader->manifest;
        char path[PATH_SIZE];

        for (size_t i = 0; i < manifest->n_bindings; i++) {
                const char *name = manifest->bindings[i].class_name;

                if (manifest_has_class(manifest, slice_from(name)))
                        continue;
                join_index(path, "durable_objects.bindings", i);
                return fail(reader, MANIFEST_E_INVALID, path,
                        "no migration creates the class %s: the whole history must stand in "
                        "\"migrations\", as { \"tag\": \"v1\", \"new_sqlite_classes\": [\"%s\"] }",
                        name, name);
        }
        return 0;
}

static int set_assets_directory(
        Reader *reader, json_t *object, const char *parent, const char *name)
{
        char path[PATH_SIZE];
        char **directory = &reader->manifest->assets_directory;
        int r = read_folder_path(reader, object, parent, name, directory);

        if (!r && *directory && !**directory)
                return fail(reader, MANIFEST_E_INVALID, join(path, parent, name),
                        "it is the app's own folder: its source would be served to everyone");
        return r;
}

/* A key of assets of which some values ask for what is done anyway. */
static int check_assets_choice(Reader *reader, json_t *assets, const char *name,
        const char *allowed, const char *other, const char *instead)
{
        char path[PATH_SIZE];
        const char *value;
        int r = find_string(reader, assets, "assets", name, &value);

        if (r || !value || strcmp(value, allowed) == 0 || strcmp(value, other) == 0)
                return r;
        return fail(reader, MANIFEST_E_UNSUPPORTED, join(path, "assets", name), "%s", instead);
}

static int read_assets_binding(Reader *reader, json_t *assets)
{
        Manifest *manifest = reader->manifest;
        const char *binding;
        int r = find_string(reader, assets, "assets", "binding", &binding);

        if (r || !binding)
                return r;
        r = check_identifier(reader, "assets.binding", binding);
        if (r)
                return r;
        if (manifest_find_binding(manifest, slice_from(binding)))
                return fail(reader, MANIFEST_E_INVALID, "assets.binding",
                        "env.%s is bound already by durable_objects", binding);
        return copy_string(&manifest->assets_binding, binding);
}

static int read_assets(Reader *reader, json_t *root)
{
        json_t *assets, *first;
        int r = read_object(reader, root, "assets", "assets", "assets", &assets);

        if (r || !assets)
                return r;
        r = set_assets_directory(reader, assets, "assets", "directory");
        if (!r && !reader->manifest->assets_directory)
                r = fail(reader, MANIFEST_E_INVALID, "assets", "the key \"directory\" is missing");
        r = r ?: read_assets_binding(reader, assets);
        r = r
                    ?: check_assets_choice(reader, assets, "html_handling", "auto-trailing-slash",
                               "none", "only \"auto-trailing-slash\" and \"none\" are served here");
        r = r
                    ?: check_assets_choice(reader, assets, "not_found_handling", "none", "none",
                               "only \"none\" is served here: answer what is no file in the app");
        first = json_object_get(assets, "run_worker_first");
        if (!r && first && !is_empty(first))
                r = fail(reader, MANIFEST_E_UNSUPPORTED, "assets.run_worker_first",
                        "files are always served before the app: only false is possible here");
        return r;
}

static int read_site(Reader *reader, json_t *root)
{
        json_t *site;
        int r = read_object(reader, root, "site", "site", "site", &site);

        if (r || !site)
                return r;
        if (reader->manifest->assets_directory)
                return fail(reader, MANIFEST_E_INVALID, "site",
                        "\"assets\" stands here as well: keep that and remove this");
        r = set_assets_directory(reader, site, "site", "bucket");
        if (!r && !reader->manifest->assets_directory)
                return fail(reader, MANIFEST_E_INVALID, "site", "the key \"bucket\" is missing");
        return r;
}

static int read_build(Reader *reader, json_t *root)
{
        const char *command = NULL;
        json_t *build;
        int r = read_object(reader, root, "build", "build", "build", &build);

        if (r || !build)
                return r;
        r = find_string(reader, build, "build", "command", &command);
        if (!r && command)
                r = copy_string(&reader->manifest->build_command, command);
        return r ?: read_folder_path(reader, build, "build", "cwd", &reader->manifest->build_cwd);
}

static int read_vars(Reader *reader, json_t *root)
{
        Manifest *manifest = reader->manifest;
        json_t *vars = json_object_get(root, "vars");
        char path[PATH_SIZE];
        const char *name;
        json_t *value;

        if (vars && !json_is_object(vars))
                return fail(reader, MANIFEST_E_INVALID, "vars", "it must be an object: { ... }");
        json_object_foreach(vars, name, value)
        {
                if (manifest_find_binding(manifest, slice_from(name)) ||
                        (manifest->assets_binding && strcmp(name, manifest->assets_binding) == 0))
                        return fail(reader, MANIFEST_E_INVALID, join(path, "vars", name),
                                "env.%.*s is bound already", 64, name);
        }
        manifest->vars = vars ? json_incref(vars) : json_object();
        return manifest->vars ? 0 : -ENOMEM;
}

/* One of two words, the first is the default; *ret says whether it is the second. */
static int read_choice(Reader *reader, json_t *object, const char *name, const char *first,
        const char *second, bool *ret)
{
        char path[PATH_SIZE];
        const char *value;
        int r = find_string(reader, object, "durabled", name, &value);

        if (r)
                return r;
        if (value && strcmp(value, first) != 0 && strcmp(value, second) != 0)
                return fail(reader, MANIFEST_E_INVALID, join(path, "durabled", name),
                        "\"%.*s\" is neither \"%s\" nor \"%s\"", 64, value, first, second);
        *ret = value && strcmp(value, second) == 0;
        return 0;
}

static int read_route(Reader *reader, json_t *element, const char *path)
{
        Manifest *manifest = reader->manifest;
        const char *pattern, *binding, *name, *fault;
        char place[PATH_SIZE];
        ManifestRoute *route;
        int r = check_element(reader, element, "durabled.routes[]", path);

        r = r ?: need_string(reader, element, path, "pattern", &pattern);
        r = r ?: need_string(reader, element, path, "binding", &binding);
        r = r ?: need_string(reader, element, path, "name", &name);
        if (r)
                return r;
        fault = manifest_find_pattern_fault(slice_from(pattern));
        if (fault)
                return fail(reader, MANIFEST_E_INVALID, join(place, path, "pattern"), "%s", fault);
        fault = manifest_find_object_name_fault(slice_from(name), slice_from(pattern));
        if (fault)
                return fail(reader, MANIFEST_E_INVALID, join(place, path, "name"), "%s", fault);
        if (!manifest_find_binding(manifest, slice_from(binding)))
                return fail(reader, MANIFEST_E_INVALID, join(place, path, "binding"),
                        "durable_objects has no binding \"%.*s\"", 64, binding);
        route = append(&manifest->routes, &manifest->n_routes, sizeof *route);
        if (!route)
                return -ENOMEM;
        route->line = jsonc_find_line(reader->text, path);
        r = copy_string(&route->pattern, pattern);
        r = r ?: copy_string(&route->binding, binding);
        return r ?: copy_string(&route->name, name);
}

/* Only an empty list of crons can be had. */
static int read_triggers(Reader *reader, json_t *root)
{
        json_t *triggers;

        return read_object(reader, root, "triggers", "triggers", "triggers", &triggers);
}

static int read_durabled(Reader *reader, json_t *root)
{
        bool vendored = false, process = false, manual = false, open = false;
        Manifest *manifest = reader->manifest;
        char path[PATH_SIZE];
        json_t *ours, *routes = NULL;
        int r = read_object(reader, root, "durabled", "durabled", "durabled", &ours);

        if (r)
                return r;
        r = read_choice(reader, ours, "django_cf", "ours", "vendored", &vendored);
        r = r ?: read_choice(reader, ours, "isolation", "shared", "process", &process);
        r = r ?: read_choice(reader, ours, "migrate", "auto", "manual", &manual);
        r = r ?: read_choice(reader, ours, "management", "token", "open", &open);
        if (!r && process)
                r = fail(reader, MANIFEST_E_UNSUPPORTED, "durabled.isolation",
                        "a process for each object is not in this version: use \"shared\"");
        if (r)
                return r;
        manifest->django_cf = vendored ? MANIFEST_DJANGO_VENDORED : MANIFEST_DJANGO_OURS;
        manifest->migrate_on_first_event = !manual;
        manifest->management_open = open;
        r = read_list(reader, ours, "durabled.routes", "routes", MANIFEST_ROUTES_MAX, &routes);
        for (size_t i = 0; !r && i < json_array_size(routes); i++)
                r = read_route(
                        reader, json_array_get(routes, i), join_index(path, "durabled.routes", i));
        return r;
}

static int read_root(Reader *reader, json_t *root)
{
        int r;

        if (!json_is_object(root))
                return fail(reader, MANIFEST_E_INVALID, "", "the file must be an object: { ... }");
        r = check_keys(reader, root, "", "");
        r = r ?: read_name(reader, root);
        r = r ?: read_main(reader, root);
        r = r ?: read_compatibility(reader, root);
        r = r ?: read_bindings(reader, root);
        r = r ?: read_migrations(reader, root);
        r = r ?: check_classes(reader);
        r = r ?: read_assets(reader, root);
        r = r ?: read_site(reader, root);
        r = r ?: read_build(reader, root);
        r = r ?: read_vars(reader, root);
        r = r ?: read_triggers(reader, root);
        return r ?: read_durabled(reader, root);
}

int manifest_parse(Slice text, Manifest **ret, ManifestError *error)
{
        _cleanup_(manifest_free_p) Manifest *manifest = NULL;
        _cleanup_(json_decref_p) json_t *root = NULL;
        Reader reader = { .text = text, .error = error };
        JsoncError syntax = {};
        int r;

        if (text.len > MANIFEST_SIZE_MAX) {
                *error = (ManifestError){};
                snprintf(error->message, sizeof error->message,
                        "%zu bytes are more than the %u that are read", text.len,
                        MANIFEST_SIZE_MAX);
                return MANIFEST_E_SYNTAX;
        }
        r = jsonc_parse(text, &root, &syntax);
        if (r > 0) {
                *error = (ManifestError){ .line = syntax.line, .column = syntax.column };
                snprintf(error->message, sizeof error->message, "%s", syntax.message);
                return MANIFEST_E_SYNTAX;
        }
        if (r)
                return r;
        manifest = reader.manifest = calloc(1, sizeof *manifest);
        if (!manifest)
                return -ENOMEM;
        r = read_root(&reader, root);
        if (r)
                return r;
        *ret = TAKE_PTR(manifest);
        return 0;
}

Manifest *manifest_free(Manifest *manifest)
{
        if (!manifest)
                return NULL;
        for (size_t i = 0; i < manifest->n_compatibility_flags; i++)
                free(manifest->compatibility_flags[i]);
        for (size_t i = 0; i < manifest->n_bindings; i++) {
                free(manifest->bindings[i].name);
                free(manifest->bindings[i].class_name);
        }
        for (size_t i = 0; i < manifest->n_migrations; i++) {
                free(manifest->migrations[i].tag);
                free(manifest->migrations[i].class_name);
                free(manifest->migrations[i].from);
                free(manifest->migrations[i].from_script);
        }
        for (size_t i = 0; i < manifest->n_routes; i++) {
                free(manifest->routes[i].pattern);
                free(manifest->routes[i].binding);
                free(manifest->routes[i].name);
        }
        for (size_t i = 0; i < manifest->n_notes; i++) {
                free(manifest->notes[i].key);
                free(manifest->notes[i].message);
        }
        free(manifest->compatibility_flags);
        free(manifest->bindings);
        free(manifest->migrations);
        free(manifest->routes);
        free(manifest->notes);
        free(manifest->name);
        free(manifest->main);
        free(manifest->compatibility_date);
        free(manifest->assets_directory);
        free(manifest->assets_binding);
        free(manifest->build_command);
        free(manifest->build_cwd);
        json_decref(manifest->vars);
        free(manifest);
        return NULL;
}
