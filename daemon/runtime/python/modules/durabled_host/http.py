# SPDX-License-Identifier: Apache-2.0
"""Requests, responses and headers as data, shared by the modules `workers` and `js`.

Both of those are views of the classes here. A request's parts are taken from the event on first
use: a request that an entrypoint only passes on costs no parsing in Python.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Iterable, Iterator

import _durabled

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
NULL_BODY = frozenset({101, 204, 205, 304})
# Names that most responses have.
_NAMES = frozenset(
    {"Content-Type", "Content-Length", "Cache-Control", "Expires", "Last-Modified", "Location"}
    | {"Set-Cookie", "Vary", "ETag", "X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy"}
    | {"Cross-Origin-Opener-Policy", "Content-Language", "Content-Disposition", "Allow"}
)


class HeaderList:
    """Header fields in order, names without case, several of one name kept apart."""

    __slots__ = ("pairs",)

    def __init__(self, init: Any = None):
        self.pairs: list[tuple[str, str]] = []
        if init is not None:
            for name, value in header_pairs(init):
                self.append(name, value)

    @classmethod
    def trusted(cls, pairs: list) -> "HeaderList":
        """Takes pairs that were checked before; the list is the new HeaderList's own."""
        self = cls.__new__(cls)
        self.pairs = pairs
        return self

    def append(self, name: Any, value: Any) -> None:
        self.pairs.append((check_name(name), check_value(name, value)))

    def set(self, name: Any, value: Any) -> None:
        name, value = check_name(name), check_value(name, value)
        lower = name.lower()
        at = next((i for i, p in enumerate(self.pairs) if p[0].lower() == lower), None)
        if at is None:
            self.pairs.append((name, value))
            return
        rest = [p for p in self.pairs[at + 1 :] if p[0].lower() != lower]
        self.pairs[at:] = [(name, value), *rest]

    def delete(self, name: str) -> None:
        lower = str(name).lower()
        self.pairs[:] = [p for p in self.pairs if p[0].lower() != lower]

    def get_all(self, name: str) -> list[str]:
        lower = str(name).lower()
        return [v for n, v in self.pairs if n.lower() == lower]

    def get(self, name: str, default: Any = None) -> Any:
        found = self.get_all(name)
        if not found:
            return default
        return found[0] if len(found) == 1 else ", ".join(found)

    def has(self, name: str) -> bool:
        lower = str(name).lower()
        return any(n.lower() == lower for n, _ in self.pairs)

    def names(self) -> list[str]:
        return list(dict.fromkeys(n.lower() for n, _ in self.pairs))

    def copy(self) -> "HeaderList":
        return HeaderList.trusted(list(self.pairs))

    def merge_default(self, name: str, value: str) -> None:
        if not self.has(name):
            self.pairs.append((name, value))


def check_name(name: Any) -> str:
    if name in _NAMES:
        return name
    if not isinstance(name, str):
        name = str(name)
    if not TOKEN.match(name):
        raise TypeError(f"Invalid header name: {name!r}")
    return name


def check_value(name: Any, value: Any) -> str:
    if type(value) is str and value.isascii() and value.isprintable():
        return value.strip(" ")
    value = (value if isinstance(value, str) else str(value)).strip(" \t\r\n")
    if "\n" in value or "\r" in value or "\0" in value:
        raise TypeError(f"Invalid value of the header {name}: it contains a line break or NUL")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        # The wire has bytes: what is beyond latin-1 goes out as UTF-8.
        value = value.encode("utf-8").decode("latin-1")
    return value


def header_pairs(init: Any) -> Iterable[tuple[Any, Any]]:
    """The fields of whatever people pass as headers=."""
    core = getattr(init, "_header_list", None)
    if core is not None:
        return list(core.pairs)
    if isinstance(init, HeaderList):
        return list(init.pairs)
    items = getattr(init, "items", None)
    if items is not None:
        return list(items())
    if isinstance(init, (str, bytes)):
        raise TypeError("headers must be a mapping or a list of pairs, not a string")
    pairs = []
    for pair in init:
        pair = tuple(pair)
        if len(pair) != 2:
            raise TypeError("headers must be a mapping or a list of (name, value) pairs")
        pairs.append(pair)
    return pairs


