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
from .current import StubError
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
NO_ROOM_SECONDS = 10.0
_no_room_until = 0.0
_no_room_count = 0


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
    seen: set = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL_ERRORS:
            return True
        if "database or disk is full" in str(error):
            return True
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


def _say_no_room(run) -> None:
    """One line a while: with a full disk every write comes here."""
    global _no_room_until, _no_room_count
    now = time.monotonic()
    if now < _no_room_until:
        _no_room_count += 1
        return
    more = f", as had {_no_room_count} others since the last such line" if _no_room_count else ""
    _no_room_until, _no_room_count = now + NO_ROOM_SECONDS, 0
    event = run.event
    _durabled.log(
        ERROR,
        run.object,
        f"{event.method} {event.path} had no room to write and is answered with 507{more}: the "
        f"disk is full (request {event.id})",
    )


def failure(run, error: BaseException) -> None:
    """Answers an event whose guest code raised."""
    event = run.event
    if isinstance(error, CancelledError) and (run.cancelled or event.cancelled):
        event.abort(503, "The request was cancelled.")
        return
    full = run.was_refused() or is_full(error)
    if not full:
        log_error(run, error, f"{event.method} {event.path}")
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
