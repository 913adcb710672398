"""Which places of two clones count as the same, by maps that no test can make a file system give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qbtools.errors import Failed
from qbtools.volumes import kernel
from qbtools.volumes.files import sharing

K = 1 << 16
SHARED, LAST = 0x2000, 1
Extent = tuple[int, int, int, int]


class Disk:
    """Two files of 8 blocks, with maps of their own."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.maps: dict[int, list[list[Extent]]] = {}
        self.old, self.new = (os.open(place / name, os.O_RDWR | os.O_CREAT) for name in ("old", "new"))
        for fd in (self.old, self.new):
            os.truncate(fd, 8 * K)
        patch.setattr(sharing.inuse, "file_system", lambda _fd: "btrfs")
        patch.setattr(kernel, "on_realtime_device", lambda _fd: False)
        patch.setattr(kernel, "file_extents", self.extents)

    def extents(self, fd: int, start: int) -> list[Extent]:
        """At most two at once; a new map each time when one is read from its beginning."""
        maps = self.maps[fd]
        if start == 0 and len(maps) > 1:
            maps.pop(0)
        return [one for one in maps[0] if one[0] + one[2] > start][:2]

    def changed(self, old: list[Extent], new: list[Extent], *later: list[Extent]) -> list[tuple[int, int]]:
        """In blocks. later: the maps of the old file when it is read again."""
        self.maps = {self.old: [old, old, *later], self.new: [new]}
        return [(at / K, length / K) for at, length in sharing.changed(self.old, self.new, K)]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


def extent(at: float, length: float, place: float, flags: int = SHARED) -> Extent:
    return int(at * K), int(place * K), int(length * K), flags


WHOLE = [extent(0, 8, 100)]


def test_the_same_places(disk: Disk) -> None:
    assert disk.changed([], []) == []
    assert disk.changed(WHOLE, WHOLE) == []
    assert disk.changed(WHOLE, [extent(0, 3, 100), extent(3, 2, 103), extent(5, 3, 105, SHARED | LAST)]) == []


def test_what_differs_is_rounded_to_blocks(disk: Disk) -> None:
    assert disk.changed(WHOLE, []) == [(0, 8)]
    assert disk.changed([], WHOLE) == [(0, 8)]
    middle = [extent(0, 2.25, 100), extent(2.25, 0.25, 300), extent(2.5, 5.5, 102.5)]
    assert disk.changed(WHOLE, middle) == [(2, 1)]
    assert disk.changed(middle, WHOLE) == [(2, 1)]
    assert disk.changed(WHOLE, [extent(0, 4, 100), extent(4.5, 3.5, 104.5)]) == [(4, 1)]
    assert disk.changed(WHOLE, [extent(0, 4, 104), extent(4, 4, 100)]) == [(0, 8)], "they have changed places"


@pytest.mark.parametrize("flag", [0x2, 0x4, 0x8, 0x80, 0x100, 0x200, 0x400, 0x800, 0x4000, 1 << 31])
def test_places_that_say_nothing(disk: Disk, flag: int) -> None:
    """Not known, not written yet, compressed, encrypted, inline, of the tail of another, reserved, of the future."""
    odd = [extent(0, 2, 100), extent(2, 1, 102, SHARED | flag), extent(3, 5, 103)]
    assert disk.changed(odd, odd) == [(2, 1)]
    assert disk.changed(WHOLE, odd) == disk.changed(odd, WHOLE) == [(2, 1)]


def test_what_is_not_shared_has_changed(disk: Disk) -> None:
    alone = [extent(0, 8, 100, 0)]
    assert disk.changed(alone, WHOLE) == disk.changed(WHOLE, alone) == disk.changed(alone, alone) == [(0, 8)]


def test_a_map_that_changes_meanwhile(disk: Disk) -> None:
    moved = [extent(0, 4, 100), extent(4, 4, 200)]
    for later in ([moved], [WHOLE, moved]):
        with pytest.raises(Failed, match="is moving data"):
            disk.changed(WHOLE, WHOLE, *later)
    assert disk.changed(WHOLE, WHOLE, WHOLE, WHOLE) == []


@pytest.mark.parametrize(
    "odd",
    [
        [extent(4, 1, 104), extent(0, 1, 100), extent(5, 1, 105)],
        [extent(0, 2, 100), extent(0, 2, 100), extent(0, 2, 100), extent(0, 2, 100)],
        [extent(0, 4, 100), extent(2, 1, 300), extent(6, 1, 106)],
        [extent(0, 0, 100), extent(0, 0, 100)],
    ],
)
def test_maps_that_are_not_in_order(disk: Disk, odd: list[Extent]) -> None:
    try:
        assert disk.changed(WHOLE, odd)
    except Failed as error:
        assert "no map that is in order" in error.message


def test_sizes(disk: Disk) -> None:
    """The block in which the older clone ended counts as changed, because nothing tells what its rest was."""
    os.truncate(disk.old, 2 * K + 1)
    assert disk.changed([extent(0, 2.5, 100)], [extent(0, 2.5, 100)]) == [(2, 1)]
    assert disk.changed([extent(0, 2.5, 100)], [extent(0, 1, 100), extent(1, 1, 7), extent(7, 1, 9)]) == [
        (1, 2),
        (7, 1),
    ]
    assert disk.changed(WHOLE, [extent(0, 1, 1), extent(1, 7, 101)]) == [(0, 1), (2, 6)]
    os.truncate(disk.old, 8 * K)
    os.truncate(disk.new, 8 * K + 1)
    assert disk.changed(WHOLE, WHOLE) == []
    assert disk.changed(WHOLE, [*WHOLE, extent(8, 1, 9)]) == [(8, 1 / K)]


def test_other_places(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "on_realtime_device", lambda fd: fd == disk.new)
    with pytest.raises(Failed, match="realtime"):
        disk.changed(WHOLE, WHOLE)
    monkeypatch.setattr(sharing.inuse, "file_system", lambda _fd: "overlay")
    with pytest.raises(Failed, match="not on the same btrfs or xfs"):
        disk.changed(WHOLE, WHOLE)
