# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random: whatever was answered is there, once, and every database is sound."""

import http.client
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
import unittest

from daemon import FIXTURES, Service, copy_project

OBJECTS = 4  # of each class
MANY = 80  # that are all in the journal
WRITERS = 4
KILLS = 300 if os.environ.get("DURABLED_LONG") else 40
KINDS = "ledger", "book"  # a plain class, and Django


class Kill(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.project = copy_project(os.path.join(FIXTURES, "ledger"), self.folder)

    def write(self, daemon, number, asked, answered, stop):
        """
        Adds keys one after the other. What was not answered may be there or not; half of the time
        the same key is sent until it is answered, and must then be there once.
        """
        chance, count, client, again = random.Random(number), 0, None, None
        while not stop.is_set():
            entry = again or (
                f"{chance.choice(KINDS)}/object-{chance.randrange(OBJECTS)}",
                f"{number:02}-{count:06}",
            )
            count += again is None
            asked.append(entry)
            try:
                client = client or daemon.client()
                answer = client.get(f"/{entry[0]}/add/{entry[1]}")
                if answer.status == 200 and answer.text == entry[1]:
                    answered.append(entry)
                    again = None
                    continue
            except (OSError, http.client.HTTPException):
                client = None
                time.sleep(0.02)
            again = again or (entry if chance.random() < 0.5 else None)

    def children(self, pid):
        """Processes that a stopped one has made, those too that nobody has heard of yet."""
        found = []
        for other in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{other}/stat", encoding="utf-8", errors="replace") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(other))
        return found

    def kill_supervisor(self, daemon):
        daemon.process.send_signal(signal.SIGSTOP)
        pids = self.children(daemon.process.pid)
        daemon.process.kill()
        daemon.process.wait()
        # As a service manager does it: the next start comes when all of them are gone.
        for pid in pids:
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.02)
        daemon.output.close()
        daemon.start()

    def kill_one(self, daemon, chance):
        victims = [worker["pid"] for worker in daemon.try_workers() if worker["pid"]]
        if chance.random() < 0.1 or not victims:
            self.kill_supervisor(daemon)
            return
        try:
            os.kill(chance.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended by itself

    def check(self, daemon, asked, answered):
        """All that was answered and nothing that was not asked for, once, and counted once."""
        client = daemon.client()
        for kind in KINDS:
            for number in range(OBJECTS):
                name = f"{kind}/object-{number}"
                held = client.get(f"/{name}/list/-").json()
                keys = set(held["keys"])
                self.assertEqual(len(held["keys"]), len(keys), name)
                self.assertEqual((held["total"], held["strange"]), (len(keys), 0), name)
                lost = {key for owner, key in answered if owner == name} - keys
                self.assertEqual(lost, set(), f"{name} lost what was answered")
                odd = keys - {key for owner, key in asked if owner == name}
                self.assertEqual(odd, set(), f"{name} has what nobody asked for")

    def test_what_was_answered_survives_kill_9_of_workers_and_supervisor(self):
        chance, stop, asked, answered = random.Random(11), threading.Event(), [], []
        with Service(self.project, workers=2) as daemon:
            threads = [
                threading.Thread(target=self.write, args=(daemon, number, asked, answered, stop))
                for number in range(WRITERS)
            ]
            for thread in threads:
                thread.start()
            try:
                for _ in range(KILLS):
                    time.sleep(chance.random() * 0.4)
                    self.kill_one(daemon, chance)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            daemon.wait_ready()
            self.assertGreater(len(answered), KILLS)
            self.assertEqual({name.partition("/")[0] for name, _ in answered}, set(KINDS))
            self.check(daemon, asked, answered)
            print(f"# {len(asked)} requests, {len(answered)} answered", flush=True)
            state = daemon.state
            self.assertEqual(daemon.stop(), 0)
            for folder, _, files in os.walk(os.path.join(state, "objects")):
                for name in files:
                    if name.endswith(".sqlite"):
                        self.check_file(os.path.join(folder, name))

    def test_objects_are_served_while_others_are_still_to_be_redone(self):
        """Killed in all stages of a recovery, with new commits each time."""
        chance, added = random.Random(12), [[] for _ in range(MANY)]
        with Service(self.project, workers=1) as daemon:
            client = daemon.client()
            for number in range(MANY):
                self.add(client, number, added, "first")
            for count in range(6):
                client.close()
                self.kill_supervisor(daemon)
                daemon.wait_output("each is replayed before it is used")
                client = daemon.client()
                # Not in the order in which they are redone behind.
                for number in chance.sample(range(MANY), 12):
                    self.add(client, number, added, f"round-{count}")
                time.sleep(chance.choice((0, 0.05, 0.2)))
            client.close()
            self.kill_supervisor(daemon)
            client = daemon.client()
            for number in reversed(range(MANY)):
                held = client.get(f"/ledger/many-{number}/list/-").json()
                self.assertEqual((held["keys"], held["strange"]), (sorted(added[number]), 0))
            daemon.wait_output("objects from the journal, up to LSN")
            state = daemon.state
            self.assertEqual(daemon.stop(), 0)
            for folder, _, files in os.walk(os.path.join(state, "objects")):
                for name in files:
                    if name.endswith(".sqlite"):
                        self.check_file(os.path.join(folder, name))

    def add(self, client, number, added, key):
        answer = client.get(f"/ledger/many-{number}/add/{key}")
        self.assertEqual((answer.status, answer.text), (200, key))
        added[number].append(key)

    def check_file(self, path):
        with sqlite3.connect(path) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        database.close()


if __name__ == "__main__":
    unittest.main()
