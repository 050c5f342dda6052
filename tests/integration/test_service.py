# SPDX-License-Identifier: Apache-2.0
"""durabled as a service: the guard, limits, drain, death and respawn of its processes."""

import os
import shutil
import signal
import socket
import sqlite3
import tempfile
import threading
import time
import unittest

from daemon import Service

MAIN = '''
import asyncio
import time

from workers import DurableObject, Response, WorkerEntrypoint


class Thing(DurableObject):
    """Counts in its database; sleeps and dies on request."""

    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec("CREATE TABLE IF NOT EXISTS log(n INTEGER PRIMARY KEY)")

    async def fetch(self, request):
        action = request.url.rsplit("/", 1)[1]
        if action == "sleep":
            time.sleep(1.5)
        elif action == "doze":
            await asyncio.sleep(1.0)
        elif action == "add":
            self.sql.exec("INSERT INTO log DEFAULT VALUES")
        elif action == "echo":
            return Response(await request.text())
        elif action == "die":
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        count = self.sql.exec("SELECT count(*) FROM log").raw().toArray().to_py()[0][0]
        return Response(str(count), headers={"X-Var": self.env.GREETING})


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        parts = request.url.split("/", 5)
        if parts[3] == "__secret__":
            return Response("managed")
        return await self.env.THING.get(self.env.THING.idFromName(parts[3])).fetch(request)
'''
MANIFEST = """{
  "name": "things", "main": "src/index.py", "compatibility_date": "2026-01-01",
  "durable_objects": {"bindings": [{"name": "THING", "class_name": "Thing"}]},
  "migrations": [{"tag": "v1", "new_sqlite_classes": ["Thing"]}],
  "vars": {"GREETING": "hello"}
}
"""


class ServiceCase(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="durabled-project-", dir="/tmp")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.mkdir(os.path.join(self.folder, "src"))
        for name, text in (("wrangler.jsonc", MANIFEST), ("src/index.py", MAIN)):
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
                file.write(text)

    def service(self, settings="", workers=2):
        return Service(self.folder, settings, workers=workers)

    def until_answer(self, daemon, path, seconds=20):
        end = time.monotonic() + seconds
        while True:
            try:
                answer = daemon.get(path)
                if answer.status == 200:
                    return answer
            except OSError:
                pass
            self.assertLess(time.monotonic(), end, "the service does not come back")
            time.sleep(0.1)


class Guard(ServiceCase):
    def test_management_endpoints_need_the_admin_token(self):
        with self.service() as daemon:
            self.assertEqual(daemon.get("/__secret__/").status, 401)
            self.assertEqual(daemon.get("/%5f_secret_%5F/").status, 401)
            self.assertEqual(daemon.get("/x/__run_migrations__/").status, 401)
            wrong = {"Authorization": "Bearer " + "0" * len(daemon.token())}
            self.assertEqual(daemon.get("/__secret__/", wrong).status, 403)
            right = {"Authorization": "Bearer " + daemon.token()}
            self.assertEqual(daemon.get("/__secret__/", right).text, "managed")
            self.assertEqual(os.stat(daemon.state + "/admin-token").st_mode & 0o777, 0o600)

    def test_headers_of_our_own_are_refused_from_outside(self):
        with self.service() as daemon:
            answer = daemon.get("/one/count", {"X-Durabled-Object": "0" * 64})
            self.assertEqual(answer.status, 400)

    def test_vars_of_the_manifest_reach_the_app_and_vars_of_the_host_come_first(self):
        vars_file = os.path.join(self.folder, "vars")
        with self.service() as daemon:
            self.assertEqual(daemon.get("/one/count").headers["X-Var"], "hello")
        with open(vars_file, "w", encoding="utf-8") as file:
            file.write("GREETING=from the host\n")
        with self.service(f"vars_file={vars_file}\n") as daemon:
            self.assertEqual(daemon.get("/one/count").headers["X-Var"], "from the host")


