# SPDX-License-Identifier: Apache-2.0
"""Request, Response and Headers as the Python SDK has them."""

from __future__ import annotations

import json as _json
from http import HTTPMethod
from typing import Any, Iterator
from urllib.parse import unquote_to_bytes

from durabled_host import http as _http
from durabled_host.current import NotSupported

_METHODS = {m.value: m for m in HTTPMethod}
_NORMAL = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"})


class Headers:
    """Header fields; iterating gives names, items() pairs, several Set-Cookie stay several."""

    __slots__ = ("_header_list",)

    def __init__(self, init: Any = None):
        self._header_list = _http.HeaderList(init)

    @classmethod
    def of(cls, headers: _http.HeaderList) -> "Headers":
        self = cls.__new__(cls)
        self._header_list = headers
        return self

    @classmethod
    def new(cls, init: Any = None) -> "Headers":
        return cls(init)

    def get(self, name: str, default: Any = None) -> Any:
        return self._header_list.get(name, default)

    def get_all(self, name: str, failobj: Any = None) -> Any:
        return self._header_list.get_all(name) or failobj

    def getSetCookie(self) -> list[str]:  # noqa: N802 - the web's name
        return self._header_list.get_all("set-cookie")

    def append(self, name: str, value: str) -> None:
        self._header_list.append(name, value)

    add_header = append

    def set(self, name: str, value: str) -> None:
        self._header_list.set(name, value)

    def delete(self, name: str) -> None:
        self._header_list.delete(name)

    def has(self, name: str) -> bool:
        return self._header_list.has(name)

    def items(self) -> list[tuple[str, str]]:
        return list(self._header_list.pairs)

    def keys(self) -> list[str]:
        return [name for name, _ in self._header_list.pairs]

    def values(self) -> list[str]:
        return [value for _, value in self._header_list.pairs]

    def entries(self) -> Iterator[tuple[str, str]]:
        return iter(self.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._header_list.pairs)

    def __contains__(self, name: object) -> bool:
        return self._header_list.has(str(name))

    def __getitem__(self, name: str) -> Any:
        # As email.message.Message, which the SDK hands out: None where there is no such field.
        return self._header_list.get(name)

    def __setitem__(self, name: str, value: str) -> None:
        self._header_list.set(name, value)

    def __delitem__(self, name: str) -> None:
        self._header_list.delete(name)

    def __repr__(self) -> str:
        return f"Headers({self._header_list.pairs!r})"


def _method(value: Any) -> str:
    text = str(value.value if isinstance(value, HTTPMethod) else value)
    if not _http.TOKEN.match(text):
        raise TypeError(f"{text!r} is not an HTTP method")
    return text.upper() if text.upper() in _NORMAL else text


def make_request(resource: Any, init: dict) -> _http.RequestData:
    """The request that Request(resource, **init) and fetch(resource, **init) mean."""
    init = dict(init)
    base = getattr(resource, "_data", None)
    if base is None:
        data = _http.RequestData(None, "GET", _http.absolute_url(resource), None, b"")
    elif not init:
        return base.clone() if not base.used else base
    else:
        data = base.clone()
    if init.get("method") is not None:
        data._method = _method(init["method"])
    if init.get("headers") is not None:
        data._headers = _http.HeaderList(init["headers"])
    if init.get("body") is not None:
        data._body, kind = _http.body_bytes(init["body"], "Request")
        if kind is not None:
            data.headers.merge_default("Content-Type", kind)
        if data._body and data.method in ("GET", "HEAD"):
            raise TypeError("Request with a GET or HEAD method cannot have a body.")
    for name in init:
        if name not in _REQUEST_OPTIONS:
            raise TypeError(f"Request() has no option {name!r}")
    return data


_REQUEST_OPTIONS = frozenset(
    {"method", "headers", "body", "redirect", "cf", "cache", "credentials", "mode", "signal"}
    | {"integrity", "keepalive", "referrer", "referrerPolicy", "duplex", "fetcher"}
)


class _Body:
    __slots__ = ()

    async def _take(self) -> bytes:
        raise NotImplementedError

    async def bytes(self) -> Any:
        return await self._take()

    async def text(self) -> str:
        return (await self._take()).decode("utf-8", "replace")

    async def buffer(self) -> Any:
        from js import ArrayBuffer

        return ArrayBuffer(await self._take())

    arrayBuffer = array_buffer = buffer

    async def form_data(self) -> Any:
        raise NotSupported("form_data() is not there in this version of durabled: read bytes()")

    formData = form_data

    async def blob(self) -> Any:
        raise NotSupported("blob() is not there in this version of durabled: read bytes()")


