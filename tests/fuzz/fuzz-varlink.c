/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Varlink: messages are the same whole and byte by byte, and come back as they were written
 *
 * Input: a stream, read once as calls and once as replies.
 */

#include "lib/wire/varlink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_call(const VarlinkCall *call)
{
        Buf buf = BUF_INIT(0);
        VarlinkCall again;

        dd_assert(varlink_write_call(&buf, call->method, call->parameters, call->more) == 0);
        dd_assert(varlink_take_call(&buf, &again) == 0 && buf.len == 0);
        dd_assert(strcmp(call->method, again.method) == 0 && call->more == again.more);
        varlink_call_done(&again);
        buf_done(&buf);
}

static void check_reply(const VarlinkReply *reply)
{
        Buf buf = BUF_INIT(0);
        VarlinkReply again;

        if (reply->error)
                dd_assert(varlink_write_error(&buf, reply->error, reply->parameters) == 0);
        else
                dd_assert(varlink_write_reply(&buf, reply->parameters, reply->continues) == 0);
        dd_assert(varlink_take_reply(&buf, &again) == 0 && buf.len == 0);
        dd_assert(!reply->error == !again.error && reply->continues == again.continues);
        varlink_reply_done(&again);
        buf_done(&buf);
}

static int take_one(Buf *buf, bool calls)
{
        VarlinkReply reply;
        VarlinkCall call;
        int r;

        if (calls) {
                r = varlink_take_call(buf, &call);
                if (!r) {
                        check_call(&call);
                        varlink_call_done(&call);
                }
                return r;
        }
        r = varlink_take_reply(buf, &reply);
        if (!r) {
                check_reply(&reply);
                varlink_reply_done(&reply);
        }
        return r;
}

/* The verdicts of the messages of a stream that comes in pieces of this size, one character each.
 */
static void read_stream(Slice stream, size_t piece, bool calls, Buf *verdicts)
{
        Buf buf = BUF_INIT(0);
        int r;

        while (stream.len) {
                Slice part = slice_head(stream, piece);

                dd_assert(buf_append_slice(&buf, part) == 0);
                stream = slice_skip(stream, part.len);
                while ((r = take_one(&buf, calls)) != VARLINK_E_MORE) {
                        dd_assert(r == 0 || r == VARLINK_E_MALFORMED);
                        dd_assert(buf_append_char(verdicts, (char)('0' + r)) == 0);
                }
                dd_assert(buf.len == 0 || !memchr(buf_data(&buf), '\0', buf.len));
        }
        buf_done(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        for (int calls = 0; calls < 2; calls++) {
                Buf whole = BUF_INIT(0), pieces = BUF_INIT(0);

                read_stream(slice_of(data, size), size, calls, &whole);
                read_stream(slice_of(data, size), 1, calls, &pieces);
                dd_assert(slice_equal(buf_slice(&whole), buf_slice(&pieces)));
                buf_done(&whole);
                buf_done(&pieces);
        }
        return 0;
}
