/* SPDX-License-Identifier: Apache-2.0 */

#include "daemon/host/control.h"
#include "lib/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SMALL_CLIENTS 3

/* A server without a socket file, and our ends of its clients. */
typedef struct Fixture {
        Ring *ring;
        Control *control;
        ControlCall *held; /* of Hold(): answered by the test */
        unsigned n_calls, n_gone;
} Fixture;

static void method_echo(ControlCall *call, json_t *parameters, void *data)
{
        ((Fixture *)data)->n_calls++;
        control_reply(call, parameters);
}

static void on_gone(void *data)
{
        ((Fixture *)data)->n_gone++;
}

static void method_hold(ControlCall *call, json_t *parameters, void *data)
{
        ((Fixture *)data)->n_calls++;
        ((Fixture *)data)->held = call;
        control_on_gone(call, on_gone, data);
}

static void method_big(ControlCall *call, json_t *parameters, void *data)
{
        _cleanup_(free_p) char *text = malloc(1u << 20);
        _cleanup_(json_decref_p) json_t *answer = NULL;

        memset(text, 'x', 1u << 20);
        answer = json_pack("{s:s%}", "text", text, (size_t)1 << 20);
        control_reply(call, answer);
}

static void method_file(ControlCall *call, json_t *parameters, void *data)
{
        int pair[2];

        assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
        assert_int_equal(write(pair[1], "file", 4), 4);
        close(pair[1]);
        control_reply_fd(call, parameters, pair[0]);
}

static const ControlMethod methods[] = {
        { "File", method_file },
        { "Echo", method_echo },
        { "Hold", method_hold },
        { "Big", method_big },
};

static const ControlInterface interfaces[] = {
        { "io.test.One", "interface io.test.One\n", methods, ELEMENTSOF(methods) },
};

static int fixture_open(void **state)
{
        Fixture *fixture = calloc(1, sizeof(*fixture));
        ControlOptions options = {
                .interfaces = interfaces,
                .n_interfaces = ELEMENTSOF(interfaces),
                .clients_max = SMALL_CLIENTS,
                .data = fixture,
        };

        assert_int_equal(
                ring_new(&(RingOptions){ .entries = 16, .n_buffers = 4 }, &fixture->ring), 0);
        options.ring = fixture->ring;
        assert_int_equal(control_open(&options, &fixture->control), 0);
        *state = fixture;
        return 0;
}

static int fixture_close(void **state)
{
        Fixture *fixture = *state;

        control_close(fixture->control);
        ring_free(fixture->ring);
        free(fixture);
        return 0;
}

static int add_client(Fixture *fixture)
{
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(control_add(fixture->control, pair[0]), 0);
        return pair[1];
}

static void client_send(int fd, const char *text, size_t len)
{
        assert_int_equal(send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT), (ssize_t)len);
}

static void client_call(int fd, const char *method, json_t *parameters)
{
        _cleanup_(buf_done) Buf buf = BUF_INIT(0);

        assert_int_equal(varlink_write_call(&buf, method, parameters, false), 0);
        client_send(fd, buf_data(&buf), buf.len);
        json_decref(parameters);
}

/* Runs the server until nothing more comes in 50 ms. */
static void settle(Fixture *fixture)
{
        for (unsigned i = 0; i < 10; i++)
                assert_int_equal(ring_run_once(fixture->ring, 5 * NSEC_PER_MSEC), 0);
}

/* The next reply, while the server runs; false: the server has closed. */
static bool client_receive(Fixture *fixture, int fd, Buf *rest, VarlinkReply *ret)
{
        for (unsigned tries = 0; tries < 2000; tries++) {
                char *room;
                ssize_t n;

                if (varlink_take_reply(rest, ret) == 0)
                        return true;
                assert_int_equal(ring_run_once(fixture->ring, NSEC_PER_MSEC), 0);
                assert_int_equal(buf_reserve(rest, 65536, &room), 0);
                n = recv(fd, room, 65536, MSG_DONTWAIT);
                if (n == 0 || (n < 0 && errno == ECONNRESET))
                        return false;
                if (n > 0)
                        buf_commit(rest, (size_t)n);
        }
        fail_msg("no answer");
        return false;
}

