/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/http.h"

#include <errno.h>

int http_write_request(Buf *buf, Slice method, Slice target)
{
        size_t len = method.len + target.len + sizeof "  HTTP/1.1\r\n" - 1;
        char *to;
        int r;

        if (!http_is_token(method) || target.len == 0)
                return -EINVAL;
        for (size_t i = 0; i < target.len; i++)
                if ((unsigned char)target.data[i] <= 0x20 || target.data[i] == 0x7f)
                        return -EINVAL;
        r = buf_reserve(buf, len, &to);
        if (r)
                return r;
        to = mempcpy(to, method.data, method.len);
        *to++ = ' ';
        to = mempcpy(to, target.data, target.len);
        memcpy(to, " HTTP/1.1\r\n", sizeof " HTTP/1.1\r\n" - 1);
        buf_commit(buf, len);
        return 0;
}

int http_write_status(Buf *buf, unsigned status)
{
        dd_assert(status >= 100 && status <= 999);
        return buf_printf(buf, "HTTP/1.1 %u %s\r\n", status, http_status_reason(status));
}

int http_write_header(Buf *buf, Slice name, Slice value)
{
        size_t len = name.len + value.len + sizeof ": \r\n" - 1;
        char *to;
        int r;

        if (!http_is_token(name) || !http_is_field_value(value))
                return -EINVAL;
        r = buf_reserve(buf, len, &to);
        if (r)
                return r;
        to = mempcpy(to, name.data, name.len);
        *to++ = ':';
        *to++ = ' ';
        if (value.len)
                to = mempcpy(to, value.data, value.len);
        *to++ = '\r';
        *to++ = '\n';
        buf_commit(buf, len);
        return 0;
}

int http_write_head_end(Buf *buf)
{
        return buf_append(buf, "\r\n", 2);
}

int http_write_chunk_head(Buf *buf, size_t len)
{
        dd_assert(len > 0); /* a chunk of no bytes would end the body */
        return buf_printf(buf, "%zx\r\n", len);
}

int http_write_last_chunk(Buf *buf)
{
        return buf_append(buf, "0\r\n\r\n", 5);
}
