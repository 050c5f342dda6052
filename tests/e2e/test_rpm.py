# SPDX-License-Identifier: Apache-2.0
"""The RPM packages: built twice, judged by rpmlint, installed, started and removed."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import daemon
import machine

DEBS = os.path.join(daemon.TOP, "build", "packages")
BUILD_RPM = os.path.join(daemon.TOP, "packaging", "build-rpm")
SPEC = os.path.join(daemon.TOP, "packaging", "rpm", "durabled.spec")


def build(folder):
    done = subprocess.run([BUILD_RPM, "--worktree", "--output", folder], capture_output=True,
                          text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"build-rpm ended with {done.returncode}\n{done.stderr[-4000:]}")
    return sorted(str(path) for path in pathlib.Path(folder).glob("*.rpm"))


@unittest.skipUnless(shutil.which("rpmbuild"), "rpmbuild is not installed")
class Rpm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="durabled-rpm-", dir="/var/tmp")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.files = build(cls.folder)

    def test_there_is_a_package_for_the_service_and_one_for_python(self):
        self.assertEqual([os.path.basename(path).rsplit("-", 2)[0] for path in self.files],
                         ["durabled", "durabled-python"])
        text = pathlib.Path(SPEC).read_text(encoding="utf-8")
        changelog = pathlib.Path(daemon.TOP, "packaging", "debian", "changelog")
        version = changelog.read_text(encoding="utf-8").split("(")[1].split("-")[0]
        self.assertIn(f"\nVersion:        {version}\n", text)
        project = pathlib.Path(daemon.TOP, "meson.build").read_text(encoding="utf-8")
        self.assertIn(f"version: '{version}'", project)

    @unittest.skipUnless(shutil.which("rpmlint"), "rpmlint is not installed")
    def test_rpmlint_is_content(self):
        done = subprocess.run(["rpmlint", "-c", os.path.join(os.path.dirname(SPEC), "rpmlint.toml"),
                               *self.files, SPEC], capture_output=True, text=True, check=False)
        self.assertIn(" 0 errors, 0 warnings,", done.stdout, done.stdout + done.stderr)

    def test_two_builds_give_the_same_bytes(self):
        with tempfile.TemporaryDirectory(prefix="durabled-again-", dir="/var/tmp") as again:
            for one, other in zip(self.files, build(again), strict=True):
                self.assertEqual(pathlib.Path(one).read_bytes(), pathlib.Path(other).read_bytes(),
                                 os.path.basename(one))

    def test_the_service_is_installed_started_and_removed(self):
        debs = [str(path) for path in pathlib.Path(DEBS).glob("durabled*.deb")
                if "dbgsym" not in path.name]
        if not debs:
            self.skipTest("test_packages.py has not made the packages whose needs the machine has")
        try:
            m = self.enterContext(machine.Machine(machine.make_root(debs), self.folder))
        except machine.Unavailable as error:
            self.skipTest(str(error))
        # Their libraries are there, but of Debian: rpm knows of none.
        m.run("rpm -i --nodeps /packages/*.rpm 2>&1")
        self.assertEqual(m.show("UnitFileState"), "enabled")
        m.run("systemctl start durabled")
        self.assertIn("no app is set up", m.show("StatusText"))
        m.run("durablectl init /srv/blog && echo SECRET_KEY=of-this-test >/srv/blog/.dev.vars && "
              "mkdir /srv/blog/staticfiles && printf '[app blog]\\ndirectory=/srv/blog\\n"
              "vars_file=/srv/blog/.dev.vars\\n' >/etc/durabled/durabled.conf.d/blog.conf && "
              "systemctl restart durabled")
        self.assertIn("<html", m.run("curl -sS --fail -m 60 http://127.0.0.1:8787/"))
        m.run("rpm -e durabled-python durabled 2>&1")
        self.assertEqual(m.run("pgrep -u durabled || true"), "")
        gone = m.run("ls /usr/bin/durabled /usr/libexec/durabled 2>/dev/null || true")
        self.assertEqual(gone, "")
        self.assertIn("catalog.sqlite", m.run("ls /var/lib/durabled"))


if __name__ == "__main__":
    unittest.main()
