/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The AnyIP route of an object prefix: `ip -6 route add local PREFIX/64 dev lo`
 *
 * With it every address of the prefix belongs to this machine, without an address being assigned.
 * Blocking calls of rtnetlink, at start and stop alone. Source: rtnetlink(7).
 */

#include "lib/base/macro.h"

#include <stdbool.h>

/* Whether the kernel takes an address of the prefix for one of its own. 0 or -errno. */
int route_find(const uint8_t prefix[16], bool *ret);
/* 0, -EPERM (CAP_NET_ADMIN), -EEXIST, or another negative errno. */
int route_add(const uint8_t prefix[16]);
int route_remove(const uint8_t prefix[16]);
