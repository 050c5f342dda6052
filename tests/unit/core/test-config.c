/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/config.h"
#include "daemon/core/log.h"
#include "lib/base/file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

typedef struct Wrong {
        const char *text;
        unsigned line;
        const char *message;
} Wrong;

#define NO_TIME(_value, _min) \
        "'" _value "' is not a time from " _min " to 24h: a number with us, ms, s, min or h"
#define NO_ADDRESS(_value)                                                               \
        "listen: '" _value "' is not an address and a port: write it as 127.0.0.1:8787 " \
        "or [::1]:8787, the port from 1 to 65535"
#define NO_PREFIX(_value)                                          \
        "object_prefix: '" _value "' is not an IPv6 /64 network: " \
        "write it as fd00:1::/64, the last 64 bits zero"
#define NO_HOST(_value)                                                                   \
        "hosts: '" _value "' is not a host name: write lower-case names without a port, " \
        "separated by spaces, as in: blog.example.com *.example.org"
#define NO_APP(_value)                                                                      \
        "'" _value "' is not the name of an app: write [app NAME] with 1 to 63 lower-case " \
        "letters, digits, '-' and '_', the first a letter or digit"

static const Wrong wrongs[] = {
        /* the form of a line */
        { "state=/x\n", 1, "'state' stands before any section: begin with [durabled] or another" },
        { "[durabled\n", 1, "a section header has no ']' at its end: write [http]" },
        { "[durabled] state=/x\n", 1, "a section header has no ']' at its end: write [http]" },
        { "[durabled]\nstate\n", 2, "'state' is neither [section] nor key=value" },
        { "[durabled]\n=/x\n", 2, "no key before '=': write key=value" },
        /* sections */
        { "[durable]\n", 1, "unknown section [durable]: did you mean [durabled]?" },
        { "[htpp]\n", 1, "unknown section [htpp]: did you mean [http]?" },
        { "[HTTP]\n", 1,
                "unknown section [HTTP]: there are [durabled], [http], [objects], [storage], "
                "[python] "
                "and [app NAME]" },
        { "\n\n[caching]\n", 3,
                "unknown section [caching]: there are [durabled], [http], [objects], [storage], "
                "[python] and [app NAME]" },
        { "[storag]\n", 1, "unknown section [storag]: did you mean [storage]?" },
        { "[storage]\narchive_max=1K\n", 2,
                "archive_max: '1K' is not a size from 1M to 1048576G: bytes, or a number with K, M "
                "or G" },
        { "[]\n", 1,
                "unknown section []: there are [durabled], [http], [objects], [storage], [python] "
                "and [app NAME]" },
        { "[apps blog]\n", 1,
                "unknown section [apps blog]: there are [durabled], [http], [objects], [storage], "
                "[python] and [app NAME]" },
        { "[app]\n", 1, NO_APP("") },
        { "[app Blog]\n", 1, NO_APP("Blog") },
        { "[app my blog]\n", 1, NO_APP("my blog") },
        { "[app -x]\n", 1, NO_APP("-x") },
        { "[app ../x]\n", 1, NO_APP("../x") },
        /* keys */
        { "[durabled]\n\n# a comment\nstat=/x\n", 4,
                "unknown key 'stat' in [durabled]: did you mean 'state'?" },
        { "[durabled]\nState=/x\n", 2, "unknown key 'State' in [durabled]: did you mean 'state'?" },
        { "[http]\nbody-max=1M\n", 2,
                "unknown key 'body-max' in [http]: did you mean 'body_max'?" },
        { "[objects]\nlisten=127.0.0.1:1\n", 2,
                "unknown key 'listen' in [objects]: it belongs in [durabled]" },
        { "[python]\nidle_timeout=1s\n", 2,
                "unknown key 'idle_timeout' in [python]: it belongs in [http]" },
        { "[objects]\ncolour=red\n", 2,
                "unknown key 'colour' in [objects]: there are objects_max, mailbox_max, "
                "idle_timeout" },
        { "[app a]\ndirectroy=/x\n", 2,
                "unknown key 'directroy' in [app]: did you mean 'directory'?" },
        /* empty values */
        { "[durabled]\nstate=\n", 2,
                "state= needs a value: remove the line for the default, /var/lib/durabled" },
        { "[http]\nbody_max=\n", 2,
                "body_max= needs a value: remove the line for the default, 100M" },
        { "[app a]\ndirectory=\n", 2, "directory= needs a value" },
        /* paths */
        { "[durabled]\nstate=var/lib\n", 2,
                "state: 'var/lib' is not an absolute path: start it with '/'" },
        { "[durabled]\nruntime=~/run\n", 2,
                "runtime: '~/run' is not an absolute path: start it with '/'" },
        { "[durabled]\nruntime=/a23456789/123456789/123456789/123456789/123456789/123456789/"
          "123456789/1234567890\n",
                2, "runtime: the path has 81 bytes: at most 80 are possible here" },
        { "[app a]\ndirectory=srv\n", 2,
                "directory: 'srv' is not an absolute path: start it with '/'" },
        { "[app a]\npython_path=/a:b\n", 2,
                "python_path: 'b' is not an absolute path: start it with '/'" },
        { "[app a]\npython_path=/a::/b\n", 2,
                "python_path: '' is not an absolute path: start it with '/'" },
        { "[app a]\nvars_file=.dev.vars\n", 2,
                "vars_file: '.dev.vars' is not an absolute path: start it with '/'" },
        /* addresses */
        { "[durabled]\nlisten=8787\n", 2, NO_ADDRESS("8787") },
        { "[durabled]\nlisten=localhost:8787\n", 2, NO_ADDRESS("localhost:8787") },
        { "[durabled]\nlisten=127.0.0.1\n", 2, NO_ADDRESS("127.0.0.1") },
        { "[durabled]\nlisten=127.0.0.1:\n", 2, NO_ADDRESS("127.0.0.1:") },
        { "[durabled]\nlisten=127.0.0.1:0\n", 2, NO_ADDRESS("127.0.0.1:0") },
        { "[durabled]\nlisten=127.0.0.1:65536\n", 2, NO_ADDRESS("127.0.0.1:65536") },
        { "[durabled]\nlisten=127.0.0.256:80\n", 2, NO_ADDRESS("127.0.0.256:80") },
        { "[durabled]\nlisten=::1:8787\n", 2, NO_ADDRESS("::1:8787") },
        { "[durabled]\nlisten=[::1]8787\n", 2, NO_ADDRESS("[::1]8787") },
        { "[durabled]\nlisten=[::1\n", 2, NO_ADDRESS("[::1") },
        { "[durabled]\nlisten=*:80\n", 2, NO_ADDRESS("*:80") },
        { "[durabled]\nlisten=127.0.0.1:1 127.0.0.1:2\n", 2,
                NO_ADDRESS("127.0.0.1:1 127.0.0.1:2") },
        { "[durabled]\nlisten=127.0.0.1:1\nlisten=127.0.0.1:1\n", 3,
                "listen: '127.0.0.1:1' is given twice: remove one of them" },
        { "[durabled]\nlisten=127.0.0.1:1\n\nlisten=\n", 4,
                "listen= was emptied and no address follows: write listen=127.0.0.1:8787" },
        { "[durabled]\nobject_prefix=fd00:1::\n", 2, NO_PREFIX("fd00:1::") },
        { "[durabled]\nobject_prefix=fd00:1::/48\n", 2, NO_PREFIX("fd00:1::/48") },
        { "[durabled]\nobject_prefix=fd00:1::1/64\n", 2, NO_PREFIX("fd00:1::1/64") },
        { "[durabled]\nobject_prefix=10.0.0.0/64\n", 2, NO_PREFIX("10.0.0.0/64") },
        /* words */
        { "[durabled]\nsteering=on\n", 2, "steering: 'on' is not one of auto, late, address, off" },
        { "[durabled]\nobject_addresses=maybe\n", 2,
                "object_addresses: 'maybe' is not one of yes, no, true, false, 1, 0" },
        { "[durabled]\ndevelopment=YES\n", 2,
                "development: 'YES' is not one of yes, no, true, false, 1, 0" },
        { "[durabled]\nlog_level=verbose\n", 2,
                "log_level: 'verbose' is not one of error, warning, notice, info, debug" },
        /* numbers */
        { "[durabled]\nworkers=-1\n", 2, "workers: '-1' is not a whole number from 0 to 128" },
        { "[durabled]\nworkers=129\n", 2, "workers: '129' is not a whole number from 0 to 128" },
        { "[durabled]\nworkers=two\n", 2, "workers: 'two' is not a whole number from 0 to 128" },
        { "[objects]\nmailbox_max=0\n", 2,
                "mailbox_max: '0' is not a whole number from 1 to 1000000" },
        { "[objects]\nobjects_max=1K\n", 2,
                "objects_max: '1K' is not a whole number from 1 to 1000000" },
        { "[http]\nconnections_max=99999999999999999999\n", 2,
                "connections_max: '99999999999999999999' is not a whole number from 1 to 1000000" },
        { "[python]\nrunners_max=2000\n", 2,
                "runners_max: '2000' is not a whole number from 1 to 1024" },
        { "[app a]\nworkers=1.5\n", 2, "workers: '1.5' is not a whole number from 0 to 128" },
        { "[http]\nbody_max=100MB\n", 2,
                "body_max: '100MB' is not a size from 0 to 1024G: bytes, or a number with K, M or "
                "G" },
        { "[http]\nhead_max=1\n", 2,
                "head_max: '1' is not a size from 1K to 1M: bytes, or a number with K, M or G" },
        { "[http]\nhead_max=99999999999999999999G\n", 2,
                "head_max: '99999999999999999999G' is not a size from 1K to 1M: bytes, or a number "
                "with K, M or G" },
        { "[http]\nbody_timeout=30\n", 2, "body_timeout: " NO_TIME("30", "1ms") },
        { "[http]\nhead_timeout=0s\n", 2, "head_timeout: " NO_TIME("0s", "1ms") },
        { "[http]\nsend_timeout=10 s\n", 2, "send_timeout: " NO_TIME("10 s", "1ms") },
        { "[http]\nidle_timeout=25h\n", 2, "idle_timeout: " NO_TIME("25h", "1ms") },
        { "[durabled]\ndrain_timeout=s\n", 2, "drain_timeout: " NO_TIME("s", "0us") },
        /* apps */
        { "[app a]\nhosts=Blog.example.com\n", 2, NO_HOST("Blog.example.com") },
        { "[app a]\nhosts=blog.example.com:80\n", 2, NO_HOST("blog.example.com:80") },
        { "[app a]\nhosts=a..b\n", 2, NO_HOST("a..b") },
        { "[app a]\nhosts=a.example,b.example\n", 2, NO_HOST("a.example,b.example") },
        { "\n[app a]\nworkers=1\n[http]\n", 2,
                "[app a] has no directory=: name the folder of its wrangler.jsonc" },
};

