/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Varlink messages: JSON objects, each ended by a NUL byte
 *
 * Bytes to structs and back; no socket. Source: varlink.org, "Protocol". A message is at most
 * VARLINK_MESSAGE_MAX bytes.
 */

#include "lib/base/buf.h"
#include "lib/wire/jsonc.h"

#define VARLINK_MESSAGE_MAX (16u << 20) /* without its NUL byte */
#define VARLINK_NAME_MAX 255u           /* of a method's or an error's qualified name */

enum {
        _VARLINK_E_SUCCESS = 0,
        VARLINK_E_MORE,      /* no complete message yet */
        VARLINK_E_MALFORMED, /* not a JSON object, or not of the protocol's shape */
        VARLINK_E_TOO_LARGE,
};

typedef struct VarlinkCall {
        char *method;
        json_t *parameters; /* an object, never NULL */
        bool more, oneway, upgrade;
} VarlinkCall;

typedef struct VarlinkReply {
        char *error;        /* NULL on success */
        json_t *parameters; /* an object, never NULL */
        bool continues;
} VarlinkReply;

/*
 * Takes the first message out of buf. 0, VARLINK_E_* or -ENOMEM. A malformed one is taken out as
 * well; the protocol has no answer to it but to close the connection.
 */
int varlink_take_call(Buf *buf, VarlinkCall *ret);
int varlink_take_reply(Buf *buf, VarlinkReply *ret);
void varlink_call_done(VarlinkCall *call);
void varlink_reply_done(VarlinkReply *reply);

/* parameters may be NULL; a reference is not taken. 0, -ENOMEM, -ENOBUFS. */
int varlink_write_call(Buf *buf, const char *method, json_t *parameters, bool more);
int varlink_write_reply(Buf *buf, json_t *parameters, bool continues);
int varlink_write_error(Buf *buf, const char *error, json_t *parameters);
