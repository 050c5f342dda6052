/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/config-private.h"
#include "daemon/core/log.h"
#include "lib/base/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>

#define SHOWN 60 /* bytes of a wrong value that a message repeats */

typedef struct Unit {
        const char *name;
        uint64_t factor;
} Unit;

typedef struct Word {
        const char *name;
        int value;
} Word;

/* The largest first: a number is shown in the first that divides it. */
static const Unit sizes[] = {
        { "G", UINT64_C(1) << 30 },
        { "M", UINT64_C(1) << 20 },
        { "K", UINT64_C(1) << 10 },
        { "", 1 },
};
static const Unit times[] = {
        { "h", 3600 * NSEC_PER_SEC },
        { "min", 60 * NSEC_PER_SEC },
        { "s", NSEC_PER_SEC },
        { "ms", NSEC_PER_MSEC },
        { "us", 1000 },
};

int problem_say(Problem *problem, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        vsnprintf(problem->text, sizeof problem->text, format, args);
        va_end(args);
        return CONFIG_E_INVALID;
}

static Slice shown(Slice value)
{
        return slice_head(value, SHOWN);
}

static bool parse_with_unit(Slice text, const Unit *units, size_t n_units, uint64_t *ret)
{
        size_t digits = 0;
        uint64_t number;

        while (digits < text.len && text.data[digits] >= '0' && text.data[digits] <= '9')
                digits++;
        if (!slice_to_u64(slice_head(text, digits), &number))
                return false;
        for (size_t i = 0; i < n_units; i++)
                if (slice_equal(slice_skip(text, digits), slice_from(units[i].name)))
                        return !__builtin_mul_overflow(number, units[i].factor, ret);
        return false;
}

static void show_with_unit(uint64_t value, const Unit *units, size_t n_units, char out[32])
{
        size_t i = 0;

        while (i + 1 < n_units && (value == 0 || value % units[i].factor != 0))
                i++;
        snprintf(out, 32, "%" PRIu64 "%s", value / units[i].factor, units[i].name);
}

bool config_parse_time(Slice text, uint64_t *ret_ns)
{
        uint64_t value;

        if (!parse_with_unit(text, times, ELEMENTSOF(times), &value))
                return false;
        *ret_ns = value;
        return true;
}

bool config_parse_size(Slice text, uint64_t *ret_bytes)
{
        uint64_t value;

        if (!parse_with_unit(text, sizes, ELEMENTSOF(sizes), &value))
                return false;
        *ret_bytes = value;
        return true;
}

static int store_string(Slice value, void *target)
{
        char *copy = NULL;

        if (value.len > 0) {
                copy = slice_dup(value);
                if (!copy)
                        return -ENOMEM;
        }
        free(*(char **)target);
        *(char **)target = copy;
        return 0;
}

static int path_check(const Setting *setting, Slice path, Problem *problem)
{
        if (path.len == 0 || path.data[0] != '/')
                return problem_say(problem, "'%.*s' is not an absolute path: start it with '/'",
                        SLICE_FMT(shown(path)));
        if (path.len > setting->max)
                return problem_say(problem,
                        "the path has %zu bytes: at most %" PRIu64 " are possible here", path.len,
                        setting->max);
        return 0;
}

int setting_path(const Setting *setting, Slice value, void *target, Problem *problem)
{
        int r = value.len ? path_check(setting, value, problem) : 0;

        return r ? r : store_string(value, target);
}

int setting_path_list(const Setting *setting, Slice value, void *target, Problem *problem)
{
        Slice rest = value;

        while (rest.len) {
                int r = path_check(setting, slice_cut(&rest, ':'), problem);

                if (r)
                        return r;
        }
        return store_string(value, target);
}

static bool address_is_valid(Slice value)
{
        char host[INET6_ADDRSTRLEN];
        unsigned char binary[sizeof(struct in6_addr)];
        Slice name, port;
        uint64_t number;
        bool v6 = value.len && value.data[0] == '[';
        ptrdiff_t end = v6 ? slice_find(value, ']') : slice_find(value, ':');

        if (end < 0)
                return false;
        port = slice_skip(value, (size_t)end + (v6 ? 1 : 0));
        name = v6 ? slice_skip(slice_head(value, (size_t)end), 1) : slice_head(value, (size_t)end);
        if (port.len < 2 || port.data[0] != ':' || name.len >= sizeof host)
                return false;
        if (!slice_to_u64(slice_skip(port, 1), &number) || number < 1 || number > 65535)
                return false;
        memcpy(host, name.data, name.len);
        host[name.len] = '\0';
        return inet_pton(v6 ? AF_INET6 : AF_INET, host, binary) == 1;
}

static void listen_clear(Config *config)
{
        for (size_t i = 0; i < config->n_listen; i++)
                free(config->listen[i]);
        free(config->listen);
        config->listen = NULL;
        config->n_listen = 0;
}

/* The one setting that is a list: target is the Config itself. */
int setting_listen(const Setting *setting, Slice value, void *target, Problem *problem)
{
        Config *config = target;
        char **grown, *copy;

        if (value.len == 0) {
                listen_clear(config);
                return 0;
        }
        if (!address_is_valid(value))
                return problem_say(problem,
                        "'%.*s' is not an address and a port: write it as 127.0.0.1:8787 or "
                        "[::1]:8787, the port from 1 to 65535",
                        SLICE_FMT(shown(value)));
        for (size_t i = 0; i < config->n_listen; i++)
                if (slice_equal(value, slice_from(config->listen[i])))
                        return problem_say(problem, "'%.*s' is given twice: remove one of them",
                                SLICE_FMT(shown(value)));
        if (config->n_listen == CONFIG_LISTEN_MAX)
                return problem_say(
                        problem, "more than %d addresses: remove some", CONFIG_LISTEN_MAX);
        grown = reallocarray(config->listen, config->n_listen + 1, sizeof *grown);
        if (!grown)
                return -ENOMEM;
        config->listen = grown;
        copy = slice_dup(value);
        if (!copy)
                return -ENOMEM;
        config->listen[config->n_listen++] = copy;
        return 0;
}

