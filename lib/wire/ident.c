/* SPDX-License-Identifier: Apache-2.0 */

/*
 * OpenSSL 3 marks the SHA256_*() functions as old. They are used all the same: they neither
 * allocate nor look an algorithm up, so an id costs about half a microsecond, not five
 * (measured), and cannot fail for want of memory.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "lib/wire/ident.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#define BASE_SIZE (IDENT_SIZE / 2)

_Static_assert(IDENT_SIZE == SHA256_DIGEST_LENGTH, "an id is as long as a digest");

static void digest(Slice data, uint8_t out[static IDENT_SIZE])
{
        SHA256_CTX context;

        SHA256_Init(&context);
        if (data.len)
                SHA256_Update(&context, data.data, data.len);
        SHA256_Final(out, &context);
}

/* HMAC (RFC 2104) for a key of one digest's length, which is shorter than a block. */
static void hmac(const uint8_t key[static IDENT_SIZE], Slice data, uint8_t out[static IDENT_SIZE])
{
        uint8_t inner_pad[SHA256_CBLOCK], outer_pad[SHA256_CBLOCK];
        uint8_t inner[SHA256_DIGEST_LENGTH];
        SHA256_CTX context;

        memset(inner_pad, 0x36, sizeof inner_pad);
        memset(outer_pad, 0x5c, sizeof outer_pad);
        for (size_t i = 0; i < IDENT_SIZE; i++) {
                inner_pad[i] ^= key[i];
                outer_pad[i] ^= key[i];
        }
        SHA256_Init(&context);
        SHA256_Update(&context, inner_pad, sizeof inner_pad);
        if (data.len)
                SHA256_Update(&context, data.data, data.len);
        SHA256_Final(inner, &context);
        SHA256_Init(&context);
        SHA256_Update(&context, outer_pad, sizeof outer_pad);
        SHA256_Update(&context, inner, sizeof inner);
        SHA256_Final(out, &context);
}

/* The half of an id that proves its namespace, from the half that names the object. */
static void proof(const uint8_t key[static IDENT_SIZE], const uint8_t base[static BASE_SIZE],
        uint8_t out[static BASE_SIZE])
{
        uint8_t mac[IDENT_SIZE];

        hmac(key, slice_of(base, BASE_SIZE), mac);
        memcpy(out, mac, BASE_SIZE);
}

int ident_from_name(Slice unique_key, Slice name, ObjectId *ret)
{
        uint8_t key[IDENT_SIZE];

        digest(unique_key, key);
        hmac(key, name, ret->bytes);
        proof(key, ret->bytes, ret->bytes + BASE_SIZE);
        return 0;
}

int ident_new_unique(Slice unique_key, ObjectId *ret)
{
        uint8_t key[IDENT_SIZE];
        ObjectId id;

        if (RAND_bytes(id.bytes, BASE_SIZE) != 1)
                return -EIO;
        digest(unique_key, key);
        proof(key, id.bytes, id.bytes + BASE_SIZE);
        *ret = id;
        return 0;
}

static int digit_value(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

int ident_parse(Slice text, ObjectId *ret)
{
        ObjectId id;

        if (text.len != IDENT_TEXT_SIZE - 1)
                return IDENT_E_LENGTH;
        for (size_t i = 0; i < IDENT_SIZE; i++) {
                int high = digit_value(text.data[2 * i]);
                int low = digit_value(text.data[2 * i + 1]);

                if (high < 0 || low < 0)
                        return IDENT_E_DIGIT;
                id.bytes[i] = (uint8_t)(high << 4 | low);
        }
        *ret = id;
        return 0;
}

int ident_check(Slice unique_key, const ObjectId *id)
{
        uint8_t key[IDENT_SIZE], expected[BASE_SIZE];

        digest(unique_key, key);
        proof(key, id->bytes, expected);
        return CRYPTO_memcmp(expected, id->bytes + BASE_SIZE, BASE_SIZE) == 0 ? 0 : IDENT_E_FOREIGN;
}

static void format_hex(const uint8_t bytes[static IDENT_SIZE], char out[static IDENT_TEXT_SIZE])
{
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < IDENT_SIZE; i++) {
                out[2 * i] = digits[bytes[i] >> 4];
                out[2 * i + 1] = digits[bytes[i] & 15];
        }
        out[IDENT_TEXT_SIZE - 1] = '\0';
}

void ident_format(const ObjectId *id, char out[IDENT_TEXT_SIZE])
{
        format_hex(id->bytes, out);
}

void ident_digest(Slice data, char out[IDENT_TEXT_SIZE])
{
        uint8_t bytes[IDENT_SIZE];

        digest(data, bytes);
        format_hex(bytes, out);
}

bool ident_secret_equal(Slice a, Slice b)
{
        uint8_t digest_a[IDENT_SIZE], digest_b[IDENT_SIZE];

        /* Digests have one length, so that the time tells nothing of the secret's length either. */
        digest(a, digest_a);
        digest(b, digest_b);
        return CRYPTO_memcmp(digest_a, digest_b, IDENT_SIZE) == 0;
}
