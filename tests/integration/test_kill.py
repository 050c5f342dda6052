# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random: whatever was answered is there, once, and every database is sound."""

import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
import unittest

from daemon import Service

OBJECTS = 8
WRITERS = 4
KILLS = 300 if os.environ.get("DURABLED_LONG") else 40

MAIN = '''
from workers import DurableObject, Response, WorkerEntrypoint


class Ledger(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec("CREATE TABLE IF NOT EXISTS entry(key TEXT PRIMARY KEY, filler TEXT)")

    async def fetch(self, request):
        action, key = request.url.rsplit("/", 2)[1:]
        if action == "add":
            self.sql.exec("INSERT OR IGNORE INTO entry VALUES(?, ?)", key, "x" * 300)
            return Response(key)
        rows = self.sql.exec("SELECT key FROM entry ORDER BY key").raw().toArray().to_py()
        return Response.json([row[0] for row in rows])


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = request.url.split("/", 5)[3]
        return await self.env.LEDGER.get(self.env.LEDGER.idFromName(name)).fetch(request)
'''
MANIFEST = """{
  "name": "ledger", "main": "src/index.py", "compatibility_date": "2026-01-01",
  "durable_objects": {"bindings": [{"name": "LEDGER", "class_name": "Ledger"}]},
  "migrations": [{"tag": "v1", "new_sqlite_classes": ["Ledger"]}]
}
"""


class Kill(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.mkdir(os.path.join(self.folder, "src"))
        for name, text in (("wrangler.jsonc", MANIFEST), ("src/index.py", MAIN)):
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
                file.write(text)

    def write(self, daemon, number, acknowledged, stop):
        """Adds keys one after the other; keeps those whose answer came."""
        chance, count, client = random.Random(number), 0, None
        while not stop.is_set():
            name = f"object-{chance.randrange(OBJECTS)}"
            key = f"{number:02}-{count:06}"
            try:
                client = client or daemon.client()
                answer = client.get(f"/{name}/add/{key}")
                if answer.status == 200 and answer.text == key:
                    acknowledged.append((name, key))
                count += 1
            except Exception:
                # Not answered: it may be there or not. The next key is another one.
                client, count = None, count + 1
                time.sleep(0.02)

    def kill_one(self, daemon, chance):
        victims = [worker["pid"] for worker in daemon.try_workers() if worker["pid"]]
        if chance.random() < 0.1 or not victims:
            daemon.process.kill()
            daemon.process.wait()
            for pid in victims:
                while os.path.exists(f"/proc/{pid}"):
                    time.sleep(0.02)
            daemon.output.close()
            daemon.start()
        else:
            os.kill(chance.choice(victims), signal.SIGKILL)

    def check(self, daemon, acknowledged):
        client = daemon.client()
        for number in range(OBJECTS):
            name = f"object-{number}"
            keys = client.get(f"/{name}/list/-").json()
            self.assertEqual(len(keys), len(set(keys)))
            missing = {key for owner, key in acknowledged if owner == name} - set(keys)
            self.assertEqual(missing, set(), f"{name} lost what was answered")

    def test_what_was_answered_survives_kill_9_of_workers_and_supervisor(self):
        chance, acknowledged, stop = random.Random(11), [], threading.Event()
        with Service(self.folder, workers=2) as daemon:
            threads = [
                threading.Thread(target=self.write, args=(daemon, number, acknowledged, stop))
                for number in range(WRITERS)
            ]
            for thread in threads:
                thread.start()
            for _ in range(KILLS):
                time.sleep(chance.random() * 0.4)
                self.kill_one(daemon, chance)
            stop.set()
            for thread in threads:
                thread.join()
            daemon.wait_ready()
            self.assertGreater(len(acknowledged), KILLS)
            self.check(daemon, acknowledged)
            state = daemon.state
            self.assertEqual(daemon.stop(), 0)
            for folder, _, files in os.walk(os.path.join(state, "objects")):
                for name in files:
                    if name.endswith(".sqlite"):
                        self.check_file(os.path.join(folder, name))

    def check_file(self, path):
        with sqlite3.connect(path) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        database.close()


if __name__ == "__main__":
    unittest.main()
