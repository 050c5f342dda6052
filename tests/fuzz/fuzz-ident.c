/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Ids: text either is an id, and comes back as it went, or is refused
 *
 * Input: a text, taken as an id; the part before its first NUL byte is also a namespace's key, what
 * is behind it a name there.
 */

#include "lib/wire/ident.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_digit(char c)
{
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static void check_text(Slice text)
{
        char out[IDENT_TEXT_SIZE];
        bool digits = true;
        ObjectId id;
        int r = ident_parse(text, &id);

        for (size_t i = 0; i < text.len; i++)
                digits = digits && is_digit(text.data[i]);
        dd_assert(r == (text.len != IDENT_TEXT_SIZE - 1 ? IDENT_E_LENGTH
                               : digits                 ? 0
                                                        : IDENT_E_DIGIT));
        if (r)
                return;
        ident_format(&id, out);
        dd_assert(slice_equal_case(slice_from(out), text));
        dd_assert(ident_get_shard(&id) < IDENT_SHARDS);
}

static void check_names(Slice key, Slice name)
{
        char digest[IDENT_TEXT_SIZE], again[IDENT_TEXT_SIZE];
        ObjectId id, parsed;

        dd_assert(ident_from_name(key, name, &id) == 0);
        dd_assert(ident_check(key, &id) == 0);
        ident_format(&id, digest);
        dd_assert(ident_parse(slice_from(digest), &parsed) == 0 && ident_equal(&id, &parsed));
        id.bytes[name.len % IDENT_SIZE] ^= 1;
        dd_assert(ident_check(key, &id) == IDENT_E_FOREIGN);
        dd_assert(ident_secret_equal(key, name) == slice_equal(key, name));
        ident_digest(key, digest);
        ident_digest(name, again);
        dd_assert((strcmp(digest, again) == 0) == slice_equal(key, name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        Slice text = slice_of(data, size), rest = text;

        check_text(text);
        check_names(slice_cut(&rest, '\0'), rest);
        return 0;
}
