/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The head of an internal request, which proxy.c sends and proxy_parse() reads at the other end
 *
 * Names that our own headers carry are percent-encoded, so that any byte may stand in them. No
 * file descriptor; any thread.
 */

#include "daemon/edge/proxy.h"

/* Appends a whole head. now: monotonic ns. 0, -EINVAL (it cannot be said in HTTP), -ENOMEM. */
int proxy_write_head(Buf *buf, unsigned class_index, const ObjectId *id, Slice name,
        const Request *request, uint64_t deadline, uint64_t now);
bool proxy_is_our_header(Slice name);