typedef struct Folder {
        char path[64], file[96], drop_ins[96];
} Folder;

static void write_text(const char *path, Slice text)
{
        FILE *file = fopen(path, "we");

        assert_non_null(file);
        assert_int_equal(fwrite(text.data, 1, text.len, file), text.len);
        assert_int_equal(fclose(file), 0);
}

static int folder_new(void **state)
{
        Folder *folder = calloc(1, sizeof *folder);

        snprintf(folder->path, sizeof folder->path, "/tmp/durabled-config-XXXXXX");
        if (!mkdtemp(folder->path))
                return -1;
        snprintf(folder->file, sizeof folder->file, "%s/d.conf", folder->path);
        snprintf(folder->drop_ins, sizeof folder->drop_ins, "%s/d.conf.d", folder->path);
        *state = folder;
        return mkdir(folder->drop_ins, 0700);
}

static void drop_in(Folder *folder, const char *name, const char *text)
{
        _cleanup_(free_p) char *path = path_join(folder->drop_ins, name);

        write_text(path, slice_from(text));
}

static int folder_free(void **state)
{
        static const char *const names[] = { "10-a.conf", "20-b.conf", "5-c.conf", "x.conf~",
                ".y.conf" };
        Folder *folder = *state;

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_(free_p) char *path = path_join(folder->drop_ins, names[i]);

                unlink(path);
        }
        rmdir(folder->drop_ins);
        unlink(folder->file);
        rmdir(folder->path);
        free(folder);
        return 0;
}

