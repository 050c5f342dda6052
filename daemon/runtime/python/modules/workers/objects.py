# SPDX-License-Identifier: Apache-2.0
"""Durable objects from both sides: namespaces, ids and stubs; and what an object is given."""

from __future__ import annotations

from typing import Any

import _durabled
from durabled_host import current, gate, history
from durabled_host import http as _http
from durabled_host.current import NoObject, NotSupported, StubError

from .http import Response, make_request


def _missing(what: str) -> NotSupported:
    return NotSupported(f"{what} is not there in this version of durabled")


class DurableObjectId:
    """The id of an object: 64 hexadecimal digits, and the name it was made of, if any."""

    __slots__ = ("_class_index", "_hex", "name")

    def __init__(self, class_index: int, hex_id: str, name: str | None = None):
        self._class_index = class_index
        self._hex = hex_id
        self.name = name

    def toString(self) -> str:  # noqa: N802 - Cloudflare's name
        return self._hex

    to_string = toString

    def __str__(self) -> str:
        return self._hex

    def __repr__(self) -> str:
        return f"DurableObjectId({self._hex})"

    def equals(self, other: Any) -> bool:
        return isinstance(other, DurableObjectId) and other._hex == self._hex

    def __eq__(self, other: object) -> bool:
        return self.equals(other)

    def __hash__(self) -> int:
        return hash(self._hex)


class DurableObjectNamespace:
    """env.BINDING: the objects of one class."""

    __slots__ = ("_binding", "_class_index")

    def __init__(self, binding: str, class_index: int):
        self._binding = binding
        self._class_index = class_index

    def idFromName(self, name: str) -> DurableObjectId:  # noqa: N802
        if not isinstance(name, str):
            raise TypeError(f"An object's name is a str, not {type(name).__name__}")
        hex_id = _durabled.id_from_name(self._class_index, name)
        return DurableObjectId(self._class_index, hex_id, name)

    def idFromString(self, text: str) -> DurableObjectId:  # noqa: N802
        text = str(text)
        _durabled.id_check(self._class_index, text)
        return DurableObjectId(self._class_index, text.lower())

    def newUniqueId(self, options: Any = None, **more: Any) -> DurableObjectId:  # noqa: N802
        if options or more:
            raise _missing("newUniqueId() with a jurisdiction")
        return DurableObjectId(self._class_index, _durabled.id_new(self._class_index))

    def get(self, id: DurableObjectId, options: Any = None, **_: Any) -> "DurableObjectStub":
        # A location hint is a hint: there is one place.
        if not isinstance(id, DurableObjectId):
            raise TypeError(
                f"{self._binding}.get() takes a DurableObjectId, as idFromName() gives, not "
                f"{type(id).__name__}"
            )
        if id._class_index != self._class_index:
            raise TypeError(f"This id belongs to another class than the binding {self._binding}")
        return DurableObjectStub(id)

    def getByName(  # noqa: N802
        self, name: str, options: Any = None, **_: Any
    ) -> "DurableObjectStub":
        return DurableObjectStub(self.idFromName(name))

    def jurisdiction(self, _name: str) -> Any:
        raise _missing("A namespace's jurisdiction()")

    id_from_name = idFromName
    id_from_string = idFromString
    new_unique_id = newUniqueId
    get_by_name = getByName

    def __repr__(self) -> str:
        return f"DurableObjectNamespace({self._binding})"


class DurableObjectStub:
    """Stands for an object wherever it runs; fetch() calls it."""

    __slots__ = ("id",)

    def __init__(self, id: DurableObjectId):
        self.id = id

    @property
    def name(self) -> str | None:
        return self.id.name

    async def fetch(self, resource: Any, init: Any = None, **options: Any) -> Response:
        """The object's response; its body stays where it is until it is read."""
        if init is not None:
            options = {**dict(init), **options}
        run = current.current_run()
        if run is None or run.over:
            raise NoObject("A stub is called while an event runs, and none does here")
        data = make_request(resource, options)
        if data.used:
            raise TypeError("Body already used: a request that was read cannot be passed on")
        has_body = data.has_body()
        body = data.body() if has_body else b""
        if has_body and getattr(resource, "_data", None) is not None:
            resource._data.used = True
        call = _durabled.fetch(
            run.event,
            self.id._class_index,
            self.id._hex,
            self.id.name,
            data.method,
            data.url,
            data.headers.pairs,
            body,
        )
        await _http.call_head(call)
        response = _http.ResponseData(call.status, call=call)
        response.url = data.url
        return Response.of(response)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise _missing(f"Calling methods of objects ({name}(): RPC), other than fetch(),")

    def __repr__(self) -> str:
        return f"DurableObjectStub({self.id})"


