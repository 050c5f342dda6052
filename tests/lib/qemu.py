# SPDX-License-Identifier: Apache-2.0
"""Debian's own kernel in qemu, without KVM and without privileges.

The cloud kernel of this Debian release is fetched once (apt-get download; unpacked, never
installed) into a cache. What runs inside is an initramfs that the test puts together.
"""

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
PYTHON_WITHOUT = {"test", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "tkinter", "turtledemo"}
PYTHON_LINKED = "_ctypes", "_sqlite3", "_ssl", "_hashlib", "_lzma", "_bz2", "_uuid"
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


def libraries(*programs):
    """The files that the dynamic linker needs, under the names that it looks for."""
    found = set(re.findall(r"(/\S+) \(0x", run("ldd", *programs).stdout))
    if not found:
        raise RuntimeError(f"ldd says nothing of {programs}")
    return sorted(found)


class Initramfs:
    """A cpio archive in the newc format; device nodes need no privileges this way."""

    def __init__(self):
        self.data, self.names, self.number = bytearray(), set(), 0
        self.folder("dev")
        self.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        self.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))

    def add(self, name, mode, content=b"", device=(0, 0), mtime=0):
        self.number += 1
        self.names.add(name)
        encoded = name.encode() + b"\0"
        fields = (self.number, mode, 0, 0, 1, mtime, len(content), 0, 0, *device, len(encoded), 0)
        self.data += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self.data += b"\0" * (-len(self.data) % 4) + content
        self.data += b"\0" * (-len(self.data) % 4)

    def folder(self, name):
        if name and name not in self.names:
            self.folder(os.path.dirname(name))
            self.add(name, stat.S_IFDIR | 0o755)

    def content(self, name, content, mtime=0):
        name = name.lstrip("/")
        if name not in self.names:
            self.folder(os.path.dirname(name))
            self.add(name, stat.S_IFREG | 0o755, content, mtime=mtime)

    def file(self, name, source):
        # Python takes what it has compiled only with the time of its source.
        self.content(name, pathlib.Path(source).read_bytes(), int(os.stat(source).st_mtime))

    def needed_by(self, *programs):
        """The libraries that executables or libraries are linked to."""
        for library in libraries(*programs):
            self.file(library, os.path.realpath(library))

    def program(self, name, source):
        self.file(name, source)
        self.needed_by(source)

    def tree(self, name, source, skip=()):
        for folder, folders, files in os.walk(source):
            folders[:] = sorted(each for each in folders if each not in skip)
            below = os.path.normpath(os.path.join(name, os.path.relpath(folder, source)))
            for each in sorted(files):
                if os.path.exists(os.path.join(folder, each)):
                    self.file(os.path.join(below, each), os.path.join(folder, each))

    def python(self):
        """Debian's Python with its standard library, as /usr/bin/python3."""
        program = os.path.realpath("/usr/bin/python3")
        library = pathlib.Path("/usr/lib", os.path.basename(program))
        self.program("usr/bin/python3", program)
        self.program(program, program)
        self.tree(str(library), library, PYTHON_WITHOUT)
        self.needed_by(*(next(library.glob(f"lib-dynload/{name}.*.so")) for name in PYTHON_LINKED))

    def write(self, path, more=None):
        """The archive, with a few more files if it is to be written several times."""
        kept = len(self.data), set(self.names), self.number
        for name, content in (more or {}).items():
            self.content(name, content)
        self.add("TRAILER!!!", 0)
        path.write_bytes(self.data)
        del self.data[kept[0]:]
        self.names, self.number = kept[1:]


def command(kernel, initramfs, memory=512, options=(), arguments=""):
    return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(memory), "-smp", "2",
            "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel.image),
            "-initrd", str(initramfs), "-append", f"{COMMAND_LINE} {arguments}",
            *options]
