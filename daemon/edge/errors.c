/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/edge/conn.h"

/* The weight of a media range's parameters in thousandths: ";q=0.8" is 800. */
static unsigned range_get_weight(Slice parameters)
{
        while (parameters.len > 0) {
                Slice one = slice_trim(slice_cut(&parameters, ';'));
                unsigned weight = 0, unit = 1000;

                if (one.len < 3 || !slice_equal_case(slice_head(one, 2), SLICE("q=")))
                        continue;
                for (size_t i = 2; i < one.len; i++) {
                        if (one.data[i] == '.')
                                continue;
                        if (one.data[i] < '0' || one.data[i] > '9')
                                return 0;
                        weight += (unsigned)(one.data[i] - '0') * unit;
                        unit /= 10;
                }
                return MIN(weight, 1000u);
        }
        return 1000;
}

/* Pages are for who asks for text/html by name, as browsers do; programs get JSON. */
bool error_wants_html(Slice accept)
{
        unsigned html = 0, json = 0;

        while (accept.len > 0) {
                Slice parameters = slice_cut(&accept, ',');
                Slice type = slice_trim(slice_cut(&parameters, ';'));

                if (slice_equal_case(type, SLICE("text/html")))
                        html = range_get_weight(parameters);
                else if (slice_equal_case(type, SLICE("application/json")))
                        json = range_get_weight(parameters);
        }
        return html > 0 && html >= json;
}

static int write_json(Buf *buf, const ErrorAnswer *answer, const char *message)
{
        int r = buf_printf(buf, "{\"error\":{\"status\":%u,\"reason\":\"", answer->status);

        if (r == 0)
                r = buf_append_json(buf, slice_from(http_status_reason(answer->status)));
        if (r == 0)
                r = buf_append_string(buf, "\",\"message\":\"");
        if (r == 0)
                r = buf_append_json(buf, slice_from(message));
        if (r == 0)
                r = buf_printf(buf, "\",\"request_id\":\"%s\"}}\n", answer->request_id);
        return r;
}

static int write_html(Buf *buf, const ErrorAnswer *answer, const char *message)
{
        const char *reason = http_status_reason(answer->status);
        int r = buf_printf(buf,
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                "<title>%u %s</title>"
                "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:38em;margin:4em auto;"
                "padding:0 1em}small{color:#666}</style></head>\n<body><h1>%u %s</h1><p>",
                answer->status, reason, answer->status, reason);

        if (r == 0)
                r = buf_append_html(buf, slice_from(message));
        if (r == 0)
                r = buf_printf(buf, "</p><p><small>Request %s</small></p></body></html>\n",
                        answer->request_id);
        return r;
}

static int write_head(Buf *buf, const ErrorAnswer *answer, bool html, size_t len)
{
        int r = http_write_status(buf, answer->status);

        if (r == 0)
                r = buf_printf(buf,
                        "Content-Type: %s; charset=utf-8\r\nContent-Length: %zu\r\nDate: %s\r\n"
                        "Server: durabled\r\nCache-Control: no-store\r\nX-Request-Id: %s\r\n",
                        html ? "text/html" : "application/json", len, answer->date,
                        answer->request_id);
        if (r == 0 && answer->retry_after > 0)
                r = buf_printf(buf, "Retry-After: %u\r\n", answer->retry_after);
        if (r == 0 && answer->internal_abort)
                r = buf_append_string(buf, "X-Durabled-Abort: 1\r\n");
        if (r == 0 && answer->close)
                r = buf_append_string(buf, "Connection: close\r\n");
        else if (r == 0 && answer->keep_alive_10)
                r = buf_append_string(buf, "Connection: keep-alive\r\n");
        if (r == 0)
                r = http_write_head_end(buf);
        return r;
}

int error_write(Buf *buf, const ErrorAnswer *answer)
{
        const char *message =
                answer->message ? answer->message : http_status_reason(answer->status);
        bool html = !answer->internal_abort && error_wants_html(answer->accept);
        _cleanup_(buf_done) Buf body = BUF_INIT(65536);
        int r = 0;

        if (answer->internal_abort)
                r = buf_append_string(&body, message);
        else
                r = html ? write_html(&body, answer, message) : write_json(&body, answer, message);
        if (r == 0)
                r = write_head(buf, answer, html, body.len);
        if (r == 0 && !answer->head_request)
                r = buf_append_slice(buf, buf_slice(&body));
        return r;
}
