# SPDX-License-Identifier: Apache-2.0
"""ctx.storage.sql: Cloudflare's SQL API on the current object's file.

The object of a call is the one whose step runs, whoever made the SqlStorage. What Cloudflare
refuses is refused by SQLite's authorizer, so no spelling of a statement gets around it.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import Any

from .current import NotSupported, require_object

METADATA = "CREATE TABLE IF NOT EXISTS _cf_METADATA(key TEXT PRIMARY KEY, value BLOB)"
SQL_MAX = 100_000
VALUE_MAX = 2 * 1024 * 1024
BUSY_SECONDS = 5.0

PRAGMAS = frozenset(
    {
        "case_sensitive_like",
        "data_version",  # FTS5 asks for it on the statement's behalf
        "defer_foreign_keys",
        "foreign_key_check",
        "foreign_key_list",
        "foreign_keys",
        "function_list",
        "ignore_check_constraints",
        "index_info",
        "index_list",
        "index_xinfo",
        "legacy_alter_table",
        "optimize",
        "page_count",
        "page_size",
        "pragma_list",
        "quick_check",
        "recursive_triggers",
        "reverse_unordered_selects",
        "table_info",
        "table_list",
        "table_xinfo",
        "writable_schema",
    }
) - {"writable_schema"}

_host = threading.local()


@contextmanager
def host_access():
    """The host's own statements may touch the tables that guests do not see."""
    before = getattr(_host, "on", False)
    _host.on = True
    try:
        yield
    finally:
        _host.on = before


class _Guard:
    """The authorizer of one connection; keeps why it refused, since SQLite does not."""

    def __init__(self):
        self.reason: str | None = None

    def __call__(self, action, first, second, _database, _trigger):
        if getattr(_host, "on", False):
            return sqlite3.SQLITE_OK
        reason = None
        if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT):
            reason = (
                "BEGIN, COMMIT, ROLLBACK, SAVEPOINT and RELEASE are not allowed in sql.exec(): "
                "each call is a transaction of its own"
            )
        elif action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            reason = "ATTACH and DETACH are not allowed: an object has one database"
        elif action == sqlite3.SQLITE_PRAGMA and str(first).lower() not in PRAGMAS:
            reason = f"PRAGMA {first} is not allowed"
        elif action in _TABLE_ACTIONS and str(first).lower().startswith("_cf_"):
            reason = f"the table {first} is durabled's own"
        if reason is None:
            return sqlite3.SQLITE_OK
        self.reason = reason
        return sqlite3.SQLITE_DENY


_TABLE_ACTIONS = frozenset(
    {
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_TRIGGER,
    }
)


