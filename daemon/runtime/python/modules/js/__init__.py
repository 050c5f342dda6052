# SPDX-License-Identifier: Apache-2.0
"""The JavaScript globals that Python Workers use, in Python: durabled has no JavaScript engine.

What django-cf needs is here (Object, Array, Response, Request, Headers, URL, Error, console), and
what is near to it. Anything else raises a NotSupported error with its name.
"""

from __future__ import annotations

import json as _json
import sys as _sys
import time as _time
import traceback as _traceback
from typing import Any
from urllib.parse import quote as _quote
from urllib.parse import parse_qsl as _parse_qsl
from urllib.parse import unquote as _unquote
from urllib.parse import urlsplit as _urlsplit

from durabled_host import http as _http
from durabled_host.current import NotSupported as _NotSupported
from pyodide.ffi import JsException as _JsException
from pyodide.ffi import JsProxy as _JsProxy
from pyodide.ffi import jsnull as _jsnull

_DEFAULT_PORTS = {"http": "80", "https": "443", "ftp": "21", "ws": "80", "wss": "443"}


class _Constructor:
    def __init__(self, name: str):
        self.name = name


class _New:
    """`Class.new(...)` is how Python Workers write JavaScript's `new Class(...)`."""

    __slots__ = ()

    @classmethod
    def new(cls, *args: Any, **kwargs: Any) -> Any:
        return cls(*args, **kwargs)

    @property
    def constructor(self) -> Any:
        return _Constructor(type(self).__name__)


class Object(_New, dict):
    """A JavaScript object: its properties are attributes and items at once."""

    __slots__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value

    @staticmethod
    def fromEntries(entries: Any) -> "Object":  # noqa: N802 - JavaScript's name
        """As JavaScript does; entries of one name that is Set-Cookie are kept apart."""
        found = Object()
        cookies = _Several()
        for key, value in entries:
            if isinstance(key, str) and key.lower() == "set-cookie":
                cookies.append(value)
                value = cookies
            found[key] = value
        return found

    @staticmethod
    def entries(of: Any) -> "Array":
        return Array([list(item) for item in dict(of).items()])

    @staticmethod
    def keys_of(of: Any) -> "Array":
        return Array(dict(of))

    @staticmethod
    def assign(target: Any, *sources: Any) -> Any:
        for source in sources:
            target.update(source)
        return target

    def to_py(self, **_options: Any) -> dict:
        return {k: _to_py(v) for k, v in self.items()}


class _Several(list):
    """Values of one header that must not be joined."""


class Array(_New, list):
    __slots__ = ()

    def __init__(self, *items: Any):
        super().__init__(items[0] if len(items) == 1 and not isinstance(items[0], str) else items)

    @staticmethod
    def isArray(value: Any) -> bool:  # noqa: N802
        return isinstance(value, list)

    @property
    def length(self) -> int:
        return len(self)

    def push(self, *values: Any) -> int:
        self.extend(values)
        return len(self)

    def to_py(self, **_options: Any) -> list:
        return [_to_py(v) for v in self]


def _to_py(value: Any) -> Any:
    return value.to_py() if isinstance(value, (Object, Array)) else value


def to_js_value(value: Any) -> Any:
    """What pyodide.ffi.to_js() gives."""
    if isinstance(value, dict) and not isinstance(value, Object):
        return Object({k: to_js_value(v) for k, v in value.items()})
    if isinstance(value, (list, tuple, set)) and not isinstance(value, Array):
        return Array([to_js_value(v) for v in value])
    if isinstance(value, (bytes, bytearray, memoryview)) and not isinstance(value, ArrayBuffer):
        return Uint8Array(value)
    return value


class ArrayBuffer(_New, bytes):
    def to_bytes(self) -> bytes:
        return bytes(self)

    def to_py(self, **_options: Any) -> memoryview:
        return memoryview(bytes(self))

    def to_memoryview(self) -> memoryview:
        return memoryview(bytes(self))

    def to_string(self, encoding: str = "utf-8") -> str:
        return bytes(self).decode(encoding)

    @property
    def byteLength(self) -> int:  # noqa: N802
        return len(self)


class Uint8Array(ArrayBuffer):
    @property
    def length(self) -> int:
        return len(self)

    @property
    def buffer(self) -> ArrayBuffer:
        return ArrayBuffer(self)


