# SPDX-License-Identifier: Apache-2.0
"""Two hundred tenants, concurrent reads and writes: no row strays, counts are exact."""

import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

from daemon import FIXTURES, Daemon, copy_project

TENANTS = int(os.environ.get("DURABLED_TENANTS", "200"))  # fewer with sanitizers
THREADS = 16
ROUNDS = 10


class Tenants(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def drive(self, daemon, work):
        """THREADS clients take from a queue of (tenant, action); returns what went wrong."""
        jobs, wrong = queue.Queue(), []
        for job in work:
            jobs.put(job)

        def run():
            client = daemon.client()
            try:
                while True:
                    try:
                        tenant, action, expect = jobs.get_nowait()
                    except queue.Empty:
                        return
                    answer = client.get(f"/t/{tenant}/{action}")
                    if answer.status != expect:
                        wrong.append((tenant, action, answer.status, answer.text[:200]))
                    elif expect == 200 and answer.json().get("tenant") != tenant:
                        wrong.append((tenant, action, answer.text[:200]))
            except Exception as error:
                wrong.append(("client", repr(error)))
            finally:
                client.close()

        threads = [threading.Thread(target=run) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return wrong

    def check_isolation(self, daemon, with_rollback):
        names = [f"tenant-{number}" for number in range(TENANTS)]
        wrong = self.drive(daemon, [(name, "increment/", 200) for name in names])
        self.assertEqual(wrong[:5], [])
        work = [(name, "increment/", 200) for name in names for _ in range(ROUNDS)]
        work += [(name, "", 200) for name in names for _ in range(ROUNDS // 2)]
        if with_rollback:
            work += [(name, "fail/", 200) for name in names]
        random.Random(7).shuffle(work)
        self.assertEqual(self.drive(daemon, work)[:5], [])
        client = daemon.client()
        for name in names:
            seen = client.get(f"/t/{name}/rows/").json()
            self.assertEqual(seen["tenant"], name)
            self.assertEqual(seen["value"], ROUNDS + 1, name)
            self.assertEqual(seen["rows"], [[name, number + 1] for number in range(ROUNDS + 1)])

    def test_two_hundred_tenants_stay_apart_and_count_exactly(self):
        project = copy_project(os.path.join(FIXTURES, "tenants"), self.folder)
        with Daemon(project, workers=2) as daemon:
            self.check_isolation(daemon, with_rollback=True)

    def test_four_workers_keep_them_apart_as_well(self):
        project = copy_project(os.path.join(FIXTURES, "tenants"), self.folder)
        with Daemon(project, workers=4) as daemon:
            self.check_isolation(daemon, with_rollback=True)

    def test_the_vendored_real_django_cf_keeps_them_apart_too(self):
        project = copy_project(os.path.join(FIXTURES, "tenants"), self.folder)
        fetched = subprocess.run(
            ["/usr/bin/python3", "-m", "pip", "install", "--quiet", "--no-deps",
             "--ignore-requires-python", "--retries", "1", "--timeout", "15", "--target",
             os.path.join(self.folder, "probe"), "django-cf"],
            capture_output=True, check=False,
        )
        if fetched.returncode != 0:
            self.skipTest("the Python package index does not answer: django-cf cannot be fetched")
        path = os.path.join(project, "wrangler.jsonc")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        start = text.index("{") + 1
        text = text[:start] + '\n  "durabled": {"django_cf": "vendored"},' + text[start:]
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        with open(os.path.join(project, "vendor.txt"), "w", encoding="utf-8") as file:
            file.write("django>=4.2\ndjango-cf\ntzdata\n")
        with Daemon(project, workers=2) as daemon:
            # It has no transactions: nothing to roll back.
            self.check_isolation(daemon, with_rollback=False)


if __name__ == "__main__":
    sys.exit(unittest.main())
