/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/log.h"

#include "lib/base/file.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Says for sd_journal_sendv() that we name the place in the code ourselves, or not at all. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#define LINE_MAX_BYTES 16384
#define STDERR_MAX_BYTES ((size_t)4 * LINE_MAX_BYTES) /* with escapes and fields */
#define FIELDS_MAX 16
#define NAME_MAX_BYTES 64

static const char cut_mark[] = " [cut]";

/* The level is read without the lock on each line; name and journal change in log_open() alone. */
static atomic_int log_max = LOG_INFO;
static pthread_rwlock_t log_lock = PTHREAD_RWLOCK_INITIALIZER;
static char log_name[NAME_MAX_BYTES] = "durabled";
static bool log_to_journal;

/* Is standard error the stream that systemd names in JOURNAL_STREAM ("device:inode")? */
static bool stderr_is_journal(void)
{
        const char *stream = getenv("JOURNAL_STREAM");
        Slice rest = slice_from(stream), device;
        uint64_t device_number, inode;
        struct stat st;

        if (!stream || fstat(STDERR_FILENO, &st) < 0)
                return false;
        device = slice_cut(&rest, ':');
        return slice_to_u64(device, &device_number) && slice_to_u64(rest, &inode) &&
               device_number == st.st_dev && inode == st.st_ino;
}

void log_open(const char *name, LogLevel max)
{
        pthread_rwlock_wrlock(&log_lock);
        snprintf(log_name, sizeof log_name, "%s", name);
        log_to_journal = stderr_is_journal();
        pthread_rwlock_unlock(&log_lock);
        log_set_max(max);
}

void log_close(void)
{
        pthread_rwlock_wrlock(&log_lock);
        log_to_journal = false;
        pthread_rwlock_unlock(&log_lock);
}

void log_set_max(LogLevel max)
{
        atomic_store_explicit(&log_max, (int)max, memory_order_relaxed);
}

/* Cuts to the limit, at the start of a UTF-8 character, and marks the cut. */
static size_t line_cut(char *line, size_t len)
{
        size_t at = LINE_MAX_BYTES - sizeof cut_mark + 1;

        if (len <= LINE_MAX_BYTES)
                return len;
        while (at > 0 && ((unsigned char)line[at] & 0xc0) == 0x80)
                at--;
        memcpy(line + at, cut_mark, sizeof cut_mark);
        return at + sizeof cut_mark - 1;
}

/* What came from outside must not look like a line of ours, nor steer a terminal. */
static void append_plain(Buf *buf, const char *text, size_t len)
{
        for (size_t i = 0; i < len && buf->len < STDERR_MAX_BYTES; i++) {
                unsigned char c = (unsigned char)text[i];

                if (c == '\n')
                        (void)buf_append_string(buf, "\n    ");
                else if ((c < 0x20 && c != '\t') || c == 0x7f)
                        (void)buf_append_char(buf, '?');
                else
                        (void)buf_append_char(buf, (char)c);
        }
}

static void send_stderr(LogLevel level, const char *const *fields, const char *message, size_t len)
{
        Buf buf = BUF_INIT(0);

        (void)buf_append_string(&buf, log_name);
        (void)buf_append_string(&buf, ": ");
        if (level <= LOG_ERROR)
                (void)buf_append_string(&buf, "error: ");
        else if (level == LOG_WARN)
                (void)buf_append_string(&buf, "warning: ");
        append_plain(&buf, message, len);
        if (isatty(STDERR_FILENO))
                fields = NULL;
        for (size_t i = 0; fields && fields[i] && i < (size_t)2 * FIELDS_MAX; i += 2) {
                (void)buf_append_string(&buf, i == 0 ? " [" : " ");
                append_plain(&buf, fields[i], strlen(fields[i]));
                (void)buf_append_char(&buf, '=');
                append_plain(&buf, fields[i + 1], strlen(fields[i + 1]));
        }
        if (fields && fields[0])
                (void)buf_append_char(&buf, ']');
        (void)buf_append_char(&buf, '\n');
        /* In one write, so that lines of several threads and processes do not mix. */
        if (buf.len > 0)
                (void)fd_write_all(STDERR_FILENO, buf_data(&buf), buf.len);
        buf_done(&buf);
}

static int send_journal(LogLevel level, const char *const *fields, const char *message, size_t len)
{
        Buf texts[3 + FIELDS_MAX] = {};
        struct iovec vectors[3 + FIELDS_MAX];
        size_t n = 3;
        int r;

        r = buf_printf(&texts[0], "PRIORITY=%d", (int)level);
        if (r == 0)
                r = buf_printf(&texts[1], "SYSLOG_IDENTIFIER=%s", log_name);
        if (r == 0)
                r = buf_append_string(&texts[2], "MESSAGE=");
        if (r == 0)
                r = buf_append(&texts[2], message, len);
        for (; r == 0 && fields && fields[0] && n < ELEMENTSOF(texts); fields += 2)
                r = buf_printf(&texts[n++], "%s=%s", fields[0], fields[1]);
        for (size_t i = 0; i < n; i++)
                vectors[i] = (struct iovec){ buf_data(&texts[i]), texts[i].len };
        if (r == 0)
                r = sd_journal_sendv(vectors, (int)n);
        for (size_t i = 0; i < n; i++)
                buf_done(&texts[i]);
        return r;
}

static void log_send(LogLevel level, const char *const *fields, const char *format, va_list args)
{
        char line[LINE_MAX_BYTES + 64];
        int saved = errno, n;
        size_t len;

        if ((int)level > atomic_load_explicit(&log_max, memory_order_relaxed))
                return;
        n = vsnprintf(line, sizeof line, format, args);
        if (n < 0)
                n = snprintf(line, sizeof line, "a message could not be formatted: %s", format);
        len = line_cut(line, MIN((size_t)n, sizeof line - 1));
        pthread_rwlock_rdlock(&log_lock);
        if (!log_to_journal || send_journal(level, fields, line, len) < 0)
                send_stderr(level, fields, line, len);
        pthread_rwlock_unlock(&log_lock);
        errno = saved;
}

void log_line(LogLevel level, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        log_send(level, NULL, format, args);
        va_end(args);
}

void log_fields(LogLevel level, const char *const *fields, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        log_send(level, fields, format, args);
        va_end(args);
}