static void expect_echo(Fixture *fixture, int fd, Buf *rest, int number)
{
        VarlinkReply reply;

        assert_true(client_receive(fixture, fd, rest, &reply));
        assert_null(reply.error);
        assert_int_equal(json_integer_value(json_object_get(reply.parameters, "n")), number);
        varlink_reply_done(&reply);
}

static void expect_error(
        Fixture *fixture, int fd, Buf *rest, const char *error, const char *key, const char *value)
{
        VarlinkReply reply;

        assert_true(client_receive(fixture, fd, rest, &reply));
        assert_string_equal(reply.error, error);
        assert_string_equal(json_string_value(json_object_get(reply.parameters, key)), value);
        varlink_reply_done(&reply);
}

static void calls_are_answered_in_their_order(void **state)
{
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);
        Fixture *fixture = *state;
        int fd = add_client(fixture);

        for (int i = 0; i < 100; i++)
                client_call(fd, "io.test.One.Echo", json_pack("{s:i}", "n", i));
        for (int i = 0; i < 100; i++)
                expect_echo(fixture, fd, &rest, i);
        close(fd);
}

/* Reads some bytes and the descriptor that comes with them, or -1. */
static ssize_t receive_with_fd(int from, char *to, size_t len, int *ret_fd)
{
        char control[CMSG_SPACE(sizeof(int))] __attribute__((__aligned__(8))) = { 0 };
        struct iovec vector = { to, len };
        struct msghdr message = { .msg_iov = &vector,
                .msg_iovlen = 1,
                .msg_control = control,
                .msg_controllen = sizeof(control) };
        ssize_t n = recvmsg(from, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        *ret_fd = -1;
        if (n > 0 && CMSG_FIRSTHDR(&message))
                memcpy(ret_fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
        return n;
}

static void a_descriptor_goes_with_its_answer_alone(void **state)
{
        Fixture *fixture = *state;
        int lowest = dup(0), fd, received;
        char text[256];

        close(lowest);
        fd = add_client(fixture);
        client_call(fd, "io.test.One.File", json_pack("{s:i}", "n", 1));
        client_call(fd, "io.test.One.Echo", json_pack("{s:i}", "n", 2));
        settle(fixture);
        /* The receive ends where the descriptor does: before the next answer. */
        assert_true(receive_with_fd(fd, text, sizeof(text), &received) > 0);
        assert_non_null(strstr(text, "1"));
        assert_true(received >= 0);
        assert_int_equal(read(received, text, sizeof(text)), 4);
        close(received);
        settle(fixture);
        assert_true(receive_with_fd(fd, text, sizeof(text), &received) > 0);
        assert_int_equal(received, -1);
        /* One whose client has gone is closed. */
        client_call(fd, "io.test.One.File", json_pack("{s:i}", "n", 3));
        close(fd);
        settle(fixture);
        assert_int_equal(dup(0), lowest);
        close(lowest);
}

static void a_call_may_come_byte_by_byte(void **state)
{
        static const char text[] = "{\"method\":\"io.test.One.Echo\",\"parameters\":{\"n\":7}}";
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);
        Fixture *fixture = *state;
        int fd = add_client(fixture);

        for (size_t i = 0; i < sizeof(text); i++) {
                assert_int_equal(fixture->n_calls, 0);
                client_send(fd, text + i, 1);
                assert_int_equal(ring_run_once(fixture->ring, NSEC_PER_MSEC), 0);
        }
        expect_echo(fixture, fd, &rest, 7);
        close(fd);
}

static void the_next_call_waits_for_the_answer_before_it(void **state)
{
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);
        Fixture *fixture = *state;
        int fd = add_client(fixture);
        json_t *answer = json_pack("{s:i}", "n", 1);

        client_call(fd, "io.test.One.Hold", NULL);
        client_call(fd, "io.test.One.Echo", json_pack("{s:i}", "n", 2));
        settle(fixture);
        assert_int_equal(fixture->n_calls, 1);
        control_reply(fixture->held, answer);
        expect_echo(fixture, fd, &rest, 1);
        expect_echo(fixture, fd, &rest, 2);
        json_decref(answer);
        close(fd);
}

