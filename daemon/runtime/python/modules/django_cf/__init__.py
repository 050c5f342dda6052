# SPDX-License-Identifier: Apache-2.0
"""durabled's own django_cf: the names of the package of that name, on Django's sqlite3 backend.

Where an app brings the package from PyPI along, its middleware, storage and D1 engine stay
importable: the search continues in its folder after ours.
"""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any

__all__ = ["DjangoCF", "DjangoCFAdapter", "DjangoCFDurableObject", "handle_wsgi"]


def _extend_path(path: list, *parts: str) -> list:
    """Adds the same package's folders further along sys.path, without importing them."""
    own = os.path.abspath(path[0])
    for entry in sys.path:
        place = os.path.join(os.path.abspath(entry or "."), "django_cf", *parts)
        if place != own and place not in path and os.path.isdir(place):
            path.append(place)
    return path


__path__ = _extend_path(list(__path__))


def handle_wsgi(request: Any, app: Any, env: Any = None) -> Any:
    """The app's response; awaitable too, since the package's own is a coroutine."""
    from workers import wsgi

    return wsgi.run(app, request, env)


async def _handle_later(request: Any, app: Any, env: Any) -> Any:
    return handle_wsgi(request, await app, env)


def _fetch(request: Any, app: Any, env: Any) -> Any:
    # Generation A's get_app() is a coroutine function in some versions.
    if inspect.isawaitable(app):
        return _handle_later(request, app, env)
    return handle_wsgi(request, app, env)


class DjangoCF:
    """For an entrypoint that serves Django without an object."""

    def get_app(self) -> Any:
        raise NotImplementedError("get_app() must return the WSGI application")

    async def fetch(self, request: Any) -> Any:
        result = _fetch(request, self.get_app(), self.env)
        return await result if inspect.isawaitable(result) else result


class DjangoCFDurableObject:
    """A durable object that serves Django on its own database."""

    def get_app(self) -> Any:
        raise NotImplementedError("get_app() must return the WSGI application")

    def __init__(self, ctx: Any, env: Any):
        self.ctx = ctx
        self.env = env

    def fetch(self, request: Any) -> Any:
        result = _fetch(request, self.get_app(), self.env)
        return result if inspect.isawaitable(result) else _Answer(result)


class DjangoCFAdapter:
    """Generation A's: DjangoCFAdapter(application).handle_request(request)."""

    def __init__(self, app: Any):
        self.app = app

    async def handle_request(self, request: Any) -> Any:
        return handle_wsgi(request, self.app)


class _Answer:
    """A response that is there, and may be awaited by an override of fetch() that calls super's."""

    __slots__ = ("_response_data",)

    def __init__(self, response: Any):
        self._response_data = response._response_data

    def __await__(self) -> Any:
        from workers import Response

        return Response.of(self._response_data)
        yield

    def __getattr__(self, name: str) -> Any:
        from workers import Response

        return getattr(Response.of(self._response_data), name)
