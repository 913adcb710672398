"""Whatever is written into a thin volume reads back, though a chunk that a pool gives out holds a stranger's data."""

from __future__ import annotations

import io
import os
import tempfile
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import Reader
from qbtools.volumes.kind import TargetOptions
from qbtools.volumes.lvm import newvolume
from qbtools.volumes.lvm.newvolume import ThinTarget
from qbtools.volumes.lvm.pool import Pool, State
from qbtools.volumes.readback import Comparison, witness
from qbtools.volumes.writing import Filling

KiB = 1 << 10
STRANGER = b"\xaa"


class Endless(Pool):
    def state(self) -> State:
        return State(0, 1 << 30, 0, 1 << 30)


class Volume(ThinTarget):
    """A thin volume whose blocks lie in a file: what is given out for it is full of a stranger's bytes."""

    def __init__(self, capacity: int, chunk: int, zeroing: bool) -> None:
        super().__init__("vg/new", "vg", "new", "pool", None, TargetOptions())
        self.blocks = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self.fd = os.dup(self.blocks.fileno())
        os.ftruncate(self.fd, capacity)
        self.capacity = capacity
        self.given: set[int] = set()
        self._begin(Endless("vg", "pool", chunk, zeroing))

    def close(self) -> None:
        super().close()
        self.blocks.close()

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        chunk = self._pool.chunk
        for number in range(offset // chunk, (offset + len(data) - 1) // chunk + 1):
            if number not in self.given:
                self.given.add(number)
                size = min(chunk, (self.capacity or 0) - number * chunk)
                os.pwrite(self.fd, (b"\0" if self._pool.zeroing else STRANGER) * size, number * chunk)
        super().write(data, offset)


@st.composite
def volumes(draw: st.DrawFn) -> tuple[int, list[tuple[int, bytes]]]:
    """A size in sectors' bytes, and pieces of data: some of them zeros, or with zeros in them."""
    size = draw(st.integers(1, 1 << 11)) * 512
    edges = sorted(draw(st.sets(st.integers(0, size // 512), max_size=16)))
    pieces = []
    for begin, end in zip(edges[::2], edges[1::2], strict=False):
        length = (end - begin) * 512
        data = bytearray(draw(st.sampled_from([b"\0", b"x", b"x"])) * length)
        hole = draw(st.integers(0, length)) // 512 * 512
        data[hole : hole + 70 * KiB] = bytes(len(data[hole : hole + 70 * KiB]))
        pieces.append((begin * 512, bytes(data)))
    return size, pieces


@settings(max_examples=150, deadline=None)
@given(volumes(), st.sampled_from([64, 192, 256]), st.booleans(), st.integers(0, 3), st.integers(1, 20))
@example((1 << 20, [(192 * KiB, b"x" * 512)]), 192, True, 0, 5)  # a fifth of it ends within the chunk
def test_it_reads_back(
    volume: tuple[int, list[tuple[int, bytes]]], chunk: int, zeroing: bool, spare: int, parts: int
) -> None:
    """spare: of the last extent, beyond the volume. parts: of how many it is known whether they have blocks."""
    size, pieces = volume
    chunk *= KiB
    extents = ExtentMap(size, gap=0)
    expected = bytearray(size + spare * 100 * 512)
    for offset, data in pieces:
        extents.append(offset, len(data))
        expected[offset : offset + len(data)] = data
    with mock.patch.object(newvolume, "_PARTS", parts), Volume(len(expected), chunk, zeroing) as target:
        seen = witness()
        filling = Filling(Reader(io.BytesIO(b"".join(data for _, data in pieces))), target, seen.update)
        filling.data(extents)
        filling.finish(size)
        target.blocks.seek(0)
        assert target.blocks.read() == expected
        assert target.given == {at // chunk for at in range(0, len(expected), 512) if any(expected[at : at + 512])}
        Comparison(target, extents, seen.digest()).run()
        for number in sorted(target.given)[:3]:  # a byte that is wrong is found wherever blocks are
            for at in {number * chunk, number * chunk + chunk // 2, (number + 1) * chunk - 1}:
                at = min(at, len(expected) - 1)
                os.pwrite(target.fd, b"\xff", at)
                with pytest.raises(Failed):
                    Comparison(target, extents, seen.digest()).run()
                os.pwrite(target.fd, expected[at : at + 1], at)
