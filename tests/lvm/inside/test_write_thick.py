"""Volumes that are not thin: made, where what was deleted must not show through, and written over in place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lvm import guest
from lvm.filling import Fed, attributes, good, holds, stream, volwrite
from lvm.guest import MiB

PATTERN = os.urandom(MiB)
SECRET = b"deleted " * (MiB // 8)
PIECES = {512: PATTERN[:1024], 3 * MiB + 1024: PATTERN}
GROUP, ROOM = "tg", 24


@pytest.fixture(scope="module")
def tg() -> Iterator[str]:
    """A group without a pool; all of it has been written to by a volume that was deleted."""
    with guest.group(GROUP, (ROOM + 4) * MiB):
        device = guest.thick(f"{GROUP}/deleted", ROOM * MiB)
        guest.write(device, 0, SECRET * ROOM)
        guest.remove(f"{GROUP}/deleted")
        yield GROUP


@pytest.fixture(autouse=True)
def clean(tg: str) -> Iterator[None]:
    yield
    left = guest.volumes(tg)
    if left:
        guest.remove(*(f"{tg}/{name}" for name in left))
    assert not [name for name in left if name.startswith("qbtools")]


def test_a_new_volume_shows_nothing_of_what_was_there(tg: str) -> None:
    good(volwrite("--create", "--verify", f"{tg}/new-one", data=stream(9 * MiB + 512, PIECES)))
    assert holds(Path(f"/dev/{tg}/new-one"), 12 * MiB, PIECES)
    assert attributes(f"{tg}/new-one", "lv_tags,lv_layout,lv_active") == ["", "linear", "active"]
    ended = volwrite("--create", f"lvm:{tg}/new-one", data=stream(MiB, {}))
    assert (ended.status, f"{tg}/new-one already exists" in ended.stderr) == (5, True)
    ended = volwrite("--create", f"lvm:{tg}/second", data=stream(16 * MiB, {}))
    assert (ended.status, "insufficient free space" in ended.stderr) == (1, True)


def test_an_old_volume_is_written_over(tg: str) -> None:
    """It keeps its size, with zeros, where it need not grow; it shrinks where that is allowed."""
    device = guest.thick(f"{tg}/old", 12 * MiB, "--addtag", "mine")
    guest.write(device, 0, SECRET * 12)
    before = attributes(f"{tg}/old", "lv_uuid,lv_tags")
    good(volwrite("--overwrite", "--verify", device, data=stream(8 * MiB, PIECES)))
    assert holds(device, 12 * MiB, PIECES)
    ended = volwrite("--overwrite", "--shrink", f"{tg}/old", data=stream(5 * MiB, PIECES))
    assert ended.status == 0
    assert ended.stderr == f"qb-volwrite: warning: {tg}/old: shrinking it from {12 * MiB} to {8 * MiB} bytes\n"
    assert holds(device, 8 * MiB, PIECES)
    assert attributes(f"{tg}/old", "lv_uuid,lv_tags") == before


def test_one_that_is_not_active_is_active_meanwhile_and_grows(tg: str) -> None:
    device = guest.thick(f"{tg}/old", 8 * MiB)
    guest.lvm("lvchange", "-qq", "-an", f"{tg}/old")
    good(volwrite("--overwrite", f"lvm:{tg}/old", data=stream(9 * MiB, PIECES)))
    assert attributes(f"{tg}/old", "lv_active") == [""]
    guest.lvm("lvchange", "-qq", "-ay", f"{tg}/old")
    assert holds(device, 12 * MiB, PIECES)


def test_a_volume_in_use_is_refused(tg: str) -> None:
    device = guest.thick(f"{tg}/old", 8 * MiB)
    guest.write(device, 0, SECRET)
    with device.open("rb"):
        ended = volwrite("--overwrite", f"{tg}/old", data=stream(17 * MiB, PIECES))
    assert (ended.status, f"in use: process {os.getpid()}" in ended.stderr) == (5, True)
    assert guest.read(device, 0, MiB) == SECRET
    assert attributes(f"{tg}/old", "lv_size") == [str(8 * MiB)]


def test_what_is_not_whole_is_removed(tg: str) -> None:
    with Fed(tg, "--create", f"lvm:{tg}/new") as running:
        running.begin(stream(8 * MiB, {0: PATTERN * 8})[: 2 * MiB])
        ended = running.wait()
    assert (ended.status, "ends too early" in ended.stderr) == (4, True)
    assert not guest.volumes(tg)
