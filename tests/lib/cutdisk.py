# SPDX-License-Identifier: Apache-2.0
"""A disk with a volatile cache, whose power can be cut at any moment: an NBD server that remembers.

A write that was answered is in the cache. A flush makes those writes lasting that were answered
before it was asked for, and no others: what was still under way may be lost. Everything is kept in
the order in which it was done, so that one run gives as many power cuts as are wanted: image()
makes the disk of a moment, with each write that no flush had covered dropped, kept, or torn into
sectors by chance.
"""

import os
import select
import shutil
import socket
import struct
import threading
import time

SECTOR = 512
FLUSH_SECONDS = 0.03  # as a slow disk has it: what answers too early is seen
GREETING = b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 3)
REPLY_MAGIC = 0x3E889045565A9
ANSWER_MAGIC = 0x67446698
REP_ACK, REP_INFO, REP_UNSUPPORTED = 1, 3, 0x80000001
OPT_ABORT, OPT_GO = 2, 7
READ, WRITE, DISCONNECT, FLUSH = range(4)
FLAGS = 1 | 4 | 8  # flags are valid, flushes, writes with FUA
FUA = 1
DROP, KEEP, SOME, TORN = "drop", "keep", "some", "torn"
MODES = DROP, KEEP, SOME, TORN


class CutDisk:
    """
    Serves the raw image `base` at the Unix socket `path`; the image itself stays as it is.
    on_write(offset, data, position) is called for writes at `notes` and beyond.
    """

    def __init__(self, base, path, notes, on_write):
        self.base, self.notes, self.on_write = base, notes, on_write
        self.size = os.path.getsize(base)
        self.log = []  # (offset, data, fua) or, for a flush, the number of entries it covers
        self.blocks = {}  # what was written, by sector
        self.answered = 0
        self.file = os.open(base, os.O_RDONLY)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.error = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def close(self):
        self.listener.close()
        self.thread.join(30)
        os.close(self.file)
        if self.error:
            raise self.error

    def run(self):
        try:
            link, _ = self.listener.accept()
            with link:
                self.greet(link)
                self.serve(link)
        except (ConnectionError, EOFError):
            pass  # killed
        except Exception as error:
            self.error = error

    @staticmethod
    def take(link, size):
        data = b""
        while len(data) < size:
            more = link.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def greet(self, link):
        link.sendall(GREETING)
        self.take(link, 4)
        while True:
            _, option, size = struct.unpack(">8sII", self.take(link, 16))
            self.take(link, size)

            def reply(kind, data=b""):
                link.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

            if option == OPT_GO:
                reply(REP_INFO, struct.pack(">HQH", 0, self.size, FLAGS))
                reply(REP_ACK)
                return
            if option == OPT_ABORT:
                reply(REP_ACK)
                raise EOFError
            reply(REP_UNSUPPORTED)

    @staticmethod
    def split(data):
        """The whole requests at the beginning of data, and the rest."""
        requests, at = [], 0
        while len(data) - at >= 28:
            _, flags, kind, handle, offset, size = struct.unpack_from(">IHH8sQI", data, at)
            end = at + 28 + (size if kind == WRITE else 0)
            if end > len(data):
                break
            requests.append((kind, flags, handle, offset, size, bytes(data[at + 28:end])))
            at = end
        return requests, data[at:]

    def serve(self, link):
        waiting, flushes = bytearray(), []  # (when it is done, handle, entries it covers)
        while True:
            pause = max(0, flushes[0][0] - time.monotonic()) if flushes else None
            if select.select([link], [], [], pause)[0]:
                more = link.recv(1 << 20)
                if not more:
                    return
                waiting += more
                requests, waiting = self.split(waiting)
                answered = self.answered
                for request in requests:
                    if request[0] == FLUSH:
                        flushes.append((time.monotonic() + FLUSH_SECONDS, request[2], answered))
                    elif request[0] == DISCONNECT:
                        return
                    else:
                        self.serve_one(link, *request)
            while flushes and flushes[0][0] <= time.monotonic():
                _, handle, covered = flushes.pop(0)
                self.log.append(covered)
                self.answer(link, handle)

    def answer(self, link, handle, data=b""):
        link.sendall(struct.pack(">II8s", ANSWER_MAGIC, 0, handle) + data)
        self.answered = len(self.log)

    def serve_one(self, link, kind, flags, handle, offset, size, data):
        answer = b""
        if kind == READ:
            answer = self.read(offset, size)
        else:
            self.write(offset, data, bool(flags & FUA))
        self.answer(link, handle, answer)

    def read(self, offset, size):
        data = bytearray(os.pread(self.file, size, offset))
        data += bytes(size - len(data))
        first = offset // SECTOR
        for sector in range(first, first + size // SECTOR):
            written = self.blocks.get(sector)
            if written is not None:
                at = (sector - first) * SECTOR
                data[at:at + SECTOR] = written
        return bytes(data)

    def write(self, offset, data, fua):
        zeros = bytes(SECTOR)
        for at in range(0, len(data), SECTOR):
            part = data[at:at + SECTOR]
            self.blocks[(offset + at) // SECTOR] = zeros if part == zeros else part
        if offset >= self.notes:
            self.on_write(offset, data, len(self.log))
        self.log.append((offset, data, fua))

    def covered(self, position):
        """The number of entries that the last flush before position covers."""
        flushes = [entry for entry in self.log[:position] if isinstance(entry, int)]
        return max(flushes, default=0)

    def image(self, path, position, mode, chance):
        """The disk as it is found when the power goes before the log's entry `position`."""
        shutil.copyfile(self.base, path)
        covered, loose = self.covered(position), 0
        with open(path, "r+b", buffering=0) as out:
            for index, entry in enumerate(self.log[:position]):
                if isinstance(entry, int):
                    continue
                offset, data, fua = entry
                if index < covered or fua:
                    os.pwrite(out.fileno(), data, offset)
                    continue
                loose += 1
                if mode == KEEP or (mode == SOME and chance.random() < 0.5):
                    os.pwrite(out.fileno(), data, offset)
                elif mode == TORN:
                    for at in range(0, len(data), SECTOR):
                        if chance.random() < 0.5:
                            os.pwrite(out.fileno(), data[at:at + SECTOR], offset + at)
        return loose