class Env:
    """Bindings and variables of the app, as attributes and as items."""

    def __init__(self, values: dict):
        self.__dict__.update(values)

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __iter__(self):
        return iter(self.__dict__)

    def get(self, name: str, default: Any = None) -> Any:
        return self.__dict__.get(name, default)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"env has no {name}: it is neither a binding nor a variable of the manifest"
        )

    def __repr__(self) -> str:
        return f"Env({', '.join(sorted(self.__dict__))})"


def make_env(app: Any) -> Env:
    from js import to_js_value

    values = {name: to_js_value(value) for name, value in app.vars.items()}
    for name, class_index in app.bindings.items():
        values[name] = DurableObjectNamespace(name, class_index)
    return Env(values)


def wait_until(awaitable: Any) -> None:
    """The event ends only when the awaitable has; the response does not wait for it."""
    run = current.current_run()
    if run is None or run.over:
        raise NoObject("wait_until() is called while an event runs, and none does here")
    run.wait_until(awaitable)


class ExecutionContext:
    """ctx of an entrypoint."""

    props: dict = {}

    def waitUntil(self, awaitable: Any) -> None:  # noqa: N802
        wait_until(awaitable)

    wait_until = waitUntil

    def passThroughOnException(self) -> None:  # noqa: N802
        raise _missing("ctx.passThroughOnException()")


class Storage:
    """ctx.storage of the object whose step runs."""

    def __init__(self):
        from durabled_host.sql import SqlStorage

        self.sql = SqlStorage()

    async def sync(self) -> None:
        """Waits until everything written so far is on disk."""
        gate.sync()

    async def getCurrentBookmark(self) -> str:  # noqa: N802
        """The bookmark of now: of all that the object has written so far."""
        return history.bookmark()

    async def getBookmarkForTime(self, timestamp: Any) -> str:  # noqa: N802
        """Of the last write at or before then: milliseconds since 1970, or a datetime."""
        return history.bookmark_for_time(timestamp)

    async def onNextSessionRestoreBookmark(self, bookmark: str) -> str:  # noqa: N802
        """
        The object is what it was at the bookmark when it next starts: call ctx.abort() to have
        that now. Gives the bookmark that undoes it.
        """
        return history.restore_at_next_session(bookmark)

    get_current_bookmark = getCurrentBookmark
    get_bookmark_for_time = getBookmarkForTime
    on_next_session_restore_bookmark = onNextSessionRestoreBookmark

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise _missing(f"ctx.storage.{name}() (ctx.storage.sql is)")


class DurableObjectState:
    """ctx of an object."""

    def __init__(self, obj: Any):
        self.id = DurableObjectId(obj.class_index, obj.id, obj.name)
        self.storage = Storage()
        self.props: dict = {}

    def waitUntil(self, awaitable: Any) -> None:  # noqa: N802
        wait_until(awaitable)

    wait_until = waitUntil

    def abort(self, reason: Any = None) -> None:
        """Ends this event, cancels the object's others; the next one starts a new instance."""
        run = current.current_run()
        if run is None or run.over:
            raise NoObject("ctx.abort() is called while an event runs, and none does here")
        history.abort(run, reason)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise _missing(f"ctx.{name}()")


class DurableObject:
    """The base of an app's durable objects."""

    def __init__(self, ctx: Any, env: Any):
        self.ctx = ctx
        self.env = env

    async def fetch(self, request: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no fetch()")


class WorkerEntrypoint:
    """The base of the class Default, to which requests come."""

    def __init__(self, ctx: Any, env: Any):
        self.ctx = ctx
        self.env = env

    async def fetch(self, request: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no fetch()")


__all__ = [
    "DurableObject",
    "DurableObjectId",
    "DurableObjectNamespace",
    "DurableObjectState",
    "DurableObjectStub",
    "Env",
    "ExecutionContext",
    "StubError",
    "WorkerEntrypoint",
    "make_env",
    "wait_until",
]
