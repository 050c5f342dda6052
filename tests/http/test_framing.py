# SPDX-License-Identifier: Apache-2.0
"""Messages and their limits: framing, smuggling, pipelining, bodies."""

import socket
import time
import unittest

from edge import Closed, EdgeCase


class Framing(EdgeCase):
    def test_a_short_answer_has_a_length_a_date_and_keeps_the_connection(self):
        client = self.connect()
        for _ in range(3):
            answer = client.get("/hello")
            self.assertEqual((answer.status, answer.body), (200, b"hello\n"))
            self.assertEqual(answer.header("Content-Length"), "6")
            self.assertRegex(answer.header("Date"), r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
            self.assertEqual(answer.header("Server"), "durabled")
            self.assertIsNone(answer.header("Connection"))

    def test_the_date_is_now(self):
        client = self.connect()
        first = client.get("/hello").header("Date")
        time.sleep(1.1)
        second = client.get("/hello").header("Date")
        parsed = time.mktime(time.strptime(second, "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
        self.assertNotEqual(first, second)
        self.assertLess(abs(parsed - time.time()), 3)

    def test_an_answer_of_unknown_length_is_chunked(self):
        answer = self.connect().get("/chunks?n=300000&chunk=1000")
        self.assertEqual(answer.header("Transfer-Encoding"), "chunked")
        self.assertIsNone(answer.header("Content-Length"))
        self.assertTrue(answer.complete)
        self.assertEqual(answer.body, b"x" * 300000)

    def test_large_and_small_chunks_keep_their_order_and_their_length(self):
        client = self.connect()
        for chunk in (1, 7, 2047, 2048, 2049, 65536, 262145):
            n = min(chunk * 40, 3000000)
            answer = client.get(f"/chunks?n={n}&chunk={chunk}")
            self.assertTrue(answer.complete)
            self.assertEqual(len(answer.body), n)

    def test_an_answer_of_known_length_is_streamed_whole(self):
        client = self.connect()
        answer = client.get("/big?n=20000000")
        self.assertEqual(answer.header("Content-Length"), "20000000")
        self.assertEqual(len(answer.body), 20000000)
        self.assertEqual(client.get("/hello").status, 200)

    def test_http_1_0_ends_an_answer_of_unknown_length_by_closing(self):
        client = self.connect()
        answer = client.get("/chunks?n=5000000", version="1.0", headers=["Connection: keep-alive"])
        self.assertIsNone(answer.header("Transfer-Encoding"))
        self.assertEqual(answer.header("Connection"), "close")
        self.assertEqual(len(answer.body), 5000000)

    def test_http_1_0_keeps_the_connection_only_when_asked(self):
        client = self.connect()
        answer = client.get("/hello", version="1.0", headers=["Connection: keep-alive"])
        self.assertEqual(answer.header("Connection"), "keep-alive")
        answer = client.get("/hello", version="1.0")
        self.assertEqual(answer.header("Connection"), "close")
        self.assertTrue(client.is_closed())

    def test_connection_close_is_honoured(self):
        client = self.connect()
        answer = client.get("/hello", headers=["Connection: close"])
        self.assertEqual(answer.header("Connection"), "close")
        self.assertTrue(client.is_closed())

    def test_head_has_the_head_of_get_and_no_body(self):
        client = self.connect()
        client.request("HEAD", "/hello")
        answer = client.answer(head_only=True)
        self.assertEqual((answer.status, answer.header("Content-Length")), (200, "6"))
        client.request("HEAD", "/chunks?n=1000000")
        self.assertEqual(client.answer(head_only=True).status, 200)
        client.request("HEAD", "/refuse")
        self.assertEqual(client.answer(head_only=True).status, 404)
        self.assertEqual(client.get("/hello").body, b"hello\n")

    def test_204_and_304_have_neither_body_nor_framing(self):
        client = self.connect()
        for status in (204, 304):
            answer = client.get(f"/status?n={status}")
            self.assertEqual(answer.status, status)
            self.assertIsNone(answer.header("Content-Length"))
            self.assertIsNone(answer.header("Transfer-Encoding"))
        self.assertEqual(client.get("/status?n=200").header("Content-Length"), "0")

    def test_a_body_arrives_as_it_was_sent_whatever_its_framing(self):
        client = self.connect()
        body = bytes(range(256)) * 40
        plain = client.post("/echo", body)
        client.send(b"POST /echo HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 1000):
            part = body[at:at + 1000]
            client.send(b"%x\r\n%s\r\n" % (len(part), part))
        client.send(b"0\r\n\r\n")
        chunked = client.answer()
        self.assertEqual(plain.field("body"), chunked.field("body"))
        self.assertTrue(plain.field("body").startswith("10240 "))

    def test_a_body_beyond_a_mebibyte_is_kept_in_a_file_with_the_same_bytes(self):
        client = self.connect()
        for n in (1 << 20, (1 << 20) + 1, 9_000_001):
            body = bytes(i * 7 & 255 for i in range(256)) * (n // 256 + 1)
            answer = client.post("/echo", body[:n])
            length, digest, place = answer.field("body").split()
            self.assertEqual((int(length), place), (n, "memory" if n <= 1 << 20 else "file"))
            client.send(b"POST /echo HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n"
                        b"%x\r\n%s\r\n0\r\n\r\n" % (n, body[:n]))
            self.assertEqual(client.answer().field("body").split()[:2], [length, digest])

    def test_a_request_may_arrive_byte_by_byte(self):
        wire = (b"POST /echo?a=b HTTP/1.1\r\nHost: edge.test\r\nX-One: 1\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n")
        client = self.connect()
        client.send(wire)
        whole = client.answer().body
        for byte in wire:
            client.send(bytes([byte]))
            time.sleep(0.0005)
        self.assertEqual(client.answer().body, whole)

    def test_a_request_may_be_split_at_every_byte(self):
        wire = (b"POST /echo?a=b HTTP/1.1\r\nHost: edge.test\r\nX-One: 1\r\n"
                b"Content-Length: 7\r\n\r\nabcdefgGET /hello HTTP/1.1\r\nHost: e\r\n\r\n")
        client = self.connect()
        client.send(wire)
        whole = client.answer().body
        client.answer()
        for at in range(1, len(wire)):
            client.send(wire[:at])
            time.sleep(0.001)
            client.send(wire[at:])
            self.assertEqual(client.answer().body, whole, at)
            self.assertEqual(client.answer().body, b"hello\n", at)

    def test_a_hundred_pipelined_requests_are_answered_in_their_order(self):
        client = self.connect()
        client.send(b"".join(b"GET /echo?n=%d HTTP/1.1\r\nHost: e\r\n\r\n" % i for i in range(100)))
        for i in range(100):
            self.assertEqual(client.answer().field("target"), f"/echo?n={i}")

    def test_pipelining_is_bounded_and_loses_nothing(self):
        client = self.connect()
        n, request = 20000, b"GET /hello?%05d HTTP/1.1\r\nHost: e\r\nX: " + b"y" * 60 + b"\r\n\r\n"
        wire = b"".join(request % i for i in range(n))
        before = self.server.rss()
        client.socket.settimeout(0.3)
        sent = 0
        client.send(b"GET /slow?delay=1000 HTTP/1.1\r\nHost: e\r\n\r\n")
        try:
            while sent < len(wire):
                sent += client.socket.send(wire[sent:sent + 65536])
        except TimeoutError:
            pass
        self.assertLess(self.server.rss() - before, 8 << 20)
        client.socket.settimeout(10)
        self.assertEqual(client.answer().body, b"slow\n")
        got = 0
        client.socket.setblocking(False)
        data = b""
        end = time.monotonic() + 20
        while got < n and time.monotonic() < end:
            if sent < len(wire):
                try:
                    sent += client.socket.send(wire[sent:sent + 65536])
                except BlockingIOError:
                    pass
            try:
                data += client.socket.recv(1 << 20)
            except BlockingIOError:
                time.sleep(0.001)
            got = (client.buffer + data).count(b"hello\n")
        self.assertEqual(got, n)

    def test_ten_thousand_requests_use_one_connection(self):
        client = self.connect()
        before = self.server.stats()["requests"]
        for _ in range(10000):
            client.send(b"GET /hello HTTP/1.1\r\nHost: e\r\n\r\n")
            data = client.socket.recv(4096)
            self.assertTrue(data.endswith(b"hello\n"))
        self.assertEqual(self.server.stats()["requests"] - before, 10001)

    def test_expect_100_continue_is_answered_before_the_body(self):
        client = self.connect()
        client.send(b"POST /echo HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n"
                    b"Expect: 100-continue\r\n\r\n")
        self.assertEqual(client.answer().status, 100)
        self.assertTrue(client.is_quiet())
        client.send(b"abc")
        self.assertTrue(client.answer().field("body").startswith("3 "))
        self.assertEqual(client.get("/hello").status, 200)

    def test_expect_100_continue_of_too_large_a_body_is_refused_at_once(self):
        client = self.connect()
        client.send(b"POST /small HTTP/1.1\r\nHost: e\r\nContent-Length: 11\r\n"
                    b"Expect: 100-continue\r\n\r\n")
        self.assertEqual(client.answer().status, 413)

    def test_an_error_right_behind_100_continue_follows_it(self):
        client = self.connect()
        client.send(b"POST /echo HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n"
                    b"Expect: 100-continue\r\n\r\nno chunk\r\n")
        self.assertEqual(client.answer().status, 100)
        answer = client.answer()
        self.assertEqual((answer.status, answer.header("Connection")), (400, "close"))

    def test_the_server_survives_requests_cut_anywhere(self):
        wire = b"POST /echo HTTP/1.1\r\nHost: e\r\nContent-Length: 5\r\n\r\nabcde"
        for at in range(len(wire)):
            client = self.server.connect()
            client.send(wire[:at])
            client.close()
        self.wait_for(lambda: self.server.stats()["connections"] <= 2)


class Answers(EdgeCase):
    def test_an_aborted_response_becomes_an_error_with_retry_after(self):
        client = self.connect()
        answer = client.get("/abort")
        self.assertEqual((answer.status, answer.header("Retry-After")), (503, "7"))
        self.assertIn(b"The object is busy.", answer.body)
        self.assertEqual(client.get("/hello").status, 200)

    def test_a_handler_that_fails_is_a_500(self):
        self.assertEqual(self.connect().get("/fail").status, 500)

    def test_a_response_that_is_cut_never_looks_whole(self):
        for target in ("/chunks?n=100000&abort=1&delay=1", "/short?n=100000",
                       "/big?n=100000&abort=1&chunk=1000&delay=1"):
            client = self.connect()
            try:
                self.assertFalse(client.get(target).complete, target)
            except ConnectionResetError:
                pass

    def test_a_response_longer_than_its_length_is_cut_there_and_closed(self):
        client = self.connect()
        client.request("GET", "/long?n=1000")
        try:
            self.assertEqual(client.answer().body, b"x" * 990)
        except ConnectionResetError:
            pass
        self.assertTrue(client.is_closed())

    def test_errors_are_pages_for_browsers_and_json_for_programs(self):
        client = self.connect()
        for accept, kind in ((None, "application/json"), ("*/*", "application/json"),
                             ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
                             ("application/json, text/html;q=0.5", "application/json"),
                             ("text/html;q=0", "application/json")):
            answer = client.get("/refuse", headers=[f"Accept: {accept}"] if accept else [])
            self.assertEqual(answer.status, 404)
            self.assertTrue(answer.header("Content-Type").startswith(kind), accept)
            self.assertIn(answer.header("X-Request-Id").encode(), answer.body)
            self.assertEqual(b"<such>" in answer.body, kind != "text/html")

    def test_a_refused_request_with_a_body_ends_the_connection_and_the_answer_is_read(self):
        client = self.connect()
        client.send(b"POST /refuse HTTP/1.1\r\nHost: e\r\nContent-Length: 1000000\r\n\r\n")
        client.send(b"x" * 500000)
        answer = client.answer()
        self.assertEqual((answer.status, answer.header("Connection")), (404, "close"))

    def test_a_client_that_goes_away_cancels_its_response(self):
        before = self.server.stats()["cancelled"]
        client = self.connect()
        client.request("GET", "/slow?delay=20000")
        time.sleep(0.1)
        client.close()
        self.wait_for(lambda: self.server.stats()["cancelled"] == before + 1)

    def test_a_client_that_closes_its_sending_side_gets_its_answer(self):
        client = self.connect()
        client.request("GET", "/slow?delay=300")
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(client.answer().body, b"slow\n")
        self.assertTrue(client.is_closed())

    def test_pipelined_requests_before_an_end_of_stream_are_all_answered(self):
        client = self.connect()
        client.send(b"GET /hello HTTP/1.1\r\nHost: e\r\n\r\n" * 5)
        client.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(client.to_end().count(b"hello\n"), 5)

    def test_a_slow_reader_costs_bounded_memory(self):
        clients = [self.connect(receive_buffer=4096) for _ in range(20)]
        before = self.server.rss()
        for client in clients:
            client.request("GET", "/big?n=50000000")
        time.sleep(0.5)
        self.assertLess(self.server.rss() - before, 20 * (2 << 20))
        for client in clients:
            client.close()

    def test_a_slow_reader_gets_everything(self):
        client = self.connect(receive_buffer=4096)
        client.request("GET", "/chunks?n=3000000")
        time.sleep(0.3)
        self.assertEqual(len(client.answer().body), 3000000)


class Refusals(EdgeCase):
    options = ("--body-max", "100000", "--head-max", "8192")

    def status_of(self, wire):
        client = self.server.connect()
        try:
            client.send(wire)
            answer = client.answer()
            self.assertEqual(answer.header("Connection"), "close")
            client.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(client.to_end(), b"", "a second answer")
            return answer.status
        finally:
            client.close()

    def test_ambiguous_framing_is_refused_and_nothing_behind_it_is_served(self):
        smuggled = b"GET /hello HTTP/1.1\r\nHost: e\r\n\r\n"
        for head in (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                     b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                     b"Content-Length: 5\r\nContent-Length: 6\r\n",
                     b"Content-Length: +5\r\n", b"Content-Length: 5, 6\r\n",
                     b"Content-Length: -1\r\n", b"Content-Length: 0x5\r\n",
                     b"Transfer-Encoding: chunked, identity\r\n",
                     b"Transfer-Encoding : chunked\r\n", b"X: a\r\n b\r\n", b"X: a\nY: b\r\n",
                     b"X: a\rb\r\n", b"X: a\0b\r\n", b" X: a\r\n", b"X\r\n", b"Host: two\r\n"):
            wire = b"POST /echo HTTP/1.1\r\nHost: e\r\n" + head + b"\r\n0\r\n\r\n" + smuggled
            with self.subTest(head=head):
                self.assertIn(self.status_of(wire), (400, 501))

    def test_bad_chunks_are_refused(self):
        for body in (b"g\r\n", b"-1\r\n", b"5\nabcde\r\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n",
                     b"fffffffffffffffff\r\n"):
            wire = b"POST /echo HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n" + body
            with self.subTest(body=body):
                self.assertIn(self.status_of(wire), (400, 413))

    def test_bad_request_lines_are_refused(self):
        for wire, status in ((b"GET / HTTP/1.1\r\n\r\n", 400),
                             (b"GET / HTTP/3.0\r\nHost: e\r\n\r\n", 505),
                             (b"GET /a b HTTP/1.1\r\nHost: e\r\n\r\n", 400),
                             (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
                             (b"CONNECT e:443 HTTP/1.1\r\nHost: e:443\r\n\r\n", 501)):
            with self.subTest(wire=wire):
                self.assertEqual(self.status_of(wire), status)

    def test_a_head_beyond_its_limit_is_431_and_a_target_beyond_its_414(self):
        filler = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 100) for i in range(90))
        self.assertEqual(
            self.status_of(b"GET / HTTP/1.1\r\nHost: e\r\n" + filler + b"\r\n"), 431)
        many = b"".join(b"X-%d: y\r\n" % i for i in range(200))
        self.assertEqual(self.status_of(b"GET / HTTP/1.1\r\nHost: e\r\n" + many + b"\r\n"), 431)
        self.assertIn(self.status_of(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: e\r\n\r\n"),
                      (414, 431))

    def test_a_body_beyond_its_limit_is_413_whatever_its_framing(self):
        self.assertEqual(self.status_of(
            b"POST /echo HTTP/1.1\r\nHost: e\r\nContent-Length: 100001\r\n\r\n"), 413)
        self.assertEqual(self.status_of(
            b"POST /echo HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"186a1\r\n" + b"x" * 100001), 413)
        self.assertEqual(self.status_of(
            b"POST /small HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n"), 413)

    def test_a_body_at_its_limit_is_served(self):
        client = self.connect()
        self.assertEqual(client.post("/echo", b"x" * 100000).status, 200)
        self.assertEqual(client.post("/small", b"x" * 10).status, 200)

    def test_a_client_that_goes_on_sending_still_reads_the_413(self):
        client = self.connect()
        client.send(b"POST /echo HTTP/1.1\r\nHost: e\r\nContent-Length: 50000000\r\n\r\n")
        try:
            for _ in range(200):
                client.socket.send(b"x" * 20000)
        except (BrokenPipeError, ConnectionResetError):
            self.fail("the connection was reset before the answer was read")
        self.assertEqual(client.answer().status, 413)

    def test_a_pipelined_request_is_refused_with_its_body_behind_it(self):
        client = self.connect()
        client.send(b"GET /slow?delay=300 HTTP/1.1\r\nHost: e\r\n\r\n")
        client.send(
            b"POST /echo HTTP/1.1\r\nHost: e\r\nContent-Length: 100001\r\n\r\n" + b"x" * 9000)
        self.assertEqual(client.answer().body, b"slow\n")
        self.assertEqual(client.answer().status, 413)
        self.assertEqual(self.connect().get("/hello").status, 200)

    def test_our_own_headers_are_refused_from_outside(self):
        client = self.connect()
        answer = client.get("/hello", headers=["x-durabled-object: 00"])
        self.assertEqual(answer.status, 400)
        self.assertIn(b"X-Durabled-", answer.body)


class Timeouts(EdgeCase):
    options = ("--head-ms", "300", "--body-ms", "300", "--idle-ms", "400", "--send-ms", "500")

    def test_a_slow_head_is_408(self):
        client = self.connect()
        client.send(b"GET / HTTP/1.1\r\n")
        begin = time.monotonic()
        self.assertEqual(client.answer().status, 408)
        self.assertGreater(time.monotonic() - begin, 0.25)

    def test_a_head_that_trickles_is_408_all_the_same(self):
        client = self.connect()
        begin = time.monotonic()
        for byte in b"GET / HTTP/1.1\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy":
            try:
                client.send(bytes([byte]))
            except (BrokenPipeError, ConnectionResetError):
                break
            if not client.is_quiet(0.02):
                break
        self.assertEqual(client.answer().status, 408)
        self.assertLess(time.monotonic() - begin, 1)

    def test_a_body_that_stalls_is_408(self):
        client = self.connect()
        client.send(b"POST /echo HTTP/1.1\r\nHost: e\r\nContent-Length: 10\r\n\r\nabc")
        self.assertEqual(client.answer().status, 408)

    def test_a_body_that_moves_is_waited_for(self):
        client = self.connect()
        client.send(b"POST /echo HTTP/1.1\r\nHost: e\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            time.sleep(0.1)
            client.send(b"x")
        self.assertEqual(client.answer().status, 200)

    def test_an_idle_connection_is_closed_without_a_word(self):
        client = self.connect()
        self.assertEqual(client.get("/hello").status, 200)
        begin = time.monotonic()
        self.assertTrue(client.is_closed())
        self.assertGreater(time.monotonic() - begin, 0.3)
        fresh = self.connect()
        self.assertTrue(fresh.is_closed())

    def test_a_served_request_may_take_longer_than_any_timeout_of_a_client(self):
        self.assertEqual(self.connect().get("/slow?delay=1200").body, b"slow\n")

    def test_a_reader_that_takes_nothing_is_reset(self):
        before = self.server.stats()["cancelled"]
        client = self.connect(receive_buffer=4096)
        client.request("GET", "/big?n=50000000")
        self.wait_for(lambda: self.server.stats()["cancelled"] == before + 1)
        with self.assertRaises((ConnectionResetError, Closed)):
            while True:
                client.fill()
                client.buffer = b""


class Limits(EdgeCase):
    options = ("--connections-max", "8", "--requests-max", "3")

    def test_a_connection_ends_after_its_last_allowed_request(self):
        client = self.connect()
        self.assertIsNone(client.get("/hello").header("Connection"))
        self.assertIsNone(client.get("/hello").header("Connection"))
        self.assertEqual(client.get("/hello").header("Connection"), "close")
        self.assertTrue(client.is_closed())

    def test_connections_beyond_the_limit_wait_and_are_served_later(self):
        clients = [self.server.connect() for _ in range(30)]
        served = 0
        for client in clients:
            client.request("GET", "/hello")
        for client in clients:
            served += client.answer().status == 200
            client.close()
        self.assertEqual(served, 30)

    def test_calls_of_other_workers_are_taken_at_the_limit(self):
        clients = [self.connect() for _ in range(8)]
        self.assertEqual(clients[0].get("/p0/hello").body, b"hello\n")


if __name__ == "__main__":
    unittest.main()
