# SPDX-License-Identifier: Apache-2.0
"""The loaded app: its import, the instances of its classes, and which code an event goes to."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import os
import sys
from typing import Any, Callable

import _durabled

from . import current, django, gate, history, imports, management, output, reactor
from .current import App, AppError, StorageError
from .http import RequestData, ResponseData

GC_THRESHOLD = 10_000

def load(config: dict) -> None:
    app = App(config)
    main = os.path.join(app.directory, app.main)
    if not main.endswith(".py"):
        raise AppError(f'"main" is {app.main!r}: durabled runs Python, a file that ends in .py')
    if not os.path.isfile(main):
        raise AppError(f'"main" is {app.main!r}, and {app.directory} has no such file')
    current.app = app
    output.install()
    gate.install()
    _set_path(app, os.path.dirname(os.path.abspath(main)))
    imports.install(app)
    import workers

    app.env = workers.env = workers.make_env(app)
    app.module = _import_main(main)
    app.types = [_find_class(app, name) for name in app.classes]
    app.entry = _find_entry(app)
    if app.entry is None and not app.types:
        raise AppError(
            f"{app.main} has neither a class Default(WorkerEntrypoint), nor "
            "on_fetch(request, env), nor a durable object's class: there is nothing to run"
        )
    # What the app's import made stays: the collector need not walk it again and again, nor look
    # after every 700 objects, which is less than a request makes.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])


def _set_path(app: App, source: str) -> None:
    host = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    ours = [host, source, os.path.join(source, "vendor"), *app.python_path]
    ours = list(dict.fromkeys(p for p in ours if os.path.isdir(p)))
    sys.path[:] = ours + [p for p in sys.path if p not in ours]
    sys.dont_write_bytecode = not app.development
    importlib.invalidate_caches()
    if app.development:
        imports.watch_sources(app.directory, os.path.join(source, "vendor"))


def _import_main(path: str) -> Any:
    name = os.path.basename(path)[: -len(".py")]
    if not name.isidentifier():
        name = "__durabled_main__"
    loader = imports.FreshLoader(name, path) if current.app.development else None
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    finally:
        output.flush()
    return module


def _find_class(app: App, name: str) -> type:
    import workers

    found = getattr(app.module, name, None)
    if found is None:
        raise AppError(f"{app.main} has no class {name}, which durable_objects.bindings names")
    if not isinstance(found, type):
        raise AppError(f"{name} in {app.main} is not a class")
    if not (issubclass(found, workers.DurableObject) or callable(getattr(found, "fetch", None))):
        raise AppError(f"{name} in {app.main} is neither a DurableObject nor has it a fetch()")
    return found


def _find_entry(app: App) -> Callable | None:
    """What the entrypoint's events go to, as a function of one request."""
    import workers

    default = getattr(app.module, "Default", None)
    if isinstance(default, type):
        if not callable(getattr(default, "fetch", None)):
            raise AppError(f"Default in {app.main} has no fetch()")
        return lambda request: default(workers.ExecutionContext(), app.env).fetch(request)
    on_fetch = getattr(app.module, "on_fetch", None)
    if on_fetch is None:
        return None
    wanted = _positional(on_fetch)
    # Decorated with @handler it takes the SDK's classes; bare, Cloudflare gives it a js.Request.
    return lambda request: on_fetch(
        *(request.js_object, app.env, workers.ExecutionContext())[:wanted]
    )


def _positional(function: Callable) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 3
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 3
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def dispatch(run) -> Any:
    """Hands an event to the code that it is for; what that returns, or a coroutine of it."""
    import workers

    app = current.require_app()
    request = workers.Request.of(RequestData(run.event))
    if run.object is None:
        if app.entry is None:
            raise AppError(
                f"{app.main} has no entrypoint: neither a class Default(WorkerEntrypoint) nor "
                "on_fetch(request, env). Add one, or declare routes to objects."
            )
        return app.entry(request)
    obj = run.object
    if obj.instance is None:
        return _first_event(app, obj, request)
    return _object_event(obj, request)


def _object_event(obj, request) -> Any:
    if request.path_is_management:
        answer = management.answer(obj, request)
        if answer is not None:
            return answer
    return obj.instance.fetch(request)


def _first_event(app: App, obj, request) -> Any:
    """Makes the instance; a Django object has its migrations applied before anything else."""
    import workers

    if not obj.data.get("durabled.open"):
        # The file and its folders, with the host's table: what fails here is this event's alone.
        try:
            pending = _durabled.open_object(obj.path, obj.name)
            if pending is not None:
                history.restore_pending(obj, pending)
        except OSError as error:
            raise StorageError(f"{error.strerror} ({error.filename})") from error
        obj.data["durabled.open"] = True
    kind = app.types[obj.class_index]
    # Kept at once: what the constructor starts must see the object as it will be.
    instance = kind(workers.DurableObjectState(obj), app.env)
    obj.instance = instance
    if app.migrate != "auto":
        return _object_event(obj, request)
    wsgi = _get_app(instance)
    if inspect.isawaitable(wsgi):
        return _first_event_async(obj, request, wsgi)
    _migrate(obj)
    return _object_event(obj, request)


async def _first_event_async(obj, request, wsgi) -> Any:
    await wsgi
    _migrate(obj)
    result = _object_event(obj, request)
    return await result if inspect.isawaitable(result) else result


def _get_app(instance) -> Any:
    get_app = getattr(instance, "get_app", None)
    if get_app is None:
        return None
    try:
        return get_app()
    except NotImplementedError:
        return None


def _migrate(obj) -> None:
    try:
        management.migrate_if_needed(obj)
    except BaseException:
        obj.instance = None  # the next event tries again
        raise


def response_data(result: Any) -> ResponseData:
    """The response behind what a fetch() returned."""
    data = getattr(result, "_response_data", None)
    if data is not None:
        return data
    if isinstance(result, ResponseData):
        return result
    raise TypeError(
        f"fetch() must return a Response, not {type(result).__name__}"
        + (": is a return missing?" if result is None else "")
    )


def reopen(obj) -> None:
    """After an error of its storage: what it has in memory may not be what is on disk."""
    with current.as_object(obj):
        _close_storage(obj)
        obj.data.pop("durabled.open", None)


def _close_storage(obj) -> None:
    obj.instance = None
    django.close_object(obj)
    obj.data.pop(django.CONNECTIONS, None)
    connection = obj.data.pop("durabled.sql", None)
    if connection is not None:
        connection.close()


def evict(obj) -> None:
    """Closes everything of the object."""
    with current.as_object(obj):
        # Its tasks first: what they write on their way out must not come after all is closed.
        loop = obj.data.pop("durabled.loop", None)
        if loop is not None:
            loop.shut()
        _close_storage(obj)
    obj.data.clear()
    output.flush()


def shutdown() -> None:
    from . import driver, loop

    driver.shutdown()
    loop.stop_executor()
    reactor.stop()
    output.flush()


def log(level: int, text: str) -> None:
    _durabled.log(level, current.current_object(), text)