class RequestData:
    """One request. Parts not given are the event's, taken on first use."""

    __slots__ = ("event", "_method", "_url", "_headers", "_body", "used")

    def __init__(self, event=None, method=None, url=None, headers=None, body=None):
        self.event = event
        self._method = method
        self._url = url
        self._headers = headers
        self._body = body
        self.used = False

    @property
    def method(self) -> str:
        if self._method is None:
            self._method = self.event.method if self.event is not None else "GET"
        return self._method

    @property
    def url(self) -> str:
        if self._url is None:
            self._url = self.event.url
        return self._url

    @property
    def headers(self) -> HeaderList:
        if self._headers is None:
            pairs = list(self.event.headers) if self.event is not None else []
            self._headers = HeaderList.trusted(pairs)
        return self._headers

    @property
    def is_event(self) -> bool:
        """Nothing was replaced: the parts can be read from the event."""
        return self.event is not None and self._body is None

    def has_body(self) -> bool:
        if self._body is not None:
            return bool(self._body)
        return self.event is not None and self.event.content_length != 0

    def body(self) -> bytes:
        if self._body is None:
            self._body = bytes(self.event.body()) if self.event is not None else b""
        return self._body

    def take_body(self) -> bytes:
        if self.used:
            raise TypeError("Body already used: it can be read once; use clone() before reading")
        body = self.body()
        self.used = bool(body)
        return body

    def clone(self) -> "RequestData":
        if self.used:
            raise TypeError("A request whose body was read cannot be cloned")
        headers = self._headers.copy() if self._headers is not None else None
        return RequestData(self.event, self._method, self._url, headers, self._body)


class ResponseData:
    """One response: its body is bytes, an iterator of bytes, or still at the object called."""

    __slots__ = ("status", "status_text", "_headers", "body", "stream", "call", "used", "url")

    def __init__(self, status=200, headers=None, body=b"", stream=None, call=None):
        self.status = status
        self.status_text = ""
        self._headers = headers
        self.body = body
        self.stream = stream
        self.call = call
        self.used = False
        self.url = ""

    @property
    def headers(self) -> HeaderList:
        if self._headers is None:
            pairs = list(self.call.headers) if self.call is not None else []
            self._headers = HeaderList.trusted(pairs)
        return self._headers

    @property
    def unchanged_call(self) -> bool:
        """Another object's response as it came: it can be passed on without touching it."""
        call = self.call
        if call is None or self.used or self.status != call.status:
            return False
        return self._headers is None or self._headers.pairs == list(call.headers)

    async def collect(self) -> bytes:
        if self.used:
            raise TypeError("Body already used: it can be read once")
        self.used = True
        if self.call is not None:
            await call_body(self.call)
            self.headers  # noqa: B018 - taken over before the call is let go
            self.body = bytes(self.call.body)
            self.call = None
        elif self.stream is not None:
            stream, self.stream = self.stream, None
            try:
                self.body = b"".join(stream)
            finally:
                close_quietly(stream)
        return self.body

    def close(self) -> None:
        """The response will not be used: whatever it holds is let go."""
        if self.stream is not None:
            stream, self.stream = self.stream, None
            close_quietly(stream)
        if self.call is not None:
            call, self.call = self.call, None
            call.cancel()


def close_quietly(stream: Iterator) -> None:
    close = getattr(stream, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception as error:  # noqa: BLE001 - the answer is already decided
        _durabled.log(4, None, f"close() of a response body failed: {error!r}")


async def call_head(call: Any) -> None:
    from .driver import wait_call

    await wait_call(call, ("head", "complete"))


async def call_body(call: Any) -> None:
    from .driver import wait_call

    call.collect()
    await wait_call(call, ("complete",))


def body_bytes(body: Any, what: str) -> tuple[bytes, str | None]:
    """The bytes of a body as guests pass it, and the content type that its kind implies."""
    if body is None:
        return b"", None
    if isinstance(body, str):
        return body.encode("utf-8"), "text/plain;charset=UTF-8"
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), None
    to_bytes = getattr(body, "to_bytes", None)
    if to_bytes is not None and not isinstance(body, int):
        return to_bytes(), None
    raise TypeError(f"Unsupported type of body in {what}: {type(body).__name__}")


def status_code(status: Any) -> int:
    code = int(status.value if isinstance(status, HTTPStatus) else status)
    if not 200 <= code <= 599 and code != 101:
        raise ValueError(f"Responses take a status from 200 to 599, not {code}")
    return code


def absolute_url(url: Any) -> str:
    text = str(url)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]", text):
        raise TypeError(f"Invalid URL: {text!r} (an absolute one is needed: http://host/path)")
    return text