static void every_wrong_line_is_named_with_what_would_be_right(void **state)
{
        Folder *folder = *state;

        for (size_t i = 0; i < ELEMENTSOF(wrongs); i++) {
                const Wrong *wrong = &wrongs[i];
                ConfigError error = {};
                Config *config = NULL;

                write_text(folder->file, slice_from(wrong->text));
                if (config_load(folder->file, &config, &error) != CONFIG_E_INVALID)
                        fail_msg("accepted: %s", wrong->text);
                assert_null(config);
                assert_string_equal(error.file, folder->file);
                assert_string_equal(error.message, wrong->message);
                assert_int_equal(error.line, wrong->line);
        }
        assert_true(ELEMENTSOF(wrongs) >= 40);
}

static void what_is_no_text_is_refused(void **state)
{
        Folder *folder = *state;
        _cleanup_(free_p) char *long_line = malloc(10000), *big = malloc(2 << 20);
        ConfigError error = {};
        Config *config = NULL;

        write_text(folder->file, SLICE("[durabled]\nstate=/a\0b\n"));
        assert_int_equal(config_load(folder->file, &config, &error), CONFIG_E_INVALID);
        assert_string_equal(error.message, "the line holds a NUL byte: settings are text");
        assert_int_equal(error.line, 2);

        memset(long_line, 'x', 10000);
        write_text(folder->file, slice_of(long_line, 10000));
        assert_int_equal(config_load(folder->file, &config, &error), CONFIG_E_INVALID);
        assert_string_equal(error.message, "the line has 10000 bytes: at most 8192 are possible");

        memset(big, '\n', 2 << 20);
        write_text(folder->file, slice_of(big, 2 << 20));
        assert_int_equal(config_load(folder->file, &config, &error), CONFIG_E_INVALID);
        assert_string_equal(error.message, "the file is larger than 1M: settings are a few lines");
        assert_int_equal(error.line, 0);
        assert_null(config);
}

