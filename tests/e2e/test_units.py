# SPDX-License-Identifier: Apache-2.0
"""The unit as systemd's own tools judge it."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import daemon

UNIT = os.path.join(daemon.BUILD, "units", "durabled.service")
EXPOSURE_MAX = 1.7


@unittest.skipUnless(shutil.which("systemd-analyze"), "systemd is not installed")
class Units(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-units-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder)
        self.text = pathlib.Path(UNIT).read_text(encoding="utf-8")

    def write(self, text):
        path = pathlib.Path(self.folder, "durabled.service")
        path.write_text(text, encoding="utf-8")
        return path

    def exposure(self, text):
        done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager",
                               self.write(text)], capture_output=True, text=True, check=False)
        found = re.search(r"Overall exposure level for durabled.service: ([0-9.]+)", done.stdout)
        self.assertTrue(found, done.stdout + done.stderr)
        return float(found.group(1))

    def test_the_exposure_stays_low_and_each_option_counts(self):
        self.assertLessEqual(self.exposure(self.text), EXPOSURE_MAX)
        opened = self.text.replace("ProtectSystem=strict\n", "").replace("PrivateDevices=yes\n", "")
        self.assertGreater(self.exposure(opened), EXPOSURE_MAX)

    def test_systemd_reads_the_unit_without_a_word(self):
        # The commands of the build in the place of those that are installed later.
        text = re.sub(r"^(Exec\w+=)\S+/(durabled|durablectl)\b",
                      lambda found: found.group(1) + os.path.abspath(os.path.join(
                          daemon.BUILD, "daemon" if found.group(2) == "durabled" else "tui",
                          found.group(2))), self.text, flags=re.M)
        self.assertEqual(text.count(os.path.abspath(daemon.BUILD)), 2)

        def verify(unit):
            return subprocess.run(["systemd-analyze", "verify", "--man=no", self.write(unit)],
                                  capture_output=True, text=True, check=False)

        done = verify(text)
        ours = [line for line in done.stderr.splitlines() if "durabled" in line]
        self.assertEqual((done.returncode, ours), (0, []), done.stderr)
        self.assertIn("durabled", verify(text.replace("Restart=", "Restrat=")).stderr)

    def test_what_stays_open_has_its_reason(self):
        comments = "\n".join(line for line in self.text.splitlines() if line.startswith("#"))
        for word in ("PrivateNetwork=", "IPAddressDeny=", "PrivateUsers=", "RootDirectory=",
                     "CAP_BPF", "CAP_NET_ADMIN", "MemoryDenyWriteExecute=no", "bpf:", "capset:",
                     "Netlink:"):
            self.assertIn(word, comments)


if __name__ == "__main__":
    unittest.main()