class Headers(_New, _JsProxy):
    """The Fetch API's Headers: iterating gives pairs, as in JavaScript."""

    __slots__ = ("_header_list",)

    def __init__(self, init: Any = None):
        self._header_list = _fill_headers(init)

    @classmethod
    def of(cls, headers: _http.HeaderList) -> "Headers":
        self = cls.__new__(cls)
        self._header_list = headers
        return self

    def append(self, name: Any, value: Any) -> None:
        self._header_list.append(name, value)

    def set(self, name: Any, value: Any) -> None:
        # Code for Cloudflare calls this in a loop over cookies, of which all but the last would be
        # lost. A response's cookies are never replaced by accident: the same cookie's name is.
        if str(name).lower() == "set-cookie":
            _set_cookie(self._header_list, str(value))
        else:
            self._header_list.set(name, value)

    def delete(self, name: Any) -> None:
        self._header_list.delete(name)

    def get(self, name: Any, default: Any = None) -> Any:
        return self._header_list.get(name, default)

    def has(self, name: Any) -> bool:
        return self._header_list.has(name)

    def getSetCookie(self) -> Array:  # noqa: N802
        return Array(self._header_list.get_all("set-cookie"))

    def getAll(self, name: Any) -> Array:  # noqa: N802
        return Array(self._header_list.get_all(name))

    def _entries(self) -> list:
        kept = self._header_list
        found = []
        for name in sorted(kept.names()):
            if name == "set-cookie":
                found += [[name, value] for value in kept.get_all(name)]
            else:
                found.append([name, kept.get(name)])
        return found

    def entries(self) -> Any:
        return iter(self._entries())

    items = entries

    def keys(self) -> Any:
        return iter([pair[0] for pair in self._entries()])

    def values(self) -> Any:
        return iter([pair[1] for pair in self._entries()])

    def __iter__(self):
        return iter(self._entries())

    def __contains__(self, name):
        return self.has(name)

    def forEach(self, callback: Any) -> None:  # noqa: N802
        for name, value in self._entries():
            callback(value, name, self)


def _set_cookie(headers: _http.HeaderList, value: str) -> None:
    cookie = value.partition("=")[0].strip()
    headers.pairs[:] = [
        (n, v)
        for n, v in headers.pairs
        if n.lower() != "set-cookie" or v.partition("=")[0].strip() != cookie
    ]
    headers.append("Set-Cookie", value)


def _fill_headers(init: Any) -> _http.HeaderList:
    headers = _http.HeaderList()
    if init is None or init is _jsnull:
        return headers
    for name, value in _http.header_pairs(init):
        for one in value if isinstance(value, _Several) else (value,):
            headers.append(name, one)
    return headers


class _Body:
    """What Request and Response have in common; each has a _data."""

    __slots__ = ()

    async def _bytes(self) -> bytes:
        raise NotImplementedError

    @property
    def bodyUsed(self) -> bool:  # noqa: N802
        return self._data.used

    async def arrayBuffer(self) -> ArrayBuffer:  # noqa: N802
        return ArrayBuffer(await self._bytes())

    async def bytes(self) -> Uint8Array:
        return Uint8Array(await self._bytes())

    async def text(self) -> str:
        return (await self._bytes()).decode("utf-8", "replace")

    async def json(self) -> Any:
        return to_js_value(_json.loads(await self._bytes()))

    async def formData(self) -> Any:  # noqa: N802
        raise _NotSupported("formData() is not there in this version of durabled: read bytes()")

    async def blob(self) -> Any:
        raise _NotSupported("blob() is not there in this version of durabled: read bytes()")


class Request(_New, _Body, _JsProxy):
    __slots__ = ("_data", "_headers")

    def __init__(self, input: Any, init: Any = None, **options: Any):
        from workers import make_request

        self._data = make_request(input, {**dict(init or {}), **options})
        self._headers = None

    @classmethod
    def of(cls, data: _http.RequestData) -> "Request":
        self = cls.__new__(cls)
        self._data = data
        self._headers = None
        return self

    async def _bytes(self) -> Any:
        return self._data.take_body()

    @property
    def _js_request(self) -> "Request":
        return self

    js_object = _js_request

    @property
    def method(self) -> str:
        return self._data.method

    @property
    def url(self) -> str:
        return self._data.url

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers.of(self._data.headers)
        return self._headers

    @property
    def cf(self) -> Any:
        return None

    @property
    def redirect(self) -> str:
        return "manual"

    @property
    def body(self) -> Any:
        if not self._data.has_body():
            return None
        raise _NotSupported("Request.body as a stream is not there yet: use await bytes()")

    def clone(self) -> "Request":
        return Request.of(self._data.clone())


class Response(_New, _Body, _JsProxy):
    __slots__ = ("_response_data", "_headers")

    def __init__(self, body: Any = None, init: Any = None, **options: Any):
        options = {**dict(init or {}), **options}
        data = self._response_data = _http.ResponseData()
        self._headers = None
        data.status = _http.status_code(options.get("status") or 200)
        data.status_text = options.get("statusText") or ""
        data._headers = _fill_headers(options.get("headers"))
        if options.get("webSocket") is not None:
            raise _NotSupported("WebSockets are not there in this version of durabled")
        if body is not None and body is not _jsnull and data.status in _http.NULL_BODY:
            if len(body):
                raise TypeError(f"Response with status {data.status} cannot have a body")
        data.body, kind = _http.body_bytes(None if body is _jsnull else body, "Response")
        if kind is not None:
            data.headers.merge_default("Content-Type", kind)

    @classmethod
    def of(cls, data: _http.ResponseData) -> "Response":
        self = cls.__new__(cls)
        self._response_data = data
        self._headers = None
        return self

    @property
    def _data(self) -> _http.ResponseData:
        return self._response_data

    async def _bytes(self) -> Any:
        return await self._response_data.collect()

    @property
    def status(self) -> int:
        return self._data.status

    @property
    def statusText(self) -> str:  # noqa: N802
        return self._data.status_text

    @property
    def ok(self) -> bool:
        return 200 <= self._data.status < 300

    @property
    def url(self) -> str:
        return self._data.url

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers.of(self._data.headers)
        return self._headers

    @property
    def js_object(self) -> "Response":
        return self

    @staticmethod
    def redirect(url: Any, status: int = 302) -> "Response":
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"{status} is not a status of a redirect")
        return Response(None, status=status, headers=[("Location", str(url))])