static void a_missing_file_is_an_error_and_missing_drop_ins_are_not(void **state)
{
        Folder *folder = *state;
        _cleanup_(config_free_p) Config *config = NULL;
        ConfigError error = {};

        rmdir(folder->drop_ins);
        assert_int_equal(config_load(folder->file, &config, &error), CONFIG_E_INVALID);
        assert_string_equal(error.message, "cannot be read: No such file or directory");
        assert_string_equal(error.file, folder->file);
        write_text(folder->file, SLICE(""));
        assert_int_equal(config_load(folder->file, &config, &error), 0);
}

static void an_empty_file_gives_the_defaults(void **state)
{
        Folder *folder = *state;
        _cleanup_(config_free_p) Config *config = NULL;
        ConfigError error;

        write_text(folder->file, SLICE("# nothing\n; at all\n\n"));
        assert_int_equal(config_load(folder->file, &config, &error), 0);
        assert_string_equal(config->state, "/var/lib/durabled");
        assert_string_equal(config->runtime, "/run/durabled");
        assert_int_equal(config->n_listen, 1);
        assert_string_equal(config->listen[0], "127.0.0.1:8787");
        assert_int_equal(config->steering, STEERING_AUTO);
        assert_true(config->object_addresses);
        assert_false(config->development);
        assert_null(config->object_prefix);
        assert_null(config->host_modules);
        assert_null(config->worker_path);
        assert_int_equal(config->workers, 0);
        assert_int_equal(config->log_level, LOG_INFO);
        assert_true(config->drain_timeout_ns == 10 * NSEC_PER_SEC);
        assert_true(config->worker_timeout_ns == 30 * NSEC_PER_SEC);
        assert_true(config->body_max == 100u << 20);
        assert_true(config->head_max == 64u << 10);
        assert_true(config->target_max == 16u << 10);
        assert_int_equal(config->headers_max, 128);
        assert_true(config->head_timeout_ns == 10 * NSEC_PER_SEC);
        assert_true(config->body_timeout_ns == 30 * NSEC_PER_SEC);
        assert_true(config->send_timeout_ns == 30 * NSEC_PER_SEC);
        assert_true(config->idle_timeout_ns == 75 * NSEC_PER_SEC);
        assert_int_equal(config->connections_max, 10000);
        assert_int_equal(config->requests_max, 0);
        assert_int_equal(config->objects_max, 1000);
        assert_int_equal(config->mailbox_max, 1024);
        assert_true(config->objects_idle_ns == 60 * NSEC_PER_SEC);
        assert_int_equal(config->archive_days, 30);
        assert_true(config->archive_max == UINT64_C(10) << 30);
        assert_int_equal(config->runners_max, 64);
        assert_int_equal(config->baton_ms, 5);
        assert_int_equal(config->n_apps, 0);
}

