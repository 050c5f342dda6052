/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void addresses_are_read_and_written(void **state)
{
        static const char *const good[] = { "127.0.0.1:8787", "0.0.0.0:0", "[::1]:65535",
                "[::]:80" };
        struct sockaddr_storage address;
        char text[80];
        socklen_t len;

        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                assert_true(listener_parse_address(good[i], &address, &len));
                listener_format_address(&address, text, sizeof(text));
                assert_string_equal(text, good[i]);
        }
}

static void what_is_no_address_is_refused(void **state)
{
        static const char *const bad[] = { "", "8787", ":8787", "127.0.0.1",
                "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "localhost:80", "::1:80", "[::1]",
                "[::1:80", "[]:80", "127.0.0.1:80x", "[127.0.0.1]:80" };
        struct sockaddr_storage address;
        socklen_t len;

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_false(listener_parse_address(bad[i], &address, &len));
}

static void a_prefix_is_a_network_of_64_bits(void **state)
{
        static const char *const bad[] = { "", "fd00:1::", "fd00:1::/48", "fd00:1::1/64", "::/64",
                "10.0.0.0/64", "fd00:1::/640" };
        uint8_t prefix[16];

        assert_true(listener_parse_prefix("fd00:1::/64", prefix));
        assert_int_equal(prefix[0], 0xfd);
        assert_int_equal(prefix[3], 1);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_false(listener_parse_prefix(bad[i], prefix));
}

static void one_socket_a_slot_on_one_drawn_port(void **state)
{
        const char *const listen[] = { "127.0.0.1:0" };
        ListenerOptions options = {
                .listen = listen, .n_listen = 1, .n_slots = 3, .object_addresses = true
        };
        Listener *listener = NULL;
        ListenerError error = { 0 };
        char expected[80];

        assert_int_equal(listener_open(&options, &listener, &error), 0);
        assert_int_equal(listener->n_groups, 2);
        assert_true(listener->port != 0 && listener->ipv4 && !listener->ipv6);
        snprintf(expected, sizeof(expected), "127.0.0.1:%u", listener->port);
        assert_string_equal(listener->groups[0].name, expected);
        snprintf(expected, sizeof(expected), "0.0.0.0:%u", listener->port);
        assert_string_equal(listener->groups[1].name, expected);
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(listener->groups[i].n_fds, 3);
                for (size_t j = 0; j < 3; j++) {
                        struct sockaddr_in own;
                        socklen_t len = sizeof(own);

                        assert_int_equal(getsockname(listener->groups[i].fds[j],
                                                 (struct sockaddr *)&own, &len),
                                0);
                        assert_int_equal(ntohs(own.sin_port), listener->port);
                }
        }
        listener_close(listener);
}

static void a_wildcard_serves_object_addresses_by_itself(void **state)
{
        const char *const listen[] = { "0.0.0.0:0" };
        ListenerOptions options = {
                .listen = listen, .n_listen = 1, .n_slots = 1, .object_addresses = true
        };
        Listener *listener = NULL;
        ListenerError error = { 0 };

        assert_int_equal(listener_open(&options, &listener, &error), 0);
        assert_int_equal(listener->n_groups, 1);
        assert_true(listener->ipv4);
        listener_close(listener);
}

static void a_port_in_use_is_named_with_its_remedy(void **state)
{
        struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr = { htonl(0x7f000001) } };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        socklen_t len = sizeof(own);
        char text[80];
        const char *const listen_on[] = { "127.0.0.1:0", text };
        ListenerOptions options = { .listen = listen_on, .n_listen = 2, .n_slots = 2 };
        Listener *listener = NULL;
        ListenerError error = { 0 };

        assert_true(fd >= 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
        assert_int_equal(listen(fd, 1), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &len), 0);
        snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(own.sin_port));
        assert_int_equal(listener_open(&options, &listener, &error), LISTENER_E_BIND);
        assert_null(listener);
        assert_non_null(strstr(error.message, text));
        assert_non_null(strstr(error.message, "another process listens there"));
        close(fd);
}

static void an_address_of_another_machine_is_named(void **state)
{
        const char *const listen[] = { "192.0.2.77:8080" };
        ListenerOptions options = { .listen = listen, .n_listen = 1, .n_slots = 1 };
        Listener *listener = NULL;
        ListenerError error = { 0 };

        assert_int_equal(listener_open(&options, &listener, &error), LISTENER_E_BIND);
        assert_non_null(strstr(error.message, "192.0.2.77:8080"));
        assert_non_null(strstr(error.message, "no such address"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(addresses_are_read_and_written),
                cmocka_unit_test(what_is_no_address_is_refused),
                cmocka_unit_test(a_prefix_is_a_network_of_64_bits),
                cmocka_unit_test(one_socket_a_slot_on_one_drawn_port),
                cmocka_unit_test(a_wildcard_serves_object_addresses_by_itself),
                cmocka_unit_test(a_port_in_use_is_named_with_its_remedy),
                cmocka_unit_test(an_address_of_another_machine_is_named),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
