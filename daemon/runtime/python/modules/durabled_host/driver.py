# SPDX-License-Identifier: Apache-2.0
"""How an event runs: its steps, from start() to the answer.

Each event has a context of its own (contextvars), in which all of its guest code runs. A fetch()
that returns a response is over in one step. One that returns a coroutine becomes a task on the
object's loop (loop.py), whose first step runs at once; each further step runs that loop until the
task is done.
"""

from __future__ import annotations

import contextvars
import time
from asyncio import CancelledError, events, iscoroutine
from threading import get_ident
from typing import Any

import _durabled

from . import answers, app, current, output
from .current import THREAD, StubError
from .django import check_step, object_connections
from .http import ResponseData, close_quietly
from .loop import HostLoop

PUMP_SLICE = 0.05  # seconds of one step that pulls a streamed body
SPARE_LOOPS = 64
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "te", "trailer"}
)
_END = object()
_spare: list[HostLoop] = []


def start(event) -> bool:
    run = Run(event)
    event.state = run
    return run.execute(run.first)


def resume(event) -> bool:
    run = event.state
    return run.execute(run.next)


def cancel(event) -> None:
    run = event.state
    if isinstance(run, Run) and not run.over:
        run.cancelled = True
        event.ready()


async def wait_call(call, states) -> None:
    """Waits until the call has come to one of the states; raises StubError when it failed."""
    if call.state not in states and call.state != "failed":
        loop = events.get_running_loop()
        future = loop.create_future()
        if isinstance(loop, HostLoop):
            await _wait_on_host(loop, call, states, future)
        else:
            call.wake = lambda _: loop.call_soon_threadsafe(_settle, future)
            await future
    if call.state == "failed":
        raise StubError(call.error, call.error_status, call.retry_after or 0)


async def _wait_on_host(loop, call, states, future) -> None:
    run = current.current_run()
    entry = (call, states, future)
    loop.calls.append(entry)
    try:
        # An event wakes without a hop through Python; where it is over, the loop has to look.
        call.wake = run.event if run is not None and not run.over else loop.call_woke
        await future
    except CancelledError:
        call.cancel()
        raise
    finally:
        loop.calls.remove(entry)


def _settle(future) -> None:
    if not future.done():
        future.set_result(None)


async def _await(value):
    return await value


def _sent_headers(pairs) -> tuple[list, int]:
    """The fields that go out, and the length that the guest announced (-1: none)."""
    sent, length = [], -1
    for pair in pairs:
        lower = pair[0].lower()
        if lower not in HOP_BY_HOP:
            sent.append(pair)
        elif lower == "content-length" and pair[1].isdigit():
            length = int(pair[1])
    return sent, length


