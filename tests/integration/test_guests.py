# SPDX-License-Identifier: Apache-2.0
"""What guests do with SQLite through Python's module and Django, in a real worker."""

import os
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
import unittest

from daemon import FIXTURES, Service, copy_project

MEGABYTES = 1024 if os.environ.get("DURABLED_LONG") else 200
# Beyond what the worker had before: its caches and one log's heap (16 MiB), not the transaction.
MEMORY = 120 << 20

BIG = """
import time
begun = time.monotonic()
with transaction.atomic():
    rows("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, round INT, b BLOB)")
    rows('''WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < %s)
            INSERT INTO big(round, b) SELECT %s, randomblob(10000) FROM r''', {count}, {round})
answer = time.monotonic() - begun
"""
LOOK = "answer = rows('SELECT round, count(*), sum(length(b)) FROM big GROUP BY round')"

# Nested transactions that go back while the cache is too small: SQLite 3.40 loses such commits
# when it recovers its own log.
SAVEPOINTS = """
class Undo(Exception):
    pass

rows("PRAGMA cache_size = 10")
rows("PRAGMA cache_spill = 5")
rows("CREATE TABLE IF NOT EXISTS s(id INTEGER PRIMARY KEY, k INT, b BLOB)")
rows("CREATE INDEX IF NOT EXISTS sk ON s(k)")
fill = '''WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < %s)
          INSERT OR REPLACE INTO s SELECT x * 7 %% 120, %s, randomblob(x * 61 %% 2500) FROM r'''
for k in range({first}, {first} + 5):
    with transaction.atomic():
        try:
            with transaction.atomic():
                rows(fill, 10 + k * 5 % 40, k)
                rows("UPDATE s SET k = -k")
                raise Undo
        except Undo:
            pass
        rows(fill, 1 + k % 10, k)
answer = rows("SELECT count(*), sum(k), sum(length(b)) FROM s")
"""


