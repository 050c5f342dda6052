# SPDX-License-Identifier: Apache-2.0
"""The power goes, under Debian's own kernel: what was answered is there, and every database sound.

A virtual machine runs the daemon on ext4, on a disk whose cache loses what no flush has covered.
One run gives several cuts (see cutdisk.py); the disks as they would be found are looked at in the
next run, the last of which goes on being written and cut, from its recovery on.
"""

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

import cutdisk
import qemu
from daemon import BUILD, FIXTURES, TOP, end_with_parent

LONG = bool(os.environ.get("DURABLED_LONG"))
SEED = int(os.environ.get("DURABLED_SEED", "1"))
CUTS_A_RUN = 4
RUNS = 5 if LONG else 1
OBJECTS = [f"object-{number}" for number in range(6)]
WRITERS = 4
ANSWERS = 600 if LONG else 200
BLOCK = 4096
SYSTEM_BYTES = 600 << 20  # of the file system; notes come after it
REPORT_BLOCKS = 256
RUN_SECONDS = 400 if LONG else 180
WORKER, CUT_WORKER = "durabled-worker", "cut-worker"
# Segments that are written over within seconds.
SMALL = {"DURABLED_TEST_SEGMENT_SIZE": str(256 << 10), "DURABLED_TEST_CHECKPOINT_AT": "16"}
UNSYNCED = {"DURABLED_TEST_UNSYNCED": "1"}
INDEX = """from ledger import Ledger, path_of
from workers import WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = path_of(request)[1]
        return await self.env.LEDGERS.get(self.env.LEDGERS.idFromName(name)).fetch(request)
"""
MANIFEST = """{
  "name": "ledger", "main": "src/index.py", "compatibility_date": "2026-03-08",
  "durable_objects": {"bindings": [{"name": "LEDGERS", "class_name": "Ledger"}]},
  "migrations": [{"tag": "v1", "new_sqlite_classes": ["Ledger"]}]
}
"""


def entries(held):
    return {(name, key) for name, what in held.items() for key in what["keys"]}


class Cut:
    """A disk after a power cut, and what must and may be on it."""

    def __init__(self, path, how, must, may):
        self.path, self.how, self.must, self.may = path, how, must, may

    def faults(self, report):
        """What a look at it has found wrong."""
        faults = [f"integrity_check: {line}" for line in report.get("integrity", [])
                  if line != "ok"]
        for name, what in report["held"].items():
            if what["total"] != len(what["keys"]) or what["strange"]:
                faults.append(f"{name} is half: {what['total']} counted, {len(what['keys'])} "
                              f"there, {what['strange']} strange")
        held = entries(report["held"])
        lost, odd = sorted(self.must - held), sorted(held - self.may)
        if lost:
            faults.append(f"answered and lost: {len(lost)}, as {lost[:3]}")
        if odd:
            faults.append(f"never asked for: {len(odd)}, as {odd[:3]}")
        return [f"{self.how}: {fault}" for fault in faults]


