# SPDX-License-Identifier: Apache-2.0
"""Disks that are full, broken, read-only or gone: a clear error for who is concerned, no more.

The state is on an ext4 image of its own, through a loop device; where mounts are refused, what
needs one is skipped.
"""

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from daemon import DURABLECTL, FIXTURES, Service, copy_project

MAIN = '''
import os, re, sqlite3, threading, time

import durabled_host

from workers import DurableObject, Response, WorkerEntrypoint, wsgi

from django_cf import DjangoCFDurableObject
from app.wsgi import application


class TenantDO(DjangoCFDurableObject, DurableObject):
    def get_app(self):
        return application


def hold(*things):
    while True:
        time.sleep(1000)


class Ledger(DurableObject):
    """Raw sql.exec()."""

    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql

    def add(self, key, size):
        self.sql.exec("CREATE TABLE IF NOT EXISTS entry(key TEXT PRIMARY KEY, filler BLOB)")
        self.sql.exec("INSERT INTO entry VALUES(?, ?)", key, os.urandom(int(size)))

    async def fetch(self, request):
        parts = request.url.split("/")[5:]
        if parts[0] == "add":
            self.add(parts[1], parts[2])
            return Response(parts[1])
        if parts[0] == "caught":
            try:
                self.add(parts[1], parts[2])
            except Exception as error:
                return Response("caught")
            return Response(parts[1])
        if parts[0] == "put":
            self.sql.exec("CREATE TABLE IF NOT EXISTS last(id INTEGER PRIMARY KEY, n, filler)")
            self.sql.exec("INSERT OR REPLACE INTO last VALUES(1, ?, ?)", int(parts[1]),
                          os.urandom(int(parts[2])))
            return Response(parts[1])
        if parts[0] == "get":
            return Response(str(self.sql.exec("SELECT n FROM last").raw().toArray().to_py()[0][0]))
        if parts[0] == "leave":
            # A connection that a thread holds which never ends, in the middle of a read.
            left = sqlite3.connect(durabled_host.current_object().path)
            rows = left.execute("SELECT key FROM entry")
            rows.fetchone()
            threading.Thread(target=hold, args=(left, rows), daemon=True).start()
            return Response("left")
        if parts[0] == "check":
            return Response(self.sql.exec("PRAGMA quick_check").raw().toArray().to_py()[0][0])
        rows = self.sql.exec("SELECT key, length(filler) FROM entry ORDER BY key").raw().toArray()
        return Response.json([row[0] for row in rows.to_py()])


def plain(environ, start_response):
    """A WSGI application with an error page of its own, as frameworks have."""
    obj = environ["durable"]
    try:
        body = obj.serve(environ["PATH_INFO"].split("/")[3:])
        start_response("200 OK", [("Content-Type", "text/plain")])
    except Exception:
        body = "The framework is sorry."
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
    return [body.encode()]


class Plain(DurableObject):
    def serve(self, parts):
        sql = self.ctx.storage.sql
        if parts[0] == "bug":
            raise KeyError("not a disk's fault")
        if parts[0] == "add":
            sql.exec("CREATE TABLE IF NOT EXISTS entry(key TEXT PRIMARY KEY, filler BLOB)")
            sql.exec("INSERT INTO entry VALUES(?, ?)", parts[1], os.urandom(int(parts[2])))
            return parts[1]
        return " ".join(row[0] for row in sql.exec("SELECT key FROM entry").raw().toArray().to_py())

    async def fetch(self, request):
        def app(environ, start_response):
            environ["durable"] = self
            return plain(environ, start_response)

        return await wsgi.fetch(app, request, self.env)


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        kind, name = re.match(r"https?://[^/]+/(t|raw|wsgi)/([^/]+)/", request.url).groups()
        binding = {"t": self.env.TENANTS, "raw": self.env.LEDGER, "wsgi": self.env.PLAIN}[kind]
        return await binding.get(binding.idFromName(name)).fetch(request)
'''
MANIFEST = """{
  "name": "faults", "main": "src/index.py", "compatibility_date": "2026-01-01",
  "compatibility_flags": ["python_workers"],
  "durable_objects": {"bindings": [
    {"name": "TENANTS", "class_name": "TenantDO"},
    {"name": "LEDGER", "class_name": "Ledger"},
    {"name": "PLAIN", "class_name": "Plain"}]},
  "migrations": [{"tag": "v1", "new_sqlite_classes": ["TenantDO", "Ledger", "Plain"]}]
}
"""
URLS = '''
from django.db import transaction
from django.http import HttpResponse
from django.urls import path

from counter import views
from counter.models import Mark

def fill(request, tenant, number):
    first = (number + 1) * 10000
    Mark.objects.bulk_create([Mark(tenant="x" * 50000, number=first + n) for n in range(10)])
    return HttpResponse(str(number))

def caught(request, tenant, number):
    try:
        with transaction.atomic():
            return fill(request, tenant, number)
    except Exception:
        return HttpResponse("caught")

def marks(request, tenant):
    return HttpResponse(" ".join(str(n // 10000 - 1) for n in
        Mark.objects.filter(number__endswith="0000").values_list("number", flat=True)))

def bug(request, tenant):
    raise KeyError("not a disk's fault")

urlpatterns = [
    path("t/<slug:tenant>/", views.read),
    path("t/<slug:tenant>/fill/<int:number>/", fill),
    path("t/<slug:tenant>/caught/<int:number>/", caught),
    path("t/<slug:tenant>/marks/", marks),
    path("t/<slug:tenant>/bug/", bug),
]
'''
EXT4_IOC_SHUTDOWN = 0x8004587D
MEBI = 1 << 20
REFUSE_SECONDS = 30 if os.environ.get("DURABLED_LONG") else 8