static void every_setting_reaches_its_field(void **state)
{
        Folder *folder = *state;
        _cleanup_(config_free_p) Config *config = NULL;
        ConfigError error;
        ConfigApp *app;

        write_text(folder->file,
                SLICE("[durabled]\r\n state = /srv/a b=c \nruntime=/tmp/r\nlisten=0.0.0.0:80\n"
                      "listen=[::]:80\nsteering=late\nobject_addresses=no\n"
                      "object_prefix=fd00:1::/64\nworkers=4\ndevelopment=true\nlog_level=debug\n"
                      "drain_timeout=500ms\nhost_modules=/m\nworker_path=/w\n"
                      "[http]\nbody_max=1G\nhead_max=2048\ntarget_max=1K\nheaders_max=20\n"
                      "head_timeout=1s\nbody_timeout=2min\nsend_timeout=3h\nidle_timeout=4000us\n"
                      "connections_max=7\nrequests_max=8\n[objects]\nobjects_max=9\n"
                      "mailbox_max=10\nidle_timeout=11s\n[storage]\narchive_days=7\narchive_max="
                      "2G\n[python]\nrunners_max=12\nbaton_ms=13\n"
                      "[app blog]\ndirectory=/srv/blog\npython_path=/a:/b\nvars_file=/v\n"
                      "hosts=a.example *.b.example\nworkers=3\n[app two_2-b]\ndirectory=/d"));
        assert_int_equal(config_load(folder->file, &config, &error), 0);
        assert_string_equal(config->state, "/srv/a b=c");
        assert_string_equal(config->runtime, "/tmp/r");
        assert_int_equal(config->n_listen, 2);
        assert_string_equal(config->listen[0], "0.0.0.0:80");
        assert_string_equal(config->listen[1], "[::]:80");
        assert_int_equal(config->steering, STEERING_LATE);
        assert_false(config->object_addresses);
        assert_string_equal(config->object_prefix, "fd00:1::/64");
        assert_int_equal(config->workers, 4);
        assert_true(config->development);
        assert_int_equal(config->log_level, LOG_DEBUG_);
        assert_true(config->drain_timeout_ns == 500 * NSEC_PER_MSEC);
        assert_string_equal(config->host_modules, "/m");
        assert_string_equal(config->worker_path, "/w");
        assert_true(config->body_max == 1u << 30);
        assert_true(config->head_max == 2048);
        assert_true(config->target_max == 1024);
        assert_int_equal(config->headers_max, 20);
        assert_true(config->head_timeout_ns == NSEC_PER_SEC);
        assert_true(config->body_timeout_ns == 120 * NSEC_PER_SEC);
        assert_true(config->send_timeout_ns == 3 * 3600 * NSEC_PER_SEC);
        assert_true(config->idle_timeout_ns == 4 * NSEC_PER_MSEC);
        assert_int_equal(config->connections_max, 7);
        assert_int_equal(config->requests_max, 8);
        assert_int_equal(config->objects_max, 9);
        assert_int_equal(config->mailbox_max, 10);
        assert_true(config->objects_idle_ns == 11 * NSEC_PER_SEC);
        assert_int_equal(config->archive_days, 7);
        assert_true(config->archive_max == UINT64_C(2) << 30);
        assert_int_equal(config->runners_max, 12);
        assert_int_equal(config->baton_ms, 13);
        assert_int_equal(config->n_apps, 2);
        app = &config->apps[0];
        assert_string_equal(app->name, "blog");
        assert_string_equal(app->directory, "/srv/blog");
        assert_string_equal(app->python_path, "/a:/b");
        assert_string_equal(app->vars_file, "/v");
        assert_string_equal(app->hosts, "a.example *.b.example");
        assert_int_equal(app->workers, 3);
        assert_string_equal(config->apps[1].name, "two_2-b");
        assert_int_equal(config->apps[1].workers, 0);
}