def connection() -> sqlite3.Connection:
    """The connection behind the current object's sql.exec(), opened on first use."""
    obj = require_object("ctx.storage.sql")
    found = obj.data.get("durabled.sql")
    if found is None:
        found = sqlite3.connect(
            obj.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        found.execute("PRAGMA journal_mode = WAL")
        found.execute("PRAGMA synchronous = FULL")
        found.execute("PRAGMA foreign_keys = ON")
        guard = obj.data["durabled.sql.guard"] = _Guard()
        found.set_authorizer(guard)
        obj.data["durabled.sql"] = found
    return found


def split(script: str) -> list[str]:
    """The statements of a script, without empty ones."""
    statements, begin = [], 0
    at = script.find(";")
    while at >= 0:
        part = script[begin : at + 1]
        if sqlite3.complete_statement(part):
            statements.append(part)
            begin = at + 1
        at = script.find(";", at + 1)
    statements.append(script[begin:])
    return [s for s in statements if _has_statement(s)]


def _has_statement(text: str) -> bool:
    text = text.strip().rstrip(";").strip()
    while text.startswith(("--", "/*")):
        end, skip = (text.find("\n"), 1) if text.startswith("--") else (text.find("*/"), 2)
        if end < 0:
            return False
        text = text[end + skip :].strip()
    return bool(text)


def _bind(value: Any) -> Any:
    from pyodide.ffi import jsnull

    if value is None or value is jsnull:
        return None
    if isinstance(value, (str, bytes)):
        if len(value) > VALUE_MAX:
            raise _error("a value is larger than 2 MB: SQLITE_TOOBIG")
    return value


def _error(message: str, cause: Exception | None = None) -> Exception:
    from pyodide.ffi import JsException

    error = JsException(message)
    error.__cause__ = cause
    return error


class SqlStorage:
    """Has no state: see connection()."""

    def exec(self, query: str, *bindings: Any) -> "SqlCursor":
        query = str(query)
        if len(query) > SQL_MAX:
            raise _error("the SQL is longer than 100 KB: SQLITE_TOOBIG")
        conn = connection()
        statements = split(query)
        if not statements:
            raise _error("SQL code did not contain a statement")
        before = conn.total_changes
        try:
            for statement in statements[:-1]:
                conn.execute(statement).fetchall()
            cursor = conn.execute(statements[-1], tuple(_bind(b) for b in bindings))
            rows = cursor.fetchall()
        except sqlite3.Error as error:
            raise self._translate(error) from error
        except OverflowError as error:
            raise _error(f"a number does not fit into 64 bits: {error}", error) from error
        names = [d[0] for d in cursor.description or ()]
        return SqlCursor(names, rows, conn.total_changes - before)

    @property
    def databaseSize(self) -> int:  # noqa: N802 - Cloudflare's name
        with host_access():
            conn = connection()
            pages = conn.execute("PRAGMA page_count").fetchone()[0]
            return pages * conn.execute("PRAGMA page_size").fetchone()[0]

    database_size = databaseSize

    @staticmethod
    def _translate(error: sqlite3.Error) -> Exception:
        guard = require_object("ctx.storage.sql").data.get("durabled.sql.guard")
        reason, guard.reason = guard.reason, None
        if reason is not None and ("authorized" in str(error) or "prohibited" in str(error)):
            return _error(f"{reason}: SQLITE_AUTH", error)
        code = getattr(error, "sqlite_errorname", None)
        return _error(f"{error}: {code}" if code else str(error), error)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotSupported(f"storage.sql.{name} is not there in this version of durabled")


class SqlCursor:
    """The rows of the last statement, read once, as dictionaries; raw() has them as lists."""

    def __init__(self, names: list[str], rows: list[tuple], written: int):
        self.columnNames = names  # noqa: N815 - Cloudflare's name
        self._rows = iter(rows)
        self._size = len(rows)
        self.rowsRead = len(rows)  # noqa: N815
        self.rowsWritten = written  # noqa: N815

    column_names = property(lambda self: self.columnNames)
    rows_read = property(lambda self: self.rowsRead)
    rows_written = property(lambda self: self.rowsWritten)

    def _row(self, values: tuple) -> Any:
        from js import Object

        return Object(zip(self.columnNames, values))

    def __iter__(self):
        for values in self._rows:
            yield self._row(values)

    def next(self):
        from js import Object

        for row in self:
            return Object(done=False, value=row)
        return Object(done=True, value=None)

    def toArray(self):  # noqa: N802
        from js import Array

        return Array(self)

    to_array = toArray

    def to_py(self):
        return [dict(row) for row in self]

    def one(self):
        rows = list(self)
        if len(rows) != 1:
            found = "no results" if not rows else "multiple results"
            raise _error(f"Expected exactly one result from SQL query, but got {found}")
        return rows[0]

    def raw(self) -> "RawRows":
        return RawRows(self)


class RawRows:
    """cursor.raw(): the same rows as lists of values in the query's order."""

    def __init__(self, cursor: SqlCursor):
        self._cursor = cursor
        self.columnNames = cursor.columnNames  # noqa: N815

    def __iter__(self):
        for values in self._cursor._rows:
            yield list(values)

    def toArray(self):  # noqa: N802
        from js import Array

        return Array(self)

    to_array = toArray

    def to_py(self):
        return list(self)
