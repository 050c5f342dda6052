# SPDX-License-Identifier: Apache-2.0
"""Bookmarks and ctx.abort() as an app sees them."""

import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402

APP = '''
import threading
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit
from workers import DurableObject, Response, WorkerEntrypoint

class Thing(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY)")
        self.at_start = self.rows()
        self.memory = 0

    def rows(self):
        return self.sql.exec("SELECT count(*) FROM t").raw().toArray().to_py()[0][0]

    async def fetch(self, request):
        action, _, value = urlsplit(request.url).path.strip("/").partition("/")
        return Response(str(await getattr(self, action)(value)))

    async def add(self, _):
        self.memory += 1
        self.sql.exec("INSERT INTO t DEFAULT VALUES")
        return self.rows()

    async def show(self, _):
        return f"{self.at_start} {self.rows()} {self.memory}"

    async def mark(self, _):
        return await self.ctx.storage.getCurrentBookmark()

    async def snake(self, _):
        return await self.ctx.storage.get_current_bookmark()

    async def back(self, bookmark):
        return await self.ctx.storage.onNextSessionRestoreBookmark(bookmark)

    async def number(self, _):
        return await self.ctx.storage.on_next_session_restore_bookmark(7)

    async def times(self, _):
        at = self.ctx.storage.getBookmarkForTime
        await at(1500)
        await at(1500.5)
        await at(datetime(1970, 1, 2, tzinfo=timezone.utc))
        await at(datetime(1970, 1, 1, 1, 0, 0, 5, tzinfo=timezone(timedelta(hours=1))))
        wrong = []
        for when in (datetime(2026, 1, 1), "now", None, True, -1, float("nan"), 1e300):
            try:
                await at(when)
            except (TypeError, ValueError) as error:
                wrong.append(type(error).__name__)
        return " ".join(wrong)

    async def abort(self, reason):
        self.memory = -1
        try:
            self.ctx.abort(reason or None)
        except Exception:
            return "caught"

    async def swallow(self, _):
        try:
            self.ctx.abort()
        except BaseException:
            return "caught"

    async def thread(self, _):
        found = []

        def run():
            try:
                self.ctx.abort()
            except RuntimeError as error:
                found.append(type(error).__name__)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return found[0]

    async def locked(self, bookmark):
        import sqlite3
        from durabled_host import current_object
        other = sqlite3.connect(current_object().path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            return await self.ctx.storage.onNextSessionRestoreBookmark(bookmark)
        except RuntimeError as error:
            return error
        finally:
            other.close()

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("entry")
'''


class History(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = harness.app({"src/index.py": APP})
        cls.host = harness.load(directory, classes=["Thing"], bindings={"THING": 0})
        cls.addClassCleanup(cls.host.stop)

    def ask(self, name, action, status=200):
        event = self.host.request("GET", f"/{action}", obj=self.host.named(name))
        if status != 200:
            self.assertEqual(event.aborted[0] if event.aborted else event.status, status)
            return event
        self.assertEqual(event.status, 200, event.aborted or event.content)
        return event.content.decode()

    def test_what_is_asked_for_is_done_before_the_next_instance_is_made(self):
        for _ in range(3):
            self.ask("one", "add")
        mark = self.ask("one", "mark")
        self.ask("one", "add")
        self.assertLess(mark, self.ask("one", "snake"))
        undo = self.ask("one", f"back/{mark}")
        self.assertEqual(self.ask("one", "show"), "0 4 4")
        self.ask("one", "abort", 500)
        self.assertEqual(self.ask("one", "show"), "3 3 0")
        self.ask("one", "add")
        self.ask("one", "abort", 500)
        self.assertEqual(self.ask("one", "show"), "4 4 0")
        self.ask("one", f"back/{undo}")
        self.ask("one", "abort", 500)
        self.assertEqual(self.ask("one", "show"), "4 4 0")

    def test_a_bookmark_that_is_none_is_refused_at_once(self):
        self.ask("two", "add")
        foreign = self.ask("three", "mark")
        for action in ("back/none", f"back/{foreign}", "number"):
            self.ask("two", action, 500)
        self.ask("two", "abort", 500)
        self.assertEqual(self.ask("two", "show"), "1 1 0")

    def test_one_that_cannot_be_restored_any_more_is_told_and_forgotten(self):
        import _durabled

        self.ask("four", "add")
        mark = self.ask("four", "mark")
        self.ask("four", "add")
        self.ask("four", f"back/{mark}")
        del _durabled.moments[mark]
        self.ask("four", "abort", 500)
        self.assertEqual(self.ask("four", "show"), "2 2 0")
        told = [text for _, _, text in _durabled.logged if mark in text]
        self.assertEqual(len(told), 1)
        self.ask("four", "abort", 500)
        self.ask("four", "show")
        self.assertEqual(len([text for _, _, text in _durabled.logged if mark in text]), 1)

    def test_inside_a_transaction_it_is_refused_without_waiting(self):
        self.ask("five", "add")
        mark = self.ask("five", "mark")
        began = time.monotonic()
        self.assertIn("transaction is open", self.ask("five", f"locked/{mark}"))
        self.assertLess(time.monotonic() - began, 2)
        self.ask("five", f"back/{mark}")

    def test_times_are_milliseconds_or_datetimes(self):
        import _durabled

        del _durabled.asked_times[:]
        self.assertEqual(
            self.ask("six", "times"),
            "ValueError TypeError TypeError TypeError ValueError TypeError TypeError",
        )
        self.assertEqual(
            _durabled.asked_times, [1_500_000_000, 1_500_500_000, 86_400 * 10**9, 5000]
        )

    def test_an_abort_passes_an_apps_handlers_and_says_its_reason(self):
        self.ask("seven", "add")
        event = self.ask("seven", "abort/enough", 500)
        self.assertEqual(event.aborted[1], "enough")
        self.assertEqual(self.ask("seven", "show"), "1 1 0")

    def test_one_that_is_swallowed_resets_the_object_all_the_same(self):
        self.ask("eight", "add")
        self.assertEqual(self.ask("eight", "swallow"), "caught")
        self.assertEqual(self.ask("eight", "show"), "1 1 0")

    def test_a_thread_cannot_abort(self):
        self.assertEqual(self.ask("nine", "thread"), "NoObject")
        self.assertEqual(self.ask("nine", "show"), "0 0 0")


if __name__ == "__main__":
    unittest.main()
