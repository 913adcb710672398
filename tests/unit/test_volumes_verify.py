"""A target is read back: every difference is noticed."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices import loop

from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import BLOCK, Reader
from qbtools.volumes.files.target import FileTarget
from qbtools.volumes.kind import TargetOptions
from qbtools.volumes.kinds.block import BlockTarget
from qbtools.volumes.readback import Comparison, witness
from qbtools.volumes.writing import Filling

SIZE = 5 * BLOCK + 100
EXTENTS = [(0, 4096), (8192, BLOCK + 512), (4 * BLOCK, 8192)]


@pytest.fixture()
def written(tmp_path: Path) -> Iterator[tuple[FileTarget, Comparison]]:
    """A target that is written, and what would compare it."""
    extents = ExtentMap(SIZE)
    for offset, length in EXTENTS:
        extents.append(offset, length)
    seen = witness()
    with FileTarget(str(tmp_path / "v"), TargetOptions(overwrite=False)) as target:
        data = os.urandom(extents.data - 4096) + bytes(4096)
        filling = Filling(Reader(io.BytesIO(data)), target, seen.update)
        filling.data(extents)
        filling.finish(SIZE)
        yield target, Comparison(target, extents, seen.digest())


def test_what_was_written_compares(written: tuple[FileTarget, Comparison]) -> None:
    _target, comparison = written
    comparison.run()
    assert comparison.done == sum(length for _offset, length in EXTENTS)


@pytest.mark.parametrize("at", [0, 4095, 8192, 8192 + BLOCK + 511, 4 * BLOCK, 4 * BLOCK + 8191])
def test_a_byte_of_the_data_differs(written: tuple[FileTarget, Comparison], at: int) -> None:
    target, comparison = written
    before = os.pread(target.fd, 1, at)
    os.pwrite(target.fd, bytes([before[0] ^ 1]), at)
    with pytest.raises(Failed, match="differs from the data that was written to it"):
        comparison.run()


@pytest.mark.parametrize("at", [4096, 8191, 8192 + BLOCK + 512, 2 * BLOCK, 4 * BLOCK + 8192, SIZE - 1])
def test_a_byte_of_a_hole_is_not_zero(written: tuple[FileTarget, Comparison], at: int) -> None:
    target, comparison = written
    os.pwrite(target.fd, b"\1", at)
    with pytest.raises(Failed, match="is not zero where it should be"):
        comparison.run()


def test_beyond_the_volume_a_device_is_zero(written: tuple[FileTarget, Comparison]) -> None:
    target, comparison = written
    os.ftruncate(target.fd, SIZE + 4096)
    target.capacity = SIZE + 4096
    comparison.run()
    os.pwrite(target.fd, b"\1", SIZE + 4095)
    with pytest.raises(Failed, match="is not zero"):
        comparison.run()


def test_it_became_shorter(written: tuple[FileTarget, Comparison]) -> None:
    target, comparison = written
    os.ftruncate(target.fd, 4 * BLOCK + 1)
    with pytest.raises(Failed, match="is shorter than the data that was written"):
        comparison.run()


def test_the_disk_is_read_and_not_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(BLOCK))
    extents = ExtentMap(BLOCK)
    extents.append(0, 8192)
    seen = witness()
    with loop(tmp_path / "disk") as device, BlockTarget(str(device), TargetOptions(overwrite=True)) as target:
        filling = Filling(Reader(io.BytesIO(b"x" * 8192)), target, seen.update)
        filling.data(extents)
        filling.finish(BLOCK)
        assert os.pread(target.fd, 1, 4096) == b"x"
        with (tmp_path / "disk").open("r+b") as disk:
            disk.seek(4096)
            disk.write(b"y")
        assert os.pread(target.fd, 1, 4096) == b"x", "the page is stale: else this test shows nothing"
        with pytest.raises(Failed, match="differs from the data that was written to it"):
            Comparison(target, extents, seen.digest()).run()
