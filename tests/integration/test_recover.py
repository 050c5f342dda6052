# SPDX-License-Identifier: Apache-2.0
"""A damaged journal: its worker stops and says where, the others serve, an operator decides."""

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

from daemon import BUILD, DURABLECTL, Service

DURABLED = os.path.join(BUILD, "daemon", "durabled")
BLOCK = 4096
OBJECTS = 12
ROUNDS = 12

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


def batches(journal):
    """(path, offset, length) of the epoch's batches, in order."""
    with open(os.path.join(journal, "epoch"), "rb") as file:
        epoch = struct.unpack_from("<Q", file.read(), 8)[0]
    found = []
    for name in sorted(os.listdir(journal)):
        if not name.startswith("segment-"):
            continue
        path = os.path.join(journal, name)
        with open(path, "rb") as file:
            data = file.read()
        for offset in range(0, len(data), BLOCK):
            magic, _, its, number = struct.unpack_from("<4sIQQ", data, offset)
            if magic == b"DDBT" and its == epoch:
                found.append((number, path, offset, struct.unpack_from("<I", data, offset + 40)[0]))
    return [batch[1:] for batch in sorted(found)]


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


class Recover(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.mkdir(os.path.join(self.folder, "src"))
        for name, text in (("wrangler.jsonc", MANIFEST), ("src/index.py", MAIN)):
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
                file.write(text)

    def run_recover(self, daemon, *options):
        config = os.path.join(daemon.state, "durabled.conf")
        return subprocess.run([DURABLED, "--recover", "--config", config, *options],
                              capture_output=True, text=True, timeout=60, check=False)

    def run_fsck(self, daemon, *options):
        command = [DURABLECTL, "fsck", "--state", daemon.state, "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    def write(self, daemon):
        client = daemon.client()
        for number in range(ROUNDS):
            for name in range(OBJECTS):
                self.assertEqual(client.get(f"/object-{name}/add/{number:03}").status, 200)
        client.close()

    def kill_all(self, daemon):
        """As a power failure leaves it, but for the disk."""
        workers = [worker["pid"] for worker in daemon.all_workers()]
        daemon.process.kill()
        daemon.process.wait()
        for pid in workers:
            while os.path.exists(f"/proc/{pid}"):
                time.sleep(0.02)
        daemon.output.close()
        daemon.process = None

    def slots_of_objects(self, daemon):
        return {name: daemon.address_of("ledger", "Ledger", f"object-{name}")["slot"]
                for name in range(OBJECTS)}

    def wait_error(self, daemon, slot):
        end = time.monotonic() + 40
        while time.monotonic() < end:
            for worker in daemon.try_workers():
                if worker["slot"] == slot and worker["error"]:
                    return worker
            time.sleep(0.05)
        self.fail(f"slot {slot} tells no error: {daemon.read_output()}")

    def wait_ready(self, daemon, slot):
        end = time.monotonic() + 40
        while time.monotonic() < end:
            if any(worker["slot"] == slot and worker["state"] == "ready"
                   for worker in daemon.try_workers()):
                return
            time.sleep(0.05)
        self.fail(f"slot {slot} is not ready: {daemon.read_output()}")

    def state_of(self, daemon, slot):
        return [w["state"] for w in daemon.all_workers() if w["slot"] == slot][0]

    def damage(self, daemon, slot):
        journal = os.path.join(daemon.state, "journal", "ledger", str(slot))
        found = batches(journal)
        self.assertGreater(len(found), 10)
        path, offset, length = found[len(found) // 2]
        flip(path, offset + length - 20)
        return os.path.basename(path), offset

    def check_others(self, daemon, slots, damaged):
        """What lives elsewhere is served meanwhile, with all that it had."""
        others = [name for name, slot in slots.items() if slot != damaged]
        self.assertTrue(others)
        for name in others:
            client = daemon.client()
            keys = client.get(f"/object-{name}/list/-").json()
            client.close()
            self.assertEqual(len(keys), ROUNDS)

    def test_a_damaged_journal_stops_its_worker_and_a_cut_brings_it_back(self):
        with Service(self.folder, workers=2) as daemon:
            slots = self.slots_of_objects(daemon)
            self.write(daemon)
            self.kill_all(daemon)
            slot = 0
            segment, offset = self.damage(daemon, slot)
            place = f"{segment} at offset {offset}"

            status, lines, _ = self.run_fsck(daemon)
            self.assertEqual(status, 1)
            damage = [line for line in lines if line.get("level") == "damage"]
            self.assertEqual(len(damage), 1, damage)
            self.assertEqual(damage[0]["what"], "journal-damage")
            self.assertTrue(damage[0]["path"].endswith(segment))
            self.assertEqual(damage[0]["offset"], offset)

            daemon.start(wait=False)
            worker = self.wait_error(daemon, slot)
            self.assertIn(place, worker["error"])
            self.assertIn("durabled --recover", worker["error"])
            daemon.wait_output(place)
            self.wait_ready(daemon, 1)
            self.check_others(daemon, slots, slot)
            self.assertNotEqual(self.state_of(daemon, slot), "ready")
            self.check_refused_while_running(daemon)
            self.assertEqual(daemon.stop(), 0)

            explained = self.run_recover(daemon)
            self.assertEqual(explained.returncode, 1, explained.stderr)
            self.check_explanation(explained.stdout, slot, place)
            before = self.read_state(daemon)
            self.assertEqual(self.run_recover(daemon).stdout, explained.stdout)
            self.assertEqual(self.read_state(daemon), before, "explaining changes nothing")

            after = self.check_cut(daemon, slot)
            status, lines, errors = self.run_fsck(daemon)
            self.assertEqual(status, 0, (lines, errors))
            daemon.start()
            self.check_after(daemon, slots, slot, after)

    def check_refused_while_running(self, daemon):
        refused = self.run_recover(daemon)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("is used by a durabled that runs (process", refused.stderr)
        status, lines, errors = self.run_fsck(daemon)
        self.assertEqual(status, 2, lines)
        self.assertIn("a durabled serves from it", errors)

    def check_explanation(self, text, slot, place):
        self.assertIn(f"ledger/{slot}: DAMAGED", text)
        self.assertIn(place, text)
        self.assertRegex(text, r"Before it: [1-9]\d* commits that can be redone")
        self.assertRegex(text, r"at least [1-9]\d* commits? that can be read but follow it")
        self.assertRegex(text, r"ledger-Ledger/../\w{64}\.sqlite: \d+ commit")
        self.assertIn(f"--cut-at-damage ledger/{slot}", text)
        self.assertIn(f"--set-aside ledger/{slot}", text)
        self.assertRegex(text, rf"ledger/{1 - slot}: (nothing to redo|the next start redoes)")

    def read_state(self, daemon):
        found = {}
        for part in ("journal", "objects"):
            for folder, _, files in os.walk(os.path.join(daemon.state, part)):
                for name in files:
                    path = os.path.join(folder, name)
                    stat = os.stat(path)
                    found[path] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        return found

    def check_cut(self, daemon, slot):
        wrong = self.run_recover(daemon, "--cut-at-damage", "ledger/9")
        self.assertEqual(wrong.returncode, 2)
        done = self.run_recover(daemon, "--cut-at-damage", f"ledger/{slot}")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"redid \d+ commits?")
        self.assertIn("pass SQLite's check", done.stdout)
        aside = re.search(r"are in\n +(\S+)", done.stdout).group(1)
        self.assertTrue(os.path.exists(os.path.join(aside, "epoch")))
        self.assertTrue(any(name.startswith("segment-") for name in os.listdir(aside)))
        self.assertEqual(self.run_recover(daemon).returncode, 0)
        self.assertEqual(os.listdir(os.path.join(aside, "objects")), ["ledger-Ledger"])
        return {found[0]: (int(found[1]), bool(found[2])) for found in re.findall(
            r"(\w{64})\.sqlite: (\d+) commits?(, of which its file has some)?", done.stdout)}

    def check_after(self, daemon, slots, damaged, after):
        """
        Each object has what it had up to some commit: the cut's, or a later one where the
        background had written its file before the kill.
        """
        client = daemon.client()
        for name, slot in slots.items():
            keys = client.get(f"/object-{name}/list/-").json()
            self.assertEqual(keys, [f"{number:03}" for number in range(len(keys))])
            if slot != damaged:
                self.assertEqual(len(keys), ROUNDS)
            address = daemon.address_of("ledger", "Ledger", f"object-{name}")
            lost, is_ahead = after.get(address["id"], (0, False))
            if is_ahead:
                self.assertGreaterEqual(len(keys), ROUNDS - lost)
            else:
                self.assertEqual(len(keys), ROUNDS - lost)
            self.assertEqual(client.get(f"/object-{name}/add/999").status, 200)
        self.assertTrue(after)
        client.close()

    def test_a_journal_without_its_epoch_file_can_be_set_aside(self):
        with Service(self.folder, workers=1) as daemon:
            self.write(daemon)
            self.kill_all(daemon)
            journal = os.path.join(daemon.state, "journal", "ledger", "0")
            os.unlink(os.path.join(journal, "epoch"))
            daemon.start(wait=False)
            self.assertIn("epoch file is missing", self.wait_error(daemon, 0)["error"])
            self.assertEqual(daemon.stop(), 0)
            explained = self.run_recover(daemon)
            self.assertEqual(explained.returncode, 1)
            self.assertNotIn("--cut-at-damage", explained.stdout)
            self.assertEqual(
                self.run_recover(daemon, "--cut-at-damage", "ledger/0").returncode, 1)
            done = self.run_recover(daemon, "--set-aside", "ledger/0")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            daemon.start()
            client = daemon.client()
            self.assertEqual(client.get("/object-1/add/new").status, 200)
            client.close()

    def test_what_is_not_there_is_not_called_clean(self):
        with Service(self.folder, workers=1) as daemon:
            self.write(daemon)
            self.assertEqual(daemon.stop(), 0)
            status, lines, errors = self.run_fsck(daemon, "--app", "shop")
            self.assertEqual((status, lines), (2, []))
            self.assertIn("--app shop: ", errors)
            for part in ("objects", "journal"):
                path = os.path.join(daemon.state, part)
                os.rename(path, path + ".away")
                status, lines, errors = self.run_fsck(daemon)
                os.rename(path + ".away", path)
                self.assertEqual(status, 2, (lines, errors))
                self.assertFalse(lines[-1]["summary"]["complete"])
                self.assertIn(f"{part} is not checked: this folder is gone", errors)
                self.assertNotIn("No such file", errors)
            self.assertEqual(self.run_fsck(daemon)[0], 0)
        command = [DURABLECTL, "fsck", "--state", self.folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("is no state folder of durabled", done.stderr)
        if not os.path.exists("/etc/durabled/durabled.conf"):
            done = subprocess.run([DURABLED, "--recover"], capture_output=True, text=True,
                                  timeout=60, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn("name the service's settings with --config", done.stderr)

    def test_what_is_fine_is_redone_by_hand(self):
        with Service(self.folder, workers=2) as daemon:
            self.write(daemon)
            self.kill_all(daemon)
            self.assertEqual(self.run_recover(daemon).returncode, 0)
            done = self.run_recover(daemon, "--redo")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(len(re.findall(r"redid [1-9]\d* commits", done.stdout)), 2)
            self.assertEqual(self.run_fsck(daemon)[0], 0)
            daemon.start()
            client = daemon.client()
            for name in range(OBJECTS):
                self.assertEqual(len(client.get(f"/object-{name}/list/-").json()), ROUNDS)
            client.close()

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_what_root_does_leaves_every_file_to_whom_the_state_belongs(self):
        nobody = 65534
        for decision in (["--redo"], ["--cut-at-damage", "ledger/0"], ["--set-aside", "ledger/0"]):
            with self.subTest(decision=decision[0]), Service(self.folder, workers=1) as daemon:
                self.write(daemon)
                self.kill_all(daemon)
                if decision[0] == "--cut-at-damage":
                    self.damage(daemon, 0)
                for folder, _, names in os.walk(daemon.state):
                    for path in [folder, *(os.path.join(folder, name) for name in names)]:
                        os.chown(path, nobody, nobody)
                self.run_fsck(daemon)
                self.run_recover(daemon)
                done = self.run_recover(daemon, *decision)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertEqual(self.not_of(daemon.state, nobody), [])

    def not_of(self, state, owner):
        found = []
        for folder, _, names in os.walk(state):
            for path in [folder, *(os.path.join(folder, name) for name in names)]:
                stat = os.lstat(path)
                if (stat.st_uid, stat.st_gid) != (owner, owner):
                    found.append(path)
        return found


if __name__ == "__main__":
    unittest.main()
