# SPDX-License-Identifier: Apache-2.0
"""durablectl dev and init, as a developer uses them."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from daemon import DURABLECTL, Daemon

MAIN = """
from workers import DurableObject, Response, WorkerEntrypoint

class Counter(DurableObject):
    async def fetch(self, request):
        return Response("VERSION")

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        stub = self.env.COUNTER.get(self.env.COUNTER.idFromName("one"))
        return await stub.fetch(request)
"""
MANIFEST = """{
  "name": "small", "main": "src/index.py", "compatibility_date": "2026-01-01",
  "durable_objects": {"bindings": [{"name": "COUNTER", "class_name": "Counter"}]},
  "migrations": [{"tag": "v1", "new_sqlite_classes": ["Counter"]}], // a comment
  EXTRA
}
"""


class Dev(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.mkdir(os.path.join(self.folder, "src"))
        self.write("wrangler.jsonc", MANIFEST.replace("EXTRA", ""))
        self.write("src/index.py", MAIN.replace("VERSION", "one"))

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def run_dev(self, *options):
        command = [DURABLECTL, "dev", self.folder, "--listen", "127.0.0.1:1", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def eventually(self, daemon, text, seconds=30):
        end = time.monotonic() + seconds
        while True:
            answer = daemon.get("/")
            if answer.text == text:
                return
            self.assertLess(time.monotonic(), end, f"still {answer.status} {answer.text[:200]}")
            time.sleep(0.1)

    def test_a_changed_file_is_loaded(self):
        with Daemon(self.folder) as daemon:
            self.eventually(daemon, "one")
            self.write("src/index.py", MAIN.replace("VERSION", "two"))
            self.eventually(daemon, "two")
            self.assertEqual(daemon.stop(), 0)

    def test_a_mistake_is_shown_and_its_correction_is_served(self):
        with Daemon(self.folder) as daemon:
            self.eventually(daemon, "one")
            self.write("src/index.py", "import nothing_of_this_name\n")
            daemon.wait_output("No module named 'nothing_of_this_name'")
            end = time.monotonic() + 30
            while daemon.get("/").status != 503:
                self.assertLess(time.monotonic(), end, "the mistake is not shown")
                time.sleep(0.1)
            self.assertIn("nothing_of_this_name", daemon.get("/").text)
            self.assertNotIn("durabled_host", daemon.get("/").text)
            self.write("src/index.py", MAIN.replace("VERSION", "mended"))
            self.eventually(daemon, "mended")

    def test_a_key_that_is_not_supported_is_named_with_its_line(self):
        extra = '"kv_namespaces": [{"binding": "KV", "id": "1"}]'
        self.write("wrangler.jsonc", MANIFEST.replace("EXTRA", extra))
        result = self.run_dev()
        self.assertEqual(result.returncode, 1)
        self.assertIn("wrangler.jsonc:5", result.stderr)
        self.assertIn("kv_namespaces", result.stderr)

    def test_a_key_without_effect_is_noted(self):
        extra = '"observability": {"enabled": true}'
        self.write("wrangler.jsonc", MANIFEST.replace("EXTRA", extra))
        with Daemon(self.folder) as daemon:
            self.assertIn("wrangler.jsonc:5: note: observability", daemon.read_output())

    def test_a_build_command_finds_python_and_its_failure_is_told(self):
        self.write(
            "wrangler.jsonc",
            MANIFEST.replace("EXTRA", '"build": {"command": "python -c \'raise SystemExit(7)\'"}'),
        )
        result = self.run_dev()
        self.assertEqual(result.returncode, 1)
        self.assertIn("status 7", result.stderr)

    def test_a_folder_without_a_manifest_is_told_what_to_do(self):
        os.unlink(os.path.join(self.folder, "wrangler.jsonc"))
        result = self.run_dev()
        self.assertEqual(result.returncode, 1)
        self.assertIn("durablectl init", result.stderr)

    def test_a_port_in_use_is_named(self):
        with Daemon(self.folder) as first:
            second = Daemon(self.folder, port=first.port)
            try:
                second.start(wait=False)
                self.assertNotEqual(second.process.wait(60), 0)
                self.assertIn(str(first.port), second.read_output())
                self.assertIn("another process listens there", second.read_output())
            finally:
                second.__exit__()

    def test_ctrl_c_ends_every_process_and_leaves_no_socket(self):
        with Daemon(self.folder) as daemon:
            pids = [worker["pid"] for worker in daemon.all_workers()]
            socket = daemon.socket
            self.assertEqual(daemon.stop(), 0)
            for pid in pids:
                self.assertRaises(ProcessLookupError, os.kill, pid, 0)
            self.assertFalse(os.path.exists(socket))

    def test_the_daemon_ends_when_durablectl_is_killed(self):
        with Daemon(self.folder) as daemon:
            pids = [worker["pid"] for worker in daemon.all_workers()]
            daemon.process.send_signal(signal.SIGKILL)
            end = time.monotonic() + 20
            while any(os.path.exists(f"/proc/{pid}") for pid in pids):
                self.assertLess(time.monotonic(), end, "workers outlive their daemon")
                time.sleep(0.1)

    def test_init_makes_a_project_once(self):
        target = os.path.join(self.folder, "blog")
        made = subprocess.run([DURABLECTL, "init", target], capture_output=True, check=False)
        self.assertEqual(made.returncode, 0)
        self.assertTrue(os.path.exists(os.path.join(target, "wrangler.jsonc")))
        again = subprocess.run([DURABLECTL, "init", target], capture_output=True, check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn(b"not empty", again.stderr)


if __name__ == "__main__":
    unittest.main()
