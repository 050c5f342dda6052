/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/varlink.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static Buf make_buf(Slice data)
{
        Buf buf = BUF_INIT(0);

        assert_int_equal(buf_append_slice(&buf, data), 0);
        return buf;
}

static void a_call_is_read_as_it_was_written(void **state)
{
        _cleanup_(json_decref_p) json_t *parameters =
                json_pack("{s:s, s:i}", "name", "x\"\\", "n", 7);
        Buf buf = BUF_INIT(0);
        VarlinkCall call;

        assert_int_equal(varlink_write_call(&buf, "io.durabled.Objects.List", parameters, true), 0);
        assert_int_equal(buf_data(&buf)[buf.len - 1], '\0');
        assert_int_equal(varlink_write_call(&buf, "io.durabled.Manager.Status", NULL, false), 0);
        assert_int_equal(varlink_take_call(&buf, &call), 0);
        assert_string_equal(call.method, "io.durabled.Objects.List");
        assert_true(json_equal(call.parameters, parameters));
        assert_true(call.more);
        assert_false(call.oneway);
        varlink_call_done(&call);
        assert_int_equal(varlink_take_call(&buf, &call), 0);
        assert_string_equal(call.method, "io.durabled.Manager.Status");
        assert_int_equal(json_object_size(call.parameters), 0);
        assert_false(call.more);
        varlink_call_done(&call);
        assert_int_equal(buf.len, 0);
        assert_int_equal(varlink_take_call(&buf, &call), VARLINK_E_MORE);
        buf_done(&buf);
}

static void replies_and_errors_are_read_as_they_were_written(void **state)
{
        _cleanup_(json_decref_p) json_t *parameters = json_pack("{s:b}", "done", 0);
        Buf buf = BUF_INIT(0);
        VarlinkReply reply;

        assert_int_equal(varlink_write_reply(&buf, parameters, true), 0);
        assert_int_equal(varlink_write_reply(&buf, NULL, false), 0);
        assert_int_equal(varlink_write_error(&buf, "io.durabled.Apps.NotFound", parameters), 0);
        assert_int_equal(varlink_take_reply(&buf, &reply), 0);
        assert_null(reply.error);
        assert_true(reply.continues);
        assert_true(json_equal(reply.parameters, parameters));
        varlink_reply_done(&reply);
        assert_int_equal(varlink_take_reply(&buf, &reply), 0);
        assert_false(reply.continues);
        assert_int_equal(json_object_size(reply.parameters), 0);
        varlink_reply_done(&reply);
        assert_int_equal(varlink_take_reply(&buf, &reply), 0);
        assert_string_equal(reply.error, "io.durabled.Apps.NotFound");
        varlink_reply_done(&reply);
        buf_done(&buf);
}

static void the_bytes_are_those_of_the_specification(void **state)
{
        _cleanup_(json_decref_p) json_t *parameters = json_pack("{s:i}", "number", 1);
        Buf buf = BUF_INIT(0);

        assert_int_equal(varlink_write_call(
                                 &buf, "org.example.ftl.CalculateConfiguration", parameters, false),
                0);
        assert_true(slice_equal(
                buf_slice(&buf), SLICE("{\"method\":\"org.example.ftl.CalculateConfiguration\","
                                       "\"parameters\":{\"number\":1}}\0")));
        buf_clear(&buf);
        assert_int_equal(varlink_write_reply(&buf, NULL, false), 0);
        assert_true(slice_equal(buf_slice(&buf), SLICE("{}\0")));
        buf_done(&buf);
}

static void a_message_in_pieces_waits_for_its_end(void **state)
{
        Slice text = SLICE("{\"method\":\"a.B\",\"oneway\":true}\0");
        Buf buf = BUF_INIT(0);
        VarlinkCall call;

        for (size_t i = 0; i < text.len; i++) {
                assert_int_equal(varlink_take_call(&buf, &call), VARLINK_E_MORE);
                assert_int_equal(buf_append_char(&buf, text.data[i]), 0);
        }
        assert_int_equal(varlink_take_call(&buf, &call), 0);
        assert_true(call.oneway);
        varlink_call_done(&call);
        buf_done(&buf);
}

