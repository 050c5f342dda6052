"""What Raw of index.py does, as a bare WSGI function on one file an object, in BENCH_DB.

Run as a program it makes files, of the object that its argument names or of objects 0 to N - 1.
"""

import functools
import os
import resource
import shutil
import sqlite3
import sys

SYNCHRONOUS = os.environ.get("BENCH_SYNCHRONOUS", "FULL")
FDS_EACH, FDS_SPARE = 3, 100
OPEN_MAX = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - FDS_SPARE) // FDS_EACH


def find_path(name):
    return os.path.join(os.environ["BENCH_DB"], f"{name}.sqlite")


def connect(name, synchronous):
    database = sqlite3.connect(find_path(name), isolation_level=None, timeout=30)
    database.execute(f"PRAGMA synchronous={synchronous}")
    return database


@functools.lru_cache(maxsize=OPEN_MAX)
def find_database(name):
    return connect(name, SYNCHRONOUS)


def make(names):
    """One file, and copies of it."""
    database = connect("template", "OFF")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE IF NOT EXISTS counter(id INTEGER PRIMARY KEY, n INTEGER)")
    database.execute("INSERT OR IGNORE INTO counter VALUES(1, 0)")
    database.close()
    for name in names:
        shutil.copyfile(find_path("template"), find_path(name))


def application(environ, start_response):
    name, action = environ["PATH_INFO"].rsplit("/", 2)[1:]
    database = find_database(name)
    if action == "write":
        database.execute("UPDATE counter SET n = n + 1 WHERE id = 1")
        body = b"ok"
    else:
        body = str(database.execute("SELECT n FROM counter WHERE id = 1").fetchone()[0]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    objects = sys.argv[1]
    make(range(int(objects)) if objects.isdigit() else [objects])
