# SPDX-License-Identifier: Apache-2.0
"""How events run: steps, awaits, tasks, timers, sockets, cancellation, errors."""

import json
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402

APP = '''
import asyncio, json, os, socket, sys, threading, time
from urllib.parse import urlsplit
from workers import DurableObject, Response, Request, WorkerEntrypoint, StubError, env, wait_until
from durabled_host import current_object

ended = []

class Thing(DurableObject):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.lock = asyncio.Lock()
        self.waiters = []
        self.order = []

    async def fetch(self, request):
        return await getattr(self, urlsplit(request.url).path.strip("/"))(request)

    async def echo(self, request):
        return Response(await request.bytes(), headers={"x-name": self.ctx.id.name,
            "x-method": request.method, "x-in": request.headers.get("x-in") or ""})

    async def who(self, request):
        before = current_object().id
        await asyncio.sleep(0.01)
        return Response(f"{before == current_object().id == str(self.ctx.id)}")

    async def critical(self, request):
        async with self.lock:
            self.order.append("in")
            await asyncio.sleep(0.02)
            self.order.append("out")
        return Response.json(self.order)

    async def listen(self, request):
        future = asyncio.get_running_loop().create_future()
        self.waiters.append(future)
        return Response(await future)

    async def tell(self, request):
        for waiter in self.waiters:
            waiter.set_result("told")
        return Response(str(len(self.waiters)))

    async def count(self, request):
        self.n = getattr(self, "n", 0) + 1
        return Response(str(self.n))

    async def sorry(self, request):
        return Response("sorry", status=500)

    async def boom(self, request):
        raise ValueError("the object's own")

    async def cookies(self, request):
        response = Response("c")
        response.headers.append("Set-Cookie", "a=1")
        response.headers.append("Set-Cookie", "b=2")
        return response

    async def thread(self, request):
        from durabled_host import require_object
        def use():
            try:
                require_object("it")
            except Exception as error:
                return type(error).__name__
        return Response(await asyncio.to_thread(use))

class Default(WorkerEntrypoint):
    def stub(self, name):
        return self.env.THING.getByName(name)

    async def fetch(self, request):
        return await getattr(self, urlsplit(request.url).path.strip("/"))(request)

    async def hello(self, request):
        return Response("hello")

    async def nothing(self, request):
        pass

    async def forward(self, request):
        return await self.stub("one").fetch("http://x/echo", method="POST",
            body=await request.bytes(), headers={"x-in": "yes"})

    async def same(self, request):
        return await self.stub("one").fetch(Request("http://x/echo", method=request.method,
            headers=request.headers, body=(await request.bytes()) or None))

    async def nested(self, request):
        async def inner(n):
            if n:
                return await inner(n - 1)
            stub = self.stub("one")
            return await (await stub.fetch("http://x/echo", method="PUT", body="deep")).text()
        return Response(await inner(20))

    async def gather(self, request):
        async def one(name):
            response = await self.stub(name).fetch("http://x/echo", method="POST", body=name)
            return await response.text()
        return Response.json(await asyncio.gather(*[one(f"g{i}") for i in range(10)]))

    async def group(self, request):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.01, i)) for i in range(3)]
        return Response.json([t.result() for t in tasks])

    async def sleep(self, request):
        await asyncio.sleep(0.05)
        stub = self.stub("one")
        text = await (await stub.fetch("http://x/echo", method="POST", body="after")).text()
        await asyncio.sleep(0.01)
        return Response(text)

    async def timeout(self, request):
        try:
            async with asyncio.timeout(0.05):
                await asyncio.sleep(30)
        except TimeoutError:
            return Response("timed out")

    async def spin(self, request):
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            await asyncio.sleep(0)
        return Response("spun")

    async def socket(self, request):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 500000)
        writer.write_eof()
        text = await reader.read()
        writer.close()
        server.close()
        return Response(str(len(text)))

    async def serve(self, reader, writer):
        data = await reader.read()
        writer.write(data)
        await writer.drain()
        writer.close()

    async def executor(self, request):
        loop = asyncio.get_running_loop()
        return Response(str(await loop.run_in_executor(None, lambda: current_object())))

    async def raises(self, request):
        raise KeyError("<script>")

    async def exits(self, request):
        sys.exit(3)

    async def stubboom(self, request):
        response = await self.stub("one").fetch("http://x/boom")
        return Response(str(response.status))

    async def forever(self, request):
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("cleaned up")

    async def later(self, request):
        async def work():
            await asyncio.sleep(0.05)
            ended.append("later")
        self.ctx.waitUntil(work())
        return Response("now")

    async def cookies(self, request):
        return await self.stub("one").fetch("http://x/cookies")

    async def changed(self, request):
        response = await self.stub("one").fetch("http://x/cookies")
        response.headers.set("x-more", "1")
        return response

    async def running(self, request):
        return Response(type(asyncio.current_task()).__name__)

    async def prints(self, request):
        print("half ", end="")
        print("a line\\nand another")
        print("err", file=sys.stderr)
        return Response("printed")

    async def missing(self, request):
        from workers import fetch
        await fetch("http://elsewhere/")

    async def rpc(self, request):
        await self.stub("one").increment()

    async def badid(self, request):
        try:
            self.env.THING.idFromString("zz")
        except ValueError as error:
            return Response("refused")
'''


