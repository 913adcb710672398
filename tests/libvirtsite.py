"""A libvirtd to which machines are restored."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
from guests import counter
from libvirtd import Libvirt
from running import wait_until
from support import run

SECRET = {"QB_PASSPHRASE_COMMAND": "echo libvirt"}


class Site:
    """A libvirtd, with directories for new volumes and for the state."""

    def __init__(self, host: Libvirt, place: Path, short: Path) -> None:
        self.host, self.place = host, place
        self.images = short / "images"
        self.images.mkdir()
        self.state = short / "state"
        self._before: list[str] = []
        self.settings = {"QB_LIBVIRT_DIR": str(self.state), "QB_LIBVIRT_POOL": str(self.images), **SECRET}

    def inside(self) -> None:
        """From now on programs see the directories of this libvirtd in the place of the system's, too."""
        self._before = ["nsenter", f"--mount=/proc/{self.host.pid()}/ns/mnt"]

    def run(self, *words: str | Path, **changes: str) -> subprocess.CompletedProcess[bytes]:
        return run(*self._before, *words, **self.settings, **changes)

    def save(self, *words: str) -> Path:
        path = self.place / "a.qb"
        done = self.run("qb-backup", "create", "-q", "--logn=10", f"--output={path}", *words)
        assert done.returncode == 0, done.stderr.decode()
        return path

    def words(self, *words: str | Path) -> list[str]:
        return ["qb-backup", "restore", "-q", "--yes", f"--host=libvirt:{self.host.uri}", *map(str, words)]

    def restore(self, *words: str | Path) -> list[str]:
        """Restores; the warnings."""
        done = self.run(*self.words(*words))
        assert done.returncode == 0, done.stderr.decode()
        return [line.removeprefix("qb-backup: warning: ") for line in done.stderr.decode().splitlines()]

    def xml(self, uuid: str) -> Element:
        return fromstring(self.host.virsh("dumpxml", "--inactive", "--security-info", uuid))

    def left(self) -> list[str]:
        """Names of volumes, and of records."""
        kept = [path.name for path in self.state.glob("unfinished/*") if not path.name.startswith("qubes.xml")]
        return sorted(path.name for path in self.images.iterdir()) + kept


@pytest.fixture
def site(libvirt: Libvirt, tmp_path: Path) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="qb-") as short:
        yield Site(libvirt, tmp_path, Path(short))
        libvirt.clean()


def runs(host: Libvirt, uuid: str, image: Path) -> None:
    """Starts a machine with the program of guests.py; this disk shows that it runs."""
    before = counter(raw(image))
    host.virsh("start", uuid)
    wait_until(lambda: counter(raw(image)) > before + 3, "the machine writes")
    host.virsh("destroy", uuid)


def raw(path: Path) -> bytes:
    """The disk in an image, which may be in use."""
    if path.suffix != ".qcow2":
        return path.read_bytes()
    out = path.with_suffix(".check")
    done = run("qemu-img", "convert", "-U", "-O", "raw", path, out)
    assert done.returncode == 0, done.stderr.decode()
    data = out.read_bytes()
    out.unlink()
    return data