class Image:
    """An ext4 file system in a file, mounted. It can be filled, broken and set read-only."""

    def __init__(self, path=None, size=288 * MEBI):
        self.folder = tempfile.mkdtemp(prefix="durabled-image-", dir="/tmp")
        self.file = os.path.join(self.folder, "image")
        self.path = path or os.path.join(self.folder, "mounted")
        os.makedirs(self.path)
        with open(self.file, "wb") as file:
            file.truncate(size)
        self.mounted = False

    def make(self):
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.file], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop", self.file, self.path], check=True,
                       capture_output=True)
        self.mounted = True

    def mount_again(self, daemon, says):
        """Unmounted first: workers that start meanwhile are to refuse the folder below."""
        end = time.monotonic() + 30
        while subprocess.run(["umount", self.path], capture_output=True).returncode:
            if time.monotonic() > end:
                raise AssertionError(f"{self.path} stays in use")
            time.sleep(0.05)
        self.mounted = False
        daemon.wait_output(says)
        self.mount()

    def remount(self, options):
        subprocess.run(["mount", "-o", "remount," + options, self.path], check=True,
                       capture_output=True)

    def fill(self):
        """Takes all room that is left."""
        with open(os.path.join(self.path, "filler"), "ab", buffering=0) as file:
            for size in (MEBI, 4096):
                block = os.urandom(size)
                try:
                    while True:
                        file.write(block)
                except OSError:
                    pass

    def leave(self, size):
        """Of what fill() has taken."""
        filler = os.path.join(self.path, "filler")
        os.truncate(filler, os.path.getsize(filler) - size)

    def find_damage(self):
        """The kernel believes that it has."""
        source = subprocess.run(["findmnt", "-n", "-o", "SOURCE", self.path], check=True,
                                capture_output=True, text=True).stdout.strip()
        with open(f"/sys/fs/ext4/{os.path.basename(source)}/trigger_fs_error", "w",
                  encoding="ascii") as file:
            file.write("a test")

    def empty(self):
        os.unlink(os.path.join(self.path, "filler"))

    def break_down(self):
        """Every operation fails with EIO from now on, and what is not synced is gone."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", 2))
        finally:
            os.close(folder)

    def remove(self):
        if self.mounted:
            subprocess.run(["umount", "-l", self.path], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def resident(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def file_of(daemon, name):
    """The database of a Ledger."""
    command = [DURABLECTL, "objects", "address", "faults", "Ledger", name, "--json"]
    shown = subprocess.run(command + ["--socket", daemon.socket], capture_output=True, check=True,
                           text=True).stdout
    object_id = json.loads(shown)["id"]
    folder = os.path.join(daemon.data, "objects", "faults-Ledger", object_id[:2])
    return os.path.join(folder, object_id + ".sqlite")


class FaultCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.project = copy_project(os.path.join(FIXTURES, "tenants"), cls.folder)
        files = {"wrangler.jsonc": MANIFEST, "src/index.py": MAIN, "src/app/urls.py": URLS}
        for name, text in files.items():
            with open(os.path.join(cls.project, name), "w", encoding="utf-8") as file:
                file.write(text)

    def image(self, **options):
        image = Image(**options)
        self.addCleanup(image.remove)
        try:
            image.make()
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipTest(f"an image cannot be mounted here: {error}")
        return image

    def state(self):
        folder = tempfile.mkdtemp(prefix="durabled-state-", dir="/tmp")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def service(self, data=None, workers=1, settings="", **options):
        return Service(self.project, settings, workers=workers, data=data, **options)

    def until(self, condition, what, seconds=20):
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.05)


class Ending(FaultCase):
    def test_a_worker_whose_app_left_a_connection_open_ends_in_order(self):
        with self.service() as daemon:
            client = daemon.client()
            for number in range(3):
                self.assertEqual(client.get(f"/raw/one/add/k{number}/10").status, 200)
            self.assertEqual(client.get("/raw/one/leave").text, "left")
            self.assertEqual(client.get("/raw/one/add/k3/10").status, 200)
            self.assertEqual(daemon.stop(), 0)
            output = daemon.read_output()
            self.assertRegex(output, r"faults-Ledger/../[0-9a-f]*.sqlite: the app left 1 conn")
            self.assertNotIn("signal", output)
            daemon.start()
            self.assertEqual(daemon.client().get("/raw/one/list").json(), ["k0", "k1", "k2", "k3"])


class BrokenDisk(FaultCase):
    """EIO: the file system of the journal, or that of the objects, is shut down."""

    def check_break_down(self, part, says):
        data = self.state()
        image = self.image(path=os.path.join(data, part))
        with self.service(data) as daemon:
            client, kept = daemon.client(), []
            for number in range(5):
                self.assertEqual(client.get(f"/raw/one/add/k{number}/1000").status, 200)
                kept.append(f"k{number}")
            # Written now and not synced: what recovery needs is in the journal alone.
            image.break_down()
            answers = []
            for number in range(5, 40):
                try:
                    answers.append(client.get(f"/raw/one/add/k{number}/300000"))
                except OSError:
                    break
                if answers[-1].status != 200:
                    break
                kept.append(f"k{number}")
            self.assertEqual(answers[-1].status, 503, answers[-1].text)
            self.assertIn("journal cannot be written", answers[-1].text)
            daemon.wait_output("the store has failed, the worker ends and its successor replays")
            daemon.wait_output(says)
            image.mount_again(daemon, "/.journal-faults-0 says that it was begun")
            daemon.wait_ready()
            client = daemon.client()
            found = client.get("/raw/one/list").json()
            self.assertEqual([key for key in kept if key not in found], [])
            self.assertEqual(client.get("/raw/one/check").text, "ok")
            self.assertEqual(client.get("/raw/one/add/z/1000").status, 200)
            client.close()

    def test_a_journal_that_cannot_be_written_is_503_and_the_successor_replays(self):
        self.check_break_down("journal", "journal/faults/0': Input/output error")

    def test_objects_whose_files_cannot_be_written_live_on_in_the_journal(self):
        data = self.state()
        image = self.image(path=os.path.join(data, "objects"))
        with self.service(data) as daemon:
            client, kept = daemon.client(), []
            for number in range(20):
                if number == 3:
                    image.break_down()
                answer = client.get(f"/raw/one/add/k{number}/100000")
                self.assertEqual(answer.status, 200, answer.text)
                kept.append(f"k{number}")
            daemon.wait_output("they stay in the journal: Input/output error")
            self.assertEqual(client.get("/raw/two/add/k/10").status, 500)
            os.kill(daemon.all_workers()[0]["pid"], signal.SIGKILL)
            daemon.wait_output("journal/faults/0': Input/output error")
            image.mount_again(daemon, "it belongs to objects that are not in")
            daemon.wait_ready()
            client = daemon.client()
            self.assertEqual(client.get("/raw/one/list").json(), sorted(kept))
            self.assertEqual(client.get("/raw/one/check").text, "ok")
            self.assertEqual(client.get("/raw/two/add/k/10").status, 200)
            client.close()


class Damage(FaultCase):
    """Files of single objects that are no longer what they were."""

    def test_a_damaged_file_is_500_for_its_object_alone_until_it_is_put_right(self):
        def garble(path, begin, end):
            with open(path, "r+b") as file:
                file.seek(begin)
                file.write(os.urandom(end - begin))

        def replace(path, data):
            os.unlink(path)
            with open(path, "wb") as file:
                file.write(data)

        def make_folder(path):
            os.unlink(path)
            os.mkdir(path)

        faults = {
            "header": lambda path: garble(path, 0, 100),
            "pages": lambda path: garble(path, 4096, os.path.getsize(path)),
            "text": lambda path: replace(path, b"this is no database\n" * 500),
            "emptied": lambda path: os.truncate(path, 0),
            "folder": make_folder,
            "locked": lambda path: subprocess.run(["chattr", "+i", path], check=True),
        }
        image = self.image()
        daemon = self.service(image.path)
        with daemon:
            client = daemon.client()
            for name in [*faults, "sound"]:
                self.assertEqual(client.get(f"/raw/{name}/add/k/20000").status, 200)
            files = {name: file_of(daemon, name) for name in faults}
            client.close()
            self.assertEqual(daemon.stop(), 0)
            daemon.start()
            # The journal has nothing for them any more.
            for name, path in files.items():
                shutil.copyfile(path, os.path.join(self.folder, name))
                faults[name](path)
            self.addCleanup(subprocess.run, ["chattr", "-i", files["locked"]], capture_output=True)
            client = daemon.client()
            for _ in range(5):
                for name in faults:
                    answer = client.get(f"/raw/{name}/list")
                    self.assertEqual(answer.status, 500, (name, answer.text))
                self.assertEqual(client.get("/raw/sound/list").json(), ["k"])
            errors = [line for line in daemon.read_output().splitlines() if "error: " in line]
            for name, path in files.items():
                found = [line for line in errors if path in line]
                self.assertEqual(len(found), 1, (name, errors))
            # Without a restart: as it was, and as if it had never been.
            for name, path in files.items():
                if name == "folder":
                    os.rmdir(path)
                subprocess.run(["chattr", "-i", path], capture_output=True)
                shutil.copyfile(os.path.join(self.folder, name), path + ".new")
                os.rename(path + ".new", path)
                self.assertEqual(client.get(f"/raw/{name}/list").json(), ["k"], name)
                self.assertEqual(client.get(f"/raw/{name}/add/l/10").status, 200)
            client.close()
            self.assertEqual(daemon.stop(), 0)
            for path in files.values():
                found = sqlite3.connect(path).execute("SELECT count(*) FROM entry").fetchone()
                self.assertEqual(found, (2,))


class Folders(FaultCase):
    """Folders that vanish while they are served, and file systems that are read-only."""

    def check_gone(self, daemon, folder, known, others):
        """known objects were asked before folder went; the others in it were not."""
        client = daemon.client()
        os.rename(folder, folder + ".away")
        for name in known:
            self.assertEqual(client.get(f"/raw/{name}/list").json(), ["k"])
        for name in others:
            answer = client.get(f"/raw/{name}/list")
            self.assertEqual(answer.status, 500, answer.text)
            self.assertEqual(client.get(f"/raw/{name}/add/l/10").status, 500)
        self.assertFalse(os.path.exists(folder), "an empty folder was made in its place")
        lines = [line for line in daemon.read_output().splitlines() if "folder is gone" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(folder + ": ", lines[0])
        os.rename(folder + ".away", folder)
        for name in [*known, *others]:
            self.assertEqual(client.get(f"/raw/{name}/list").json(), ["k"])
            self.assertEqual(client.get(f"/raw/{name}/add/m/10").status, 200)
        client.close()

    def prepared(self, data, names):
        """The files of objects that are on disk, with nothing in the journal."""
        with self.service(data) as daemon:
            client = daemon.client()
            for name in names:
                self.assertEqual(client.get(f"/raw/{name}/add/k/10").status, 200)
            files = {name: file_of(daemon, name) for name in names}
            client.close()
            self.assertEqual(daemon.stop(), 0)
        return files

    def test_the_objects_folder_or_a_shards_is_moved_away_while_it_is_served_and_back(self):
        data = self.state()
        names = [f"object-{number}" for number in range(40)]
        files = self.prepared(data, names)
        shards = {}
        for name, path in files.items():
            shards.setdefault(os.path.dirname(path), []).append(name)
        shard, (first, *rest) = max(shards.items(), key=lambda item: len(item[1]))
        self.assertTrue(rest, "no two objects share a shard's folder")
        away = [name for name in names if name not in shards[shard]]
        objects = os.path.join(data, "objects")
        with self.service(data) as daemon:
            for name in (first, away[0]):
                self.assertEqual(daemon.get(f"/raw/{name}/list").json(), ["k"])
            self.check_gone(daemon, shard, [first, away[0]], rest)
            self.assertEqual(daemon.stop(), 0)
            # At a start: it must not begin with an empty one.
            os.rename(objects, objects + ".away")
            daemon.start(wait=False)
            self.assertEqual(daemon.process.wait(10), 1)
            self.assertIn(f"the folder {objects} is gone", daemon.read_output())
            self.assertFalse(os.path.exists(objects))
            os.rename(objects + ".away", objects)
            daemon.start()
        with self.service(data) as daemon:
            self.assertEqual(daemon.get(f"/raw/{away[1]}/list").json(), ["k"])
            self.check_gone(daemon, objects, [away[1]], away[2:4])

    def test_a_file_system_that_is_read_only_is_told_by_name_and_served_again_when_it_is_not(self):
        data = self.state()
        image = self.image(path=os.path.join(data, "journal"))
        with self.service(data) as daemon:
            self.assertEqual(daemon.get("/raw/one/add/k/10").status, 200)
            # What the kernel does when it finds the file system damaged.
            image.remount("errors=remount-ro")
            image.find_damage()
            answer = daemon.get("/raw/one/add/l/10")
            self.assertEqual(answer.status, 503, answer.text)
            daemon.wait_output("a write of the journal failed: Read-only file system")
            daemon.wait_output(f"cannot open the journal '{data}/journal/faults/0': Read-only")
            image.mount_again(daemon, "/.journal-faults-0 says that it was begun")
            daemon.wait_ready()
            self.assertIn(daemon.get("/raw/one/list").json(), (["k"], ["k", "l"]))
            self.assertEqual(daemon.get("/raw/one/add/m/10").status, 200)

    def test_a_state_folder_that_is_read_only_at_the_start_is_an_error_with_its_name(self):
        image = self.image()
        image.remount("ro")
        daemon = self.service(image.path)
        self.addCleanup(daemon.stop)
        daemon.start(wait=False)
        self.assertEqual(daemon.process.wait(10), 1)
        self.assertRegex(daemon.read_output(), f"{image.path}.*: Read-only file system")


class FullDisk(FaultCase):
    KINDS = {
        "raw": ("/raw/{}/add/k{:05}/500000", "/raw/{}/list"),
        "wsgi": ("/wsgi/{}/add/k{:05}/500000", "/wsgi/{}/list"),
        "django": ("/t/{}/fill/{}/", "/t/{}/marks/"),
    }

    def setUp(self):
        self.kept = {}

    def write(self, client, kind, name, number):
        """The answer to one write, which is remembered when it says that it is kept."""
        answer = client.get(self.KINDS[kind][0].format(name, number))
        if answer.status == 200:
            self.kept.setdefault((kind, name), set()).add(number)
        return answer

    def write_until_refused(self, client, kind, name, start=1):
        for number in range(start, start + 1000):
            answer = self.write(client, kind, name, number)
            if answer.status != 200:
                self.assertEqual(answer.status, 507, answer.text)
                return answer
        self.fail(f"writes of {kind} are never refused")

    def check_kept(self, client):
        """Each write that was acknowledged is there, and no other."""
        for (kind, name), numbers in self.kept.items():
            answer = client.get(self.KINDS[kind][1].format(name))
            self.assertEqual(answer.status, 200, answer.text)
            found = answer.json() if kind == "raw" else answer.text.split()
            self.assertEqual({int(key.lstrip("k")) for key in found}, numbers, (kind, name))

    def full(self, daemon, image):
        """A client, with three objects that have filled the disk and its journal."""
        client = daemon.client()
        for kind in self.KINDS:
            self.assertEqual(self.write(client, kind, "one", 0).status, 200)
        image.fill()
        for kind in self.KINDS:
            answer = self.write_until_refused(client, kind, "one")
            self.assertIn("no room", answer.text)
        return client

    def test_reads_go_on_writes_get_507_and_writes_work_again_when_space_returns(self):
        image = self.image()
        with self.service(image.path) as daemon:
            client = self.full(daemon, image)
            # Who copes with the error keeps the answer, whose fault is another keeps the status.
            self.assertEqual(client.get("/raw/one/caught/x/500000").text, "caught")
            self.assertEqual(client.get("/t/one/caught/900/").text, "caught")
            self.assertEqual(client.get("/t/one/bug/").status, 500)
            self.assertEqual(client.get("/wsgi/one/bug").text, "The framework is sorry.")
            self.write_until_refused(client, "raw", "new")
            self.check_kept(client)
            html = client.get("/t/one/fill/901/", headers={"Accept": "text/html"})
            self.assertIn("<h1>Insufficient Storage</h1>", html.text)
            image.empty()
            self.until(lambda: self.write(client, "raw", "one", 2000).status == 200,
                       "writes are refused though there is room again")
            for kind in self.KINDS:
                for number in range(2001, 2004):
                    self.assertEqual(self.write(client, kind, "one", number).status, 200)
            self.check_kept(client)
            self.assertEqual(daemon.stop(), 0)
            daemon.start()
            client = daemon.client()
            self.check_kept(client)
            self.assertEqual(client.get("/raw/one/check").text, "ok")

    def test_a_worker_that_is_killed_with_a_full_disk_comes_back_when_there_is_room(self):
        image = self.image()
        with self.service(image.path) as daemon:
            self.full(daemon, image)
            os.kill(daemon.all_workers()[0]["pid"], signal.SIGKILL)
            # What the journal holds must go into files that have no room to grow.
            daemon.wait_output("faults/0': the disk is full")
            daemon.wait_output("/objects' with 0 MiB free")
            image.empty()
            daemon.wait_ready()
            self.check_kept(daemon.client())
            self.assertEqual(daemon.stop(), 0)

    def test_refused_writes_make_neither_memory_nor_the_log_grow(self):
        image = self.image()
        with self.service(image.path) as daemon:
            client = self.full(daemon, image)
            stop, counts = threading.Event(), []

            def refuse(number):
                own, count = daemon.client(), 0
                kind = list(self.KINDS)[number % 3]
                while not stop.is_set():
                    answer = own.get(self.KINDS[kind][0].format("one", 5000))
                    count += answer.status == 507
                counts.append(count)

            threads = [threading.Thread(target=refuse, args=(n,)) for n in range(6)]
            for thread in threads:
                thread.start()
            pid = daemon.all_workers()[0]["pid"]
            time.sleep(2)
            before, said = resident(pid), len(daemon.read_output().splitlines())
            time.sleep(REFUSE_SECONDS)
            after, lines = resident(pid), daemon.read_output().splitlines()
            stop.set()
            for thread in threads:
                thread.join()
            print(f"# {sum(counts)} refused, {before >> 20} MiB before, {after >> 20} after, "
                  f"{len(lines) - said} lines")
            self.assertGreater(sum(counts), 20)
            self.assertLess(after - before, 48 * MEBI)
            self.assertLess(len(lines) - said, 10, lines[said:])
            self.check_kept(client)


class SmallJournal(FaultCase):
    """Two segments and no room for a third: each is emptied before it can be filled again."""

    WRITERS = 8
    COUNT = 80
    LARGE, SMALL = 500000, 2000

    def write(self, daemon, number, answers):
        client, size = daemon.client(), self.SMALL if number % 4 == 0 else self.LARGE
        for count in range(self.COUNT):
            answers.append(client.get(f"/raw/w{number}/put/{count}/{size}"))

    def test_no_request_fails_that_only_has_to_wait_for_room(self):
        image = self.image()
        with self.service(image.path, settings="[storage]\narchive_days=0\n") as daemon:
            answers, reads, done = [], [], threading.Event()
            client = daemon.client()
            for number in range(self.WRITERS):
                self.assertEqual(client.get(f"/raw/w{number}/put/0/10").status, 200)
            journal = os.path.join(daemon.data, "journal", "faults", "0")
            self.until(lambda: len(self.segments(journal)) == 2, "there is no second segment")
            image.fill()
            image.leave(40 * MEBI)

            def read():
                client = daemon.client()
                while not done.is_set():
                    reads.append(client.get("/raw/w0/get"))

            threads = [threading.Thread(target=self.write, args=(daemon, number, answers))
                       for number in range(self.WRITERS)]
            reader = threading.Thread(target=read)
            for thread in threads + [reader]:
                thread.start()
            for thread in threads:
                thread.join()
            done.set()
            reader.join()
            self.assertEqual(len(answers), self.WRITERS * self.COUNT)
            self.assertEqual({answer.status for answer in answers + reads}, {200})
            # A third is tried now and then, and goes again.
            self.until(lambda: len(self.segments(journal)) == 2, "there is a third segment")
            segment = os.path.getsize(os.path.join(journal, self.segments(journal)[0]))
            written = sum(self.LARGE for number in range(self.WRITERS) if number % 4) * self.COUNT
            self.assertGreater(written, 3 * segment)
            image.empty()
            os.kill(daemon.all_workers()[0]["pid"], signal.SIGKILL)
            daemon.wait_ready()
            client = daemon.client()
            for number in range(self.WRITERS):
                self.assertEqual(client.get(f"/raw/w{number}/get").text, str(self.COUNT - 1))
            self.assertEqual(daemon.stop(), 0)

    @staticmethod
    def segments(journal):
        return [name for name in os.listdir(journal) if name.startswith("segment-")]


if __name__ == "__main__":
    unittest.main()
