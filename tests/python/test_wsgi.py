# SPDX-License-Identifier: Apache-2.0
"""The WSGI adapter, and the classes of `workers` and `js` around it."""

import asyncio
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402

APP = '''
import asyncio, json, sqlite3, time
from workers import DurableObject, Response, WorkerEntrypoint, wsgi, handler

closed = []

class Body:
    def __init__(self, chunks, fail=False):
        self.chunks = iter(chunks)
        self.fail = fail
    def __iter__(self):
        for chunk in self.chunks:
            yield chunk
        if self.fail:
            raise ValueError("midway")
    def close(self):
        closed.append(True)

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/environ":
        shown = {k: v for k, v in environ.items() if isinstance(v, (str, bool, tuple))}
        shown["input"] = environ["wsgi.input"].read().decode()
        try:
            asyncio.get_running_loop()
            shown["loop"] = True
        except RuntimeError:
            shown["loop"] = False
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(shown).encode()]
    if path == "/cookies":
        cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        start_response("200 OK", [*cookies, ("Content-Length", "2")])
        return [b"o", b"k"]
    if path == "/stream":
        start_response("206 Partial", [("Content-Length", "6")])
        return Body([b"ab", b"", b"cd", b"ef"])
    if path == "/late":
        def late():
            start_response("201 Created", [])
            yield b"first"
            yield b"second"
        return late()
    if path == "/midway":
        start_response("200 OK", [])
        return Body([b"a", b"b"], fail=True)
    if path == "/slow":
        start_response("200 OK", [])
        def slow():
            for i in range(4):
                time.sleep(0.03)
                yield b"x"
        return slow()
    if path == "/write":
        write = start_response("200 OK", [])
        write(b"one ")
        return [b"two"]
    if path == "/none":
        start_response("304 Not Modified", [("ETag", "x")])
        return []
    if path == "/full":
        raise sqlite3.OperationalError("database or disk is full")
    if path == "/enospc":
        raise OSError(28, "No space left on device")
    if path in ("/sorry", "/handled"):
        status = "500 Sorry" if path == "/sorry" else "200 OK"
        start_response(status, [("X-Framework", "yes")])
        return Body([b"the framework's own page"])
    if path == "/silent":
        return [b"x"]
    if path == "/badheader":
        start_response("200 OK", [("X-Bad", "a\\r\\nInjected: 1")])
        return [b"x"]
    start_response("404 Not Found", [])
    return [path.encode("latin-1")]

class Thing(DurableObject):
    async def fetch(self, request):
        return await wsgi.fetch(application, request, self.env)

@handler
async def on_fetch(request, env):
    return Response.json({"type": type(request).__name__, "var": env.GREETING,
        "deep": env.DEEP.a.b, "headers": [n for n in request.headers if n == "x-a"]})
'''