class Run:
    """One life of the machine: looks at cuts, then writes to a disk until enough is answered."""

    def __init__(self, test, number, base, checked, worker, environment):
        self.test, self.number, self.base, self.checked = test, number, base, checked
        self.notes = []  # (position in the log, block, data)
        self.answered = [0] * WRITERS
        self.plan = {
            "boot": number, "objects": OBJECTS, "writers": WRITERS, "notes": SYSTEM_BYTES,
            "modules": [name for name, _ in test.modules],
            "disks": [
                {"device": f"/dev/vd{chr(ord('b') + index)}", "worker": WORKER, "environment": {},
                 "report": (index + 1) * REPORT_BLOCKS}
                for index in range(len(checked))
            ] + [{"device": "/dev/vda", "worker": worker, "environment": environment,
                  "report": (len(checked) + 1) * REPORT_BLOCKS}],
        }
        self.disk = self.console = None

    def on_write(self, offset, data, position):
        # Writes of neighbours come as one.
        for at in range(0, len(data), BLOCK):
            block = (offset + at - SYSTEM_BYTES) // BLOCK
            self.notes.append((position, block, data[at:at + BLOCK]))
            if block < WRITERS:
                self.answered[block] = struct.unpack_from("<Q", data, at)[0]

    def execute(self, only_look=False):
        folder = self.test.folder
        socket = os.path.join(folder, f"disk-{self.number}")
        initramfs = pathlib.Path(folder, "initramfs")
        self.test.write_initramfs(initramfs, self.plan)
        self.disk = cutdisk.CutDisk(self.base.path, socket, SYSTEM_BYTES, self.on_write)
        options = ["-drive", f"file=nbd+unix:///?socket={socket},format=raw,if=virtio,"
                   "cache=writeback"]
        for cut in self.checked:
            options += ["-drive", f"file={cut.path},format=raw,if=virtio,cache=unsafe"]
        command = qemu.command(self.test.kernel, initramfs, 1024, options)
        with open(os.path.join(folder, f"console-{self.number}"), "w+b") as console:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console,
                                       stderr=console, preexec_fn=end_with_parent)
            try:
                self.wait(process, only_look)
            finally:
                process.kill()
                process.wait()
                self.disk.close()
                console.seek(0)
                self.console = console.read().decode(errors="replace")

    def wait(self, process, only_look):
        end = time.monotonic() + RUN_SECONDS
        last = self.plan["disks"][-1]["report"]
        while time.monotonic() < end and process.poll() is None:
            if only_look and any(block == last for _, block, _ in list(self.notes)):
                return
            if not only_look and sum(self.answered) >= ANSWERS:
                return
            time.sleep(0.05)

    def find_report(self, block):
        """(position, what was reported) or, when nothing was, what the console says."""
        for position, at, data in self.notes:
            if at == block:
                size = struct.unpack_from("<Q", data)[0]
                text = b"".join(
                    data for _, at, data in sorted(self.notes, key=lambda note: note[1])
                    if block < at < block + REPORT_BLOCKS)
                return position, json.loads(text[:size])
        raise AssertionError(f"run {self.number} reports nothing: {self.console[-6000:]}")

    def faults(self):
        """What is wrong with the disks that this run has looked at."""
        faults = []
        for cut, disk in zip(self.checked + [self.base], self.plan["disks"]):
            faults += cut.faults(self.find_report(disk["report"])[1])
        for line in self.console.splitlines():
            if "EXT4-fs error" in line or "guest-failed" in line:
                faults.append(f"run {self.number}: {self.console[-3000:]}")
        return faults

    def expected(self, position):
        """What must and may be there after a cut at a position."""
        seen, held = self.find_report(self.plan["disks"][-1]["report"])
        if position <= seen:
            return self.base.must, self.base.may
        must = entries(held["held"])
        may = set(must)
        counts = [0] * WRITERS
        for at, block, data in self.notes:
            if at < position and block < WRITERS:
                counts[block] = struct.unpack_from("<Q", data)[0]
        for number, count in enumerate(counts):
            for each in range(count + 1):
                name = OBJECTS[each * (number + 1) % len(OBJECTS)]
                may.add((name, f"{self.number}-{number}-{each}"))
                if each < count:
                    must.add((name, f"{self.number}-{number}-{each}"))
        return must, may

    def positions(self, chance):
        """Where to cut: in the recovery, right after an answer, and anywhere after it."""
        seen, _ = self.find_report(self.plan["disks"][-1]["report"])
        answers = [position for position, block, _ in self.notes if block < WRITERS]
        end = len(self.disk.log)
        yield chance.randrange(seen) if self.number else chance.choice(answers) + 1
        yield chance.choice(answers) + 1
        yield chance.choice(answers) + 1
        yield chance.randrange(seen, end)

    def cuts(self, chance, modes):
        for index, position in enumerate(self.positions(chance)):
            mode = modes[(index + self.number) % len(modes)]
            path = os.path.join(self.test.folder, f"cut-{self.number}-{index}")
            loose = self.disk.image(path, position, mode, chance)
            how = (f"cut {index} of run {self.number}, at {position} of {len(self.disk.log)}, "
                   f"{loose} writes loose, {mode}")
            print("# " + how, flush=True)
            yield Cut(path, how, *self.expected(position))


