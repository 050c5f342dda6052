/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/buf.h"

#include <errno.h>
#include <stdio.h>

#define BUF_MIN_SIZE 256u

void buf_init(Buf *buf, size_t max)
{
        *buf = (Buf)BUF_INIT(max);
}

void buf_done(Buf *buf)
{
        free(buf->base);
        *buf = (Buf)BUF_INIT(buf->max);
}

int buf_reserve(Buf *buf, size_t n, char **ret)
{
        size_t max = buf->max ? buf->max : SIZE_MAX / 4;
        size_t size = buf->size ? buf->size : BUF_MIN_SIZE;
        char *base;

        if (n > max || buf->len > max - n)
                return -ENOBUFS;
        if (buf->start + buf->len + n + 1 > buf->size) {
                if (buf->start) {
                        memmove(buf->base, buf->base + buf->start, buf->len);
                        buf->start = 0;
                }
                while (size < buf->len + n + 1)
                        size *= 2;
                if (size != buf->size) {
                        base = realloc(buf->base, size);
                        if (!base)
                                return -ENOMEM;
                        buf->base = base;
                        buf->size = size;
                }
        }
        *ret = buf->base + buf->start + buf->len;
        return 0;
}

void buf_commit(Buf *buf, size_t n)
{
        dd_assert(buf->start + buf->len + n + 1 <= buf->size);
        buf->len += n;
        buf->base[buf->start + buf->len] = '\0';
}

int buf_append(Buf *buf, const void *data, size_t len)
{
        char *to;
        int r;

        r = buf_reserve(buf, len, &to);
        if (r)
                return r;
        if (len)
                memcpy(to, data, len);
        buf_commit(buf, len);
        return 0;
}

int buf_append_slice(Buf *buf, Slice slice)
{
        return buf_append(buf, slice.data, slice.len);
}

int buf_append_string(Buf *buf, const char *string)
{
        return buf_append(buf, string, strlen(string));
}

int buf_append_char(Buf *buf, char c)
{
        return buf_append(buf, &c, 1);
}

int buf_vprintf(Buf *buf, const char *format, va_list args)
{
        va_list again;
        char *to;
        int n, r;

        va_copy(again, args);
        n = vsnprintf(NULL, 0, format, again);
        va_end(again);
        if (n < 0)
                return -EINVAL;
        r = buf_reserve(buf, (size_t)n, &to);
        if (r)
                return r;
        vsnprintf(to, (size_t)n + 1, format, args);
        buf_commit(buf, (size_t)n);
        return 0;
}

int buf_printf(Buf *buf, const char *format, ...)
{
        va_list args;
        int r;

        va_start(args, format);
        r = buf_vprintf(buf, format, args);
        va_end(args);
        return r;
}

int buf_append_json(Buf *buf, Slice slice)
{
        size_t before = buf->len;
        int r = 0;

        for (size_t i = 0; i < slice.len && !r; i++) {
                unsigned char c = (unsigned char)slice.data[i];

                if (c == '"' || c == '\\')
                        r = buf_printf(buf, "\\%c", c);
                else if (c == '\n')
                        r = buf_append_string(buf, "\\n");
                else if (c == '\t')
                        r = buf_append_string(buf, "\\t");
                else if (c < 0x20 || c == 0x7f)
                        r = buf_printf(buf, "\\u%04x", c);
                else
                        r = buf_append_char(buf, (char)c);
        }
        if (r)
                buf->len = before;
        return r;
}

int buf_append_html(Buf *buf, Slice slice)
{
        static const char *const entities[256] = {
                ['&'] = "&amp;",
                ['<'] = "&lt;",
                ['>'] = "&gt;",
                ['"'] = "&quot;",
                ['\''] = "&#39;",
        };
        size_t before = buf->len;
        int r = 0;

        for (size_t i = 0; i < slice.len && !r; i++) {
                const char *entity = entities[(unsigned char)slice.data[i]];

                r = entity ? buf_append_string(buf, entity) : buf_append_char(buf, slice.data[i]);
        }
        if (r)
                buf->len = before;
        return r;
}

void buf_consume(Buf *buf, size_t n)
{
        dd_assert(n <= buf->len);
        buf->start += n;
        buf->len -= n;
        if (buf->len == 0)
                buf->start = 0;
}

void buf_clear(Buf *buf)
{
        buf->start = buf->len = 0;
        if (buf->base)
                buf->base[0] = '\0';
}

char *buf_take(Buf *buf)
{
        char *base;

        if (!buf->base)
                return calloc(1, 1);
        if (buf->start)
                memmove(buf->base, buf->base + buf->start, buf->len + 1);
        base = TAKE_PTR(buf->base);
        buf_done(buf);
        return base;
}
