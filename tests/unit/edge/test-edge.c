/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/edge/conn.h"
#include "daemon/edge/edge.h"
#include "lib/base/file.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include <cmocka.h>

/* Two edges of one ring, as two workers would be: slot 0 and slot 1. */
typedef struct Fixture {
        Ring *ring;
        Edge *edges[2];
        EdgeOptions options;
        int hand_off[2][2];
        unsigned port, served[2], finished, status, n_stopped;
        Response *kept; /* of a request for /keep */
        bool cancelled;
} Fixture;

static Fixture fixture;

static void route(void *data, const HttpHead *head, const EdgePeer *peer, EdgeDecision *ret)
{
        size_t slot = (size_t)data;

        ret->value[0] = 41;
        if (slice_has_prefix(head->path, SLICE("/other")) && slot == 0) {
                ret->action = EDGE_HAND_OFF;
                ret->slot = 1;
        }
}

static void on_cancel(Response *response, void *data)
{
        fixture.cancelled = true;
}

static int serve(void *data, const EdgeDecision *decision, const EdgePeer *peer, Request *request,
        Response **ret)
{
        static const ResponseProducer producer = { NULL, on_cancel };
        int r = response_new(ret);

        if (r < 0)
                return r;
        assert_int_equal(decision->value[0], 41);
        fixture.served[(size_t)data]++;
        if (slice_equal(request->path, SLICE("/keep"))) {
                fixture.kept = response_ref(*ret);
                response_set_producer(*ret, &producer, NULL);
        } else {
                response_finish_text(*ret, 200, "hello");
        }
        return 0;
}

static void finished(void *data, const EdgeDecision *decision, const Request *request,
        const Response *response, unsigned status)
{
        fixture.finished++;
        fixture.status = status;
}

static void add_headers(
        void *data, const EdgeDecision *decision, const Response *response, Buf *head)
{
        assert_int_equal(http_write_header(head, SLICE("X-Added"), SLICE("yes")), 0);
}

static int listen_somewhere(unsigned *ret_port)
{
        struct sockaddr_in address = { .sin_family = AF_INET };
        socklen_t len = sizeof address;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
        assert_int_equal(listen(fd, 64), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
        *ret_port = ntohs(address.sin_port);
        return fd;
}

static int setup(void **state)
{
        static const EdgeHandler handler = { route, serve, add_headers, finished };
        int r;

        fixture = (Fixture){ 0 };
        r = ring_new(NULL, &fixture.ring);
        if (r < 0)
                return r;
        fixture.options = (EdgeOptions){
                .ring = fixture.ring, .handler = &handler, .spool_directory = "/nowhere/at/all"
        };
        for (size_t i = 0; i < 2; i++) {
                fixture.options.handler_data = (void *)i;
                assert_int_equal(edge_new(&fixture.options, &fixture.edges[i]), 0);
        }
        r = listen_somewhere(&fixture.port);
        assert_int_equal(edge_listen(fixture.edges[0], r, EDGE_PUBLIC), 0);
        assert_int_equal(
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fixture.hand_off[1]), 0);
        assert_int_equal(edge_set_hand_off(fixture.edges[0], 1, dup(fixture.hand_off[1][0])), 0);
        assert_int_equal(edge_receive_hand_offs(fixture.edges[1], dup(fixture.hand_off[1][1])), 0);
        return 0;
}

static void on_stopped(void *data)
{
        fixture.n_stopped++;
}

static int teardown(void **state)
{
        uint64_t deadline = clock_monotonic_ns() + 2 * NSEC_PER_SEC;

        for (size_t i = 0; i < 2; i++)
                edge_stop(fixture.edges[i], deadline, on_stopped, NULL);
        while (fixture.n_stopped < 2 && clock_monotonic_ns() < deadline + NSEC_PER_SEC)
                assert_int_equal(ring_run_once(fixture.ring, 10 * NSEC_PER_MSEC), 0);
        assert_int_equal(fixture.n_stopped, 2);
        for (size_t i = 0; i < 2; i++) {
                edge_free(fixture.edges[i]);
                close(fixture.hand_off[1][i]);
        }
        response_unref(fixture.kept);
        ring_free(fixture.ring);
        return 0;
}

