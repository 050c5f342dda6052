/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Calls on the daemon's control socket, one at a time, blocking with a time-out
 */

#include "lib/wire/varlink.h"

typedef struct Client Client;

/* The socket that the user means when none is named: $DURABLED_SOCKET, ./.durabled/run/control
 * where it exists, /run/durabled/control. Owned by the caller, NULL when memory is out. */
char *client_default_path(void);
/* -ENOENT, -ECONNREFUSED: no daemon. -ENAMETOOLONG: longer than a socket's path may be. */
int client_open(const char *path, Client **ret);
Client *client_close(Client *client);
DEFINE_CLEANUP(Client *, client_close)
/*
 * Calls a method and waits at most timeout_ms for its reply. parameters may be NULL, no reference
 * is taken. 0 with a reply (whose error may be set), -ETIMEDOUT, -ECONNRESET, -EPROTO.
 */
int client_call(
        Client *client, const char *method, json_t *parameters, int timeout_ms, VarlinkReply *ret);
/* Calls fn once a second while a call waits, with the seconds so far. */
void client_on_wait(Client *client, void (*fn)(unsigned seconds));
/* The descriptor that the last reply brought, now the caller's, or -1. */
int client_take_fd(Client *client);
