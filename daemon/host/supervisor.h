/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The supervisor: listeners, steering, slots, the control socket; never guest code
 *
 *   supervisor_new()   folders and locks, manifests, listeners, steering: everything that can be
 *                      wrong with the settings is said here
 *   supervisor_run()   starts a worker in each slot and serves until it is stopped
 *
 *   RUNNING --SIGTERM, SIGINT, Stop()--> STOPPING (workers drain) --all gone--> ended
 *                                            \-- a second signal: killed at once
 *
 * Guarantees:
 * 1. The sockets that clients and other workers connect to outlive every worker: what waits in
 *    them is served by the next one.
 * 2. A worker that dies is started again after its slot's backoff (slot.h). One that is neither
 *    ready nor gone in time is killed, and one whose loop is silent for worker_timeout=.
 * 3. A reload (SIGHUP, Reload()) reads the manifests first; when they are wrong nothing changes.
 *    Then one slot after the other drains and starts with the new code. It stops at the first
 *    that cannot be loaded.
 * 4. Two supervisors never share a state or runtime folder.
 * Blocking calls are made at start alone, and to read manifests at a reload.
 */

#include "daemon/core/config.h"
#include "lib/wire/jsonc.h"

enum {
        _SUPERVISOR_E_SUCCESS = 0,
        SUPERVISOR_E_INVALID, /* the settings or the machine do not allow it; error says what */
};

typedef struct Supervisor Supervisor;

typedef struct SupervisorError {
        char message[900];
} SupervisorError;

/* What the settings alone can tell: manifests, addresses, names. Changes nothing on disk. */
int supervisor_check(const Config *config, SupervisorError *error);
/* config is borrowed. 0, SUPERVISOR_E_INVALID, or a negative errno. */
int supervisor_new(const Config *config, Supervisor **ret, SupervisorError *error);
Supervisor *supervisor_free(Supervisor *supervisor);
DEFINE_CLEANUP(Supervisor *, supervisor_free)
/* 0 after a stop in order. */
int supervisor_run(Supervisor *supervisor);
