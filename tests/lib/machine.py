# SPDX-License-Identifier: Apache-2.0
"""A Debian with its own systemd, in systemd-nspawn on an overlay of a root that is made once.

The root (mmdebstrap, cached in build/e2e) has what the packages under test depend on, so that the
machine needs no network and has none. Needs root.
"""

import hashlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

import daemon

CACHE = os.path.join(daemon.TOP, "build", "e2e")
PROGRAMS = "systemd-nspawn", "mmdebstrap", "nsenter", "unshare", "dpkg-deb", "apt-get"
# libjs-jquery is what static files of Debian's Django link to.
BASE = ("systemd", "systemd-sysv", "dbus", "curl", "python3-django", "libjs-jquery", "procps",
        "rpm")
BOOT = r"""
set -e
mount -t cgroup2 none /sys/fs/cgroup
mkdir /sys/fs/cgroup/$3
echo $$ >/sys/fs/cgroup/$3/cgroup.procs
mount -t overlay none -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
: >"$2/root/etc/machine-id"
rm -f "$2/root/usr/sbin/policy-rc.d"
mkdir -p /run/systemd/nspawn
mount -t tmpfs none /run/systemd/nspawn
exec systemd-nspawn --quiet --boot --directory="$2/root" --machine=durabled-test \
        --notify-ready=yes --register=no --keep-unit --settings=no --private-network \
        --resolv-conf=off --timezone=off --link-journal=no --console=read-only \
        --capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN \
        --system-call-filter='bpf perf_event_open io_uring_setup io_uring_enter io_uring_register' \
        --bind-ro="$4:/packages"
"""
KILL = r"""
mount -t cgroup2 none /sys/fs/cgroup
cd /sys/fs/cgroup/$1 2>/dev/null || exit 0
echo 1 >cgroup.kill
for i in $(seq 50); do
        grep -q 'populated 0' cgroup.events && break
        sleep 0.1
done
cd ..
find "$1" -depth -type d -exec rmdir {} +
"""


class Unavailable(Exception):
    """Why there can be no machine here."""


def run(*command, **options):
    options = {"timeout": 300, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def release():
    """The code name of this Debian, for which the packages have been built."""
    text = pathlib.Path("/etc/os-release").read_text(encoding="utf-8")
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.M)
    if not found:
        raise Unavailable("this is no released Debian")
    return found.group(1)


def mirror(codename):
    """The mirror that apt uses here."""
    done = run("apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)",
               "Created-By: Packages")
    for line in done.stdout.splitlines():
        words = line.split()
        if words[:2] == [codename, "main"]:
            return words[2]
    raise Unavailable(f"apt has no source of {codename} here")


def dependencies(packages):
    """What they need of Debian, without each other: the first of each list of alternatives."""
    names, own = set(), {run("dpkg-deb", "-f", path, "Package").stdout.strip() for path in packages}
    for path in packages:
        for need in run("dpkg-deb", "-f", path, "Depends").stdout.split(","):
            name = re.match(r"\s*([a-z0-9][a-z0-9.+-]*)", need)
            if name:
                names.add(name.group(1))
    return sorted(names - own)


def make_root(packages):
    """The folder of a root that has all that packages depend on."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        raise Unavailable(f"{missing[0]} is not installed")
    if os.geteuid() != 0:
        raise Unavailable("needs root")
    codename = release()
    include = ",".join([*BASE, *dependencies(packages)])
    key = hashlib.sha256(f"{codename} {include}".encode()).hexdigest()[:16]
    root = os.path.join(CACHE, f"root-{codename}-{key}")
    if not os.path.isdir(root):
        os.makedirs(CACHE, exist_ok=True)
        made = tempfile.mkdtemp(prefix="making-", dir=CACHE)
        try:
            done = run("mmdebstrap", "--variant=apt", f"--include={include}", codename, made,
                       mirror(codename), timeout=240)
        except subprocess.TimeoutExpired as error:
            shutil.rmtree(made, ignore_errors=True)
            raise Unavailable("mmdebstrap has not made a root in 240 s") from error
        if done.returncode:
            shutil.rmtree(made, ignore_errors=True)
            raise Unavailable("mmdebstrap: " + (done.stderr.strip().splitlines() or ["?"])[-1])
        for old in pathlib.Path(CACHE).glob(f"root-{codename}-*"):
            shutil.rmtree(old, ignore_errors=True)
        os.chmod(made, 0o755)
        os.rename(made, root)
    return root


class Machine:
    """Booted; packages are in its folder /packages. Use as a context manager."""

    def __init__(self, root, packages):
        self.root, self.packages = root, packages
        # An overlay cannot have another as its upper layer: not below a container's /tmp.
        self.folder = tempfile.mkdtemp(prefix="machine-", dir=CACHE)
        self.cgroup = os.path.basename(self.folder)
        self.process = self.leader = None

    def __enter__(self):
        try:
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def boot(self):
        for name in ("upper", "work", "root"):
            os.mkdir(os.path.join(self.folder, name))
        short = tempfile.mkdtemp(prefix="durabled-", dir="/tmp")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, \
                    open(self.folder + "/console", "wb") as console:
                notify.bind(short + "/notify")
                notify.settimeout(0.5)
                self.process = subprocess.Popen(
                    ["unshare", "--mount", "--propagation", "private", "bash", "-c", BOOT, "boot",
                     self.root, self.folder, self.cgroup, self.packages],
                    stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                    env=dict(os.environ, NOTIFY_SOCKET=short + "/notify"))
                self.wait_boot(notify)
        finally:
            shutil.rmtree(short)

    def wait_boot(self, notify):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Unavailable("systemd-nspawn: " + self.console()[-300:].strip())
            try:
                message = notify.recv(4096).decode()
            except TimeoutError:
                continue
            found = re.search(r"^X_NSPAWN_LEADER_PID=(\d+)$", message, re.M)
            if found:
                self.leader = int(found.group(1))
            if re.search(r"^READY=1$", message, re.M) and self.leader:
                return
        raise Unavailable("the machine does not come up: " + self.console()[-300:].strip())

    def console(self):
        return pathlib.Path(self.folder, "console").read_text(encoding="utf-8", errors="replace")

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.terminate()  # halts in order
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                pass
        run("unshare", "--mount", "--propagation", "private", "bash", "-c", KILL, "kill",
            self.cgroup)
        if self.process:
            self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, script, check=True, timeout=120):
        """A shell script as a unit of the machine's; what it prints."""
        try:
            done = run("nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--",
                       "systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--",
                       # systemd-run has variables of its own.
                       "bash", "-c", script.replace("$", "$$"), timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"not done after {timeout} s: {script}\n{error.stdout}\n"
                                 f"{self.journal()}") from error
        if check and done.returncode:
            raise AssertionError(f"status {done.returncode}: {script}\n{done.stdout}{done.stderr}\n"
                                 f"{self.journal()}")
        return done.stdout.strip()

    def journal(self):
        """The last lines of the service."""
        done = run("nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--",
                   "journalctl", "--no-pager", "-n", "40", "-u", "durabled", timeout=20)
        return done.stdout

    def show(self, name, unit="durabled"):
        return self.run(f"systemctl show -P {name} {unit}")

    def wait_for(self, what, seconds=30):
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                raise AssertionError(f"not in {seconds} s\n{self.journal()}")
            time.sleep(0.2)
