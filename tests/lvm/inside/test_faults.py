"""Devices that give errors, or go away, in the middle: status 1, the byte is named, and nothing looks complete."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lvm import guest
from lvm.guest import MiB, Program, Stream

SECTORS = MiB // 512
SIZE = 64
DATA = os.urandom(MiB)


def load(name: str, *lines: str) -> None:
    """Gives a device another table."""
    guest.dmsetup("load", name, *lines)
    guest.dmsetup("resume", name)  # which suspends it first


@pytest.fixture(scope="module")
def below() -> tuple[str, Path]:
    """A device of 64 MiB whose table can be changed; what it lies on."""
    disk = guest.new_disk("faults", (SIZE + 1) * MiB)
    guest.dmsetup("create", "qb-faults", good(disk))
    return "qb-faults", disk


def good(disk: Path) -> str:
    return f"0 {SIZE * SECTORS} linear {disk} {SECTORS}"  # lvm must not find its label on the disk too


def bad_block(disk: Path, sector: int) -> tuple[str, ...]:
    """A table with eight sectors that cannot be read."""
    rest = sector + 8
    return (
        f"0 {sector} linear {disk} {SECTORS}",
        f"{sector} 8 error",
        f"{rest} {SIZE * SECTORS - rest} linear {disk} {SECTORS + rest}",
    )


def fails(name: str, at: int | None, *, word: str, broken: tuple[str, ...], device: str) -> None:
    with Program("qb-volread", word, piped=True) as reading:
        begun = reading.take(4096)
        load(device, *broken)
        ended = reading.wait(begun)
    assert ended.status == 1
    assert ended.stderr.startswith(f"qb-volread: error: cannot read {name} at byte ")
    byte, _, reason = ended.stderr.removeprefix(f"qb-volread: error: cannot read {name} at byte ").partition(": ")
    assert reason == "Input/output error\n"
    assert at is None or int(byte) == at
    stream = Stream.parse(ended.stdout)
    assert len(stream.data) == int(byte) and not stream.ended


def test_a_block_device_with_a_bad_block(below: tuple[str, Path]) -> None:
    name, disk = below
    path = f"/dev/mapper/{name}"
    at = 50 * MiB + 8192
    fails(path, at, word=f"block:{path}", broken=bad_block(disk, at // 512), device=name)
    load(name, good(disk))


def test_a_block_device_that_goes_away(below: tuple[str, Path]) -> None:
    name, disk = below
    path = f"/dev/mapper/{name}"
    fails(path, None, word=path, broken=(f"0 {SIZE * SECTORS} flakey {disk} {SECTORS} 0 1000",), device=name)
    load(name, good(disk))


def test_logical_volumes_with_a_bad_block(below: tuple[str, Path]) -> None:
    """A thick one through its snapshot, a thin one through its pool: no snapshot stays."""
    name, disk = below
    guest.lvm("vgcreate", "-qq", "-y", "faulty", f"/dev/mapper/{name}")
    device = guest.thick("faulty/thick", 24 * MiB)
    guest.write(device, 0, DATA * 24)
    guest.pool("faulty/pool", 16 * MiB)
    guest.write(guest.thin("faulty/thin", 16 * MiB, "pool"), 0, DATA * 12)
    fields = "--noheadings", "-a", "--units", "s", "--nosuffix", "-o", "lv_name,seg_pe_ranges,vg_extent_size"
    places = {line.split()[0].strip("[]"): line.split() for line in guest.call("lvs", *fields, "faulty").splitlines()}
    start = int(guest.lvm("pvs", "--noheadings", "--units", "s", "--nosuffix", "-o", "pe_start", f"/dev/mapper/{name}"))

    def sector(volume: str) -> int:
        _name, ranges, extent = places[volume]
        return start + int(ranges.rpartition(":")[2].partition("-")[0]) * int(extent)

    at = 20 * MiB + 4096
    broken = bad_block(disk, sector("thick") + at // 512)
    fails("faulty/thick", at, word="lvm:faulty/thick", broken=broken, device=name)
    load(name, good(disk))
    at = 11 * MiB + 4096  # blocks of a new pool are given out in order
    broken = bad_block(disk, sector("pool_tdata") + at // 512)
    fails("faulty/thin", at, word="lvm:faulty/thin", broken=broken, device=name)
    load(name, good(disk))
    assert guest.volumes("faulty") == {"thick", "pool", "thin"}
