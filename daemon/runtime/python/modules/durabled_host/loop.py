# SPDX-License-Identifier: Apache-2.0
"""An asyncio event loop that is stepped on runners instead of owning a thread.

Cloudflare runs all events of an object on one event loop. So does this: an object has one HostLoop,
each event of an entrypoint one of its own (they run side by side). A step runs whatever is ready
and returns when the loop would wait; so a guest's coroutines, tasks, locks and timers run in steps
of their object alone, under its token, however they wait.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from asyncio import events, selector_events
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident

from . import reactor

SLICE = 0.05  # seconds that one step may run callbacks before others get their turn
EXECUTOR_THREADS = 16
_WANTED = object()

_executor: ThreadPoolExecutor | None = None
_executor_lock = threading.Lock()


def shared_executor() -> ThreadPoolExecutor:
    global _executor
    with _executor_lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(EXECUTOR_THREADS, "durabled-executor")
        return _executor


def stop_executor() -> None:
    global _executor
    with _executor_lock:
        executor, _executor = _executor, None
    if executor is not None:
        executor.shutdown(wait=False, cancel_futures=True)


class HostLoop(selector_events.BaseSelectorEventLoop):
    def __init__(self):
        self.runs: set = set()  # events of this loop that are not over
        self.calls: list = []  # (call, states, future): what waits for another object
        self.stepping = None  # the Run whose step executes
        self._step_thread = 0
        self._first = None  # inside begin(): takes the place of the queue
        self._armed = None
        super().__init__(reactor.RemoteSelector(self, reactor.get))

    # What a loop with a thread of its own would have, and this one does not.

    def _make_self_pipe(self):
        self._ssock = self._csock = None
        self._internal_fds = 0

    def _close_self_pipe(self):
        pass

    def _write_to_self(self):
        self.wake()

    def run_forever(self):
        raise RuntimeError(
            "This event loop is durabled's and runs already: await the coroutine instead of "
            "run_until_complete()."
        )

    def stop(self):
        raise RuntimeError("This event loop is durabled's: it cannot be stopped")

    # Waking

    def wake(self) -> None:
        """From any thread: some event of this loop gets a step."""
        for run in tuple(self.runs):
            if not run.over:
                run.event.ready()
                return

    def call_soon(self, callback, *args, context=None):
        if self._first is _WANTED:
            self._first = callback
            return None
        if self._closed:
            self._check_closed()
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        if self._step_thread != get_ident():
            self.wake()
        return handle

    def run_in_executor(self, executor, func, *args):
        return super().run_in_executor(executor or shared_executor(), func, *args)

    def call_woke(self, _call) -> None:
        """The wake of a call whose event is over."""
        self.wake()

    # Steps

    def begin(self, run, coro) -> asyncio.Task:
        """Makes the run's task and steps it at once: most end, or wait for an object, in there."""
        hooks = self._enter(run)
        try:
            self._first = _WANTED
            task = asyncio.Task(coro, loop=self, context=run.context)
            first, self._first = self._first, None
            try:
                run.context.run(first)
            except (SystemExit, KeyboardInterrupt):
                pass  # as in step()
            # A future that is set already, as a stub's of an error, is not waited for.
            if self._ready or self.calls:
                self._spin(run)
        finally:
            self._first = None
            self._leave(hooks)
        return task

    def step(self, run) -> None:
        """Runs what is ready, until the loop would wait or its time slice is over."""
        hooks = self._enter(run)
        try:
            self._spin(run)
        finally:
            self._leave(hooks)

    def _enter(self, run):
        self.stepping = run
        self._step_thread = self._thread_id = get_ident()
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)
        events._set_running_loop(self)
        return hooks

    def _leave(self, hooks) -> None:
        events._set_running_loop(None)
        sys.set_asyncgen_hooks(*hooks)
        self._step_thread = self._thread_id = None
        self.stepping = None
        self._selector.rearm()
        if self._scheduled:
            self._arm_timer()

    def _spin(self, run) -> None:
        ready = self._ready
        end = 0.0
        self._poll_calls()
        while ready or self._selector.pending or self._timer_due():
            try:
                if self._scheduled or self._selector.pending or self._debug:
                    self._run_once()
                else:
                    for _ in range(len(ready)):
                        handle = ready.popleft()
                        if not handle._cancelled:
                            handle._run()
            except (SystemExit, KeyboardInterrupt):
                pass  # sys.exit() ends the task that called it, whose event answers
            self._poll_calls()
            if ready:
                now = time.monotonic()
                end = end or now + SLICE
                if now > end:
                    run.event.ready()
                    break

    def _timer_due(self) -> bool:
        return bool(self._scheduled) and self._scheduled[0]._when <= self.time()

    def _arm_timer(self) -> None:
        when = self._scheduled[0]._when
        if self._armed is None or when < self._armed or self._armed <= self.time():
            self._armed = when
            reactor.get().wake_at(when, self)

    def _poll_calls(self) -> None:
        if not self.calls:
            return
        for call, states, future in tuple(self.calls):
            if (call.state in states or call.state == "failed") and not future.done():
                future.set_result(None)

    def hand_over(self, run) -> None:
        """The run is over: calls that others of this loop wait for must not wake its event."""
        for call, _, _ in self.calls:
            if call.wake is run.event:
                call.wake = self.call_woke

    @property
    def clean(self) -> bool:
        """Nothing but a main task was ever here: another event may have the loop."""
        return not (self._ready or self._scheduled or self.calls or self._selector.get_map())

    def shut(self) -> None:
        """Cancels what is left, lets it clean up, closes."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        end = time.monotonic() + SLICE
        self._step_thread = self._thread_id = get_ident()
        events._set_running_loop(self)
        try:
            while self._ready and time.monotonic() < end:
                self._run_once()
        finally:
            events._set_running_loop(None)
            self._step_thread = self._thread_id = None
        self._default_executor = None
        self.close()


class no_running_loop:
    """While a WSGI app runs, its thread has no event loop: Django and asgiref look at that."""

    __slots__ = ("_loop",)

    def __enter__(self):
        self._loop = events._get_running_loop()
        if self._loop is not None:
            events._set_running_loop(None)

    def __exit__(self, *_):
        if self._loop is not None:
            events._set_running_loop(self._loop)
