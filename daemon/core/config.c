/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/config-private.h"
#include "lib/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#define FILE_MAX_BYTES (1u << 20)
#define LINE_MAX_BYTES 8192
#define KEY_SHOWN 40
#define RUNTIME_MAX 80 /* a socket's whole path has 107 bytes */

#define MS NSEC_PER_MSEC
#define SEC NSEC_PER_SEC
#define DAY (86400 * NSEC_PER_SEC)
#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (UINT64_C(1) << 30)
#define AT(_field) offsetof(Config, _field)
#define APP(_field) offsetof(ConfigApp, _field)

static const Setting settings[] = {
        /* clang-format off */
        { "durabled", "state", "/var/lib/durabled", AT(state), setting_path, 0, 1024 },
        { "durabled", "runtime", "/run/durabled", AT(runtime), setting_path, 0, RUNTIME_MAX },
        { "durabled", "listen", "127.0.0.1:8787", 0, setting_listen, 0, 0 },
        { "durabled", "steering", "auto", AT(steering), setting_steering, 0, 0 },
        { "durabled", "object_addresses", "yes", AT(object_addresses), setting_bool, 0, 0 },
        { "durabled", "object_prefix", "", AT(object_prefix), setting_prefix, 0, 0 },
        { "durabled", "workers", "0", AT(workers), setting_unsigned, 0, CONFIG_WORKERS_MAX },
        { "durabled", "development", "no", AT(development), setting_bool, 0, 0 },
        { "durabled", "log_level", "info", AT(log_level), setting_level, 0, 0 },
        { "durabled", "drain_timeout", "10s", AT(drain_timeout_ns), setting_time, 0, DAY },
        { "durabled", "host_modules", "", AT(host_modules), setting_path, 0, 1024 },
        { "durabled", "worker_timeout", "30s", AT(worker_timeout_ns), setting_time, 0, DAY },
        { "durabled", "worker_path", "", AT(worker_path), setting_path, 0, 1024 },
        { "http", "body_max", "100M", AT(body_max), setting_size, 0, 1024 * GIB },
        { "http", "head_max", "64K", AT(head_max), setting_size, KIB, 1024 * KIB },
        { "http", "target_max", "16K", AT(target_max), setting_size, 64, 1024 * KIB },
        { "http", "headers_max", "128", AT(headers_max), setting_unsigned, 8, 10000 },
        { "http", "head_timeout", "10s", AT(head_timeout_ns), setting_time, MS, DAY },
        { "http", "body_timeout", "30s", AT(body_timeout_ns), setting_time, MS, DAY },
        { "http", "send_timeout", "30s", AT(send_timeout_ns), setting_time, MS, DAY },
        { "http", "idle_timeout", "75s", AT(idle_timeout_ns), setting_time, MS, DAY },
        { "http", "connections_max", "10000", AT(connections_max), setting_unsigned, 1, 1000000 },
        { "http", "requests_max", "0", AT(requests_max), setting_unsigned, 0, UINT_MAX },
        { "objects", "objects_max", "1000", AT(objects_max), setting_unsigned, 1, 1000000 },
        { "objects", "mailbox_max", "1024", AT(mailbox_max), setting_unsigned, 1, 1000000 },
        { "objects", "idle_timeout", "60s", AT(objects_idle_ns), setting_time, MS, 365 * DAY },
        { "storage", "archive_days", "30", AT(archive_days), setting_unsigned, 0, 36500 },
        { "storage", "archive_max", "10G", AT(archive_max), setting_size, MIB, KIB * KIB * GIB },
        { "python", "runners_max", "64", AT(runners_max), setting_unsigned, 1, 1024 },
        { "python", "baton_ms", "5", AT(baton_ms), setting_unsigned, 1, 10000 },
        { "app", "directory", NULL, APP(directory), setting_path, 0, 1024 },
        { "app", "python_path", "", APP(python_path), setting_path_list, 0, 1024 },
        { "app", "vars_file", "", APP(vars_file), setting_path, 0, 1024 },
        { "app", "hosts", "", APP(hosts), setting_hosts, 0, 0 },
        { "app", "workers", "0", APP(workers), setting_unsigned, 0, CONFIG_WORKERS_MAX },
        /* clang-format on */
};

static const char *const sections[] = { "durabled", "http", "objects", "storage", "python", "app" };

/* Where an [app] was first named or a listen= stood, for an error found at the end. */
typedef struct Place {
        char file[256];
        unsigned line;
} Place;

typedef struct Reader {
        Config *config;
        ConfigError *error;
        Place *places; /* one for each of config->apps */
        const char *file;
        unsigned line;
        const char *section; /* NULL before the first header */
        size_t app;          /* index, in [app NAME] */
        Place listen;        /* the last one */
        bool listen_given;   /* else the default still stands and is replaced, not added to */
} Reader;

