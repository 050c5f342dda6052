/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/http.h"

#include <errno.h>

static bool is_token_char(char c)
{
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               (c && strchr("!#$%&'*+-.^_`|~", c));
}

bool http_is_token(Slice name)
{
        for (size_t i = 0; i < name.len; i++)
                if (!is_token_char(name.data[i]))
                        return false;
        return name.len > 0;
}

bool http_is_field_value(Slice value)
{
        for (size_t i = 0; i < value.len; i++) {
                unsigned char c = (unsigned char)value.data[i];

                if ((c < 0x20 && c != '\t') || c == 0x7f)
                        return false;
        }
        return true;
}

static int hex_value(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

/* How many bytes path has decoded, written to `to`; -1 when an escape is malformed or gives a NUL.
 */
static ptrdiff_t decode(Slice path, char *to)
{
        ptrdiff_t n = 0;

        for (size_t i = 0; i < path.len; i++) {
                char c = path.data[i];

                if (c == '%') {
                        int high = i + 2 < path.len ? hex_value(path.data[i + 1]) : -1;
                        int low = i + 2 < path.len ? hex_value(path.data[i + 2]) : -1;

                        if (high < 0 || low < 0)
                                return -1;
                        c = (char)(high << 4 | low);
                        i += 2;
                }
                if (c == '\0')
                        return -1;
                to[n++] = c;
        }
        return n;
}

bool http_path_decode(Slice path, Buf *buf)
{
        ptrdiff_t n;
        char *to;

        if (buf_reserve(buf, path.len, &to))
                return false;
        n = decode(path, to);
        /* Also after a failure: it puts the NUL back that ends what was there before. */
        buf_commit(buf, n < 0 ? 0 : (size_t)n);
        return n >= 0;
}

const char *http_status_reason(unsigned status)
{
        static const char *const reasons[] = {
                [100] = "Continue",
                [101] = "Switching Protocols",
                [102] = "Processing",
                [103] = "Early Hints",
                [200] = "OK",
                [201] = "Created",
                [202] = "Accepted",
                [203] = "Non-Authoritative Information",
                [204] = "No Content",
                [205] = "Reset Content",
                [206] = "Partial Content",
                [207] = "Multi-Status",
                [208] = "Already Reported",
                [226] = "IM Used",
                [300] = "Multiple Choices",
                [301] = "Moved Permanently",
                [302] = "Found",
                [303] = "See Other",
                [304] = "Not Modified",
                [305] = "Use Proxy",
                [307] = "Temporary Redirect",
                [308] = "Permanent Redirect",
                [400] = "Bad Request",
                [401] = "Unauthorized",
                [402] = "Payment Required",
                [403] = "Forbidden",
                [404] = "Not Found",
                [405] = "Method Not Allowed",
                [406] = "Not Acceptable",
                [407] = "Proxy Authentication Required",
                [408] = "Request Timeout",
                [409] = "Conflict",
                [410] = "Gone",
                [411] = "Length Required",
                [412] = "Precondition Failed",
                [413] = "Content Too Large",
                [414] = "URI Too Long",
                [415] = "Unsupported Media Type",
                [416] = "Range Not Satisfiable",
                [417] = "Expectation Failed",
                [421] = "Misdirected Request",
                [422] = "Unprocessable Content",
                [423] = "Locked",
                [424] = "Failed Dependency",
                [425] = "Too Early",
                [426] = "Upgrade Required",
                [428] = "Precondition Required",
                [429] = "Too Many Requests",
                [431] = "Request Header Fields Too Large",
                [451] = "Unavailable For Legal Reasons",
                [500] = "Internal Server Error",
                [501] = "Not Implemented",
                [502] = "Bad Gateway",
                [503] = "Service Unavailable",
                [504] = "Gateway Timeout",
                [505] = "HTTP Version Not Supported",
                [506] = "Variant Also Negotiates",
                [507] = "Insufficient Storage",
                [508] = "Loop Detected",
                [511] = "Network Authentication Required",
        };

        if (status < ELEMENTSOF(reasons) && reasons[status])
                return reasons[status];
        return "Unknown";
}
