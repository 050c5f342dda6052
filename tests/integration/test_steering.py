# SPDX-License-Identifier: Apache-2.0
"""Connections land on the worker that owns the object: by address in the kernel or by hand-off."""

import os
import shutil
import tempfile
import unittest

from daemon import FIXTURES, Client, Daemon, copy_project

OBJECTS = 40
ROUNDS = 8


class Steering(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def project(self):
        return copy_project(os.path.join(FIXTURES, "tenants"), self.folder)

    def connect_to_addresses(self, workers):
        with Daemon(self.project(), workers=workers) as daemon:
            if not daemon.status()["steering"]["active"]:
                self.skipTest("no steering in the kernel: " + daemon.status()["steering"]["reason"])
            hits = daemon.status()["steering"]["address"]
            for number in range(OBJECTS):
                where = daemon.address_of("fixture-tenants", "TenantDO", f"tenant-{number}")
                client = Client(daemon.port, where["ipv4"])
                answer = client.get(f"/t/tenant-{number}/")
                self.assertEqual(answer.status, 200, answer.text[:300])
                self.assertEqual(answer.headers["X-Durable-Address"], where["ipv4"])
                client.close()
            workers_now = daemon.all_workers()
            self.assertEqual(daemon.status()["steering"]["address"] - hits, OBJECTS)
            self.assertEqual(sum(w["edge"]["accepted_address"] for w in workers_now), OBJECTS)
            self.assertEqual(sum(w["edge"]["handed_out"] for w in workers_now), 0)
            self.assertEqual(sum(w["edge"]["accepted_internal"] for w in workers_now), 0)

    def test_addresses_lead_to_the_owner_among_two_workers(self):
        self.connect_to_addresses(2)

    def test_addresses_lead_to_the_owner_among_four_workers(self):
        self.connect_to_addresses(4)

    def connect_to_the_port(self, workers):
        with Daemon(self.project(), workers=workers) as daemon:
            for _ in range(ROUNDS):
                for number in range(OBJECTS):
                    answer = daemon.get(f"/t/tenant-{number}/increment/")
                    self.assertEqual(answer.json()["tenant"], f"tenant-{number}")
            handed_out, handed_in = daemon.sum_of("edge", "handed_out"), daemon.sum_of(
                "edge", "handed_in")
            self.assertGreater(handed_out, 0)
            self.assertEqual(handed_out, handed_in)
            self.assertEqual(daemon.sum_of("edge", "hand_off_failed"), 0)

    def test_other_connections_are_handed_to_the_owner_among_two_workers(self):
        self.connect_to_the_port(2)

    def test_other_connections_are_handed_to_the_owner_among_four_workers(self):
        self.connect_to_the_port(4)

    def test_a_keep_alive_connection_changes_the_worker_between_its_requests(self):
        with Daemon(self.project(), workers=2) as daemon:
            for _ in range(ROUNDS):
                for number in range(OBJECTS):
                    daemon.get(f"/t/tenant-{number}/increment/")
            before = daemon.sum_of("edge", "handed_out")
            client = daemon.client()
            for number in range(OBJECTS):
                answer = client.get(f"/t/tenant-{number}/")
                self.assertEqual(answer.json(), {"tenant": f"tenant-{number}", "value": ROUNDS})
            self.assertGreater(daemon.sum_of("edge", "handed_out") - before, OBJECTS // 8)

    def test_without_the_kernel_program_everything_is_served_all_the_same(self):
        with Daemon(self.project(), options=["--steering", "off"]) as daemon:
            steering = daemon.status()["steering"]
            self.assertFalse(steering["active"])
            self.assertTrue(steering["reason"])
            for number in range(OBJECTS):
                answer = daemon.get(f"/t/tenant-{number}/increment/")
                self.assertEqual(answer.json()["value"], 1)
            # User space goes by the address as well, and takes no other than an object's.
            where = daemon.address_of("fixture-tenants", "TenantDO", "tenant-1")["ipv4"]
            if where:
                self.assertEqual(Client(daemon.port, where).get("/t/tenant-1/").status, 200)
                self.assertEqual(Client(daemon.port, "127.9.9.9").get("/t/tenant-1/").status, 421)


if __name__ == "__main__":
    unittest.main()
