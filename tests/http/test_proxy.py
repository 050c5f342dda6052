# SPDX-License-Identifier: Apache-2.0
"""Calls that one worker makes to another: /pN/... is served by worker N through the proxy."""

import os
import signal
import threading
import time
import unittest

from edge import Closed, EdgeCase, Server


class Proxy(EdgeCase):
    options = ("--workers", "2")

    def test_a_call_arrives_as_the_caller_made_it(self):
        client = self.connect(0)
        client.send(b"POST /p1/echo?q=1 HTTP/1.1\r\nHost: edge.test:81\r\nX-One: 1\r\n"
                    b"Cookie: a=b\r\nContent-Length: 3\r\n\r\nabc")
        answer = client.answer()
        self.assertEqual(answer.status, 200)
        for name, value in (("worker", "1"), ("method", "POST"), ("target", "/p1/echo?q=1"),
                            ("authority", "edge.test:81"), ("peer", "127.0.0.1"), ("class", "3"),
                            ("scheme", "http"), ("name", b"a \xff%,\r\n\0name".hex())):
            self.assertEqual(answer.field(name), value, name)
        self.assertEqual(len(answer.field("id")), 64)
        lines = answer.body.decode().splitlines()
        self.assertIn("> X-One: 1", lines)
        self.assertIn("> Cookie: a=b", lines)
        self.assertIn("> Host: edge.test:81", lines)
        self.assertNotIn("x-durabled", answer.body.decode().lower())

    def test_bodies_arrive_whole_from_memory_and_from_a_file(self):
        client = self.connect(0)
        for n in (0, 1, 100000, 1 << 20, (1 << 20) + 1, 5_000_003):
            body = (bytes(range(251)) * (n // 251 + 1))[:n]
            there = client.post("/p1/echo", body).field("body")
            here = client.post("/echo", body).field("body")
            self.assertEqual(there, here)

    def test_answers_are_streamed_whole(self):
        client = self.connect(0)
        self.assertEqual(len(client.get("/p1/big?n=20000000").body), 20000000)
        answer = client.get("/p1/chunks?n=3000000&chunk=5000")
        self.assertEqual((len(answer.body), answer.complete), (3000000, True))
        self.assertEqual(client.get("/p1/status?n=204").status, 204)
        self.assertEqual(client.get("/p1/status?n=304").status, 304)
        client.request("HEAD", "/p1/hello")
        self.assertEqual(client.answer(head_only=True).header("Content-Length"), "6")
        self.assertEqual(client.get("/p1/hello").body, b"hello\n")

    def test_connections_between_workers_are_used_again(self):
        client = self.connect(0)
        client.get("/p1/hello")
        before = self.server.stats(1)["connections"]
        for _ in range(500):
            self.assertEqual(client.get("/p1/hello").body, b"hello\n")
        self.assertLessEqual(self.server.stats(1)["connections"], before + 1)

    def test_an_abort_there_is_an_abort_here(self):
        answer = self.connect(0).get("/p1/abort")
        self.assertEqual((answer.status, answer.header("Retry-After")), (503, "7"))
        self.assertIn(b'"message":"The object is busy."', answer.body)
        self.assertIsNone(answer.header("X-Durabled-Abort"))
        self.assertEqual(self.connect(0).get("/p1/fail").status, 500)

    def test_an_answer_that_is_cut_there_is_cut_here(self):
        client = self.connect(0)
        try:
            self.assertFalse(client.get("/p1/chunks?n=100000&abort=1&delay=1").complete)
        except ConnectionResetError:
            pass

    def test_a_client_that_goes_away_cancels_the_response_there(self):
        before = self.server.stats(1)["cancelled"]
        client = self.connect(0)
        client.request("GET", "/p1/slow?delay=30000")
        time.sleep(0.1)
        client.close()
        self.wait_for(lambda: self.server.stats(1)["cancelled"] == before + 1)

    def test_a_slow_reader_stops_the_worker_that_produces(self):
        clients = [self.connect(0, receive_buffer=4096) for _ in range(10)]
        before = self.server.rss(0), self.server.rss(1)
        for client in clients:
            client.request("GET", "/p1/big?n=50000000")
        time.sleep(0.7)
        self.assertLess(self.server.rss(0) - before[0], 10 * (5 << 20))
        self.assertLess(self.server.rss(1) - before[1], 10 * (2 << 20))
        for client in clients:
            client.close()

    def test_many_calls_at_once_get_their_own_answers(self):
        failures = []

        def run(seed):
            try:
                with self.server.connect(seed % 2) as client:
                    for i in range(100):
                        target = f"/p{i % 2}/echo?{seed}-{i}"
                        if client.post(target, b"x" * i).field("target") != target:
                            failures.append(target)
            except Exception as error:  # noqa: BLE001: the thread's failure is the test's
                failures.append(repr(error))

        threads = [threading.Thread(target=run, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_a_head_at_the_limits_passes_with_our_headers_added(self):
        client = self.connect(0)
        headers = [f"X-{i}: " + "y" * 400 for i in range(124)]
        self.assertEqual(client.get("/p1/echo", headers=headers).status, 200)


class Scarce(EdgeCase):
    options = ("--workers", "2", "--proxy-ms", "600", "--proxy-max", "2", "--proxy-queue", "3")

    def test_calls_wait_for_a_connection_and_beyond_the_queue_are_refused(self):
        clients = [self.connect(0) for _ in range(8)]
        for client in clients:
            client.request("GET", "/p1/slow?delay=150")
            time.sleep(0.005)
        status = sorted(client.answer().status for client in clients)
        self.assertEqual(status, [200] * 5 + [503] * 3)

    def test_a_call_without_an_answer_ends_in_504(self):
        self.assertEqual(self.connect(0).get("/p1/slow?delay=5000").status, 504)
        self.assertEqual(self.connect(0).get("/p1/hello").status, 200)


class Death(unittest.TestCase):
    def test_the_death_of_a_worker_is_an_error_for_its_calls_alone(self):
        server = Server("--workers", "2")
        self.addCleanup(server.close)
        client, waiting = server.connect(0), server.connect(0)
        self.assertEqual(client.get("/p1/hello").status, 200)
        waiting.request("GET", "/p1/slow?delay=5000")
        time.sleep(0.1)
        os.kill(server.pid(1), signal.SIGKILL)
        self.assertEqual(waiting.answer().status, 502)
        self.assertEqual(client.get("/hello").status, 200)
        client.close()
        waiting.close()

    def test_calls_in_flight_end_when_the_caller_stops(self):
        server = Server("--workers", "2", "--drain-ms", "300")
        client = server.connect(0)
        client.request("GET", "/p1/slow?delay=30000")
        time.sleep(0.1)
        server.drain(0)
        with self.assertRaises((Closed, ConnectionResetError)):
            client.answer()
        client.close()
        self.assertEqual(server.close(), 0)


if __name__ == "__main__":
    unittest.main()