class Guests(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        project = copy_project(os.path.join(FIXTURES, "guests"), self.folder)
        self.daemon = Service(project, workers=1)
        self.daemon.__enter__()
        self.addCleanup(self.daemon.__exit__)

    def run_in(self, name, code):
        client = self.daemon.client()
        client.connection.timeout = 300
        answer = client.request("POST", f"/{name}", code, {"Content-Type": "text/plain"})
        client.close()
        self.assertEqual(answer.status, 200, answer.text[:1000])
        return answer.json()

    def worker(self):
        return self.daemon.all_workers()[0]["pid"]

    def kill(self):
        pid = self.worker()
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            workers = self.daemon.try_workers()
            if workers and workers[0]["pid"] != pid and workers[0]["state"] == "ready":
                return
            time.sleep(0.05)
        self.fail("no new worker")

    def memory(self, pid):
        """The most that a process has had in memory."""
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) << 10
        raise AssertionError("no VmHWM")

    def stop_and_check(self):
        self.assertEqual(self.daemon.stop(), 0)
        for folder, _, names in os.walk(os.path.join(self.daemon.state, "objects")):
            for name in names:
                if name == ".journal-guests-0":
                    continue
                self.assertTrue(name.endswith(".sqlite"), name)
                with sqlite3.connect(os.path.join(folder, name)) as database:
                    found = database.execute("PRAGMA integrity_check").fetchall()
                database.close()
                self.assertEqual(found, [("ok",)])

    def test_django_gets_the_answers_that_it_expects_of_pragmas(self):
        found = self.run_in("django/one", """
rows("CREATE TABLE t(a)")
answer = {}
for mode in ("DELETE", "MEMORY", "OFF", "WAL"):
    answer[mode] = rows(f"PRAGMA journal_mode = {mode}")[0][0]
for level in ("OFF", "NORMAL", "FULL", "EXTRA"):
    rows(f"PRAGMA synchronous = {level}")
    answer[level] = rows("PRAGMA synchronous")[0][0]
answer["locking"] = rows("PRAGMA locking_mode = EXCLUSIVE")[0][0]
rows("INSERT INTO t VALUES(1)")
connection.close()
answer["count"] = rows("SELECT count(*) FROM t")[0][0]
answer["checkpoint"] = rows("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]
""")
        self.assertEqual(found, {
            "DELETE": "wal", "MEMORY": "wal", "OFF": "wal", "WAL": "wal", "OFF": 2, "NORMAL": 2,
            "FULL": 2, "EXTRA": 2, "locking": "normal", "count": 1, "checkpoint": 1,
        })

    def test_other_files_are_refused_and_this_one_opens_again(self):
        self.run_in("django/other", "rows('CREATE TABLE secret(a)')")
        other = self.run_in("django/other", "answer = rows('PRAGMA database_list')[0][2]")
        copy = os.path.join(self.folder, "copy.sqlite")
        found = self.run_in("django/one", f"""
rows("CREATE TABLE t(a)")
answer = [refusal("ATTACH '{other}' AS o"), refusal("ATTACH '{copy}' AS o"),
          refusal("VACUUM INTO '{copy}'")]
try:
    sqlite3.connect("{other}").execute("SELECT * FROM secret")
    answer.append(None)
except sqlite3.Error as error:
    answer.append(str(error))
rows("ATTACH ':memory:' AS m")
rows("CREATE TABLE m.t(a)")
rows("DETACH m")
second = sqlite3.connect(rows("PRAGMA database_list")[0][2])
second.execute("INSERT INTO t VALUES(1)")
answer.append(rows("SELECT count(*) FROM t")[0][0])
second.commit()
second.close()
answer.append(rows("SELECT count(*) FROM t")[0][0])
""")
        for text in found[:3]:
            self.assertRegex(text, "not authorized|authorization denied")
        self.assertIn("unable to open", found[3])
        self.assertEqual(found[4:], [0, 1])
        self.assertFalse(os.path.exists(copy))
        self.kill()
        self.assertEqual(self.run_in("django/one", "answer = rows('SELECT count(*) FROM t')"),
                         [[1]])
        self.stop_and_check()

    def test_extensions_vacuums_scripts_and_backups_work_and_stay(self):
        self.run_in("django/one", """
rows("PRAGMA auto_vacuum = INCREMENTAL")
rows("VACUUM")
raw = connection.connection
raw.executescript('''
    CREATE VIRTUAL TABLE f USING fts5(body);
    INSERT INTO f VALUES('a quick fox'), ('a lazy dog');
    CREATE VIRTUAL TABLE r USING rtree(id, x0, x1);
    INSERT INTO r VALUES(1, 0, 1), (2, 5, 6);
    CREATE TABLE t(a);
    CREATE TEMP TABLE x(a);
    INSERT INTO x VALUES(1), (2), (3);
    INSERT INTO t SELECT randomblob(3000) FROM x, x AS y, x AS z;
    DELETE FROM t WHERE rowid > 3;
''')
raw.executescript("PRAGMA incremental_vacuum")
memory = sqlite3.connect(":memory:")
raw.backup(memory)
assert memory.execute("SELECT count(*) FROM t").fetchone() == (3,)
assert any("CREATE TABLE t" in line for line in raw.iterdump())
""")
        look = """
answer = [rows("SELECT count(*) FROM f WHERE f MATCH 'lazy'"),
          rows("SELECT id FROM r WHERE x0 > 3"), rows("SELECT count(*) FROM t"),
          rows("PRAGMA auto_vacuum"), rows("PRAGMA freelist_count"),
          rows("PRAGMA integrity_check")]
"""
        expected = [[[1]], [[2]], [[3]], [[2]], [[0]], [["ok"]]]
        self.assertEqual(self.run_in("django/one", look), expected)
        self.kill()
        self.assertEqual(self.run_in("django/one", look), expected)
        self.stop_and_check()

    def test_nested_transactions_that_go_back_with_a_small_cache_lose_nothing(self):
        for first in range(0, 40, 5):
            wanted = self.run_in("django/one", SAVEPOINTS.replace("{first}", str(first)))
            self.kill()
            found = self.run_in(
                "django/one",
                "answer = rows('SELECT count(*), sum(k), sum(length(b)) FROM s')")
            self.assertEqual(found, wanted)
            self.assertEqual(self.run_in("django/one", "answer = rows('PRAGMA integrity_check')"),
                             [["ok"]])
        self.stop_and_check()

    def big(self, number):
        return BIG.format(count=MEGABYTES * 100, round=number)

    def leftovers(self):
        return [name for name in os.listdir(os.path.join(self.daemon.state, "journal/guests/0"))
                if name.startswith(("spill", "overflow"))]

    def test_a_huge_transaction_is_all_there_or_not_at_all_in_little_memory(self):
        expected = [[1, MEGABYTES * 100, MEGABYTES * 1000000]]
        self.run_in("django/small", "rows('CREATE TABLE t(a)')")
        before = self.memory(self.worker())
        seconds = self.run_in("django/one", self.big(1))
        writer = self.memory(self.worker())
        self.kill()
        begun = time.monotonic()
        self.assertEqual(self.run_in("django/one", LOOK), expected)
        recovery = self.memory(self.worker())
        print(f"# {MEGABYTES} MB: {seconds:.1f} s, memory {before >> 20} to {writer >> 20} MiB, "
              f"{recovery >> 20} MiB in recovery; seen {time.monotonic() - begun:.1f} s after it",
              flush=True)
        self.assertLess(writer - before, MEMORY)
        self.assertLess(recovery - before, MEMORY)

        # Killed in the middle: of the statement, of the commit, of what comes behind it.
        for share in (0.3, 0.7, 0.9, 1.0):
            thread = threading.Thread(target=self.try_big, args=(2,))
            thread.start()
            time.sleep(seconds * share)
            self.kill()
            thread.join()
            found = self.run_in("django/one", LOOK)
            if found != expected:
                self.assertEqual(found, expected + [[2, *expected[0][1:]]])
                self.run_in("django/one", "rows('DELETE FROM big WHERE round = 2')")
        self.assertEqual(self.run_in("django/one", "answer = rows('PRAGMA integrity_check')"),
                         [["ok"]])
        self.stop_and_check()
        # What the last segment names goes soon after the next start.
        self.daemon.start()
        end = time.monotonic() + 30
        while self.leftovers() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.leftovers(), [])

    def try_big(self, number):
        try:
            self.run_in("django/one", self.big(number))
        except Exception:
            pass  # killed

    def test_others_are_answered_while_a_huge_transaction_is_written(self):
        self.run_in("django/small", "rows('CREATE TABLE t(a)')")
        thread = threading.Thread(target=self.try_big, args=(1,))
        thread.start()
        times = []
        while thread.is_alive():
            begun = time.monotonic()
            self.run_in("django/small", "rows('INSERT INTO t VALUES(1)')")
            times.append(time.monotonic() - begun)
            time.sleep(0.02)
        thread.join()
        print(f"# {len(times)} writes meanwhile, the slowest {max(times) * 1000:.0f} ms",
              flush=True)
        self.assertGreater(len(times), 5)
        self.assertEqual(self.run_in("django/small", "answer = rows('SELECT count(*) FROM t')"),
                         [[len(times)]])

    def test_a_plain_class_shares_the_engine(self):
        self.run_in("plain/one", """
sql.exec("CREATE TABLE t(a)")
sql.exec("CREATE VIRTUAL TABLE f USING fts5(body)")
sql.exec("INSERT INTO f VALUES(?)", "in both")
sql.exec("CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)")
sql.exec("INSERT INTO r VALUES(1, 0, 1), (2, 5, 6)")
sql.exec("WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < 3000) "
         "INSERT INTO t SELECT randomblob(1000) FROM r")
""")
        self.run_in("django/one", "rows('CREATE TABLE t(a)')")
        self.kill()
        found = self.run_in("plain/one", """
answer = [sql.exec("SELECT count(*) AS n FROM t").one().n,
          sql.exec("SELECT count(*) AS n FROM f WHERE f MATCH 'both'").one().n,
          sql.exec("SELECT id FROM r WHERE x0 > 3").one().id]
""")
        self.assertEqual(found, [3000, 1, 2])
        self.assertEqual(self.run_in("django/one", "answer = rows('SELECT count(*) FROM t')"),
                         [[0]])
        self.stop_and_check()


if __name__ == "__main__":
    unittest.main()
