"""Which state of a volume is read: while its machine runs, while others write, when a snapshot's room is full."""

from __future__ import annotations

import os
from pathlib import Path

from counters import advance, counter, counting
from lvm import guest
from lvm.guest import MiB, Program

BLOCK = 4096


def test_a_volume_whose_machine_runs(vg: str) -> None:
    """As Qubes OS has it: what was is in it, what is now in NAME-snap, which becomes NAME when the machine stops.

    What was is the default, -v says so, and the machine can stop while it is read: nothing holds the volume open.
    """
    name = f"{vg}/vm-w-private"
    guest.write(guest.thin(name, 8 * MiB), 0, b"before" * 4096)
    guest.lvm("lvcreate", "-qq", "-y", "-s", "-kn", "-n", "vm-w-private-snap", name)
    guest.write(Path(f"/dev/{name}-snap"), 0, b"now..." * 4096)
    assert guest.volread("--state=snapshot", f"lvm:{name}").at(0, 6) == b"now..."
    with Program("qb-volread", "-v", f"lvm:{name}", piped=True) as reading:
        begun = reading.take(100)
        guest.lvm("lvrename", "-qq", name, f"{name}-1700000000-back")
        guest.lvm("lvrename", "-qq", f"{name}-snap", name)
        guest.lvm("lvremove", "-qq", "-f", f"{name}-1700000000-back")
        ended = reading.wait(begun)
    assert ended.status == 0
    assert f"{name} is the state before its machine started; that writes to {name}-snap" in ended.stderr
    stream = guest.Stream.parse(ended.stdout)
    assert stream.ended
    assert stream.at(0, 12) == b"beforebefore"


def test_before_start_where_it_is_not_kept(vg: str) -> None:
    device = guest.thin(f"{vg}/plain", 4 * MiB)
    guest.write(device, 0, b"x" * BLOCK)
    assert guest.volread("--state=before-start", f"lvm:{vg}/plain").at(0, 3) == b"xxx", (
        "nobody uses it: it is as it was"
    )
    with device.open("r+b"):
        ended = guest.program("qb-volread", "--state=before-start", f"lvm:{vg}/plain")
    assert (ended.status, ended.stdout) == (5, b"")
    assert f"the state of {vg}/plain before its machine started is not kept: " in ended.stderr
    assert "has it open for writing\nhint: --state=snapshot " in ended.stderr
    assert not guest.ours(vg)


def test_one_point_in_time(vg: str) -> None:
    """Of a thin and of a thick volume that are written to all the time."""
    for device in guest.thin(f"{vg}/counted", 12 * MiB), guest.thick(f"{vg}/counted-thick", 12 * MiB):
        with counting(0, 8 * MiB, device, direct=True):
            with Program("qb-volread", "--raw", "--cow=50%", f"lvm:{device}", piped=True) as reading:
                first = reading.take(BLOCK)
                advance(device, 8 * MiB)
                image = reading.wait(first)
            later = counter(device, 0)
        assert (image.status, image.stderr) == (0, "")
        numbers = [int.from_bytes(image.stdout[at : at + 8], "big") for at in (0, 8 * MiB)]
        assert numbers[0] - numbers[1] in (0, 1)
        assert 0 < numbers[0] < later


def test_what_is_still_in_memory_is_in_the_snapshot_and_its_map(vg: str) -> None:
    device = guest.thin(f"{vg}/buffered", 32 * MiB)
    data = os.urandom(MiB)
    with device.open("r+b", buffering=0) as file:
        for offset in 0, 16 * MiB:
            file.seek(offset)
            file.write(data)
        stream = guest.volread(f"lvm:{vg}/buffered")
    assert stream.extents == [(0, MiB), (16 * MiB, MiB)]
    assert stream.data == data * 2


def test_a_classic_snapshot_that_overflows(vg: str) -> None:
    device = guest.thick(f"{vg}/busy", 24 * MiB)
    data = os.urandom(8 * MiB)
    with Program("qb-volread", "--cow=4M", f"lvm:{vg}/busy", piped=True) as reading:
        begun = reading.take(4096)
        guest.write(device, 0, data)
        ended = reading.wait(begun)
    assert ended.status == 1
    assert ended.stderr == (f"qb-volread: error: {vg}/busy: snapshot overflowed\nhint: --cow gives it more room\n")
    assert not guest.Stream.parse(ended.stdout).ended
    assert not guest.ours(vg)


def test_a_classic_snapshot_that_is_given(vg: str) -> None:
    """lvm can make none of it, so it is read as any device is; when its room is full that is told."""
    device = guest.thick(f"{vg}/origin", 16 * MiB)
    guest.write(device, 0, b"a" * BLOCK)
    guest.lvm("lvcreate", "-qq", "-y", "-s", "-L", "4M", "-n", "given", f"{vg}/origin")
    guest.write(device, 0, b"b" * BLOCK)
    assert guest.volread(f"lvm:{vg}/given").at(0, 2) == b"aa"
    guest.write(device, 0, bytes(8 * MiB))
    ended = guest.program("qb-volread", f"lvm:{vg}/given")
    assert (ended.status, "snapshot overflowed" in ended.stderr) == (1, True)


def test_a_thick_volume_that_is_not_active(vg: str) -> None:
    guest.thick(f"{vg}/idle", 4 * MiB)
    guest.lvm("lvchange", "-an", f"{vg}/idle")
    ended = guest.program("qb-volread", f"lvm:{vg}/idle")
    assert (ended.status, ended.stdout) == (1, b"")
    assert f"{vg}/idle is not active\nhint: lvchange -ay {vg}/idle activates it" in ended.stderr
