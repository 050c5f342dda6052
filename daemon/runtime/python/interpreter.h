/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * CPython in this process: its start, its end and its errors
 *
 * Isolated from the environment and from the user's site folder, in UTF-8 mode, without signal
 * handlers; Debian's dist-packages stay importable. One interpreter a process. This header is the
 * one place that includes Python.h.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "daemon/runtime/runtime.h"

/*
 * Starts the interpreter; host_modules comes first on sys.path, and _durabled is importable. 0 with
 * the GIL held, or -EIO without an interpreter and with why in *ret_error (malloc'd).
 */
int interpreter_open(const char *host_modules, char **ret_error);
/* With the GIL, on the thread that opened it. */
void interpreter_close(void);
/* The pending exception as a traceback, malloc'd, NULL when memory is out; nothing is pending then.
 */
char *interpreter_take_error(void);
/* Logs the pending exception, if there is one; what: where it happened. */
void interpreter_log_error(const char *what);
/* What durabled_host.load() is given. A new reference, or NULL with an exception. */
PyObject *interpreter_new_config(const RuntimeConfig *config);

static inline void py_decref_p(PyObject **object)
{
        Py_XDECREF(*object);
}
