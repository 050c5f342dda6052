# SPDX-License-Identifier: Apache-2.0
"""The Debian packages: built, judged by lintian, installed and used under a real systemd."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import daemon
import machine

BUILT = os.path.join(daemon.TOP, "build", "packages")
BUILD_TOOLS = "dpkg-buildpackage", "dh", "dh_python3", "dh_apparmor", "lintian"
MAIN = '''
from workers import DurableObject, Response, WorkerEntrypoint

GREETING = "first"


class Thing(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec("CREATE TABLE IF NOT EXISTS log(n INTEGER PRIMARY KEY)")

    async def fetch(self, request):
        if request.url.endswith("/add"):
            self.sql.exec("INSERT INTO log DEFAULT VALUES")
        count = self.sql.exec("SELECT count(*) FROM log").raw().toArray().to_py()[0][0]
        return Response(f"{GREETING} {count}")


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = request.url.split("/", 5)[3]
        if name == "__secret__":
            return Response("managed")
        return await self.env.THING.get(self.env.THING.idFromName(name)).fetch(request)
'''
MANIFEST = """{
  "name": "things", "main": "src/index.py", "compatibility_date": "2026-01-01",
  "durable_objects": {"bindings": [{"name": "THING", "class_name": "Thing"}]},
  "migrations": [{"tag": "v1", "new_sqlite_classes": ["Thing"]}]
}
"""
LOGIN = r'''
import http.cookiejar, re, sys, urllib.parse, urllib.request
jar = http.cookiejar.CookieJar()
client = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
base, password = sys.argv[1:3]

def submit(path, **fields):
    page = client.open(base + path, timeout=30).read().decode()
    fields["csrfmiddlewaretoken"] = re.search('csrfmiddlewaretoken" value="([^"]+)', page)[1]
    request = urllib.request.Request(base + path, urllib.parse.urlencode(fields).encode(),
                                     {"Referer": base + path})
    return client.open(request, timeout=30)

page = submit("/admin/login/?next=/admin/", username="admin", password=password)
print(page.geturl(), "Site administration" in page.read().decode())
'''
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends {} 2>&1"
ROOT = None


def build(output, *options):
    missing = [name for name in BUILD_TOOLS if not shutil.which(name)]
    if missing:
        raise unittest.SkipTest(f"{missing[0]} is not installed")
    done = subprocess.run([os.path.join(daemon.TOP, "packaging", "build-deb"), "--worktree",
                           "--output", output, *options], capture_output=True, text=True,
                          check=False, cwd=daemon.TOP, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"build-deb ended with {done.returncode}\n{done.stderr[-4000:]}")
    return packages_in(output)


def packages_in(folder):
    """{name of the package: path}, of those that are installed."""
    found = {path.name.split("_")[0]: str(path) for path in pathlib.Path(folder).glob("*.deb")}
    return {name: found[name] for name in ("durabled", "durabled-python")}


def setUpModule():
    global ROOT
    shutil.rmtree(BUILT, ignore_errors=True)
    packages = build(BUILT)
    try:
        ROOT = machine.make_root(packages.values())
    except machine.Unavailable as error:
        ROOT = error


class Packages(unittest.TestCase):
    def test_no_file_names_the_place_of_its_build(self):
        with tempfile.TemporaryDirectory() as folder:
            for path in packages_in(BUILT).values():
                subprocess.run(["dpkg-deb", "-x", path, folder], check=True)
            files = [path for path in pathlib.Path(folder).rglob("*")
                     if path.is_file() and not path.is_symlink()]
            self.assertGreater(len(files), 40)
            for path in files:
                self.assertNotIn(daemon.TOP.encode(), path.read_bytes(), path)
                self.assertNotIn(b"/var/tmp/durabled-deb", path.read_bytes(), path)


class MachineCase(unittest.TestCase):
    def machine(self):
        if isinstance(ROOT, machine.Unavailable):
            self.skipTest(str(ROOT))
        try:
            return self.enterContext(machine.Machine(ROOT, BUILT))
        except machine.Unavailable as error:
            return self.skipTest(str(error))

    def install(self, m):
        files = " ".join("/packages/" + os.path.basename(path)
                         for path in packages_in(BUILT).values())
        return m.run(INSTALL.format(files))


def write_file(m, path, text):
    m.run(f"mkdir -p $(dirname {path}) && cat >{path} <<'END-OF-FILE'\n{text}\nEND-OF-FILE")


class Life(MachineCase):
    def test_from_nothing_to_an_app_that_is_served_and_purged_without_a_trace(self):
        m = self.machine()
        everything = ("find /etc /usr /var/lib /var/log /run/systemd /srv -xdev "
                      "-not -path '/var/lib/dpkg*' -not -path '/var/lib/apt*' "
                      "-not -path '/var/log/apt*' -not -path /var/log/dpkg.log "
                      "-not -path '/var/log/journal*' -not -path '*/__pycache__*' "
                      "-not -path '/run/systemd/*' | sort")
        before = m.run(everything).splitlines()
        self.install(m)
        self.assertEqual(m.show("ActiveState"), "active")
        self.assertIn("no app is set up", m.show("StatusText"))
        self.assertEqual(m.run("stat -c '%a %U %G' /var/lib/durabled"), "700 durabled durabled")
        self.assertEqual(m.run("getent passwd durabled | cut -d: -f6,7"),
                         "/var/lib/durabled:/usr/sbin/nologin")
        self.serve_template(m)
        m.run("DEBIAN_FRONTEND=noninteractive apt-get remove -y -q durabled-python durabled 2>&1")
        self.assertEqual(m.run("ls /etc/durabled/durabled.conf /var/lib/durabled/catalog.sqlite"),
                         "/etc/durabled/durabled.conf\n/var/lib/durabled/catalog.sqlite")
        self.install(m)
        self.log_in(m)
        m.run("rm -r /srv/blog /etc/durabled/blog.vars /etc/durabled/durabled.conf.d/blog.conf && "
              "DEBIAN_FRONTEND=noninteractive apt-get purge -y -q durabled-python durabled 2>&1")
        after = m.run(everything).splitlines()
        # The user stays, as Debian has it: files of others may belong to it.
        self.assertEqual(sorted(set(after) ^ set(before)), [])
        self.assertEqual(m.run("ps -u durabled -o pid= || true"), "")

    def test_the_packages_own_test_passes(self):
        m = self.machine()
        self.install(m)
        m.run(pathlib.Path(daemon.TOP, "packaging/debian/tests/service").read_text("utf-8"))

    def serve_template(self, m):
        m.run("durablectl init /srv/blog && cd /srv/blog && "
              "WORKERS_CI=1 python3 src/manage.py collectstatic --noinput && umask 027 && "
              "echo SECRET_KEY=$(head -c 40 /dev/urandom | base64) >/etc/durabled/blog.vars && "
              "chgrp durabled /etc/durabled/blog.vars")
        write_file(m, "/etc/durabled/durabled.conf.d/blog.conf",
                   "[app blog]\ndirectory=/srv/blog\nvars_file=/etc/durabled/blog.vars")
        m.run("durabled --check && systemctl restart durabled")
        self.assertRegex(m.show("StatusText"), r"^blog: (\d+) of \1 workers ready$")
        self.log_in(m)
        self.assertIn("text/css", m.run("curl -sSI --fail -m 30 "
                                        "http://127.0.0.1:8787/static/blog/style.css"))

    def log_in(self, m):
        write_file(m, "/run/login.py", LOGIN)
        m.run("curl -sS --fail -m 60 -o /dev/null -H \"Authorization: Bearer $(cat "
              "/var/lib/durabled/admin-token)\" http://127.0.0.1:8787/__create_admin__/")
        said = m.run("python3 /run/login.py http://127.0.0.1:8787 "
                     "$(cat /var/lib/durabled/admin-password)")
        self.assertEqual(said, "http://127.0.0.1:8787/admin/ True")


class Running(MachineCase):
    """A service with a counter as its app; each test leaves it running."""

    @classmethod
    def setUpClass(cls):
        case = cls()
        cls.m = case.machine()
        cls.addClassCleanup(case.doCleanups)
        case.install(cls.m)
        write_file(cls.m, "/srv/things/wrangler.jsonc", MANIFEST)
        write_file(cls.m, "/srv/things/src/index.py", MAIN)
        write_file(cls.m, "/etc/durabled/durabled.conf.d/things.conf",
                   "[durabled]\nworkers=2\n[app things]\ndirectory=/srv/things")
        cls.m.run("systemctl restart durabled")

    def runTest(self):
        """For setUpClass(), which borrows the methods."""

    def ask(self, path, options=""):
        return self.m.run(f"curl -sS -m 60 {options} http://127.0.0.1:8787{path}")

    def add(self, n):
        """n rows, each acknowledged; how many there are then."""
        for _ in range(n):
            answer = self.ask("/one/add", "--fail")
        return int(answer.split()[1])

    def count(self):
        return int(self.ask("/one/count", "--fail").split()[1])

    def workers(self):
        return self.m.run("pgrep -u durabled -f ^durabled-worker").split()

    def wait_serving(self):
        self.m.wait_for(lambda: re.fullmatch(r"things: 2 of 2 workers ready",
                                             self.m.show("StatusText")))

    def test_the_supervisor_has_two_capabilities_and_workers_have_none(self):
        def capabilities(pid):
            text = self.m.run(f"cat /proc/{pid}/status")
            return {name: int(re.search(rf"^{name}:\s*(\w+)", text, re.M)[1], 16)
                    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")}

        wanted = 1 << 39 | 1 << 12  # CAP_BPF, CAP_NET_ADMIN
        self.assertEqual(set(capabilities(self.m.show("MainPID")).values()), {wanted})
        self.assertEqual(len(self.workers()), 2)
        for pid in self.workers():
            self.assertEqual(set(capabilities(pid).values()), {0})
        self.assertIn("steering in the kernel", self.m.run("durablectl status"))

    def test_writes_survive_the_death_of_a_worker_and_of_the_supervisor(self):
        before = self.add(5)
        main = self.m.show("MainPID")
        self.m.run(f"kill -9 {' '.join(self.workers())}")
        self.assertEqual(self.count(), before)
        self.assertEqual(self.m.show("MainPID"), main)
        restarts = int(self.m.show("NRestarts"))
        self.m.run("systemctl kill -s KILL --kill-who=main durabled")
        self.m.wait_for(lambda: int(self.m.show("NRestarts")) == restarts + 1)
        self.wait_serving()
        self.assertEqual(self.count(), before)
        self.assertNotEqual(self.m.show("MainPID"), main)

    def test_a_supervisor_that_hangs_is_replaced(self):
        before = self.add(1)
        write_file(self.m, "/run/systemd/system/durabled.service.d/watchdog.conf",
                   "[Service]\nWatchdogSec=2s")
        self.m.run("systemctl daemon-reload && systemctl restart durabled")
        self.wait_serving()
        main, restarts = self.m.show("MainPID"), int(self.m.show("NRestarts"))
        self.m.run(f"sleep 3; kill -STOP {main}")  # alive for longer than the limit until then
        self.m.wait_for(lambda: int(self.m.show("NRestarts")) == restarts + 1)
        self.wait_serving()
        self.assertNotEqual(self.m.show("MainPID"), main)
        self.assertEqual(self.count(), before)
        self.m.run("rm /run/systemd/system/durabled.service.d/watchdog.conf && "
                   "systemctl daemon-reload && systemctl restart durabled")

    def test_a_reload_brings_new_code_and_a_wrong_one_says_why_and_changes_nothing(self):
        main, index = self.m.show("MainPID"), "/srv/things/src/index.py"
        self.m.run(f"sed -i 's/\"first\"/\"second\"/' {index} && systemctl reload durabled")
        self.assertTrue(self.ask("/one/count").startswith("second "))
        self.m.run("sed -i 's/\"main\"/\"mian\"/' /srv/things/wrangler.jsonc")
        said = self.m.run("systemctl reload durabled || systemctl show -P ReloadResult durabled; "
                          "journalctl -n 20 -o cat -u durabled")
        self.m.run("sed -i 's/\"mian\"/\"main\"/' /srv/things/wrangler.jsonc")
        self.assertIn("exit-code", said)
        self.assertRegex(said, r"wrangler\.jsonc:2:\d+: mian")
        self.assertTrue(self.ask("/one/count").startswith("second "))
        self.assertEqual(self.m.show("MainPID"), main)
        self.m.run(f"sed -i 's/\"second\"/\"first\"/' {index} && systemctl reload durabled")
        self.assertTrue(self.ask("/one/count").startswith("first "))

    def test_a_wrong_setting_keeps_the_service_from_starting_and_is_named(self):
        path = "/etc/durabled/durabled.conf.d/wrong.conf"
        write_file(self.m, path, "[durabled]\nwrokers=2")
        self.m.run("systemctl restart durabled", check=False)
        said = self.m.run("journalctl -n 20 -o cat -u durabled")
        self.m.run(f"rm {path}; systemctl reset-failed durabled; systemctl restart durabled")
        self.assertRegex(said, rf"{path}:2: .*wrokers")
        self.wait_serving()

    def test_the_admin_token_may_be_a_credential_of_the_machine(self):
        def secret(token):
            return self.ask("/__secret__/", f"-o /dev/null -w '%{{http_code}}' "
                            f"-H 'Authorization: Bearer {token}'")

        own = self.m.run("cat /var/lib/durabled/admin-token")
        self.assertEqual(secret(own), "200")
        self.m.run("mkdir -p -m 700 /etc/credstore && echo of-the-machine "
                   ">/etc/credstore/admin-token && systemctl restart durabled")
        self.assertEqual(secret("of-the-machine"), "200")
        self.assertEqual(secret(own), "403")
        self.m.run("rm /etc/credstore/admin-token && systemctl restart durabled")
        self.assertEqual(secret(own), "200")

    def test_an_upgrade_restarts_the_service_and_keeps_the_state(self):
        before, main = self.add(3), self.m.show("MainPID")
        self.m.run("cd /tmp && for name in durabled durabled-python; do "
                   "dpkg-deb -R /packages/${name}_*.deb $name && "
                   "sed -i -E 's/^(Version: .*)|(durabled \\(= [^)]*)/&+new/' "
                   "$name/DEBIAN/control && dpkg-deb -b $name $name.deb; done >/dev/null")
        said = self.m.run(INSTALL.format("/tmp/durabled.deb /tmp/durabled-python.deb"))
        self.assertIn("+new", said)
        self.assertIn("+new", self.m.run("dpkg-query -W -f '${Version}' durabled-python"))
        self.wait_serving()
        self.assertNotEqual(self.m.show("MainPID"), main)
        self.assertEqual(self.count(), before)

    def test_a_stop_is_in_order_and_leaves_no_process(self):
        before = self.add(1)
        self.m.run("systemctl stop durabled")
        self.assertEqual(self.m.show("Result"), "success")
        self.assertEqual(self.m.show("ExecMainStatus"), "0")
        self.assertEqual(self.m.run("pgrep -u durabled || true"), "")
        said = self.m.run("runuser -u durabled -- durabled --recover 2>&1 && "
                          "durablectl fsck --state /var/lib/durabled")
        self.assertNotIn("damage:", said)
        self.m.run("systemctl start durabled")
        self.assertEqual(self.count(), before)


if __name__ == "__main__":
    unittest.main()
