# SPDX-License-Identifier: Apache-2.0
"""durablectl objects: bookmarks, restores and copies of single objects while they serve."""

import json
import os
import pty
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest

from daemon import DURABLECTL, FIXTURES, Daemon, Service, copy_project

MAIN = '''
import asyncio
import time
from datetime import datetime, timezone

from workers import DurableObject, Response, WorkerEntrypoint


class Thing(DurableObject):
    """Two tables that hold the same rows, and a number kept in memory."""

    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        for table in ("a", "b"):
            self.sql.exec(f"CREATE TABLE IF NOT EXISTS {table}(n INTEGER PRIMARY KEY, text)")
        self.count = self.rows("a")

    def rows(self, table):
        return self.sql.exec(f"SELECT count(*) FROM {table}").raw().toArray().to_py()[0][0]

    async def fetch(self, request):
        action = request.url.rsplit("/", 1)[1]
        if action == "add":
            self.sql.exec(
                "INSERT INTO a(text) VALUES('x'); INSERT INTO b(text) VALUES('x')"
            )
            self.count += 1
        elif action == "doze":
            await asyncio.sleep(20)
        elif action == "block":
            time.sleep(3.5)
        elif action == "busy":
            time.sleep(6)
        elif action == "stubborn":
            while True:
                try:
                    await asyncio.sleep(20)
                except asyncio.CancelledError:
                    pass
        elif action == "bookmark":
            return Response(await self.ctx.storage.getCurrentBookmark())
        elif action.startswith("at-"):
            moment = datetime.fromtimestamp(float(action[3:]), timezone.utc)
            return Response(await self.ctx.storage.get_bookmark_for_time(moment))
        elif action.startswith("return-"):
            undo = await self.ctx.storage.onNextSessionRestoreBookmark(action[7:])
            return Response(undo)
        elif action == "abort":
            self.count = -1
            try:
                self.ctx.abort("starts anew")
            except Exception:
                return Response("not caught by an app's own handlers")
        elif action == "later":
            await asyncio.sleep(0.2)
            self.ctx.abort()
        return Response(f"{self.count} {self.rows('a')} {self.rows('b')}")


class Other(Thing):
    pass


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        parts = request.url.split("/", 5)
        binding = self.env.OTHER if parts[3] == "other" else self.env.THING
        return await binding.get(binding.idFromName(parts[4])).fetch(request)
'''
MANIFEST = """{
  "name": "things", "main": "src/index.py", "compatibility_date": "2026-01-01",
  "durable_objects": {"bindings": [
    {"name": "THING", "class_name": "Thing"}, {"name": "OTHER", "class_name": "Other"}]},
  "migrations": [{"tag": "v1", "new_sqlite_classes": ["Thing", "Other"]}]
}
"""
FAILED, USAGE, ABSENT, NO_DAEMON = 1, 2, 3, 4