class Driver(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = harness.app({"src/index.py": APP})
        cls.host = harness.load(directory, classes=["Thing"], bindings={"THING": 0}, runners=2)

    @classmethod
    def tearDownClass(cls):
        cls.host.stop()

    def get(self, path, *args, **more):
        return self.host.request("GET", "/" + path, *args, **more)

    def text(self, path, **more):
        event = self.get(path, **more)
        self.assertEqual((event.status, event.aborted), (200, None), event.content)
        return event.content.decode()

    def test_an_entrypoint_answers_in_one_step(self):
        event = self.get("hello")
        self.assertEqual((event.status, event.content, event.steps), (200, b"hello", 1))
        self.assertEqual(event.header("content-type"), ["text/plain;charset=UTF-8"])

    def test_a_waiting_event_takes_two_steps_and_forwards_the_response(self):
        event = self.host.request("POST", "/forward", body=b"\x00\xff")
        self.assertEqual(event.content, b"\x00\xff")
        self.assertIsNotNone(event.forwarded)
        self.assertEqual(event.steps, 2)
        self.assertEqual(event.header("x-method"), ["POST"])
        self.assertEqual(event.header("x-in"), ["yes"])
        self.assertEqual(event.header("x-name"), ["one"])

    def test_a_request_made_of_another_keeps_its_parts(self):
        event = self.host.request("PUT", "/same", [("x-in", "kept")], b"body")
        self.assertEqual((event.content, event.header("x-in")), (b"body", ["kept"]))

    def test_nested_coroutines_wait_for_a_stub(self):
        self.assertEqual(self.text("nested"), "deep")

    def test_gathered_stubs_run_side_by_side(self):
        self.assertEqual(json.loads(self.text("gather")), [f"g{i}" for i in range(10)])

    def test_a_task_group_works(self):
        self.assertEqual(json.loads(self.text("group")), [0, 1, 2])

    def test_asyncio_sleep_and_stubs_mix(self):
        self.assertEqual(self.text("sleep"), "after")

    def test_a_timeout_cancels_what_it_guards(self):
        self.assertEqual(self.text("timeout"), "timed out")

    def test_a_task_is_current(self):
        self.assertEqual(self.text("running"), "Task")

    def test_streams_over_sockets_work(self):
        self.assertEqual(self.text("socket"), "500000")

    def test_an_executor_thread_has_no_object(self):
        self.assertEqual(self.text("executor"), "None")

    def test_a_thread_with_the_objects_context_is_refused_its_storage(self):
        self.assertEqual(self.text("thread", obj=self.host.named("t")), "NoObject")

    def test_one_that_never_waits_lets_others_between(self):
        event = self.get("spin")
        self.assertGreater(event.steps, 2)

    def test_the_object_is_current_after_an_await(self):
        self.assertEqual(self.text("who", obj=self.host.named("w")), "True")

    def test_a_lock_of_an_object_is_shared_by_its_events(self):
        obj = self.host.named("locked")
        events = [self.get("critical", obj=obj, wait=False) for _ in range(3)]
        self.host.run(*events)
        longest = max((json.loads(e.content) for e in events), key=len)
        self.assertEqual(longest, ["in", "out"] * 3)

    def test_one_event_of_an_object_wakes_another(self):
        obj = self.host.named("talk")
        waiting = self.get("listen", obj=obj, wait=False)
        deadline = time.monotonic() + 5
        while waiting.phase != "suspended" and time.monotonic() < deadline:
            time.sleep(0.005)
        self.assertEqual(self.text("tell", obj=obj), "1")
        self.host.run(waiting)
        self.assertEqual(waiting.content, b"told")

    def test_an_object_whose_storage_failed_begins_anew_from_disk(self):
        import _durabled

        obj = self.host.named("broken")
        self.addCleanup(setattr, _durabled, "breaking", False)
        self.assertEqual(self.text("count", obj=obj), "1")
        self.assertEqual(self.get("sorry", obj=obj).status, 500)
        self.assertEqual(self.text("count", obj=obj), "2", "an error of the app is no reason")
        _durabled.breaking = True
        self.assertEqual(self.text("count", obj=obj), "3", "nor is one that it coped with")
        self.assertEqual(self.get("sorry", obj=obj).status, 500)
        _durabled.breaking = False
        self.assertEqual(self.text("count", obj=obj), "1")
        _durabled.breaking = True
        self.assertEqual(self.get("boom", obj=obj).status, 500)
        _durabled.breaking = False
        self.assertEqual(self.text("count", obj=obj), "1")

    def test_an_error_has_its_traceback_in_development(self):
        event = self.get("raises")
        body = json.loads(event.content)
        self.assertEqual((event.status, body["request_id"]), (500, event.id))
        self.assertIn("KeyError", body["message"])
        self.assertTrue(any("in raises" in line for line in body["traceback"]))

    def test_an_error_as_html_is_escaped(self):
        event = self.get("raises", [("Accept", "text/html,*/*")])
        self.assertEqual(event.header("content-type"), ["text/html; charset=utf-8"])
        self.assertNotIn(b"<script>", event.content)
        self.assertIn(b"&lt;script&gt;", event.content)

    def test_an_error_in_production_says_nothing_but_its_id(self):
        from durabled_host import current

        current.app.development = False
        try:
            event = self.get("raises")
        finally:
            current.app.development = True
        self.assertEqual(event.status, 500)
        self.assertNotIn(b"KeyError", event.content)
        self.assertIn(event.id.encode(), event.content)

    def test_sys_exit_is_an_error_of_the_event_alone(self):
        self.assertEqual(self.get("exits").status, 500)
        self.assertEqual(self.text("hello"), "hello")

    def test_a_missing_return_is_named(self):
        event = self.get("nothing")
        self.assertEqual(event.status, 500)
        self.assertIn("is a return missing?", json.loads(event.content)["message"])

    def test_an_error_in_an_object_is_its_callers_500(self):
        self.assertEqual(self.text("stubboom"), "500")

    def test_cancelling_cleans_up(self):
        import durabled_host

        event = self.get("forever", wait=False)
        deadline = time.monotonic() + 5
        while event.phase != "suspended" and time.monotonic() < deadline:
            time.sleep(0.005)
        event.cancelled = True
        durabled_host.cancel(event)
        self.host.run(event)
        self.assertEqual(event.aborted[0], 503)
        self.assertIn("cleaned up", sys.modules["index"].ended)

    def test_wait_until_outlives_the_response_and_keeps_the_event(self):
        event = self.get("later", wait=False)
        deadline = time.monotonic() + 5
        while not event.ended and time.monotonic() < deadline:
            time.sleep(0.002)
        self.assertEqual(event.content, b"now")
        self.assertNotIn("later", sys.modules["index"].ended)
        self.assertFalse(event.done.is_set())
        event.done.wait(5)
        self.assertIn("later", sys.modules["index"].ended)

    def test_several_cookies_survive_a_forwarded_response(self):
        self.assertEqual(self.get("cookies").header("set-cookie"), ["a=1", "b=2"])

    def test_a_changed_response_of_a_stub_keeps_body_and_cookies(self):
        event = self.get("changed")
        self.assertEqual(event.header("set-cookie"), ["a=1", "b=2"])
        self.assertEqual((event.header("x-more"), event.content), (["1"], b"c"))

    def test_output_is_logged_line_by_line(self):
        import _durabled

        out, err = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self.host.streams
        try:
            self.text("prints")
        finally:
            sys.stdout, sys.stderr = out, err
        lines = [(level, text) for level, _, text in _durabled.logged]
        self.assertIn((6, "half a line"), lines)
        self.assertIn((6, "and another"), lines)
        self.assertIn((4, "err"), lines)

    def test_what_is_not_there_says_so(self):
        for path, name in (("missing", "fetch()"), ("rpc", "RPC")):
            message = json.loads(self.get(path).content)["message"]
            self.assertIn("NotSupported", message)
            self.assertIn(name, message)

    def test_a_wrong_id_is_refused(self):
        self.assertEqual(self.text("badid"), "refused")

    def test_no_loop_is_left_running_or_growing(self):
        from durabled_host import driver

        for _ in range(50):
            self.get("forward")
        self.assertLessEqual(len(driver._spare), 4)
        obj = self.host.named("one")
        self.assertEqual(obj.data["durabled.loop"].calls, [])
        self.assertEqual(obj.data["durabled.loop"].runs, set())


if __name__ == "__main__":
    unittest.main()