class Power(unittest.TestCase):
    def setUp(self):
        try:
            self.kernel = qemu.fetch_kernel()
        except qemu.Unavailable as why:
            self.skipTest(str(why))
        if not shutil.which("mke2fs", path=os.environ["PATH"] + ":/sbin:/usr/sbin"):
            self.skipTest("mke2fs is not installed")
        self.folder = tempfile.mkdtemp(prefix="durabled-power-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.modules = self.kernel.modules(["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"])
        self.archive = self.make_archive()
        self.chance = random.Random(SEED)

    def make_archive(self):
        archive = qemu.Initramfs()
        archive.file("init", os.path.join(TOP, "tests/integration/power/guest.py"))
        archive.python()
        for name, path in ((WORKER, "daemon/durabled-worker"), ("durabled", "daemon/durabled"),
                           (CUT_WORKER, "tests/integration/power/cut-worker")):
            archive.program(f"durabled/{name}", os.path.join(BUILD, path))
        archive.tree("durabled/modules", os.path.join(TOP, "daemon/runtime/python/modules"))
        archive.content("durabled/project/wrangler.jsonc", MANIFEST.encode())
        archive.content("durabled/project/src/index.py", INDEX.encode())
        archive.file("durabled/project/src/ledger.py",
                     os.path.join(FIXTURES, "ledger/src/ledger.py"))
        for name, content in self.modules:
            archive.content(f"modules/{name}", content)
        return archive

    def write_initramfs(self, path, plan):
        self.archive.write(path, {"plan.json": json.dumps(plan).encode()})

    def new_disk(self):
        path = os.path.join(self.folder, "new")
        with open(path, "wb") as file:
            file.truncate(SYSTEM_BYTES + (CUTS_A_RUN + 2) * REPORT_BLOCKS * BLOCK)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", path, f"{SYSTEM_BYTES >> 10}k"],
                       check=True, env=dict(os.environ, PATH=os.environ["PATH"] + ":/sbin"))
        return Cut(path, "a new disk", set(), set())

    def execute(self, number, base, checked, worker, environment, only_look=False):
        run = Run(self, number, base, checked, worker, environment)
        begun = time.monotonic()
        run.execute(only_look)
        print(f"# run {number}: {time.monotonic() - begun:.0f} s, {sum(run.answered)} answers, "
              f"{len(run.disk.log)} writes and flushes", flush=True)
        return run

    def cut_and_look(self, runs, workers, modes=cutdisk.MODES):
        """The faults of all cuts."""
        faults, base, checked = [], self.new_disk(), []
        for number in range(runs):
            run = self.execute(number, base, checked, *workers[number % len(workers)])
            faults += run.faults()
            old = [base.path] + [cut.path for cut in checked]
            cuts = list(run.cuts(self.chance, modes))
            # The one cut in its recovery goes on every time: recovery is cut again and again.
            base, checked = cuts[0], cuts[1:]
            for path in old:
                os.unlink(path)
        run = self.execute(runs, base, checked, WORKER, {}, only_look=True)
        return faults + run.faults()

    def test_what_was_answered_survives_a_power_cut(self):
        workers = [(WORKER, {}), (CUT_WORKER, SMALL)]
        self.assertEqual(self.cut_and_look(RUNS, workers), [])

    @unittest.skipUnless(LONG, "with tests/run --long")
    def test_a_journal_that_is_not_synced_is_noticed(self):
        faults = self.cut_and_look(1, [(CUT_WORKER, dict(SMALL, **UNSYNCED))], [cutdisk.DROP])
        self.assertTrue(any("answered and lost" in fault for fault in faults), faults)


if __name__ == "__main__":
    unittest.main()
