# SPDX-License-Identifier: Apache-2.0
"""stdout and stderr of guests: whole lines to the log, each with the object that printed it."""

from __future__ import annotations

import io
import sys
import threading

import _durabled

from .current import current_object

LINE_MAX = 16 * 1024
INFO, WARNING, ERROR = 6, 4, 3  # as syslog numbers them


class _Bytes(io.RawIOBase):
    def __init__(self, text: "LogWriter"):
        self._text = text

    def writable(self):
        return True

    def write(self, data):
        self._text.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)


class LogWriter(io.TextIOBase):
    """A text stream without a file: a line is logged at its end, at 16 KiB, or at flush_line()."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, level: int):
        self._level = level
        self._parts = threading.local()
        self.buffer = _Bytes(self)

    def writable(self):
        return True

    def isatty(self):
        return False

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() takes a str, not {type(text).__name__}")
        obj = current_object()
        held, of = getattr(self._parts, "value", ("", None))
        if held and of is not obj:
            # A half line of another object: it is finished here rather than mixed into this one.
            self._log(of, held)
            held = ""
        *lines, rest = (held + text).split("\n")
        for line in lines:
            self._log(obj, line)
        while len(rest) > LINE_MAX:
            self._log(obj, rest[:LINE_MAX])
            rest = rest[LINE_MAX:]
        self._parts.value = (rest, obj)
        if rest:
            _unfinished.add(self)
        return len(text)

    def flush_line(self):
        held, of = getattr(self._parts, "value", ("", None))
        if held:
            self._parts.value = ("", None)
            self._log(of, held)

    def _log(self, obj, line):
        _durabled.log(self._level, obj, line)


def install() -> None:
    sys.stdout = LogWriter(INFO)
    sys.stderr = LogWriter(WARNING)


# Writers that may hold half a line, so that a step which printed nothing asks nobody.
_unfinished: set = set()


def flush() -> None:
    if _unfinished:
        for stream in tuple(_unfinished):
            stream.flush_line()
