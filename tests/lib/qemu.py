# SPDX-License-Identifier: Apache-2.0
"""Debian's own kernel in qemu, without KVM and without privileges.

The cloud kernel of this Debian release is fetched once (apt-get download; unpacked, never
installed) into a cache. What runs inside is an initramfs that the test puts together.
"""

import gzip
import lzma
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile

PACKAGE = "linux-image-cloud-amd64"
PROGRAMS = "qemu-system-x86_64", "apt-get", "dpkg-deb"
COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on"


class Unavailable(Exception):
    """Why there can be no virtual machine here."""


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False,
                          **options)


def kernel_package():
    """The package that holds the kernel itself: linux-image-6.1.0-40-cloud-amd64."""
    found = re.search(r"Depends: (linux-image-\d\S*)", run("apt-cache", "depends", PACKAGE).stdout)
    if not found:
        raise Unavailable(f"apt knows no {PACKAGE}")
    return found[1]


def module_needs(content):
    """The modules that must be loaded before one."""
    found = re.search(rb"\0depends=([^\0]*)\0", content)
    return [name for name in (found[1].decode() if found else "").split(",") if name]


class Kernel:
    """An unpacked kernel package: the image, and modules by name."""

    def __init__(self, folder):
        self.image = next(pathlib.Path(folder, "boot").glob("vmlinuz-*"))
        modules = pathlib.Path(folder, "lib/modules")
        self.files = {
            file.name.partition(".")[0].replace("-", "_"): file
            for file in modules.glob("*/kernel/**/*.ko*")
        }

    def modules(self, names):
        """(name, content) of the modules with those that they need, in the order of loading."""
        done = {}

        def add(name):
            name = name.replace("-", "_")
            # What is not there is built in.
            if name in done or name not in self.files:
                return
            file = self.files[name]
            content = file.read_bytes()
            if file.suffix == ".xz":
                content = lzma.decompress(content)
            for needed in module_needs(content):
                add(needed)
            done[name] = content

        for name in names:
            add(name)
        return list(done.items())


def fetch_kernel():
    if os.uname().machine != "x86_64":
        raise Unavailable("made for x86_64")
    for program in PROGRAMS:
        if not shutil.which(program):
            raise Unavailable(f"{program} is not installed")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = pathlib.Path(base, "durabled-tests")
    cache.mkdir(parents=True, exist_ok=True)
    package = kernel_package()
    target = cache / package
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            os.chmod(folder, 0o755)
            done = run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package,
                       cwd=folder)
            files = list(pathlib.Path(folder).glob("*.deb"))
            if done.returncode or not files:
                raise Unavailable(
                    f"{package} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
            subprocess.run(["dpkg-deb", "-x", files[0], folder + "/x"], check=True)
            os.rename(folder + "/x", target)
    return Kernel(target)


def libraries(program):
    """The files that the dynamic linker needs, under the names that it looks for."""
    found = set(re.findall(r"(/\S+) \(0x", run("ldd", program).stdout))
    if not found:
        raise RuntimeError(f"ldd says nothing of {program}")
    return sorted(found)


class Initramfs:
    """A cpio archive in the newc format; device nodes need no privileges this way."""

    def __init__(self):
        self.data, self.names, self.number = bytearray(), set(), 0
        self.folder("dev")
        self.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        self.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))

    def add(self, name, mode, content=b"", device=(0, 0)):
        self.number += 1
        self.names.add(name)
        encoded = name.encode() + b"\0"
        fields = (self.number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        self.data += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self.data += b"\0" * (-len(self.data) % 4) + content
        self.data += b"\0" * (-len(self.data) % 4)

    def folder(self, name):
        if name and name not in self.names:
            self.folder(os.path.dirname(name))
            self.add(name, stat.S_IFDIR | 0o755)

    def content(self, name, content, mode=0o755):
        name = name.lstrip("/")
        if name not in self.names:
            self.folder(os.path.dirname(name))
            self.add(name, stat.S_IFREG | mode, content)

    def file(self, name, source):
        self.content(name, pathlib.Path(source).read_bytes())

    def program(self, name, source):
        """An executable and the libraries that it is linked to."""
        self.file(name, source)
        for library in libraries(source):
            self.file(library, os.path.realpath(library))

    def tree(self, name, source, skip=()):
        for folder, folders, files in os.walk(source):
            folders[:] = sorted(each for each in folders if each not in skip)
            below = os.path.normpath(os.path.join(name, os.path.relpath(folder, source)))
            for each in sorted(files):
                self.file(os.path.join(below, each), os.path.join(folder, each))

    def write(self, path, compressed=True):
        self.add("TRAILER!!!", 0)
        data = bytes(self.data)
        path.write_bytes(gzip.compress(data, 6) if compressed else data)


def command(kernel, initramfs, memory=512, options=()):
    return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(memory), "-smp", "2",
            "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel.image),
            "-initrd", str(initramfs), "-append", COMMAND_LINE, *options]
