/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/python/harness.h"

static void an_event_is_answered(void **state)
{
        Host host;

        host_start(&host, "test", 0);
        if (host.error)
                fail_msg("%s", host.error);
        assert_answer(&host, "/hello", 200, "hello");
        assert_answer(&host, "/hello", 200, "hello");
        host_stop(&host);
}

static void what_cannot_be_loaded_says_why(void **state)
{
        Host host;

        host_start(&host, "broken", 0);
        assert_non_null(host.error);
        assert_non_null(strstr(host.error, "Traceback"));
        assert_non_null(strstr(host.error, "RuntimeError: the app cannot be loaded"));
        host_stop(&host);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_event_is_answered),
                cmocka_unit_test(what_cannot_be_loaded_says_why),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