int setting_prefix(const Setting *setting, Slice value, void *target, Problem *problem)
{
        char text[INET6_ADDRSTRLEN];
        struct in6_addr address;
        static const unsigned char zero[8];
        Slice name = slice_head(value, value.len < 3 ? 0 : value.len - 3);

        if (value.len == 0)
                return store_string(value, target);
        if (slice_has_suffix(value, SLICE("/64")) && name.len < sizeof text) {
                memcpy(text, name.data, name.len);
                text[name.len] = '\0';
                if (inet_pton(AF_INET6, text, &address) == 1 &&
                        memcmp(address.s6_addr + 8, zero, sizeof zero) == 0)
                        return store_string(value, target);
        }
        return problem_say(problem,
                "'%.*s' is not an IPv6 /64 network: write it as fd00:1::/64, the last 64 bits zero",
                SLICE_FMT(shown(value)));
}

static bool host_is_valid(Slice host)
{
        bool start = true;

        if (slice_has_prefix(host, SLICE("*.")))
                host = slice_skip(host, 2);
        if (host.len == 0 || host.len > 253)
                return false;
        for (size_t i = 0; i < host.len; i++) {
                char c = host.data[i];
                bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

                if (!letter && (start || (c != '-' && c != '.')))
                        return false;
                start = c == '.';
        }
        return !start;
}

int setting_hosts(const Setting *setting, Slice value, void *target, Problem *problem)
{
        Slice rest = value;

        while (rest.len) {
                Slice host = slice_cut(&rest, ' ');

                if (host.len > 0 && !host_is_valid(host))
                        return problem_say(problem,
                                "'%.*s' is not a host name: write lower-case names without a port, "
                                "separated by spaces, as in: blog.example.com *.example.org",
                                SLICE_FMT(shown(host)));
        }
        return store_string(value, target);
}

static int find_word(
        Slice value, const Word *words, size_t n_words, const char *all, int *ret, Problem *problem)
{
        for (size_t i = 0; i < n_words; i++)
                if (slice_equal(value, slice_from(words[i].name))) {
                        *ret = words[i].value;
                        return 0;
                }
        return problem_say(problem, "'%.*s' is not one of %s", SLICE_FMT(shown(value)), all);
}

int setting_steering(const Setting *setting, Slice value, void *target, Problem *problem)
{
        static const Word words[] = {
                { "auto", STEERING_AUTO },
                { "late", STEERING_LATE },
                { "address", STEERING_ADDRESS },
                { "off", STEERING_OFF },
        };
        int word = 0, r;

        r = find_word(value, words, ELEMENTSOF(words), "auto, late, address, off", &word, problem);
        if (r == 0)
                *(ConfigSteering *)target = (ConfigSteering)word;
        return r;
}

int setting_level(const Setting *setting, Slice value, void *target, Problem *problem)
{
        static const Word words[] = {
                { "error", LOG_ERROR },
                { "warning", LOG_WARN },
                { "notice", LOG_NOTE },
                { "info", LOG_INFO },
                { "debug", LOG_DEBUG_ },
        };

        return find_word(value, words, ELEMENTSOF(words), "error, warning, notice, info, debug",
                target, problem);
}

int setting_bool(const Setting *setting, Slice value, void *target, Problem *problem)
{
        static const Word words[] = {
                { "yes", 1 },
                { "no", 0 },
                { "true", 1 },
                { "false", 0 },
                { "1", 1 },
                { "0", 0 },
        };
        int word = 0, r;

        r = find_word(
                value, words, ELEMENTSOF(words), "yes, no, true, false, 1, 0", &word, problem);
        if (r == 0)
                *(bool *)target = word;
        return r;
}

int setting_unsigned(const Setting *setting, Slice value, void *target, Problem *problem)
{
        uint64_t number;

        if (!slice_to_u64(value, &number) || number < setting->min || number > setting->max)
                return problem_say(problem,
                        "'%.*s' is not a whole number from %" PRIu64 " to %" PRIu64,
                        SLICE_FMT(shown(value)), setting->min, setting->max);
        *(unsigned *)target = (unsigned)number;
        return 0;
}

static int say_range(const Setting *setting, Slice value, const char *what, const char *how,
        const Unit *units, size_t n_units, Problem *problem)
{
        char min[32], max[32];

        show_with_unit(setting->min, units, n_units, min);
        show_with_unit(setting->max, units, n_units, max);
        return problem_say(problem, "'%.*s' is not a %s from %s to %s: %s", SLICE_FMT(shown(value)),
                what, min, max, how);
}

int setting_size(const Setting *setting, Slice value, void *target, Problem *problem)
{
        uint64_t bytes;

        if (!config_parse_size(value, &bytes) || bytes < setting->min || bytes > setting->max)
                return say_range(setting, value, "size", "bytes, or a number with K, M or G", sizes,
                        ELEMENTSOF(sizes), problem);
        *(uint64_t *)target = bytes;
        return 0;
}

int setting_time(const Setting *setting, Slice value, void *target, Problem *problem)
{
        uint64_t ns;

        if (!config_parse_time(value, &ns) || ns < setting->min || ns > setting->max)
                return say_range(setting, value, "time", "a number with us, ms, s, min or h", times,
                        ELEMENTSOF(times), problem);
        *(uint64_t *)target = ns;
        return 0;
}
