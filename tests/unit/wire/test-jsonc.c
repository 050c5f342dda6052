/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/jsonc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Parses and compares with what plain JSON says. */
static void assert_same(const char *text, const char *plain)
{
        _cleanup_(json_decref_p) json_t *json = NULL, *expected = NULL;
        JsoncError error = {};
        int r = jsonc_parse(slice_from(text), &json, &error);

        if (r)
                print_error("%u:%u: %s\n", error.line, error.column, error.message);
        assert_int_equal(r, 0);
        expected = json_loads(plain, JSON_DECODE_ANY, NULL);
        assert_non_null(expected);
        assert_true(json_equal(json, expected));
}

static void assert_refused(
        Slice text, int code, unsigned line, unsigned column, const char *message)
{
        json_t *json = (json_t *)&code;
        JsoncError error = {};

        assert_int_equal(jsonc_parse(text, &json, &error), code);
        assert_ptr_equal(json, &code);
        if (!strstr(error.message, message) || error.line != line || error.column != column)
                fail_msg("%u:%u: \"%s\", not %u:%u: \"%s\"", error.line, error.column,
                        error.message, line, column, message);
}

static void comments_go_and_strings_stay(void **state)
{
        assert_same("// first\n{ /* a */ \"a\" /* b */ : /**/ 1 // last\n}", "{\"a\":1}");
        assert_same("{\"a\": \"// no /* comment */\", \"b\": \"\\\"//\"}",
                "{\"a\": \"// no /* comment */\", \"b\": \"\\\"//\"}");
        assert_same("[1, // one\r\n 2 /* two\n lines */]//", "[1,2]");
        assert_same("\xef\xbb\xbf{\"a\": 1}", "{\"a\":1}");
        assert_same("/* ** / // */ null", "null");
}

static void one_trailing_comma_goes(void **state)
{
        assert_same(
                "{\"a\": [1, 2,], \"b\": {\"c\": 1 , // x\n}, }", "{\"a\":[1,2],\"b\":{\"c\":1}}");
        assert_same("[\"a\", /* , */ ]", "[\"a\"]");
        assert_same("[{},[],]", "[{},[]]");
}

static void commas_that_stand_for_nothing_are_refused(void **state)
{
        static const char *const bad[] = { "[,]", "{,}", "[1,,]", "[1,,2]", "{\"a\":,}", "[,1]",
                "{\"a\",}", ",", "[1],", "{\"a\":1}," };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                JsoncError error = {};
                json_t *json = NULL;

                assert_int_equal(jsonc_parse(slice_from(bad[i]), &json, &error), JSONC_E_SYNTAX);
                assert_int_equal(error.line, 1);
                assert_true(error.message[0]);
        }
}

static void errors_name_the_place_in_the_file(void **state)
{
        assert_refused(SLICE("{\n  // comment, with \"quotes\n  \"a\": nope\n}"), JSONC_E_SYNTAX, 3,
                11, "nope");
        assert_refused(SLICE("/* \xc3\xa4\xc3\xb6 */ x"), JSONC_E_SYNTAX, 1, 10, "x");
        assert_refused(SLICE("[1,\n /* never closed\n 2]"), JSONC_E_SYNTAX, 2, 2, "never closed");
        assert_refused(SLICE("{\"a\": \"b\n\"}"), JSONC_E_SYNTAX, 1, 8, "newline");
        assert_refused(SLICE("{\"a\": 1"), JSONC_E_SYNTAX, 1, 7, "end of file");
        assert_refused(SLICE(""), JSONC_E_SYNTAX, 1, 1, "end of file");
        assert_refused(SLICE("{} {}"), JSONC_E_SYNTAX, 1, 4, "end of file expected");
}

static void a_key_that_stands_twice_is_refused_with_its_line(void **state)
{
        assert_refused(
                SLICE("{\n\"a\": 1,\n\"b\": 2,\n\"a\": 3\n}"), JSONC_E_DUPLICATE, 4, 3, "\"a\"");
        assert_same(
                "{\"a\": {\"a\": 1}, \"b\": {\"a\": 1}}", "{\"a\": {\"a\": 1}, \"b\": {\"a\": 1}}");
}

static void nul_bytes_and_broken_utf8_are_refused_in_comments_too(void **state)
{
        static const char *const bad[] = { "\x80", "\xc3", "\xc0\xaf", "\xe0\x80\xaf",
                "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xff", "\xe2\x82" };

        assert_refused(SLICE("{}\n// \0\n"), JSONC_E_SYNTAX, 2, 4, "NUL");
        assert_refused(SLICE("{\"\0\": 1}"), JSONC_E_SYNTAX, 1, 3, "NUL");
        assert_refused(SLICE("{\"a\": \"\\u0000\"}"), JSONC_E_SYNTAX, 1, 14, "\\u0000");
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                char text[32];

                snprintf(text, sizeof text, "// %s", bad[i]);
                assert_refused(slice_from(text), JSONC_E_SYNTAX, 1, 4, "UTF-8");
        }
        assert_same("\"\xf0\x9f\x98\x80\xe2\x82\xac\"", "\"\\ud83d\\ude00\\u20ac\"");
}

