# SPDX-License-Identifier: Apache-2.0
"""What Django keeps per process and must keep per object: connections, caches, ContentTypes, Sites.

Each is replaced by storage that asks for the current object at each access. Code outside of an
object (an entrypoint, an import) has a storage of its own, per thread for connections.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import sys
import threading
from collections.abc import MutableMapping
from typing import Any

import _durabled

from . import answers
from .current import current_object, current_run
from .loop import no_running_loop

CONNECTIONS = "durabled.django.connections"
_MARK = "_durabled_patched"


class ObjectLocal:
    """Attributes that each object has for itself; in place of asgiref's Local."""

    def __init__(self, key: str):
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_outside", threading.local())

    def _values(self) -> dict:
        obj = current_object()
        if obj is None:
            return self._outside.__dict__
        values = obj.data.get(self._key)
        if values is None:
            values = obj.data[self._key] = {}
        return values

    def __getattr__(self, name):
        try:
            return self._values()[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        share = getattr(value, "inc_thread_sharing", None)
        if share is not None and current_object() is not None:
            share()  # an object's events run on different threads, one at a time
        self._values()[name] = value

    def __delattr__(self, name):
        try:
            del self._values()[name]
        except KeyError:
            raise AttributeError(name) from None


class ContextLocal:
    """Attributes that each event has for itself; in place of asgiref's Local.

    That one asks on each access which thread and which task it is in, which is a tenth of a small
    request. An event's context is the same for all of its steps, whichever thread they run on.
    """

    def __init__(self, name: str):
        object.__setattr__(self, "_var", contextvars.ContextVar(name))

    def __getattr__(self, name):
        try:
            return self._var.get()[name]
        except LookupError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        # A new dictionary: a task has a copy of the context, and changes its own alone.
        self._var.set({**self._var.get({}), name: value})

    def __delattr__(self, name):
        values = dict(self._var.get({}))
        if name not in values:
            raise AttributeError(name)
        del values[name]
        self._var.set(values)


class ObjectDict(MutableMapping):
    """A dictionary that each object has for itself."""

    def __init__(self, key: str, outside: dict | None = None):
        self._key = key
        self._outside = outside if outside is not None else {}

    def _values(self) -> dict:
        obj = current_object()
        if obj is None:
            return self._outside
        values = obj.data.get(self._key)
        if values is None:
            values = obj.data[self._key] = {}
        return values

    def __getitem__(self, key):
        return self._values()[key]

    def __setitem__(self, key, value):
        self._values()[key] = value

    def __delitem__(self, key):
        del self._values()[key]

    def __iter__(self):
        return iter(self._values())

    def __len__(self):
        return len(self._values())


def _once(patch):
    def run(module):
        if not getattr(module, _MARK, False):
            setattr(module, _MARK, True)
            patch(module)

    return run


@_once
def _patch_db(module) -> None:
    module.connections._connections = ObjectLocal(CONNECTIONS)


@_once
def _patch_urls(module) -> None:
    module._prefixes = ContextLocal("durabled_django_prefixes")
    module._urlconfs = ContextLocal("durabled_django_urlconfs")


@_once
def _patch_active(module) -> None:
    module._active = ContextLocal("durabled_" + module.__name__.replace(".", "_"))


@_once
def _patch_cache(module) -> None:
    module.caches._connections = ObjectLocal("durabled.django.caches")


@_once
def _patch_locmem(module) -> None:
    for name in ("_caches", "_expire_info", "_locks"):
        held = ObjectDict("durabled.django.locmem" + name, getattr(module, name))
        setattr(module, name, held)


@_once
def _patch_contenttypes(module) -> None:
    # The manager's cache maps ids of one database to models. Copies of a manager share their
    # cache, managers made anew (those of migrations) have their own: the number carries that.
    numbers = itertools.count(1)
    store = ObjectDict("durabled.django.contenttypes")

    def get(manager):
        number = manager.__dict__.get("_durabled_number")
        if number is None:
            number = manager._durabled_number = next(numbers)
        return store.setdefault(number, {})

    def put(manager, value):
        manager._durabled_number = next(numbers)
        if value:
            store[manager._durabled_number] = value

    module.ContentTypeManager._cache = property(get, put)
    module.ContentType.objects.__dict__.pop("_cache", None)


@_once
def _patch_sites(module) -> None:
    module.SITE_CACHE = ObjectDict("durabled.django.sites")
    # Django's own clear_cache() puts a plain dictionary in its place.
    module.SiteManager.clear_cache = lambda manager: module.SITE_CACHE.clear()


@_once
def _patch_wsgi(module) -> None:
    handle = module.WSGIHandler.__call__

    def call(self, environ, start_response):
        with no_running_loop():
            return handle(self, environ, start_response)

    module.WSGIHandler.__call__ = call


@_once
def _patch_signals(module) -> None:
    """Django answers what a view raises by itself: here it is seen what that was."""

    def note(sender, **_):
        run = current_run()
        if run is not None and answers.is_full(sys.exc_info()[1]):
            run.full = True

    module.got_request_exception.connect(note, weak=False)
    logging.getLogger("django.request").addFilter(_few_of_want_of_room)


_full_lines = answers.Seldom()


def _few_of_want_of_room(record) -> bool:
    """Of a full disk's tracebacks one in a while: every write has one."""
    if not record.exc_info or not answers.is_full(record.exc_info[1]):
        return True
    return _full_lines.more(None) is not None


PATCHES = {
    "django.db": _patch_db,
    "django.core.cache": _patch_cache,
    "django.core.cache.backends.locmem": _patch_locmem,
    "django.contrib.contenttypes.models": _patch_contenttypes,
    "django.contrib.sites.models": _patch_sites,
    "django.core.handlers.wsgi": _patch_wsgi,
    "django.core.signals": _patch_signals,
    "django.urls.base": _patch_urls,
    "django.utils.timezone": _patch_active,
    "django.utils.translation.trans_real": _patch_active,
}


def object_connections(obj: Any) -> dict:
    return obj.data.get(CONNECTIONS) or {}


def check_step(obj: Any) -> None:
    """A transaction does not outlive its step: other events come between."""
    for alias, connection in object_connections(obj).items():
        if connection.connection is None or not _is_open(connection):
            continue
        _durabled.log(
            4,
            obj,
            f"a transaction on {alias!r} was left open at the end of a step and is rolled back: "
            "close it before an await, and before the response is returned",
        )
        _roll_back(connection)


def _is_open(connection) -> bool:
    if connection.in_atomic_block:
        return True
    return bool(getattr(connection.connection, "in_transaction", False))


def _roll_back(connection) -> None:
    # A fresh connection at the next use is the one state that is surely clean.
    connection.in_atomic_block = False
    connection.savepoint_ids = []
    connection.atomic_blocks = []
    connection.needs_rollback = False
    connection.run_on_commit = []
    connection.closed_in_transaction = False
    connection.close()


def close_object(obj: Any) -> None:
    for connection in object_connections(obj).values():
        try:
            _roll_back(connection)
        except Exception as error:  # noqa: BLE001 - the others must be closed as well
            _durabled.log(3, obj, f"a database connection could not be closed: {error!r}")
