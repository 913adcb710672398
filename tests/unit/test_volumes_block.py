"""Block devices as volumes, on loop devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from devices import loop, mounted

from qbtools.errors import Failed, Refused
from qbtools.volumes import kernel
from qbtools.volumes.kind import SourceOptions, TargetOptions
from qbtools.volumes.kinds.block import BlockSource, BlockTarget

SIZE = 4 << 20
STAIN = b"\xaa" * SIZE


@pytest.fixture()
def device(tmp_path: Path) -> Iterator[Path]:
    """A device that is full of something else."""
    (tmp_path / "disk").write_bytes(STAIN)
    with loop(tmp_path / "disk") as found:
        yield found


def content(device: Path) -> bytes:
    """The content of the device, without cached pages."""
    with device.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read(SIZE)


# --- reading ---


def test_the_size_is_the_devices_and_the_map_one_extent(device: Path) -> None:
    with BlockSource(str(device), SourceOptions()) as source:
        assert source.size == SIZE
        assert list(source.extents()) == [(0, SIZE)]
        source.check()


def test_stale_pages_are_not_read(device: Path, tmp_path: Path) -> None:
    with device.open("rb", buffering=0) as other:  # the cache lives as long as somebody has the device open
        assert other.read(SIZE) == STAIN
        with (tmp_path / "disk").open("r+b") as disk:
            disk.write(b"new")
        assert os.pread(other.fileno(), 3, 0) == STAIN[:3], "the page is stale: else this test shows nothing"
        with BlockSource(str(device), SourceOptions()) as source:
            assert os.pread(source.fd, 3, 0) == b"new"


# --- zeros ---

RANGES = [
    (0, SIZE),
    (0, 1),
    (1, 1),
    (0, 4096),
    (512, 512),
    (4095, 2),
    (4096, 8192),
    (5000, 100_000),
    (100_000, 5),
    (SIZE - 1, 1),
    (SIZE - 70_000, 70_000),
    (8192, 0),
]


def no_way(_fd: int, _offset: int, _length: int) -> None:
    raise OSError(95, "not supported")


@pytest.mark.parametrize(
    "ways", [None, [kernel.zero_out], [no_way, no_way]], ids=["punch", "zeros of the kernel", "zeros of ours"]
)
def test_ranges_read_as_zeros_and_nothing_beside_them(
    device: Path, ways: list[Callable[[int, int, int], None]] | None
) -> None:
    for offset, length in RANGES:
        with BlockTarget(str(device), TargetOptions(overwrite=True)) as target:
            assert target.capacity == SIZE
            if ways is not None:
                target._ways = list(ways)
            target.write(STAIN, 0)
            target.zero(offset, length)
            target.flush(SIZE)
            assert target._ways == (ways or [kernel.punch, kernel.zero_out]) or no_way in (ways or []), "a way failed"
        assert content(device) == STAIN[:offset] + bytes(length) + STAIN[offset + length :]


def test_a_punched_device_gives_the_blocks_back(device: Path, tmp_path: Path) -> None:
    os.sync()
    before = (tmp_path / "disk").stat().st_blocks
    with BlockTarget(str(device), TargetOptions(overwrite=True)) as target:
        target.zero(1 << 20, 2 << 20)
        target.flush(SIZE)
        assert target._ways[0] is kernel.punch
    assert (tmp_path / "disk").stat().st_blocks <= before - (2 << 20) // 512


def test_a_device_that_cannot_punch(tmp_path: Path) -> None:
    with mounted(tmp_path / "ram", "none", "ramfs") as place:
        (place / "disk").write_bytes(STAIN)
        with loop(place / "disk") as device:
            with BlockTarget(str(device), TargetOptions(overwrite=True)) as target:
                target.zero(1000, 100_000)
                target.flush(SIZE)
                assert kernel.punch not in target._ways, "ramfs has learned to punch: this test shows nothing"
            assert content(device) == STAIN[:1000] + bytes(100_000) + STAIN[101_000:]
        (place / "disk").unlink()


def test_sectors_of_4096_bytes(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(STAIN)
    with loop(tmp_path / "disk", "--sector-size", "4096") as device:
        with BlockTarget(str(device), TargetOptions(overwrite=True)) as target:
            target.write(b"new", 513)
            target.zero(516, SIZE - 516)
            target.flush(516)
        assert content(device) == STAIN[:513] + b"new" + bytes(SIZE - 516)


# --- refused ---


def test_a_device_is_something_that_exists(device: Path) -> None:
    with pytest.raises(Refused, match="exists"):
        BlockTarget(str(device), TargetOptions(overwrite=False))


def test_too_small(device: Path) -> None:
    with BlockTarget(str(device), TargetOptions(overwrite=True)) as target:
        target.start(None)
        target.start(SIZE)
        with pytest.raises(Refused, match=f"is too small: it has {SIZE} bytes, the volume {SIZE + 1}"):
            target.start(SIZE + 1)
    assert content(device) == STAIN


def test_read_only(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(STAIN)
    with loop(tmp_path / "disk", "--read-only") as device:
        with pytest.raises(Failed, match=f"cannot write to {device}: the device is read-only"):
            BlockTarget(str(device), TargetOptions(overwrite=True))


def test_it_is_claimed_while_it_is_written(device: Path) -> None:
    with BlockTarget(str(device), TargetOptions(overwrite=True)):
        with pytest.raises(Refused, match="is in use"):
            BlockTarget(str(device), TargetOptions(overwrite=True))
    before = os.listdir("/proc/self/fd")
    BlockTarget(str(device), TargetOptions(overwrite=True)).close()
    assert os.listdir("/proc/self/fd") == before
