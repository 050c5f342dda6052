/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Log lines: to the journal when standard error is connected to it, else to standard error
 *
 * Any thread; errno is left as it was. A message is at most 16 KiB; what is longer is cut and
 * marked. On standard error a line is "name: message", with "error: " or "warning: " before the
 * message and, except on a terminal, the fields in brackets after it; further lines of a message
 * are indented and control characters become "?", so that nothing a client sent looks like a line
 * of ours. Fields are pairs of name and value, ended by NULL, at most 16, under the journal's names
 * (OBJECT_ID, APP, WORKER, ...). A line that the journal does not take goes to standard error.
 */

#include "lib/base/macro.h"

typedef enum LogLevel {
        LOG_ERROR = 3,
        LOG_WARN = 4,
        LOG_NOTE = 5,
        LOG_INFO = 6,
        LOG_DEBUG_ = 7
} LogLevel;

/* name: "durabled" or "blog/0", the journal's SYSLOG_IDENTIFIER; copied, cut to 63 bytes. */
void log_open(const char *name, LogLevel max);
void log_close(void);
void log_set_max(LogLevel max);
void log_line(LogLevel level, const char *format, ...) _printf_(2, 3);
/* fields: { "OBJECT_ID", id, "APP", app, NULL }. */
void log_fields(LogLevel level, const char *const *fields, const char *format, ...) _printf_(3, 4);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_note(...) log_line(LOG_NOTE, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG_, __VA_ARGS__)