static void what_is_no_call_is_refused_and_taken_out(void **state)
{
        static const char *const bad[] = { "", "[]", "7", "{", "{}", "{\"method\":1}",
                "{\"method\":\"plain\"}", "{\"method\":\"a..b\"}", "{\"method\":\".a\"}",
                "{\"method\":\"a.\"}", "{\"method\":\"a b.c\"}", "{\"method\":\"a.B\",\"more\":1}",
                "{\"method\":\"a.B\",\"parameters\":[]}",
                "{\"method\":\"a.B\",\"more\":true,\"oneway\":true}",
                "{\"method\":\"a.B\",\"else\":1}", "{\"method\":\"a.B\",\"method\":\"a.C\"}",
                "{\"method\":\"a.B\\u0000\"}", "{\"method\":\"a.B\"} x", "{\"method\":\"a.\xff\"}",
                "// c\n{\"method\":\"a.B\"}" };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                Buf buf = make_buf(slice_of(bad[i], strlen(bad[i]) + 1));
                VarlinkCall call;

                assert_int_equal(buf_append(&buf, "{\"method\":\"a.B\"}", 17), 0);
                if (varlink_take_call(&buf, &call) != VARLINK_E_MALFORMED)
                        fail_msg("accepted: %s", bad[i]);
                assert_int_equal(varlink_take_call(&buf, &call), 0);
                varlink_call_done(&call);
                buf_done(&buf);
        }
}

static void what_is_no_reply_is_refused(void **state)
{
        static const char *const bad[] = { "[]", "{\"error\":1}", "{\"error\":\"plain\"}",
                "{\"error\":null}", "{\"continues\":1}", "{\"parameters\":1}",
                "{\"error\":\"a.B\",\"continues\":true}", "{\"method\":\"a.B\"}" };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                Buf buf = make_buf(slice_of(bad[i], strlen(bad[i]) + 1));
                VarlinkReply reply;

                if (varlink_take_reply(&buf, &reply) != VARLINK_E_MALFORMED)
                        fail_msg("accepted: %s", bad[i]);
                buf_done(&buf);
        }
}

static void null_parameters_are_none(void **state)
{
        Buf buf = make_buf(SLICE("{\"method\":\"a.B\",\"parameters\":null}\0"));
        VarlinkCall call;

        assert_int_equal(varlink_take_call(&buf, &call), 0);
        assert_true(json_is_object(call.parameters));
        varlink_call_done(&call);
        buf_done(&buf);
}

static void a_message_beyond_the_limit_is_refused_before_its_end_has_come(void **state)
{
        Buf buf = BUF_INIT(0);
        VarlinkCall call;
        char *to;

        assert_int_equal(buf_reserve(&buf, VARLINK_MESSAGE_MAX + 1, &to), 0);
        memset(to, ' ', VARLINK_MESSAGE_MAX + 1);
        buf_commit(&buf, VARLINK_MESSAGE_MAX);
        assert_int_equal(varlink_take_call(&buf, &call), VARLINK_E_MORE);
        to[VARLINK_MESSAGE_MAX] = ' ';
        buf_commit(&buf, 1);
        assert_int_equal(varlink_take_call(&buf, &call), VARLINK_E_TOO_LARGE);
        buf_done(&buf);
}

static void a_message_that_does_not_fit_leaves_the_buffer_alone(void **state)
{
        Buf buf = BUF_INIT(20);

        assert_int_equal(buf_append_string(&buf, "abc"), 0);
        assert_int_equal(
                varlink_write_call(&buf, "io.durabled.Manager.Status", NULL, false), -ENOBUFS);
        assert_true(slice_equal(buf_slice(&buf), SLICE("abc")));
        buf_done(&buf);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_call_is_read_as_it_was_written),
                cmocka_unit_test(replies_and_errors_are_read_as_they_were_written),
                cmocka_unit_test(the_bytes_are_those_of_the_specification),
                cmocka_unit_test(a_message_in_pieces_waits_for_its_end),
                cmocka_unit_test(what_is_no_call_is_refused_and_taken_out),
                cmocka_unit_test(what_is_no_reply_is_refused),
                cmocka_unit_test(null_parameters_are_none),
                cmocka_unit_test(a_message_beyond_the_limit_is_refused_before_its_end_has_come),
                cmocka_unit_test(a_message_that_does_not_fit_leaves_the_buffer_alone),
        };

        return cmocka_run_group_tests_name("wire/varlink", tests, NULL, NULL);
}