class Wsgi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = harness.load(
            harness.app({"src/worker.py": APP}),
            "src/worker.py",
            classes=["Thing"],
            bindings={"THING": 0},
            env={"GREETING": "hello", "DEEP": {"a": {"b": 7}}},
        )
        cls.object = cls.host.named("wsgi")

    @classmethod
    def tearDownClass(cls):
        cls.host.stop()

    def request(self, path, method="GET", headers=(), body=b""):
        return self.host.request(method, path, headers, body, obj=self.object)

    def environ(self, path="/environ", **more):
        return json.loads(self.request(path, **more).content)

    def test_the_environ_is_as_pep_3333_has_it(self):
        found = self.environ(
            "/environ?a=%20b&c",
            method="POST",
            headers=[
                ("Host", "localhost:8787"),
                ("Content-Type", "text/x"),
                ("Content-Length", "4"),
                ("X-Two", "1"),
                ("X-Two", "2"),
                ("Cookie", "a=1"),
                ("Cookie", "b=2"),
                ("X_Forwarded_For", "evil"),
                ("Proxy", "evil"),
            ],
            body=b"body",
        )
        expected = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/environ",
            "QUERY_STRING": "a=%20b&c",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8787",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_PORT": "40000",
            "CONTENT_TYPE": "text/x",
            "CONTENT_LENGTH": "4",
            "HTTP_HOST": "localhost:8787",
            "HTTP_X_TWO": "1,2",
            "HTTP_COOKIE": "a=1; b=2",
            "wsgi.url_scheme": "http",
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.version": [1, 0],
            "input": "body",
        }
        self.assertEqual({k: found.get(k) for k in expected}, expected)
        self.assertNotIn("HTTP_PROXY", found)
        self.assertNotIn("HTTP_X_FORWARDED_FOR", found)
        self.assertNotIn("HTTP_CONTENT_LENGTH", found)

    def refusing(self):
        """From now on a write of each step has had no room."""
        import _durabled

        _durabled.refusing = True
        self.addCleanup(setattr, _durabled, "refusing", False)

    def test_a_page_of_the_applications_own_for_a_write_without_room_becomes_507(self):
        event = self.request("/sorry")
        self.assertEqual((event.status, event.content), (500, b"the framework's own page"))
        self.refusing()
        closed = sys.modules["worker"].closed
        closed.clear()
        event = self.request("/sorry")
        self.assertEqual(event.status, 507)
        self.assertEqual(json.loads(event.content)["error"], "Insufficient Storage")
        self.assertEqual(event.header("x-framework"), [])
        self.assertEqual(closed, [True], "the page that is not sent is closed")
        event = self.request("/sorry", headers=[("Accept", "text/html")])
        self.assertIn(b"<h1>Insufficient Storage</h1>", event.content)

    def test_an_application_that_copes_with_a_write_without_room_keeps_its_answer(self):
        self.refusing()
        event = self.request("/handled")
        self.assertEqual((event.status, event.content), (200, b"the framework's own page"))

    def test_an_error_that_tells_of_a_full_disk_is_507(self):
        for path in ("/full", "/enospc"):
            self.assertEqual(self.request(path).status, 507, path)

    def test_an_application_never_sees_a_running_loop(self):
        self.assertIs(self.environ()["loop"], False)

    def test_the_path_is_decoded_to_bytes_in_latin_1(self):
        event = self.request("/gr%C3%BC%2F%ff")
        self.assertEqual(event.content, b"/gr\xc3\xbc/\xff")

    def test_several_cookies_stay_several(self):
        event = self.request("/cookies")
        self.assertEqual(event.header("set-cookie"), ["a=1", "b=2"])
        self.assertEqual(event.content, b"ok")
        self.assertEqual(event.header("content-length"), [], "the edge sets the length")

    def test_a_stream_is_pulled_and_closed(self):
        closed = sys.modules["worker"].closed
        closed.clear()
        event = self.request("/stream")
        self.assertEqual((event.status, event.content), (206, b"abcdef"))
        self.assertEqual([c for c in event.chunks if c], [b"ab", b"cd", b"ef"])
        self.assertEqual(closed, [True])

    def test_start_response_may_come_with_the_first_chunk(self):
        event = self.request("/late")
        self.assertEqual((event.status, event.content), (201, b"firstsecond"))

    def test_an_error_midway_breaks_the_response_off_and_closes(self):
        closed = sys.modules["worker"].closed
        closed.clear()
        event = self.request("/midway")
        self.assertFalse(event.ended)
        self.assertEqual(event.aborted[0], 500)
        self.assertEqual(closed, [True])

    def test_a_slow_stream_takes_several_steps(self):
        event = self.request("/slow")
        self.assertEqual(event.content, b"xxxx")
        self.assertGreater(event.steps, 1)

    def test_a_stream_stops_when_its_client_is_gone(self):
        closed = sys.modules["worker"].closed
        closed.clear()
        event = self.request("/stream", method="HEAD")
        self.assertEqual(event.status, 206)
        event = self.host.request("GET", "/stream", obj=self.object, wait=False)
        event.cancelled = True
        kind, queued = self.host.queue.get(1)
        self.host.step(kind, queued)
        self.assertFalse(event.ended)
        self.assertEqual(len(closed), 2)

    def test_written_data_comes_first(self):
        self.assertEqual(self.request("/write").content, b"one two")

    def test_a_304_has_no_body(self):
        event = self.request("/none")
        self.assertEqual((event.status, event.content), (304, b""))
        self.assertEqual(event.header("etag"), ["x"])

    def test_an_application_that_says_nothing_is_an_error(self):
        event = self.request("/silent")
        self.assertEqual(event.status, 500)
        self.assertIn(b"start_response", event.content)

    def test_a_line_break_in_a_header_is_refused(self):
        event = self.request("/badheader")
        self.assertEqual(event.status, 500)
        self.assertEqual(event.header("injected"), [])

    def test_on_fetch_with_handler_gets_the_sdks_request_and_the_variables(self):
        event = self.host.request("GET", "/", [("x-a", "1")])
        self.assertEqual(
            json.loads(event.content),
            {"type": "Request", "var": "hello", "deep": 7, "headers": ["x-a"]},
        )


