/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/ident.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define LONG_NAME                                            \
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" \
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" \
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" \
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

/*
 * Computed by Python's hashlib and hmac, which share no code with this room:
 *   k = sha256(key).digest(); b = hmac.new(k, name, sha256).digest()[:16]
 *   b + hmac.new(k, b, sha256).digest()[:16]
 */
static const struct {
        const char *key, *name, *id;
} vectors[] = {
        { "shop-Cart", "alice",
                "9ced01bf29fd8a71470952b31a29c50fd15a6f178a60eb186643ecae5231142e" },
        { "shop-Cart", "bob", "6a6cba5f237ad1b05998dd49324b57e73aa18c2fb04569ae9e5d6bc317809cd5" },
        { "shop-Cart", "", "97e5d830c91f0592eda7f5767e5c4692c34711ac81282b6beaa999f7dfe97500" },
        { "", "x", "9904e1df950471c644a5c093e598fce2d9abdbfc0e50a028ea8b99ef0bbc95e2" },
        { "shop-Cart", "Zo\xc3\xab/\xe6\xbc\xa2\xe5\xad\x97",
                "bcfdf2110576ef2ebe673889850e93408d19f16b6d3b340140da16f3190b9230" },
        { "django-on-workers-DjangoDO", LONG_NAME,
                "8913384d9acce25f3a2a037686cce822788777dec101171377c865f8b453bec4" },
};

static void names_give_the_ids_of_an_independent_implementation(void **state)
{
        for (size_t i = 0; i < ELEMENTSOF(vectors); i++) {
                char text[IDENT_TEXT_SIZE];
                ObjectId id;

                assert_int_equal(ident_from_name(slice_from(vectors[i].key),
                                         slice_from(vectors[i].name), &id),
                        0);
                ident_format(&id, text);
                assert_string_equal(text, vectors[i].id);
                assert_int_equal(ident_check(slice_from(vectors[i].key), &id), 0);
        }
}

static void a_unique_id_belongs_to_its_namespace_alone_and_comes_once(void **state)
{
        ObjectId a, b;

        assert_int_equal(ident_new_unique(SLICE("shop-Cart"), &a), 0);
        assert_int_equal(ident_new_unique(SLICE("shop-Cart"), &b), 0);
        assert_false(ident_equal(&a, &b));
        assert_int_equal(ident_check(SLICE("shop-Cart"), &a), 0);
        assert_int_equal(ident_check(SLICE("shop-Basket"), &a), IDENT_E_FOREIGN);
}

static void any_changed_bit_makes_an_id_foreign(void **state)
{
        ObjectId id;

        assert_int_equal(ident_from_name(SLICE("shop-Cart"), SLICE("alice"), &id), 0);
        for (unsigned bit = 0; bit < IDENT_SIZE * 8; bit++) {
                ObjectId changed = id;

                changed.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
                assert_int_equal(ident_check(SLICE("shop-Cart"), &changed), IDENT_E_FOREIGN);
        }
}

static void text_is_read_in_either_case_and_written_in_lower_case(void **state)
{
        char text[IDENT_TEXT_SIZE], upper[IDENT_TEXT_SIZE];
        ObjectId id;

        strcpy(upper, vectors[0].id);
        for (char *at = upper; *at; at++)
                if (*at >= 'a')
                        *at -= 'a' - 'A';
        assert_int_equal(ident_parse(slice_from(upper), &id), 0);
        ident_format(&id, text);
        assert_string_equal(text, vectors[0].id);
}

static void text_that_is_no_id_is_refused_and_leaves_the_result_alone(void **state)
{
        ObjectId id, before;
        char text[IDENT_TEXT_SIZE];

        memset(&id, 0x5a, sizeof id);
        before = id;
        assert_int_equal(ident_parse(SLICE(""), &id), IDENT_E_LENGTH);
        assert_int_equal(ident_parse(slice_of(vectors[0].id, 63), &id), IDENT_E_LENGTH);
        assert_int_equal(ident_parse(slice_of(LONG_NAME, 65), &id), IDENT_E_LENGTH);
        for (size_t at = 0; at < 64; at++) {
                static const char bad[] = "/:@G`g \0";

                strcpy(text, vectors[0].id);
                text[at] = bad[at % 8];
                assert_int_equal(ident_parse(slice_of(text, 64), &id), IDENT_E_DIGIT);
        }
        assert_true(ident_equal(&id, &before));
}

static void the_shard_is_the_first_three_digits(void **state)
{
        ObjectId id;

        for (size_t i = 0; i < ELEMENTSOF(vectors); i++) {
                char digits[4] = { vectors[i].id[0], vectors[i].id[1], vectors[i].id[2], 0 };

                assert_int_equal(ident_parse(slice_from(vectors[i].id), &id), 0);
                assert_int_equal(ident_get_shard(&id), strtoul(digits, NULL, 16));
                assert_true(ident_get_shard(&id) < IDENT_SHARDS);
        }
}

static void the_digest_is_sha_256(void **state)
{
        char text[IDENT_TEXT_SIZE];

        /* FIPS 180-4's examples. */
        ident_digest(SLICE("abc"), text);
        assert_string_equal(
                text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        ident_digest((Slice){}, text);
        assert_string_equal(
                text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void secrets_are_equal_only_byte_for_byte(void **state)
{
        assert_true(ident_secret_equal(SLICE("token"), SLICE("token")));
        assert_true(ident_secret_equal((Slice){}, SLICE("")));
        assert_false(ident_secret_equal(SLICE("token"), SLICE("tokem")));
        assert_false(ident_secret_equal(SLICE("token"), SLICE("token2")));
        assert_false(ident_secret_equal(SLICE("token"), SLICE("")));
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(names_give_the_ids_of_an_independent_implementation),
                cmocka_unit_test(a_unique_id_belongs_to_its_namespace_alone_and_comes_once),
                cmocka_unit_test(any_changed_bit_makes_an_id_foreign),
                cmocka_unit_test(text_is_read_in_either_case_and_written_in_lower_case),
                cmocka_unit_test(text_that_is_no_id_is_refused_and_leaves_the_result_alone),
                cmocka_unit_test(the_shard_is_the_first_three_digits),
                cmocka_unit_test(the_digest_is_sha_256),
                cmocka_unit_test(secrets_are_equal_only_byte_for_byte),
        };

        return cmocka_run_group_tests_name("wire/ident", tests, NULL, NULL);
}
