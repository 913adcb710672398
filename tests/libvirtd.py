"""A libvirtd of the tests' own: it sees directories of theirs in the place of the system's, and starts no service.

It runs as root in a mount namespace, without /dev/kvm: its machines are emulated on every computer.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from devices import tmpfs
from support import missing, need, need_root, run
from venvs import made_once

# The directories that libvirtd has in it, and where it looks for them.
_PLACES = {
    "etc": "/etc/libvirt",
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log",
    "cache": "/var/cache/libvirt",
}
_DAEMON = 'auth_unix_ro = "none"\nauth_unix_rw = "none"\n'
_QEMU = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
swtpm_user = "daemon"
swtpm_group = "daemon"
cgroup_controllers = []
"""
_START = """\
set -e
mount --make-rprivate /
cd "$1"
for pair in "${@:2}"; do
    mkdir -p "${pair#*:}"
    mount --bind "${pair%%:*}" "${pair#*:}"
done
if [ -e /usr/bin/qemu-system-i386 ]; then # libvirt would ask it too, which takes as long as for the other one
    mount --bind /dev/null /usr/bin/qemu-system-i386
fi
if [ -e /dev/kvm ]; then # libvirt would use it, though it may not work inside of a virtual machine
    mkdir -p dev
    mount -t tmpfs -o mode=755 none dev
    for one in /dev/*; do
        if [ "$one" = /dev/kvm ]; then
            continue
        elif [ -d "$one" ] && [ ! -L "$one" ]; then
            mkdir ".$one"
            mount --rbind "$one" ".$one"
        else
            cp -a "$one" dev
        fi
    done
    mount --move dev /dev
fi
exec setpriv --pdeathsig TERM libvirtd -f /etc/libvirt/libvirtd.conf -p /run/libvirt/pid
"""
_PATIENCE = 60.0

SMALL = 4 << 20
"""Bytes of the small file system."""


class Libvirt:
    """A running libvirtd. place: a directory for its images; small: a small file system; uri: for virsh."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.small = place / "small"
        self._daemon: subprocess.Popen[bytes] | None = None
        for name in _PLACES:
            (place / name).mkdir(parents=True)
        (place / "etc/qemu").mkdir()
        (place / "etc/libvirtd.conf").write_text(_DAEMON)
        (place / "etc/qemu.conf").write_text(_QEMU)
        self.uri = f"qemu+unix:///system?socket={place}/run/libvirt-sock"

    def start(self, nice: int = 0) -> None:
        """nice: added to the priority of the daemon and of all that it starts, as in nice(1).

        Each daemon runs on the same processor: what one of them has kept of its emulators is refused on another one.
        """
        first = ["nice", "-n", str(nice), "taskset", "-c", str(min(os.sched_getaffinity(0)))]
        pairs = [f"{name}:{seen}" for name, seen in _PLACES.items()]
        with (self.place / "output").open("ab") as output:
            self._daemon = subprocess.Popen(
                [*first, "unshare", "-m", "bash", "-c", _START, "-", self.place, *pairs],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + _PATIENCE
        socket = self.place / "run/libvirt-sock"
        while not socket.exists() or run("virsh", "-q", "-c", self.uri, "list").returncode:
            if self._daemon.poll() is not None or time.monotonic() > end:
                missing(f"libvirtd does not run here: {(self.place / 'output').read_text()[-2000:]}")
            time.sleep(0.1)

    def pid(self) -> int:
        """The process of the daemon."""
        assert self._daemon is not None
        return self._daemon.pid

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends the daemon; its machines go on."""
        if self._daemon is not None:
            self._daemon.send_signal(number)
            self._daemon.wait(_PATIENCE)
            self._daemon = None

    def virsh(self, *words: str | Path, timeout: float = 120) -> str:
        """The output of virsh, which must not fail."""
        done = run("virsh", "-q", "-c", self.uri, *words, timeout=timeout)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def define(self, name: str, devices: str, os_words: str = "", rest: str = "", memory: int = 96) -> str:
        """Defines a machine without network; its UUID. name: XML text. memory: MiB."""
        text = (
            f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>"
            f"<os><type arch='x86_64' machine='pc'>hvm</type>{os_words}</os>{rest}<devices>{devices}</devices></domain>"
        )
        before = self.uuids()
        path = self.place / "define.xml"
        path.write_text(text)
        self.virsh("define", path)
        (uuid,) = self.uuids() - before
        return uuid

    def uuids(self) -> set[str]:
        return set(self.virsh("list", "--all", "--uuid").split())

    def clean(self) -> None:
        """Ends and removes all machines."""
        for uuid in self.virsh("list", "--uuid").split():
            self.virsh("destroy", uuid)
        for uuid in self.uuids():
            self.virsh("undefine", uuid, "--managed-save", "--snapshots-metadata", "--checkpoints-metadata", "--nvram")
        for path in self.place.glob("images/*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def disk(path: str | Path, target: str = "vda", form: str = "raw", rest: str = "") -> str:
    """XML of a disk that is a file."""
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/><source file='{path}'/>"
        f"<target dev='{target}' bus='virtio'/>{rest}</disk>"
    )


def _ask(place: Path) -> None:
    """Makes place/cache, in which libvirtd keeps what its emulators can do.

    It asks them in tens of thousands of small steps, and waits for a processor at each: seconds alone, and minutes
    beside other tests. So it must not wait.
    """
    asking = Libvirt(place)
    try:
        asking.start(nice=-15)
        asking.virsh("capabilities", timeout=600)
    finally:
        asking.stop()


@contextmanager
def libvirtd(place: Path, cache: Path) -> Iterator[Libvirt]:
    """A libvirtd with directories in place. Everything that it has started ends with the body.

    cache: what another libvirtd of this machine has kept of its emulators.
    """
    found = Libvirt(place)
    (place / "images").mkdir()
    shutil.copytree(cache, place / "cache", dirs_exist_ok=True)
    with tmpfs(found.small, SMALL):  # what is mounted later, it does not see
        try:
            found.start()
            yield found
        finally:
            with suppress(AssertionError):
                found.clean()
            found.stop()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirt]:
    need_root()
    need("virsh", "libvirtd", "qemu-img", "qemu-system-x86_64", "unshare", "setpriv", "taskset")
    asked = made_once(tmp_path_factory, "emulators", _ask)
    with libvirtd(tmp_path_factory.mktemp("libvirt"), asked / "cache") as found:
        yield found


@pytest.fixture
def libvirt(daemon: Libvirt) -> Iterator[Libvirt]:
    """The daemon of all tests, without machines."""
    yield daemon
    daemon.clean()
