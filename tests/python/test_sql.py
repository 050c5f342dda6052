# SPDX-License-Identifier: Apache-2.0
"""ctx.storage.sql: rows, cursors, and what is refused."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402

APP = '''
from workers import DurableObject, Response, WorkerEntrypoint

class Thing(DurableObject):
    async def fetch(self, request):
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)")
        self.ctx.storage.sql.exec("INSERT INTO t(b) VALUES(?)", self.ctx.id.name)
        return Response.json([r.b for r in self.ctx.storage.sql.exec("SELECT b FROM t")])
'''


class Sql(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = harness.app({"src/index.py": APP})
        cls.host = harness.load(directory, classes=["Thing"], bindings={"THING": 0})

    @classmethod
    def tearDownClass(cls):
        cls.host.stop()

    def setUp(self):
        from durabled_host.current import as_object
        from durabled_host.sql import SqlStorage

        import _durabled

        obj = self.host.named(self.id())
        _durabled.open_object(obj.path, obj.name)
        scope = as_object(obj)
        scope.__enter__()
        self.addCleanup(scope.__exit__, None, None, None)
        self.sql = SqlStorage()

    def refused(self, text, *statement):
        from pyodide.ffi import JsException

        with self.assertRaisesRegex(JsException, text):
            self.sql.exec(*statement)

    def test_rows_come_as_objects_lists_and_columns(self):
        self.sql.exec("CREATE TABLE t(a, b)")
        self.sql.exec("INSERT INTO t VALUES(?, ?), (3, NULL)", 1, "x")
        cursor = self.sql.exec("SELECT a, b FROM t ORDER BY a")
        self.assertEqual(cursor.columnNames, ["a", "b"])
        rows = cursor.toArray()
        self.assertEqual((rows[0].a, rows[0]["b"], rows[1].b), (1, "x", None))
        raw = self.sql.exec("SELECT a, b FROM t ORDER BY a").raw().toArray().to_py()
        self.assertEqual(raw, [[1, "x"], [3, None]])
        self.assertIsInstance(raw[0], list)
        self.assertEqual(self.sql.exec("SELECT count(*) AS n FROM t").one().n, 2)
        step = self.sql.exec("SELECT a FROM t ORDER BY a").next()
        self.assertEqual((step.done, step.value.a), (False, 1))

    def test_one_wants_exactly_one(self):
        from pyodide.ffi import JsException

        for query in ("SELECT 1 WHERE 0", "SELECT 1 UNION SELECT 2"):
            with self.assertRaises(JsException):
                self.sql.exec(query).one()

    def test_rows_written_are_counted(self):
        self.sql.exec("CREATE TABLE t(a)")
        self.assertEqual(self.sql.exec("INSERT INTO t VALUES(1), (2)").rowsWritten, 2)
        self.assertEqual(self.sql.exec("UPDATE t SET a = 5 WHERE a = 1").rowsWritten, 1)
        self.assertEqual(self.sql.exec("SELECT * FROM t").rowsRead, 2)

    def test_bindings_belong_to_the_last_statement(self):
        found = self.sql.exec(
            "CREATE TABLE t(a); INSERT INTO t VALUES('x;y'); -- a comment;\n"
            " SELECT a, ? AS b FROM t",
            7,
        )
        self.assertEqual(found.toArray().to_py(), [{"a": "x;y", "b": 7}])

    def test_transactions_are_refused_however_they_are_spelt(self):
        for statement in ("BEGIN", "/* x */ SAVEPOINT a", "-- c\ncommit", "ROLLBACK", "RELEASE a"):
            with self.subTest(statement):
                self.refused("SQLITE_AUTH", statement)

    def test_other_databases_are_refused(self):
        self.refused("one database", "ATTACH '/tmp/x.sqlite' AS x")

    def test_the_hosts_tables_are_hidden(self):
        self.refused("durabled's own", "SELECT * FROM _cf_METADATA")
        self.refused("durabled's own", "DROP TABLE _cf_METADATA")
        self.refused("durabled's own", "CREATE TABLE _cf_other(a)")

    def test_pragmas_are_those_of_the_list(self):
        self.sql.exec("PRAGMA table_info(t)")
        self.sql.exec("PRAGMA defer_foreign_keys = on")
        self.refused("journal_mode is not allowed", "PRAGMA journal_mode = OFF")
        self.refused("not allowed", "PRAGMA writable_schema = 1")

    def test_virtual_tables_work(self):
        self.sql.exec("CREATE VIRTUAL TABLE f USING fts5(body)")
        self.sql.exec("INSERT INTO f VALUES('a quick fox'), ('a lazy dog')")
        self.assertEqual(self.sql.exec("SELECT body FROM f('lazy')").one().body, "a lazy dog")
        self.sql.exec("CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)")
        self.sql.exec("INSERT INTO r VALUES(1, 0, 1), (2, 5, 6)")
        self.assertEqual(self.sql.exec("SELECT id FROM r WHERE x0 > 3").one().id, 2)

    def test_an_error_names_its_cause(self):
        self.sql.exec("CREATE TABLE t(a UNIQUE)")
        self.sql.exec("INSERT INTO t VALUES(1)")
        self.refused("UNIQUE constraint failed: t.a: SQLITE_CONSTRAINT", "INSERT INTO t VALUES(1)")
        self.refused("syntax error", "SELEC 1")
        self.refused("did not contain", " ; -- nothing")

    def test_null_of_javascript_is_null(self):
        from pyodide.ffi import jsnull

        self.assertIsNone(self.sql.exec("SELECT ? AS a", jsnull).one().a)

    def test_limits_are_held(self):
        self.refused("TOOBIG", "SELECT '" + "x" * 100_001 + "'")
        self.refused("TOOBIG", "SELECT ?", "x" * (2 * 1024 * 1024 + 1))

    def test_a_method_that_is_not_there_is_named(self):
        from durabled_host import NotSupported
        from workers.objects import Storage

        for name in ("get", "put", "setAlarm", "transactionSync"):
            with self.assertRaisesRegex(NotSupported, name):
                getattr(Storage(), name)

    def test_each_object_has_its_own_rows(self):
        for name in ("a", "b", "a"):
            event = self.host.request("GET", "/", obj=self.host.named(name))
            self.assertEqual(event.status, 200, event.content)
        self.assertEqual(event.content, b'["a", "a"]')


if __name__ == "__main__":
    unittest.main()
