"""Snapshots that are kept from one backup to the next: thin_delta tells what has changed, and nothing is left."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import increments
import machines
import pytest
from lvm import guest
from lvm.guest import MiB, Program
from support import bash

from qbtools.errors import Failed, QbError
from qbtools.formats import blockindex
from qbtools.formats.volumestream import ExtentMap
from qbtools.series import keeping
from qbtools.series.directory import Series
from qbtools.volumes import locate, snapshots
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.lvm import dm
from qbtools.volumes.marks import Kept

BLOCK = 64 << 10
OPTIONS = SourceOptions()


class Volume:
    """A thin volume with the snapshot and the index of its last backup."""

    def __init__(self, full: str, size: int) -> None:
        """The volume exists, and is empty."""
        self.device = Path("/dev") / full
        self.full = full
        self.size = size
        self.day = 0
        self.spec = ""
        self.index = b""

    def state(self, spec: str) -> tuple[bytes, ExtentMap, ExtentMap | None]:
        """The data of a snapshot, its map, and what may have changed since the snapshot before."""
        with locate.open_source(spec, OPTIONS) as source:
            extents = source.extents()
            data = os.pread(source.fd, source.size, 0)
            if not self.spec:
                return data, extents, None
            return data, extents, locate.changed(spec, source, self.spec, self.size, BLOCK)

    def save(self, spec: str) -> int:
        """Saves the state that a snapshot has, and compares both ways. Returns how many bytes may have changed."""
        data, extents, changed = self.state(spec)
        whole = increments.saved(increments.stream(data, extents), f"day-{self.day}", self.index or None, BLOCK)
        if changed is not None:
            candidates = increments.candidates(data, extents, f"day-{self.day - 1}", changed)
            assert increments.reduced(candidates, f"day-{self.day}", self.index, BLOCK) == whole
        self.spec, self.index, self.size, self.day = spec, whole[1], len(data), self.day + 1
        return sum(length for _, length in changed or ())


def node(full: str) -> Path:
    """Where the device of a volume always is: lvm takes its link away for a moment."""
    return Path("/dev/mapper") / full.replace("-", "--").replace("/", "-")


def pool_of(device: Path) -> int:
    return dm.number(dm.table(device.stat().st_rdev).parameters[0])


def root(device: Path) -> str:
    """The reserved metadata of the pool of a volume; `-` if there is none."""
    return dm.status(pool_of(device)).parameters[3]


def stamp_of(spec: str) -> str:
    """What changes when somebody changes a snapshot."""
    (found,) = snapshots.stamps([spec]).values()
    if isinstance(found, QbError):
        raise found
    return found


@pytest.fixture
def volume(vg: str) -> Iterator[Volume]:
    guest.write(guest.thin(f"{vg}/kept", 8 * MiB), 0, os.urandom(MiB))
    made = Volume(f"{vg}/kept", 8 * MiB)
    made.save(snapshots.take([f"lvm:{made.full}"], Kept("day-0"), OPTIONS)[0])
    yield made
    guest.remove(made.full, *(f"{vg}/{name}" for name in guest.ours(vg)))


def index(volume: Volume, place: Path) -> Path:
    (place / "index").write_bytes(volume.index)
    return place / "index"


class Nightly:
    """Two thin volumes of machines, saved by qb-backup to a series and to files."""

    names = ("many0", "many1")

    def __init__(self, vg: str, place: Path) -> None:
        """The volumes exist."""
        self.place = place
        self.words = [f"{name}:private=lvm:{vg}/vm-{name}-private" for name in self.names]
        self.host = [f"--host=lvm:{vg}/pool", *self.names]
        (place / "passphrase").write_text("secret\n")
        (place / "passphrase").chmod(0o600)
        folder = place / "hosts" / vg / "pool"
        folder.mkdir(parents=True)
        (folder / "qubes.xml").write_bytes(machines.document(*map(machines.vm, self.names)))

    def save(self, day: int, *words: str) -> str:
        """Saves to the file of a day. Returns the ID of the backup, after what was said was checked."""
        done = bash(
            f"cd {self.place} && exec qb-backup create -v --logn=10 --compress=none --series=series -o {day}.qbk "
            f"{' '.join(words)}",
            timeout=1800,
            QB_LVM_HOSTS=str(self.place / "hosts"),
            QB_PASSPHRASE_FILE=str(self.place / "passphrase"),
            LVM_SYSTEM_DIR=os.environ["LVM_SYSTEM_DIR"],
            TMPDIR=str(self.place),
            XDG_RUNTIME_DIR=str(self.place),
        )
        assert done.returncode == 0, done.stderr
        said = done.stderr.decode()
        assert said.count("may have changed") == (2 if day else 0), said
        assert said.count("everything is read") == 0
        with Series(str(self.place / "series")).locked() as ledger:
            assert ledger.base is not None
            return ledger.base

    def kept(self, backup_id: str) -> dict[str, str]:
        """The snapshots that this archive keeps, by the names of the volumes in it. No other archive keeps any."""
        (one,) = keeping.found(Series(str(self.place / "series"))).values()
        assert one is not None and one.backup_id == backup_id
        return {name: snapshot.spec for name, snapshot in one.snapshots.items()}

    def index(self, backup_id: str, name: str) -> bytes:
        return (self.place / "series/indexes" / backup_id / f"{name.replace('/', '.')}.index").read_bytes()

    def check(self, day: int, name: str, spec: str, backup_id: str, before: bytes) -> None:
        """An archive has what reading all of the snapshot gives, against the index of the archive before."""
        with locate.open_source(spec, OPTIONS) as source:
            extents = source.extents()
            whole = increments.stream(os.pread(source.fd, source.size, 0), extents)
        archive = (self.place / f"{day}.qbk").read_bytes()
        passphrase = f"--passphrase-file={self.place}/passphrase"
        ended = guest.program("qb-unseal", passphrase, name, data=archive)
        assert (ended.status, ended.stderr) == (0, "")
        block = blockindex.parse(before[: blockindex.HEAD], name).block
        stream, index = increments.saved(whole, backup_id, before, block, name)
        assert increments.extracted(ended.stdout) == stream
        assert self.index(backup_id, name)[blockindex.HEAD :] == index[blockindex.HEAD :]


def test_five_days_of_twenty_volumes(vg: str, tmp_path: Path) -> None:
    """Each has a new snapshot every day, while a program writes to all of them. Some are saved both ways.

    Two of those by qb-backup, the others from here: most of the time is the start of programs.
    """
    names = [f"{vg}/vm-many{number}-private" for number in range(20)]
    for name in names:
        guest.thin(name, 4 * MiB)
    nightly, made = Nightly(vg, tmp_path), [Volume(name, 4 * MiB) for name in names[2::6]]
    words = [f"lvm:{name}" for name in names[2:]]
    devices = [node(name) for name in names]
    kept: list[str] = []
    specs: dict[str, str] = {}
    before: dict[str, bytes] = {}
    over, left = threading.Event(), threading.Semaphore(0)  # how much is written does not depend on the machine

    def write() -> None:
        maker = random.Random(5)
        while not over.wait(0.02):
            if not left.acquire(blocking=False):
                continue
            data = maker.choice([bytes(4096), maker.randbytes(4096)])
            guest.write(maker.choice(devices), maker.randrange(1024) * 4096, data)

    pool = ThreadPoolExecutor(1)
    writing = pool.submit(write)
    try:
        for day in range(5):
            left.release(200)
            taken = snapshots.take(words, Kept(f"day-{day}"), OPTIONS)
            assert all(volume.save(spec) < 4 * MiB for volume, spec in zip(made, taken[::6], strict=True))
            if kept:
                guest.remove(*kept)  # snapshots.release_kept() does it too, but asks lvm about each
            kept = [spec.removeprefix("lvm:") for spec in taken]
            backup_id = nightly.save(day, *(nightly.host if day == 4 else nightly.words))
            specs = nightly.kept(backup_id)
            for name, spec in specs.items() if day else ():
                nightly.check(day, name, spec, backup_id, before[name])
            before = {name: nightly.index(backup_id, name) for name in specs}
            assert guest.ours(vg) == {spec.rpartition("/")[2] for spec in (*kept, *specs.values())}
            assert len(specs) == 2 and len(guest.ours(vg)) == 20
            assert root(made[0].device) == "-"
    finally:
        over.set()
        pool.shutdown()
    writing.result()
    assert guest.program("qb-snapshot", "release", *specs.values()).status == 0
    guest.remove(*kept[4:])  # the others are enough for the release of several
    snapshots.release_kept(words[:4], Kept("day-4"))
    assert not guest.ours(vg)
    guest.remove(*names)


def test_only_what_changed_is_read(volume: Volume, tmp_path: Path) -> None:
    guest.write(volume.device, 3 * MiB + 4096, b"A" * 4096)
    guest.call("blkdiscard", "--offset", str(BLOCK), "--length", str(BLOCK), volume.device)
    words = ["--since", volume.spec, "--base", index(volume, tmp_path), f"lvm:{volume.full}"]
    ended = guest.program("qb-volread", "-v", *words)
    assert ended.status == 0
    assert f"{BLOCK} bytes may have changed since day-0, only these are read" in ended.stderr
    head, _, rest = ended.stdout.partition(b"\n\n")
    assert head.startswith(b"qb-volume 2\nsize %d\nbase day-0 " % (8 * MiB))
    assert rest[:40].startswith(b"zero 65536 65536\ndata 3145728 65536\n")
    whole = increments.saved(guest.program("qb-volread", f"lvm:{volume.full}").stdout, "x", volume.index, BLOCK)
    assert increments.reduced(ended.stdout, "x", volume.index, BLOCK) == whole
    assert root(volume.device) == "-"


def test_a_volume_that_grew(volume: Volume) -> None:
    guest.lvm("lvextend", "-qq", "-L", f"{12 * MiB}b", volume.full)
    guest.write(volume.device, 11 * MiB, b"A" * 4096)
    (spec,) = snapshots.take([f"lvm:{volume.full}"], Kept("day-1"), OPTIONS)
    assert volume.save(spec) == BLOCK


def test_when_everything_is_read(vg: str, volume: Volume, tmp_path: Path) -> None:
    """The reasons; and qb-volread tells one and goes on."""

    def reason(since: str = volume.spec, word: str = volume.spec) -> str:
        with locate.open_source(word, OPTIONS) as source, pytest.raises(Failed) as caught:
            locate.changed(word, source, since, volume.size, BLOCK)
        assert root(volume.device) == "-"
        return caught.value.message

    full = volume.spec.removeprefix("lvm:")
    assert "there is no logical volume gone in" in reason(f"lvm:{vg}/gone")
    assert reason(f"lvm:{volume.full}") == f"{volume.full} is no snapshot of qbtools"
    guest.thick(f"{vg}/thick", 4 * MiB)
    assert reason(word=f"lvm:{vg}/thick") == "it is not in a thin pool"
    guest.thin(f"{vg}/small", 4 * MiB)
    assert reason(word=f"lvm:{vg}/small") == "it has shrunk"
    guest.pool(f"{vg}/second", 16 * MiB)
    guest.thin(f"{vg}/other", 8 * MiB, "second")
    assert reason(word=f"lvm:{vg}/other") == f"{full} is in another pool"
    stamp = stamp_of(volume.spec)
    guest.lvm("lvchange", "-qq", "-an", full)
    words = "--since", volume.spec, "--base", index(volume, tmp_path), f"lvm:{volume.full}"
    ended = guest.program("qb-volread", "-v", *words)
    assert (ended.status, guest.Stream.parse(ended.stdout).ended) == (0, True)
    assert f"everything is read: {full} is not active\n" in ended.stderr
    with pytest.raises(Failed, match="is not active"):
        stamp_of(volume.spec)
    guest.lvm("lvchange", "-qq", "-ay", "-K", full)
    assert stamp_of(volume.spec) == stamp
    guest.lvm("lvchange", "-qq", "-prw", full)
    assert reason(word=f"lvm:{volume.full}") == f"{full} is no snapshot of qbtools"
    guest.lvm("lvchange", "-qq", "-pr", full)
    assert stamp_of(volume.spec) == stamp
    guest.remove(f"{vg}/thick", f"{vg}/small", f"{vg}/second")


def test_a_repaired_pool_is_noticed(vg: str) -> None:
    guest.pool(f"{vg}/damaged", 16 * MiB)
    device = guest.thin(f"{vg}/inside", 4 * MiB, "damaged")
    guest.write(device, 0, b"A" * 4096)
    (spec,) = snapshots.take([f"lvm:{vg}/inside"], Kept("day-0"), OPTIONS)
    stamp = stamp_of(spec)
    full = spec.removeprefix("lvm:")
    guest.lvm("lvchange", "-qq", "-an", full, f"{vg}/inside")
    guest.lvm("lvchange", "-qq", "-an", f"{vg}/damaged")
    guest.lvm("lvconvert", "-qq", "-y", "--repair", f"{vg}/damaged")
    guest.lvm("lvchange", "-qq", "-ay", "-K", full, f"{vg}/inside")
    assert stamp_of(spec) != stamp
    guest.remove(f"{vg}/damaged", f"{vg}/damaged_meta0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_while_thin_delta_runs(vg: str, volume: Volume, tmp_path: Path, number: signal.Signals) -> None:
    """The reservation of the metadata is released, by the run itself or by the next one."""
    reached = tmp_path / "reached"
    slow = tmp_path / "thin_delta"
    slow.write_text(f"#!/bin/sh\necho $$ >{reached}.new\nmv {reached}.new {reached}\nexec sleep 1000\n")
    slow.chmod(0o755)
    words = ["--since", volume.spec, "--base", index(volume, tmp_path), f"lvm:{volume.full}"]
    with Program("qb-volread", *words, PATH=f"{tmp_path}:{os.environ['PATH']}") as killed:
        while not reached.exists():
            time.sleep(0.05)
        assert root(volume.device) != "-"
        killed.kill(number)
        assert killed.wait().status == 128 + number
    if number == signal.SIGKILL:
        os.kill(int(reached.read_text()), signal.SIGKILL)
        ended = guest.program("qb-volread", *words)
        assert (ended.status, ended.stderr) == (0, "")
    assert root(volume.device) == "-"
    assert guest.ours(vg) == {volume.spec.rpartition("/")[2]}


def test_list_clean_and_release(vg: str, volume: Volume) -> None:
    line = f"{volume.spec}\tday-0\tseries\n"
    assert line in guest.program("qb-snapshot", "list").stdout.decode()
    assert guest.program("qb-snapshot", "clean").status == 0
    guest.volread(f"lvm:{volume.full}")  # which removes what is dead in the group
    assert line in guest.program("qb-snapshot", "list").stdout.decode()
    assert guest.program("qb-snapshot", "release", volume.spec).status == 0
    assert not guest.ours(vg)
