/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The manifest: what is accepted keeps every promise of manifest.h, what is refused has a reason
 *
 * Input: the text of a wrangler.jsonc.
 */

#include "lib/wire/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_path(const char *path)
{
        Slice rest = slice_from(path);

        dd_assert(path[0] != '/');
        while (rest.len) {
                Slice part = slice_cut(&rest, '/');

                dd_assert(part.len && !slice_equal(part, SLICE("..")) &&
                          !slice_equal(part, SLICE(".")));
        }
}

static bool is_known(const char *key)
{
        size_t n;
        const ManifestKey *keys = manifest_get_keys(&n);

        for (size_t i = 0; i < n; i++)
                if (strcmp(keys[i].path, key) == 0)
                        return true;
        return false;
}

static void check_lists(const Manifest *manifest, unsigned lines)
{
        for (size_t i = 0; i < manifest->n_bindings; i++) {
                const ManifestBinding *binding = &manifest->bindings[i];

                dd_assert(manifest_find_binding(manifest, slice_from(binding->name)) == binding);
                dd_assert(manifest_has_class(manifest, slice_from(binding->class_name)));
                dd_assert(manifest_is_identifier(slice_from(binding->name)));
                dd_assert(binding->line && binding->line <= lines);
                dd_assert(!json_object_get(manifest->vars, binding->name));
        }
        for (size_t i = 0; i < manifest->n_migrations; i++) {
                const ManifestMigration *step = &manifest->migrations[i];
                bool moved = step->kind == MIGRATION_RENAMED || step->kind == MIGRATION_TRANSFERRED;

                dd_assert(manifest_is_identifier(slice_from(step->class_name)));
                dd_assert(moved == (step->from != NULL));
                dd_assert((step->kind == MIGRATION_TRANSFERRED) == (step->from_script != NULL));
                dd_assert(step->tag && step->line && step->line <= lines);
        }
        for (size_t i = 0; i < manifest->n_routes; i++) {
                const ManifestRoute *route = &manifest->routes[i];

                dd_assert(strchr(route->pattern, '/') && strlen(route->name) <= 255);
                dd_assert(manifest_find_binding(manifest, slice_from(route->binding)));
        }
        for (size_t i = 0; i < manifest->n_notes; i++)
                dd_assert(manifest->notes[i].key[0] && manifest->notes[i].message[0] &&
                          manifest->notes[i].line <= lines);
}

static void check_manifest(const Manifest *manifest, Slice text, unsigned lines)
{
        JsoncError error = { 0 };
        json_t *json = NULL, *value;
        const char *key;

        dd_assert(manifest_is_app_name(slice_from(manifest->name)));
        dd_assert(slice_has_suffix(slice_from(manifest->main), SLICE(".py")));
        check_path(manifest->main);
        if (manifest->assets_directory) {
                dd_assert(manifest->assets_directory[0]);
                check_path(manifest->assets_directory);
        }
        if (manifest->build_cwd)
                check_path(manifest->build_cwd);
        dd_assert(json_is_object(manifest->vars));
        check_lists(manifest, lines);
        dd_assert(jsonc_parse(text, &json, &error) == 0);
        json_object_foreach(json, key, value) dd_assert(is_known(key));
        json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        Slice text = slice_of(data, size);
        ManifestError error = { 0 };
        Manifest *manifest = NULL;
        unsigned lines = 1;
        int r;

        for (size_t i = 0; i < size; i++)
                lines += data[i] == '\n';
        r = manifest_parse(text, &manifest, &error);
        if (r == 0) {
                check_manifest(manifest, text, lines);
                manifest_free(manifest);
                return 0;
        }
        dd_assert(r >= MANIFEST_E_SYNTAX && r <= MANIFEST_E_UNSUPPORTED && !manifest);
        dd_assert(error.message[0] && error.line <= lines);
        return 0;
}
