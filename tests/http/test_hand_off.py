# SPDX-License-Identifier: Apache-2.0
"""Connections that move to the worker that owns what they ask for, and drain."""

import threading
import time
import unittest

from edge import Closed, EdgeCase, Server


class HandOff(EdgeCase):
    options = ("--workers", "2")

    def test_a_new_connection_moves_to_the_owner(self):
        client = self.connect(0)
        answer = client.get("/w1/a")
        self.assertEqual((answer.field("worker"), answer.field("hops")), ("1", "1"))
        self.assertEqual(answer.field("peer"), "127.0.0.1")

    def test_a_connection_moves_at_each_request_boundary(self):
        client = self.connect(0)
        for i in range(50):
            answer = client.get(f"/w{i % 2}/{i}")
            self.assertEqual((answer.field("worker"), answer.field("target")),
                             (str(i % 2), f"/w{i % 2}/{i}"))

    def test_pipelined_requests_travel_with_the_connection(self):
        client = self.connect(0)
        order = [0, 1, 1, 0, 1, 0, 0, 0, 1, 1] * 10
        client.send(b"".join(b"POST /w%d/%d HTTP/1.1\r\nHost: e\r\nContent-Length: 4\r\n\r\nbody"
                             % (n, i) for i, n in enumerate(order)))
        for i, n in enumerate(order):
            answer = client.answer()
            self.assertEqual(answer.field("worker"), str(n))
            self.assertEqual(answer.field("target"), f"/w{n}/{i}")
            self.assertTrue(answer.field("body").startswith("4 "))

    def test_a_head_split_at_every_byte_moves_whole(self):
        wire = b"POST /w1/x HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 3\r\n\r\nabc"
        for at in range(1, len(wire)):
            client = self.server.connect(0)
            client.send(wire[:at])
            time.sleep(0.001)
            client.send(wire[at:])
            answer = client.answer()
            self.assertEqual((answer.field("worker"), answer.field("body").split()[0]), ("1", "3"))
            client.close()

    def test_a_body_that_is_still_arriving_follows_the_connection(self):
        client = self.connect(0)
        body = bytes(range(256)) * 8000
        before = self.server.stats(0)["handed_out"]
        client.send(b"POST /w1/x HTTP/1.1\r\nHost: e\r\nContent-Length: %d\r\n\r\n" % len(body))
        client.send(body[:5000])
        self.wait_for(lambda: self.server.stats(0)["handed_out"] == before + 1)
        client.send(body[5000:])
        moved = client.answer()
        self.assertEqual(moved.field("worker"), "1")
        self.assertEqual(moved.field("body"), self.connect(1).post("/w1/x", body).field("body"))

    def test_a_body_that_arrives_faster_than_it_can_move_is_served_here_or_there_and_whole(self):
        body = bytes(range(256)) * 12000
        stayed = self.connect(1).post("/w1/x", body)
        for _ in range(20):
            client = self.connect(0)
            client.request("POST", "/w1/x", body)
            answer = client.answer()
            self.assertEqual(answer.field("body"), stayed.field("body"))
            if answer.field("worker") == "0":
                self.assertEqual(answer.field("handoff"), "1")

    def test_expect_100_continue_is_answered_by_the_owner(self):
        client = self.connect(0)
        client.send(b"POST /w1/x HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n"
                    b"Expect: 100-continue\r\n\r\n")
        self.assertEqual(client.answer().status, 100)
        client.send(b"abc")
        self.assertEqual(client.answer().field("worker"), "1")

    def test_hops_are_limited(self):
        answer = self.connect(0).get("/w0/x?loop=1")
        self.assertEqual((answer.field("hops"), answer.field("handoff")), ("3", "1"))

    def test_an_unknown_slot_is_served_here(self):
        answer = self.connect(0).get("/w7/x")
        self.assertEqual((answer.field("worker"), answer.field("handoff")), ("0", "1"))

    def test_many_connections_move_at_once_and_none_is_lost(self):
        failures = []

        def run(seed):
            try:
                with self.server.connect(seed % 2) as client:
                    for i in range(100):
                        n = (seed * 7 + i * i) % 3 % 2
                        answer = client.get(f"/w{n}/{seed}-{i}")
                        if answer.status != 200 or answer.field("target") != f"/w{n}/{seed}-{i}":
                            failures.append(answer.body)
            except Exception as error:  # noqa: BLE001: the thread's failure is the test's
                failures.append(repr(error))

        threads = [threading.Thread(target=run, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])


class FullQueue(EdgeCase):
    options = ("--workers", "2", "--dead-queue")

    def test_when_the_owner_does_not_take_connections_they_are_served_here(self):
        clients, here = [], 0
        for i in range(600):
            client = self.server.connect(0, timeout=3)
            clients.append(client)
            client.request("POST", "/w1/x", b"abc")
            if self.server.stats()["hand_off_failed"]:
                answer = client.answer()
                self.assertEqual((answer.field("worker"), answer.field("handoff")), ("0", "1"))
                self.assertTrue(answer.field("body").startswith("3 "))
                self.assertEqual(client.get("/hello").status, 200)
                here += 1
            if here == 5:
                break
        for client in clients:
            client.close()
        self.assertEqual(here, 5)


class Drain(unittest.TestCase):
    def start(self, *options):
        server = Server(*options)
        self.addCleanup(server.close)
        return server

    def test_an_idle_server_stops_at_once(self):
        server = self.start()
        begin = time.monotonic()
        self.assertEqual(server.close(), 0)
        self.assertLess(time.monotonic() - begin, 2)

    def test_what_is_in_flight_is_answered_with_connection_close(self):
        server = self.start()
        client = server.connect()
        client.request("GET", "/slow?delay=700")
        idle = server.connect()
        self.assertEqual(idle.get("/hello").status, 200)
        time.sleep(0.1)
        server.drain()
        self.assertTrue(idle.is_closed())
        answer = client.answer()
        self.assertEqual((answer.body, answer.header("Connection")), (b"slow\n", "close"))
        client.close()
        self.assertEqual(server.close(), 0)

    def test_what_takes_too_long_is_cut_at_the_deadline(self):
        server = self.start("--drain-ms", "400")
        client = server.connect()
        client.request("GET", "/slow?delay=30000")
        time.sleep(0.1)
        begin = time.monotonic()
        server.drain()
        with self.assertRaises((Closed, ConnectionResetError)):
            client.answer()
        self.assertLess(time.monotonic() - begin, 3)
        self.assertEqual(server.close(), 0)

    def test_a_body_in_flight_is_still_taken(self):
        server = self.start()
        client = server.connect()
        client.send(b"POST /echo HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n\r\na")
        time.sleep(0.1)
        server.drain()
        time.sleep(0.1)
        client.send(b"bc")
        self.assertEqual(client.answer().header("Connection"), "close")
        client.close()
        self.assertEqual(server.close(), 0)


if __name__ == "__main__":
    unittest.main()
