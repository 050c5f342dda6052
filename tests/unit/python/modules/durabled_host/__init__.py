# SPDX-License-Identifier: Apache-2.0
"""A Python side for the tests of the C side: what an event does is chosen by its path.

It follows the seam that README.md of the runtime describes, and nothing else: no guest, no Django.
"""

import gc
import os
import sys
import threading
import time

import _durabled

CONFIG = {}
LOG = []  # what happened, in order: read by /log
BUSY = threading.Event()


def load(config):
    CONFIG.update(config)
    if config["app_name"] == "broken":
        raise RuntimeError("the app cannot be loaded")


def start(event):
    return HANDLERS[event.path.split("/")[1]](event)


def resume(event):
    return event.state(event)


def cancel(event):
    LOG.append(f"cancel {event.path}")


def evict(obj):
    LOG.append(f"evict {obj.id[:4]} {obj.data.get('n')}")


def call_done(call):
    call.wake(call)


def shutdown():
    CONFIG.clear()
    LOG.clear()
    WAITING.clear()
    BUSY.clear()
    gc.collect()
    # The leak checker cannot look into CPython's memory: nothing of the host may be left in there.
    left = [item for item in gc.get_objects() if isinstance(item, _durabled.Event)]
    if left:
        print("left behind:", left, gc.get_referrers(left[0]), file=sys.stderr, flush=True)
        os.abort()


def answer(event, text):
    event.respond(200, [("Content-Type", "text/plain")], text.encode())
    return True


def argument(event):
    return event.path.split("/")[2]


# Handlers


def hello(event):
    return answer(event, "hello")


def log(event):
    return answer(event, "\n".join(LOG))


def config(event):
    import json

    return answer(event, json.dumps(CONFIG, sort_keys=True))


def show(event):
    lines = [event.method, event.url, event.query, event.peer, str(event.content_length)]
    lines += [f"{name}: {value}" for name, value in event.headers]
    assert event.headers is event.headers
    assert event.body_file().read() == event.body()
    return answer(event, "\n".join(lines) + "\n" + event.body().decode("latin-1"))


def count(event):
    obj = event.object
    obj.data["n"] = obj.data.get("n", 0) + 1
    return answer(event, f"{obj.class_name} {obj.name} {obj.id[:4]} {obj.data['n']}")


def wrong(event):
    """What a driver may do wrong, and what it is told."""
    lines = []

    def attempt(function, *args):
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001
            lines.append(f"{type(error).__name__}: {error}")
        else:
            lines.append("nothing")

    attempt(event.write, b"x")
    attempt(event.respond, 200, [("A B", "x")], b"")
    attempt(event.respond, 200, [("A", "x\r\nB: y")], b"")
    attempt(event.respond, 200, [("A", "\u20ac")], b"")
    attempt(event.respond, 200, ["A"], b"")
    attempt(event.respond, 99, [], b"")
    attempt(event.respond, 200, [], "text")
    attempt(_durabled.id_check, 0, "x")
    attempt(_durabled.id_check, 0, _durabled.id_new(1))
    attempt(_durabled.id_check, 1, _durabled.id_from_name(1, "a"))
    attempt(_durabled.id_new, 7)
    attempt(_durabled.fetch, event, 0, "0" * 64, None, "GET", "http://a b/", [], None)
    attempt(_durabled.fetch, event, 0, "0" * 64, None, "G T", "/", [], None)
    attempt(_durabled.log, 99, None, "x")
    answer(event, "\n".join(lines))
    attempt(event.respond, 200, [], b"")
    LOG.append(lines[-1])
    LOG.append(event)
    return True


def over(event):
    """Uses the event that wrong() left behind."""
    old = LOG.pop()
    lines = [LOG.pop(), old.method, str(old.state), str(old.over)]
    for function, args in ((old.respond, (200, [], b"")), (old.abort, (500, "x"))):
        try:
            function(*args)
        except RuntimeError as error:
            lines.append(str(error))
    return answer(event, "\n".join(lines))


def raises(event):
    raise KeyError("a bug of the host")


def unanswered(event):
    return True


def half(event):
    event.start(200, [], 10)
    event.write(b"half")
    return True


def abort(event):
    event.abort(503, "not now", retry_after=7)
    return True


def wait(event):
    """Suspended until /go."""
    LOG.append(f"wait {event.path}")
    WAITING[event.path] = event

    def go_on(event):
        if not (event.cancelled or f"cancel {event.path}" in LOG or event.path not in WAITING):
            return False
        WAITING.pop(event.path, None)
        if f"cancel {event.path}" in LOG:
            event.abort(503, "cancelled")
            return True
        return answer(event, "went on")

    event.state = go_on
    return False


WAITING = {}


def go(event):
    for waiting in list(WAITING):
        WAITING.pop(waiting).ready()
    return answer(event, "gone")


def go_and_sleep(event):
    """The ready one is queued behind this for longer than a stall."""
    for waiting in list(WAITING):
        WAITING.pop(waiting).ready()
    return sleep(event)


