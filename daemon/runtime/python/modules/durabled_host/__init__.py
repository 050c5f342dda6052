# SPDX-License-Identifier: Apache-2.0
"""The Python side of the runtime: what the C side calls, and nothing that a guest imports.

load() once, then start() and resume() for each step of an event, cancel(), evict(), call_done() and
shutdown(). All of them are called on a runner thread. README.md beside this package says how an
event runs.
"""

from .current import (
    AppError,
    NoObject,
    NotSupported,
    StubError,
    current_object,
    require_object,
)

__all__ = [
    "AppError",
    "NoObject",
    "NotSupported",
    "StubError",
    "call_done",
    "cancel",
    "current_object",
    "evict",
    "explain",
    "load",
    "require_object",
    "resume",
    "shutdown",
    "start",
]


def load(config):
    from . import app, driver

    app.load(config)
    # The hot calls are bound once, so that a step costs no look-up in a package.
    global start, resume
    start, resume = driver.start, driver.resume


def explain(error):
    """Why the app cannot be loaded, for its author: lines as traceback.format_exception() makes."""
    import os
    import traceback

    if isinstance(error, AppError):
        return [str(error)]
    ours = os.path.dirname(os.path.abspath(__file__))
    trace = error.__traceback__
    # The way to the app's own code, through us and the import system, says nothing to its author.
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith((ours, "<frozen ")):
            break
        trace = trace.tb_next
    return traceback.format_exception(error.with_traceback(trace))


def start(event):
    from . import driver

    return driver.start(event)


def resume(event):
    from . import driver

    return driver.resume(event)


def cancel(event):
    from . import driver

    driver.cancel(event)


def evict(obj):
    from . import app

    app.evict(obj)


def call_done(call):
    call.wake(call)


def shutdown():
    from . import app

    app.shutdown()
