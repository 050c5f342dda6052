# SPDX-License-Identifier: Apache-2.0
"""hello, static files and one object by raw SQL."""

import os

from lib import PROJECT, UWSGI, Left, Ours, Peer, compare, left_out, need, wait_port


class Nginx(Peer):
    def start(self):
        for name, size in (("1k.txt", 1024), ("64k.txt", 65536)):
            with open(os.path.join(self.folder, name), "wb") as file:
                file.write(b"x" * size)
        process = self.nginx(
            f"location = /plain {{ return 200 'hello'; }} location / {{ root {self.folder}; }}")
        wait_port(self.port, process)


class RawUwsgi(Peer):
    """A bare WSGI function on one SQLite file, behind nginx."""

    def start(self):
        need("uwsgi", "nginx")
        application = os.path.join(PROJECT, "src", "raw_wsgi.py")
        environment = {"BENCH_DB": f"{self.folder}/raw.sqlite"}
        # The file is made here, and each process opens it for itself (--lazy-apps).
        self.run(["/usr/bin/python3", application], environment)
        self.spawn(
            [*UWSGI, "--socket", f"{self.folder}/uwsgi.sock", "--wsgi-file", application],
            environment)
        process = self.nginx(
            "location / { include /etc/nginx/uwsgi_params;"
            f" uwsgi_pass unix:{self.folder}/uwsgi.sock; }}")
        wait_port(self.port, process)


def run(settings):
    rows = []
    with Ours(PROJECT) as ours:
        try:
            with Nginx("nginx") as peer:
                for case, path, theirs in (
                    ("hello", "/plain", "/plain"),
                    ("static-1k", "/static/1k.txt", "/1k.txt"),
                    ("static-64k", "/static/64k.txt", "/64k.txt"),
                ):
                    rows += compare(settings, "http", case, (ours.port, path), (peer.port, theirs),
                                    note="nginx, 2 workers")
        except Left as why:
            rows += left_out("http", "nginx", why)
        try:
            with RawUwsgi("uwsgi") as peer:
                for case, path, durable in (
                    ("object-read", "/raw/read", False), ("object-write", "/raw/write", True),
                ):
                    rows += compare(settings, "http", case, (ours.port, path), (peer.port, path),
                                    note="uwsgi x2, sqlite3, FULL", durable=durable)
        except Left as why:
            rows += left_out("http", "uwsgi", why)
    return rows