static int client_new(void)
{
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(fixture.port) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
        return fd;
}

static void client_send(int fd, const char *text)
{
        assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Runs the ring until the client can read; what one receive gives, NUL-terminated. */
static ssize_t client_receive(int fd, char *to, size_t size)
{
        uint64_t end = clock_monotonic_ns() + 3 * NSEC_PER_SEC;
        struct pollfd p = { fd, POLLIN, 0 };
        ssize_t n;

        while (poll(&p, 1, 0) == 0 && clock_monotonic_ns() < end)
                assert_int_equal(ring_run_once(fixture.ring, NSEC_PER_MSEC), 0);
        n = recv(fd, to, size - 1, MSG_DONTWAIT);
        to[n > 0 ? n : 0] = '\0';
        return n;
}

static void run_a_while(void)
{
        for (int i = 0; i < 20; i++)
                assert_int_equal(ring_run_once(fixture.ring, NSEC_PER_MSEC), 0);
}

static void a_small_answer_is_one_send_of_head_and_body(void **state)
{
        int fd = client_new();
        char answer[4096];

        client_send(fd, "GET / HTTP/1.1\r\nHost: e\r\n\r\n");
        assert_true(client_receive(fd, answer, sizeof answer) > 0);
        assert_non_null(strstr(answer, "HTTP/1.1 200 OK\r\n"));
        assert_non_null(strstr(answer, "X-Added: yes\r\n"));
        assert_non_null(strstr(answer, "\r\n\r\nhello"));
        run_a_while();
        assert_int_equal(fixture.finished, 1);
        assert_int_equal(fixture.status, 200);
        close(fd);
}

static void each_request_is_finished_once_also_when_its_client_goes_away(void **state)
{
        struct linger reset = { 1, 0 };
        int fd = client_new();
        EdgeStats stats;

        client_send(fd, "GET /keep HTTP/1.1\r\nHost: e\r\n\r\n");
        run_a_while();
        assert_non_null(fixture.kept);
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
        run_a_while();
        assert_true(fixture.cancelled);
        assert_int_equal(fixture.finished, 1);
        assert_int_equal(fixture.status, 0);
        edge_get_stats(fixture.edges[0], &stats);
        assert_int_equal(stats.connections, 0);
        /* The producer knows nothing of it, and goes on. */
        response_finish_text(fixture.kept, 200, "too late");
        run_a_while();
}

static void a_connection_is_handed_to_the_other_edge_and_answered_there(void **state)
{
        int fd = client_new();
        char answer[4096];
        EdgeStats from, to;

        for (unsigned i = 1; i <= 3; i++) {
                client_send(fd, "GET /other HTTP/1.1\r\nHost: e\r\n\r\n");
                assert_true(client_receive(fd, answer, sizeof answer) > 0);
                assert_int_equal(fixture.served[1], i);
        }
        edge_get_stats(fixture.edges[0], &from);
        edge_get_stats(fixture.edges[1], &to);
        assert_int_equal(from.handed_out, 1);
        assert_int_equal(to.handed_in, 1);
        assert_int_equal(from.connections, 0);
        close(fd);
}

static void send_hand_off(const void *data, size_t len, int fd)
{
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { 0 };
        struct iovec vector = { (void *)(uintptr_t)data, len };
        struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

        if (fd >= 0) {
                message.msg_control = control.bytes;
                message.msg_controllen = sizeof control.bytes;
                *CMSG_FIRSTHDR(&message) = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS,
                        .cmsg_len = CMSG_LEN(sizeof(int)) };
                memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &fd, sizeof fd);
        }
        assert_true(sendmsg(fixture.hand_off[1][0], &message, 0) > 0);
}

