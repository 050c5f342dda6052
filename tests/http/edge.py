# SPDX-License-Identifier: Apache-2.0
"""What the tests of the edge share: the server as a process, and a client that shows every byte."""

import json
import os
import select
import signal
import socket
import subprocess
import time
import unittest

SERVER = os.environ.get("EDGE_SERVER") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "tests", "http", "edge-server")


class Server:
    def __init__(self, *options):
        # What a sanitizer keeps after free() is no memory of ours.
        env = dict(os.environ)
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
        self.process = subprocess.Popen(
            [SERVER, *options], stdout=subprocess.PIPE, text=True, env=env)
        words = self.process.stdout.readline().split()
        if words[:1] != ["READY"]:
            raise unittest.SkipTest("the server did not start: no io_uring?")
        self.workers = [tuple(map(int, word.split(":"))) for word in words[1:]]
        self.closed = False

    def port(self, n=0):
        return self.workers[n][0]

    def pid(self, n=0):
        return self.workers[n][1]

    def connect(self, n=0, timeout=10, **options):
        return Client(self.port(n), timeout, **options)

    def stats(self, n=0):
        with self.connect(n) as client:
            return json.loads(client.get("/stats").body)

    def rss(self, n=0):
        with open(f"/proc/{self.pid(n)}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def drain(self, n=0):
        os.kill(self.pid(n), signal.SIGTERM)

    def close(self):
        """Drains all; the exit status is 0 unless a worker failed (a sanitizer found something)."""
        if self.closed:
            return 0
        self.closed = True
        for n in range(len(self.workers)):
            try:
                self.drain(n)
            except ProcessLookupError:
                pass
        status = self.process.wait(20)
        self.process.stdout.close()
        return status


class Answer:
    def __init__(self, status, reason, version, headers, body, complete):
        self.status, self.reason, self.version = status, reason, version
        self.headers, self.body, self.complete = headers, body, complete

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return values[0] if values else None

    def field(self, name):
        """A line of /echo's answer."""
        for line in self.body.decode().splitlines():
            if line.startswith(name + " "):
                return line[len(name) + 1:]
        return None


class Closed(Exception):
    pass


class Client:
    def __init__(self, port, timeout=10, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def fill(self):
        data = self.socket.recv(262144)
        if not data:
            raise Closed()
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def exactly(self, n):
        parts, have = [self.buffer], len(self.buffer)
        while have < n:
            data = self.socket.recv(262144)
            if not data:
                raise Closed()
            parts.append(data)
            have += len(data)
        whole = b"".join(parts)
        self.buffer = whole[n:]
        return whole[:n]

    def to_end(self):
        try:
            while True:
                self.fill()
        except Closed:
            data, self.buffer = self.buffer, b""
            return data

    def answer(self, head_only=False):
        version, status, reason = self.line().decode().split(" ", 2)
        headers = []
        while line := self.line():
            name, value = line.decode().split(":", 1)
            headers.append((name, value.strip()))
        answer = Answer(int(status), reason, version, headers, b"", True)
        if head_only or answer.status in (204, 304) or answer.status < 200:
            return answer
        if answer.header("Transfer-Encoding") == "chunked":
            try:
                while size := int(self.line(), 16):
                    answer.body += self.exactly(size)
                    if self.exactly(2) != b"\r\n":
                        raise ValueError("a chunk does not end in CR LF")
                if self.line():
                    raise ValueError("a trailer that was not announced")
            except Closed:
                answer.complete = False
        elif answer.header("Content-Length") is not None:
            try:
                answer.body = self.exactly(int(answer.header("Content-Length")))
            except Closed:
                answer.complete = False
        else:
            answer.body = self.to_end()
        return answer

    def request(self, method, target, body=None, headers=(), version="1.1"):
        lines = [f"{method} {target} HTTP/{version}", "Host: edge.test", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    def get(self, target, headers=(), version="1.1"):
        self.request("GET", target, headers=headers, version=version)
        return self.answer()

    def post(self, target, body, headers=()):
        self.request("POST", target, body, headers)
        return self.answer()

    def is_closed(self, timeout=3):
        """Whether the server closes, in order or by a reset, without sending anything more."""
        self.socket.settimeout(timeout)
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def is_quiet(self, timeout=0.2):
        return not select.select([self.socket], [], [], timeout)[0]


class EdgeCase(unittest.TestCase):
    """A class has one server, with its options; whatever the server's end finds fails the class."""

    options = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.options)

    @classmethod
    def tearDownClass(cls):
        status = cls.server.close()
        if status:
            raise AssertionError(f"the server ended with {status}")

    def connect(self, n=0, **options):
        client = self.server.connect(n, **options)
        self.addCleanup(client.close)
        return client

    def wait_for(self, condition, timeout=5):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.02)
        self.fail("it did not happen in time")
