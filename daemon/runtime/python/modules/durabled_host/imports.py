# SPDX-License-Identifier: Apache-2.0
"""Which django_cf an app gets, and the places of Django that need changing once imported.

Django keeps some state in module globals that belongs to a database, so to an object. It is changed
right after the module in question is imported, however late an app does that.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys

from . import django
from .current import App, AppError

HOST = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class _Finder:
    """First on sys.meta_path: for the few modules it knows, the usual way with a step after."""

    def __init__(self, vendored: bool):
        self._vendored = vendored
        self._busy: set = set()

    def find_spec(self, name, path=None, target=None):
        if name == "django_cf" and self._vendored:
            places = [p for p in sys.path if os.path.abspath(p or ".") != HOST]
            spec = importlib.machinery.PathFinder.find_spec(name, places, target)
            if spec is None:
                raise ModuleNotFoundError(_MISSING, name=name)
            return spec
        patch = django.PATCHES.get(name)
        if patch is None or name in self._busy:
            return None
        self._busy.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy.discard(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, patch)
        return spec


class _Loader:
    def __init__(self, loader, patch):
        self._loader = loader
        self._patch = patch

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._patch(module)

    def __getattr__(self, name):
        return getattr(self._loader, name)


class FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles a source file at each import.

    Cached bytecode is judged by the source's size and the second of its last change: an edit that
    is made right after a reload can look unchanged.
    """

    def path_stats(self, path):
        raise OSError(f"{path}: no bytecode is kept")


def watch_sources(directory: str, vendored: str) -> None:
    """Modules below directory, but not below vendored, are always loaded from their source."""
    directory, vendored = os.path.abspath(directory), os.path.abspath(vendored)
    extensions = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)

    def hook(path):
        path = os.path.abspath(path)
        if not _is_below(path, directory) or _is_below(path, vendored) or not os.path.isdir(path):
            raise ImportError(f"{path} is not the app's own", path=path)
        return importlib.machinery.FileFinder(path, (FreshLoader, [".py"]), extensions)

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + os.sep)


_MISSING = (
    'The manifest says "durabled": {"django_cf": "vendored"}, and there is no django_cf among the '
    "app's dependencies: add django-cf to them, or remove the setting to use durabled's own."
)


def install(app: App) -> None:
    if app.django_cf not in ("ours", "vendored"):
        raise AppError(f'"django_cf" is {app.django_cf!r}: it can be "ours" or "vendored"')
    sys.meta_path.insert(0, _Finder(app.django_cf == "vendored"))
    for name, patch in django.PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])
