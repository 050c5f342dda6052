# SPDX-License-Identifier: Apache-2.0
"""Which object the running code belongs to, and what the app was loaded with.

The answer is asked for at each use and never kept: one interpreter serves many objects. It lives in
a context variable, so that it follows a coroutine through its tasks; a thread that a guest starts
has a context of its own, hence no object, and is told so instead of being given somebody's data.
"""

from __future__ import annotations

import contextvars
from contextlib import contextmanager
from threading import get_ident
from typing import Any

# Not set: a thread of the guest's. None: the entrypoint, or the app while it is being imported.
_object: contextvars.ContextVar[Any] = contextvars.ContextVar("durabled_object")
# In Object.data: the thread that executes a step of the object, so holds its token.
THREAD = "durabled.thread"
_run: contextvars.ContextVar[Any] = contextvars.ContextVar("durabled_run", default=None)


class NotSupported(NotImplementedError, AttributeError):
    """An API of Cloudflare's that this version does not have: named, never silently ignored."""


class NoObject(RuntimeError):
    """Code that belongs to no object asked for an object's storage."""


class StubError(Exception):
    """A call to another object failed before the object answered."""

    def __init__(self, message: str, status: int = 500, retry_after: int = 0):
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.overloaded = status == 503
        self.retryable = status in (502, 503)
        self.remote = False


class StorageError(Exception):
    """The object's database file cannot be opened; the message names it and says why."""


class AppError(Exception):
    """The app cannot be loaded; the message is for its author."""


def current_object() -> Any:
    """The object whose step runs; None in an entrypoint, in an import and in a guest's thread."""
    return _object.get(None)


def require_object(what: str) -> Any:
    """The current object, or a NoObject error that says what asked and why there is none."""
    found = _object.get(0)
    if found is None:
        raise NoObject(
            f"{what} belongs to a durable object, and this code runs outside of one: in the "
            "entrypoint, or while the app is imported. Do it in the object's fetch()."
        )
    if found == 0:
        raise NoObject(
            f"{what} belongs to a durable object, and this thread belongs to none. Use it in the "
            "object's fetch() and hand the values to the thread."
        )
    if found.data.get(THREAD) != get_ident():
        raise NoObject(
            f"{what} belongs to a durable object that does not run in this thread: use it in the "
            "object's fetch(), not in a thread or an executor."
        )
    return found


def current_run() -> Any:
    return _run.get()


def enter(obj: Any, run: Any) -> None:
    """Says, inside a fresh context, whose code it is going to run."""
    _object.set(obj)
    _run.set(run)


@contextmanager
def as_object(obj: Any):
    """Runs host code for an object whose token this thread holds."""
    token = _object.set(obj)
    before = obj.data.get(THREAD)
    obj.data[THREAD] = get_ident()
    try:
        yield obj
    finally:
        obj.data[THREAD] = before
        _object.reset(token)


class App:
    """What load() was given, and what it made of it."""

    def __init__(self, config: dict):
        self.name = config["app_name"]
        self.directory = config["app_directory"]
        self.main = config["main"]
        self.python_path = list(config.get("python_path") or ())
        self.django_cf = config.get("django_cf") or "ours"
        self.migrate = config.get("migrate") or "auto"
        self.vars = dict(config.get("env") or {})
        self.admin_password = config.get("admin_password")
        self.development = bool(config.get("development"))
        self.classes = list(config.get("classes") or ())
        self.bindings = dict(config.get("bindings") or {})
        self.compatibility_flags = list(config.get("compatibility_flags") or ())
        self.module = None
        self.env = None
        self.types: list = []
        self.entry = None


app: App | None = None


def require_app() -> App:
    if app is None:
        raise NoObject("durabled has not loaded an app in this process")
    return app
