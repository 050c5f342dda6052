# SPDX-License-Identifier: Apache-2.0
"""Projects in the shape of django-cf's three generations, with our django_cf and with the real one.

Each runs in a process of its own. The real package comes from PyPI where that answers; the folder
named by DURABLED_PYPI is used instead when it is set.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402

MAINS = {"gen-a": "src/worker.py", "gen-b": "src/index.py", "gen-c": "src/index.py"}

WALK = """
import json, os, re, sys
import harness
main, generation, django_cf, *path = sys.argv[1:]
host = harness.load(os.path.join(harness.FIXTURES, generation), main, python_path=path,
    django_cf=django_cf)
def get(path, method="GET", headers=(), body=b""):
    event = host.request(method, path, [("Accept", "text/html"), *headers], body, seconds=60)
    return event
found = {"statuses": {}}
for path in ("/", "/blog/", "/blog/post/1/", "/nope"):
    found["statuses"][path] = get(path).status
found["post"] = "Example Post" in get("/blog/").content.decode()
found["admin"] = json.loads(get("/__create_admin__/").content)["status"]
found["migrated"] = json.loads(get("/__run_migrations__/").content)["status"]
found["cookies"] = get("/blog/cookies/").header("set-cookie")
def cookie(event, name):
    for value in event.header("set-cookie"):
        if value.startswith(name + "="):
            return value.split(";")[0]
login = get("/admin/login/")
token = re.search(rb'csrfmiddlewaretoken" value="([^"]+)"', login.content).group(1)
urlencoded = ("Content-Type", "application/x-www-form-urlencoded")
form = [urlencoded, ("Cookie", cookie(login, "csrftoken"))]
entered = get("/admin/login/?next=/admin/", "POST", form,
    b"username=admin&password=password&csrfmiddlewaretoken=" + token)
found["login"] = entered.status
session = cookie(entered, "sessionid")
jar = cookie(entered, "csrftoken") or cookie(login, "csrftoken")
page = get("/admin/blog/post/add/", headers=[("Cookie", f"{jar}; {session}")])
found["form"] = page.status
token = re.search(rb'csrfmiddlewaretoken" value="([^"]+)"', page.content).group(1)
form = [urlencoded, ("Cookie", f"{jar}; {session}")]
saved = get("/admin/blog/post/add/", "POST", form, b"title=Written+%C3%BC&content=here"
    b"&pub_date_0=2026-01-02&pub_date_1=03:04:05&csrfmiddlewaretoken=" + token)