def early(event):
    """ready() before the step has ended is not lost."""
    event.ready()
    event.state = lambda event: answer(event, "early")
    return False


def thread(event):
    """Made ready by another thread."""
    threading.Thread(target=lambda: (time.sleep(0.02), event.ready())).start()
    event.state = lambda event: answer(event, "thread")
    return False


def stubborn(event):
    event.state = stubborn
    return False


def stream(event):
    """n pieces of 64 KiB; what is still to be said goes to the log."""
    n = int(argument(event))
    event.start(200, [("X-Stream", "1")])
    try:
        for i in range(n):
            event.write(bytes([i % 251]) * 65536)
            LOG.append(f"piece {i}")
    except BrokenPipeError:
        LOG.append(f"broken {event.cancelled}")
        return True
    event.end()
    return True


def big(event):
    """One write that is larger than all queues."""
    event.start(200, [], 1 << 20)
    event.write(bytes(range(256)) * 4096)
    event.end()
    return True


def busy(event):
    """Computes for some milliseconds, GIL and baton in hand."""
    end = time.monotonic() + int(argument(event)) / 1000
    LOG.append("busy begins")
    while time.monotonic() < end:
        pass
    LOG.append("busy ends")
    return answer(event, "busy")


def sleep(event):
    """Blocks outside of Python, without saying so."""
    time.sleep(int(argument(event)) / 1000)
    return answer(event, "slept")


def block(event):
    """Blocks inside blocking() until /unblock."""
    LOG.append("block begins")
    with _durabled.blocking():
        with _durabled.blocking():
            BUSY.wait()
    LOG.append("block ends")
    return answer(event, "blocked")


def stick(event):
    """As block(), but the baton has to be taken away."""
    BUSY.wait()
    return answer(event, "stuck")


def unblock(event):
    LOG.append("unblock")
    BUSY.set()
    return answer(event, "unblocked")


def target(event, **options):
    _, _, class_index, name, path = event.path.split("/", 4)
    hex_id = _durabled.id_from_name(int(class_index), name)
    return _durabled.fetch(
        event,
        int(class_index),
        hex_id,
        name,
        event.method,
        f"http://object.test/{path}?a=b#c",
        [("X-Call", "1")],
        event.body(),
        **options,
    )


def forward(event):
    call = target(event)
    call.wake = event

    def answer_it(event):
        if call.state == "pending":
            return False
        event.forward(call)
        return True

    event.state = answer_it
    return False


def forward_now(event):
    """Does not even wait for the head."""
    event.forward(target(event))
    return True


def collected(event, call):
    if call.state == "pending":
        return False
    if call.state == "failed":
        text = f"failed {call.error_status} {call.retry_after} {call.error}"
    else:
        names = ",".join(name for name, _ in call.headers)
        text = f"{call.state} {call.status} {names} {len(call.body)} {call.body[:20].decode()}"
    return answer(event, text)


def collect(event):
    call = target(event)
    call.collect()
    call.wake = event
    event.state = lambda event: collected(event, call)
    return False


def head_first(event):
    call = target(event)
    call.wake = event

    def head(event):
        if call.state == "pending":
            return False
        LOG.append(f"head {call.state} {call.status} {call.body}")
        call.collect()
        call.wake = event
        event.state = lambda event: collected(event, call)
        return event.state(event)

    event.state = head
    return False


def callable_wake(event):
    call = target(event)
    call.collect()

    def wake(call):
        LOG.append(f"woken {call.state}")
        event.ready()

    call.wake = wake
    event.state = lambda event: collected(event, call)
    return False


def wait_call(event):
    """Waits inside the step."""
    call = target(event, blocking=True)
    call.collect()
    call.wait()
    return collected(event, call)


def forget(event):
    call = target(event)
    call.wake = event
    call.cancel()
    event.state = lambda event: answer(event, f"{call.state} {call.error}")
    return False


def signals(event):
    with open("/proc/thread-self/status") as status:
        blocked = next(line for line in status if line.startswith("SigBlk"))
    blocked = int(blocked.split()[1], 16)
    return answer(event, " ".join(str(blocked >> signal - 1 & 1) for signal in (1, 2, 15, 17, 11)))


def flush(event):
    """Answers, and goes on until /unblock."""
    answer(event, "flushed")
    event.flush()
    with _durabled.blocking():
        BUSY.wait()
    return True


def answer_and_block(event):
    answer(event, "before it blocks")
    with _durabled.blocking():
        BUSY.wait()
    return True


def keep(event):
    """Leaves a call, and a callable that is to be told of its end."""
    call = target(event)
    call.wake = lambda call: LOG.append("never")
    LOG.append(call)
    return answer(event, "kept")


def open_object(event):
    try:
        _durabled.open_object(event.object.path, event.object.name)
    except OSError as error:
        return answer(event, f"{type(error).__name__} {error.filename}")
    return answer(event, "opened")


def logs(event):
    _durabled.log(5, event.object, "a line of the guest")
    _durabled.log(6, None, "another")
    return answer(event, str(_durabled.stats()["busy"]))


HANDLERS = {name: value for name, value in globals().items() if callable(value)}
