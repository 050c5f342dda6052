/* SPDX-License-Identifier: Apache-2.0 */
#include "tui/moment.h"

#include "lib/base/file.h"

#include <ctype.h>
#include <stdio.h>
#include <time.h>

#define SECONDS_MAX UINT64_C(9000000000) /* year 2255: ns fit into 63 bits */

static bool take_digits(const char **text, unsigned n, unsigned max, int *ret)
{
        int value = 0;

        for (unsigned i = 0; i < n; i++, (*text)++) {
                if (!isdigit((unsigned char)**text))
                        return false;
                value = value * 10 + (**text - '0');
        }
        *ret = value;
        return (unsigned)value <= max;
}

static bool take_char(const char **text, const char *any)
{
        if (!**text || !strchr(any, **text))
                return false;
        (*text)++;
        return true;
}

/* ".25": nanoseconds. Without a point: 0. */
static bool take_fraction(const char **text, uint64_t *ret)
{
        uint64_t value = 0, unit = NSEC_PER_SEC;
        const char *at = *text;

        *ret = 0;
        if (*at != '.')
                return true;
        for (at++; isdigit((unsigned char)*at); at++) {
                unit /= 10;
                value += (uint64_t)(*at - '0') * unit;
        }
        if (at == *text + 1)
                return false;
        *text = at;
        *ret = value;
        return true;
}

static bool parse_epoch(const char *text, uint64_t *ret)
{
        uint64_t seconds = 0, fraction;

        if (!isdigit((unsigned char)*text))
                return false;
        for (; isdigit((unsigned char)*text); text++) {
                seconds = seconds * 10 + (uint64_t)(*text - '0');
                if (seconds > SECONDS_MAX)
                        return false;
        }
        if (!take_fraction(&text, &fraction) || *text)
                return false;
        *ret = seconds * NSEC_PER_SEC + fraction;
        return true;
}

static uint64_t unit_seconds(char unit)
{
        switch (unit) {
        case 's':
                return 1;
        case 'm':
                return 60;
        case 'h':
                return 3600;
        case 'd':
                return 86400;
        case 'w':
                return UINT64_C(7) * 86400;
        default:
                return 0;
        }
}

/* "-1h30m" */
static bool parse_relative(const char *text, uint64_t now_ns, uint64_t *ret)
{
        uint64_t seconds = 0;

        if (*text++ != '-' || !*text)
                return false;
        while (*text) {
                uint64_t value = 0, unit;

                if (!isdigit((unsigned char)*text))
                        return false;
                for (; isdigit((unsigned char)*text); text++) {
                        value = value * 10 + (uint64_t)(*text - '0');
                        if (value > SECONDS_MAX)
                                return false;
                }
                unit = unit_seconds(*text++);
                if (!unit || value > SECONDS_MAX / unit)
                        return false;
                seconds += value * unit;
        }
        if (seconds > now_ns / NSEC_PER_SEC)
                return false;
        *ret = now_ns - seconds * NSEC_PER_SEC;
        return true;
}

static bool take_date(const char **text, struct tm *tm)
{
        int year, month;

        if (!take_digits(text, 4, 2254, &year) || year < 1970 || !take_char(text, "-") ||
                !take_digits(text, 2, 12, &month) || month < 1 || !take_char(text, "-") ||
                !take_digits(text, 2, 31, &tm->tm_mday) || tm->tm_mday < 1)
                return false;
        tm->tm_year = year - 1900;
        tm->tm_mon = month - 1;
        return true;
}

static bool take_time(const char **text, struct tm *tm, uint64_t *ret_fraction)
{
        *ret_fraction = 0;
        if (!take_digits(text, 2, 23, &tm->tm_hour) || !take_char(text, ":") ||
                !take_digits(text, 2, 59, &tm->tm_min))
                return false;
        if (!take_char(text, ":"))
                return true;
        return take_digits(text, 2, 60, &tm->tm_sec) && take_fraction(text, ret_fraction);
}

/* "Z", "+01:00", or nothing: local time. */
static bool take_zone(const char **text, bool *ret_local, long *ret_offset)
{
        int hours, minutes;
        bool minus = **text == '-';

        *ret_local = !**text;
        *ret_offset = 0;
        if (*ret_local || take_char(text, "zZ"))
                return true;
        if (!take_char(text, "+-") || !take_digits(text, 2, 23, &hours))
                return false;
        (void)take_char(text, ":");
        if (!take_digits(text, 2, 59, &minutes))
                return false;
        *ret_offset = (hours * 3600L + minutes * 60L) * (minus ? -1 : 1);
        return true;
}

static bool parse_calendar(const char *text, uint64_t now_ns, uint64_t *ret)
{
        time_t now = (time_t)(now_ns / NSEC_PER_SEC), seconds;
        struct tm tm = { 0 }, check;
        uint64_t fraction = 0;
        bool local = true;
        long offset = 0;

        if (text[0] && text[1] && text[2] == ':') {
                struct tm today;

                if (!localtime_r(&now, &today))
                        return false;
                tm.tm_year = today.tm_year;
                tm.tm_mon = today.tm_mon;
                tm.tm_mday = today.tm_mday;
                if (!take_time(&text, &tm, &fraction))
                        return false;
        } else {
                if (!take_date(&text, &tm))
                        return false;
                if (take_char(&text, "tT ") && !take_time(&text, &tm, &fraction))
                        return false;
        }
        if (!take_zone(&text, &local, &offset) || *text)
                return false;
        tm.tm_isdst = -1;
        check = tm;
        seconds = local ? mktime(&check) : timegm(&check);
        /* The 31st of a month that has 30 days would become the 1st of the next. */
        if (seconds < 0 || check.tm_mday != tm.tm_mday || seconds < offset)
                return false;
        *ret = (uint64_t)(seconds - offset) * NSEC_PER_SEC + fraction;
        return true;
}

bool moment_parse(const char *text, uint64_t now_ns, uint64_t *ret)
{
        if (strcmp(text, "now") == 0) {
                *ret = now_ns;
                return true;
        }
        return parse_relative(text, now_ns, ret) || parse_epoch(text, ret) ||
               parse_calendar(text, now_ns, ret);
}

void moment_format(uint64_t seconds, char out[32])
{
        time_t value = (time_t)seconds;
        struct tm tm;

        if (!gmtime_r(&value, &tm) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
                snprintf(out, 32, "?");
}
