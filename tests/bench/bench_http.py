# SPDX-License-Identifier: Apache-2.0
"""hello, static files and one object by raw SQL."""

import os

from lib import PROJECT, RAW, Left, Ours, Peer, RawUwsgi, compare, left_out, wait_port


class Nginx(Peer):
    def start(self):
        for name, size in (("1k.txt", 1024), ("64k.txt", 65536)):
            with open(os.path.join(self.folder, name), "wb") as file:
                file.write(b"x" * size)
        process = self.nginx(
            f"location = /plain {{ return 200 'hello'; }} location / {{ root {self.folder}; }}")
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
        with Ours(RAW) as ours, RawUwsgi("FULL", "one") as peer:
            for case, path, durable in (
                ("object-read", "/raw/one/read", False), ("object-write", "/raw/one/write", True),
            ):
                rows += compare(settings, "http", case, (ours.port, path), (peer.port, path),
                                note="uwsgi x2, sqlite3, FULL", durable=durable)
    except Left as why:
        rows += left_out("http", "uwsgi", why)
    return rows
