# SPDX-License-Identifier: Apache-2.0
"""The main job: Django projects of every generation, served out of durable objects."""

import os
import re
import shutil
import signal
import tempfile
import time
import unittest

from daemon import FIXTURES, TEMPLATE, Daemon, copy_project


def log_in(client, password):
    fields = {"username": "admin", "password": password}
    answer = client.submit("/admin/login/?next=/admin/", fields)
    assert answer.status == 302, f"login: {answer.status} {answer.text[:300]}"


def admin_password(daemon):
    with open(os.path.join(daemon.state, "admin-password"), encoding="utf-8") as file:
        return file.read().strip()


class ProjectCase(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def project(self, source):
        return copy_project(source, self.folder)


class Generations(ProjectCase):
    def serve(self, name):
        """The steps of the template's README, with its own management views and password."""
        with Daemon(self.project(os.path.join(FIXTURES, name))) as daemon:
            client = daemon.client()
            self.assertEqual(client.get("/__run_migrations__/").json()["status"], "success")
            self.assertIn(client.get("/__create_admin__/").json()["status"], ("success", "info"))
            self.assertEqual(client.get("/").status, 200)
            static = client.get("/static/admin/css/base.css")
            self.assertEqual(static.status, 200)
            self.assertTrue(static.headers["Content-Type"].startswith("text/css"))
            log_in(client, "password")
            page = client.get("/admin/")
            self.assertEqual(page.status, 200)
            self.assertIn("Log out", page.text)
            self.assertEqual(daemon.stop(), 0)

    def test_generation_a_runs_unmodified(self):
        self.serve("gen-a")

    def test_generation_b_runs_unmodified(self):
        self.serve("gen-b")

    def test_generation_c_runs_unmodified(self):
        self.serve("gen-c")


class Template(ProjectCase):
    def write_post(self, client, title, slug):
        fields = {"title": title, "slug": slug, "body": "Some words."}
        fields.update(published_0="2026-01-01", published_1="12:00:00")
        answer = client.submit("/admin/blog/post/add/", fields)
        self.assertEqual(answer.status, 302, answer.text[:500])

    def test_a_post_written_in_the_admin_survives_kill_9_and_a_restart_of_everything(self):
        state = tempfile.mkdtemp(prefix="durabled-state-", dir="/tmp")
        self.addCleanup(shutil.rmtree, state, ignore_errors=True)
        project = self.project(TEMPLATE)
        with Daemon(project, state=state, options=["--create-admin"]) as daemon:
            daemon.wait_output("password")
            client = daemon.client()
            log_in(client, admin_password(daemon))
            self.write_post(client, "Written once", "written-once")
            self.assertIn("Written once", client.get("/").text)
            for worker in daemon.all_workers():
                os.kill(worker["pid"], signal.SIGKILL)
            end = time.monotonic() + 30
            while True:
                try:
                    page = daemon.get("/")
                    break
                except OSError:
                    self.assertLess(time.monotonic(), end, "no worker came back")
                    time.sleep(0.1)
            self.assertIn("Written once", page.text)
            daemon.wait_ready()
            self.assertTrue(all(worker["restarts"] >= 1 for worker in daemon.all_workers()))
        with Daemon(project, state=state) as daemon:
            self.assertIn("Written once", daemon.get("/posts/written-once/").text)

    def test_each_tenant_has_a_blog_of_its_own_and_strangers_have_none(self):
        with Daemon(self.project(TEMPLATE), options=["--create-admin"]) as daemon:
            daemon.wait_output("password")
            client = daemon.client()
            log_in(client, admin_password(daemon))
            self.write_post(client, "For the main blog", "main-post")
            tenant = daemon.client(authority=f"acme.localhost:{daemon.port}")
            page = tenant.get("/")
            self.assertEqual(page.status, 200)
            self.assertIn("No posts yet", page.text)
            stranger = daemon.client(authority=f"nobody.localhost:{daemon.port}")
            self.assertEqual(stranger.get("/").status, 404)

    def test_no_default_password_lets_anybody_in(self):
        with Daemon(self.project(TEMPLATE), options=["--create-admin"]) as daemon:
            daemon.wait_output("password")
            self.assertGreaterEqual(len(admin_password(daemon)), 12)
            mode = os.stat(os.path.join(daemon.state, "admin-password")).st_mode & 0o777
            self.assertEqual(mode, 0o600)
            client = daemon.client()
            answer = client.submit("/admin/login/", {"username": "admin", "password": "password"})
            self.assertEqual(answer.status, 200)
            self.assertIn("correct username", answer.text)

    def test_a_debug_page_never_leaves_the_template(self):
        with Daemon(self.project(TEMPLATE)) as daemon:
            answer = daemon.get("/no/such/page")
            self.assertEqual(answer.status, 404)
            self.assertIsNone(re.search("DEBUG|Traceback|urlconf", answer.text))


if __name__ == "__main__":
    unittest.main()