found["saved"] = saved.status
found["shown"] = "Written \\u00fc" in get("/blog/").content.decode()
import django_cf as module, django
found["django_cf"] = module.__file__
found["django"] = django.get_version()
host.stop()
sys.__stdout__.write("\\n" + json.dumps(found) + "\\n")
"""


def walk(generation, django_cf="ours", *path):
    out = harness.child(WALK, MAINS[generation], generation, django_cf, *path)
    return json.loads(out.strip().splitlines()[-1])


def fetch(package, into):
    """Unpacks a package from PyPI, or the reason why not."""
    given = os.environ.get("DURABLED_PYPI")
    if given:
        place = os.path.join(given, package.replace("==", "-"))
        return (place, None) if os.path.isdir(place) else (None, f"{place} does not exist")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", into, "--no-compile"]
        + ["--ignore-requires-python", "--disable-pip-version-check"]
        + (["--no-deps"] if package.startswith("django-cf") else [])
        + ["--retries", "1", "--timeout", "10", package],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or ["pip failed"])[-1][:120]
    return into, None


class Generations(unittest.TestCase):
    def check(self, found):
        self.assertEqual(
            found["statuses"], {"/": 200, "/blog/": 200, "/blog/post/1/": 200, "/nope": 404}
        )
        self.assertTrue(found["post"])
        self.assertEqual((found["admin"], found["migrated"]), ("success", "success"))
        self.assertEqual(len(found["cookies"]), 2, found["cookies"])
        self.assertEqual((found["login"], found["form"], found["saved"]), (302, 200, 302))
        self.assertTrue(found["shown"])

    def test_generation_a_runs_unmodified(self):
        found = walk("gen-a")
        self.check(found)
        self.assertTrue(found["django_cf"].startswith(harness.MODULES))

    def test_generation_b_runs_unmodified(self):
        self.check(walk("gen-b"))

    def test_generation_c_runs_unmodified(self):
        self.check(walk("gen-c"))


class Vendored(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="durabled-pypi-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        # The package needs Django 5; Debian 12 has 3.2.
        cls.django, cls.reason = fetch("django==5.2.6", os.path.join(cls.folder, "django"))

    def check(self, version, generation):
        if self.django is None:
            self.skipTest(f"no Django 5 from PyPI: {self.reason}")
        place, reason = fetch(f"django-cf=={version}", os.path.join(self.folder, version))
        if place is None:
            self.skipTest(f"no django-cf {version} from PyPI: {reason}")
        found = walk(generation, "vendored", place, self.django)
        Generations.check(self, found)
        self.assertTrue(found["django_cf"].startswith(place))

    def test_the_real_django_cf_0_2_5_runs(self):
        self.check("0.2.5", "gen-b")

    def test_the_real_django_cf_0_2_10_runs(self):
        self.check("0.2.10", "gen-b")

    def test_the_real_django_cf_0_2_12_runs(self):
        self.check("0.2.12", "gen-c")

    def test_the_real_django_cf_0_2_14_runs(self):
        self.check("0.2.14", "gen-c")

    def test_ours_runs_on_django_5_beside_a_vendored_one(self):
        if self.django is None:
            self.skipTest(f"no Django 5 from PyPI: {self.reason}")
        place, reason = fetch("django-cf==0.2.14", os.path.join(self.folder, "0.2.14"))
        if place is None:
            self.skipTest(f"no django-cf from PyPI: {reason}")
        found = walk("gen-c", "ours", place, self.django)
        Generations.check(self, found)
        self.assertTrue(found["django"].startswith("5."))
        code = (
            f"sys.path[:0] = [{harness.MODULES!r}, {place!r}]\n"
            "from importlib.util import find_spec\n"
            "for name in ('middleware', 'storage', 'db.backends.d1.base', 'db.backends.do.base'):\n"
            "    print(find_spec('django_cf.' + name).origin)\n"
        )
        out = harness.child(code, env={"PYTHONPATH": self.django})
        middleware, storage, d1, engine = out.split()
        for origin in (middleware, storage, d1):
            self.assertTrue(origin.startswith(place), origin)
        self.assertTrue(engine.startswith(harness.MODULES))


class Outside(unittest.TestCase):
    """manage.py by hand, where no durabled is."""

    def manage(self, generation, *command, env=None):
        folder = tempfile.mkdtemp(prefix="durabled-manage-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        project = os.path.join(folder, generation)
        shutil.copytree(os.path.join(harness.FIXTURES, generation), project)
        done = subprocess.run(
            [sys.executable, os.path.join(project, "src", "manage.py"), *command],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": harness.MODULES, **(env or {})},
        )
        return done, project

    def test_the_build_command_collects_static_files(self):
        for env in ({"WORKERS_CI": "1"}, {}):
            done, project = self.manage("gen-c", "collectstatic", "--noinput", env=env)
            self.assertEqual(done.returncode, 0, done.stderr)
            base = os.path.join(project, "staticfiles", "static")
            self.assertTrue(os.path.isfile(os.path.join(base, "css", "style.css")))
            self.assertTrue(os.path.isdir(os.path.join(base, "admin")))

    def test_check_and_makemigrations_work_without_a_database(self):
        for generation in ("gen-a", "gen-c"):
            done, _ = self.manage(generation, "check")
            self.assertEqual(done.returncode, 0, done.stderr)
            done, _ = self.manage(generation, "makemigrations", "--check", "--dry-run")
            self.assertIn("No changes detected", done.stdout, done.stderr)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_migrate_is_refused_with_the_way_to_do_it(self):
        done, _ = self.manage("gen-c", "migrate")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("durablectl manage OBJECT", done.stderr)


class Loading(unittest.TestCase):
    CODE = """
import harness, json
files, more = json.loads(sys.argv[1]), json.loads(sys.argv[2])
try:
    harness.load(harness.app(files), **more)
except BaseException as error:
    sys.__stdout__.write(f"{type(error).__name__}: {error}")
"""

    def error(self, source, **more):
        files = {"src/index.py": source} if source is not None else {}
        return harness.child(self.CODE, json.dumps(files), json.dumps(more))

    def test_what_is_wrong_with_an_app_is_said_at_load(self):
        cases = [
            (None, {}, "has no such file"),
            ("x = 1", {}, "has no class DjangoDO"),
            ("x = 1", {"classes": []}, "nothing to run"),
            ("DjangoDO = 1", {}, "is not a class"),
            ("import no_such_module", {}, "No module named 'no_such_module'"),
            ("class DjangoDO:\n    def fetch(self): pass", {"django_cf": "mine"}, '"ours"'),
            ("import django_cf", {"django_cf": "vendored"}, "add django-cf"),
            ("from django.db import connection as c\nc.cursor()", {}, "settings"),
            ("", {"main": "src/index.js"}, "runs Python"),
        ]
        for source, more, text in cases:
            self.assertIn(text, self.error(source, **more))


if __name__ == "__main__":
    unittest.main()
