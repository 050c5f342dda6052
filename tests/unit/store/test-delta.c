/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/crc32c.h"
#include "lib/store/delta.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE 4096

static unsigned char base[SIZE], page[SIZE], made[SIZE], delta[2 * SIZE];

static void check_round_trip(const unsigned char *from)
{
        int len = delta_encode(from, page, SIZE, delta, sizeof delta);

        assert_true(len >= 0);
        if (from)
                memcpy(made, from, SIZE);
        else
                memset(made, 0, SIZE);
        assert_int_equal(delta_apply(delta, (size_t)len, made, SIZE), 0);
        assert_memory_equal(made, page, SIZE);
}

static void any_two_pages_make_a_delta_that_leads_from_one_to_the_other(void **state)
{
        srand(1);
        for (int trial = 0; trial < 2000; trial++) {
                for (size_t i = 0; i < SIZE; i++)
                        base[i] = (unsigned char)(trial % 3 ? rand() : 0);
                memcpy(page, base, SIZE);
                for (int i = rand() % 200; i > 0; i--)
                        page[rand() % SIZE] = (unsigned char)rand();
                check_round_trip(base);
                check_round_trip(NULL);
        }
}

static void equal_pages_make_an_empty_delta(void **state)
{
        memset(page, 7, SIZE);
        assert_int_equal(delta_encode(page, page, SIZE, delta, 0), 0);
}

static void a_small_change_makes_a_small_delta(void **state)
{
        memset(base, 3, SIZE);
        memcpy(page, base, SIZE);
        memcpy(page + 24, "abcd", 4);
        memcpy(page + 4000, "counter", 7);
        assert_in_range(delta_encode(base, page, SIZE, delta, SIZE), 11, 20);
}

static void what_does_not_fit_is_refused(void **state)
{
        for (size_t i = 0; i < SIZE; i++)
                page[i] = (unsigned char)(i * 7 + 1);
        assert_int_equal(delta_encode(NULL, page, SIZE, delta, SIZE - 1), -ENOBUFS);
        memset(page, 0, SIZE);
        page[0] = page[4095] = 1;
        assert_int_equal(delta_encode(NULL, page, SIZE, delta, 6), -ENOBUFS);
        assert_int_equal(delta_encode(NULL, page, SIZE, delta, 7), 7);
}

static void any_bytes_are_judged(void **state)
{
        static const unsigned char beyond[] = { 0xff, 0x1f, 2, 1, 1 }, early[] = { 0, 5, 1 };
        static const unsigned char endless[] = { 0x80, 0x80, 0x80, 0x80, 0 };

        assert_int_equal(delta_apply(beyond, sizeof beyond, made, SIZE), -EBADMSG);
        assert_int_equal(delta_apply(early, sizeof early, made, SIZE), -EBADMSG);
        assert_int_equal(delta_apply(endless, sizeof endless, made, SIZE), -EBADMSG);
        srand(2);
        for (int trial = 0; trial < 20000; trial++) {
                size_t len = (size_t)rand() % 40;
                unsigned char *exact = malloc(len + 1), *target = malloc(512);

                for (size_t i = 0; i < len; i++)
                        exact[i] = (unsigned char)(rand() % 3 ? rand() % 8 : rand());
                memset(target, 0, 512);
                delta_apply(exact, len, target, 512);
                free(exact);
                free(target);
        }
}

static void the_checksum_is_that_of_iscsi(void **state)
{
        unsigned char data[1000];

        assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
        for (size_t i = 0; i < sizeof data; i++)
                data[i] = (unsigned char)(i * 31);
        for (size_t len = 0; len < sizeof data; len += 7) {
                assert_int_equal(crc32c(0, data, len), crc32c_by_table(0, data, len));
                assert_int_equal(crc32c(crc32c(0, data, len / 3), data + len / 3, len - len / 3),
                        crc32c(0, data, len));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(any_two_pages_make_a_delta_that_leads_from_one_to_the_other),
                cmocka_unit_test(equal_pages_make_an_empty_delta),
                cmocka_unit_test(a_small_change_makes_a_small_delta),
                cmocka_unit_test(what_does_not_fit_is_refused),
                cmocka_unit_test(any_bytes_are_judged),
                cmocka_unit_test(the_checksum_is_that_of_iscsi),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