class Classes(unittest.TestCase):
    """After Wsgi in this file: the modules are loaded by then or load here."""

    def run_sync(self, coroutine):
        return asyncio.run(coroutine)

    def test_a_response_takes_str_bytes_and_none(self):
        from workers import Response

        self.assertEqual(self.run_sync(Response("ä").bytes()), "ä".encode())
        self.assertEqual(self.run_sync(Response(b"x").text()), "x")
        self.assertEqual(Response(None, 204).status, 204)
        with self.assertRaises(TypeError):
            Response(12)
        with self.assertRaises(TypeError):
            Response("x", 204)
        with self.assertRaises(ValueError):
            Response("x", 99)

    def test_response_json_makes_and_reads(self):
        from workers import Response

        made = Response.json({"a": 1}, status=201)
        self.assertEqual((made.status, made.headers["content-type"]), (201, "application/json"))
        self.assertEqual(self.run_sync(made.json()), {"a": 1})
        with self.assertRaises(TypeError):
            self.run_sync(made.text())

    def test_response_redirect_has_its_location(self):
        from workers import Response

        made = Response.redirect("http://x/", 303)
        self.assertEqual((made.status, made.headers["Location"]), (303, "http://x/"))
        with self.assertRaises(ValueError):
            Response.redirect("http://x/", 200)

    def test_headers_keep_cookies_apart_and_join_the_rest(self):
        from workers import Headers

        found = Headers([("A", "1"), ("a", "2"), ("Set-Cookie", "x"), ("set-cookie", "y")])
        self.assertEqual(found.get("a"), "1, 2")
        self.assertEqual(found.getSetCookie(), ["x", "y"])
        found.set("A", "3")
        self.assertEqual(found.items(), [("A", "3"), ("Set-Cookie", "x"), ("set-cookie", "y")])
        for name, value in (("a b", "x"), ("a", "x\ny"), ("", "x")):
            with self.assertRaises(TypeError):
                Headers([(name, value)])

    def test_js_headers_iterate_pairs_and_set_keeps_other_cookies(self):
        import js

        found = js.Headers.new(js.Object.fromEntries([("X-A", "1"), ("Content-Type", "t")]))
        found.set("Set-Cookie", "a=1; Path=/")
        found.set("Set-Cookie", "b=2")
        found.set("Set-Cookie", "a=3")
        self.assertEqual(list(found.getSetCookie()), ["b=2", "a=3"])
        self.assertIn(["x-a", "1"], list(found))

    def test_js_url_has_its_parts(self):
        import js

        url = js.URL.new("http://localhost:8787/a/b?c=d#e")
        self.assertEqual(
            (url.protocol, url.host, url.port, url.pathname, url.search, url.hash),
            ("http:", "localhost:8787", "8787", "/a/b", "?c=d", "#e"),
        )
        self.assertEqual(js.URL.new("https://x:443").port, "")
        self.assertEqual(js.URL.new("https://x:443").pathname, "/")
        with self.assertRaises(TypeError):
            js.URL.new("/relative")

    def test_what_js_lacks_is_named(self):
        import js
        from durabled_host import NotSupported

        with self.assertRaisesRegex(NotSupported, "js.WebSocketPair"):
            js.WebSocketPair
        self.assertFalse(hasattr(js, "document"))

    def test_a_request_body_is_read_once(self):
        from workers import Request

        request = Request("http://x/", method="post", body="a")
        self.assertEqual((request.method, str(request.method)), ("POST", "POST"))
        copy = request.clone()
        self.assertEqual(self.run_sync(request.text()), "a")
        self.assertTrue(request.body_used)
        with self.assertRaises(TypeError):
            self.run_sync(request.text())
        self.assertEqual(self.run_sync(copy.text()), "a")
        with self.assertRaises(TypeError):
            Request("http://x/", body="a")
        with self.assertRaises(TypeError):
            Request("/relative")


if __name__ == "__main__":
    unittest.main()