class ObjectsCase(unittest.TestCase):
    WORKERS = 2

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        os.mkdir(os.path.join(cls.folder, "src"))
        for name, text in zip(("wrangler.jsonc", "src/index.py"), cls.project()):
            with open(os.path.join(cls.folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        cls.daemon = Service(cls.folder, workers=cls.WORKERS)
        cls.daemon.__enter__()
        cls.addClassCleanup(cls.daemon.__exit__)

    @classmethod
    def project(cls):
        return MANIFEST, MAIN

    def run_objects(self, *arguments, stdin=None, cwd=None):
        command = [DURABLECTL, "objects", *arguments]
        if "--socket" not in arguments:
            command += ["--socket", self.daemon.socket]
        return subprocess.run(command, capture_output=True, input=stdin, timeout=60,
                              cwd=cwd or self.folder)

    def objects(self, *arguments, **options):
        done = self.run_objects(*arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode().strip()

    def refused(self, status, words, *arguments, **options):
        done = self.run_objects(*arguments, **options)
        self.assertEqual(done.returncode, status, done)
        self.assertIn(words, done.stderr.decode())
        return done

    def add(self, name, n=1, kind="thing"):
        for _ in range(n):
            answer = self.daemon.get(f"/{kind}/{name}/add")
            self.assertEqual(answer.status, 200, answer.text)
        return answer.text

    def show(self, name, kind="thing"):
        return self.daemon.get(f"/{kind}/{name}/show").text

    def until_answer(self, name, seconds=30):
        end = time.monotonic() + seconds
        while True:
            try:
                answer = self.daemon.get(f"/thing/{name}/show")
                if answer.status == 200:
                    return answer.text
            except OSError:
                pass
            self.assertLess(time.monotonic(), end, "the worker does not come back")
            time.sleep(0.1)

    def files(self):
        found = []
        for folder, _, names in os.walk(os.path.join(self.daemon.state, "objects")):
            found += [os.path.join(folder, name) for name in names if name.endswith(".sqlite")]
        return sorted(found)


def content(path):
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        return tuple(db.execute(f"SELECT count(*), max(n) FROM {t}").fetchone() for t in "ab")


class Bookmark(ObjectsCase):
    def test_bookmarks_of_an_object_sort_in_the_order_of_its_commits(self):
        self.add("sorted")
        marks = []
        for _ in range(3):
            marks.append(self.objects("bookmark", "sorted"))
            self.add("sorted")
        self.assertEqual(marks, sorted(set(marks)))
        self.assertRegex(marks[0], r"^[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{32}$")

    def test_an_object_is_found_by_name_and_id_and_class(self):
        self.add("twice")
        self.add("twice", kind="other")
        self.add("alone", kind="other")
        found = json.loads(self.objects("bookmark", "alone", "--json"))
        self.assertEqual((found["app"], found["class"]), ("things", "Other"))
        again = json.loads(self.objects("bookmark", found["id"], "--json"))
        self.assertEqual(again["id"], found["id"])
        error = self.refused(FAILED, "AmbiguousObject", "bookmark", "twice").stderr.decode()
        self.assertIn("Thing of app things, Other of app things", error)
        one = json.loads(self.objects("bookmark", "twice", "--class", "Thing", "--json"))
        two = json.loads(self.objects("bookmark", "twice", "--class", "Other", "--json"))
        self.assertNotEqual(one["id"], two["id"])

    def test_what_does_not_exist_is_an_error_and_is_not_created(self):
        before = self.files()
        self.refused(ABSENT, "NoSuchObject", "bookmark", "nobody")
        self.refused(ABSENT, "NoSuchObject", "bookmark", "nobody", "--class", "Thing")
        self.refused(ABSENT, "NoSuchObject", "export", "nobody", "-")
        self.refused(FAILED, "NoSuchApp", "bookmark", "nobody", "--app", "shop")
        self.refused(FAILED, "NoSuchClass", "bookmark", "nobody", "--class", "Shop")
        self.refused(FAILED, "InvalidId", "bookmark", "0" * 64)
        self.refused(FAILED, "64 digits", "bookmark", "abc", "--id")
        self.assertEqual(self.files(), before)

    def test_an_error_names_the_object_and_what_would_help(self):
        self.add("here")
        now = self.objects("bookmark", "here")
        for words, *arguments in (
            ("there is no object 'nobody' in any of 2 classes", "bookmark", "nobody"),
            ("there is no object 'nobody' in class Thing of app things",
             "bookmark", "nobody", "--class", "Thing"),
            ("of one that was deleted, name its class", "restore", "nobody", now, "--yes"),
        ):
            self.refused(ABSENT, words, *arguments)
        self.add("there")
        self.refused(FAILED, "there is an object 'there': it is replaced only when that is asked "
                     "for (overwrite; durablectl: --force)", "snapshot", "here", "there")
        self.refused(ABSENT, "there is no object in any of 2 classes", "bookmark", "n" * 5000)

    def test_a_sleeping_object_is_served_without_waking_it(self):
        name = self.add("sleeper") and "sleeper"
        ident = json.loads(self.objects("bookmark", name, "--json"))["id"]
        self.daemon.stop()
        self.daemon.start()
        events = self.daemon.sum_of("runtime", "events")
        self.objects("bookmark", ident)
        self.objects("export", ident, os.path.join(self.folder, "sleeper.sqlite"))
        self.assertEqual(content(os.path.join(self.folder, "sleeper.sqlite"))[0], (1, 1))
        self.assertEqual(self.daemon.sum_of("runtime", "events"), events)
        self.assertEqual(self.show(name), "1 1 1")

    def test_who_waits_at_a_terminal_sees_it(self):
        self.add("blocked")
        client = self.daemon.client()
        client.connection.request("GET", "/thing/blocked/block")
        time.sleep(0.3)
        ours, theirs = pty.openpty()
        command = [DURABLECTL, "objects", "bookmark", "blocked", "--socket", self.daemon.socket]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as process:
            bookmark = process.stdout.read()
        os.close(theirs)
        with open(ours, "rb", buffering=0) as terminal:
            shown = terminal.read(4096).decode()
        client.close()
        self.assertRegex(bookmark, rb"^[0-9a-f-]{59}\n$")
        self.assertIn("waiting for the daemon: 2 s", shown)
        self.assertTrue(shown.endswith("\r\033[K"), shown)
        self.assertEqual(self.run_objects("bookmark", "blocked").stderr, b"")

    def test_requests_whose_callers_have_left_give_their_places_back(self):
        self.add("busy")
        busy = threading.Thread(target=lambda: self.daemon.get("/thing/busy/busy"))
        busy.start()
        time.sleep(0.5)
        # More than a worker takes at a time.
        command = [DURABLECTL, "objects", "bookmark", "busy", "--class", "Thing", "--socket",
                   self.daemon.socket]
        callers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                   for _ in range(24)]
        self.until_refused(callers)
        for caller in callers:
            caller.kill()
            caller.communicate()
        self.objects("bookmark", "busy", "--class", "Thing")
        busy.join()

    def until_refused(self, callers):
        """The limit has been reached: some have been told."""
        end, refused = time.monotonic() + 4, []
        while not refused:
            self.assertLess(time.monotonic(), end, "no request is refused")
            refused += [caller for caller in callers if caller.poll() is not None]
            time.sleep(0.02)
        self.assertIn("Too many", refused[0].stderr.read().decode())

    def test_wrong_words_are_named(self):
        self.refused(USAGE, "usage: durablectl objects bookmark", "bookmark")
        self.refused(USAGE, "usage: durablectl objects bookmark", "bookmark", "a", "--yes")
        self.refused(USAGE, "is no moment", "bookmark", "a", "--at", "yesterday")
        self.refused(USAGE, "there is only", "forget", "a")
        self.refused(NO_DAEMON, "no daemon answers", "bookmark", "a", "--socket", "/tmp/none")


class Export(ObjectsCase):
    def export(self, name, *arguments):
        path = os.path.join(self.folder, f"{name}-{time.monotonic_ns()}.sqlite")
        self.objects("export", name, path, *arguments)
        return path

    def test_the_copy_is_a_plain_database_of_its_own(self):
        self.add("plain", 3)
        path = self.export("plain")
        self.assertEqual(content(path), ((3, 3), (3, 3)))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.add("plain")
        self.assertEqual(content(path)[0], (3, 3))
        done = self.run_objects("export", "plain", "-")
        self.assertEqual(done.stdout[:15], b"SQLite format 3")

    def test_nothing_is_overwritten_without_force(self):
        self.add("kept")
        path = os.path.join(self.folder, "kept.sqlite")
        self.objects("export", "kept", cwd=self.folder)
        self.assertEqual(content(path)[0], (1, 1))
        self.add("kept")
        self.refused(FAILED, "exists", "export", "kept", path)
        self.assertEqual(content(path)[0], (1, 1))
        told = json.loads(self.objects("export", "kept", path, "--force", "--json"))
        self.assertEqual(content(path)[0], (2, 2))
        self.assertEqual(told["file"], path)
        self.assertEqual(told["size"], os.stat(path).st_size)
        left = [n for n in os.listdir(self.folder) if n.startswith("kept.sqlite.")]
        self.assertEqual(left, [])
        self.refused(FAILED, "cannot write", "export", "kept", "/nowhere/kept.sqlite")

    def test_an_export_that_is_killed_leaves_nothing(self):
        self.add("cut", 2)
        folder = tempfile.mkdtemp(dir=self.folder)

        def few_bytes():
            resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        for more in ([], ["--force"]):
            path = os.path.join(folder, "cut.sqlite")
            command = [DURABLECTL, "objects", "export", "cut", path, *more]
            done = subprocess.run(command + ["--socket", self.daemon.socket], timeout=60,
                                  capture_output=True, preexec_fn=few_bytes)
            self.assertEqual(done.returncode, -signal.SIGXFSZ, done.stderr)
            self.assertEqual(os.listdir(folder), [])
        self.objects("export", "cut", path, "--force")
        self.objects("export", "cut", path, "--force")
        self.assertEqual(os.listdir(folder), ["cut.sqlite"])
        self.assertEqual(content(path)[0], (2, 2))

    def test_a_copy_made_while_four_clients_write_holds_all_that_was_answered(self):
        self.add("busy")
        answered, stop = [1], threading.Event()

        def write():
            client = self.daemon.client()
            while not stop.is_set():
                answer = client.get("/thing/busy/add")
                assert answer.status == 200, answer.text
                answered.append(int(answer.text.split()[1]))
            client.close()

        writers = [threading.Thread(target=write) for _ in range(4)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(8):
                before = max(answered)
                (a, last_a), (b, last_b) = content(self.export("busy"))
                self.assertEqual((a, last_a), (b, last_b))
                self.assertEqual(a, last_a)  # a prefix: no row is missing in between
                self.assertGreaterEqual(a, before)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        self.assertGreater(max(answered), 20)

    def test_no_scratch_file_is_left(self):
        self.add("clean")
        self.export("clean")
        left = []
        for folder, _, names in os.walk(self.daemon.state):
            left += [name for name in names if name.startswith("operator-")]
        self.assertEqual(left, [])

    def test_a_request_that_sleeps_does_not_keep_the_operator_waiting(self):
        self.add("dozing")
        client = self.daemon.client()
        client.connection.request("GET", "/thing/dozing/doze")
        time.sleep(0.3)
        began = time.monotonic()
        self.export("dozing")
        self.assertLess(time.monotonic() - began, 10)
        client.close()


class Restore(ObjectsCase):
    def restore(self, name, bookmark, *arguments):
        return self.objects("restore", name, bookmark, "--yes", *arguments)

    def test_a_restore_can_be_undone_and_the_undoing_too(self):
        self.add("back", 3)
        three = self.objects("bookmark", "back")
        self.add("back", 4)
        undo = self.restore("back", three)
        # The number that the instance keeps in memory is what the tables say: it was made anew.
        self.assertEqual(self.show("back"), "3 3 3")
        redo = self.restore("back", undo)
        self.assertEqual(self.show("back"), "7 7 7")
        self.restore("back", redo)
        self.assertEqual(self.show("back"), "3 3 3")
        self.assertEqual(self.add("back"), "4 4 4")

    def test_a_sleeping_object_is_restored_without_waking_it(self):
        self.add("asleep", 2)
        two = self.objects("bookmark", "asleep")
        self.add("asleep", 2)
        self.daemon.stop()
        self.daemon.start()
        events = self.daemon.sum_of("runtime", "events")
        self.restore("asleep", two)
        self.assertEqual(self.daemon.sum_of("runtime", "events"), events)
        self.assertEqual(self.show("asleep"), "2 2 2")

    def test_a_restore_outlives_a_kill_of_the_worker(self):
        self.add("killed", 2)
        two = self.objects("bookmark", "killed")
        self.add("killed", 2)
        self.restore("killed", two)
        for worker in self.daemon.all_workers():
            os.kill(worker["pid"], signal.SIGKILL)
        self.assertEqual(self.until_answer("killed"), "2 2 2")

    def test_wrong_bookmarks_change_nothing(self):
        self.add("mine", 2)
        self.add("theirs")
        foreign = self.objects("bookmark", "theirs")
        now = self.objects("bookmark", "mine")
        future = "f" + now[1:]
        for bookmark, error in (
            ("nonsense", "InvalidBookmark"), ("", "InvalidBookmark"), (foreign, "InvalidBookmark"),
            (now.upper(), "InvalidBookmark"), (future, "BookmarkInFuture"),
        ):
            self.refused(FAILED, error, "restore", "mine", bookmark, "--yes")
        self.assertEqual(self.show("mine"), "2 2 2")
        before = self.files()
        self.refused(ABSENT, "NoSuchObject", "restore", "nobody", now, "--yes")
        self.refused(
            FAILED, "InvalidBookmark", "restore", "nobody", now, "--yes", "--class", "Thing")
        self.assertEqual(self.files(), before)

    def test_nothing_is_restored_without_being_told_so(self):
        self.add("asked", 2)
        now = self.objects("bookmark", "asked")
        self.add("asked")
        self.refused(USAGE, "--yes", "restore", "asked", now, stdin=b"asked\n")
        for typed, status, shown in ((b"yes\n", FAILED, "3 3 3"), (b"asked\n", 0, "2 2 2")):
            self.assertEqual(self.type_at_terminal(typed, "restore", "asked", now), status)
            self.assertEqual(self.show("asked"), shown)

    def type_at_terminal(self, typed, *arguments):
        ours, theirs = pty.openpty()
        command = [DURABLECTL, "objects", *arguments, "--socket", self.daemon.socket]
        with subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as process:
            os.close(theirs)
            os.write(ours, typed)
            status = process.wait(60)
        os.close(ours)
        return status

    def test_requests_that_race_with_restores_see_no_mix(self):
        self.add("race", 5)
        five = self.objects("bookmark", "race")
        stop, seen, wrong = threading.Event(), [], []

        def write():
            client = self.daemon.client()
            while not stop.is_set():
                answer = client.get("/thing/race/add")
                numbers = answer.text.split()
                seen.append(numbers[0])
                if answer.status != 200 or len(set(numbers)) != 1:
                    wrong.append((answer.status, answer.text))
            client.close()

        writers = [threading.Thread(target=write) for _ in range(4)]
        for writer in writers:
            writer.start()
        try:
            undos = [self.restore("race", five) for _ in range(10)]
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        self.assertEqual(wrong, [])
        self.assertGreater(len(seen), 20)
        self.assertEqual(len(set(undos)), 10)
        self.restore("race", undos[-1])
        count, a, b = self.show("race").split()
        self.assertEqual((count, a), (a, b))

    def test_a_request_that_does_not_give_up_is_ended(self):
        self.add("stubborn")
        now = self.objects("bookmark", "stubborn")
        self.add("stubborn")
        answers = []
        waiting = threading.Thread(
            target=lambda: answers.append(self.daemon.get("/thing/stubborn/stubborn")))
        waiting.start()
        time.sleep(0.5)
        self.restore("stubborn", now)
        waiting.join(10)
        self.assertEqual(answers[0].status, 503)
        self.assertEqual(self.add("stubborn"), "2 2 2")

    def test_a_request_that_waits_is_given_up_with_503(self):
        self.add("waits")
        now = self.objects("bookmark", "waits")
        answers = []
        waiting = threading.Thread(
            target=lambda: answers.append(self.daemon.get("/thing/waits/doze")))
        waiting.start()
        time.sleep(0.5)
        self.restore("waits", now)
        waiting.join(10)
        self.assertEqual(answers[0].status, 503)
        self.assertEqual(answers[0].headers["Retry-After"], "1")
        self.assertEqual(self.show("waits"), "1 1 1")


class Snapshot(ObjectsCase):
    def test_a_copy_goes_into_other_objects_wherever_they_live(self):
        self.add("source", 3)
        three = self.objects("bookmark", "source")
        self.add("source", 2)
        slots = set()
        for n in range(6):
            name = f"copy{n}"
            self.objects("snapshot", "source", name, "--bookmark", three)
            found = self.daemon.address_of("things", "Thing", name)
            slots.add(found["slot"])
            self.assertEqual(self.show(name), "3 3 3")
            # It is itself: its name, and its own from here on.
            self.assertEqual(self.add(name), "4 4 4")
            self.assertEqual(self.show("source"), "5 5 5")
        self.assertEqual(slots, {0, 1})
        self.objects("snapshot", "source", "now")
        self.assertEqual(self.show("now"), "5 5 5")

    def test_an_object_is_replaced_only_when_told_so_and_can_be_had_back(self):
        self.add("from", 3)
        for name in ("to", "to2", "to3"):
            self.add(name, 7)
            self.refused(FAILED, "ObjectExists", "snapshot", "from", name)
            self.assertEqual(self.show(name), "7 7 7")
            undo = self.objects("snapshot", "from", name, "--force")
            self.assertEqual(self.show(name), "3 3 3")
            self.objects("restore", name, undo, "--yes")
            self.assertEqual(self.show(name), "7 7 7")
        self.refused(FAILED, "itself", "snapshot", "from", "from", "--force")
        self.refused(ABSENT, "NoSuchObject", "snapshot", "nobody", "from")

    def test_an_export_of_the_past_is_what_was_then(self):
        self.add("old", 2)
        two = self.objects("bookmark", "old")
        self.add("old", 2)
        path = os.path.join(self.folder, "old.sqlite")
        self.objects("export", "old", path, "--bookmark", two)
        self.assertEqual(content(path), ((2, 2), (2, 2)))
        self.assertEqual(self.show("old"), "4 4 4")
        self.refused(FAILED, "InvalidBookmark", "export", "old", path, "--force", "--bookmark",
                     two[:-1] + ("0" if two[-1] != "0" else "1"))

    def test_a_time_names_the_last_commit_by_then(self):
        self.add("timed", 2)
        time.sleep(0.05)
        moment = time.time()
        time.sleep(0.05)
        self.add("timed", 3)
        bookmark = self.objects("bookmark", "timed", "--at", f"{moment:.3f}")
        self.objects("restore", "timed", bookmark, "--yes")
        self.assertEqual(self.show("timed"), "2 2 2")


class Guest(ObjectsCase):
    def ask(self, name, action):
        return self.daemon.get(f"/thing/{name}/{action}")

    def test_an_app_takes_bookmarks_and_goes_back(self):
        self.add("app", 3)
        three = self.ask("app", "bookmark").text
        self.assertEqual(len(three), 59)
        self.add("app", 2)
        undo = self.ask("app", f"return-{three}").text
        # Not before the next session.
        self.assertEqual(self.show("app"), "5 5 5")
        self.assertEqual(self.add("app"), "6 6 6")
        answer = self.ask("app", "abort")
        self.assertEqual(answer.status, 500)
        self.assertIn("starts anew", answer.text)
        self.assertEqual(self.show("app"), "3 3 3")
        # It was done once.
        self.ask("app", "abort")
        self.assertEqual(self.add("app"), "4 4 4")
        self.ask("app", "abort")
        self.assertEqual(self.show("app"), "4 4 4")
        self.ask("app", f"return-{undo}")
        self.ask("app", "abort")
        self.assertEqual(self.show("app"), "5 5 5")
        self.ask("app", "abort")
        self.assertEqual(self.show("app"), "5 5 5")

    def test_what_an_operator_takes_an_app_can_use_and_the_other_way_round(self):
        self.add("both", 2)
        two = self.ask("both", "bookmark").text
        self.add("both")
        three = self.objects("bookmark", "both")
        self.objects("restore", "both", two, "--yes")
        self.assertEqual(self.show("both"), "2 2 2")
        self.ask("both", f"return-{three}")
        self.ask("both", "abort")
        self.assertEqual(self.show("both"), "3 3 3")

    def test_a_time_gives_a_bookmark_to_an_app(self):
        self.add("clock", 2)
        time.sleep(0.05)
        moment = time.time()
        time.sleep(0.05)
        self.add("clock")
        then = self.ask("clock", f"at-{moment}").text
        self.assertLess(then, self.ask("clock", "bookmark").text)
        self.ask("clock", f"return-{then}")
        self.ask("clock", "abort")
        self.assertEqual(self.show("clock"), "2 2 2")

    def test_what_was_asked_for_is_done_after_a_crash_too(self):
        self.add("crash", 2)
        two = self.ask("crash", "bookmark").text
        self.add("crash")
        self.ask("crash", f"return-{two}")
        for worker in self.daemon.all_workers():
            os.kill(worker["pid"], signal.SIGKILL)
        self.assertEqual(self.until_answer("crash"), "2 2 2")

    def test_a_bookmark_of_another_object_is_refused_at_once(self):
        self.add("one")
        self.add("two")
        foreign = self.ask("two", "bookmark").text
        answer = self.ask("one", f"return-{foreign}")
        self.assertEqual(answer.status, 500)
        self.daemon.wait_output("this is no bookmark of the object")
        self.ask("one", "abort")
        self.assertEqual(self.show("one"), "1 1 1")

    def test_an_abort_gives_up_the_other_requests_of_the_object(self):
        self.add("others")
        answers = {}

        def ask(action):
            answers[action] = self.ask("others", action)

        threads = [threading.Thread(target=ask, args=(a,)) for a in ("doze", "later")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(15)
        # One step may have run the tasks of both: then the one that aborts is given up as well.
        self.assertIn(answers["later"].status, (500, 503))
        self.assertEqual(answers["doze"].status, 503)
        self.assertEqual(self.show("others"), "1 1 1")


class Interface(ObjectsCase):
    """io.durabled.Objects as other programs call it."""

    def call(self, method, **parameters):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.daemon.socket)
            message = {"method": method, "parameters": parameters}
            connection.sendall(json.dumps(message).encode() + b"\0")
            received, fds = b"", []
            while not received.endswith(b"\0"):
                data, more, _, _ = socket.recv_fds(connection, 65536, 4)
                self.assertTrue(data)
                received += data
                fds += more
        return json.loads(received[:-1]), fds

    def test_its_text_names_what_it_answers(self):
        answer, _ = self.call("org.varlink.service.GetInterfaceDescription",
                              interface="io.durabled.Objects")
        text = answer["parameters"]["description"]
        methods = re.findall(r"^method (\w+)\(", text, re.M)
        self.assertEqual(methods, ["Address", "Bookmark", "Export", "Restore", "Snapshot"])
        errors = re.findall(r"^error (\w+) \(", text, re.M)
        for method in methods:
            answer, _ = self.call(f"io.durabled.Objects.{method}")
            self.assertEqual(answer["error"], "org.varlink.service.InvalidParameter", method)
        for error, method, parameters in (
            ("NoSuchApp", "Bookmark", {"app": "shop", "name": "a"}),
            ("NoSuchClass", "Export", {"class": "Shop", "name": "a"}),
            ("InvalidId", "Bookmark", {"id": "1"}),
            ("NoSuchObject", "Export", {"class": "Thing", "name": "nobody"}),
            ("InvalidBookmark", "Restore", {"class": "Thing", "name": "a", "bookmark": "b"}),
        ):
            answer, fds = self.call(f"io.durabled.Objects.{method}", **parameters)
            self.assertEqual(answer["error"], f"io.durabled.Objects.{error}")
            self.assertIn(error, errors)
            self.assertEqual(fds, [])

    def test_what_is_misspelt_or_of_another_type_is_not_passed_over(self):
        self.add("typed", 2)
        then = self.objects("bookmark", "typed")
        self.add("typed")
        for method, parameter, wrong in (
            ("Bookmark", "id", {"id": "b"}), ("Bookmark", "name", {"name": 7}),
            ("Bookmark", "time_ns", {"time_ns": "soon"}), ("Bookmark", "time_ns", {"time_ns": -1}),
            ("Bookmark", "bookmark", {"bookmark": then}), ("Bookmark", "class", {"class": []}),
            ("Export", "bookmark", {"bookmark": 7}), ("Export", "bookmarks", {"bookmarks": then}),
            ("Snapshot", "bookmark", {"to": "typed2", "bookmark": {}}),
            ("Snapshot", "overwrite", {"to": "typed2", "overwrite": "no"}),
            ("Restore", "to", {"bookmark": then, "to": "typed2"}),
        ):
            answer, fds = self.call(f"io.durabled.Objects.{method}", **{"name": "typed", **wrong})
            self.assertEqual(answer.get("error"), "org.varlink.service.InvalidParameter", wrong)
            self.assertEqual(answer["parameters"], {"parameter": parameter})
            self.assertEqual(fds, [])
        self.assertEqual(self.show("typed"), "3 3 3")
        answer, _ = self.call("io.durabled.Objects.Bookmark", app=None, id=None, name="typed",
                              time_ns=None, **{"class": None})
        self.assertRegex(answer["parameters"]["bookmark"], "^[0-9a-f-]{59}$")

    def test_an_export_brings_a_descriptor_of_a_file_without_a_name(self):
        self.add("passed", 2)
        answer, fds = self.call("io.durabled.Objects.Export", name="passed")
        self.assertEqual((answer["parameters"]["fd"], len(fds)), (0, 1))
        with os.fdopen(fds[0], "rb") as file:
            status = os.fstat(file.fileno())
            self.assertEqual(status.st_nlink, 0)
            self.assertEqual(status.st_size, answer["parameters"]["size"])
            self.assertEqual(file.read(15), b"SQLite format 3")
            self.assertRaises(OSError, os.write, file.fileno(), b"x")

    def test_a_caller_that_leaves_harms_nobody(self):
        self.add("left", 2)
        # Fewer than a worker takes at a time: what was asked is done, though nobody waits for it.
        for _ in range(12):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self.daemon.socket)
                connection.sendall(
                    b'{"method":"io.durabled.Objects.Export","parameters":{"name":"left"}}\0')
        self.assertEqual(len(self.objects("bookmark", "left")), 59)
        for worker in self.daemon.all_workers():
            links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{worker['pid']}/fd")
                     if os.path.lexists(entry.path)]
            self.assertEqual([link for link in links if "operator-" in link], [])


class Crowd(ObjectsCase):
    """An app with more classes than a worker takes requests of operators at a time."""

    CLASSES, WORKERS = 24, 1

    @classmethod
    def project(cls):
        names = [f"Kind{n}" for n in range(cls.CLASSES)]
        bindings = [{"name": name.upper(), "class_name": name} for name in names]
        manifest = json.loads(MANIFEST)
        manifest["durable_objects"]["bindings"] = bindings
        manifest["migrations"][0]["new_sqlite_classes"] = names
        main = MAIN[:MAIN.index("class Other")]
        main += "".join(f"class {name}(Thing):\n    pass\n\n\n" for name in names)
        main += MAIN[MAIN.index("class Default"):]
        main = re.sub(r"binding = self.env.OTHER .*", "binding = getattr(self.env, parts[3])", main)
        return json.dumps(manifest), main

    def test_an_object_is_found_among_all_classes(self):
        self.add("one", kind="KIND21")
        found = json.loads(self.objects("bookmark", "one", "--json"))
        self.assertEqual(found["class"], "Kind21")
        self.refused(ABSENT, "in any of 24 classes", "bookmark", "nobody")


class Django(unittest.TestCase):
    """The same on a Django project under durablectl dev, whose connections are open meanwhile."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def objects(self, daemon, *arguments):
        command = [DURABLECTL, "objects", *arguments, "--socket", daemon.socket]
        done = subprocess.run(command, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode().strip()

    def increment(self, daemon, n):
        for _ in range(n):
            self.assertEqual(daemon.get("/t/acme/increment/").status, 200)

    def rows(self, daemon):
        seen = daemon.get("/t/acme/rows/").json()
        self.assertEqual(len(seen["rows"]), seen["value"])
        return seen["value"]

    def test_django_writes_goes_back_and_forth_and_goes_on(self):
        project = copy_project(os.path.join(FIXTURES, "tenants"), self.folder)
        with Daemon(project, workers=2) as daemon:
            self.increment(daemon, 3)
            three = self.objects(daemon, "bookmark", "acme")
            self.increment(daemon, 4)
            undo = self.objects(daemon, "restore", "acme", three, "--yes")
            self.assertEqual(self.rows(daemon), 3)
            self.increment(daemon, 1)
            self.assertEqual(self.rows(daemon), 4)
            self.objects(daemon, "restore", "acme", undo, "--yes")
            self.assertEqual(self.rows(daemon), 7)
            path = os.path.join(self.folder, "acme.sqlite")
            self.objects(daemon, "export", "acme", path)
            with sqlite3.connect(path) as db:
                self.assertEqual(db.execute("PRAGMA integrity_check").fetchone(), ("ok",))
                self.assertIn(("django_migrations",),
                              db.execute("SELECT name FROM sqlite_schema").fetchall())
            self.objects(daemon, "snapshot", "acme", "other", "--bookmark", three)
            seen = daemon.get("/t/other/rows/").json()
            self.assertEqual(seen["value"], 3)
            # Found without --socket, as 'status' finds it.
            command = [DURABLECTL, "objects", "bookmark", "acme"]
            done = subprocess.run(
                command, capture_output=True, env=dict(os.environ, DURABLED_SOCKET=daemon.socket))
            self.assertEqual(done.returncode, 0, done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