class Run:
    """One event on its way."""

    __slots__ = (
        "event",
        "object",
        "context",
        "loop",
        "task",
        "data",
        "stream",
        "background",
        "answered",
        "over",
        "cancelled",
        "began",
        "full",
        "broken",
    )

    def __init__(self, event):
        self.event = event
        self.object = event.object
        self.context = contextvars.Context()
        self.context.run(current.enter, self.object, self)
        self.loop = None
        self.task = None
        self.data = None
        self.stream = None
        self.background = []
        self.answered = False
        self.over = False
        self.cancelled = False
        self.began = False
        self.full = False
        self.broken = False

    def execute(self, step) -> bool:
        """One step under the object's token. True: the event is over."""
        obj = self.object
        if obj is not None:
            obj.data[THREAD] = get_ident()
        try:
            over = step()
        except BaseException as error:  # noqa: BLE001 - whatever a guest raises is answered
            over = self._failed(error)
        finally:
            if obj is not None:
                obj.data[THREAD] = None
        if not over:
            self.full = self.was_refused()
            self.broken = self.was_broken()
        else:
            self._leave()
        output.flush()
        return over

    def was_refused(self) -> bool:
        """Had a write of this event no room, whatever the guest made of the error?"""
        return self.full or (self.object is not None and _durabled.refused())

    def was_broken(self) -> bool:
        """The same for damage, and for errors of the disk."""
        return self.broken or (self.object is not None and _durabled.broken())

    # Steps

    def first(self) -> bool:
        result = self.context.run(app.dispatch, self)
        self._check_object()
        if isinstance(result, ResponseData):
            return self._answer(result)
        data = getattr(result, "_response_data", None)
        if data is not None:
            return self._answer(data)
        if not (iscoroutine(result) or hasattr(result, "__await__")):
            return self._answer(self.context.run(app.response_data, result))
        return self._begin(result if iscoroutine(result) else _await(result))

    def next(self) -> bool:
        if self.stream is not None:
            return self._pump()
        if self.cancelled and self.task is not None and not self.task.done():
            self.task.cancel()
        self.loop.step(self)
        return self._stepped()

    def _begin(self, coroutine) -> bool:
        loop = self.get_loop()
        task = self.task = loop.begin(self, coroutine)
        if self.object is not None and not task.done():
            # A step of another event of this object may bring it to its end.
            task.add_done_callback(self._task_done)
        return self._stepped()

    def _stepped(self) -> bool:
        self._check_object()
        if not self.answered:
            if not self.task.done():
                return False
            return self._answer(self.context.run(app.response_data, self.task.result()))
        return self._settled()

    def get_loop(self) -> HostLoop:
        if self.loop is None:
            if self.object is None:
                self.loop = _spare.pop() if _spare else HostLoop()
            else:
                self.loop = self.object.data.get("durabled.loop")
                if self.loop is None:
                    self.loop = self.object.data["durabled.loop"] = HostLoop()
            self.loop.runs.add(self)
        return self.loop

    def wait_until(self, awaitable: Any) -> None:
        """The event is over only when this is, too; the response does not wait for it."""
        loop = self.get_loop()
        if not iscoroutine(awaitable):
            awaitable = _await(awaitable)
        context = contextvars.copy_context()
        task = loop.create_task(awaitable, context=context)
        task.add_done_callback(self._task_done)
        self.background.append(task)

    # Answers

    def _answer(self, data: ResponseData) -> bool:
        if data.status >= 500 and self.object is not None:
            data = self._judge(data)
        self.data = data
        if data.unchanged_call:
            call, data.call = data.call, None
            self.answered = True
            self.event.forward(call)
            return self._settled()
        if data.call is not None:
            return self._collect_first(data)
        headers, length = _sent_headers(data.headers.pairs)
        if data.stream is None:
            self.answered = True
            self.event.respond(data.status, headers, data.body)
            return self._settled()
        self.answered = True
        self.event.start(data.status, headers, length)
        self.stream, data.stream = data.stream, None
        return self._pump()

    def _judge(self, data: ResponseData) -> ResponseData:
        """An error of the app: was it the storage's?"""
        full = self.was_refused()
        self.broken = full or self.was_broken()
        if data.status != 500 or not full:
            return data
        # A framework's own page for an error that it does not know: we do.
        data.close()
        return answers.no_room_data(self)

    def _collect_first(self, data: ResponseData) -> bool:
        """Another object's response with other headers: its body is needed here after all."""

        async def collect():
            await data.collect()
            return data

        return self._begin(collect())

    def _pump(self) -> bool:
        """Pulls a streamed body, a slice of time at once, so that others come between."""
        stream, event = self.stream, self.event
        end = time.monotonic() + PUMP_SLICE
        while not (event.cancelled or self.cancelled):
            chunk = self.context.run(next, stream, _END)
            if chunk is _END:
                self.stream = None
                self.context.run(close_quietly, stream)
                event.end()
                return self._settled()
            if chunk:
                event.write(chunk)
            if time.monotonic() > end:
                self._check_object()
                event.ready()
                return False
        self.stream = None
        self.context.run(close_quietly, stream)
        return self._settled()

    def _settled(self) -> bool:
        """Answered: is anything left that wait_until() was given?"""
        self._check_object()
        if not self.background:
            return True
        if not self.began:
            self.began = True
            self.loop.step(self)
        waiting = []
        for task in self.background:
            if not task.done():
                waiting.append(task)
            elif not task.cancelled() and task.exception() is not None:
                answers.log_error(self, task.exception(), "wait_until()")
        self.background = waiting
        if waiting and self.cancelled:
            for task in waiting:
                task.cancel()
        return not waiting

    def _failed(self, error: BaseException) -> bool:
        if self.stream is not None:
            stream, self.stream = self.stream, None
            self.context.run(close_quietly, stream)
        if self.data is not None:
            self.data.close()
        if self.task is not None and self.task.done() and not self.task.cancelled():
            self.task.exception()  # it is answered here: asyncio has nothing to report
        self._check_object()
        self.broken = self.was_refused() or self.was_broken()
        self.context.run(answers.failure, self, error)
        self.answered = True
        return True

    def _check_object(self) -> None:
        if self.object is not None and object_connections(self.object):
            self.context.run(check_step, self.object)

    def _task_done(self, _task) -> None:
        if not self.over and self.loop.stepping is not self:
            self.event.ready()

    def _leave(self) -> None:
        self.over = True
        self.event.state = None
        if self.broken:
            app.reopen(self.object)
        loop, self.loop = self.loop, None
        if loop is None:
            return
        loop.runs.discard(self)
        loop.hand_over(self)
        if self.object is not None:
            if loop._ready:
                loop.wake()
        elif loop.clean and len(_spare) < SPARE_LOOPS:
            _spare.append(loop)
        else:
            loop.shut()


def shutdown() -> None:
    while _spare:
        _spare.pop().shut()
