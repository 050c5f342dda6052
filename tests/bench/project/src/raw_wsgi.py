"""What Raw of index.py does, as a bare WSGI function on one file."""

import os
import sqlite3

database = sqlite3.connect(os.environ["BENCH_DB"], isolation_level=None, timeout=30)
database.execute("PRAGMA journal_mode=WAL")
database.execute("PRAGMA synchronous=FULL")
database.execute("CREATE TABLE IF NOT EXISTS counter(id INTEGER PRIMARY KEY, n INTEGER)")
database.execute("INSERT OR IGNORE INTO counter VALUES(1, 0)")


def application(environ, start_response):
    if environ["PATH_INFO"].endswith("/write"):
        database.execute("UPDATE counter SET n = n + 1 WHERE id = 1")
        body = b"ok"
    else:
        body = str(database.execute("SELECT n FROM counter WHERE id = 1").fetchone()[0]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
