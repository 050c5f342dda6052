# SPDX-License-Identifier: Apache-2.0
"""Answers that the host gives in a guest's place: errors, and JSON of the management endpoints."""

from __future__ import annotations

import errno
import html
import json
import time
import traceback
from asyncio import CancelledError

import _durabled

from . import current
from .current import StorageError, StubError
from .history import ObjectReset
from .http import HeaderList, ResponseData
from .output import ERROR, WARNING

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:3rem auto;max-width:60rem;padding:0 1rem}}
pre{{overflow:auto;background:#8881;padding:1rem}}</style>
<h1>{title}</h1>
<p>{message}</p>
{detail}</html>
"""

_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_NO_ROOM = (
    "There is no room on the server's disk for what this request writes. Reading goes on; writing "
    "will, too, as soon as there is room again."
)
SELDOM_SECONDS = 10.0
SELDOM_KEYS_MAX = 1000


def wants_html(event) -> bool:
    for name, value in event.headers:
        if name.lower() == "accept":
            return "text/html" in value.lower()
    return False


def error_answer(event, status: int, title: str, message: str, detail: str | None):
    if wants_html(event):
        shown = f"<pre>{html.escape(detail)}</pre>\n" if detail else ""
        text = _PAGE.format(title=html.escape(title), message=html.escape(message), detail=shown)
        kind = "text/html; charset=utf-8"
    else:
        body = {"error": title, "message": message, "status": status, "request_id": str(event.id)}
        if detail:
            body["traceback"] = detail.splitlines()
        text = json.dumps(body) + "\n"
        kind = "application/json"
    headers = [("Content-Type", kind), ("Cache-Control", "no-store")]
    return status, headers, text.encode("utf-8", "backslashreplace")


def log_error(run, error: BaseException, where: str) -> None:
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    event = run.event
    _durabled.log(ERROR, run.object, f"{where} raised (request {event.id}):\n{text}")


def is_full(error: BaseException | None) -> bool:
    """Was it want of room on a disk that raised this, or what it came of?"""

    def tells(each):
        if isinstance(each, OSError) and each.errno in _FULL_ERRORS:
            return True
        return "database or disk is full" in str(each)

    return _any_of_chain(error, tells)


def _any_of_chain(error: BaseException | None, tells) -> bool:
    seen: set = set()
    while error is not None and id(error) not in seen:
        if tells(error):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def no_room(run, detail: str | None = None) -> tuple[int, list, bytes]:
    """507: what was read before can still be read, and this write has no room."""
    event = run.event
    _say_no_room(run)
    return error_answer(event, 507, "Insufficient Storage", _NO_ROOM, detail)


def no_room_data(run) -> ResponseData:
    status, headers, body = no_room(run)
    return ResponseData(status, HeaderList.trusted(headers), body)


class Seldom:
    """Of lines that every request may cause one a while is logged, for each key."""

    def __init__(self):
        self._seen: dict = {}

    def more(self, key) -> str | None:
        """What to add to the line; None: it is not to be logged."""
        now = time.monotonic()
        until, count = self._seen.get(key, (0.0, 0))
        if now < until:
            self._seen[key] = until, count + 1
            return None
        if len(self._seen) >= SELDOM_KEYS_MAX:
            self._seen.clear()
        self._seen[key] = now + SELDOM_SECONDS, 0
        return f", as did {count} others since the last such line" if count else ""


_no_room_lines = Seldom()
_broken_lines = Seldom()


def _say_no_room(run) -> None:
    event, more = run.event, _no_room_lines.more(None)
    if more is not None:
        _durabled.log(
            ERROR,
            run.object,
            f"{event.method} {event.path} found no room to write{more}: the disk is full, such "
            f"requests are answered with 507 (request {event.id})",
        )


def _log_failure(run, error: BaseException) -> None:
    """What is the storage's fault, the store has told, with the file's name."""
    event = run.event
    if run.broken:
        return
    if not isinstance(error, StorageError):
        log_error(run, error, f"{event.method} {event.path}")
        return
    more = _broken_lines.more(run.object.id)
    if more is not None:
        _durabled.log(
            ERROR,
            run.object,
            f"{event.method} {event.path} failed{more}: {error}; other objects are not concerned "
            f"(request {event.id})",
        )


def failure(run, error: BaseException) -> None:
    """Answers an event whose guest code raised."""
    event = run.event
    if isinstance(error, CancelledError) and (run.cancelled or event.cancelled):
        event.abort(503, "The request was cancelled.")
        return
    if isinstance(error, ObjectReset):
        _durabled.log(WARNING, run.object, f"ctx.abort(): {error.reason}")
        event.abort(500, error.reason)
        return
    full = run.was_refused() or is_full(error)
    if not full:
        _log_failure(run, error)
    if run.answered:
        if full:
            _say_no_room(run)
        event.abort(500, "The response broke off: the app raised while it was being sent.")
        return
    if isinstance(error, StubError):
        event.abort(error.status, error.message, error.retry_after)
        return
    detail = None
    if current.app is not None and current.app.development:
        detail = "".join(traceback.format_exception(error))
        message = "".join(traceback.format_exception_only(error)).strip()
    else:
        message = f"The app could not answer this request (request {event.id})."
    try:
        if full:
            event.respond(*no_room(run, detail))
        else:
            event.respond(*error_answer(event, 500, "Internal Server Error", message, detail))
    except RuntimeError as twice:
        _durabled.log(WARNING, run.object, f"the error could not be answered: {twice}")
        event.abort(500, "The response broke off.")
