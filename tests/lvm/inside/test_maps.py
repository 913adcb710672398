"""Maps of thin volumes out of the metadata of their pool, and who has the metadata reserved."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from lvm import guest
from lvm.guest import MiB, Program

from qbtools.errors import Failed
from qbtools.volumes.lvm import dm, lock, reservation, thinmap, tools
from qbtools.volumes.marks import Mark

PATTERN = os.urandom(MiB)
MAP = [(0, MiB), (8 * MiB, MiB)]


@pytest.fixture(scope="module")
def mapped(vg: str) -> str:
    """A thin volume of 12 MiB with two MiB of data, far apart."""
    device = guest.thin(f"{vg}/mapped", 12 * MiB)
    for offset, _length in MAP:
        guest.write(device, offset, PATTERN)
    return f"{vg}/mapped"


@pytest.fixture
def pool(mapped: str) -> int:
    """The device number of its pool."""
    return dm.number(dm.table(Path(f"/dev/{mapped}").stat().st_rdev).parameters[0])


def root(pool: int) -> str:
    return dm.status(pool).parameters[3]


def map_of(device: Path) -> list[tuple[int, int]]:
    """The map of a thin volume that nobody writes to, without a snapshot."""
    with device.open("rb") as file:
        return list(thinmap.read(device.stat().st_rdev, file.seek(0, 2)))


def test_each_map_is_a_new_one(vg: str) -> None:
    """Nothing of what was read of the metadata before is taken for what is there now."""
    device = guest.thin(f"{vg}/growing", 32 * MiB)
    for count in range(1, 4):
        guest.write(device, 8 * MiB * count, PATTERN[:4096])
        assert map_of(device) == [(8 * MiB * n, 64 * 1024) for n in range(1, count + 1)]


def test_a_reservation_of_another_program(mapped: str, pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for; then all of the volume is read, as one extent, and a warning says why."""
    dm.message(pool, "reserve_metadata_snap")
    try:
        theirs = root(pool)
        monkeypatch.setattr(reservation, "PATIENCE", 0.3)
        ended = guest.program("qb-volread", f"lvm:{mapped}")
        assert root(pool) == theirs, "it is still theirs"
        monkeypatch.setattr(reservation, "PATIENCE", 600.0)
        later = threading.Timer(0.5, dm.message, (pool, "release_metadata_snap"))
        later.start()
        assert map_of(Path(f"/dev/{mapped}")) == MAP
    finally:
        if root(pool) != "-":
            dm.message(pool, "release_metadata_snap")
    assert ended.status == 0
    assert ended.stderr == (
        f"qb-volread: warning: {mapped} has no map, so it is read completely: "
        "another program has reserved the metadata of its pool\n"
    )
    stream = guest.Stream.parse(ended.stdout)
    assert (stream.extents, stream.ended) == ([(0, 12 * MiB)], True)
    assert stream.data == PATTERN + bytes(7 * MiB) + PATTERN + bytes(3 * MiB)


def test_a_reservation_that_a_killed_run_left(vg: str, mapped: str, pool: int, tmp_path: Path) -> None:
    """Its record proves whose it is; the next run releases it, and removes the snapshot."""
    reached = tmp_path / "reached"
    slow = tmp_path / "thin_dump"
    slow.write_text(f"#!/bin/sh\necho $$ >{reached}.new\nmv {reached}.new {reached}\nexec sleep 1000\n")
    slow.chmod(0o755)
    with Program("qb-volread", f"lvm:{mapped}", PATH=f"{tmp_path}:{os.environ['PATH']}") as killed:
        while not reached.exists():
            time.sleep(0.05)
        killed.kill()
        assert killed.wait().status == 128 + signal.SIGKILL
    os.kill(int(reached.read_text()), signal.SIGKILL)
    assert root(pool) != "-"
    assert guest.ours(vg)
    assert guest.volread(f"lvm:{mapped}").extents == MAP
    assert root(pool) == "-"
    assert not guest.ours(vg)


