# SPDX-License-Identifier: Apache-2.0
"""The output gate for what leaves an object by sockets of its own (requests, smtplib, ...).

An answer waits until what the object had committed is on disk; so does whatever it sends elsewhere.
CPython tells of connect, sendto and sendmsg by audit events; send and sendall are wrapped. What a C
extension sends with calls of its own cannot be seen: it uses ctx.storage.sync().
"""

from __future__ import annotations

import functools
import socket
import sys

import _durabled

from . import current

_AUDITED = frozenset(("socket.connect", "socket.sendto", "socket.sendmsg"))


def sync() -> None:
    """Waits until the current object's commits are durable; nothing to do without an object."""
    obj = current.current_object()
    if obj is not None:
        _durabled.sync(obj.path)


def _audit(event: str, _) -> None:
    if event in _AUDITED:
        sync()


def _gated(method):
    @functools.wraps(method)
    def call(*arguments, **named):
        sync()
        return method(*arguments, **named)

    return call


def install() -> None:
    sys.addaudithook(_audit)
    for name in ("send", "sendall", "sendfile"):
        setattr(socket.socket, name, _gated(getattr(socket.socket, name)))
    try:
        import ssl
    except ImportError:
        return
    for name in ("send", "sendall", "sendfile"):
        setattr(ssl.SSLSocket, name, _gated(getattr(ssl.SSLSocket, name)))
