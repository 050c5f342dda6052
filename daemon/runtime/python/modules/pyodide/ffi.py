# SPDX-License-Identifier: Apache-2.0
"""pyodide.ffi without JavaScript: values are Python's already, so most functions hand them back."""

from __future__ import annotations

from typing import Any

from durabled_host.current import NotSupported


class _JsNull:
    """JavaScript's null where it differs from undefined; false, and equal to itself alone."""

    _only = None

    def __new__(cls):
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __bool__(self):
        return False

    def __repr__(self):
        return "jsnull"

    def __copy__(self):
        return self

    def __deepcopy__(self, _memo):
        return self

    def __reduce__(self):
        return "jsnull"


JsNull = _JsNull
jsnull = _JsNull()


class JsProxy:
    """The base of what stands for a JavaScript object here (`js.Object`, `js.Request`, ...)."""

    __slots__ = ()

    @property
    def js_id(self) -> int:
        return id(self)

    @property
    def typeof(self) -> str:
        return "object"

    def to_py(self, **_options: Any) -> Any:
        return self

    def destroy(self) -> None:
        """Nothing to do: Python counts the references."""


class JsArray(JsProxy):
    __slots__ = ()


class JsException(Exception):
    """An error of the platform, as JavaScript would throw it."""

    def __init__(self, message: str = "", name: str = "Error"):
        super().__init__(message)
        self.message = message
        self.name = name
        self.stack = message


class ConversionError(Exception):
    pass


class JsError(JsException):
    pass


def to_js(obj: Any, /, **_options: Any) -> Any:
    from js import to_js_value

    return to_js_value(obj)


def create_proxy(obj: Any, /, **_options: Any) -> Any:
    return obj


def create_once_callable(obj: Any, /, **_options: Any) -> Any:
    return obj


def destroy_proxies(_proxies: Any, /) -> None:
    """Nothing to do: Python counts the references."""


def register_js_module(_name: str, _module: Any) -> None:
    raise NotSupported("pyodide.ffi.register_js_module: durabled has no JavaScript engine")


def run_sync(_awaitable: Any) -> Any:
    raise NotSupported("pyodide.ffi.run_sync is not there in this version of durabled: use await")


def can_run_sync() -> bool:
    return False


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotSupported(f"pyodide.ffi.{name} is not there in this version of durabled")
