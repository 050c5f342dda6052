# SPDX-License-Identifier: Apache-2.0
"""Starts the Python side of the runtime in this process, over the fake of `_durabled`."""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MODULES = os.path.join(ROOT, "daemon", "runtime", "python", "modules")
FIXTURES = os.path.join(ROOT, "tests", "fixtures")

sys.path[:0] = [MODULES, os.path.join(HERE, "fake")]
sys.dont_write_bytecode = True


def load(directory, main="src/index.py", classes=("DjangoDO",), bindings=None, runners=0, **more):
    """Loads an app; a process can do that once, as a worker does."""
    import _durabled
    import durabled_host

    if bindings is None:
        bindings = {"DO_STORAGE": 0} if classes else {}
    config = {
        "app_name": "test",
        "app_directory": directory,
        "main": main,
        "python_path": [],
        "django_cf": "ours",
        "migrate": "auto",
        "env": {},
        "admin_password": None,
        "development": True,
        "classes": list(classes),
        "bindings": bindings,
        "compatibility_flags": ["python_workers"],
        **more,
    }
    state = tempfile.TemporaryDirectory(prefix="durabled-test-")
    host = _durabled.Host(config, state.name, runners)
    host.state = state
    out, err = sys.stdout, sys.stderr
    try:
        durabled_host.load(config)
    finally:
        if not os.environ.get("DURABLED_TEST_LOG"):
            host.streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = out, err
    return host


def app(files):
    """A folder with the given files."""
    directory = tempfile.mkdtemp(prefix="durabled-app-")
    for name, text in files.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    return directory


def child(code, *args, env=None):
    """Runs code in a process of its own, with this module importable; its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {HERE!r})\n{code}", *args],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
    )
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout
