# SPDX-License-Identifier: Apache-2.0
"""The Debian packages are the same bytes wherever and with however many jobs they are built."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import daemon

BUILT = os.path.join(daemon.TOP, "build", "packages")


def build(folder, jobs):
    done = subprocess.run([os.path.join(daemon.TOP, "packaging", "build-deb"), "--worktree",
                           "--no-lint", "--jobs", jobs, "--output", folder], capture_output=True,
                          text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"build-deb ended with {done.returncode}\n{done.stderr[-4000:]}")


@unittest.skipUnless(shutil.which("dpkg-buildpackage"), "dpkg-buildpackage is not installed")
class Reproducible(unittest.TestCase):
    def test_two_builds_in_two_places_give_the_same_bytes(self):
        # test_packages.py has built them once already when all is run.
        if not list(pathlib.Path(BUILT).glob("*.deb")):
            build(BUILT, "2")
        with tempfile.TemporaryDirectory(prefix="durabled-again-", dir="/var/tmp") as again:
            build(again, "1")
            names = sorted(path.name for path in pathlib.Path(BUILT).glob("*.deb"))
            self.assertEqual(len(names), 4, names)
            for name in names:
                self.assertEqual(pathlib.Path(BUILT, name).read_bytes(),
                                 pathlib.Path(again, name).read_bytes(), name)


if __name__ == "__main__":
    unittest.main()
