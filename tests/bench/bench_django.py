# SPDX-License-Identifier: Apache-2.0
"""The same Django project: in objects, under uwsgi and under gunicorn."""

import os

from lib import (
    HERE, PROJECT, UWSGI, Left, Ours, Peer, compare, left_out, need, wait_port,
)

SPREAD = os.path.join(HERE, "spread.lua")
OBJECTS = 1000


class DjangoPeer(Peer):
    """On one SQLite file, WAL, synchronous=FULL."""

    def prepare(self):
        environment = {
            "BENCH_DB": f"{self.folder}/db.sqlite3", "PYTHONPATH": os.path.join(PROJECT, "src"),
            "DJANGO_SETTINGS_MODULE": "app.settings",
        }
        manage = os.path.join(PROJECT, "src", "manage.py")
        self.run(["/usr/bin/python3", manage, "migrate"], environment)
        return environment


class Uwsgi(DjangoPeer):
    def start(self):
        need("uwsgi", "nginx")
        environment = self.prepare()
        self.spawn(
            [*UWSGI, "--socket", f"{self.folder}/uwsgi.sock", "--module", "app.wsgi"],
            environment)
        process = self.nginx(
            "location / { include /etc/nginx/uwsgi_params;"
            f" uwsgi_pass unix:{self.folder}/uwsgi.sock; }}")
        wait_port(self.port, process)


class Gunicorn(DjangoPeer):
    def start(self):
        need("gunicorn")
        process = self.spawn(
            ["gunicorn", "--workers", "2", "--threads", "16", "--bind", f"127.0.0.1:{self.port}",
             "--keep-alive", "75", "app.wsgi"], self.prepare())
        wait_port(self.port, process)


def run(settings):
    rows = []
    with Ours(PROJECT) as ours:
        client = ours.client()
        for number in range(OBJECTS):
            answer = client.get(f"/o/{number}/read")
            assert answer.status == 200, answer.text[:500]
        client.close()
        for name, kind in (("uwsgi", Uwsgi), ("gunicorn", Gunicorn)):
            try:
                with kind(name) as peer:
                    for case, script, durable in (
                        ("hello", None, False), ("read", None, False), ("write", None, True),
                        ("read-1000", SPREAD, False), ("write-1000", SPREAD, True),
                    ):
                        path = f"/o/1/{case.split('-')[0]}"
                        rows += compare(
                            settings, "django", f"{case}-{name}", (ours.port, path),
                            (peer.port, path), script, durable, f"{name} x2, one SQLite file, FULL")
            except Left as why:
                rows += left_out("django", name, why)
    return rows