static void depth_and_size_have_limits(void **state)
{
        size_t size = JSONC_SIZE_MAX + 1;
        _cleanup_(free_p) char *large = malloc(size);
        char text[2 * JSONC_DEPTH_MAX + 2];
        JsoncError error = {};
        json_t *json = NULL;

        memset(text, '[', JSONC_DEPTH_MAX);
        memset(text + JSONC_DEPTH_MAX, ']', JSONC_DEPTH_MAX);
        assert_int_equal(jsonc_parse(slice_of(text, 2 * JSONC_DEPTH_MAX), &json, &error), 0);
        json_decref(json);
        memset(text, '[', JSONC_DEPTH_MAX + 1);
        memset(text + JSONC_DEPTH_MAX + 1, ']', JSONC_DEPTH_MAX + 1);
        assert_refused(slice_of(text, sizeof text), JSONC_E_SYNTAX, 1, 65, "64 levels");

        assert_non_null(large);
        memset(large, ' ', size);
        memcpy(large, "{}", 2);
        assert_int_equal(jsonc_parse(slice_of(large, size - 1), &json, &error), 0);
        json_decref(json);
        assert_refused(slice_of(large, size), JSONC_E_SYNTAX, 0, 0, "4194304");
}

static void the_line_of_a_value_is_found_by_its_path(void **state)
{
        Slice text = SLICE("// settings\n"
                           "{\n"
                           "  \"name\": \"x}\", /* } */\n"
                           "  \"durable_objects\": {\n"
                           "    \"bindings\": [ // [\n"
                           "      { \"name\": \"A\",\n"
                           "        \"class_name\": \"a\" },\n"
                           "      [],\n"
                           "      {\n"
                           "        \"name\":\n"
                           "          \"B\" },\n"
                           "    ],\n"
                           "  },\n"
                           "  \"v\\u0061rs\": { \"a.b\": 1,\n"
                           "     \"c[0]\": [2] },\n"
                           "}\n");

        assert_int_equal(jsonc_find_line(text, ""), 2);
        assert_int_equal(jsonc_find_line(text, "name"), 3);
        assert_int_equal(jsonc_find_line(text, "durable_objects"), 4);
        assert_int_equal(jsonc_find_line(text, "durable_objects.bindings"), 5);
        assert_int_equal(jsonc_find_line(text, "durable_objects.bindings[0]"), 6);
        assert_int_equal(jsonc_find_line(text, "durable_objects.bindings[0].class_name"), 7);
        assert_int_equal(jsonc_find_line(text, "durable_objects.bindings[1]"), 8);
        assert_int_equal(jsonc_find_line(text, "durable_objects.bindings[2]"), 9);
        assert_int_equal(jsonc_find_line(text, "durable_objects.bindings[2].name"), 10);
        assert_int_equal(jsonc_find_line(text, "vars"), 14);
        assert_int_equal(jsonc_find_line(text, "vars[\"a.b\"]"), 14);
        assert_int_equal(jsonc_find_line(text, "vars[\"c[0]\"][0]"), 15);
}

static void a_path_that_leads_nowhere_has_no_line(void **state)
{
        static const char *const paths[] = { "b", "a.b", "a[1]", "a[0].x", "a[", "a[x]", "a[\"",
                ".", "a[0][0]", "a..b" };

        for (size_t i = 0; i < ELEMENTSOF(paths); i++)
                assert_int_equal(jsonc_find_line(SLICE("{\"a\": [1]}"), paths[i]), 0);
        assert_int_equal(jsonc_find_line(SLICE(""), "a"), 0);
        assert_int_equal(jsonc_find_line(SLICE(" // nothing"), ""), 0);
        assert_int_equal(jsonc_find_line(SLICE("{\"a\": /*"), "a.b"), 0);
        assert_int_equal(jsonc_find_line(SLICE("{\"b\": \"\\"), "a"), 0);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(comments_go_and_strings_stay),
                cmocka_unit_test(one_trailing_comma_goes),
                cmocka_unit_test(commas_that_stand_for_nothing_are_refused),
                cmocka_unit_test(errors_name_the_place_in_the_file),
                cmocka_unit_test(a_key_that_stands_twice_is_refused_with_its_line),
                cmocka_unit_test(nul_bytes_and_broken_utf8_are_refused_in_comments_too),
                cmocka_unit_test(depth_and_size_have_limits),
                cmocka_unit_test(the_line_of_a_value_is_found_by_its_path),
                cmocka_unit_test(a_path_that_leads_nowhere_has_no_line),
        };

        return cmocka_run_group_tests_name("wire/jsonc", tests, NULL, NULL);
}
