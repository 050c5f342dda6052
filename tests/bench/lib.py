# SPDX-License-Identifier: Apache-2.0
"""Servers side by side, wrk against each in turn, ratios pair by pair."""

import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from daemon import Daemon, copy_project, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.join(HERE, "project")
RAW = os.path.join(HERE, "raw")
CONNECTIONS = 32
# nginx's workers are another user's when it is started by root: hence the socket's mode.
UWSGI = [
    "uwsgi", "--plugin", "python3", "--master", "--processes", "2", "--lazy-apps",
    "--disable-logging", "--die-on-term", "--chmod-socket=666",
]


class Settings:
    def __init__(self, pairs, seconds, only):
        self.pairs = pairs
        self.seconds = seconds
        self.only = only


class Left(Exception):
    """A peer that cannot take part, and why."""


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Left(f"{program} is not installed (packaging/install-packages bench)")


def wait_port(port, process, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Left(f"the server ended with status {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise Left("the server does not answer")


class Peer:
    """Another server, in a folder of its own, ended by pid."""

    def __init__(self, name):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix="durabled-bench-", dir="/tmp")
        self.port = free_port()
        self.processes = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, command, environment=None):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=dict(os.environ, **(environment or {})),
            )
        self.processes.append(process)
        return process

    def run(self, command, environment=None):
        """To its end."""
        process = self.spawn(command, environment)
        if process.wait(60) != 0:
            raise Left(f"{command} failed: {self.read_log()}")
        self.processes.remove(process)

    def read_log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as log:
            return log.read()[-2000:]

    def nginx(self, server):
        """nginx with one server block, two workers, on self.port."""
        need("nginx")
        config = f"""
            daemon off; worker_processes 2; pid {self.folder}/nginx.pid;
            error_log {self.folder}/error.log;
            events {{ worker_connections 1024; }}
            http {{ access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on;
                types {{ text/plain txt; }}
                client_body_temp_path {self.folder}/t1; proxy_temp_path {self.folder}/t2;
                fastcgi_temp_path {self.folder}/t3; uwsgi_temp_path {self.folder}/t4;
                scgi_temp_path {self.folder}/t5;
                server {{ listen 127.0.0.1:{self.port} reuseport; {server} }} }}"""
        path = os.path.join(self.folder, "nginx.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(config)
        os.chmod(self.folder, 0o755)
        return self.spawn(["nginx", "-c", path, "-e", f"{self.folder}/error.log"])


class RawUwsgi(Peer):
    """A bare WSGI function on one SQLite file an object, behind nginx."""

    def __init__(self, synchronous, objects):
        super().__init__(f"uwsgi, {synchronous}")
        self.synchronous = synchronous
        self.objects = str(objects)

    def start(self):
        need("uwsgi", "nginx")
        application = os.path.join(RAW, "src", "raw_wsgi.py")
        environment = {"BENCH_DB": self.folder, "BENCH_SYNCHRONOUS": self.synchronous}
        # The files are made here, and each process opens them for itself (--lazy-apps).
        self.run(["/usr/bin/python3", application, self.objects], environment)
        self.spawn(
            [*UWSGI, "--socket", f"{self.folder}/uwsgi.sock", "--wsgi-file", application],
            environment)
        process = self.nginx(
            "location / { include /etc/nginx/uwsgi_params;"
            f" uwsgi_pass unix:{self.folder}/uwsgi.sock; }}")
        wait_port(self.port, process)


class Ours(Daemon):
    """This project's daemon on a copy of a project."""

    def __init__(self, project, **options):
        self.copy = tempfile.mkdtemp(prefix="durabled-bench-", dir="/tmp")
        super().__init__(copy_project(project, self.copy), workers=2, **options)
        self.name = "durabled"

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        shutil.rmtree(self.copy, ignore_errors=True)


def wrk(port, path, seconds, script=None):
    """Requests a second."""
    return load(port, path, seconds, script)["rate"]


def load(port, path, seconds, script=None, connections=CONNECTIONS, arguments=()):
    """Of a run of wrk: rate, requests, p50_us, p99_us. An answer that is no 2xx is a failure of the
    bench. arguments: the script's."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    if script:
        command += ["-s", script]
    command += [f"http://127.0.0.1:{port}{path}", "--", *map(str, arguments)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise AssertionError(f"{path}: {said}")
    made = {"rate": float(re.search(r"Requests/sec:\s+([0-9.]+)", said).group(1)),
            "requests": int(re.search(r"([0-9]+) requests in", said).group(1))}
    for part in ("50", "99"):
        value, unit = re.search(rf"\s{part}%\s+([0-9.]+)(us|ms|s|m)\s", said).groups()
        made[f"p{part}_us"] = float(value) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]
    return made


def compare(settings, bench, case, ours, peer, script=None, durable=False, note=""):
    """ours and peer are (port, path). Returns a row, or nothing when the case was not chosen."""
    if settings.only and settings.only not in case:
        return []
    sides = (ours, peer)
    for port, path in sides:
        wrk(port, path, 1, script)
    pairs = []
    for _ in range(settings.pairs):
        pairs.append([wrk(port, path, settings.seconds, script) for port, path in sides])
    ratios = [one / other for one, other in pairs]
    row = {
        "bench": bench, "case": case, "unit": "requests/s", "pairs": len(pairs),
        "value": statistics.median(pair[0] for pair in pairs), "against": note,
        "against_value": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
        "durable": durable,
    }
    print_row(row, sys.stderr)
    return [row]


def left_out(bench, case, why):
    print(f"{bench}/{case}: left out: {why}", file=sys.stderr)
    return []


def print_row(row, file):
    name = f"{row['bench']}/{row['case']}"
    if "ratio" not in row:
        others = "".join(f", {side} {row[side]:.1f}" for side in ("full", "off") if side in row)
        print(f"{name:<34} {row['value']:>10.1f} {row['unit']}{others}", file=file)
        return
    print(
        f"{name:<34} {row['value']:>10.0f} {row['against_value']:>10.0f}"
        f" {row['ratio']:>7.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
        f"  {row['against']}{', durable' if row['durable'] else ''}", file=file)


def print_table(rows):
    print(f"{'case':<34} {'durabled':>10} {'peer':>10} {'ratio':>7} (min-max)    peer")
    for row in rows:
        print_row(row, sys.stdout)
