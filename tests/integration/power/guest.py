#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The first process of the virtual machine of test_power.py.

Its plan is /plan.json. Disks that are only checked are recovered by the worker alone; their files
are read and checked. On the one that is written the daemon starts, every object is asked for all
that it holds, and then clients write until the power goes. They note on the disk itself, beyond the
file system, how many answers each of them has got.
"""

import ctypes
import fcntl
import http.client
import json
import mmap
import os
import pathlib
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import traceback

BLOCK = 4096
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
PORT = 8000
STATE = "/state"
START_SECONDS = 120
NOTHING = {"keys": [], "total": 0, "strange": 0}
libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind):
    os.makedirs(target, exist_ok=True)
    check(libc.mount(source.encode(), target.encode(), kind.encode(), 0, None), f"mount {source}")


def prepare(plan):
    for kind, target in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"),
                         ("tmpfs", "/tmp"), ("tmpfs", "/run")):
        mount(kind, target, kind)
    for name in plan["modules"]:
        data = pathlib.Path("/modules", name).read_bytes()
        check(libc.syscall(175, data, ctypes.c_ulong(len(data)), b""), f"module {name}")
    with socket.socket() as any_socket:
        request = struct.pack("16sh", b"lo", 0)
        flags, = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


class Notes:
    """Blocks at the end of the written disk, past the page cache: the host sees them at once."""

    def __init__(self, device, begin):
        self.fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
        self.begin = begin

    def write(self, block, data):
        size = -(-len(data) // BLOCK) * BLOCK
        with mmap.mmap(-1, size) as memory:
            memory.write(data)
            with memoryview(memory) as view:
                if os.pwrite(self.fd, view, self.begin + block * BLOCK) != size:
                    raise OSError("a note was cut short")

    def report(self, block, what):
        text = json.dumps(what).encode()
        self.write(block + 1, text)
        self.write(block, struct.pack("<Q", len(text)))


class Daemon:
    def __init__(self, plan, disk):
        config = "/tmp/durabled.conf"
        pathlib.Path(config).write_text(
            f"[durabled]\nstate={STATE}\nruntime=/run/durabled\nlisten=127.0.0.1:{PORT}\n"
            f"workers=2\nsteering=off\nworker_path=/durabled/{disk['worker']}\n"
            "host_modules=/durabled/modules\n[app ledger]\ndirectory=/durabled/project\n",
            encoding="utf-8")
        os.makedirs("/run/durabled", exist_ok=True)
        environment = dict(os.environ, **disk["environment"])
        self.process = subprocess.Popen(["/durabled/durabled", "--config", config],
                                        env=environment)
        self.wait_ready(plan)

    def wait_ready(self, plan):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError("the daemon ended at its start")
            try:
                Client().get(f"/ledger/{plan['objects'][0]}/list/-")
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the daemon does not answer")


class Client:
    def __init__(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=START_SECONDS)

    def get(self, path):
        self.connection.request("GET", path)
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise OSError(f"{path}: {response.status} {body[:300]}")
        return body


def filler(key):
    """As tests/fixtures/ledger has it."""
    return (key + "-") * (300 // (len(key) + 1))


def look(plan):
    """What each object holds."""
    client = Client()
    return {name: json.loads(client.get(f"/ledger/{name}/list/-")) for name in plan["objects"]}


def read_ledger(database):
    """What an object's file holds, as look() gives it; its tables are made one after the other."""
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_schema")}
    rows = database.execute("SELECT key, filler FROM entry").fetchall() if "entry" in tables else []
    total = database.execute("SELECT n FROM total").fetchone() if "total" in tables else None
    return {
        "keys": [row[0] for row in rows],
        "total": total[0] if total else 0,
        "strange": sum(row[1] != filler(row[0]) for row in rows),
    }


def check_disk(plan, disk):
    """Has the worker recover each slot, without the daemon, and reads the files."""
    for slot in sorted(pathlib.Path(STATE, "journal/ledger").glob("[0-9]*")):
        subprocess.run([f"/durabled/{disk['worker']}", "--recover", str(slot), STATE + "/objects"],
                       check=True)
    held, integrity = {name: NOTHING for name in plan["objects"]}, []
    for file in sorted(pathlib.Path(STATE, "objects").rglob("*.sqlite")):
        with sqlite3.connect(file) as database:
            integrity.append(database.execute("PRAGMA integrity_check").fetchone()[0])
            name = None
            if os.path.getsize(file):
                name = database.execute(
                    "SELECT value FROM _cf_METADATA WHERE key = 'name'").fetchone()
            if name:
                held[name[0]] = read_ledger(database)
        database.close()
    return {"held": held, "integrity": integrity}


def write(plan, notes, number):
    client, count = Client(), 0
    while True:
        key = f"{plan['boot']}-{number}-{count}"
        name = plan["objects"][count * (number + 1) % len(plan["objects"])]
        body = client.get(f"/ledger/{name}/add/{key}")
        if body != key.encode():
            raise OSError(f"{key}: {body[:300]}")
        count += 1
        notes.write(number, struct.pack("<Q", count))


def write_disk(plan, disk, notes):
    daemon = Daemon(plan, disk)
    notes.report(disk["report"], {"held": look(plan)})
    for number in range(plan["writers"]):
        threading.Thread(target=run, args=(write, plan, notes, number), daemon=True).start()
    daemon.process.wait()
    raise RuntimeError(f"the daemon ended with {daemon.process.returncode}")


def run(work, *arguments):
    """What goes wrong stands on the console, and ends the machine."""
    try:
        return work(*arguments)
    except BaseException:
        traceback.print_exc()
        print("guest-failed", flush=True)
        time.sleep(1)
        libc.reboot(0x4321FEDC)
        raise


def main():
    plan = json.loads(pathlib.Path("/plan.json").read_text(encoding="utf-8"))
    prepare(plan)
    notes = Notes("/dev/vda", plan["notes"])
    print("guest-begin", os.uname().release, flush=True)
    for disk in plan["disks"]:
        mount(disk["device"], STATE, "ext4")
        if disk["device"] == "/dev/vda":
            write_disk(plan, disk, notes)
        notes.report(disk["report"], check_disk(plan, disk))
        check(libc.umount(STATE.encode()), "umount")


sys.stdout = sys.stderr = open("/dev/console", "w", buffering=1, encoding="utf-8")
os.dup2(sys.stdout.fileno(), 1)
os.dup2(sys.stdout.fileno(), 2)
run(main)
