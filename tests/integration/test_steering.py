# SPDX-License-Identifier: Apache-2.0
"""Connections land on the worker that owns the object: by address in the kernel or by hand-off."""

import os
import shutil
import tempfile
import unittest

from daemon import FIXTURES, Client, Daemon, copy_project

OBJECTS = 40
ROUNDS = 8


class Served(unittest.TestCase):
    """One daemon for the tests of a class: its objects are made once."""

    WORKERS = 2
    OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        project = copy_project(os.path.join(FIXTURES, "tenants"), cls.folder)
        cls.daemon = Daemon(project, workers=cls.WORKERS, options=cls.OPTIONS)
        cls.daemon.__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)
        cls.values = {f"tenant-{number}": 0 for number in range(OBJECTS)}

    def increment_all(self):
        """By a connection each."""
        for tenant in self.values:
            answer = self.daemon.get(f"/t/{tenant}/increment/")
            self.values[tenant] += 1
            self.assertEqual(answer.json(), {"tenant": tenant, "value": self.values[tenant]})


class AmongTwo(Served):
    def counters(self):
        return {name: self.daemon.sum_of("edge", name) for name in (
            "accepted_address", "accepted_internal", "handed_out", "handed_in", "hand_off_failed")}

    def test_addresses_lead_to_the_owner(self):
        status = self.daemon.status()["steering"]
        if not status["active"]:
            self.skipTest("no steering in the kernel: " + status["reason"])
        before = self.counters()
        for tenant in self.values:
            where = self.daemon.address_of("fixture-tenants", "TenantDO", tenant)
            client = Client(self.daemon.port, where["ipv4"])
            answer = client.get(f"/t/{tenant}/")
            self.assertEqual(answer.status, 200, answer.text[:300])
            self.assertEqual(answer.headers["X-Durable-Address"], where["ipv4"])
            client.close()
        self.assertEqual(self.daemon.status()["steering"]["address"] - status["address"], OBJECTS)
        after = self.counters()
        before["accepted_address"] += OBJECTS
        self.assertEqual(after, before)

    def test_other_connections_are_handed_to_the_owner(self):
        before = self.counters()
        for _ in range(ROUNDS):
            self.increment_all()
        after = self.counters()
        self.assertGreater(after["handed_out"], before["handed_out"])
        self.assertEqual(after["handed_out"], after["handed_in"])
        self.assertEqual(after["hand_off_failed"], 0)

    def test_a_keep_alive_connection_changes_the_worker_between_its_requests(self):
        self.increment_all()
        before = self.counters()["handed_out"]
        client = self.daemon.client()
        for tenant, value in self.values.items():
            answer = client.get(f"/t/{tenant}/")
            self.assertEqual(answer.json(), {"tenant": tenant, "value": value})
        client.close()
        self.assertGreater(self.counters()["handed_out"] - before, OBJECTS // 8)


class AmongFour(AmongTwo):
    WORKERS = 4


class Without(Served):
    OPTIONS = ("--steering", "off")

    def test_without_the_kernel_program_everything_is_served_all_the_same(self):
        steering = self.daemon.status()["steering"]
        self.assertFalse(steering["active"])
        self.assertTrue(steering["reason"])
        self.increment_all()
        # User space goes by the address as well, and takes no other than an object's.
        where = self.daemon.address_of("fixture-tenants", "TenantDO", "tenant-1")["ipv4"]
        if where:
            port = self.daemon.port
            self.assertEqual(Client(port, where).get("/t/tenant-1/").status, 200)
            self.assertEqual(Client(port, "127.9.9.9").get("/t/tenant-1/").status, 421)


if __name__ == "__main__":
    unittest.main()
