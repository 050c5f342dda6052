/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Settings: /etc/durabled/durabled.conf and its drop-ins, INI as systemd writes it
 *
 *   [durabled]                      [http]                          [app blog]
 *   state=/var/lib/durabled         body_max=100M                   directory=/srv/blog
 *   runtime=/run/durabled           head_max=64K                    python_path=/a:/b
 *   listen=127.0.0.1:8787           head_timeout=10s                workers=2
 *   steering=auto                   body_timeout=30s                vars_file=/srv/blog/.dev.vars
 *   object_addresses=yes            send_timeout=30s                hosts=blog.example.com
 *   object_prefix=fd00:1::/64       idle_timeout=75s
 *   workers=2                       connections_max=10000           [python]
 *   development=no                  [objects]                       runners_max=64
 *   log_level=info                  objects_max=1000                baton_ms=5
 *   drain_timeout=10s               mailbox_max=1024
 *   [storage]                       idle_timeout=60s
 *   archive_days=30
 *   archive_max=10G
 *
 * Sizes take K, M, G (powers of 1024); times us, ms, s, min, h; booleans yes/no/true/false/1/0.
 * A line starts a comment with # or ;. Drop-ins ("*.conf") are read in the order of their names,
 * later lines win; listen= adds an address, an empty listen= forgets those before it. An empty
 * value is allowed where a setting may be absent. Every error names file, line, key and what would
 * be right; nothing is applied then. The table of settings is in config.c, for people in
 * docs/configuration.md; a test holds them together.
 */

#include "lib/base/buf.h"

enum {
        _CONFIG_E_SUCCESS = 0,
        CONFIG_E_INVALID, /* error is filled */
};

typedef enum ConfigSteering {
        STEERING_AUTO,
        STEERING_LATE,
        STEERING_ADDRESS,
        STEERING_OFF
} ConfigSteering;

typedef struct ConfigApp {
        char *name;
        char *directory;
        char *python_path; /* NULL: none */
        char *vars_file;   /* NULL: none; KEY=value lines or JSON, over the manifest's vars */
        char *hosts;       /* names separated by spaces; NULL: every host */
        unsigned workers;  /* 0: as [durabled] workers */
} ConfigApp;

typedef struct Config {
        char *state, *runtime;
        char **listen;
        size_t n_listen;
        char *object_prefix; /* NULL: none */
        char *host_modules;  /* NULL: where the build or the package put them */
        char *worker_path;   /* NULL: beside durabled, or libexec */
        ConfigSteering steering;
        bool object_addresses;
        bool development;
        unsigned workers; /* slots per app; 0: one per core */
        int log_level;
        uint64_t drain_timeout_ns;
        uint64_t worker_timeout_ns; /* 0: a silent worker is left alone */
        uint64_t body_max, head_max, target_max;
        unsigned headers_max;
        uint64_t head_timeout_ns, body_timeout_ns, send_timeout_ns, idle_timeout_ns;
        unsigned connections_max, requests_max;
        unsigned objects_max, mailbox_max;
        uint64_t objects_idle_ns;
        unsigned archive_days; /* 0: no archive */
        uint64_t archive_max;  /* of a slot */
        unsigned runners_max, baton_ms;
        ConfigApp *apps;
        size_t n_apps;
} Config;

typedef struct ConfigError {
        char file[256];
        unsigned line; /* 0: the file as a whole */
        char message[360];
} ConfigError;

/*
 * path: the main file; its drop-ins are in "<path>.d". A main file that does not exist is
 * CONFIG_E_INVALID, no folder of drop-ins is fine. 0, CONFIG_E_INVALID, or a negative errno.
 */
int config_load(const char *path, Config **ret, ConfigError *error);
Config *config_free(Config *config);
DEFINE_CLEANUP(Config *, config_free)

/* One row of the table; section "app" stands for every [app NAME]. value_default is as written in a
 * file, "" when the setting is absent by default, NULL when it must be given. */
typedef struct ConfigSetting {
        const char *section, *key, *value_default;
} ConfigSetting;
/* False past the end. */
bool config_get_setting(size_t i, ConfigSetting *ret);

/* For lib users and tests: "10s" -> ns, "64K" -> bytes. */
bool config_parse_time(Slice text, uint64_t *ret_ns);
bool config_parse_size(Slice text, uint64_t *ret_bytes);
