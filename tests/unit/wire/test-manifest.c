/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/manifest.h"

#include "lib/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* A manifest of one class, with more keys in the place of the %s. */
#define HEAD                                                    \
        "{\n\"name\": \"shop\",\n\"main\": \"src/index.py\",\n" \
        "\"durable_objects\": {\"bindings\": [\n"               \
        "{\"name\": \"CART\", \"class_name\": \"Cart\"}]},\n"   \
        "\"migrations\": [{\"tag\": \"v1\", \"new_sqlite_classes\": [\"Cart\"]}],\n"
#define HEAD_LINES 6u

static Manifest *parse(Slice text)
{
        ManifestError error = {};
        Manifest *manifest = NULL;
        int r = manifest_parse(text, &manifest, &error);

        if (r)
                fail_msg("%d: %u: %s: %s", r, error.line, error.key, error.message);
        return manifest;
}

static void assert_refused(Slice text, int code, unsigned line, const char *key, const char *part)
{
        Manifest *manifest = NULL;
        ManifestError error = {};
        int r = manifest_parse(text, &manifest, &error);

        if (r != code || error.line != line || strcmp(error.key, key) != 0 ||
                !strstr(error.message, part))
                fail_msg("%d: %u: \"%s\": \"%s\", not %d: %u: \"%s\": \"%s\"", r, error.line,
                        error.key, error.message, code, line, key, part);
        assert_null(manifest);
}

/* HEAD and then this line. */
static void assert_line_refused(const char *line, int code, const char *key, const char *part)
{
        char text[2048];

        snprintf(text, sizeof text, HEAD "%s}", line);
        assert_refused(slice_from(text), code, HEAD_LINES + 1, key, part);
}

static Manifest *parse_line(const char *line)
{
        char text[2048];

        snprintf(text, sizeof text, HEAD "%s}", line);
        return parse(slice_from(text));
}

static void the_template_of_generation_a_parses(void **state)
{
        Manifest *manifest = parse(SLICE(
                "{\n    \"name\": \"django-on-workers\",\n    \"main\": \"src/worker.py\",\n"
                "    \"compatibility_flags\": [\n        \"python_workers\"\n    ],\n"
                "    \"compatibility_date\": \"2025-04-10\",\n"
                "    \"site\": {\n      \"bucket\": \"./staticfiles\"\n    },\n"
                "    \"build\": {\n      \"command\": \"python src/manage.py collectstatic\"\n    "
                "},\n"
                "    \"rules\": [ { \"globs\": [ \"vendor/**/*.py\",\n"
                "//   \"vendor/**/*.mo\",  optional\n"
                "      \"vendor/tzdata/**/\" ], \"type\": \"Data\", \"fallthrough\": true } ],\n"
                "    \"durable_objects\": { \"bindings\": [\n"
                "      { \"name\": \"DO_STORAGE\", \"class_name\": \"DjangoDO\" } ] },\n"
                "    \"migrations\": [ { \"tag\": \"v1\", \"new_classes\": [ \"DjangoDO\" ] } ],\n"
                "    \"observability\": { \"enabled\": true }\n}\n"));

        assert_string_equal(manifest->name, "django-on-workers");
        assert_string_equal(manifest->main, "src/worker.py");
        assert_string_equal(manifest->compatibility_date, "2025-04-10");
        assert_int_equal(manifest->n_compatibility_flags, 1);
        assert_string_equal(manifest->compatibility_flags[0], "python_workers");
        assert_string_equal(manifest->assets_directory, "staticfiles");
        assert_null(manifest->assets_binding);
        assert_string_equal(manifest->build_command, "python src/manage.py collectstatic");
        assert_null(manifest->build_cwd);
        assert_int_equal(manifest->n_bindings, 1);
        assert_string_equal(manifest->bindings[0].name, "DO_STORAGE");
        assert_string_equal(manifest->bindings[0].class_name, "DjangoDO");
        assert_int_equal(manifest->bindings[0].line, 18);
        assert_int_equal(manifest->n_migrations, 1);
        assert_int_equal(manifest->migrations[0].kind, MIGRATION_NEW);
        assert_int_equal(manifest->n_notes, 2);
        assert_string_equal(manifest->notes[0].key, "rules");
        assert_int_equal(manifest->notes[0].line, 14);
        assert_string_equal(manifest->notes[1].key, "observability");
        assert_int_equal(manifest->django_cf, MANIFEST_DJANGO_OURS);
        assert_true(manifest->migrate_on_first_event);
        assert_false(manifest->management_open);
        assert_int_equal(json_object_size(manifest->vars), 0);
        manifest_free(manifest);
}