static void a_malformed_hand_off_is_dropped_with_its_descriptor_and_the_next_is_taken(void **state)
{
        static const char messages[][16] = {
                "",                              /* a wrong magic */
                "1hdd\x02\0\0\0\x04\0\0\0GET",   /* an unknown version */
                "1hdd\x01\0\x07\0\x04\0\0\0GET", /* no such origin */
                "1hdd\x01\0\0\0\x05\0\0\0GET",   /* a wrong length */
        };
        char answer[4096];
        EdgeStats stats;
        int fd;

        for (size_t i = 0; i < ELEMENTSOF(messages); i++) {
                int pair[2];

                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
                send_hand_off(messages[i], sizeof messages[i], pair[1]);
                close(pair[1]);
                assert_int_equal(client_receive(pair[0], answer, sizeof answer), 0);
                close(pair[0]);
        }
        send_hand_off("1hdd", 4, -1);
        run_a_while();
        edge_get_stats(fixture.edges[1], &stats);
        assert_int_equal(stats.handed_in, 0);
        fd = client_new();
        client_send(fd, "GET /other HTTP/1.1\r\nHost: e\r\n\r\n");
        assert_true(client_receive(fd, answer, sizeof answer) > 0);
        assert_int_equal(fixture.served[1], 1);
        close(fd);
}

static void a_body_that_cannot_be_spooled_is_an_error_for_its_client_alone(void **state)
{
        static char body[100000];
        int fd = client_new(), other = client_new();
        char answer[4096] = "";

        memset(body, 'x', sizeof body - 1);
        client_send(fd, "POST / HTTP/1.1\r\nHost: e\r\nContent-Length: 2000000\r\n\r\n");
        for (int i = 0; i < 15; i++) {
                client_send(fd, body);
                run_a_while();
        }
        assert_true(client_receive(fd, answer, sizeof answer) > 0);
        assert_non_null(strstr(answer, "HTTP/1.1 500 "));
        client_send(other, "GET / HTTP/1.1\r\nHost: e\r\n\r\n");
        assert_true(client_receive(other, answer, sizeof answer) > 0);
        assert_non_null(strstr(answer, "hello"));
        close(fd);
        close(other);
}

static void who_asks_for_html_gets_it_and_nobody_else(void **state)
{
        assert_true(error_wants_html(SLICE("text/html")));
        assert_true(error_wants_html(SLICE("text/html,application/xhtml+xml,*/*;q=0.8")));
        assert_true(error_wants_html(SLICE("application/json;q=0.5 , Text/HTML;level=1;q=0.6")));
        assert_false(error_wants_html(SLICE("")));
        assert_false(error_wants_html(SLICE("*/*")));
        assert_false(error_wants_html(SLICE("text/html;q=0")));
        assert_false(error_wants_html(SLICE("text/html;q=0.5,application/json")));
        assert_false(error_wants_html(SLICE("text/html;q=x")));
        assert_false(error_wants_html(SLICE(",;,q=,")));
}

static void an_error_answer_escapes_what_it_quotes(void **state)
{
        ErrorAnswer answer = {
                .status = 404,
                .message = "<script>\"x\"",
                .request_id = "0123456789abcdef",
                .date = "Sun, 22 Nov 2026 21:00:00 GMT",
                .accept = SLICE("text/html"),
        };
        _cleanup_(buf_done) Buf html = BUF_INIT(0);
        _cleanup_(buf_done) Buf json = BUF_INIT(0);

        assert_int_equal(error_write(&html, &answer), 0);
        assert_null(strstr(buf_data(&html), "<script>"));
        assert_non_null(strstr(buf_data(&html), "&lt;script&gt;"));
        answer.accept = (Slice){ 0 };
        assert_int_equal(error_write(&json, &answer), 0);
        assert_non_null(strstr(buf_data(&json), "\"message\":\"<script>\\\"x\\\"\""));
}

int main(void)
{
#define WITH_EDGE(_test) cmocka_unit_test_setup_teardown(_test, setup, teardown)
        static const struct CMUnitTest tests[] = {
                WITH_EDGE(a_small_answer_is_one_send_of_head_and_body),
                WITH_EDGE(each_request_is_finished_once_also_when_its_client_goes_away),
                WITH_EDGE(a_connection_is_handed_to_the_other_edge_and_answered_there),
                WITH_EDGE(
                        a_malformed_hand_off_is_dropped_with_its_descriptor_and_the_next_is_taken),
                WITH_EDGE(a_body_that_cannot_be_spooled_is_an_error_for_its_client_alone),
                cmocka_unit_test(who_asks_for_html_gets_it_and_nobody_else),
                cmocka_unit_test(an_error_answer_escapes_what_it_quotes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
