# SPDX-License-Identifier: Apache-2.0
"""The one thread that waits for what asyncio waits for: file descriptors and timers.

It runs no guest code. A guest's event loop is a HostLoop (loop.py), stepped on runners; what that
loop would sleep for is left here, and when it happens the loop's wake() asks for a step.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import selectors
import threading
import time


class Reactor:
    def __init__(self):
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._lock = threading.Lock()
        self._timers: list = []
        self._fds: dict = {}
        self._order = itertools.count()
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="durabled-asyncio", daemon=True)
        self._thread.start()

    def wake_at(self, when: float, loop) -> None:
        with self._lock:
            heapq.heappush(self._timers, (when, next(self._order), loop))
            first = self._timers[0][2] is loop
        if first:
            os.eventfd_write(self._wake_fd, 1)

    def arm(self, fd: int, events: int, selector) -> None:
        """Watches fd once: after it fired it is silent until armed again."""
        mask = select.EPOLLONESHOT
        if events & selectors.EVENT_READ:
            mask |= select.EPOLLIN
        if events & selectors.EVENT_WRITE:
            mask |= select.EPOLLOUT
        with self._lock:
            known = fd in self._fds
            self._fds[fd] = selector
        try:
            if known:
                self._epoll.modify(fd, mask)
            else:
                self._epoll.register(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)
        except FileExistsError:
            self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        with self._lock:
            self._fds.pop(fd, None)
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            pass  # it was closed before: the kernel has forgotten it already

    def stop(self) -> None:
        self._stopping = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake_fd)

    def _main(self) -> None:
        while not self._stopping:
            for fd, mask in self._epoll.poll(self._timeout()):
                if fd == self._wake_fd:
                    os.eventfd_read(fd)
                    continue
                with self._lock:
                    selector = self._fds.get(fd)
                if selector is not None:
                    selector.fire(fd, mask)
            self._expire()

    def _timeout(self) -> float:
        with self._lock:
            if not self._timers:
                return -1
            return max(0.0, self._timers[0][0] - time.monotonic())

    def _expire(self) -> None:
        now = time.monotonic()
        due = []
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
        for loop in due:
            loop.wake()


class RemoteSelector(selectors.BaseSelector):
    """What asyncio takes for its selector: the reactor watches, select() only hands over."""

    def __init__(self, loop, get_reactor):
        self._loop = loop
        self._get_reactor = get_reactor
        self._keys: dict = {}
        self._fired: dict = {}
        self._silent: set = set()

    def register(self, fileobj, events, data=None):
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} is already registered")
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        self._get_reactor().arm(fd, events, self)
        return key

    def modify(self, fileobj, events, data=None):
        fd = self.get_key(fileobj).fd
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        self._silent.discard(fd)
        self._get_reactor().arm(fd, events, self)
        return key

    def unregister(self, fileobj):
        key = self._keys.pop(self.get_key(fileobj).fd)
        self._fired.pop(key.fd, None)
        self._silent.discard(key.fd)
        self._get_reactor().forget(key.fd)
        return key

    def get_key(self, fileobj):
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        try:
            return self._keys[fd]
        except KeyError:
            raise KeyError(f"{fileobj!r} is not registered") from None

    def get_map(self):
        return self._keys

    def fire(self, fd: int, mask: int) -> None:
        """On the reactor's thread."""
        self._fired[fd] = mask
        self._loop.wake()

    @property
    def pending(self) -> bool:
        return bool(self._fired)

    def select(self, timeout=None):
        ready = []
        while self._fired:
            fd, mask = self._fired.popitem()
            key = self._keys.get(fd)
            if key is None:
                continue
            events = 0
            if mask & ~select.EPOLLIN:
                events |= selectors.EVENT_WRITE
            if mask & ~select.EPOLLOUT:
                events |= selectors.EVENT_READ
            self._silent.add(fd)
            if events & key.events:
                ready.append((key, events & key.events))
        return ready

    def rearm(self) -> None:
        """At the end of a step: what fired and is still wanted is watched again."""
        for fd in self._silent:
            key = self._keys.get(fd)
            if key is not None:
                self._get_reactor().arm(fd, key.events, self)
        self._silent.clear()

    def close(self):
        for key in list(self._keys.values()):
            self.unregister(key.fd)


_reactor: Reactor | None = None
_lock = threading.Lock()


def get() -> Reactor:
    global _reactor
    with _lock:
        if _reactor is None:
            _reactor = Reactor()
        return _reactor


def stop() -> None:
    global _reactor
    with _lock:
        reactor, _reactor = _reactor, None
    if reactor is not None:
        reactor.stop()
