"""Pools in which a thin volume is filled: those that do not zero their chunks, and those that become full."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from lvm import guest
from lvm.filling import good, holds, stream, used, volwrite
from lvm.guest import MiB

PATTERN = os.urandom(MiB)
KiB = 1 << 10


@pytest.fixture(scope="module")
def raw(vg: str) -> Iterator[str]:
    """A pool with zeroing off, whose chunks of 256 KiB all have been written to by a volume that was deleted."""
    guest.pool(f"{vg}/raw", 24 * MiB, "-Zn", "-c", "256k")
    guest.write(guest.thin(f"{vg}/deleted", 24 * MiB, "raw"), 0, b"deleted " * (24 * MiB // 8))
    guest.remove(f"{vg}/deleted")
    yield f"{vg}/raw"
    guest.remove(f"{vg}/raw")


def test_what_was_deleted_does_not_show_through(vg: str, raw: str) -> None:
    pieces = {
        300 * KiB: PATTERN[:512],
        500 * KiB: PATTERN[: 64 * KiB],
        MiB - 512: PATTERN[:1024],
        9 * MiB: PATTERN,
        15 * MiB + 512: PATTERN[:512],
    }
    good(volwrite("--create", "--verify", f"lvm:{raw}/new", data=stream(15 * MiB + 1024, pieces)))
    assert holds(Path(f"/dev/{vg}/new"), 16 * MiB, pieces)
    assert used(raw) <= 100 * 11 / 96
    guest.remove(f"{vg}/new")


@pytest.fixture(scope="module")
def small(vg: str) -> Iterator[str]:
    """A pool of 32 MiB, and a volume in it with 8 MiB of data."""
    guest.pool(f"{vg}/small", 32 * MiB, "-c", "64k")
    guest.write(guest.thin(f"{vg}/other", 16 * MiB, "small"), 0, PATTERN * 8)
    yield f"{vg}/small"
    guest.remove(f"{vg}/other", f"{vg}/small")


def test_a_pool_that_becomes_full(vg: str, small: str) -> None:
    """Nobody knew before how much would come: it ends at the reserve, and the other volume goes on."""
    before, volumes = used(small), guest.volumes(vg)
    data = stream(40 * MiB, {0: PATTERN * 40})
    ended = volwrite("--pool-reserve", "20", "--create", f"lvm:{small}/new", data=data)
    assert ended.status == 1
    assert f"the pool {small} is filled to its reserve of" in ended.stderr
    percent = float(re.findall(r"([0-9.]+) % of its data", ended.stderr)[0])
    assert 76 <= percent <= 80, "a write is a MiB, 3 % of this pool"
    assert used(small) == before
    assert guest.volumes(vg) == volumes
    guest.write(Path(f"/dev/{vg}/other"), 8 * MiB, PATTERN)
    assert guest.read(Path(f"/dev/{vg}/other"), 0, 10 * MiB) == PATTERN * 9 + bytes(MiB)
    guest.call("blkdiscard", "-o", str(8 * MiB), "-l", str(MiB), f"/dev/{vg}/other")


def test_room_is_looked_for_before(vg: str, small: str) -> None:
    volumes = guest.volumes(vg)
    data = stream(80 * MiB, {0: PATTERN * 12, 40 * MiB: PATTERN * 12})
    ended = volwrite("--create", f"lvm:{small}/new", data=data[:4096])
    assert ended.status == 1, "before the rest of the stream is missed"
    assert f"there is no room for {24 * MiB} bytes in the pool {small} above its reserve of 5 %" in ended.stderr
    assert guest.volumes(vg) == volumes