static void the_template_of_generations_b_and_c_parses(void **state)
{
        Manifest *manifest = parse(
                SLICE("{\n  \"$schema\": \"node_modules/wrangler/config-schema.json\",\n"
                      "  \"name\": \"django-on-workers-with-durable-objects\",\n"
                      "  \"main\": \"src/index.py\",\n"
                      "  \"compatibility_flags\": [ \"python_workers\" ],\n"
                      "  \"compatibility_date\": \"2026-03-08\",\n"
                      "  \"assets\": { \"directory\": \"./staticfiles/\" },\n"
                      "  \"build\": { \"command\": \"WORKERS_CI=1 python src/manage.py x\" },\n"
                      "  \"python_modules\": { \"exclude\": [ \"**/*.pyc\", \"**/*.jpg\", ], },\n"
                      "  \"observability\": { \"enabled\": true },\n"
                      "  \"durable_objects\": { \"bindings\": [\n"
                      "    { \"name\": \"DO_STORAGE\", \"class_name\": \"DjangoDO\" } ] },\n"
                      "  \"migrations\": [\n"
                      "    { \"tag\": \"v1\", \"new_sqlite_classes\": [ \"DjangoDO\" ] } ]\n}\n"));

        assert_string_equal(manifest->main, "src/index.py");
        assert_string_equal(manifest->assets_directory, "staticfiles");
        assert_int_equal(manifest->migrations[0].kind, MIGRATION_NEW_SQLITE);
        assert_int_equal(manifest->migrations[0].line, 14);
        assert_true(manifest_has_class(manifest, SLICE("DjangoDO")));
        assert_non_null(manifest_find_binding(manifest, SLICE("DO_STORAGE")));
        assert_null(manifest_find_binding(manifest, SLICE("DO_STORAG")));
        assert_int_equal(manifest->n_notes, 3);
        manifest_free(manifest);
}

static void a_migrations_history_of_all_kinds_is_played_in_order(void **state)
{
        Manifest *manifest = parse(SLICE(
                "{\"name\": \"shop\", \"main\": \"i.py\", \"durable_objects\": {\"bindings\": [\n"
                "{\"name\": \"B\", \"class_name\": \"Basket\", \"script_name\": \"shop\"},\n"
                "{\"name\": \"C\", \"class_name\": \"Cart\"}]},\n"
                "\"migrations\": [\n"
                "{\"tag\": \"v1\", \"new_sqlite_classes\": [\"Cart\", \"Old\"], \"new_classes\": "
                "[\"K\"]},\n"
                "{\"tag\": \"v2\", \"new_sqlite_classes\": [\"Cart\"],\n"
                "  \"renamed_classes\": [{\"from\": \"Cart\", \"to\": \"Basket\"}],\n"
                "  \"deleted_classes\": [\"Old\"]},\n"
                "{\"tag\": \"v3\", \"transferred_classes\":\n"
                "  [{\"from\": \"Item\", \"from_script\": \"stock\", \"to\": \"Old\"}]},\n"
                "]}"));
        const ManifestMigration *steps = manifest->migrations;

        assert_int_equal(manifest->n_migrations, 7);
        assert_string_equal(steps[0].class_name, "K");
        assert_int_equal(steps[0].kind, MIGRATION_NEW);
        assert_string_equal(steps[3].class_name, "Old");
        assert_int_equal(steps[3].kind, MIGRATION_DELETED);
        assert_string_equal(steps[3].tag, "v2");
        assert_int_equal(steps[3].line, 8);
        assert_string_equal(steps[4].from, "Cart");
        assert_string_equal(steps[4].class_name, "Basket");
        assert_int_equal(steps[5].kind, MIGRATION_NEW_SQLITE);
        assert_int_equal(steps[6].kind, MIGRATION_TRANSFERRED);
        assert_string_equal(steps[6].from_script, "stock");
        assert_true(manifest_has_class(manifest, SLICE("Basket")));
        assert_true(manifest_has_class(manifest, SLICE("Cart")));
        assert_true(manifest_has_class(manifest, SLICE("Old")));
        assert_false(manifest_has_class(manifest, SLICE("Item")));
        manifest_free(manifest);
}

