# SPDX-License-Identifier: Apache-2.0
"""Django's sqlite3 backend on the file of the object whose step runs.

Nothing of Django's is replaced but where the file comes from: transactions, savepoints, constraint
checks and functions are its own. Outside of durabled (manage.py collectstatic, check) the engine
imports and refuses to connect.
"""

from __future__ import annotations

import sys

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.sqlite3 import base as sqlite3
from django.db.utils import OperationalError

try:
    from durabled_host.current import NoObject, current_object, require_object
except ImportError:  # outside of durabled, with this folder alone on the path
    current_object = None

Database = sqlite3.Database

_OUTSIDE = (
    "The database of this project belongs to durable objects, and this process is not durabled: "
    "run the command for one object, `durablectl manage OBJECT -- COMMAND`."
)


class NoObjectDatabase(ImproperlyConfigured, OperationalError):
    """The database was used where there is no object.

    An OperationalError as well: makemigrations goes on after one, and needs no database.
    """


class DatabaseWrapper(sqlite3.DatabaseWrapper):
    display_name = "SQLite (durable object)"

    def __init__(self, settings_dict, alias="default"):
        obj = current_object() if current_object is not None else None
        # The settings are one dictionary for all objects: each wrapper has a copy. A connection
        # stays open between requests, until the host closes the object.
        own = {**settings_dict, "NAME": obj.path if obj is not None else "", "CONN_MAX_AGE": None}
        own.setdefault("OPTIONS", {})
        super().__init__(own, alias)
        self._object_id = obj.id if obj is not None else None

    def get_connection_params(self):
        obj = self._require_object()
        if obj.id != self._object_id:
            raise NoObjectDatabase(
                "A database connection of another object was kept and used here: take "
                "django.db.connection anew in each request."
            )
        return super().get_connection_params()

    def get_new_connection(self, conn_params):
        connection = super().get_new_connection(conn_params)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            connection.execute("PRAGMA " + pragma).close()
        return connection

    def _require_object(self):
        if current_object is None or "_durabled" not in sys.modules:
            raise NoObjectDatabase(_OUTSIDE)
        try:
            return require_object("The database")
        except NoObject as error:
            raise NoObjectDatabase(str(error)) from None

    def _cursor(self, name=None):
        # On an open connection, too: a thread that got hold of it is told that it is not its own.
        obj = self._require_object()
        if self._object_id is not None and obj.id != self._object_id:
            raise NoObjectDatabase(
                "A database connection of another object was kept and used here: take "
                "django.db.connection anew in each request."
            )
        return super()._cursor(name)
