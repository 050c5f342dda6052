# SPDX-License-Identifier: Apache-2.0
"""Other programs on objects' files: locked out while they are served, harmless if they slip in."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest

from daemon import FIXTURES, Service, copy_project

OBJECTS = 4
KILLS = 60 if os.environ.get("DURABLED_LONG") else 12


class Outsiders(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.project = copy_project(os.path.join(FIXTURES, "ledger"), self.folder)

    def files(self, daemon):
        return sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(os.path.join(daemon.state, "objects"))
            for name in names if name.endswith(".sqlite")
        )

    def add(self, client, number, key):
        answer = client.get(f"/ledger/object-{number}/add/{key}")
        return answer.status == 200 and answer.text == key

    def check(self, daemon, answered):
        client = daemon.client()
        for number in range(OBJECTS):
            held = client.get(f"/ledger/object-{number}/list/-").json()
            self.assertEqual((held["total"], held["strange"]), (len(held["keys"]), 0))
            lost = {key for owner, key in answered if owner == number} - set(held["keys"])
            self.assertEqual(lost, set())
        client.close()

    def check_files(self, daemon):
        for path in self.files(daemon):
            with sqlite3.connect(path) as database:
                self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            database.close()

    def kill_all(self, daemon):
        pids = [worker["pid"] for worker in daemon.all_workers()]
        daemon.process.kill()
        daemon.process.wait()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.01)
        daemon.output.close()

    def shell(self, path, statement):
        done = subprocess.run(["sqlite3", path, statement], capture_output=True, text=True,
                              check=False)
        return done.returncode, done.stdout + done.stderr

    @unittest.skipUnless(shutil.which("sqlite3"), "sqlite3 is not installed")
    def test_the_sqlite3_shell_is_locked_out_of_what_is_served(self):
        with Service(self.project, workers=1) as daemon:
            client = daemon.client()
            self.assertTrue(self.add(client, 0, "one"))
            path, = self.files(daemon)
            copy = os.path.join(self.folder, "copy.sqlite")
            for statement in ("SELECT * FROM entry", "INSERT INTO entry VALUES('x', 'y')",
                              "PRAGMA journal_mode = DELETE", f"VACUUM INTO '{copy}'", "VACUUM",
                              f".backup {copy}", "PRAGMA wal_checkpoint(TRUNCATE)"):
                with self.subTest(statement):
                    status, text = self.shell(path, statement)
                    # The shell's own commands end with 0 whatever happens, a checkpoint with a row.
                    self.assertRegex(text, "locked|^1[|]")
                    self.assertNotIn("one", text)
                    self.assertTrue(status or statement[0] in ".P")
            self.shell(":memory:", f"ATTACH '{path}' AS x; DELETE FROM x.entry")
            self.assertTrue(self.add(client, 0, "two"))
            self.assertEqual(client.get("/ledger/object-0/list/-").json()["keys"], ["one", "two"])
            self.assertEqual(daemon.stop(), 0)
            self.assertEqual(self.shell(path, "SELECT count(*) FROM entry"), (0, "2\n"))
            self.check_files(daemon)

    def test_recovery_waits_for_a_reader_that_came_after_a_kill_and_says_so(self):
        with Service(self.project, workers=1) as daemon:
            client = daemon.client()
            answered = [(count % OBJECTS, f"key-{count}") for count in range(40)]
            for number, key in answered:
                self.assertTrue(self.add(client, number, key))
            client.close()
            self.kill_all(daemon)
            reader = sqlite3.connect(self.files(daemon)[0], isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            daemon.start(wait=False)
            daemon.wait_output("is locked by another program")
            self.assertTrue(all(worker["state"] != "ready" for worker in daemon.try_workers()))
            reader.execute("COMMIT")
            reader.close()
            daemon.wait_ready()
            self.check(daemon, answered)
            self.assertEqual(daemon.stop(), 0)
            self.check_files(daemon)

    def test_readers_that_race_for_the_files_after_each_kill_harm_nothing(self):
        chance, stop, answered, seen = random.Random(5), threading.Event(), [], [0, 0]

        def race(daemon, seed):
            chance = random.Random(seed)
            while not stop.is_set():
                files = self.files(daemon)
                try:
                    database = sqlite3.connect(chance.choice(files), timeout=0,
                                               isolation_level=None)
                    database.execute("BEGIN")
                    database.execute("SELECT count(*) FROM entry").fetchone()
                    seen[0] += 1
                    time.sleep(chance.random() * 0.05)
                except sqlite3.Error:
                    seen[1] += 1
                finally:
                    database.close()
                time.sleep(0.005)

        def write(daemon, seed):
            count, client = 0, None
            while not stop.is_set():
                key = f"{seed}-{count}"
                count += 1
                try:
                    client = client or daemon.client()
                    if self.add(client, count % OBJECTS, key):
                        answered.append((count % OBJECTS, key))
                    else:
                        time.sleep(0.02)
                except Exception:
                    client = None
                    time.sleep(0.02)

        with Service(self.project, workers=2) as daemon:
            client = daemon.client()
            for number in range(OBJECTS):
                self.assertTrue(self.add(client, number, "first"))
            threads = [threading.Thread(target=work, args=(daemon, seed))
                       for seed in range(2) for work in (race, write)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(KILLS):
                    time.sleep(0.3 + chance.random() * 0.3)
                    pids = [worker["pid"] for worker in daemon.try_workers() if worker["pid"]]
                    if pids:
                        os.kill(chance.choice(pids), signal.SIGKILL)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            daemon.wait_ready()
            print(f"# {seen[0]} got in, {seen[1]} did not, {len(answered)} answers", flush=True)
            self.assertGreater(seen[0], 0)
            self.assertGreater(seen[1], 0)
            self.check(daemon, answered)
            self.assertEqual(daemon.stop(), 0)
            self.check_files(daemon)


if __name__ == "__main__":
    unittest.main()
