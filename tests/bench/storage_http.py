# SPDX-License-Identifier: Apache-2.0
"""The storage engine end to end: one-row updates over HTTP, one a request, by raw SQL in Python.

Ours is a real durabled with two workers; the peers are uwsgi with two processes behind nginx, the
same statement on one SQLite file an object, with synchronous=FULL and with OFF, which is not
durable. All three run all the time and are asked in turn; each answer is a commit.
"""

import http.client
import os
import shutil
import tempfile

from daemon import Client, Service, copy_project
from lib import HERE, RAW, Left, RawUwsgi, left_out, load

SPREAD = os.path.join(HERE, "spread.lua")
OBJECTS = (1, 10, 100, 1000, 10000)
# At once, below the length of uwsgi's queue.
IN_FLIGHT = 64
FILLERS = 16
FIGURES = (("cpu_us", "us of CPU a commit"), ("p50_us", "us to the answer, median"),
           ("p99_us", "us to the answer, p99"), ("disk_bytes", "bytes written a commit"))


def all_processes(pids):
    """These and what they have started."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(pid))
    found = list(pids)
    for pid in found:
        found += children.get(pid, [])
    return found


def spent(pids):
    """Seconds of CPU and bytes sent to disks, of processes so far."""
    cpu, written = 0, 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            cpu += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            written += int(dict(line.split(": ") for line in file)["write_bytes"])
    return cpu / os.sysconf("SC_CLK_TCK"), written


def fill(port, first, end):
    """Each of these objects answers once."""
    clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(FILLERS)]
    for number in range(first, end, FILLERS):
        asked = list(zip(clients, range(number, min(number + FILLERS, end))))
        for client, each in asked:
            client.request("GET", f"/raw/{each}/read")
        for client, each in asked:
            answer = client.getresponse()
            text = answer.read()
            assert answer.status == 200, f"object {each}: {answer.status} {text[:500]}"
    for client in clients:
        client.close()


def count(port):
    """Of object 0."""
    client = Client(port)
    number = int(client.get("/raw/0/read").text)
    client.close()
    return number


def turn(port, pids, objects, seconds):
    before, counted = spent(pids), count(port)
    one = load(port, "/raw/0/write", seconds, SPREAD, IN_FLIGHT, (objects,))
    cpu, written = (now - then for now, then in zip(spent(pids), before))
    if objects == 1:
        assert count(port) - counted >= one["requests"], "answered, and not in the database"
    one["cpu_us"] = cpu * 1e6 / one["requests"]
    one["disk_bytes"] = written / one["requests"]
    return one


def turn_of(name, side, objects, seconds):
    try:
        return turn(*side, objects, seconds)
    except AssertionError as why:
        if name == "ours":
            raise
        raise Left(f"{name}, with {objects} objects, answered errors") from why


def alternate(settings, sides, objects):
    """{name: rounds} of sides, which are {name: (port, pids)}."""
    rounds = {name: [] for name in sides}
    for name, side in sides.items():
        turn_of(name, side, objects, 1)
    for _ in range(settings.pairs):
        for name, side in sides.items():
            rounds[name].append(turn_of(name, side, objects, settings.seconds))
    return rounds


def find_sides(ours, full, off):
    peers = {"full": full, "off": off}
    sides = {name: (peer.port, all_processes(each.pid for each in peer.processes))
             for name, peer in peers.items()}
    return {"ours": (ours.port, all_processes([ours.process.pid])), **sides}


def measure(settings, report):
    """report(objects, rounds) makes rows."""
    rows, filled = [], 0
    copy = tempfile.mkdtemp(prefix="durabled-bench-", dir="/tmp")
    many = f"[objects]\nobjects_max={OBJECTS[-1]}\nidle_timeout=1h\n"
    try:
        with Service(copy_project(RAW, copy), many, workers=2) as ours, \
                RawUwsgi("FULL", OBJECTS[-1]) as full, RawUwsgi("OFF", OBJECTS[-1]) as off:
            for objects in OBJECTS:
                fill(ours.port, filled, objects)
                filled = objects
                sides = find_sides(ours, full, off)
                rows += report(objects, alternate(settings, sides, objects))
    # A peer that cannot do it leaves what was measured.
    except Left as why:
        rows += left_out("storage", "http", why)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return rows