static void drop_ins_come_in_the_order_of_their_names_and_later_lines_win(void **state)
{
        Folder *folder = *state;
        _cleanup_(config_free_p) Config *config = NULL;
        ConfigError error;

        write_text(folder->file, SLICE("[durabled]\nworkers=1\nlisten=127.0.0.1:1\n"
                                       "host_modules=/m\n[app blog]\ndirectory=/one\n"));
        drop_in(folder, "20-b.conf", "[durabled]\nworkers=3\nlisten=127.0.0.1:4\n");
        drop_in(folder, "10-a.conf",
                "[durabled]\nworkers=2\nlisten=\nlisten=127.0.0.1:3\nhost_modules=\n"
                "[app blog]\nworkers=7\n");
        drop_in(folder, "5-c.conf", "[durabled]\nstate=/five\n");
        drop_in(folder, "x.conf~", "nonsense");
        drop_in(folder, ".y.conf", "nonsense");
        assert_int_equal(config_load(folder->file, &config, &error), 0);
        assert_int_equal(config->workers, 3);
        assert_int_equal(config->n_listen, 2);
        assert_string_equal(config->listen[0], "127.0.0.1:3");
        assert_string_equal(config->listen[1], "127.0.0.1:4");
        assert_string_equal(config->state, "/five");
        assert_null(config->host_modules);
        assert_int_equal(config->n_apps, 1);
        assert_string_equal(config->apps[0].directory, "/one");
        assert_int_equal(config->apps[0].workers, 7);
}

static void an_error_in_a_drop_in_names_that_file(void **state)
{
        Folder *folder = *state;
        _cleanup_(free_p) char *path = path_join(folder->drop_ins, "10-a.conf");
        Config *config = NULL;
        ConfigError error;

        write_text(folder->file, SLICE("[durabled]\nworkers=1\n"));
        drop_in(folder, "10-a.conf", "workers=2\n");
        assert_int_equal(config_load(folder->file, &config, &error), CONFIG_E_INVALID);
        assert_string_equal(error.file, path);
        assert_string_equal(error.message,
                "'workers' stands before any section: begin with [durabled] or another");
        drop_in(folder, "10-a.conf", "\n[app late]\nworkers=2\n");
        assert_int_equal(config_load(folder->file, &config, &error), CONFIG_E_INVALID);
        assert_string_equal(error.file, path);
        assert_int_equal(error.line, 2);
        drop_in(folder, "10-a.conf", "[durabled]\nlisten=\n");
        assert_int_equal(config_load(folder->file, &config, &error), CONFIG_E_INVALID);
        assert_string_equal(error.file, path);
        assert_int_equal(error.line, 2);
        assert_null(config);
}

static void too_many_apps_and_addresses_are_refused(void **state)
{
        Folder *folder = *state;
        Buf text = BUF_INIT(0);
        Config *config = NULL;
        ConfigError error;

        for (int i = 0; i < 257; i++)
                assert_int_equal(buf_printf(&text, "[app a%d]\ndirectory=/d\n", i), 0);
        write_text(folder->file, buf_slice(&text));
        assert_int_equal(config_load(folder->file, &config, &error), CONFIG_E_INVALID);
        assert_string_equal(error.message, "more than 256 apps: remove some");
        assert_int_equal(error.line, 513);
        buf_clear(&text);
        assert_int_equal(buf_append_string(&text, "[durabled]\n"), 0);
        for (int i = 1; i <= 17; i++)
                assert_int_equal(buf_printf(&text, "listen=127.0.0.1:%d\n", i), 0);
        write_text(folder->file, buf_slice(&text));
        assert_int_equal(config_load(folder->file, &config, &error), CONFIG_E_INVALID);
        assert_string_equal(error.message, "listen: more than 16 addresses: remove some");
        assert_int_equal(error.line, 18);
        buf_done(&text);
}

