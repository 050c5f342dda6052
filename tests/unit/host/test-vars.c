/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/app.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void expect_vars(const char *text, const char *expected)
{
        _cleanup_(json_decref_p) json_t *vars = json_pack("{s:s, s:i}", "A", "old", "KEEP", 1);
        _cleanup_(json_decref_p) json_t *wanted = json_loads(expected, 0, NULL);
        HostAppError error = { 0 };

        assert_int_equal(host_app_read_vars(slice_from(text), ".dev.vars", vars, &error), 0);
        assert_true(json_equal(vars, wanted));
}

static void expect_refused(const char *text, const char *message)
{
        _cleanup_(json_decref_p) json_t *vars = json_object();
        HostAppError error = { 0 };

        assert_int_equal(host_app_read_vars(slice_from(text), ".dev.vars", vars, &error),
                HOST_APP_E_INVALID);
        assert_non_null(strstr(error.message, message));
}

static void lines_win_over_the_manifest(void **state)
{
        expect_vars("A=new\nB = spaced \n", "{\"A\":\"new\",\"B\":\"spaced\",\"KEEP\":1}");
        expect_vars("", "{\"A\":\"old\",\"KEEP\":1}");
}

static void comments_blank_lines_and_export_are_understood(void **state)
{
        expect_vars("# A=no\n\n\r\nexport A=yes\r\n  # end", "{\"A\":\"yes\",\"KEEP\":1}");
}

static void quotes_are_taken_off(void **state)
{
        expect_vars("A=\"a\\nb \\\"c\\\"\"", "{\"A\":\"a\\nb \\\"c\\\"\",\"KEEP\":1}");
        expect_vars("A='a\\n=\"'", "{\"A\":\"a\\\\n=\\\"\",\"KEEP\":1}");
        expect_vars("A=\"", "{\"A\":\"\\\"\",\"KEEP\":1}");
        expect_vars("A=\"\"", "{\"A\":\"\",\"KEEP\":1}");
        expect_vars("A=", "{\"A\":\"\",\"KEEP\":1}");
}

static void an_object_keeps_its_types(void **state)
{
        expect_vars(" { \"A\": [1, true], // why\n }", "{\"A\":[1,true],\"KEEP\":1}");
}

static void what_is_wrong_is_named_with_its_line(void **state)
{
        expect_refused("A=1\nnonsense\n", ".dev.vars:2: expected KEY=value");
        expect_refused("1A=1\n", ".dev.vars:1: a key is");
        expect_refused("A B=1\n", ".dev.vars:1: a key is");
        expect_refused("=1\n", ".dev.vars:1: a key is");
        expect_refused("A=\xff\n", ".dev.vars:1: the value is not UTF-8");
        expect_refused("{\n\"A\": }", ".dev.vars:2:");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(lines_win_over_the_manifest),
                cmocka_unit_test(comments_blank_lines_and_export_are_understood),
                cmocka_unit_test(quotes_are_taken_off),
                cmocka_unit_test(an_object_keeps_its_types),
                cmocka_unit_test(what_is_wrong_is_named_with_its_line),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