static void a_history_that_cannot_be_is_refused(void **state)
{
        static const struct {
                const char *migrations, *key, *part;
                unsigned line;
        } cases[] = {
                { "{\"tag\": \"v1\",\n\"new_classes\": [\"A\",\n\"A\"]}",
                        "migrations[0].new_classes[1]", "exists already", 4 },
                { "{\"tag\": \"v1\", \"deleted_classes\": [\"A\"]}",
                        "migrations[0].deleted_classes[0]", "does not exist", 2 },
                { "{\"tag\": \"v1\", \"renamed_classes\": [{\"from\": \"A\", \"to\": \"B\"}]}",
                        "migrations[0].renamed_classes[0]", "does not exist", 2 },
                { "{\"tag\": \"v1\", \"new_classes\": [\"A\"]},\n{\"tag\": \"v1\", "
                  "\"new_classes\": [\"B\"]}",
                        "migrations[1]", "stands twice", 3 },
                { "{\"tag\": \"v1\"}", "migrations[0]", "changes no class", 2 },
                { "{\"new_classes\": [\"A\"]}", "migrations[0]", "\"tag\" is missing", 2 },
                { "{\"tag\": \"v1\", \"new_classes\": [\"1A\"]}", "migrations[0].new_classes[0]",
                        "is no name", 2 },
                { "{\"tag\": \"v1\", \"new_classes\": [1]}", "migrations[0].new_classes[0]",
                        "a string", 2 },
                { "{\"tag\": \"v1\", \"transferred_classes\": [{\"from\": \"A\", \"to\": \"B\"}]}",
                        "migrations[0].transferred_classes[0]", "\"from_script\" is missing", 2 },
                { "{\"tag\": \"v1\", \"transferred_classes\": [{\"from\": \"A\", \"to\": \"B\","
                  " \"from_script\": \"shop\"}]}",
                        "migrations[0].transferred_classes[0].from_script", "renamed_classes", 2 },
                { "{\"tag\": \"v1\", \"new_class\": [\"A\"]}", "migrations[0].new_class",
                        "did you mean \"new_classes\"", 2 },
                { "7", "migrations[0]", "an object", 2 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char text[512];

                snprintf(text, sizeof text,
                        "{\"name\": \"shop\", \"main\": \"i.py\", \"migrations\": [\n%s]}",
                        cases[i].migrations);
                assert_refused(slice_from(text), MANIFEST_E_INVALID, cases[i].line, cases[i].key,
                        cases[i].part);
        }
}

static void a_binding_needs_a_class_that_a_migration_creates(void **state)
{
        assert_refused(SLICE("{\"name\": \"shop\", \"main\": \"i.py\",\n"
                             "\"durable_objects\": {\"bindings\": [\n"
                             "{\"name\": \"A\", \"class_name\": \"Cart\"}]},\n"
                             "\"migrations\": [{\"tag\": \"v1\", \"new_classes\": [\"Card\"]}]}"),
                MANIFEST_E_INVALID, 3, "durable_objects.bindings[0]", "no migration creates");
        assert_refused(SLICE("{\"name\": \"shop\", \"main\": \"i.py\",\n"
                             "\"durable_objects\": {\"bindings\": [\n"
                             "{\"name\": \"A\", \"class_name\": \"Cart\",\n"
                             " \"script_name\": \"stock\"}]}}"),
                MANIFEST_E_UNSUPPORTED, 4, "durable_objects.bindings[0].script_name",
                "another app");
        assert_refused(SLICE("{\"name\": \"shop\", \"main\": \"i.py\",\n"
                             "\"durable_objects\": {\"bindings\": [\n"
                             "{\"name\": \"A\", \"class_name\": \"Cart\"},\n"
                             "{\"name\": \"A\", \"class_name\": \"Cart\"}]}}"),
                MANIFEST_E_INVALID, 4, "durable_objects.bindings[1].name", "bound already");
}

static void what_would_change_the_program_is_refused_with_its_line(void **state)
{
        size_t n, refused = 0;
        const ManifestKey *keys = manifest_get_keys(&n);

        for (size_t i = 0; i < n; i++) {
                char line[128];

                if (strpbrk(keys[i].path, ".[") || keys[i].use != MANIFEST_KEY_REFUSED)
                        continue;
                refused++;
                snprintf(line, sizeof line, "\"%s\": [{\"binding\": \"X\"}]", keys[i].path);
                assert_line_refused(line, MANIFEST_E_UNSUPPORTED, keys[i].path, keys[i].text);
                snprintf(line, sizeof line, "\"%s\": []", keys[i].path);
                manifest_free(parse_line(line));
        }
        assert_true(refused > 30);
        assert_line_refused("\"triggers\": {\"crons\": [\"* * * * *\"]}", MANIFEST_E_UNSUPPORTED,
                "triggers.crons", "alarm");
        manifest_free(parse_line("\"triggers\": {\"crons\": []}"));
}

static void what_has_no_meaning_here_is_accepted_with_a_note(void **state)
{
        size_t n, noted = 0;
        const ManifestKey *keys = manifest_get_keys(&n);

        for (size_t i = 0; i < n; i++) {
                char line[128];
                Manifest *manifest;

                if (strpbrk(keys[i].path, ".[") || keys[i].use != MANIFEST_KEY_NOTED)
                        continue;
                noted++;
                snprintf(line, sizeof line, "\"%s\": {\"x\": 1}", keys[i].path);
                manifest = parse_line(line);
                assert_int_equal(manifest->n_notes, 1);
                assert_string_equal(manifest->notes[0].key, keys[i].path);
                assert_string_equal(manifest->notes[0].message, keys[i].text);
                assert_int_equal(manifest->notes[0].line, HEAD_LINES + 1);
                manifest_free(manifest);
        }
        assert_true(noted > 25);
}

static void an_unknown_key_is_refused_with_the_one_that_was_meant(void **state)
{
        assert_line_refused("\"migration\": []", MANIFEST_E_INVALID, "migration",
                "did you mean \"migrations\"?");
        assert_line_refused("\"compatibilityDate\": \"\"", MANIFEST_E_INVALID, "compatibilityDate",
                "did you mean \"compatibility_date\"?");
        assert_line_refused("\"Vars\": {}", MANIFEST_E_INVALID, "Vars", "did you mean \"vars\"?");
        assert_line_refused(
                "\"assets\": {\"dir\": \"x\"}", MANIFEST_E_INVALID, "assets.dir", "is not known");
        assert_line_refused("\"build\": {\"comand\": \"x\"}", MANIFEST_E_INVALID, "build.comand",
                "did you mean \"command\"?");
        assert_line_refused("\"entirely_else\": 1", MANIFEST_E_INVALID, "entirely_else",
                "docs/compatibility.md");
        assert_line_refused("\"a.b\": 1", MANIFEST_E_INVALID, "[\"a.b\"]", "is not known");
        /* A member of one object is not known in another. */
        assert_line_refused("\"crons\": []", MANIFEST_E_INVALID, "crons", "is not known");
}

static void names_and_paths_are_checked(void **state)
{
        static const struct {
                const char *text, *key, *part;
        } cases[] = {
                { "{}", "", "\"name\" is missing" },
                { "[]", "", "an object" },
                { "{\"name\": \"shop\"}", "", "\"main\" is missing" },
                { "{\"name\": \"\", \"main\": \"i.py\"}", "name", "empty" },
                { "{\"name\": \"Shop\", \"main\": \"i.py\"}", "name", "no app's name" },
                { "{\"name\": \"-a\", \"main\": \"i.py\"}", "name", "no app's name" },
                { "{\"name\": \"a/b\", \"main\": \"i.py\"}", "name", "no app's name" },
                { "{\"name\": 1, \"main\": \"i.py\"}", "name", "a string" },
                { "{\"name\": \"shop\", \"main\": \"/i.py\"}", "main", "absolute" },
                { "{\"name\": \"shop\", \"main\": \"src/../../i.py\"}", "main", "leads out" },
                { "{\"name\": \"shop\", \"main\": \"a\\nb.py\"}", "main", "line feed" },
                { "{\"name\": \"shop\", \"main\": \"a\\u0007b.py\"}", "main", "0x07" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_refused(slice_from(cases[i].text), MANIFEST_E_INVALID, 1, cases[i].key,
                        cases[i].part);
        assert_refused(SLICE("{\"name\": \"shop\",\n\"main\": \"src/index.ts\"}"),
                MANIFEST_E_UNSUPPORTED, 2, "main", "no Python file");
        assert_line_refused("\"assets\": {\"directory\": \"./\"}", MANIFEST_E_INVALID,
                "assets.directory", "source");
        assert_line_refused("\"assets\": {\"directory\": \"../dist\"}", MANIFEST_E_INVALID,
                "assets.directory", "leads out");
        assert_line_refused("\"compatibility_date\": \"2025-02-29\"", MANIFEST_E_INVALID,
                "compatibility_date", "no date");
        assert_line_refused("\"compatibility_flags\": \"python_workers\"", MANIFEST_E_INVALID,
                "compatibility_flags", "a list");
        manifest_free(parse_line("\"compatibility_date\": \"2024-02-29\""));
}

static void assets_site_build_and_vars_are_read(void **state)
{
        Manifest *manifest =
                parse_line("\"assets\": {\"directory\": \".//a/./b/\", \"binding\": \"ASSETS\","
                           " \"html_handling\": \"none\", \"not_found_handling\": \"none\","
                           " \"run_worker_first\": false}, \"build\": {\"cwd\": \"web\"},"
                           " \"vars\": {\"A\": \"x\", \"B\": {\"c\": [1]}}");

        assert_string_equal(manifest->assets_directory, "a/b");
        assert_string_equal(manifest->assets_binding, "ASSETS");
        assert_string_equal(manifest->build_cwd, "web");
        assert_string_equal(json_string_value(json_object_get(manifest->vars, "A")), "x");
        manifest_free(manifest);

        assert_line_refused("\"assets\": {}", MANIFEST_E_INVALID, "assets", "\"directory\"");
        assert_line_refused("\"site\": {\"bucket\": \"a\"}, \"assets\": {\"directory\": \"a\"}",
                MANIFEST_E_INVALID, "site", "as well");
        assert_line_refused("\"site\": {\"bucket\": \"a\", \"exclude\": [\"secret\"]}",
                MANIFEST_E_UNSUPPORTED, "site.exclude", "leave out");
        assert_line_refused("\"assets\": {\"directory\": \"a\", \"run_worker_first\": [\"/x\"]}",
                MANIFEST_E_UNSUPPORTED, "assets.run_worker_first", "before the app");
        assert_line_refused(
                "\"assets\": {\"directory\": \"a\", \"not_found_handling\": \"404-page\"}",
                MANIFEST_E_UNSUPPORTED, "assets.not_found_handling", "\"none\"");
        assert_line_refused("\"assets\": {\"directory\": \"a\", \"binding\": \"CART\"}",
                MANIFEST_E_INVALID, "assets.binding", "bound already");
        assert_line_refused(
                "\"vars\": {\"CART\": \"x\"}", MANIFEST_E_INVALID, "vars.CART", "bound already");
        assert_line_refused("\"vars\": []", MANIFEST_E_INVALID, "vars", "an object");
}

static void our_own_settings_are_read(void **state)
{
        Manifest *manifest = parse_line(
                "\"durabled\": {\"django_cf\": \"vendored\", \"migrate\": \"manual\","
                " \"management\": \"open\", \"isolation\": \"shared\", \"routes\": ["
                "{\"pattern\": \"{tenant}.example.org/shop/{id}/*\", \"binding\": \"CART\","
                " \"name\": \"{tenant}:{id}\"},"
                "{\"pattern\": \"/*\", \"binding\": \"CART\", \"name\": \"all\"}]}");

        assert_int_equal(manifest->django_cf, MANIFEST_DJANGO_VENDORED);
        assert_false(manifest->migrate_on_first_event);
        assert_true(manifest->management_open);
        assert_int_equal(manifest->n_routes, 2);
        assert_string_equal(manifest->routes[0].pattern, "{tenant}.example.org/shop/{id}/*");
        assert_string_equal(manifest->routes[0].name, "{tenant}:{id}");
        assert_string_equal(manifest->routes[1].binding, "CART");
        manifest_free(manifest);

        assert_line_refused("\"durabled\": {\"django_cf\": \"mine\"}", MANIFEST_E_INVALID,
                "durabled.django_cf", "neither \"ours\" nor \"vendored\"");
        assert_line_refused("\"durabled\": {\"isolation\": \"process\"}", MANIFEST_E_UNSUPPORTED,
                "durabled.isolation", "\"shared\"");
        assert_line_refused("\"durabled\": {\"managment\": \"open\"}", MANIFEST_E_INVALID,
                "durabled.managment", "did you mean \"management\"?");
}

static void routes_that_cannot_be_are_refused(void **state)
{
        static const struct {
                const char *pattern, *binding, *name, *key, *part;
        } cases[] = {
                { "example.org", "CART", "x", "pattern", "no /" },
                { "/a*", "CART", "x", "pattern", "* stands" },
                { "/*/a", "CART", "x", "pattern", "* stands" },
                { "*/a", "CART", "x", "pattern", "* stands" },
                { "/a{b}", "CART", "x", "pattern", "whole segment" },
                { "/{b}a", "CART", "x", "pattern", "whole segment" },
                { "/{b", "CART", "x", "pattern", "needs a name" },
                { "/{}", "CART", "x", "pattern", "needs a name" },
                { "/{a}/{a}", "CART", "x", "pattern", "twice" },
                { "/a?b", "CART", "x", "pattern", "no pattern has" },
                { "/a b", "CART", "x", "pattern", "no pattern has" },
                { "/}", "CART", "x", "pattern", "no pattern has" },
                { "/{a}", "CART", "{b}", "name", "the pattern has not" },
                { "/{a}", "CART", "{a", "name", "needs a name" },
                { "/{a}", "CART", "a}", "name", "without its {" },
                { "/{a}", "BASKET", "{a}", "binding", "no binding" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char line[512], key[64];

                snprintf(line, sizeof line,
                        "\"durabled\": {\"routes\": [{\"pattern\": \"%s\", \"binding\": \"%s\", "
                        "\"name\": \"%s\"}]}",
                        cases[i].pattern, cases[i].binding, cases[i].name);
                snprintf(key, sizeof key, "durabled.routes[0].%s", cases[i].key);
                assert_line_refused(line, MANIFEST_E_INVALID, key, cases[i].part);
        }
}

static void text_that_is_no_json_is_refused_with_its_position(void **state)
{
        Manifest *manifest = NULL;
        ManifestError error = {};

        assert_int_equal(
                manifest_parse(SLICE("{\n \"name\": x"), &manifest, &error), MANIFEST_E_SYNTAX);
        assert_int_equal(error.line, 2);
        assert_int_equal(error.column, 10);
        assert_refused(SLICE("{\"name\": \"a\",\n\"name\": \"b\"}"), MANIFEST_E_SYNTAX, 2, "",
                "duplicate");
}

/* The rows of the first table of keys, each from its "| `" to its line feed. */
static void the_documentation_has_the_same_table(void **state)
{
        static const char *const uses[] = {
                [MANIFEST_KEY_USED] = "used",
                [MANIFEST_KEY_NOTED] = "accepted with a note",
                [MANIFEST_KEY_REFUSED] = "refused",
        };
        Buf docs = BUF_INIT(1 << 20), row = BUF_INIT(4096);
        size_t n, i = 0;
        const ManifestKey *keys = manifest_get_keys(&n);
        Slice rest;

        assert_int_equal(file_read(SOURCE_ROOT "/docs/compatibility.md", 1 << 20, &docs), 0);
        rest = buf_slice(&docs);
        while (rest.len) {
                Slice line = slice_cut(&rest, '\n');

                /* It ends with the first line that is no row. */
                if (i && !slice_has_prefix(line, SLICE("|")))
                        break;
                if (!slice_has_prefix(line, SLICE("| `")))
                        continue;
                if (i == n)
                        fail_msg("more rows than keys: %.*s", SLICE_FMT(line));
                buf_clear(&row);
                assert_int_equal(buf_printf(&row, "| `%s` | %s | %s |", keys[i].path,
                                         uses[keys[i].use], keys[i].text),
                        0);
                if (!slice_equal(line, buf_slice(&row)))
                        fail_msg("%.*s\nshould be\n%.*s", SLICE_FMT(line),
                                SLICE_FMT(buf_slice(&row)));
                i++;
        }
        if (i < n)
                fail_msg("%s is not in docs/compatibility.md", keys[i].path);
        buf_done(&docs);
        buf_done(&row);
}

/* A row whose parent has no row, or whose parent is not used, could never be reached. */
static void every_key_of_the_table_stands_once_and_below_a_used_one(void **state)
{
        size_t n;
        const ManifestKey *keys = manifest_get_keys(&n);

        for (size_t i = 0; i < n; i++) {
                const char *dot = strrchr(keys[i].path, '.');
                size_t length = dot ? (size_t)(dot - keys[i].path) : 0;
                bool parent = !dot;

                if (length > 2 && dot[-1] == ']')
                        length -= 2;
                for (size_t j = 0; j < n; j++) {
                        if (i != j && strcmp(keys[i].path, keys[j].path) == 0)
                                fail_msg("%s stands twice", keys[i].path);
                        if (slice_equal(slice_from(keys[j].path), slice_of(keys[i].path, length)))
                                parent = keys[j].use == MANIFEST_KEY_USED;
                }
                if (!parent || !keys[i].text[0])
                        fail_msg("%s has no parent that is used, or no text", keys[i].path);
        }
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_template_of_generation_a_parses),
                cmocka_unit_test(the_template_of_generations_b_and_c_parses),
                cmocka_unit_test(a_migrations_history_of_all_kinds_is_played_in_order),
                cmocka_unit_test(a_history_that_cannot_be_is_refused),
                cmocka_unit_test(a_binding_needs_a_class_that_a_migration_creates),
                cmocka_unit_test(what_would_change_the_program_is_refused_with_its_line),
                cmocka_unit_test(what_has_no_meaning_here_is_accepted_with_a_note),
                cmocka_unit_test(an_unknown_key_is_refused_with_the_one_that_was_meant),
                cmocka_unit_test(names_and_paths_are_checked),
                cmocka_unit_test(assets_site_build_and_vars_are_read),
                cmocka_unit_test(our_own_settings_are_read),
                cmocka_unit_test(routes_that_cannot_be_are_refused),
                cmocka_unit_test(the_documentation_has_the_same_table),
                cmocka_unit_test(every_key_of_the_table_stands_once_and_below_a_used_one),
                cmocka_unit_test(text_that_is_no_json_is_refused_with_its_position),
        };

        return cmocka_run_group_tests_name("wire/manifest", tests, NULL, NULL);
}
