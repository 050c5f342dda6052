# SPDX-License-Identifier: Apache-2.0
"""Migrations on an object's first event, and the management endpoints an app does not have itself.

`/__run_migrations__/` and `/__create_admin__/` exist for every Django object. Where the app's own
URLs resolve one of them, the app answers it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
import threading
from typing import Any

import _durabled

from . import current
from .http import HeaderList, ResponseData
from .loop import no_running_loop

FINGERPRINT = "django.migrations"
PATHS = ("/__run_migrations__/", "/__create_admin__/")
ENGINES = ("django_cf.db.backends.do", "django_cf.do_binding")

_migrating = threading.Lock()
_fingerprint: str | None = None


def is_django() -> bool:
    """Is Django set up here, and is its default database the object's?"""
    if "django.apps" not in sys.modules:
        return False
    from django.apps import apps
    from django.conf import settings

    if not apps.ready:
        return False
    return settings.DATABASES.get("default", {}).get("ENGINE") in ENGINES


def fingerprint() -> str:
    """Changes whenever an installed app gains or loses a migration."""
    global _fingerprint
    if _fingerprint is None:
        from django.db.migrations.loader import MigrationLoader

        loader = MigrationLoader(None, ignore_no_migrations=True)
        names = sorted(f"{app}.{name}" for app, name in loader.disk_migrations)
        _fingerprint = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return _fingerprint


def _connection():
    """The plain sqlite3 connection to the current object's file, beside or below Django's."""
    from django.db import connections

    wrapper = connections["default"]
    if wrapper.vendor == "sqlite":
        wrapper.ensure_connection()
        return wrapper.connection
    from . import sql

    return sql.connection()


def _get_metadata(key: str) -> Any:
    from . import sql

    with sql.host_access():
        connection = _connection()
        connection.execute(sql.METADATA)
        row = connection.execute("SELECT value FROM _cf_METADATA WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def _set_metadata(key: str, value: str) -> None:
    from . import sql

    with sql.host_access():
        _connection().execute(
            "INSERT INTO _cf_METADATA(key, value) VALUES(?, ?) "
            "ON CONFLICT(key) DO UPDATE SET value = excluded.value",
            (key, value),
        )


def migrate_if_needed(obj) -> bool:
    """Applies the app's migrations when they differ from those applied last."""
    if not is_django():
        return False
    with no_running_loop():
        wanted = fingerprint()
        if _get_metadata(FINGERPRINT) == wanted:
            return False
        migrate()
        _durabled.log(6, obj, "migrations applied")
        return True


def migrate() -> None:
    from django.core.management import call_command

    # Migrations build models in process-wide registries: one object at a time.
    with _durabled.blocking():
        _migrating.acquire()
    try:
        call_command("migrate", interactive=False, verbosity=0)
    finally:
        _migrating.release()
    _set_metadata(FINGERPRINT, fingerprint())


def _resolved_by_app(path: str) -> bool:
    from django.urls import Resolver404, resolve

    try:
        resolve(path)
    except Resolver404:
        return False
    return True


def answer(obj, request) -> ResponseData | None:
    """The answer to a management endpoint, or None when the app has to answer."""
    path = request.path
    if path not in PATHS or not _is_django_object(obj):
        return None
    with no_running_loop():
        if _resolved_by_app(path):
            return None
        if request.method not in ("GET", "POST"):
            return _json(405, status="error", message="Use GET or POST.")
        try:
            return run_migrations() if path == PATHS[0] else create_admin(obj)
        except Exception as error:  # noqa: BLE001 - the template's own views answer so
            current_app = current.require_app()
            _durabled.log(3, obj, f"{path} failed: {error!r}")
            shown = str(error) if current_app.development else "It failed; the log has the reason."
            return _json(500, status="error", message=shown)


def _is_django_object(obj) -> bool:
    instance = obj.instance
    get_app = getattr(instance, "get_app", None)
    if get_app is not None and not is_django():
        wsgi = get_app()
        if hasattr(wsgi, "close"):
            wsgi.close()  # a coroutine: its app is imported by the first fetch()
    return is_django()


def run_migrations() -> ResponseData:
    migrate()
    return _json(200, status="success", message="Migrations applied.")


def create_admin(obj) -> ResponseData:
    from django.contrib.auth import get_user_model

    users = get_user_model()
    name = "admin"
    natural = {users.USERNAME_FIELD: name}
    if users._default_manager.filter(**natural).exists():
        return _json(200, status="info", message=f"Admin user '{name}' already exists.")
    given = current.require_app().admin_password
    password = given or secrets.token_urlsafe(12)
    fields = {field: "" for field in users.REQUIRED_FIELDS}
    if "email" in fields:
        fields["email"] = "admin@example.com"
    users._default_manager.create_superuser(**natural, **fields, password=password)
    message = {"status": "success", "message": f"Admin user '{name}' created."}
    if not given:
        # Made here and told once, to the one who may call this endpoint; nowhere kept in clear.
        message["password"] = password
    return _json(200, **message)


def _json(code: int, **body) -> ResponseData:
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    return ResponseData(code, HeaderList.trusted(headers), json.dumps(body).encode())
