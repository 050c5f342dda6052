/* SPDX-License-Identifier: Apache-2.0 */

#include "bpf/steer.h"
#include "lib/base/macro.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const SteerConfig two_apps = { .n_apps = 2, .prefix = { 0x01000dfd, 0 } };

static void a_loopback_address_carries_app_and_shard(void **state)
{
        assert_int_equal(steer_key_ipv4(0x7f400000, &two_apps), 0);
        assert_int_equal(steer_key_ipv4(0x7f400fff, &two_apps), 4095);
        assert_int_equal(steer_key_ipv4(0x7f410102, &two_apps), 4096 + 0x102);
}

static void an_address_that_is_no_objects_has_no_key(void **state)
{
        static const __u32 others[] = {
                0x7f000001, /* 127.0.0.1 */
                0x7f3f0001, /* the octet below the first app's */
                0x7f420001, /* the third app of two */
                0x7f401000, /* beyond the last shard */
                0x0a400001, /* not loopback */
                0xff400001,
        };

        for (size_t i = 0; i < ELEMENTSOF(others); i++)
                assert_int_equal(steer_key_ipv4(others[i], &two_apps), STEER_NO_KEY);
}

static void every_shard_goes_to_its_address_and_back(void **state)
{
        for (unsigned app = 0; app < 2; app++)
                for (unsigned shard = 0; shard < STEER_SHARDS; shard++)
                        assert_int_equal(steer_key_ipv4(steer_ipv4_of(app, shard), &two_apps),
                                app * STEER_SHARDS + shard);
}

static void an_ipv6_address_carries_the_ids_first_bytes(void **state)
{
        __u8 bytes[16] = { 0 };
        __u32 address[4];

        memcpy(bytes, two_apps.prefix, 8);
        bytes[8] = 0xab;
        bytes[9] = 0xcd;
        bytes[15] = 0xff;
        memcpy(address, bytes, sizeof(address));
        assert_int_equal(steer_key_ipv6(address, &two_apps), 0xabc);
        bytes[7] = 1; /* the neighbour network */
        memcpy(address, bytes, sizeof(address));
        assert_int_equal(steer_key_ipv6(address, &two_apps), STEER_NO_KEY);
}

static void the_hash_is_spread_evenly_and_in_range(void **state)
{
        unsigned counts[5] = { 0 };

        for (unsigned i = 0; i < 50000; i++)
                counts[steer_pick(i * 85899u, 5)]++;
        for (unsigned i = 0; i < 5; i++)
                assert_in_range(counts[i], 9900, 10100);
        assert_int_equal(steer_pick(0xffffffff, 7), 6);
        assert_int_equal(steer_pick(0, 7), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_loopback_address_carries_app_and_shard),
                cmocka_unit_test(an_address_that_is_no_objects_has_no_key),
                cmocka_unit_test(every_shard_goes_to_its_address_and_back),
                cmocka_unit_test(an_ipv6_address_carries_the_ids_first_bytes),
                cmocka_unit_test(the_hash_is_spread_evenly_and_in_range),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
