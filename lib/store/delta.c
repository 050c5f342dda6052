/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/store/delta.h"

#include "lib/base/macro.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define VARINT_MAX 3u

typedef struct Reader {
        const unsigned char *at, *end;
} Reader;

/* Whether 64 bytes differ. */
static bool differs(const unsigned char *base, const unsigned char *page)
{
        uint64_t old[8] = {}, new[8], all = 0;

        if (base)
                memcpy(old, base, sizeof old);
        memcpy(new, page, sizeof new);
        for (size_t i = 0; i < ELEMENTSOF(old); i++)
                all |= old[i] ^ new[i];
        return all;
}

/* Where the two differ next, at or after `at`; page_size when nowhere. */
static size_t find_change(
        const unsigned char *base, const unsigned char *page, size_t at, size_t page_size)
{
        while (at + 64 <= page_size && !differs(base ? base + at : NULL, page + at))
                at += 64;
        while (at + 8 <= page_size) {
                uint64_t old = 0, new;

                if (base)
                        memcpy(&old, base + at, 8);
                memcpy(&new, page + at, 8);
                if (old != new)
                        break;
                at += 8;
        }
        while (at < page_size && page[at] == (base ? base[at] : 0))
                at++;
        return at;
}

/* Where at least DELTA_GAP equal bytes begin. */
static size_t find_gap(
        const unsigned char *base, const unsigned char *page, size_t at, size_t page_size)
{
        size_t equal = 0;

        while (at < page_size && equal < DELTA_GAP) {
                equal = page[at] == (base ? base[at] : 0) ? equal + 1 : 0;
                at++;
        }
        return at - equal;
}

static size_t put_varint(unsigned char *out, size_t value)
{
        size_t n = 0;

        while (value >= 0x80) {
                out[n++] = (unsigned char)(value | 0x80);
                value >>= 7;
        }
        out[n++] = (unsigned char)value;
        return n;
}

int delta_encode(const void *base, const void *page, size_t page_size, void *out, size_t limit)
{
        const unsigned char *old = base, *new = page;
        unsigned char *bytes = out;
        size_t len = 0, done = 0;

        dd_assert(page_size <= DELTA_PAGE_MAX);
        for (;;) {
                size_t start = find_change(old, new, done, page_size), end;
                unsigned char head[2 * VARINT_MAX];
                size_t n;

                if (start == page_size)
                        return (int)len;
                end = find_gap(old, new, start, page_size);
                n = put_varint(head, start - done);
                n += put_varint(head + n, end - start);
                if (len + n + (end - start) > limit)
                        return -ENOBUFS;
                memcpy(bytes + len, head, n);
                len += n;
                for (size_t i = start; i < end; i++)
                        bytes[len++] = (unsigned char)(new[i] ^ (old ? old[i] : 0));
                done = end;
        }
}

static int get_varint(Reader *reader, size_t *ret)
{
        size_t value = 0;

        for (unsigned i = 0; i < VARINT_MAX; i++) {
                if (reader->at == reader->end)
                        return -EBADMSG;
                value |= (size_t)(*reader->at & 0x7f) << (7 * i);
                if (!(*reader->at++ & 0x80)) {
                        *ret = value;
                        return 0;
                }
        }
        return -EBADMSG;
}

int delta_apply(const void *delta, size_t len, void *page, size_t page_size)
{
        Reader reader = { delta, (const unsigned char *)delta + len };
        unsigned char *bytes = page;
        size_t at = 0;

        while (reader.at < reader.end) {
                size_t skip, count;
                int r = get_varint(&reader, &skip);

                r = r ?: get_varint(&reader, &count);
                if (r)
                        return r;
                if (skip > page_size - at || count > page_size - at - skip ||
                        count > (size_t)(reader.end - reader.at))
                        return -EBADMSG;
                at += skip;
                for (size_t i = 0; i < count; i++)
                        bytes[at++] ^= *reader.at++;
        }
        return 0;
}
