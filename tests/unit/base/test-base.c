/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/buf.h"
#include "lib/base/file.h"
#include "lib/base/list.h"
#include "lib/base/map.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void siphash_gives_the_reference_vectors(void **state)
{
        /* Appendix A of the SipHash paper: key 00..0f, input 00..0e. */
        static const uint64_t secret[2] = { 0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL };
        char input[15];

        for (size_t i = 0; i < sizeof input; i++)
                input[i] = (char)i;
        assert_int_equal(siphash24(secret, slice_of(input, sizeof input)), 0xa129ca6149be45e5ULL);
}

static void a_buffer_refuses_what_exceeds_its_limit_and_keeps_what_it_had(void **state)
{
        Buf buf = BUF_INIT(8);

        assert_int_equal(buf_append_string(&buf, "12345"), 0);
        assert_int_equal(buf_append_string(&buf, "6789"), -ENOBUFS);
        assert_true(slice_equal(buf_slice(&buf), SLICE("12345")));
        buf_consume(&buf, 3);
        assert_int_equal(buf_append_string(&buf, "678901"), 0);
        assert_string_equal(buf_data(&buf), "45678901");
        buf_done(&buf);
}

static void json_and_html_escapes_cover_what_could_break_out(void **state)
{
        Buf buf = BUF_INIT(0);

        assert_int_equal(buf_append_json(&buf, SLICE("a\"\\\n\x01")), 0);
        assert_string_equal(buf_data(&buf), "a\\\"\\\\\\n\\u0001");
        buf_clear(&buf);
        assert_int_equal(buf_append_html(&buf, SLICE("<a href='x'>&")), 0);
        assert_string_equal(buf_data(&buf), "&lt;a href=&#39;x&#39;&gt;&amp;");
        buf_done(&buf);
}

static void numbers_are_decimal_and_do_not_overflow(void **state)
{
        uint64_t value = 7;

        assert_true(slice_to_u64(SLICE("18446744073709551615"), &value));
        assert_true(value == UINT64_MAX);
        assert_false(slice_to_u64(SLICE("18446744073709551616"), &value));
        assert_false(slice_to_u64(SLICE("-1"), &value));
        assert_false(slice_to_u64(SLICE(""), &value));
        assert_false(slice_to_u64(SLICE("1 "), &value));
}

typedef struct Element {
        MapNode node;
        char key[16];
} Element;

static void a_map_finds_each_of_ten_thousand_and_forgets_what_was_removed(void **state)
{
        enum { N = 10000 };
        Element *elements = calloc(N, sizeof *elements);
        Map map;

        map_init(&map);
        for (int i = 0; i < N; i++) {
                snprintf(elements[i].key, sizeof elements[i].key, "key-%d", i);
                assert_int_equal(
                        map_insert(&map, &elements[i].node, slice_from(elements[i].key)), 0);
        }
        for (int i = 0; i < N; i += 2)
                map_remove(&map, &elements[i].node);
        assert_int_equal(map.len, N / 2);
        for (int i = 0; i < N; i++)
                assert_ptr_equal(map_find(&map, slice_from(elements[i].key)),
                        i % 2 ? &elements[i].node : NULL);
        map_done(&map);
        free(elements);
}

static void a_list_keeps_order_and_unlinks_twice_without_harm(void **state)
{
        List list, a, b;

        list_init(&list);
        list_init(&a);
        list_init(&b);
        list_append(&list, &a);
        list_append(&list, &b);
        assert_ptr_equal(list_pop(&list), &a);
        list_unlink(&a);
        assert_ptr_equal(list_first(&list), &b);
        list_unlink(&b);
        assert_true(list_is_empty(&list));
}

static void an_atomic_write_replaces_the_file_and_leaves_nothing_else(void **state)
{
        char folder[] = "/tmp/durabled-base-XXXXXX";
        _cleanup_(free_p) char *path = NULL;
        Buf buf = BUF_INIT(0);

        assert_non_null(mkdtemp(folder));
        path = path_join(folder, "token");
        assert_int_equal(file_write_atomic(path, SLICE("one"), 0600), 0);
        assert_int_equal(file_write_atomic(path, SLICE("two"), 0600), 0);
        assert_int_equal(file_read(path, 16, &buf), 0);
        assert_string_equal(buf_data(&buf), "two");
        buf_clear(&buf);
        assert_int_equal(file_read(path, 2, &buf), -EFBIG);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rmdir(folder), 0);
        buf_done(&buf);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(siphash_gives_the_reference_vectors),
                cmocka_unit_test(a_buffer_refuses_what_exceeds_its_limit_and_keeps_what_it_had),
                cmocka_unit_test(json_and_html_escapes_cover_what_could_break_out),
                cmocka_unit_test(numbers_are_decimal_and_do_not_overflow),
                cmocka_unit_test(a_map_finds_each_of_ten_thousand_and_forgets_what_was_removed),
                cmocka_unit_test(a_list_keeps_order_and_unlinks_twice_without_harm),
                cmocka_unit_test(an_atomic_write_replaces_the_file_and_leaves_nothing_else),
        };

        return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
