# SPDX-License-Identifier: Apache-2.0
"""The storage engine by itself, against SQLite's own files and the plain disk."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import storage_http
from daemon import BUILD, Daemon, copy_project
from lib import PROJECT, print_row

PROGRAM = os.path.join(BUILD, "tests", "bench", "bench-storage")
DEFAULTS = (3, 2)  # pairs, seconds
OBJECTS = (1, 10, 100, 1000, 10000)
COMMITS = (("cpu_us", "us of CPU a commit"), ("p50_us", "us to durable, median"),
           ("p99_us", "us to durable, p99"), ("record_bytes", "bytes a commit"),
           ("disk_bytes", "bytes written a commit"), ("batch", "commits a write"))
LONG = bool(os.environ.get("DURABLED_LONG"))


class Side:
    """The program in a folder of its own, by lines of JSON."""

    def __init__(self, case, **options):
        self.folder = tempfile.mkdtemp(prefix="durabled-bench-", dir="/tmp")
        command = [PROGRAM, case, "--folder", self.folder]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the program ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, turn):
        self.process.stdin.write(turn + "\n")
        self.process.stdin.flush()
        return self.read()

    def read_all(self):
        answers = [json.loads(line) for line in self.process.stdout]
        if self.process.wait() != 0:
            raise AssertionError(f"the program ended with status {self.process.returncode}")
        return answers


def median(rounds, name):
    return statistics.median(one[name] for one in rounds)


def row(case, unit, pairs, against, durable, **more):
    """pairs: (ours, the other's)."""
    ratios = [one / other for one, other in pairs]
    made = {
        "bench": "storage", "case": case, "unit": unit, "pairs": len(pairs),
        "value": statistics.median(pair[0] for pair in pairs), "against": against,
        "against_value": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
        "durable": durable, **more,
    }
    print_row(made, sys.stderr)
    return made


def figure(case, unit, value, **more):
    """One that has nothing to be compared with."""
    made = {**more, "bench": "storage", "case": case, "unit": unit, "value": value}
    print_row(made, sys.stderr)
    return made


def commits(settings):
    rows = []
    for n in OBJECTS:
        rounds = {"ours": [], "full": [], "off": []}
        with Side("commits", kind="ours", objects=n, seconds=settings.seconds) as ours, \
                Side("commits", kind="peer", objects=n, seconds=settings.seconds) as peer:
            ours.read(), peer.read()
            for _ in range(settings.pairs):
                rounds["ours"].append(ours.ask("ours"))
                rounds["full"].append(peer.ask("full"))
                rounds["off"].append(peer.ask("off"))
        rows += report(f"commits-{n}", rounds, COMMITS)
    return rows


def report(case, rounds, figures):
    """Rates pair by pair, and the rest by medians."""
    rows = []
    for side, words in (("full", "WAL, synchronous=FULL"), ("off", "WAL, OFF: not durable")):
        pairs = [(one["rate"], other["rate"]) for one, other in zip(rounds["ours"], rounds[side])]
        rows.append(row(f"{case}-{side}", "commits/s", pairs, words, side == "full"))
    for name, unit in figures:
        others = {side: median(rounds[side], name) for side in ("full", "off")
                  if name in rounds[side][0]}
        rows.append(figure(f"{case}-{name}", unit, median(rounds["ours"], name), **others))
    return rows


def http(settings):
    """The same over HTTP, through the daemon."""
    return storage_http.measure(settings, lambda n, rounds: report(
        f"http-{n}", rounds, storage_http.FIGURES))


def lone(settings):
    rows = []
    for case, options in (("lone", {}), ("lone-runner", {"kind": "runner"})):
        with Side("lone", pairs=settings.pairs, seconds=settings.seconds, **options) as side:
            rounds = side.read_all()
        for part in ("p50", "p99"):
            pairs = [(one[f"{part}_us"], one[f"plain_{part}_us"]) for one in rounds]
            rows.append(row(f"{case}-{part}", "us", pairs, "one RWF_DSYNC write", True))
    return rows


def retire(settings):
    with Side("retire", objects=1000, pairs=settings.pairs, seconds=settings.seconds) as side:
        rounds = side.read_all()
    pairs = [(small["p99_us"], large["p99_us"]) for large, small in zip(rounds[::2], rounds[1::2])]
    added = statistics.median(one - other for one, other in pairs) / 1000
    return [row("retire-p99", "us", pairs, "a journal that retires nothing", True),
            figure("retire-added", "ms added to p99", added)]


def memory(_settings):
    with Side("memory", objects=10000) as side:
        return [figure(f"memory-10000-{one['when']}", "MiB", one["mib"]) for one in side.read_all()]


def speed(settings):
    with Side("speed", pairs=settings.pairs) as side:
        rounds = side.read_all()
    words = "the unix VFS, WAL, OFF"
    pairs = [(one["total_ms"], one["plain_ms"]) for one in rounds]
    cpu = [(one["cpu_ms"], one["plain_cpu_ms"]) for one in rounds]
    parts = {name: statistics.median(one["parts"][name][0] / one["parts"][name][1]
                                     for one in rounds) for name in rounds[0]["parts"]}
    return [row("speed", "ms", pairs, words, False, parts=parts),
            row("speed-cpu", "ms of CPU", cpu, words, False)]


def recover(_settings):
    rows = []
    for kind in ("small", "wide", "small-late", "wide-late"):
        with Side("recover", kind=kind, objects=1000) as side:
            one = side.read_all()[-1]
        rows.append(figure(f"recover-{kind}", "s", one["seconds"], **one))
        if kind.endswith("-late"):
            rows.append(figure(f"recover-{kind}-served", "s", one["served_seconds"]))
        rows.append(figure(f"recover-{kind}-memory", "MiB", one["max_mib"]))
    return rows


def start(_settings):
    """From the command to the first answer, with N files of objects on disk and with none."""
    rows = []
    n = 1000000 if LONG else 10000
    copy = tempfile.mkdtemp(prefix="durabled-bench-", dir="/tmp")
    try:
        project = copy_project(PROJECT, copy)
        state = os.path.join(copy, "state")
        os.mkdir(state)
        rows.append(figure("start-0", "s", start_once(project, state)))
        names = os.path.join(state, "objects")
        for key in os.listdir(names):
            folder = os.path.join(names, key)
            if os.path.isdir(folder):
                subprocess.run(
                    [PROGRAM, "files", "--folder", folder, "--objects", str(n)], check=True)
        rows.append(figure(f"start-{n}", "s", start_once(project, state)))
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return rows


def start_once(project, state):
    begun = time.monotonic()
    with Daemon(project, workers=2, state=state) as daemon:
        client = daemon.client()
        answer = client.get("/o/1/read")
        taken = time.monotonic() - begun
        assert answer.status == 200, answer.text[:500]
        client.close()
    return taken


CASES = (commits, http, lone, retire, memory, speed, recover, start)


def run(settings):
    rows = []
    for case in CASES:
        if not settings.only or settings.only in case.__name__:
            begun = time.monotonic()
            rows += case(settings)
            print(f"{case.__name__}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return rows
