# SPDX-License-Identifier: Apache-2.0
"""What the checks of this folder share: the files of a tree, TAP, made-up trees for self-tests."""

import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED_FOLDERS = ("build", ".")  # prefixes


def list_files(root):
    """Paths below root, relative to it: what git would commit, or else all but build folders."""
    if (root / ".git").exists():
        done = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "-co",
                               "--exclude-standard"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            names = {name for name in done.stdout.split("\0") if name}
            return sorted(name for name in names if (root / name).is_file())
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(SKIPPED_FOLDERS)]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


def read_text(path):
    """The text of a file, or None when it holds bytes that are no text."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (UnicodeDecodeError, OSError):
        return None
    return None if "\0" in text else text


class Tap:
    """Prints one TAP line for each sentence; problems follow as comments."""

    def __init__(self):
        self.count = 0
        self.failed = []

    def check(self, sentence, problems):
        self.count += 1
        if problems:
            self.failed.append(sentence)
        print(f"{'not ok' if problems else 'ok'} {self.count} - {sentence}")
        for problem in problems:
            print(f"# {problem}")
        sys.stdout.flush()

    def skip(self, sentence, reason):
        self.count += 1
        print(f"ok {self.count} - {sentence} # SKIP {reason}")

    def finish(self):
        print(f"1..{self.count}")
        return 1 if self.failed else 0


def run_on_tree(check, files):
    """Runs check(tap, root) on a made-up tree {path: text}; the sentences that failed."""
    with tempfile.TemporaryDirectory(prefix="tidy-") as folder:
        root = pathlib.Path(folder)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        tap = Tap()
        with contextlib.redirect_stdout(io.StringIO()):
            check(tap, root)
        return tap.failed


def self_test(check, good, cases):
    """
    A check that cannot fail is no check: the good tree passes, and each change to it
    (name, {path: text or None to remove it}, a part of the sentence) fails that sentence alone.
    """
    tap = Tap()
    failed = run_on_tree(check, good)
    tap.check("the good tree passes", failed)
    for name, change, sentence in cases:
        files = {path: text for path, text in {**good, **change}.items() if text is not None}
        failed = run_on_tree(check, files)
        wrong = len(failed) != 1 or sentence not in failed[0]
        tap.check(f"{name} is found", [f"failed: {failed}, not: {sentence}"] if wrong else [])
    return tap.finish()


def main(check, good, cases):
    """The command line that layers, style and format have: [--self-test | ROOT]."""
    if sys.argv[1:] == ["--self-test"]:
        return self_test(check, good, cases)
    tap = Tap()
    check(tap, pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    return tap.finish()
