# SPDX-License-Identifier: Apache-2.0
"""The built-in module `_durabled`, in Python: what the C side does, small, with the same rules.

A host has events in queues: one at a time executes for an object, any number for the entrypoint.
Runner threads (or the test's own, with run()) take them; ready() makes a suspended one go on.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import hmac
import io
import os
import secrets
import sqlite3
import threading
import time

version = "0-fake"
host = None  # the Host in use
logged: list = []
RESPONSE_MAX = 1 << 20


refusing = breaking = False


def refused():
    return refusing


def broken():
    return breaking


def log(level, obj, text):
    logged.append((level, obj, text))


@contextlib.contextmanager
def blocking():
    current = host
    if current is not None:
        current.baton.release()
    try:
        yield
    finally:
        if current is not None:
            current.baton.acquire()


def stats():
    return {}


def _key(class_index):
    return hashlib.sha256(f"app-{host.config['classes'][class_index]}".encode()).digest()


def _id(class_index, base):
    key = _key(class_index)
    return (base + hmac.new(key, base, hashlib.sha256).digest()[:16]).hex()


def id_from_name(class_index, name):
    digest = hmac.new(_key(class_index), name.encode(), hashlib.sha256).digest()
    return _id(class_index, digest[:16])


def id_new(class_index):
    return _id(class_index, secrets.token_bytes(16))


def id_check(class_index, text):
    if len(text) != 64:
        raise ValueError("an id has 64 hexadecimal digits")
    raw = bytes.fromhex(text)
    if _id(class_index, raw[:16]) != text.lower():
        raise TypeError("this id is another class's")


def open_object(path, name):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS _cf_METADATA(key TEXT PRIMARY KEY, value BLOB)")
    connection.commit()
    pending = connection.execute(PENDING).fetchone()
    connection.close()
    return pending[0] if pending else None


# Bookmarks: each is a copy of the database, under its path and number.

PENDING = "SELECT value FROM _cf_METADATA WHERE key = 'restore'"
moments: dict = {}
asked_times: list = []


def bookmark(path, time_ns=-1):
    if time_ns >= 0:
        asked_times.append(time_ns)
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    with sqlite3.connect(path) as database:
        database.backup(copy)
    text = f"{len(moments):08x}-{hash(path) & 0xffffffff:08x}"
    moments[text] = (path, copy)
    return text


def check_bookmark(path, text):
    if text not in moments or moments[text][0] != path:
        raise ValueError("this is no bookmark of the object")


def restore(path, text):
    check_bookmark(path, text)
    undo = bookmark(path)
    with sqlite3.connect(":memory:") as image:
        moments[text][1].backup(image)
        image.execute("DELETE FROM _cf_METADATA WHERE key = 'restore'")
        image.commit()
        with sqlite3.connect(path) as database:
            image.backup(database)
    return undo


class Object:
    def __init__(self, class_index, class_name, id, name, path):
        self.class_index = class_index
        self.class_name = class_name
        self.id = id
        self.name = name
        self.path = path
        self.instance = None
        self.reset = False
        self.data = {}
        self.queue = collections.deque()
        self.executing = None


def _check_headers(headers):
    checked = []
    for name, value in headers:
        for part in (name, value):
            if not isinstance(part, (str, bytes)):
                raise TypeError("a header is a pair of str or bytes")
            raw = part if isinstance(part, bytes) else part.encode("latin-1")
            if b"\r" in raw or b"\n" in raw or b"\0" in raw:
                raise ValueError(f"invalid header {name!r}")
        checked.append((name, value))
    return checked


class Event:
    def __init__(self, request, obj=None, call=None):
        self.entry = obj is None
        self.object = obj
        self.id = f"r{id(self):x}"
        self.method = request["method"]
        self.url = request["url"]
        self.scheme, _, rest = self.url.partition("://")
        self.authority, slash, target = rest.partition("/")
        self.path, _, self.query = (slash + target).partition("?")
        self.peer = request.get("peer", "127.0.0.1:40000")
        self.headers = list(request["headers"])
        self._body = request["body"]
        self.content_length = len(self._body)
        self.state = None
        self.cancelled = False
        self.status = None
        self.response_headers = []
        self.chunks = []
        self.ended = False
        self.aborted = None
        self.phase = "queued"
        self.early = False
        self.done = threading.Event()
        self.call = call
        self.steps = 0
        self.forwarded = None
        names = {name.lower() for name, _ in self.headers}
        if "host" not in names:
            self.headers.insert(0, ("host", self.authority))
        if self._body and "content-length" not in names:
            self.headers.append(("content-length", str(len(self._body))))

    def body(self):
        return self._body

    def body_file(self):
        return io.BytesIO(self._body)

    def _once(self):
        if self.status is not None or self.aborted or self.forwarded:
            raise RuntimeError("the event has been answered already")

    def respond(self, status, headers, body):
        self._once()
        assert isinstance(body, bytes), type(body)
        self.response_headers = _check_headers(headers)
        self.status = status
        self.chunks.append(body)
        self.end()

    def start(self, status, headers, content_length=-1):
        self._once()
        self.response_headers = _check_headers(headers)
        self.status = status
        if self.call is not None:
            self.call._changed()

    def write(self, data):
        if self.status is None or self.ended:
            raise RuntimeError("write() outside of a response")
        assert isinstance(data, bytes), type(data)
        self.chunks.append(data)

    def end(self):
        self.ended = True
        self._settled()

    def abort(self, status, message, retry_after=0):
        self.aborted = (status, message, retry_after)
        self._settled()

    def forward(self, call):
        self._once()
        self.forwarded = call
        call.source.on_settled(self._take_over)

    def _take_over(self, source):
        self.status, self.response_headers = source.status, source.response_headers
        self.chunks, self.aborted, self.ended = source.chunks, source.aborted, True
        self._settled()

    def on_settled(self, callback):
        self.callbacks = getattr(self, "callbacks", [])
        if self.ended or self.aborted:
            callback(self)
        else:
            self.callbacks.append(callback)

    def _settled(self):
        if self.call is not None:
            self.call._changed()
        for callback in getattr(self, "callbacks", []):
            callback(self)

    def reset(self):
        assert self.phase == "executing" and self.object is not None
        self.object.reset = True

    def ready(self):
        host._ready(self)

    # for tests

    @property
    def content(self):
        return b"".join(self.chunks)

    def header(self, name):
        return [v for n, v in self.response_headers if n.lower() == name.lower()]


class Call:
    def __init__(self, caller):
        self.caller = caller
        self.source = None
        self.collecting = False
        self.cancelled = False
        self._wake = None
        self._seen = "pending"

    @property
    def state(self):
        source = self.source
        if self.cancelled:
            return "failed"
        if source.aborted:
            return "failed"
        if self.collecting:
            return "complete" if source.ended else "head"
        return "head" if source.status is not None else "pending"

    status = property(lambda self: self.source.status)
    headers = property(lambda self: list(self.source.response_headers))
    body = property(lambda self: self.source.content)
    error = property(lambda self: self.source.aborted[1] if self.source.aborted else "cancelled")
    error_status = property(lambda self: self.source.aborted[0] if self.source.aborted else 500)
    retry_after = property(lambda self: self.source.aborted[2] if self.source.aborted else 0)

    @property
    def wake(self):
        return self._wake

    @wake.setter
    def wake(self, value):
        self._wake = value
        if self.state != self._seen:
            self._changed()

    def collect(self):
        self._seen = self.state
        self.collecting = True

    def cancel(self):
        self.cancelled = True

    def _changed(self):
        if self.state == self._seen or self._wake is None:
            return
        self._seen = self.state
        if isinstance(self._wake, Event):
            self._wake.ready()
        else:
            host.queue.put(("call", self))


def fetch(event, class_index, id_hex, name, method, url, headers, body):
    assert isinstance(event, Event) and isinstance(method, str) and isinstance(body, bytes)
    call = Call(event)
    request = {"method": method, "url": url, "headers": _check_headers(headers), "body": body}
    obj = host.object(class_index, id_hex, name)
    call.source = Event(request, obj, call)
    host.deliver(call.source)
    return call


class _Queue:
    def __init__(self):
        self.items = collections.deque()
        self.condition = threading.Condition()

    def put(self, item):
        with self.condition:
            self.items.append(item)
            self.condition.notify()

    def get(self, timeout):
        with self.condition:
            if not self.items and not self.condition.wait_for(lambda: self.items, timeout):
                return None
            return self.items.popleft()


class Host:
    def __init__(self, config, directory, runners=0):
        global host
        host = self
        self.config = config
        self.directory = directory
        self.queue = _Queue()
        self.objects = {}
        self.lock = threading.RLock()
        self.baton = threading.Semaphore(max(1, runners))
        self.crashes = []
        self.stopping = False
        self.threads = [
            threading.Thread(target=self._runner, daemon=True) for _ in range(runners)
        ]
        for thread in self.threads:
            thread.start()

    def object(self, class_index, id_hex, name):
        with self.lock:
            found = self.objects.get((class_index, id_hex))
            if found is None:
                folder = os.path.join(self.directory, str(class_index), id_hex[:2])
                path = os.path.join(folder, id_hex + ".sqlite")
                class_name = self.config["classes"][class_index]
                found = Object(class_index, class_name, id_hex, name, path)
                self.objects[class_index, id_hex] = found
            return found

    def deliver(self, event):
        with self.lock:
            event.phase = "queued"
            obj = event.object
            if obj is None:
                self.queue.put(("start", event))
            else:
                obj.queue.append(("start", event))
                self._next(obj)

    def _next(self, obj):
        if obj.executing is None and obj.queue:
            kind, event = obj.queue.popleft()
            obj.executing = event
            self.queue.put((kind, event))

    def _ready(self, event):
        with self.lock:
            if event.phase == "executing":
                event.early = True
            elif event.phase == "suspended":
                event.phase = "ready"
                if event.object is None:
                    self.queue.put(("resume", event))
                else:
                    event.object.queue.append(("resume", event))
                    self._next(event.object)

    def step(self, kind, event):
        import durabled_host

        if kind == "call":
            durabled_host.call_done(event)
            return
        event.phase = "executing"
        event.steps += 1
        try:
            over = getattr(durabled_host, kind)(event)
        except BaseException as error:
            self.crashes.append(error)
            event.abort(500, f"crash: {error!r}")
            over = True
        with self.lock:
            if event.object is not None:
                event.object.executing = None
            event.phase = "done" if over else "suspended"
            if over:
                if not (event.ended or event.aborted or event.forwarded):
                    event.abort(500, "unanswered")
                event.done.set()
            elif event.early:
                event.early = False
                self._ready(event)
            if event.object is not None and event.object.reset:
                event.object.reset = False
                durabled_host.evict(event.object)
            if event.object is not None:
                self._next(event.object)

    def _runner(self):
        while not self.stopping:
            item = self.queue.get(0.2)
            if item is not None:
                with self.baton:
                    self.step(*item)

    def run(self, *events, seconds=10):
        """Waits until the events are over, stepping here when there are no runners."""
        end = time.monotonic() + seconds
        for event in events:
            while not (event.done.is_set() and (event.ended or event.aborted)):
                if time.monotonic() > end:
                    raise TimeoutError(f"{event.method} {event.url} hangs in {event.phase}")
                if self.threads:
                    event.done.wait(0.01)
                    continue
                item = self.queue.get(0.05)
                if item is not None:
                    with self.baton:
                        self.step(*item)
        if self.crashes:
            raise AssertionError(f"the host crashed: {self.crashes!r}") from self.crashes[0]
        return events[0]

    def request(self, method, url, headers=(), body=b"", obj=None, wait=True, seconds=10):
        if url.startswith("/"):
            url = "http://localhost:8787" + url
        event = Event({"method": method, "url": url, "headers": headers, "body": body}, obj)
        self.deliver(event)
        return self.run(event, seconds=seconds) if wait else event

    def named(self, name, class_index=0):
        return self.object(class_index, id_from_name(class_index, name), name)

    def stop(self):
        import durabled_host

        self.stopping = True
        for thread in self.threads:
            thread.join()
        for obj in self.objects.values():
            durabled_host.evict(obj)
        durabled_host.shutdown()
