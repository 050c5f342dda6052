/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Who may call an app's management endpoints
 *
 * A path with a segment of the form __name__, percent-encoded or not, is a management endpoint: it
 * is reached only with "Authorization: Bearer <admin token>" unless the guard is open. The token is
 * compared in constant time. Loop thread.
 */

#include "lib/wire/http.h"

typedef struct Guard {
        Slice token; /* borrowed */
        bool open;
} Guard;

void guard_init(Guard *guard, Slice token, bool open);
/* 0 when the request may go on, else the status to refuse it with and why. */
unsigned guard_check(const Guard *guard, const HttpHead *head, const char **ret_message);
/* Whether a path names a management endpoint. A path that cannot be decoded counts as one. */
bool guard_is_management(Slice path);