static int reader_fail(Reader *reader, const char *format, ...) _printf_(2, 3);

static void reader_mark(const Reader *reader, Place *place)
{
        snprintf(place->file, sizeof place->file, "%s", reader->file);
        place->line = reader->line;
}

static int reader_fail(Reader *reader, const char *format, ...)
{
        ConfigError *error = reader->error;
        va_list args;

        snprintf(error->file, sizeof error->file, "%s", reader->file);
        error->line = reader->line;
        va_start(args, format);
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
        return CONFIG_E_INVALID;
}

/* Levenshtein's distance; names longer than what we have are never near. */
static unsigned name_distance(Slice a, Slice b)
{
        unsigned row[33];

        if (a.len >= ELEMENTSOF(row) || b.len >= ELEMENTSOF(row))
                return UINT_MAX;
        for (unsigned j = 0; j <= b.len; j++)
                row[j] = j;
        for (unsigned i = 1; i <= a.len; i++) {
                unsigned diagonal = row[0];

                row[0] = i;
                for (unsigned j = 1; j <= b.len; j++) {
                        unsigned above = row[j];
                        unsigned swap = diagonal + (a.data[i - 1] != b.data[j - 1]);

                        unsigned step = MIN(above, row[j - 1]) + 1;

                        row[j] = MIN(swap, step);
                        diagonal = above;
                }
        }
        return row[b.len];
}

/* A name is near when a third of it or less is wrong. */
static const char *nearest(Slice name, const char *candidate, const char *best, unsigned *distance)
{
        unsigned d = name_distance(name, slice_from(candidate));

        if (d >= *distance || d > 1 + strlen(candidate) / 3)
                return best;
        *distance = d;
        return candidate;
}

static int fail_section(Reader *reader, Slice name)
{
        const char *best = NULL;
        unsigned distance = UINT_MAX;

        for (size_t i = 0; i < ELEMENTSOF(sections); i++)
                best = nearest(name, sections[i], best, &distance);
        if (best && strcmp(best, "app") != 0)
                return reader_fail(reader, "unknown section [%.*s]: did you mean [%s]?",
                        SLICE_FMT(slice_head(name, KEY_SHOWN)), best);
        return reader_fail(reader,
                "unknown section [%.*s]: there are [durabled], [http], [objects], [storage], "
                "[python] "
                "and [app NAME]",
                SLICE_FMT(slice_head(name, KEY_SHOWN)));
}

static int fail_key(Reader *reader, Slice key)
{
        Buf others = BUF_INIT(0);
        const char *best = NULL;
        unsigned distance = UINT_MAX;

        for (size_t i = 0; i < ELEMENTSOF(settings); i++)
                if (strcmp(settings[i].section, reader->section) == 0)
                        best = nearest(key, settings[i].key, best, &distance);
        key = slice_head(key, KEY_SHOWN);
        if (best)
                return reader_fail(reader, "unknown key '%.*s' in [%s]: did you mean '%s'?",
                        SLICE_FMT(key), reader->section, best);
        for (size_t i = 0; i < ELEMENTSOF(settings); i++)
                if (slice_equal(key, slice_from(settings[i].key)))
                        return reader_fail(reader, "unknown key '%.*s' in [%s]: it belongs in [%s]",
                                SLICE_FMT(key), reader->section, settings[i].section);
        for (size_t i = 0; i < ELEMENTSOF(settings); i++)
                if (strcmp(settings[i].section, reader->section) == 0)
                        (void)buf_printf(&others, "%s%s", others.len ? ", " : "", settings[i].key);
        (void)reader_fail(reader, "unknown key '%.*s' in [%s]: there are %s", SLICE_FMT(key),
                reader->section, others.len ? buf_data(&others) : "others");
        buf_done(&others);
        return CONFIG_E_INVALID;
}

static bool app_name_is_valid(Slice name)
{
        if (name.len == 0 || name.len > 63)
                return false;
        for (size_t i = 0; i < name.len; i++) {
                char c = name.data[i];
                bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

                if (!letter && (i == 0 || (c != '-' && c != '_')))
                        return false;
        }
        return true;
}

static int set_value(
        Config *config, ConfigApp *app, const Setting *setting, Slice value, Problem *problem)
{
        char *base = app ? (char *)app : (char *)config;

        return setting->set(setting, value, base + setting->offset, problem);
}

