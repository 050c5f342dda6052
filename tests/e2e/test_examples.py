# SPDX-License-Identifier: Apache-2.0
"""The examples of proxies before the service: read by the programs, and nginx's in use."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import daemon

EXAMPLES = pathlib.Path(daemon.TOP, "packaging", "examples")
PROFILE = os.path.join(daemon.TOP, "packaging", "apparmor", "usr.bin.durabled")


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"{program} is not installed")


def judge(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


class Examples(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-examples-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder)

    def check(self, name, word, *command):
        """The program takes the example, and refuses it with a word spelt wrongly."""
        path = os.path.join(self.folder, name)
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        pathlib.Path(path).write_text(text, encoding="utf-8")
        status, said = judge(*command, path)
        self.assertEqual(status, 0, said)
        pathlib.Path(path).write_text(text.replace(word, word[::-1]), encoding="utf-8")
        self.assertNotEqual(judge(*command, path)[0], 0)

    @needs("haproxy")
    def test_haproxy_reads_its_example(self):
        self.check("haproxy.cfg", "retries", "haproxy", "-c", "-f")

    @needs("caddy")
    def test_caddy_reads_its_example(self):
        self.check("caddy.caddyfile", "reverse_proxy", "caddy", "validate", "--adapter",
                   "caddyfile", "--config")

    @needs("apparmor_parser")
    def test_the_apparmor_profile_is_read(self):
        # -Q -K: nothing is loaded into the kernel, nothing is kept.
        status, said = judge("apparmor_parser", "-Q", "-K", PROFILE)
        self.assertEqual(status, 0, said)
        broken = os.path.join(self.folder, "profile")
        text = pathlib.Path(PROFILE).read_text(encoding="utf-8")
        pathlib.Path(broken).write_text(text.replace("capability bpf,", "capability bfp,"),
                                        encoding="utf-8")
        self.assertNotEqual(judge("apparmor_parser", "-Q", "-K", broken)[0], 0)

    @needs("nginx")
    def test_an_app_is_served_through_nginx(self):
        port = daemon.free_port()
        project = daemon.copy_project(daemon.TEMPLATE, self.folder)
        with daemon.Daemon(project) as service:
            text = (EXAMPLES / "nginx.conf").read_text(encoding="utf-8")
            self.assertIn("server 127.0.0.1:8787;", text)
            text = text.replace("127.0.0.1:8787", f"127.0.0.1:{service.port}")
            text = text.replace("listen 80;", f"listen 127.0.0.1:{port};")
            path = os.path.join(self.folder, "nginx.conf")
            pathlib.Path(path).write_text(
                f"daemon off;\npid {self.folder}/pid;\nerror_log {self.folder}/error;\n"
                f"events {{}}\nhttp {{\naccess_log off;\nclient_body_temp_path {self.folder}/b;\n"
                f"proxy_temp_path {self.folder}/p;\n{text}\n}}\n", encoding="utf-8")
            with subprocess.Popen(["nginx", "-c", path, "-e", self.folder + "/error"]) as nginx:
                try:
                    self.ask_much(port)
                finally:
                    nginx.terminate()

    def ask_much(self, port):
        client = daemon.Client(port, authority="localhost")
        end = time.monotonic() + 20
        while True:
            try:
                client.get("/")
                break
            except OSError:
                client.close()
                self.assertLess(time.monotonic(), end, "nginx does not come up")
                time.sleep(0.1)
        for i in range(60):
            # Three objects take turns on one connection to nginx.
            client.authority = ("localhost", "acme.localhost", "globex.localhost")[i % 3]
            answer = client.get("/")
            self.assertEqual(answer.status, 200, answer.text[:300])
            self.assertIn("<html", answer.text)
        refused = client.request("POST", "/admin/login/", {"username": "nobody"})
        self.assertEqual(refused.status, 403)  # Django's own word: without its CSRF token
        log = pathlib.Path(self.folder, "error").read_text(encoding="utf-8")
        self.assertNotIn("[error]", log)


if __name__ == "__main__":
    unittest.main()