static void a_call_may_be_answered_after_its_client_has_gone(void **state)
{
        Fixture *fixture = *state;
        int fd = add_client(fixture), other;
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);

        client_call(fd, "io.test.One.Hold", NULL);
        settle(fixture);
        assert_int_equal(fixture->n_gone, 0);
        close(fd);
        settle(fixture);
        assert_int_equal(fixture->n_gone, 1);
        control_reply(fixture->held, NULL);
        settle(fixture);
        assert_int_equal(fixture->n_gone, 1);
        other = add_client(fixture);
        client_call(other, "io.test.One.Echo", json_pack("{s:i}", "n", 3));
        expect_echo(fixture, other, &rest, 3);
        close(other);
}

static void who_has_ended_its_side_alone_still_waits(void **state)
{
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);
        Fixture *fixture = *state;
        int fd = add_client(fixture);
        json_t *answer = json_pack("{s:i}", "n", 4);

        client_call(fd, "io.test.One.Hold", NULL);
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        settle(fixture);
        settle(fixture);
        assert_int_equal(fixture->n_gone, 0);
        control_reply(fixture->held, answer);
        expect_echo(fixture, fd, &rest, 4);
        assert_int_equal(fixture->n_gone, 0);
        json_decref(answer);
        close(fd);
}

static void a_call_may_be_answered_after_the_server_has_closed(void **state)
{
        Fixture *fixture = *state;
        int fd = add_client(fixture);

        client_call(fd, "io.test.One.Hold", NULL);
        settle(fixture);
        fixture->control = control_close(fixture->control);
        control_reply(fixture->held, NULL);
        close(fd);
        fixture_close(state);
        assert_int_equal(fixture_open(state), 0);
}

static void a_oneway_call_gets_no_answer(void **state)
{
        static const char text[] = "{\"method\":\"io.test.One.Echo\",\"oneway\":true}";
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);
        Fixture *fixture = *state;
        int fd = add_client(fixture);

        client_send(fd, text, sizeof(text));
        client_call(fd, "io.test.One.Echo", json_pack("{s:i}", "n", 4));
        expect_echo(fixture, fd, &rest, 4);
        assert_int_equal(fixture->n_calls, 2);
        close(fd);
}

static void unknown_names_are_named(void **state)
{
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);
        Fixture *fixture = *state;
        int fd = add_client(fixture);

        client_call(fd, "io.test.One.Nope", NULL);
        expect_error(fixture, fd, &rest, "org.varlink.service.MethodNotFound", "method",
                "io.test.One.Nope");
        client_call(fd, "io.test.Two.Echo", NULL);
        expect_error(fixture, fd, &rest, "org.varlink.service.InterfaceNotFound", "interface",
                "io.test.Two");
        client_call(fd, "org.varlink.service.GetInterfaceDescription", NULL);
        expect_error(fixture, fd, &rest, "org.varlink.service.InvalidParameter", "parameter",
                "interface");
        close(fd);
}

static void a_reader_that_is_slow_gets_all_of_a_long_answer(void **state)
{
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);
        Fixture *fixture = *state;
        int fd = add_client(fixture);
        VarlinkReply reply;

        client_call(fd, "io.test.One.Big", NULL);
        client_call(fd, "io.test.One.Echo", json_pack("{s:i}", "n", 5));
        settle(fixture); /* the socket's buffer is full now */
        assert_int_equal(fixture->n_calls, 0);
        assert_true(client_receive(fixture, fd, &rest, &reply));
        assert_int_equal(json_string_length(json_object_get(reply.parameters, "text")), 1u << 20);
        varlink_reply_done(&reply);
        expect_echo(fixture, fd, &rest, 5);
        close(fd);
}

static void a_reader_that_leaves_a_long_answer_harms_nobody(void **state)
{
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);
        Fixture *fixture = *state;
        int fd = add_client(fixture), other = add_client(fixture);

        client_call(fd, "io.test.One.Big", NULL);
        settle(fixture);
        close(fd);
        client_call(other, "io.test.One.Echo", json_pack("{s:i}", "n", 6));
        expect_echo(fixture, other, &rest, 6);
        close(other);
}

static void nonsense_and_endless_calls_close_their_client(void **state)
{
        static const char *const nonsense[] = { "hello", "[]", "{}", "{\"method\":1}" };
        static char endless[CONTROL_INPUT_MAX + 8192];
        Fixture *fixture = *state;

        for (size_t i = 0; i <= ELEMENTSOF(nonsense); i++) {
                _cleanup_(buf_done) Buf rest = BUF_INIT(0);
                int fd = add_client(fixture);
                VarlinkReply reply;

                if (i < ELEMENTSOF(nonsense)) {
                        client_send(fd, nonsense[i], strlen(nonsense[i]) + 1);
                } else {
                        memset(endless, ' ', sizeof(endless));
                        client_send(fd, endless, sizeof(endless));
                }
                assert_false(client_receive(fixture, fd, &rest, &reply));
                close(fd);
        }
}