def test_only_what_is_proven_ours_is_released(pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservation, "PATIENCE", 0.1)
    name = f"pool-{dm.uuid(pool).removeprefix('LVM-')}"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as ended:  # it lives until its mark is made
        dead = Mark.of(ended.pid)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as living:
        dm.message(pool, "reserve_metadata_snap")
        block = root(pool)
        for record in f"{Mark.of(living.pid)} {block}", str(Mark.of(living.pid)), f"{dead} 1", "", "rubbish":
            with lock.Lock(name, 10) as held:
                held.write(record)
            with pytest.raises(Failed, match="another program has reserved"), reservation.held(pool):
                pass
            assert root(pool) == block
        with lock.Lock(name, 10) as held:
            held.write(f"{dead} {block}")
        with reservation.held(pool):
            assert root(pool) != "-"
        assert root(pool) == "-"
    with lock.Lock(name, 10) as held:
        assert held.read() == ""


def test_without_thin_dump(mapped: str, pool: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "_SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="^cannot run thin_dump: No such file or directory$"):
        map_of(Path(f"/dev/{mapped}"))
    assert root(pool) == "-"


def test_a_volume_with_an_origin_outside_its_pool(vg: str) -> None:
    """The metadata knows only what was written since."""
    guest.thick(f"{vg}/outside", 4 * MiB)
    guest.lvm("lvchange", "-qq", "-an", f"{vg}/outside")
    guest.lvm("lvchange", "-qq", "-pr", f"{vg}/outside")
    guest.lvm("lvcreate", "-qq", "-y", "-s", "-kn", "--thinpool", f"{vg}/pool", "-n", "inside", f"{vg}/outside")
    with pytest.raises(Failed, match="^it has an external origin outside its pool$"):
        map_of(Path(f"/dev/{vg}/inside"))


def test_two_runs_at_once_on_the_same_volume(mapped: str) -> None:
    with Program("qb-volread", f"lvm:{mapped}") as one, Program("qb-volread", f"lvm:{mapped}") as other:
        for ended in one.wait(), other.wait():
            assert (ended.status, ended.stderr) == (0, "")
            stream = guest.Stream.parse(ended.stdout)
            assert (stream.extents, stream.data, stream.ended) == (MAP, PATTERN * 2, True)


def test_a_terabyte_with_little_in_it(vg: str) -> None:
    device = guest.thin(f"{vg}/terabyte", 1 << 40)
    places = [number * (50 << 30) + (number << 16) for number in range(20)]
    for place in places:
        guest.write(device, place, PATTERN)
    stream = guest.volread(f"lvm:{vg}/terabyte")
    assert stream.size == 1 << 40
    assert stream.extents == [(place, MiB) for place in places]
    assert stream.data == PATTERN * 20


def test_many_volumes_in_one_pool(vg: str, pool: int) -> None:
    """Each has its own map, though all share blocks."""
    first = guest.thin(f"{vg}/of-many", 16 * MiB)
    guest.write(first, 0, PATTERN)
    origin = int(dm.table(first.stat().st_rdev).parameters[1])
    numbers = range(5000, 5040)
    for number in numbers:
        dm.message(pool, f"create_snap {number} {origin}")
    try:
        for number in numbers[::20]:
            place = (number - 5000) * 64 * 1024 + 2 * MiB
            parts = f"0 {16 * MiB // 512} thin {os.major(pool)}:{os.minor(pool)} {number}"
            guest.dmsetup("create", "qb-one-of-many", parts)
            device = Path("/dev/mapper/qb-one-of-many")
            guest.write(device, place, PATTERN[:4096])
            assert map_of(device) == [(0, MiB), (place, 64 * 1024)]
            guest.dmsetup("remove", "qb-one-of-many")
    finally:
        for number in numbers:
            dm.message(pool, f"delete {number}")
