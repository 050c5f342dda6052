/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A question of a subcommand to the daemon: one call, its complaints, its exit status
 */

#include "tui/client.h"
#include "tui/command.h"

#define ASK_TIMEOUT_MS 30000

/*
 * Calls the method on the control socket (NULL: the default one) and waits at most timeout_ms. An
 * exit status: what is not EXIT_OK has been complained of. *ret: a new reference. ret_fd: NULL, or
 * where the descriptor that the reply brought goes (-1: none).
 */
int ask(const char *socket, const char *method, json_t *parameters, int timeout_ms, json_t **ret,
        int *ret_fd);
void print_json(json_t *value);
/* "" and 0 where there is none. */
const char *text_of(json_t *object, const char *key);
long long number_of(json_t *object, const char *key);
