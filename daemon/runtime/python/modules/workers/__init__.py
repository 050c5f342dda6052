# SPDX-License-Identifier: Apache-2.0
"""The module that a Python Worker imports: our own, in the shape of Cloudflare's SDK.

What is not there yet raises NotSupported and says so; nothing is silently ignored.
"""

from __future__ import annotations

import functools
from typing import Any

from durabled_host import current as _current
from durabled_host.current import NotSupported, StubError

from .http import Headers, Request, Response, fetch, make_request
from .objects import (
    DurableObject,
    DurableObjectId,
    DurableObjectNamespace,
    DurableObjectState,
    DurableObjectStub,
    Env,
    ExecutionContext,
    WorkerEntrypoint,
    make_env,
    wait_until,
)

FetchResponse = Response
waitUntil = wait_until
Context = ExecutionContext

__all__ = [
    "DurableObject",
    "DurableObjectId",
    "DurableObjectNamespace",
    "DurableObjectState",
    "DurableObjectStub",
    "Env",
    "ExecutionContext",
    "FetchResponse",
    "Headers",
    "NotSupported",
    "Request",
    "Response",
    "StubError",
    "WorkerEntrypoint",
    "fetch",
    "handler",
    "make_env",
    "make_request",
    "waitUntil",
    "wait_until",
]

_MISSING = {
    "Blob": "Blob",
    "BlobEnding": "Blob",
    "BlobValue": "Blob",
    "File": "File",
    "FormData": "FormData",
    "FormDataValue": "FormData",
    "WorkflowEntrypoint": "Workflows are",
    "import_from_javascript": "import_from_javascript",
    "patch_env": "patch_env",
    "python_from_rpc": "RPC",
    "python_to_rpc": "RPC",
    "asgi": "The ASGI adapter",
}


def handler(function: Any) -> Any:
    """Gives a module-level on_fetch() a workers.Request instead of JavaScript's."""

    @functools.wraps(function)
    def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
        data = getattr(request, "_data", None)
        if data is not None and not isinstance(request, Request):
            request = Request.of(data)
        return function(request, *args, **kwargs)

    return wrapper


def __getattr__(name: str) -> Any:
    if name == "env":
        return _current.require_app().env
    if name in _MISSING:
        raise NotSupported(f"workers.{name} is not there in this version of durabled")
    raise AttributeError(f"module 'workers' has no attribute {name!r}")
