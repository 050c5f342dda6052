# SPDX-License-Identifier: Apache-2.0
"""Many objects in one interpreter: what belongs to one never shows up in another."""

import contextvars
import json
import os
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402

RUNNERS = int(os.environ.get("RUNNERS", "3"))


class Tenants(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        path = os.path.join(harness.FIXTURES, "tenants")
        cls.host = harness.load(
            path, classes=["TenantDO"], bindings={"TENANTS": 0}, runners=RUNNERS
        )

    @classmethod
    def tearDownClass(cls):
        cls.host.stop()

    def get(self, tenant, what=""):
        event = self.host.request("GET", f"/t/{tenant}/{what}")
        self.assertEqual(event.status, 200, event.content)
        return json.loads(event.content)

    def test_interleaved_increments_of_many_objects_are_exact(self):
        tenants = [f"many-{i}" for i in range(20)]
        events = [
            self.host.request("GET", f"/t/{t}/increment/", wait=False)
            for _ in range(5)
            for t in tenants
        ]
        self.host.run(*events, seconds=60)
        self.assertEqual({e.status for e in events}, {200})
        for tenant in tenants:
            found = self.get(tenant, "rows/")
            self.assertEqual(found["value"], 5)
            self.assertEqual(found["rows"], [[tenant, n] for n in range(1, 6)])

    def test_a_failed_transaction_leaves_nothing(self):
        self.get("fails", "increment/")
        found = self.get("fails", "fail/")
        self.assertEqual(found["error"], "IntegrityError")
        self.assertEqual((found["before"], found["value"]), (1, 1))
        self.assertEqual(self.get("fails", "rows/")["rows"], [["fails", 1]])

    def test_a_savepoint_rolls_back_alone(self):
        found = self.get("saves", "savepoints/")
        self.assertEqual((found["value"], found["after"]), (1, 1))

    def test_content_types_are_those_of_the_objects_own_database(self):
        for _ in range(2):
            for tenant in ("ct-a", "ct-b", "ct-c"):
                found = self.get(tenant, "contenttype/")
                self.assertEqual(found["cached"], found["wanted"])

    def test_the_current_site_is_the_objects_own(self):
        for _ in range(2):
            for tenant in ("site-a", "site-b"):
                self.assertEqual(self.get(tenant, "site/")["site"], tenant)

    def test_the_default_cache_is_the_objects_own(self):
        for _ in range(2):
            for tenant in ("cache-a", "cache-b"):
                self.assertEqual(self.get(tenant, "cache/")["cached"], tenant)

    def test_an_evicted_object_comes_back_with_its_data(self):
        import durabled_host

        self.get("evicted", "increment/")
        obj = self.host.named("evicted")
        durabled_host.evict(obj)
        self.assertIsNone(obj.instance)
        self.assertEqual(obj.data, {})
        self.assertFalse(os.path.exists(obj.path + "-wal"), "a connection is still open")
        self.assertEqual(self.get("evicted")["value"], 1)

    def test_a_connection_stays_open_between_requests(self):
        self.get("kept")
        obj = self.host.named("kept")
        first = obj.data["durabled.django.connections"]["default"].connection
        self.assertIsNotNone(first)
        self.get("kept")
        self.assertIs(obj.data["durabled.django.connections"]["default"].connection, first)

    def test_the_database_is_durable_wal_with_full_sync(self):
        self.get("pragmas")
        obj = self.host.named("pragmas")
        raw = obj.data["durabled.django.connections"]["default"].connection
        self.assertEqual(raw.execute("PRAGMA journal_mode").fetchone()[0], "wal")
        self.assertEqual(raw.execute("PRAGMA synchronous").fetchone()[0], 2)
        self.assertEqual(raw.execute("PRAGMA foreign_keys").fetchone()[0], 1)

    def test_another_thread_is_told_that_it_has_no_object(self):
        from durabled_host.current import as_object
        from django.core.exceptions import ImproperlyConfigured
        from django.db import connection

        caught = []

        def use():
            try:
                connection.cursor()
            except ImproperlyConfigured as error:
                caught.append(str(error))

        self.get("threads")
        with as_object(self.host.named("threads")):
            thread = threading.Thread(target=use)
            thread.start()
            thread.join()
        use()
        self.assertEqual(len(caught), 2)
        self.assertIn("belongs to a durable object", caught[0])

    def test_a_kept_connection_of_another_object_is_refused(self):
        from durabled_host.current import as_object
        from django.core.exceptions import ImproperlyConfigured
        from django.db import connections

        self.get("mine")
        self.get("yours")
        with as_object(self.host.named("mine")):
            kept = connections["default"]
        with as_object(self.host.named("yours")):
            with self.assertRaisesRegex(ImproperlyConfigured, "another object"):
                kept.cursor()

    def test_migrations_run_once_and_leave_their_fingerprint(self):
        import _durabled
        from durabled_host import management

        self.get("migrated")
        obj = self.host.named("migrated")
        raw = obj.data["durabled.django.connections"]["default"].connection
        key = (management.FINGERPRINT,)
        row = raw.execute("SELECT value FROM _cf_METADATA WHERE key = ?", key).fetchone()
        self.assertEqual(row[0], management.fingerprint())

        def applied():
            return sum(1 for _, o, t in _durabled.logged if o is obj and t == "migrations applied")

        self.assertEqual(applied(), 1)
        import durabled_host

        durabled_host.evict(obj)
        self.get("migrated")
        self.assertEqual(applied(), 1)
        raw = obj.data["durabled.django.connections"]["default"].connection
        raw.execute("UPDATE _cf_METADATA SET value = 'older' WHERE key = ?", key)
        durabled_host.evict(obj)
        self.get("migrated")
        self.assertEqual(applied(), 2)

    def test_the_management_endpoints_exist_where_the_app_has_none(self):
        obj = self.host.named("managed")
        event = self.host.request("GET", "/__run_migrations__/", obj=obj)
        self.assertEqual(
            json.loads(event.content), {"status": "success", "message": "Migrations applied."}
        )
        event = self.host.request("GET", "/__create_admin__/", obj=obj)
        made = json.loads(event.content)
        self.assertEqual(made["status"], "success")
        self.assertGreaterEqual(len(made["password"]), 12)
        again = json.loads(self.host.request("GET", "/__create_admin__/", obj=obj).content)
        self.assertEqual(again["status"], "info")
        self.assertNotIn("password", again)

    def test_a_path_that_nobody_has_stays_the_apps_404(self):
        event = self.host.request("GET", "/__other__/", obj=self.host.named("managed"))
        self.assertEqual(event.status, 404)

    # What Django keeps per thread, such as the active language, is an event's own.

    def test_each_context_has_its_own_values(self):
        from durabled_host.django import ContextLocal

        local = ContextLocal("test")
        one, two = contextvars.Context(), contextvars.Context()
        one.run(setattr, local, "value", 1)
        self.assertEqual(one.run(getattr, local, "value"), 1)
        self.assertFalse(two.run(hasattr, local, "value"))
        copy = one.copy()
        copy.run(setattr, local, "value", 2)
        self.assertEqual(one.run(getattr, local, "value"), 1)
        one.run(delattr, local, "value")
        self.assertFalse(one.run(hasattr, local, "value"))
        self.assertEqual(copy.run(getattr, local, "value"), 2)
        with self.assertRaises(AttributeError):
            two.run(delattr, local, "value")

    def test_django_keeps_language_zone_and_urls_so(self):
        from django.urls import base
        from django.utils import timezone
        from django.utils.translation import trans_real

        from durabled_host.django import ContextLocal

        for local in (base._prefixes, base._urlconfs, timezone._active, trans_real._active):
            self.assertIsInstance(local, ContextLocal)


if __name__ == "__main__":
    unittest.main()