class Limits(ServiceCase):
    def test_a_body_beyond_the_limit_is_413_and_one_at_the_limit_is_taken(self):
        with self.service("[http]\nbody_max=2M\n") as daemon:
            client = daemon.client()
            body = b"x" * (2 << 20)
            self.assertEqual(client.request("POST", "/one/echo", body).body, body)
            client = daemon.client()
            self.assertEqual(client.request("POST", "/one/echo", body + b"y").status, 413)

    def test_a_full_mailbox_says_503_and_when_to_come_again(self):
        with self.service("[objects]\nmailbox_max=4\n", workers=1) as daemon:
            self.assertEqual(daemon.get("/one/count").status, 200)
            answers = []

            def ask():
                answers.append(daemon.get("/one/sleep"))

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
                time.sleep(0.05)
            for thread in threads:
                thread.join()
            refused = [answer for answer in answers if answer.status == 503]
            # One executes, four wait.
            self.assertEqual(len(refused), 3)
            self.assertTrue(all(int(answer.headers["Retry-After"]) >= 1 for answer in refused))
            self.assertEqual(sum(answer.status == 200 for answer in answers), 5)

    def test_one_event_of_an_object_executes_at_a_time_and_awaits_interleave(self):
        with self.service() as daemon:
            daemon.get("/one/count")
            begun = time.monotonic()
            threads = [threading.Thread(target=daemon.get, args=("/one/doze",)) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertLess(time.monotonic() - begun, 4.0, "awaiting events wait for each other")

    def test_more_objects_than_stay_open_are_all_served(self):
        with self.service("[objects]\nobjects_max=10\n") as daemon:
            client = daemon.client()
            for _ in range(2):
                for number in range(100):
                    client.get(f"/object-{number}/add")
            for number in range(100):
                self.assertEqual(client.get(f"/object-{number}/count").text, "2")
            self.assertLessEqual(daemon.sum_of("objects", "open"), 20)
            self.assertGreater(daemon.sum_of("objects", "evicted"), 100)


class Processes(ServiceCase):
    def test_a_worker_that_dies_is_replaced_and_what_was_answered_is_kept(self):
        with self.service() as daemon:
            for number in range(20):
                self.assertEqual(daemon.get("/one/add").text, str(number + 1))
            try:
                # A worker in between answers for the dead one; else the connection breaks.
                self.assertGreaterEqual(daemon.get("/one/die").status, 500)
            except OSError:
                pass
            self.assertEqual(self.until_answer(daemon, "/one/count").text, "20")

    def test_a_stop_lets_requests_in_flight_end(self):
        with self.service() as daemon:
            daemon.get("/one/count")
            answers = []
            thread = threading.Thread(target=lambda: answers.append(daemon.get("/one/sleep")))
            thread.start()
            time.sleep(0.5)
            daemon.process.send_signal(signal.SIGTERM)
            thread.join()
            self.assertEqual([answer.status for answer in answers], [200])
            self.assertEqual(daemon.process.wait(20), 0)

    def test_a_reload_serves_new_code_and_refuses_nobody(self):
        with self.service() as daemon:
            stop, wrong, seen = threading.Event(), [], [0]

            def ask():
                while not stop.is_set():
                    try:
                        answer = daemon.get("/one/count")
                        seen[0] += 1
                        if answer.status != 200:
                            wrong.append((answer.status, answer.text))
                    except OSError as error:
                        wrong.append(repr(error))

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            with open(os.path.join(self.folder, "src/index.py"), "w", encoding="utf-8") as file:
                file.write(MAIN.replace("return Response(str(count)", "return Response('v2'"))
            daemon.process.send_signal(signal.SIGHUP)
            end = time.monotonic() + 20
            while daemon.get("/one/count").text != "v2" and time.monotonic() < end:
                time.sleep(0.1)
            time.sleep(0.5)
            stop.set()
            for thread in threads:
                thread.join()
            self.assertEqual(wrong[:5], [])
            self.assertGreater(seen[0], 50)
            self.assertEqual(daemon.get("/one/count").text, "v2")

    def test_the_workers_end_when_the_supervisor_is_killed_and_a_new_one_takes_over(self):
        with self.service() as daemon:
            daemon.get("/one/add")
            pids = [worker["pid"] for worker in daemon.all_workers()]
            daemon.process.kill()
            daemon.process.wait()
            end = time.monotonic() + 20
            while any(os.path.exists(f"/proc/{pid}") for pid in pids):
                self.assertLess(time.monotonic(), end, "workers outlive their supervisor")
                time.sleep(0.1)
            daemon.start()
            self.assertEqual(daemon.get("/one/count").text, "1")

    def test_another_number_of_workers_finds_what_the_journals_of_the_old_ones_hold(self):
        with self.service(workers=2) as daemon:
            for workers in (1, 3, 2):
                client = daemon.client()
                before = [int(client.get(f"/object-{n}/count").text) for n in range(16)]
                for number in range(16):
                    answer = client.get(f"/object-{number}/add")
                    self.assertEqual(answer.text, str(before[number] + 1))
                client.close()
                pids = [worker["pid"] for worker in daemon.all_workers()]
                # Workers and supervisor at once: the journals are left as they are.
                for pid in [daemon.process.pid, *pids]:
                    os.kill(pid, signal.SIGKILL)
                daemon.process.wait()
                while any(os.path.exists(f"/proc/{pid}") for pid in pids):
                    time.sleep(0.05)
                daemon.output.close()
                daemon.workers = workers
                daemon.start()
                client = daemon.client()
                for number in range(16):
                    answer = client.get(f"/object-{number}/count")
                    self.assertEqual(answer.text, str(before[number] + 1))
                client.close()
            self.assertIn("had another number of workers", daemon.read_output())

    def test_a_database_is_locked_for_others_while_it_is_served_and_whole_after_a_stop(self):
        with self.service(workers=1) as daemon:
            for _ in range(5):
                daemon.get("/one/add")
            found = [
                os.path.join(folder, name)
                for folder, _, names in os.walk(daemon.state + "/objects")
                for name in names
                if not name.startswith(".journal-")
            ]
            self.assertEqual([name[-7:] for name in found], [".sqlite"])
            with self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
                sqlite3.connect(found[0], timeout=0.1).execute("SELECT * FROM log")
            self.assertEqual(daemon.stop(), 0)
            rows = sqlite3.connect(found[0]).execute("SELECT count(*) FROM log").fetchone()
            self.assertEqual(rows, (5,))

    def test_a_request_in_bytes_a_slow_client_sends_holds_nobody_up(self):
        with self.service(workers=1) as daemon:
            slow = socket.create_connection(("127.0.0.1", daemon.port))
            slow.sendall(b"POST /one/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
            begun = time.monotonic()
            for _ in range(20):
                self.assertEqual(daemon.get("/one/count").status, 200)
            self.assertLess(time.monotonic() - begun, 5)
            slow.sendall(b"67890")
            self.assertIn(b"1234567890", slow.recv(4096))
            slow.close()


if __name__ == "__main__":
    unittest.main()
