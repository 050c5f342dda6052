/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the supervisor and a worker say to each other, over one SEQPACKET socket (the worker's fd 3)
 *
 * Each message is one packet with a JSON object; "type" says which. The first goes to the worker
 * and brings file descriptors, named in the same order by "fds".
 *
 *   supervisor -> worker
 *     boot    {app, slot, n_slots, version, shards: [slot x 4096 run-lengths], fds: [...],
 *              settings...}
 *     stats   {id}            answered by stats {id, ...}
 *     drain   {timeout_ms}    answered by the worker's exit with status 0
 *     operate {id, verb, class, object, name?, ...}, with a descriptor for some verbs: an
 *             operator's request to one object (daemon/operator.h); class: a uniqueKey
 *
 *   worker -> supervisor
 *     ready   {}              the app is loaded, listeners are served
 *     failed  {message}       the app could not be loaded; the worker exits with status 3
 *     stats   {id, edge: {...}, objects: {...}, runtime: {...}}
 *     operated {id, error, message} or {id, bookmark, size, created}, with a descriptor for some
 *             verbs
 *
 * fds: "listener:public", "listener:address", "internal", "hand-off", "hand-off:<slot>".
 * At most BOOT_MESSAGE_MAX bytes and BOOT_FDS_MAX descriptors.
 */

#include "lib/wire/jsonc.h"

#define BOOT_FD 3
#define BOOT_MESSAGE_MAX (192u << 10)
#define BOOT_FDS_MAX 200u
#define BOOT_EXIT_APP 3 /* exit status: the app could not be loaded */

/*
 * Sends message with fds (not taken); never waits. 0 or a negative errno: -EAGAIN, the peer's queue
 * is full; -EMSGSIZE, beyond the limits above; -EPIPE, the peer is gone.
 */
int boot_send(int socket, json_t *message, const int *fds, size_t n_fds);
/*
 * Receives one; never waits, whatever the socket's mode: -EAGAIN. *ret_fds (close-on-exec, at most
 * max_fds) are the caller's. -ECONNRESET at the end, -EPROTO for what is not of this form or brings
 * more descriptors than max_fds: they are closed then, and the next message can be received.
 */
int boot_receive(int socket, json_t **ret, int *ret_fds, size_t max_fds, size_t *ret_n_fds);
/* Waits until a message or the end is there; -ETIMEDOUT. timeout_ms -1: without limit. */
int boot_wait(int socket, int timeout_ms);
