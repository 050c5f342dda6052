/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Assertions, cleanup attributes and small macros
 *
 * Used by every room. Nothing here allocates or fails.
 *
 * - dd_assert() is for our own bugs: it stays on in release builds, prints where it failed and
 *   aborts. It never judges input from a client, a file or a guest.
 * - _cleanup_(fn) calls fn(&var) when var leaves its scope; TAKE_PTR() and TAKE_FD() hand the
 *   value on and disarm the cleanup.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(_fn) __attribute__((__cleanup__(_fn)))
#define _printf_(_fmt, _args) __attribute__((__format__(printf, _fmt, _args)))
#define _noreturn_ __attribute__((__noreturn__))
#define _unused_ __attribute__((__unused__))
#define _must_check_ __attribute__((__warn_unused_result__))
#define _public_ __attribute__((__visibility__("default")))

#define ELEMENTSOF(_array) (sizeof(_array) / sizeof((_array)[0]))
#define CONTAINER_OF(_ptr, _type, _member) \
        ((_type *)((char *)(uintptr_t)(_ptr)-offsetof(_type, _member)))
#define MIN(_a, _b)                       \
        ({                                \
                __typeof__(_a) a_ = (_a); \
                __typeof__(_b) b_ = (_b); \
                a_ < b_ ? a_ : b_;        \
        })
#define MAX(_a, _b)                       \
        ({                                \
                __typeof__(_a) a_ = (_a); \
                __typeof__(_b) b_ = (_b); \
                a_ > b_ ? a_ : b_;        \
        })

#define TAKE(_var, _null)                           \
        ({                                          \
                __typeof__(_var) *taken_ = &(_var); \
                __typeof__(_var) value_ = *taken_;  \
                *taken_ = (_null);                  \
                value_;                             \
        })
#define TAKE_PTR(_ptr) TAKE(_ptr, NULL)
#define TAKE_FD(_fd) TAKE(_fd, -1)

/* Declares `static inline void fn_p(type *p)`, for _cleanup_(fn_p). */
#define DEFINE_CLEANUP(_type, _fn)           \
        static inline void _fn##_p(_type *p) \
        {                                    \
                if (*p)                      \
                        _fn(*p);             \
        }

_noreturn_ void assert_fail(const char *expr, const char *file, int line, const char *function);

#define dd_assert(_expr)                                                   \
        do {                                                               \
                if (__builtin_expect(!(_expr), 0))                         \
                        assert_fail(#_expr, __FILE__, __LINE__, __func__); \
        } while (0)
#define dd_unreachable() assert_fail("unreachable", __FILE__, __LINE__, __func__)

static inline void free_p(void *p)
{
        free(*(void **)p);
}

static inline void close_p(int *fd)
{
        if (*fd >= 0)
                close(*fd);
}
