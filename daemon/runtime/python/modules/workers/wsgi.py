# SPDX-License-Identifier: Apache-2.0
"""Runs a WSGI application (PEP 3333) for a request."""

from __future__ import annotations

import io
import sys
from typing import Any

from durabled_host import http as _http
from durabled_host.loop import no_running_loop

from .http import Request, Response

_PORTS = {"http": "80", "https": "443"}


async def fetch(
    app: Any, request: Any, env: Any = None, ctx: Any = None, *, options: Any = None
) -> Response:
    """The application's response; as Cloudflare's SDK has it."""
    if options is not None:
        from durabled_host.current import NotSupported

        raise NotSupported("options of workers.wsgi.fetch() are not there in this version")
    return run(app, request, env)


def run(app: Any, request: Any, env: Any = None) -> Response:
    """The same without a coroutine: the application runs to its first bytes here and now."""
    if not isinstance(request, Request):
        request = Request.of(request._data)
    state = _Call()
    with no_running_loop():
        result = app(build_environ(request, env), state.start_response)
        try:
            return state.response(result)
        except BaseException:
            _close(result)
            raise


def build_environ(request: Request, env: Any = None) -> dict[str, Any]:
    scheme, _, rest = request.url.partition("://")
    authority = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    host, port = _split_authority(authority)
    data = request._data
    stream, length = _input(data)
    environ = {
        "REQUEST_METHOD": data.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.decoded_path() or "/",
        "QUERY_STRING": rest.partition("#")[0].partition("?")[2],
        "SERVER_NAME": host or "localhost",
        "SERVER_PORT": port or _PORTS.get(scheme, "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": stream,
        "wsgi.errors": sys.stderr,
        # An object is one thread and one process, whatever runs beside it.
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "workers.env": env,
    }
    _add_fields(environ, data.headers.pairs)
    if length:
        environ["CONTENT_LENGTH"] = str(length)
    if data.event is not None:
        peer, peer_port = _split_authority(data.event.peer or "")
        environ["REMOTE_ADDR"] = peer.strip("[]") or "127.0.0.1"
        if peer_port:
            environ["REMOTE_PORT"] = peer_port
    return environ


def _add_fields(environ: dict, pairs: Any) -> None:
    for name, value in pairs:
        if "_" in name or name.lower() == "proxy":
            # X_Forwarded_For would pass for X-Forwarded-For; HTTP_PROXY for a setting.
            continue
        key = name.upper().replace("-", "_")
        if key == "CONTENT_LENGTH":
            continue  # the body's own length is known
        if key != "CONTENT_TYPE":
            key = "HTTP_" + key
        if key not in environ:
            environ[key] = value
        elif key == "HTTP_COOKIE":
            environ[key] += "; " + value
        elif key != "CONTENT_TYPE":
            environ[key] += "," + value


def _input(data: _http.RequestData) -> tuple[Any, int]:
    if data.is_event and data.event.content_length != 0:
        stream = data.event.body_file()
        length = data.event.content_length
        if length < 0:  # it came in chunks
            length = stream.seek(0, io.SEEK_END)
            stream.seek(0)
        return stream, length
    body = data.body() if data.has_body() else b""
    return io.BytesIO(body), len(body)


def _split_authority(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, _, rest = authority.partition("]")
        return host + "]", rest.removeprefix(":")
    if authority.count(":") > 1:
        return authority, ""
    host, _, port = authority.partition(":")
    return host, port


class _Call:
    """What one call of an application said so far."""

    def __init__(self):
        self.status: str | None = None
        self.headers: list = []
        self.written: list[bytes] = []

    def start_response(self, status: str, headers: list, exc_info: Any = None) -> Any:
        if exc_info is not None:
            try:
                if self.written:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AssertionError("start_response() was called twice without exc_info")
        self.status, self.headers = status, list(headers)
        return self.write

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def response(self, result: Any) -> Response:
        streaming = getattr(result, "streaming", None)
        if streaming is None:
            streaming = not isinstance(result, (list, tuple)) and not hasattr(result, "__len__")
        if not streaming:
            # A list, or a Django response that is not streamed: all of it is there.
            body = b"".join([*self.written, *result])
            _close(result)
            return self._make(body, None)
        stream = _Stream(result, self.written)
        stream.prime()
        if self.status is None:
            raise RuntimeError("The application did not call start_response()")
        return self._make(b"", stream)

    def _make(self, body: bytes, stream: Any) -> Response:
        if self.status is None:
            raise RuntimeError("The application did not call start_response()")
        fields = _http.HeaderList()
        for name, value in self.headers:
            fields.append(name, value)
        code, _, reason = self.status.partition(" ")
        data = _http.ResponseData(int(code), fields, body, stream)
        data.status_text = reason
        if data.status in _http.NULL_BODY:
            data.close()
            data.body = b""
        return Response.of(data)


def _close(result: Any) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()


class _Stream:
    """The rest of an application's body, pulled chunk by chunk; close() is the application's."""

    def __init__(self, result: Any, written: list[bytes]):
        self._result = result
        self._iterator = iter(result)
        self._first = list(written)
        self._written = written

    def prime(self) -> None:
        """Many applications call start_response() only with their first bytes."""
        for chunk in self._iterator:
            if chunk:
                self._first = [*self._written, chunk]
                return
        self._first = list(self._written)

    def __iter__(self) -> "_Stream":
        return self

    def __next__(self) -> bytes:
        if self._first:
            return self._first.pop(0)
        with no_running_loop():
            return next(self._iterator)

    def close(self) -> None:
        result, self._result = self._result, None
        if result is not None:
            _close(result)


def entrypoint(app: Any, *, options: Any = None) -> type:
    """The class Default for a WSGI application that needs no object."""
    from .objects import WorkerEntrypoint

    class Default(WorkerEntrypoint):
        async def fetch(self, request: Any) -> Response:
            return await fetch(app, request, self.env, options=options)

    return Default
