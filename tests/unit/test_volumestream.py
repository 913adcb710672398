"""The map of a volume, and the header and the end of its stream."""

from __future__ import annotations

import io

import pytest

from qbtools.errors import Damaged, Truncated
from qbtools.formats import volumestream
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import Reader, Writer

KIB = 1 << 10
MIB = 1 << 20


class Drops(io.RawIOBase):
    """Gives its bytes a few at a time."""

    def __init__(self, data: bytes, step: int = 1) -> None:
        self._data, self._step = data, step

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        part = self._data[: min(self._step, len(buffer))]
        self._data = self._data[len(part) :]
        buffer[: len(part)] = part
        return len(part)


def added(size: int, *extents: tuple[int, int]) -> list[tuple[int, int]]:
    made = ExtentMap(size)
    for extent in extents:
        made.add(*extent)
    return list(made)


def header_of(extents: ExtentMap) -> bytes:
    file = io.BytesIO()
    volumestream.write_header(Writer(file), extents)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "extents", "expected"),
    [
        (MIB, [], []),
        (MIB, [(0, MIB)], [(0, MIB)]),
        (MIB, [(0, 1)], [(0, 512)]),
        (MIB, [(511, 2)], [(0, 1024)]),
        (MIB, [(512, 512)], [(512, 512)]),
        (MIB, [(1000, 24)], [(512, 512)]),
        (MIB, [(0, 512), (512, 512)], [(0, 1024)]),
        (MIB, [(0, 100), (200, 100)], [(0, 512)]),
        (MIB, [(0, 512), (64 * KIB, 512)], [(0, 64 * KIB + 512)]),
        (MIB, [(0, 512), (64 * KIB + 512, 512)], [(0, 512), (64 * KIB + 512, 512)]),
        (MIB, [(0, 4096), (512, 512)], [(0, 4096)]),
        (MIB, [(0, 0), (512, 0)], []),
        (1000, [(0, 1000)], [(0, 1000)]),
        (1000, [(999, 1)], [(512, 488)]),
        (1000, [(0, 5000)], [(0, 1000)]),
        (1000, [(2000, 512)], []),
        (1024, [(1024, 1)], []),
        (1000, [(1001, 1)], []),
        (0, [(0, 512)], []),
        ((1 << 63) - 1, [((1 << 63) - 2, 1)], [((1 << 63) - 512, 511)]),
    ],
)
def test_add(size: int, extents: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    assert added(size, *extents) == expected


def test_add_wants_order() -> None:
    made = ExtentMap(MIB)
    made.add(512 * KIB, 512)
    with pytest.raises(ValueError, match="ascending"):
        made.add(0, 512)


def test_a_map_without_gap_joins_only_extents_that_touch() -> None:
    made = ExtentMap(MIB, gap=0)
    for offset in (0, 512, 1536):
        made.add(offset, 512)
    assert list(made) == [(0, 1024), (1536, 512)]


def test_a_full_map_gets_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumestream, "MAX_EXTENTS", 4)
    made = ExtentMap(100 * MIB)
    # Holes of 64 KiB, 300 KiB, 1 MiB, 128 KiB, 5 MiB.
    end = 0
    for hole in (64, 300, 1024, 128, 5 * 1024):
        made.add(end + hole * KIB, 4096)
        end += hole * KIB + 4096
    assert made.gap == 256 * KIB
    assert len(made) == 4
    assert made.data == 5 * 4096 + 128 * KIB
    assert made.end == end
    made.add(90 * MIB, 4096)
    assert made.gap == 512 * KIB
    assert [offset for offset, _ in made] == [64 * KIB, 1388 * KIB + 8192, end - 4096, 90 * MIB]


def test_a_full_map_accepts_more_extents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumestream, "MAX_EXTENTS", 1)
    made = ExtentMap((1 << 63) - 1)
    made.add(0, 512)
    made.add(1 << 62, 512)
    assert list(made) == [(0, (1 << 62) + 512)]


@pytest.mark.parametrize("size", [-1, 1 << 63])
def test_sizes_that_no_volume_has(size: int) -> None:
    with pytest.raises(ValueError, match="a volume cannot have"):
        ExtentMap(size)


def test_append_takes_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumestream, "MAX_EXTENTS", 2)
    made = ExtentMap(4096)
    made.append(0, 512)
    made.append(512, 512)
    with pytest.raises(ValueError, match="there are more than 2 extents"):
        made.append(2048, 512)
    assert list(made) == [(0, 512), (512, 512)]


def test_bytes_of_a_stream() -> None:
    made = ExtentMap(4294967296)
    made.add(0, 4194304)
    made.add(8388608, 1048576)
    assert header_of(made) == b"qb-volume 1\nsize 4294967296\nextents 2\n0 4194304\n8388608 1048576\n\n"
    file = io.BytesIO()
    volumestream.write_end(Writer(file), made)
    assert file.getvalue() == b"end 5242880\n"


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_the_reader_is_at_the_data(step: int) -> None:
    made = ExtentMap(MIB)
    made.add(4096, 4096)
    made.add(MIB - 512, 512)
    reader = Reader(Drops(header_of(made) + b"data\nend 4608\n", step))
    found = volumestream.read_header(reader)
    assert (found.size, list(found)) == (MIB, list(made))
    assert reader.position == len(header_of(made))
    assert reader.read_exact(5) == b"data\n"
    volumestream.read_end(reader, found)


def test_a_map_of_the_most_extents() -> None:
    count = volumestream.MAX_EXTENTS
    made = ExtentMap(count * 1024, gap=0)
    for at in range(count):
        made.append(at * 1024, 512)
    found = volumestream.read_header(Reader(io.BytesIO(header_of(made))))
    assert len(found) == count
    assert (found.data, found.end) == (count * 512, made.end)


@pytest.mark.parametrize(
    ("tail", "error"),
    [
        (b"", Truncated),
        (b"en", Truncated),
        (b"end 512", Truncated),
        (b"end 513\n", Damaged),
        (b"end 512\n\n", Damaged),
        (b"\nend 512\n", Damaged),
        (b"x" * 64, Damaged),
    ],
)
def test_ends(tail: bytes, error: type[Damaged]) -> None:
    made = ExtentMap(512)
    made.add(0, 512)
    with pytest.raises(Damaged) as caught:
        volumestream.read_end(Reader(io.BytesIO(tail)), made)
    assert caught.type is error


def test_write_plain() -> None:
    made = ExtentMap(4096, gap=0)
    made.add(512, 512)
    made.add(2048, 1024)
    file = io.BytesIO()
    volumestream.write_plain(Writer(file), Reader(io.BytesIO(b"A" * 512 + b"B" * 1024)), made)
    assert file.getvalue() == bytes(512) + b"A" * 512 + bytes(1024) + b"B" * 1024 + bytes(1024)


def test_write_plain_notices_the_end() -> None:
    made = ExtentMap(512)
    made.add(0, 512)
    with pytest.raises(Truncated):
        volumestream.write_plain(Writer(io.BytesIO()), Reader(io.BytesIO(b"A" * 511)), made)
