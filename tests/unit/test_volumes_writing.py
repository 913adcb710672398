"""How a stream is written, and what becomes a hole."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import Any

import pytest

from qbtools.errors import Failed, Refused, Truncated
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import BLOCK, Reader
from qbtools.volumes.kind import Target
from qbtools.volumes.writing import Filling, nonzero_runs


class Sheet(Target):
    """A target in memory with old content, which records each call."""

    def __init__(self, size: int, grain: int, capacity: int | None) -> None:
        super().__init__("sheet", -1)
        self.bytes = bytearray(b"\xaa" * (capacity or size))
        self.grain = grain
        self.capacity = capacity
        self.calls: list[tuple[str, int, int]] = []

    def start(self, size: int | None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self.calls.append(("write", offset, len(data)))
        self.bytes[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.calls.append(("zero", offset, length))
        self.bytes[offset : offset + length] = bytes(length)

    def flush(self, size: int) -> None:
        self.calls.append(("flush", size, 0))

    def commit(self) -> None:
        pass


def mapped(size: int, *extents: tuple[int, int]) -> ExtentMap:
    found = ExtentMap(size)
    for offset, length in extents:
        found.append(offset, length)
    return found


@pytest.mark.parametrize("grain", [4096, 65536])
def test_runs_are_the_same_as_those_of_a_slow_search(grain: int) -> None:
    choice = random.Random(1)
    for _ in range(300):
        count = choice.choice([0, 1, 511, 512, grain - 1, grain, grain + 1, choice.randrange(8 * grain)])
        head = choice.choice([0, 0, 512, grain - 512])
        buffer = bytearray(count + 5 * grain)
        buffer[count:] = b"\xff" * (5 * grain)  # what an earlier read left in the buffer
        for _ in range(choice.randrange(4)):
            if count:
                buffer[choice.randrange(count)] = 1
        if choice.random() < 0.5:  # data, which may be zeros in the shorter blocks at both ends
            buffer[:count] = b"\1" * count
            for begin, stop in ((0, min(head, count)), (count - max(count - head, 0) % grain, count)):
                if choice.random() < 0.7:
                    buffer[begin:stop] = bytes(stop - begin)
        kept = bytearray(count)
        end = -1
        for begin, stop in nonzero_runs(buffer, count, head, grain):
            assert end < begin < stop <= count, "runs ascend, apart from each other"
            assert all(at in (0, count) or (at - head) % grain == 0 for at in (begin, stop)), "whole blocks"
            kept[begin:stop] = buffer[begin:stop]
            end = stop
        assert kept == buffer[:count], "all that is not zero is in a run"
        edges = [0, *range(head or grain, count, grain), count]
        full = sum(b - a for a, b in zip(edges, edges[1:], strict=False) if any(buffer[a:b]))
        assert sum(b - a for a, b in nonzero_runs(buffer, count, head, grain)) == full, "no zero block is in a run"


class Searched(bytearray):
    """Counts the searches through all of it."""

    searches = 0

    def find(self, *arguments: Any) -> int:
        self.searches += 1
        return super().find(*arguments)


@pytest.mark.parametrize("grain", [4096, 65536])
def test_blocks_that_begin_with_data_are_not_searched(grain: int) -> None:
    buffer = Searched(b"\1".ljust(512, b"\0") * (BLOCK // 512))
    assert [*nonzero_runs(buffer, BLOCK, 512, grain)] == [(0, BLOCK)]
    assert buffer.searches == 0


@pytest.mark.parametrize("grain", [4096, 65536])
@pytest.mark.parametrize("more", [None, 0, 100, 1 << 20])
def test_a_volume_is_written_over_any_old_content(grain: int, more: int | None) -> None:
    choice = random.Random(2)
    for _ in range(20):
        size = choice.choice([0, 1, 513, 70_000, 3 * BLOCK + 17])
        volume = bytearray(size)
        extents = ExtentMap(size, gap=0)
        at = 0
        while at < size:
            at += choice.choice([0, 512, 4096, 65536, 200_704])
            length = choice.choice([512, 4096, 5120, 65536, BLOCK + 512])
            extents.add(at, length)
            volume[at : at + length] = choice.choice([choice.randbytes(length), bytes(length)])[: max(size - at, 0)]
            at += length
        data = b"".join(bytes(volume[offset : offset + length]) for offset, length in extents)
        target = Sheet(size, grain, None if more is None else size + more)
        seen = bytearray()
        filling = Filling(Reader(io.BytesIO(data)), target, seen.extend)
        filling.data(extents)
        filling.finish(size)
        assert bytes(target.bytes) == bytes(volume) + bytes(more or 0)
        assert (bytes(seen), filling.done) == (data, len(data))
        assert target.calls[-1] == ("flush", size, 0)
        ends = 0
        for _what, offset, length in target.calls[:-1]:
            assert offset == ends, "in order, nothing twice, nothing left out"
            ends += length


def test_neighbouring_blocks_are_written_in_one_call_and_zeros_joined() -> None:
    data = b"x" * 8192 + bytes(8192) + b"x" * 4096 + bytes(BLOCK)
    extents = mapped(4 * BLOCK, (0, len(data)))
    target = Sheet(4 * BLOCK, 4096, None)
    filling = Filling(Reader(io.BytesIO(data)), target)
    filling.data(extents)
    filling.finish(extents.size)
    assert target.calls[:-1] == [
        ("write", 0, 8192),
        ("zero", 8192, 8192),
        ("write", 16384, 4096),
        ("zero", 20480, 4 * BLOCK - 20480),
    ]


def test_holes_are_aligned_in_the_volume_wherever_an_extent_begins() -> None:
    data = bytes(4096 - 512) + bytes(8192) + b"x" * 4096 + bytes(BLOCK)
    extents = mapped(2 * BLOCK, (512, len(data)))
    target = Sheet(2 * BLOCK, 4096, None)
    filling = Filling(Reader(io.BytesIO(data)), target)
    filling.data(extents)
    filling.finish(extents.size)
    assert target.calls[:-1] == [
        ("zero", 0, 12288),
        ("write", 12288, 4096),
        ("zero", 16384, 2 * BLOCK - 16384),
    ]


@pytest.mark.parametrize("size", [0, 1, 513, 4096, BLOCK, 2 * BLOCK + 5])
def test_raw_bytes_up_to_eof(size: int) -> None:
    data = os.urandom(size)
    target = Sheet(size, 4096, None)
    filling = Filling(Reader(io.BytesIO(data)), target)
    assert filling.raw() == size
    filling.finish(size)
    assert bytes(target.bytes) == data


def test_raw_bytes_that_fill_the_target_and_one_more() -> None:
    filling = Filling(Reader(io.BytesIO(bytes(4096))), Sheet(0, 4096, 4096))
    assert filling.raw() == 4096
    with pytest.raises(Refused, match="too small: it has 4096 bytes"):
        Filling(Reader(io.BytesIO(bytes(4097))), Sheet(0, 4096, 4096)).raw()


def test_data_that_ends_too_early() -> None:
    extents = mapped(8192, (0, 512), (4096, 4096))
    with pytest.raises(Truncated, match="standard input ends too early"):
        Filling(Reader(io.BytesIO(bytes(512 + 4095))), Sheet(8192, 4096, None)).data(extents)


def test_no_room(tmp_path: Path) -> None:
    class Full(Sheet):
        def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
            Target.write(self, data, offset)

    target = Full(4096, 4096, None)
    target.fd = os.open("/dev/full", os.O_WRONLY)
    with target, pytest.raises(Failed, match="cannot write to sheet: No space left on device"):
        Filling(Reader(io.BytesIO(b"x" * 4096)), target).data(mapped(4096, (0, 4096)))


def test_writes_that_the_kernel_cuts_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Sheet):
        def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
            Target.write(self, data, offset)

    data = os.urandom(10_000)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, view, offset: real(fd, view[:999], offset))
    target = Slow(len(data), 4096, None)
    target.fd = os.open(tmp_path / "v", os.O_RDWR | os.O_CREAT)
    with target:
        Filling(Reader(io.BytesIO(data)), target).data(mapped(len(data), (0, len(data))))
    assert (tmp_path / "v").read_bytes() == data