/* A default is as good as a line of a file: a wrong one is our own bug. */
static int set_defaults(Config *config, ConfigApp *app)
{
        for (size_t i = 0; i < ELEMENTSOF(settings); i++) {
                const Setting *setting = &settings[i];
                Problem problem;
                int r;

                if ((strcmp(setting->section, "app") == 0) != (app != NULL))
                        continue;
                if (!setting->value_default || setting->value_default[0] == '\0')
                        continue;
                r = set_value(config, app, setting, slice_from(setting->value_default), &problem);
                if (r < 0)
                        return r;
                dd_assert(r == 0);
        }
        return 0;
}

static int reader_add_app(Reader *reader, Slice name)
{
        Config *config = reader->config;
        Place *places;
        ConfigApp *apps, *app;

        if (config->n_apps == CONFIG_APPS_MAX)
                return reader_fail(reader, "more than %d apps: remove some", CONFIG_APPS_MAX);
        apps = reallocarray(config->apps, config->n_apps + 1, sizeof *apps);
        if (!apps)
                return -ENOMEM;
        config->apps = apps;
        places = reallocarray(reader->places, config->n_apps + 1, sizeof *places);
        if (!places)
                return -ENOMEM;
        reader->places = places;
        app = &apps[config->n_apps];
        *app = (ConfigApp){ .name = slice_dup(name) };
        if (!app->name)
                return -ENOMEM;
        reader_mark(reader, &places[config->n_apps]);
        reader->app = config->n_apps++;
        return set_defaults(config, app);
}

static int reader_enter_app(Reader *reader, Slice name)
{
        Config *config = reader->config;

        if (!app_name_is_valid(name))
                return reader_fail(reader,
                        "'%.*s' is not the name of an app: write [app NAME] with 1 to 63 "
                        "lower-case "
                        "letters, digits, '-' and '_', the first a letter or digit",
                        SLICE_FMT(slice_head(name, KEY_SHOWN)));
        reader->section = "app";
        for (size_t i = 0; i < config->n_apps; i++)
                if (slice_equal(name, slice_from(config->apps[i].name))) {
                        reader->app = i;
                        return 0;
                }
        return reader_add_app(reader, name);
}

static int reader_take_header(Reader *reader, Slice line)
{
        Slice name;

        if (line.data[line.len - 1] != ']')
                return reader_fail(reader, "a section header has no ']' at its end: write [http]");
        name = slice_trim(slice_skip(slice_head(line, line.len - 1), 1));
        if (slice_equal(name, SLICE("app")) || slice_has_prefix(name, SLICE("app ")))
                return reader_enter_app(reader, slice_trim(slice_skip(name, 3)));
        for (size_t i = 0; i < ELEMENTSOF(sections); i++)
                if (slice_equal(name, slice_from(sections[i]))) {
                        reader->section = sections[i];
                        return 0;
                }
        return fail_section(reader, name);
}

static int reader_set(Reader *reader, const Setting *setting, Slice value)
{
        Config *config = reader->config;
        ConfigApp *app = strcmp(setting->section, "app") == 0 ? &config->apps[reader->app] : NULL;
        bool optional = setting->value_default && setting->value_default[0] == '\0';
        Problem problem;
        int r;

        if (value.len == 0 && !optional && setting->set != setting_listen) {
                if (!setting->value_default)
                        return reader_fail(reader, "%s= needs a value", setting->key);
                return reader_fail(reader, "%s= needs a value: remove the line for the default, %s",
                        setting->key, setting->value_default);
        }
        if (setting->set == setting_listen)
                reader_mark(reader, &reader->listen);
        if (setting->set == setting_listen && !TAKE(reader->listen_given, true))
                (void)set_value(config, NULL, setting, (Slice){}, &problem);
        r = set_value(config, app, setting, value, &problem);
        return r > 0 ? reader_fail(reader, "%s: %s", setting->key, problem.text) : r;
}

static int reader_take_line(Reader *reader, Slice line)
{
        Slice rest, key;

        if (line.len > LINE_MAX_BYTES)
                return reader_fail(reader, "the line has %zu bytes: at most %d are possible",
                        line.len, LINE_MAX_BYTES);
        if (memchr(line.data ? line.data : "", '\0', line.len))
                return reader_fail(reader, "the line holds a NUL byte: settings are text");
        if (slice_has_suffix(line, SLICE("\r")))
                line.len--;
        line = slice_trim(line);
        if (line.len == 0 || line.data[0] == '#' || line.data[0] == ';')
                return 0;
        if (line.data[0] == '[')
                return reader_take_header(reader, line);
        if (slice_find(line, '=') < 0)
                return reader_fail(reader, "'%.*s' is neither [section] nor key=value",
                        SLICE_FMT(slice_head(line, KEY_SHOWN)));
        rest = line;
        key = slice_trim(slice_cut(&rest, '='));
        if (key.len == 0)
                return reader_fail(reader, "no key before '=': write key=value");
        if (!reader->section)
                return reader_fail(reader,
                        "'%.*s' stands before any section: begin with [durabled] or another",
                        SLICE_FMT(slice_head(key, KEY_SHOWN)));
        for (size_t i = 0; i < ELEMENTSOF(settings); i++)
                if (strcmp(settings[i].section, reader->section) == 0 &&
                        slice_equal(key, slice_from(settings[i].key)))
                        return reader_set(reader, &settings[i], slice_trim(rest));
        return fail_key(reader, key);
}

