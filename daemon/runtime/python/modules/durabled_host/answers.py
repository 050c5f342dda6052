# SPDX-License-Identifier: Apache-2.0
"""Answers that the host gives in a guest's place: errors, and JSON of the management endpoints."""

from __future__ import annotations

import html
import json
import traceback
from asyncio import CancelledError

import _durabled

from . import current
from .current import StubError
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


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if "database or disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def failure(run, error: BaseException) -> None:
    """Answers an event whose guest code raised."""
    event = run.event
    if isinstance(error, CancelledError) and (run.cancelled or event.cancelled):
        event.abort(503, "The request was cancelled.")
        return
    log_error(run, error, f"{event.method} {event.path}")
    if run.answered:
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
    status, title = 500, "Internal Server Error"
    if _is_full(error):
        # What was read before can still be read: only this write has no room.
        status, title = 507, "Insufficient Storage"
    try:
        event.respond(*error_answer(event, status, title, message, detail))
    except RuntimeError as twice:
        _durabled.log(WARNING, run.object, f"the error could not be answered: {twice}")
        event.abort(500, "The response broke off.")
