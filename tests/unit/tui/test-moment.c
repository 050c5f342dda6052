/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "tui/moment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

/* 2026-11-22T17:30:00Z; the test runs in Central European Time (meson.build). */
#define NOW_S UINT64_C(1795368600)
#define NOW (NOW_S * NSEC_PER_SEC)

static void check(const char *text, uint64_t seconds, uint64_t ns)
{
        uint64_t found = 1;

        assert_true(moment_parse(text, NOW, &found));
        assert_int_equal(found, seconds * NSEC_PER_SEC + ns);
}

static void check_none(const char *text)
{
        uint64_t found = 1;

        assert_false(moment_parse(text, NOW, &found));
        assert_int_equal(found, 1);
}

static void dates_are_read_as_rfc_3339_has_them(void **state)
{
        check("2026-11-22T17:30:00Z", NOW_S, 0);
        check("2026-11-22t17:30:00z", NOW_S, 0);
        check("2026-11-22 17:30:00Z", NOW_S, 0);
        check("2026-11-22T18:30:00+01:00", NOW_S, 0);
        check("2026-11-22T12:00:00-05:30", NOW_S, 0);
        check("2026-11-22T17:30:00.250Z", NOW_S, 250000000);
        check("2026-11-22T17:30:00.000000001Z", NOW_S, 1);
        check("1970-01-01T00:00:00Z", 0, 0);
        check("2024-02-29T00:00:00Z", 1709164800, 0);
}

static void without_a_zone_it_is_local_time(void **state)
{
        setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
        tzset();
        check("2026-11-22T18:30:00", NOW_S, 0);
        check("2026-11-22 18:30", NOW_S, 0);
        check("18:30", NOW_S, 0);
        check("18:30:00.5", NOW_S, 500000000);
        check("2026-11-22", NOW_S - 18 * 3600 - 1800, 0);
        check("2026-07-01 12:00", 1782900000, 0); /* summer time */
}

static void spans_are_before_now(void **state)
{
        check("now", NOW_S, 0);
        check("-90s", NOW_S - 90, 0);
        check("-15m", NOW_S - 900, 0);
        check("-1h", NOW_S - 3600, 0);
        check("-1h30m", NOW_S - 5400, 0);
        check("-2d", NOW_S - 172800, 0);
        check("-1w", NOW_S - 604800, 0);
        check("-0s", NOW_S, 0);
}

static void numbers_are_seconds_since_1970(void **state)
{
        check("1795368600", NOW_S, 0);
        check("1795368600.25", NOW_S, 250000000);
        check("0", 0, 0);
}

static void anything_else_is_none(void **state)
{
        static const char *const texts[] = { "", " ", "yesterday", "-", "-1", "-h", "-1x", "-1h-1m",
                "1h", "+1h", "1795368600x", "1795368600.", "99999999999", "2026-13-01",
                "2026-00-01", "2026-02-30", "2025-02-29", "2026-11-32", "2026-11-22T",
                "2026-11-22T25:00Z", "2026-11-22T17:60Z", "2026-11-22T17:30:00X",
                "2026-11-22T17:30:00+25:00", "2026-11-22T17:30:00Z ", "1969-12-31T23:59:59Z",
                "-99999999999s", "-60000d", "2300-01-01", "9223372037", "18:3", "1:30", "24:00",
                "2026-11-22T17:30:00.Z" };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                check_none(texts[i]);
}

static void a_moment_is_written_in_utc(void **state)
{
        char text[32];

        moment_format(NOW_S, text);
        assert_string_equal(text, "2026-11-22T17:30:00Z");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(dates_are_read_as_rfc_3339_has_them),
                cmocka_unit_test(without_a_zone_it_is_local_time),
                cmocka_unit_test(spans_are_before_now),
                cmocka_unit_test(numbers_are_seconds_since_1970),
                cmocka_unit_test(anything_else_is_none),
                cmocka_unit_test(a_moment_is_written_in_utc),
        };

        return cmocka_run_group_tests_name("moment", tests, NULL, NULL);
}
