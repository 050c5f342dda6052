/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Ids of durable objects
 *
 * workerd's algorithm (workerd, src/workerd/server/actor-id-impl.c++), so that ids of its local
 * state stay the same:
 *
 *   K    = SHA-256(uniqueKey)
 *   base = HMAC-SHA256(K, name)[0..16) for a name, 16 random bytes for a unique id
 *   id   = base || HMAC-SHA256(K, base)[0..16)
 *
 * The last 16 bytes prove that an id belongs to its namespace. Written as 64 lower-case hex digits.
 * A shard is 1 of 4096 of an app: the first 12 bits of the id. libcrypto is included here alone.
 */

#include "lib/base/slice.h"

#define IDENT_SIZE 32u
#define IDENT_TEXT_SIZE 65u /* with the NUL */
#define IDENT_SHARDS 4096u

enum {
        _IDENT_E_SUCCESS = 0,
        IDENT_E_LENGTH,  /* not 64 digits */
        IDENT_E_DIGIT,   /* something other than 0-9 a-f A-F */
        IDENT_E_FOREIGN, /* not an id of this namespace */
};

typedef struct ObjectId {
        uint8_t bytes[IDENT_SIZE];
} ObjectId;

/* 0. A name is any bytes, the empty one too. */
int ident_from_name(Slice unique_key, Slice name, ObjectId *ret);
/* 0, or -EIO when there is no randomness. */
int ident_new_unique(Slice unique_key, ObjectId *ret);
/* 0, IDENT_E_LENGTH, IDENT_E_DIGIT. */
int ident_parse(Slice text, ObjectId *ret);
/* 0 or IDENT_E_FOREIGN. */
int ident_check(Slice unique_key, const ObjectId *id);
void ident_format(const ObjectId *id, char out[IDENT_TEXT_SIZE]);

static inline unsigned ident_get_shard(const ObjectId *id)
{
        return (unsigned)id->bytes[0] << 4 | id->bytes[1] >> 4;
}

static inline bool ident_equal(const ObjectId *a, const ObjectId *b)
{
        return memcmp(a->bytes, b->bytes, IDENT_SIZE) == 0;
}

/* SHA-256 of data as 64 hex digits and a NUL. */
void ident_digest(Slice data, char out[IDENT_TEXT_SIZE]);
/* Compares secrets in time that does not depend on where they differ. */
bool ident_secret_equal(Slice a, Slice b);