static int reader_take_file(Reader *reader, const char *path)
{
        Buf text = BUF_INIT(FILE_MAX_BYTES + 32768);
        Slice rest;
        int r;

        reader->file = path;
        reader->line = 0;
        reader->section = NULL;
        r = file_read(path, FILE_MAX_BYTES, &text);
        if (r == -EFBIG || r == -ENOBUFS)
                r = reader_fail(reader, "the file is larger than 1M: settings are a few lines");
        else if (r < 0 && r != -ENOMEM)
                r = reader_fail(reader, "cannot be read: %s", strerror(-r));
        rest = buf_slice(&text);
        while (r == 0 && rest.len > 0) {
                reader->line++;
                r = reader_take_line(reader, slice_cut(&rest, '\n'));
        }
        buf_done(&text);
        return r;
}

static int is_drop_in(const struct dirent *entry)
{
        Slice name = slice_from(entry->d_name);

        return name.data[0] != '.' && slice_has_suffix(name, SLICE(".conf"));
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int reader_take_drop_ins(Reader *reader, const char *folder)
{
        struct dirent **entries = NULL;
        int n = scandir(folder, &entries, is_drop_in, by_bytes), r = 0;

        if (n < 0 && errno == ENOENT)
                return 0;
        if (n < 0) {
                r = -errno;
                reader->file = folder;
                reader->line = 0;
                return r == -ENOMEM ? r : reader_fail(reader, "cannot be read: %s", strerror(-r));
        }
        for (int i = 0; i < n; i++) {
                _cleanup_(free_p) char *path = path_join(folder, entries[i]->d_name);

                if (!path && r == 0)
                        r = -ENOMEM;
                if (r == 0)
                        r = reader_take_file(reader, path);
                free(entries[i]);
        }
        free(entries);
        return r;
}

static int reader_finish(Reader *reader)
{
        Config *config = reader->config;

        for (size_t i = 0; i < config->n_apps; i++)
                if (!config->apps[i].directory) {
                        dd_assert(reader->places);
                        reader->file = reader->places[i].file;
                        reader->line = reader->places[i].line;
                        return reader_fail(reader,
                                "[app %s] has no directory=: name the folder of its wrangler.jsonc",
                                config->apps[i].name);
                }
        if (config->n_listen == 0) {
                reader->file = reader->listen.file;
                reader->line = reader->listen.line;
                return reader_fail(reader,
                        "listen= was emptied and no address follows: write listen=127.0.0.1:8787");
        }
        return 0;
}

int config_load(const char *path, Config **ret, ConfigError *error)
{
        _cleanup_(config_free_p) Config *config = calloc(1, sizeof *config);
        _cleanup_(free_p) char *folder = NULL;
        Reader reader = { .config = config, .error = error };
        int r;

        if (!config || asprintf(&folder, "%s.d", path) < 0) {
                folder = NULL;
                return -ENOMEM;
        }
        r = set_defaults(config, NULL);
        if (r == 0)
                r = reader_take_file(&reader, path);
        if (r == 0)
                r = reader_take_drop_ins(&reader, folder);
        if (r == 0)
                r = reader_finish(&reader);
        free(reader.places);
        if (r)
                return r;
        *ret = TAKE_PTR(config);
        return 0;
}

Config *config_free(Config *config)
{
        if (!config)
                return NULL;
        for (size_t i = 0; i < config->n_listen; i++)
                free(config->listen[i]);
        for (size_t i = 0; i < config->n_apps; i++) {
                ConfigApp *app = &config->apps[i];

                free(app->name);
                free(app->directory);
                free(app->python_path);
                free(app->vars_file);
                free(app->hosts);
        }
        free(config->listen);
        free(config->apps);
        free(config->state);
        free(config->runtime);
        free(config->object_prefix);
        free(config->host_modules);
        free(config->worker_path);
        free(config);
        return NULL;
}

bool config_get_setting(size_t i, ConfigSetting *ret)
{
        if (i >= ELEMENTSOF(settings))
                return false;
        *ret = (ConfigSetting){ settings[i].section, settings[i].key, settings[i].value_default };
        return true;
}