class Request(_Body):
    """An HTTP request."""

    __slots__ = ("_data", "_headers", "_js")

    def __init__(self, input: Any, **options: Any):
        self._data = make_request(input, options)
        self._headers = None
        self._js = None

    @classmethod
    def of(cls, data: _http.RequestData) -> "Request":
        self = cls.__new__(cls)
        self._data = data
        self._headers = None
        self._js = None
        return self

    @property
    def _js_request(self) -> Any:
        if self._js is None:
            from js import Request as JsRequest

            self._js = JsRequest.of(self._data)
        return self._js

    js_object = _js_request

    @property
    def method(self) -> Any:
        name = self._data.method
        return _METHODS.get(name, name)

    @property
    def url(self) -> str:
        return self._data.url

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers.of(self._data.headers)
        return self._headers

    @property
    def cf(self) -> None:
        """Cloudflare's data about the connection: there is none here."""
        return None

    @property
    def body_used(self) -> bool:
        return self._data.used

    bodyUsed = body_used

    @property
    def body(self) -> Any:
        return self._js_request.body

    # The host's own, without a parse of the whole URL.

    @property
    def path_is_management(self) -> bool:
        event = self._data.event
        return event is not None and event.path.startswith("/__")

    @property
    def path(self) -> str:
        event = self._data.event
        if event is not None and self._data._url is None:
            return event.path
        rest = self.url.partition("://")[2]
        at = rest.find("/")
        return rest[at:].partition("?")[0].partition("#")[0] if at >= 0 else "/"

    def decoded_path(self) -> str:
        """As PEP 3333 wants it: each character one byte of the path."""
        return unquote_to_bytes(self.path).decode("latin-1")

    def clone(self) -> "Request":
        return Request.of(self._data.clone())

    async def _take(self) -> bytes:
        return self._data.take_body()

    async def json(self, **options: Any) -> Any:
        return _json.loads(await self._take(), **options)

    def __repr__(self) -> str:
        return f"Request(method={self._data.method!r}, url={self.url!r})"


class _JsonMethod:
    """Response.json(data) makes a response; response.json() reads one."""

    def __get__(self, instance: Any, owner: Any) -> Any:
        return owner.from_json if instance is None else instance._json


class Response(_Body):
    """An HTTP response."""

    __slots__ = ("_response_data", "_headers")

    def __init__(
        self,
        body: Any = None,
        status: Any = None,
        status_text: str = "",
        headers: Any = None,
        web_socket: Any = None,
    ):
        if web_socket is not None:
            raise NotSupported("WebSockets are not there in this version of durabled")
        self._headers = None
        data = getattr(body, "_response_data", None)
        if data is not None:
            if status is not None or status_text or headers is not None:
                raise ValueError("A Response made of another one takes no further arguments")
            self._response_data = data
            return
        data = self._response_data = _http.ResponseData()
        data.status = _http.status_code(200 if status is None else status)
        data.status_text = str(status_text)
        data._headers = _http.HeaderList(headers)
        data.body, kind = _http.body_bytes(body, "Response")
        if body is not None and data.body and data.status in _http.NULL_BODY:
            raise TypeError(f"Response with status {data.status} cannot have a body")
        if kind is not None:
            data.headers.merge_default("Content-Type", kind)

    @classmethod
    def of(cls, data: _http.ResponseData) -> "Response":
        self = cls.__new__(cls)
        self._response_data = data
        self._headers = None
        return self

    @classmethod
    def new(cls, body: Any = None, **options: Any) -> "Response":
        return cls(body, **options)

    @classmethod
    def from_json(
        cls, data: Any, status: Any = 200, status_text: str = "", headers: Any = None
    ) -> "Response":
        to_py = getattr(data, "to_py", None)
        text = _json.dumps(to_py() if to_py is not None else data)
        fields = _http.HeaderList(headers)
        fields.merge_default("Content-Type", "application/json")
        return cls(text, status, status_text, fields)

    @staticmethod
    def redirect(url: Any, status: Any = 302) -> "Response":
        code = _http.status_code(status)
        if code not in (301, 302, 303, 307, 308):
            raise ValueError(f"{code} is not a status of a redirect")
        return Response(None, code, headers=[("Location", str(url))])

    json = _JsonMethod()

    async def _json(self, **options: Any) -> Any:
        return _json.loads(await self._take(), **options)

    async def _take(self) -> bytes:
        return await self._response_data.collect()

    @property
    def status(self) -> int:
        return self._response_data.status

    @property
    def status_text(self) -> str:
        return self._response_data.status_text

    statusText = status_text

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def url(self) -> str:
        return self._response_data.url

    @property
    def redirected(self) -> bool:
        return False

    @property
    def body_used(self) -> bool:
        return self._response_data.used

    bodyUsed = body_used

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers.of(self._response_data.headers)
        return self._headers

    @property
    def js_object(self) -> Any:
        from js import Response as JsResponse

        return JsResponse.of(self._response_data)

    js_response = js_object

    def raise_for_status(self) -> None:
        if self.status >= 400:
            raise OSError(f"Request for {self.url} failed with status {self.status}")

    def replace_body(self, body: Any) -> "Response":
        fields = self._response_data.headers.copy()
        fields.delete("content-length")
        return Response(body, self.status, self.status_text, fields)

    def __repr__(self) -> str:
        return f"Response(status={self.status})"


async def fetch(resource: Any, **options: Any) -> Response:
    raise NotSupported(
        "fetch() to other servers is not there in this version of durabled; an object is called "
        "by its stub: await env.BINDING.get(id).fetch(request)"
    )