static void clients_beyond_the_limit_are_refused(void **state)
{
        int fds[SMALL_CLIENTS], pair[2];
        Fixture *fixture = *state;

        for (unsigned i = 0; i < SMALL_CLIENTS; i++)
                fds[i] = add_client(fixture);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(control_add(fixture->control, pair[0]), -EUSERS);
        close(fds[0]);
        settle(fixture);
        assert_int_equal(control_add(fixture->control, pair[0]), 0);
        close(pair[1]);
        for (unsigned i = 1; i < SMALL_CLIENTS; i++)
                close(fds[i]);
        settle(fixture);
}

/* The peer of a socketpair is whoever we were when we made it. */
static void another_user_is_refused(void **state)
{
        _cleanup_(buf_done) Buf rest = BUF_INIT(0);
        Fixture *fixture = *state;
        int pair[2], fd, r;
        VarlinkReply reply;

        if (geteuid() != 0) {
                print_message("# skipped: only root can become another user\n");
                skip();
        }
        assert_int_equal(setegid(65534), 0);
        assert_int_equal(seteuid(65534), 0);
        r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(setegid(0), 0);
        assert_int_equal(r, 0);
        assert_int_equal(control_add(fixture->control, pair[0]), 0);
        fd = pair[1];
        client_call(fd, "io.test.One.Echo", NULL);
        assert_true(client_receive(fixture, fd, &rest, &reply));
        assert_string_equal(reply.error, "org.varlink.service.PermissionDenied");
        varlink_reply_done(&reply);
        assert_int_equal(fixture->n_calls, 0);
        close(fd);
}

static int listen_at(const char *path)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        assert_true(fd >= 0);
        assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 4), 0);
        return fd;
}

/* As after a kill, when the kernel or a child that was forked just then holds the socket. */
static void a_socket_whose_process_is_gone_is_replaced(void **state)
{
        Fixture *fixture = *state;
        char folder[] = "/tmp/durabled-control-XXXXXX", path[64];
        ControlOptions options = { .ring = fixture->ring, .path = path };
        Control *control = NULL;
        int pair[2], fd, status;
        pid_t pid;

        assert_non_null(mkdtemp(folder));
        snprintf(path, sizeof(path), "%s/control", folder);
        assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                (void)listen_at(path);
                close(pair[1]);
                if (fork() == 0)
                        (void)!read(pair[0], &status, 1);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(control_open(&options, &control), 0);
        control_close(control);
        close(pair[0]);
        close(pair[1]);
        fd = listen_at(path);
        assert_int_equal(control_open(&options, &control), -EADDRINUSE);
        close(fd);
        assert_int_equal(control_open(&options, &control), 0);
        control_close(control);
        assert_int_equal(rmdir(folder), 0);
}

#define test_with_server(_function) \
        cmocka_unit_test_setup_teardown(_function, fixture_open, fixture_close)

int main(void)
{
        const struct CMUnitTest tests[] = {
                test_with_server(calls_are_answered_in_their_order),
                test_with_server(a_descriptor_goes_with_its_answer_alone),
                test_with_server(a_call_may_come_byte_by_byte),
                test_with_server(the_next_call_waits_for_the_answer_before_it),
                test_with_server(a_call_may_be_answered_after_its_client_has_gone),
                test_with_server(who_has_ended_its_side_alone_still_waits),
                test_with_server(a_call_may_be_answered_after_the_server_has_closed),
                test_with_server(a_oneway_call_gets_no_answer),
                test_with_server(unknown_names_are_named),
                test_with_server(a_reader_that_is_slow_gets_all_of_a_long_answer),
                test_with_server(a_reader_that_leaves_a_long_answer_harms_nobody),
                test_with_server(nonsense_and_endless_calls_close_their_client),
                test_with_server(clients_beyond_the_limit_are_refused),
                test_with_server(another_user_is_refused),
                test_with_server(a_socket_whose_process_is_gone_is_replaced),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