class URL(_New, _JsProxy):
    __slots__ = ("_parts",)

    def __init__(self, url: Any, base: Any = None):
        from urllib.parse import urljoin

        text = str(url) if base is None else urljoin(str(base), str(url))
        self._parts = _urlsplit(_http.absolute_url(text))

    @property
    def href(self) -> str:
        path = self.pathname + self.search + self.hash
        return f"{self.protocol}//{self.host}{path}"

    @property
    def protocol(self) -> str:
        return self._parts.scheme.lower() + ":"

    @property
    def hostname(self) -> str:
        name = self._parts.hostname or ""
        return f"[{name}]" if ":" in name else name

    @property
    def port(self) -> str:
        port = self._parts.port
        if port is None or str(port) == _DEFAULT_PORTS.get(self._parts.scheme.lower()):
            return ""
        return str(port)

    @property
    def host(self) -> str:
        return self.hostname + (":" + self.port if self.port else "")

    @property
    def origin(self) -> str:
        return f"{self.protocol}//{self.host}"

    @property
    def pathname(self) -> str:
        return _quote(self._parts.path or "/", safe="/%:@!$&'()*+,;=~-._[]|^")

    @property
    def search(self) -> str:
        return "?" + self._parts.query if self._parts.query else ""

    @property
    def hash(self) -> str:
        return "#" + self._parts.fragment if self._parts.fragment else ""

    @property
    def searchParams(self) -> "URLSearchParams":  # noqa: N802
        return URLSearchParams(self._parts.query)

    def toString(self) -> str:  # noqa: N802
        return self.href

    __str__ = toString


class URLSearchParams(_New, _JsProxy):
    __slots__ = ("_pairs",)

    def __init__(self, query: Any = ""):
        self._pairs = _parse_qsl(str(query).removeprefix("?"), keep_blank_values=True)

    def get(self, name: str) -> Any:
        return next((v for n, v in self._pairs if n == name), None)

    def getAll(self, name: str) -> Array:  # noqa: N802
        return Array([v for n, v in self._pairs if n == name])

    def has(self, name: str) -> bool:
        return any(n == name for n, _ in self._pairs)

    def __iter__(self):
        return iter([list(p) for p in self._pairs])

    entries = items = __iter__


class Error(_JsException):
    """JavaScript's Error, which Python code raises after Error.new()."""

    stackTraceLimit = 10  # noqa: N815

    def __init__(self, message: Any = ""):
        text = "" if message is None else str(message)
        super().__init__(text)
        self.stack = "".join(_traceback.format_stack()[:-1])
        cause = _sys.exc_info()[1]
        if not text and cause is not None:
            # django-cf raises Error(Error.new().stack) from an except block: keep what happened.
            self.stack = f"{cause}\n{self.stack}"

    @classmethod
    def new(cls, *args: Any) -> "Error":
        return cls(*args)


class _Console:
    @staticmethod
    def _print(stream: Any, values: tuple) -> None:
        print(*values, file=stream)

    def log(self, *values: Any) -> None:
        self._print(_sys.stdout, values)

    info = debug = trace = log

    def error(self, *values: Any) -> None:
        self._print(_sys.stderr, values)

    warn = error


class _ErrorStream:
    """console.error as django-cf passes it for wsgi.errors: a function, and a stream."""

    def __call__(self, *values: Any) -> None:
        print(*values, file=_sys.stderr)

    def write(self, text: str) -> int:
        return _sys.stderr.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        _sys.stderr.flush()


console = _Console()
console.error = console.warn = _ErrorStream()


class Date(_New):
    @staticmethod
    def now() -> int:
        return int(_time.time() * 1000)


class JSON:
    @staticmethod
    def parse(text: str) -> Any:
        return to_js_value(_json.loads(text))

    @staticmethod
    def stringify(value: Any, *_: Any) -> str:
        return _json.dumps(value, separators=(",", ":"))


def encodeURIComponent(text: Any) -> str:  # noqa: N802
    return _quote(str(text), safe="-_.!~*'()")


def decodeURIComponent(text: Any) -> str:  # noqa: N802
    return _unquote(str(text))


undefined = None


async def fetch(resource: Any, init: Any = None, **options: Any) -> Any:
    from workers import fetch as _fetch

    return await _fetch(resource, **{**dict(init or {}), **options})


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    raise _NotSupported(f"js.{name} is not there: durabled has no JavaScript engine")
