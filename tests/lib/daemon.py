# SPDX-License-Identifier: Apache-2.0
"""A real durabled under test: started by durablectl dev on a free port, stopped by pid.

The build folder is $DURABLED_BUILD (default: build). State lives in a temporary folder that is
removed at the end, unless the test names one of its own. With $DURABLED_TEST_DEPS, a folder, what
one test has had durablectl install for a project is not installed again for the next.
"""

import contextlib
import ctypes
import http.client
import http.cookies
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("DURABLED_BUILD", "build"))
DURABLECTL = os.path.join(BUILD, "tui", "durablectl")
FIXTURES = os.path.join(TOP, "tests", "fixtures")
TEMPLATE = os.path.join(TOP, "templates", "django")
DEPENDENCIES = os.environ.get("DURABLED_TEST_DEPS")
START_SECONDS = 90
SANITIZER = re.compile(
    r"^.*(?:ERROR: AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error: ).*$", re.M)
PR_SET_PDEATHSIG = 1


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_parent():
    """Runs in the child: a test that is killed leaves no daemon behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def copy_project(source, folder):
    """A copy that a test may change and build in."""
    target = os.path.join(folder, os.path.basename(source.rstrip("/")))
    skip = shutil.ignore_patterns("__pycache__", "staticfiles", ".durabled", ".dev.vars")
    shutil.copytree(source, target, ignore=skip)
    return target


def lend_dependencies(state):
    """Links what is there already into a state that begins."""
    own = os.path.join(state, "deps")
    if not DEPENDENCIES or os.path.exists(own):
        return
    os.makedirs(own)
    for name in os.listdir(DEPENDENCIES):
        os.symlink(os.path.join(DEPENDENCIES, name), os.path.join(own, name))


def keep_dependencies(state):
    """Of a state that goes: all that was installed whole, and not by another test meanwhile."""
    own = os.path.join(state, "deps")
    if not DEPENDENCIES or not os.path.isdir(own):
        return
    for name in os.listdir(own):
        path = os.path.join(own, name)
        if not os.path.islink(path) and os.path.exists(os.path.join(path, ".complete")):
            with contextlib.suppress(OSError):
                os.rename(path, os.path.join(DEPENDENCIES, name))


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)


class Client:
    """A keep-alive HTTP client with a cookie jar, as small as the tests need it."""

    def __init__(self, port, host="127.0.0.1", authority=None):
        self.connection = http.client.HTTPConnection(host, port, timeout=60)
        self.authority = authority or f"127.0.0.1:{port}"
        self.cookies = {}

    def request(self, method, path, body=None, headers=None):
        sent = {"Host": self.authority}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent.update(headers or {})
        if isinstance(body, dict):
            body = urllib.parse.urlencode(body)
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        self.connection.request(method, path, body, sent)
        response = self.connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        for line in response.headers.get_all("Set-Cookie") or []:
            for name, morsel in http.cookies.SimpleCookie(line).items():
                self.cookies[name] = morsel.value
        return answer

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def submit(self, path, fields):
        """Gets a page with a Django form and posts it with its CSRF token."""
        page = self.get(path)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, f"no form at {path}: {page.status} {page.text[:200]}"
        values = dict(fields, csrfmiddlewaretoken=token.group(1))
        return self.request("POST", path, values, {"Referer": f"http://{self.authority}{path}"})

    def close(self):
        self.connection.close()


class Daemon:
    """durablectl dev on a project. Use as a context manager."""

    def __init__(self, project, workers=2, state=None, options=(), environment=None, port=None):
        self.project = project
        self.workers = workers
        self.port = port or free_port()
        self.own_state = state is None
        self.state = state or tempfile.mkdtemp(prefix="durabled-test-", dir="/tmp")
        self.options = list(options)
        self.environment = dict(os.environ, **(environment or {}))
        self.output = None
        self.process = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        self.stop()
        if self.own_state:
            keep_dependencies(self.state)
            shutil.rmtree(self.state, ignore_errors=True)

    def start(self, wait=True):
        command = [DURABLECTL, "dev", self.project, "--listen", f"127.0.0.1:{self.port}"]
        command += ["--state", self.state, "--workers", str(self.workers), *self.options]
        lend_dependencies(self.state)
        self.output = open(os.path.join(self.state, "output.log"), "ab")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
            env=self.environment, start_new_session=True, preexec_fn=end_with_parent,
        )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"durablectl dev ended: {self.read_output()}")
            states = [worker["state"] for worker in self.try_workers()]
            if states and all(state == "ready" for state in states):
                return
            time.sleep(0.1)
        raise AssertionError(f"not ready after {START_SECONDS} s: {self.read_output()}")

    def stop(self, timeout=40):
        """
        Ctrl-C; returns the exit status. Does nothing when it is stopped. What a sanitizer found in
        any process fails the test.
        """
        if self.process is None:
            return None
        status = self.process.poll()
        if status is None:
            self.process.send_signal(signal.SIGINT)
            try:
                status = self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise
        self.output.close()
        self.process = None
        self.check_sanitizers()
        return status

    def check_sanitizers(self):
        output = self.read_output()
        found = SANITIZER.search(output)
        if found:
            raise AssertionError(f"a sanitizer found: {output[found.start():][:6000]}")

    def read_output(self):
        path = os.path.join(self.state, "output.log")
        with open(path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait_output(self, text, seconds=30):
        end = time.monotonic() + seconds
        while text not in self.read_output():
            if time.monotonic() > end:
                raise AssertionError(f"'{text}' does not stand in: {self.read_output()}")
            time.sleep(0.1)

    @property
    def socket(self):
        return os.path.join(self.state, "run", "control")

    def status(self):
        command = [DURABLECTL, "status", "--json", "--socket", self.socket]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    def try_workers(self):
        """The workers' status, or nothing while the daemon does not answer."""
        if not os.path.exists(self.socket):
            return []
        try:
            return self.all_workers()
        except (subprocess.CalledProcessError, ValueError):
            return []

    def all_workers(self):
        return [worker for app in self.status()["apps"] for worker in app["workers"]]

    def sum_of(self, part, counter):
        return sum(worker[part][counter] for worker in self.all_workers())

    def address_of(self, app, class_name, name):
        command = [DURABLECTL, "objects", "address", app, class_name, name, "--json"]
        command += ["--socket", self.socket]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    def client(self, host="127.0.0.1", authority=None):
        return Client(self.port, host, authority)

    def get(self, path, headers=None):
        client = self.client()
        try:
            return client.get(path, headers)
        finally:
            client.close()


class Service(Daemon):
    """durabled itself, with a configuration file and without development. data: the state folder,
    when that is to be another than where the test keeps configuration, sockets and log."""

    def __init__(self, project, settings="", data=None, **options):
        super().__init__(project, **options)
        self.settings = settings
        self.data = data or self.state

    def start(self, wait=True):
        config = os.path.join(self.state, "durabled.conf")
        with open(os.path.join(self.project, "wrangler.jsonc"), encoding="utf-8") as file:
            name = re.search(r'"name":\s*"([^"]+)"', file.read()).group(1)
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                f"[durabled]\nstate={self.data}\nruntime={self.state}/run\n"
                f"listen=127.0.0.1:{self.port}\nworkers={self.workers}\n"
                f"[app {name}]\ndirectory={self.project}\n{self.settings}"
            )
        os.makedirs(os.path.join(self.state, "run"), exist_ok=True)
        self.output = open(os.path.join(self.state, "output.log"), "ab")
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "daemon", "durabled"), "--config", config],
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
            env=self.environment, start_new_session=True, preexec_fn=end_with_parent,
        )
        if wait:
            self.wait_ready()
        return self

    def token(self):
        with open(os.path.join(self.data, "admin-token"), encoding="utf-8") as file:
            return file.read().strip()
