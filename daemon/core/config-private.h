/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The inside of config: the table of settings and the types of their values
 *
 * config.c reads files line by line and finds the row; config-value.c judges one value and stores
 * it. A judge that refuses says what would be right in its message and stores nothing.
 */

#include "daemon/core/config.h"

#define CONFIG_WORKERS_MAX 128
#define CONFIG_LISTEN_MAX 16
#define CONFIG_APPS_MAX 256

typedef struct Setting Setting;
typedef struct Problem {
        char text[280];
} Problem;

/* 0, CONFIG_E_INVALID with problem filled, or -ENOMEM. target: the field in Config or ConfigApp. */
typedef int (*SettingFn)(const Setting *setting, Slice value, void *target, Problem *problem);

struct Setting {
        const char *section, *key, *value_default;
        size_t offset;
        SettingFn set;
        uint64_t min, max; /* of numbers, sizes (bytes) and times (ns); max of a text's length */
};

int setting_path(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_path_list(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_listen(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_prefix(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_hosts(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_steering(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_level(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_bool(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_unsigned(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_size(const Setting *setting, Slice value, void *target, Problem *problem);
int setting_time(const Setting *setting, Slice value, void *target, Problem *problem);

int problem_say(Problem *problem, const char *format, ...) _printf_(2, 3);
