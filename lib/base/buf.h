/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A growable byte buffer with a limit
 *
 * Bytes are appended at the end and consumed from the front. What is stored is always followed by
 * a NUL byte that does not count. Pointers into it are valid until the next append.
 *
 * Guarantees:
 * 1. len never exceeds max: an append beyond it changes nothing and returns -ENOBUFS.
 * 2. When memory is out an append changes nothing and returns -ENOMEM.
 */

#include "lib/base/slice.h"

#include <stdarg.h>

typedef struct Buf {
        char *base;   /* allocated block */
        size_t start; /* bytes consumed from the front of it */
        size_t len;   /* bytes stored after start */
        size_t size;  /* bytes allocated */
        size_t max;   /* limit of len; 0 means SIZE_MAX / 4 */
} Buf;

#define BUF_INIT(_max)        \
        {                     \
                .max = (_max) \
        }

void buf_init(Buf *buf, size_t max);
void buf_done(Buf *buf);

static inline char *buf_data(const Buf *buf)
{
        return buf->base ? buf->base + buf->start : NULL;
}

static inline Slice buf_slice(const Buf *buf)
{
        return (Slice){ buf_data(buf), buf->len };
}

/* Makes room for n more bytes; *ret points to where they go, buf_commit() then counts them. */
int buf_reserve(Buf *buf, size_t n, char **ret);
void buf_commit(Buf *buf, size_t n);

int buf_append(Buf *buf, const void *data, size_t len);
int buf_append_slice(Buf *buf, Slice slice);
int buf_append_string(Buf *buf, const char *string);
int buf_append_char(Buf *buf, char c);
int buf_printf(Buf *buf, const char *format, ...) _printf_(2, 3);
int buf_vprintf(Buf *buf, const char *format, va_list args) _printf_(2, 0);
/* As the inside of a JSON string: quotes, backslashes and control characters are escaped. */
int buf_append_json(Buf *buf, Slice slice);
/* As text inside HTML: & < > " ' are escaped. */
int buf_append_html(Buf *buf, Slice slice);

/* Drops n bytes from the front. */
void buf_consume(Buf *buf, size_t n);
/* Empties it, keeps the memory. */
void buf_clear(Buf *buf);
/* The bytes as a NUL-terminated malloc'd string, owned by the caller; the buffer is empty then. */
char *buf_take(Buf *buf);
