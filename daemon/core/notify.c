/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/notify.h"

#include "lib/base/file.h"

#include <stdarg.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

#define STATUS_MAX 512

bool notify_is_wanted(void)
{
        const char *socket = getenv("NOTIFY_SOCKET");

        return socket && socket[0] != '\0';
}

/* A line break would begin another assignment of the protocol. */
static void one_line(char *text)
{
        for (; *text; text++)
                if ((unsigned char)*text < 0x20)
                        *text = ' ';
}

static int notify_state(const char *state, const char *format, va_list args)
{
        char status[STATUS_MAX];
        int r;

        if (!notify_is_wanted())
                return 0;
        if (!format) {
                r = sd_notify(0, state);
        } else {
                vsnprintf(status, sizeof status, format, args);
                one_line(status);
                r = sd_notifyf(0, "%s%sSTATUS=%s", state, state[0] ? "\n" : "", status);
        }
        return r < 0 ? r : 0;
}

int notify_ready(const char *status, ...)
{
        va_list args;
        int r;

        va_start(args, status);
        r = notify_state("READY=1", status, args);
        va_end(args);
        return r;
}

int notify_status(const char *format, ...)
{
        va_list args;
        int r;

        va_start(args, format);
        r = notify_state("", format, args);
        va_end(args);
        return r;
}

/* systemd tells by the time which of several reloads a READY=1 ends. */
int notify_reloading(const char *format, ...)
{
        char state[64];
        va_list args;
        int r;

        snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%llu",
                (unsigned long long)(clock_monotonic_ns() / 1000));
        va_start(args, format);
        r = notify_state(state, format, args);
        va_end(args);
        return r;
}

int notify_stopping(const char *format, ...)
{
        va_list args;
        int r;

        va_start(args, format);
        r = notify_state("STOPPING=1", format, args);
        va_end(args);
        return r;
}

int notify_extend(uint64_t ns)
{
        int r = notify_is_wanted()
                        ? sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%llu", (unsigned long long)(ns / 1000))
                        : 0;

        return r < 0 ? r : 0;
}

int notify_watchdog(void)
{
        int r = notify_is_wanted() ? sd_notify(0, "WATCHDOG=1") : 0;

        return r < 0 ? r : 0;
}

uint64_t notify_watchdog_ns(void)
{
        uint64_t us = 0;

        if (!notify_is_wanted() || sd_watchdog_enabled(0, &us) <= 0)
                return 0;
        return us / 2 * 1000;
}

int notify_store_fd(const char *name, int fd, bool poll)
{
        char state[STATUS_MAX];
        int r;

        if (!notify_is_wanted())
                return 0;
        snprintf(state, sizeof state, "FDSTORE=1\nFDNAME=%s%s", name, poll ? "" : "\nFDPOLL=0");
        r = sd_pid_notify_with_fds(0, 0, state, &fd, 1);
        return r < 0 ? r : 0;
}

int notify_remove_fds(const char *name)
{
        int r = notify_is_wanted() ? sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name) : 0;

        return r < 0 ? r : 0;
}
