# SPDX-License-Identifier: Apache-2.0
"""Bookmarks for guests: ctx.storage's point-in-time calls, and what is restored at a new session.

A restore that a guest asks for is kept as a row of the object's own database, so that a crash in
between loses nothing. It is done before the next instance is made; what is restored never holds
such a row (lib/store/history.c), so it is done once.
"""

from __future__ import annotations

import datetime
import sqlite3
from typing import Any

import _durabled

from . import sql
from .current import require_object
from .output import ERROR

RESTORE = "restore"  # the row's key; module.c reads it
_UTC = datetime.timezone.utc


class ObjectReset(BaseException):
    """ctx.abort(): ends the step. No Exception, so that an app's own handlers let it pass."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def _nanoseconds(when: Any) -> int:
    """A moment as Cloudflare has it (milliseconds since 1970), or a datetime."""
    if isinstance(when, datetime.datetime):
        if when.tzinfo is None:
            raise ValueError("a datetime needs a time zone here: datetime.now(timezone.utc)")
        delta = when.astimezone(_UTC) - datetime.datetime(1970, 1, 1, tzinfo=_UTC)
        found = (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000
    elif isinstance(when, int) and not isinstance(when, bool):
        found = when * 10**6
    elif isinstance(when, float) and when == when and abs(when) < 1e15:
        found = int(when * 1e6)
    else:
        raise TypeError(
            "a moment is milliseconds since 1970 or a datetime with a time zone, not "
            f"{type(when).__name__}"
        )
    if not 0 <= found < 2**63:
        raise ValueError("the moment is before 1970 or too far ahead")
    return found


def bookmark() -> str:
    return _durabled.bookmark(require_object("ctx.storage.getCurrentBookmark()").path)


def bookmark_for_time(when: Any) -> str:
    obj = require_object("ctx.storage.getBookmarkForTime()")
    return _durabled.bookmark(obj.path, _nanoseconds(when))


def restore_at_next_session(text: Any) -> str:
    obj = require_object("ctx.storage.onNextSessionRestoreBookmark()")
    if not isinstance(text, str):
        raise TypeError(f"a bookmark is a str, not {type(text).__name__}")
    _durabled.check_bookmark(obj.path, text)
    connection = sql.connection()
    try:
        with sql.host_access():
            # A transaction of the app's that is open is this thread's: it would wait for itself.
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute(sql.METADATA)
            connection.execute(
                "INSERT OR REPLACE INTO _cf_METADATA(key, value) VALUES(?, ?)", (RESTORE, text)
            )
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise RuntimeError(
            "onNextSessionRestoreBookmark() is called while a transaction is open: end it first"
        ) from error
    finally:
        with sql.host_access():
            connection.execute(f"PRAGMA busy_timeout = {int(sql.BUSY_SECONDS * 1000)}")
    return _durabled.bookmark(obj.path)


def restore_pending(obj: Any, text: str) -> None:
    """Before the instance is made. What cannot be restored is told, and the object goes on."""
    try:
        _durabled.restore(obj.path, text)
        return
    except ValueError as error:
        _durabled.log(
            ERROR,
            obj,
            f"onNextSessionRestoreBookmark({text!r}): {error}; the object goes on as it is",
        )
    with sql.host_access():
        sql.connection().execute("DELETE FROM _cf_METADATA WHERE key = ?", (RESTORE,))


def abort(run: Any, reason: Any) -> None:
    """The instance is gone after this step, as are the object's events that have begun."""
    require_object("ctx.abort()")
    stepping = run.loop.stepping if run.loop is not None else None
    (stepping or run).event.reset()
    raise ObjectReset("the object was reset" if reason is None else str(reason))
