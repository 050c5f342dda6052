#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs unittest files and prints TAP: python3 tests/lib/tap.py FILE...

A test's name is a sentence: its method's, with blanks for underscores and without "test". Ends
with 1 when a test failed.
"""

import importlib.util
import os
import sys
import unittest


def sentence(test):
    name = test.id().rsplit(".", 1)[-1] if hasattr(test, "id") else str(test)
    if name.startswith("test_"):
        name = name[len("test_"):]
    return name.replace("_", " ")


class TapResult(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.n = 0
        self.failed = 0

    def line(self, ok, test, note="", detail=""):
        self.n += 1
        self.failed += not ok
        print(f"{'ok' if ok else 'not ok'} {self.n} - {sentence(test)}{note}", flush=True)
        for text in detail.splitlines():
            print("# " + text, flush=True)

    def addSuccess(self, test):
        self.line(True, test)

    def addFailure(self, test, err):
        self.line(False, test, detail=self._exc_info_to_string(err, test))

    def addError(self, test, err):
        self.line(False, test, detail=self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        self.line(True, test, note=f" # SKIP {reason}")

    def addExpectedFailure(self, test, err):
        self.line(True, test)

    def addUnexpectedSuccess(self, test):
        self.line(False, test, detail="succeeded, against what it says")

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.line(False, test, note=f" ({subtest.params})",
                      detail=self._exc_info_to_string(err, test))


def load(path):
    name = os.path.splitext(os.path.basename(path))[0].replace("-", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def main(paths):
    suite = unittest.TestSuite(load(path) for path in paths)
    result = TapResult()
    suite.run(result)
    print(f"1..{result.n}", flush=True)
    return 1 if result.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
