/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/http.h"

#include <stdio.h>

#define SECONDS_PER_DAY 86400
#define SECONDS_MIN INT64_C(-62167219200) /* 0000-01-01 00:00:00 */
#define SECONDS_MAX INT64_C(253402300799) /* 9999-12-31 23:59:59 */

static const char day_names[7][10] = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday",
        "Friday", "Saturday" };
static const char month_names[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug",
        "Sep", "Oct", "Nov", "Dec" };

typedef struct Date {
        int64_t year;
        unsigned month; /* 1..12 */
        unsigned day;   /* 1..31 */
        unsigned hour, minute, second;
} Date;

/*
 * Days since 1970 and back, in the proleptic Gregorian calendar. The year is counted from March,
 * so that the leap day is its last; 400 years (146,097 days) are one era.
 */
static int64_t days_from_date(const Date *date)
{
        int64_t year = date->year - (date->month <= 2);
        int64_t era = (year >= 0 ? year : year - 399) / 400;
        unsigned year_of_era = (unsigned)(year - era * 400);
        unsigned month = date->month > 2 ? date->month - 3 : date->month + 9;
        unsigned day_of_year = (153 * month + 2) / 5 + date->day - 1;

        return era * 146097 + (int64_t)year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
               day_of_year - 719468;
}

static void date_from_days(int64_t days, Date *date)
{
        int64_t shifted = days + 719468;
        int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
        unsigned day = (unsigned)(shifted - era * 146097);
        unsigned year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
        unsigned day_of_year = day - (365 * year + year / 4 - year / 100);
        unsigned month = (5 * day_of_year + 2) / 153;

        date->day = day_of_year - (153 * month + 2) / 5 + 1;
        date->month = month < 10 ? month + 3 : month - 9;
        date->year = year + era * 400 + (date->month <= 2);
}

void http_format_date(int64_t seconds, char out[30])
{
        int64_t days, rest;
        Date date;

        seconds = MIN(seconds, SECONDS_MAX);
        seconds = MAX(seconds, SECONDS_MIN);
        days = seconds / SECONDS_PER_DAY;
        rest = seconds % SECONDS_PER_DAY;
        if (rest < 0) {
                rest += SECONDS_PER_DAY;
                days--;
        }
        date_from_days(days, &date);
        /* 1970-01-01 was a Thursday. The masks only show the compiler that the text fits. */
        snprintf(out, 30, "%.3s, %02u %s %04u %02u:%02u:%02u GMT",
                day_names[((days + 4) % 7 + 7) % 7], date.day & 31, month_names[date.month - 1],
                (unsigned)date.year % 10000, (unsigned)(rest / 3600) & 31,
                (unsigned)(rest / 60 % 60) & 63, (unsigned)(rest % 60) & 63);
}

/* Takes exactly n digits off the front. */
static bool take_number(Slice *text, size_t n, unsigned *ret)
{
        uint64_t value;

        if (text->len < n || !slice_to_u64(slice_head(*text, n), &value))
                return false;
        *text = slice_skip(*text, n);
        *ret = (unsigned)value;
        return true;
}

static bool take_literal(Slice *text, Slice literal)
{
        if (!slice_has_prefix(*text, literal))
                return false;
        *text = slice_skip(*text, literal.len);
        return true;
}

static bool take_day_name(Slice *text, bool whole)
{
        for (size_t i = 0; i < ELEMENTSOF(day_names); i++)
                if (take_literal(text, slice_head(slice_from(day_names[i]), whole ? 10 : 3)))
                        return true;
        return false;
}

static bool take_month(Slice *text, unsigned *ret)
{
        for (unsigned i = 0; i < ELEMENTSOF(month_names); i++)
                if (take_literal(text, slice_from(month_names[i]))) {
                        *ret = i + 1;
                        return true;
                }
        return false;
}

static bool take_time(Slice *text, Date *date)
{
        return take_number(text, 2, &date->hour) && take_literal(text, SLICE(":")) &&
               take_number(text, 2, &date->minute) && take_literal(text, SLICE(":")) &&
               take_number(text, 2, &date->second);
}

/* "06 Nov 1994 08:49:37 GMT" */
static bool parse_fixdate(Slice text, Date *date)
{
        unsigned year;
        bool ok;

        ok = take_number(&text, 2, &date->day) && take_literal(&text, SLICE(" ")) &&
             take_month(&text, &date->month) && take_literal(&text, SLICE(" ")) &&
             take_number(&text, 4, &year) && take_literal(&text, SLICE(" ")) &&
             take_time(&text, date) && slice_equal(text, SLICE(" GMT"));
        date->year = ok ? year : 0;
        return ok;
}

/*
 * "06-Nov-94 08:49:37 GMT". This room has no clock to place two digits within 50 years of today:
 * 70 to 99 are the last century, the rest is this one.
 */
static bool parse_rfc850(Slice text, Date *date)
{
        unsigned year;
        bool ok;

        ok = take_number(&text, 2, &date->day) && take_literal(&text, SLICE("-")) &&
             take_month(&text, &date->month) && take_literal(&text, SLICE("-")) &&
             take_number(&text, 2, &year) && take_literal(&text, SLICE(" ")) &&
             take_time(&text, date) && slice_equal(text, SLICE(" GMT"));
        date->year = !ok ? 0 : year < 70 ? 2000 + year : 1900 + year;
        return ok;
}

/* "Nov  6 08:49:37 1994" */
static bool parse_asctime(Slice text, Date *date)
{
        unsigned year;
        bool ok;

        ok = take_month(&text, &date->month) && take_literal(&text, SLICE(" ")) &&
             (take_literal(&text, SLICE(" ")) ? take_number(&text, 1, &date->day)
                                              : take_number(&text, 2, &date->day)) &&
             take_literal(&text, SLICE(" ")) && take_time(&text, date) &&
             take_literal(&text, SLICE(" ")) && take_number(&text, 4, &year) && text.len == 0;
        date->year = ok ? year : 0;
        return ok;
}

static bool date_is_valid(const Date *date)
{
        static const uint8_t days[12] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
        bool leap = date->year % 4 == 0 && (date->year % 100 != 0 || date->year % 400 == 0);

        if (date->day < 1 || date->day > days[date->month - 1] ||
                (date->month == 2 && date->day == 29 && !leap))
                return false;
        return date->hour < 24 && date->minute < 60 && date->second <= 60; /* a leap second */
}

bool http_parse_date(Slice text, int64_t *ret_seconds)
{
        Date date = { 0 };
        unsigned of_day;
        Slice rest = text;
        bool ok;

        if (take_day_name(&rest, true) && take_literal(&rest, SLICE(", "))) {
                ok = parse_rfc850(rest, &date);
        } else {
                rest = text;
                if (!take_day_name(&rest, false))
                        return false;
                if (take_literal(&rest, SLICE(", ")))
                        ok = parse_fixdate(rest, &date);
                else
                        ok = take_literal(&rest, SLICE(" ")) && parse_asctime(rest, &date);
        }
        if (!ok || !date_is_valid(&date))
                return false;
        of_day = date.hour * 3600 + date.minute * 60 + date.second;
        *ret_seconds = days_from_date(&date) * SECONDS_PER_DAY + of_day;
        return true;
}
