/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/core/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

typedef struct Pair {
        int fds[2];
} Pair;

static int pair_new(void **state)
{
        Pair *pair = malloc(sizeof *pair);

        *state = pair;
        return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair->fds);
}

static int pair_free(void **state)
{
        Pair *pair = *state;

        close_p(&pair->fds[0]);
        close_p(&pair->fds[1]);
        free(pair);
        return 0;
}

static size_t count_fds(void)
{
        size_t n = 0;

        for (int fd = 0; fd < 1024; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

static void a_message_arrives_whole_with_its_descriptors_in_order(void **state)
{
        Pair *pair = *state;
        _cleanup_(json_decref_p) json_t *message =
                json_pack("{s:s, s:[s, s]}", "type", "boot", "fds", "a", "b");
        _cleanup_(json_decref_p) json_t *got = NULL;
        int pipe_fds[2], fds[2] = { -1, -1 };
        size_t n_fds = 0;
        char c = 0;

        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        assert_int_equal(boot_send(pair->fds[0], message, pipe_fds, 2), 0);
        assert_int_equal(boot_wait(pair->fds[1], 1000), 0);
        assert_int_equal(boot_receive(pair->fds[1], &got, fds, 2, &n_fds), 0);
        assert_int_equal(n_fds, 2);
        assert_true(json_equal(message, got));
        assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
        assert_int_equal(write(fds[1], "x", 1), 1);
        assert_int_equal(read(fds[0], &c, 1), 1);
        assert_int_equal(c, 'x');
        /* The sender keeps its own. */
        assert_true(fcntl(pipe_fds[0], F_GETFD) >= 0);
        for (int i = 0; i < 2; i++) {
                close(pipe_fds[i]);
                close(fds[i]);
        }
}

static void all_descriptors_that_are_allowed_fit(void **state)
{
        Pair *pair = *state;
        _cleanup_(json_decref_p) json_t *message = json_object(), *got = NULL;
        int fds[BOOT_FDS_MAX + 1], got_fds[BOOT_FDS_MAX];
        size_t n_fds = 0, before = count_fds();

        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                fds[i] = STDERR_FILENO;
        assert_int_equal(boot_send(pair->fds[0], message, fds, BOOT_FDS_MAX + 1), -EMSGSIZE);
        assert_int_equal(boot_send(pair->fds[0], message, fds, BOOT_FDS_MAX), 0);
        assert_int_equal(boot_receive(pair->fds[1], &got, got_fds, BOOT_FDS_MAX, &n_fds), 0);
        assert_int_equal(n_fds, BOOT_FDS_MAX);
        for (size_t i = 0; i < n_fds; i++)
                close(got_fds[i]);
        assert_int_equal(count_fds(), before);
}

static void more_descriptors_than_wanted_are_closed_and_refused(void **state)
{
        Pair *pair = *state;
        _cleanup_(json_decref_p) json_t *message = json_pack("{s:i}", "n", 1);
        _cleanup_(json_decref_p) json_t *got = NULL;
        int fds[2] = { STDERR_FILENO, STDERR_FILENO }, got_fds[1] = { -1 };
        size_t n_fds = 77, before = count_fds();

        assert_int_equal(boot_send(pair->fds[0], message, fds, 2), 0);
        assert_int_equal(boot_send(pair->fds[0], message, fds, 1), 0);
        assert_int_equal(boot_send(pair->fds[0], message, NULL, 0), 0);
        assert_int_equal(boot_receive(pair->fds[1], &got, got_fds, 1, &n_fds), -EPROTO);
        assert_int_equal(boot_receive(pair->fds[1], &got, NULL, 0, &n_fds), -EPROTO);
        assert_null(got);
        assert_int_equal(got_fds[0], -1);
        assert_int_equal(n_fds, 77);
        assert_int_equal(count_fds(), before);
        assert_int_equal(boot_receive(pair->fds[1], &got, NULL, 0, &n_fds), 0);
        assert_int_equal(n_fds, 0);
}

static void what_is_no_json_object_is_refused_and_the_next_message_arrives(void **state)
{
        static const char *const texts[] = { "nonsense", "[1]", "{\"a\":", "{} {}", "\xff" };
        Pair *pair = *state;
        _cleanup_(json_decref_p) json_t *message = json_object(), *got = NULL;
        size_t n_fds = 0;

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                assert_true(send(pair->fds[0], texts[i], strlen(texts[i]), 0) > 0);
                assert_int_equal(boot_receive(pair->fds[1], &got, NULL, 0, &n_fds), -EPROTO);
        }
        assert_int_equal(boot_send(pair->fds[0], message, NULL, 0), 0);
        assert_int_equal(boot_receive(pair->fds[1], &got, NULL, 0, &n_fds), 0);
}

static json_t *message_of(size_t len)
{
        _cleanup_(free_p) char *text = malloc(len + 1);
        json_t *message;

        memset(text, 'x', len);
        text[len] = '\0';
        message = json_pack("{s:s}", "a", text);
        assert_non_null(message);
        return message;
}

static void the_largest_message_passes_and_a_larger_one_does_not(void **state)
{
        Pair *pair = *state;
        _cleanup_(json_decref_p) json_t *largest = message_of(BOOT_MESSAGE_MAX - 8);
        _cleanup_(json_decref_p) json_t *larger = message_of(BOOT_MESSAGE_MAX - 7);
        _cleanup_(json_decref_p) json_t *got = NULL;
        _cleanup_(free_p) char *raw = malloc(BOOT_MESSAGE_MAX + 1);
        size_t n_fds = 0;

        assert_int_equal(boot_send(pair->fds[0], larger, NULL, 0), -EMSGSIZE);
        assert_int_equal(boot_send(pair->fds[0], largest, NULL, 0), 0);
        assert_int_equal(boot_receive(pair->fds[1], &got, NULL, 0, &n_fds), 0);
        assert_true(json_equal(largest, got));
        /* A peer that does not keep to the limit: its message would be cut. */
        memset(raw, ' ', BOOT_MESSAGE_MAX + 1);
        raw[0] = '{';
        raw[1] = '}';
        json_decref(TAKE_PTR(got));
        assert_true(send(pair->fds[0], raw, BOOT_MESSAGE_MAX + 1, 0) > 0);
        assert_int_equal(boot_receive(pair->fds[1], &got, NULL, 0, &n_fds), -EPROTO);
}

static void nothing_there_a_full_queue_and_the_end_are_told_apart(void **state)
{
        Pair *pair = *state;
        _cleanup_(json_decref_p) json_t *message = message_of(1000), *got = NULL;
        size_t n_fds = 0, sent = 0, received = 0;
        int r;

        assert_int_equal(boot_receive(pair->fds[1], &got, NULL, 0, &n_fds), -EAGAIN);
        assert_int_equal(boot_wait(pair->fds[1], 10), -ETIMEDOUT);
        while ((r = boot_send(pair->fds[0], message, NULL, 0)) == 0)
                sent++;
        assert_int_equal(r, -EAGAIN);
        assert_true(sent > 0);
        close_p(&pair->fds[0]);
        pair->fds[0] = -1;
        for (;;) {
                _cleanup_(json_decref_p) json_t *one = NULL;

                r = boot_receive(pair->fds[1], &one, NULL, 0, &n_fds);
                if (r)
                        break;
                received++;
        }
        assert_int_equal(r, -ECONNRESET);
        assert_int_equal(received, sent);
        assert_int_equal(boot_wait(pair->fds[1], 1000), 0);
        assert_int_equal(boot_send(pair->fds[1], message, NULL, 0), -EPIPE);
}

#define with_pair(_test) cmocka_unit_test_setup_teardown(_test, pair_new, pair_free)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                with_pair(a_message_arrives_whole_with_its_descriptors_in_order),
                with_pair(all_descriptors_that_are_allowed_fit),
                with_pair(more_descriptors_than_wanted_are_closed_and_refused),
                with_pair(what_is_no_json_object_is_refused_and_the_next_message_arrives),
                with_pair(the_largest_message_passes_and_a_larger_one_does_not),
                with_pair(nothing_there_a_full_queue_and_the_end_are_told_apart),
        };

        return cmocka_run_group_tests_name("boot", tests, NULL, NULL);
}