static void times_and_sizes_are_exact(void **state)
{
        uint64_t value = 1;

        assert_true(config_parse_time(SLICE("250us"), &value));
        assert_true(value == 250000);
        assert_true(config_parse_time(SLICE("2min"), &value));
        assert_true(value == 120 * NSEC_PER_SEC);
        assert_true(config_parse_size(SLICE("3K"), &value));
        assert_true(value == 3072);
        assert_true(config_parse_size(SLICE("0"), &value));
        assert_true(value == 0);
        assert_false(config_parse_time(SLICE("10"), &value));
        assert_false(config_parse_time(SLICE("1.5s"), &value));
        assert_false(config_parse_time(SLICE("6000000h"), &value));
        assert_false(config_parse_size(SLICE("1k"), &value));
        assert_false(config_parse_size(SLICE("17179869184G"), &value));
        assert_false(config_parse_size(SLICE("K"), &value));
        assert_true(value == 0);
}

typedef struct Row {
        Slice section, key, value_default;
} Row;

/* Reads "## `[section]`" and "| `key` | `default` | meaning |". */
static size_t read_rows(Slice text, Row *rows, size_t max)
{
        Slice section = {};
        size_t n = 0;

        while (text.len) {
                Slice line = slice_cut(&text, '\n'), cell;

                if (slice_has_prefix(line, SLICE("## `["))) {
                        section = slice_skip(line, 5);
                        section = slice_cut(&section, ']');
                        section = slice_cut(&section, ' ');
                        continue;
                }
                if (!slice_has_prefix(line, SLICE("| `")))
                        continue;
                assert_true(n < max);
                line = slice_skip(line, 3);
                rows[n].section = section;
                rows[n].key = slice_cut(&line, '`');
                (void)slice_cut(&line, '|');
                cell = slice_trim(slice_cut(&line, '|'));
                if (slice_has_prefix(cell, SLICE("`"))) {
                        cell = slice_skip(cell, 1);
                        cell = slice_cut(&cell, '`');
                }
                rows[n].value_default = cell;
                assert_true(slice_trim(slice_cut(&line, '|')).len > 10);
                n++;
        }
        return n;
}

static void the_document_lists_every_setting_with_its_default(void **state)
{
        Buf text = BUF_INIT(0);
        Row rows[100];
        ConfigSetting setting;
        size_t n, i;

        assert_int_equal(file_read(CONFIGURATION_MD, 1 << 20, &text), 0);
        n = read_rows(buf_slice(&text), rows, ELEMENTSOF(rows));
        for (i = 0; config_get_setting(i, &setting); i++) {
                const char *value = setting.value_default;

                if (!value)
                        value = "required";
                else if (value[0] == '\0')
                        value = "none";
                if (i >= n)
                        fail_msg("not documented: [%s] %s", setting.section, setting.key);
                if (!slice_equal(rows[i].section, slice_from(setting.section)) ||
                        !slice_equal(rows[i].key, slice_from(setting.key)) ||
                        !slice_equal(rows[i].value_default, slice_from(value)))
                        fail_msg("the document has [%.*s] %.*s = %.*s, the table [%s] %s = %s",
                                SLICE_FMT(rows[i].section), SLICE_FMT(rows[i].key),
                                SLICE_FMT(rows[i].value_default), setting.section, setting.key,
                                value);
        }
        assert_int_equal(n, i);
        buf_done(&text);
}

#define with_folder(_test) cmocka_unit_test_setup_teardown(_test, folder_new, folder_free)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                with_folder(every_wrong_line_is_named_with_what_would_be_right),
                with_folder(what_is_no_text_is_refused),
                with_folder(a_missing_file_is_an_error_and_missing_drop_ins_are_not),
                with_folder(an_empty_file_gives_the_defaults),
                with_folder(every_setting_reaches_its_field),
                with_folder(drop_ins_come_in_the_order_of_their_names_and_later_lines_win),
                with_folder(an_error_in_a_drop_in_names_that_file),
                with_folder(too_many_apps_and_addresses_are_refused),
                cmocka_unit_test(times_and_sizes_are_exact),
                cmocka_unit_test(the_document_lists_every_setting_with_its_default),
        };

        return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
