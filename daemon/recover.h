/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * durabled --recover: what is in the journals, and what an operator decides about damaged ones
 *
 * Without a decision it explains and changes nothing. It takes the state folder's lock, so that
 * no service runs beside it; it prints to standard output, faults to standard error. Root becomes
 * the user to whom the state folder belongs, for good: what it makes is that user's.
 */

#include "daemon/core/config.h"

typedef struct RecoverOptions {
        const char *config_path; /* for the commands that are proposed; NULL: the default */
        bool redo;               /* all journals that are fine are redone and emptied */
        const char *cut;         /* APP/SLOT, or NULL */
        uint64_t until;          /* of the cut: the last LSN that is redone; 0: up to the damage */
        const char *set_aside;   /* APP/SLOT, or NULL */
} RecoverOptions;

/*
 * The process's exit status: 0 nothing is left to be decided, 1 a journal is damaged or a step has
 * failed, 2 the options name what is not there.
 */
int recover_run(const Config *config, const RecoverOptions *options);
