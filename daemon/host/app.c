/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/app.h"

#include "lib/base/file.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#define MANIFEST_NAME "wrangler.jsonc"
#define MANIFEST_MAX (1u << 20)

static int vars_invalid(HostAppError *error, const char *path, unsigned line, const char *message)
{
        snprintf(error->message, sizeof(error->message), "%s:%u: %s", path, line, message);
        return HOST_APP_E_INVALID;
}

static bool key_is_valid(Slice key)
{
        if (key.len == 0 || isdigit((unsigned char)key.data[0]))
                return false;
        for (size_t i = 0; i < key.len; i++)
                if (!isalnum((unsigned char)key.data[i]) && key.data[i] != '_')
                        return false;
        return true;
}

/* Quotes are taken off; in double ones \n, \t, \" and \\ are replaced. */
static json_t *value_unquote(Slice text)
{
        _cleanup_(buf_done) Buf value = BUF_INIT(HOST_APP_VARS_MAX);
        char quote = text.len >= 2 ? text.data[0] : 0;

        if ((quote != '"' && quote != '\'') || text.data[text.len - 1] != quote)
                return json_stringn(text.data, text.len);
        text = slice_of(text.data + 1, text.len - 2);
        if (quote == '\'')
                return json_stringn(text.data, text.len);
        for (size_t i = 0; i < text.len; i++) {
                char c = text.data[i];

                if (c == '\\' && i + 1 < text.len) {
                        c = text.data[++i];
                        c = c == 'n' ? '\n' : c == 't' ? '\t' : c;
                }
                if (buf_append_char(&value, c) < 0)
                        return NULL;
        }
        return json_stringn(value.len ? buf_data(&value) : "", value.len);
}

static int read_lines(Slice text, const char *path, json_t *vars, HostAppError *error)
{
        unsigned number = 0;

        while (text.len > 0) {
                Slice line = slice_cut(&text, '\n'), key;
                _cleanup_(free_p) char *name = NULL;
                json_t *value;

                number++;
                if (line.len > 0 && line.data[line.len - 1] == '\r')
                        line.len--;
                line = slice_trim(line);
                if (line.len == 0 || line.data[0] == '#')
                        continue;
                if (slice_find(line, '=') < 0)
                        return vars_invalid(error, path, number, "expected KEY=value");
                key = slice_trim(slice_cut(&line, '='));
                if (slice_has_prefix(key, SLICE("export ")))
                        key = slice_trim(slice_skip(key, 7));
                if (!key_is_valid(key))
                        return vars_invalid(error, path, number,
                                "a key is letters, digits and _, not first a digit");
                name = slice_dup(key);
                value = value_unquote(slice_trim(line));
                if (!name) {
                        json_decref(value);
                        return -ENOMEM;
                }
                if (!value)
                        return vars_invalid(error, path, number, "the value is not UTF-8");
                if (json_object_set_new(vars, name, value) < 0)
                        return -ENOMEM;
        }
        return 0;
}

int host_app_read_vars(Slice text, const char *path, json_t *vars, HostAppError *error)
{
        _cleanup_(json_decref_p) json_t *object = NULL;
        JsoncError json_error = { 0 };
        size_t blank = 0;
        int r;

        dd_assert(text.data || text.len == 0);
        while (blank < text.len && isspace((unsigned char)text.data[blank]))
                blank++;
        if (blank == text.len || text.data[blank] != '{')
                return read_lines(text, path, vars, error);
        r = jsonc_parse(text, &object, &json_error);
        if (r > 0)
                return vars_invalid(error, path, json_error.line, json_error.message);
        if (r < 0)
                return r;
        return json_object_update(vars, object) < 0 ? -ENOMEM : 0;
}

static int load_manifest(HostApp *app, Catalog *catalog, HostAppError *error)
{
        _cleanup_(free_p) char *path = path_join(app->directory, MANIFEST_NAME);
        _cleanup_(buf_done) Buf text = BUF_INIT(0);
        ManifestError manifest_error = { 0 };
        CatalogError catalog_error = { 0 };
        int r;

        if (!path)
                return -ENOMEM;
        r = file_read(path, MANIFEST_MAX, &text);
        if (r < 0) {
                snprintf(error->message, sizeof(error->message), "cannot read %s: %s", path,
                        strerror(-r));
                return HOST_APP_E_INVALID;
        }
        r = manifest_parse(buf_slice(&text), &app->manifest, &manifest_error);
        if (r > 0) {
                snprintf(error->message, sizeof(error->message), "%s:%u:%u: %s%s%s", path,
                        manifest_error.line, manifest_error.column, manifest_error.key,
                        manifest_error.key[0] ? ": " : "", manifest_error.message);
                return HOST_APP_E_INVALID;
        }
        if (r < 0 || !catalog)
                return r;
        r = catalog_apply(catalog, app->manifest, &app->classes, &app->n_classes, &catalog_error);
        if (r > 0) {
                snprintf(error->message, sizeof(error->message), "%s:%u: %s", path,
                        catalog_error.line, catalog_error.message);
                return HOST_APP_E_INVALID;
        }
        return r;
}

static int load_vars(HostApp *app, HostAppError *error)
{
        _cleanup_(buf_done) Buf text = BUF_INIT(0);
        const char *path = app->config->vars_file;
        int r;

        app->vars = json_deep_copy(app->manifest->vars);
        if (!app->vars)
                return -ENOMEM;
        if (!path)
                return 0;
        r = file_read(path, HOST_APP_VARS_MAX, &text);
        if (r < 0) {
                snprintf(error->message, sizeof(error->message),
                        "cannot read vars_file=%s of app %s: %s", path, app->config->name,
                        strerror(-r));
                return HOST_APP_E_INVALID;
        }
        return host_app_read_vars(buf_slice(&text), path, app->vars, error);
}

int host_app_load(const ConfigApp *config, Catalog *catalog, HostApp **ret, HostAppError *error)
{
        _cleanup_(host_app_free_p) HostApp *app = calloc(1, sizeof(*app));
        int r;

        if (!app)
                return -ENOMEM;
        app->config = config;
        app->directory = realpath(config->directory, NULL);
        if (!app->directory) {
                snprintf(error->message, sizeof(error->message), "directory=%s of app %s: %s",
                        config->directory, config->name, strerror(errno));
                return HOST_APP_E_INVALID;
        }
        r = load_manifest(app, catalog, error);
        if (r != 0)
                return r;
        r = load_vars(app, error);
        if (r != 0)
                return r;
        *ret = TAKE_PTR(app);
        return 0;
}

HostApp *host_app_free(HostApp *app)
{
        if (!app)
                return NULL;
        if (app->classes)
                catalog_classes_free(app->classes, app->n_classes);
        if (app->manifest)
                manifest_free(app->manifest);
        json_decref(app->vars);
        free(app->directory);
        free(app);
        return NULL;
}

const CatalogClass *host_app_find_class(const HostApp *app, const char *class_name)
{
        for (size_t i = 0; i < app->n_classes; i++)
                if (strcmp(app->classes[i].class_name, class_name) == 0)
                        return &app->classes[i];
        return NULL;
}
