"""Volume streams and inner archives: what is written is read again, and no mutation does anything but fail or fit."""

from __future__ import annotations

import contextlib
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from qbtools.errors import Damaged, QbError, Refused
from qbtools.formats import pax, sparsetar, volumestream
from qbtools.formats.tarreader import TarReader
from qbtools.formats.volumestream import ALIGN, ExtentMap
from qbtools.streams import Reader, Writer

NAME = "vm1/private.img"
MAX = (1 << 63) - 1

gaps = st.lists(st.tuples(st.integers(0, 1 << 18), st.integers(0, 1 << 17)), max_size=20)


@st.composite
def maps(draw: st.DrawFn) -> ExtentMap:
    """A valid map of a volume of at most 1 MiB."""
    size = draw(st.integers(0, 1 << 20))
    edges = sorted(draw(st.sets(st.integers(0, size // ALIGN), max_size=12)))
    made = ExtentMap(size)
    for first, last in zip(edges[::2], edges[1::2], strict=False):
        made.append(first * ALIGN, (last - first) * ALIGN)
    if size % ALIGN and draw(st.booleans()) and made.end <= size // ALIGN * ALIGN:
        made.append(size // ALIGN * ALIGN, size % ALIGN)
    return made


def data_of(extents: ExtentMap) -> bytes:
    return (bytes(range(1, 252)) * (extents.data // 251 + 1))[: extents.data]


def stream_of(extents: ExtentMap) -> bytes:
    file = io.BytesIO()
    volumestream.write_header(Writer(file), extents)
    file.write(data_of(extents))
    volumestream.write_end(Writer(file), extents)
    return file.getvalue()


def archive_of(extents: ExtentMap) -> bytes:
    file = io.BytesIO()
    sparsetar.write_member_header(Writer(file), NAME, extents)
    file.write(data_of(extents))
    sparsetar.write_member_end(Writer(file), extents)
    return file.getvalue()


def from_stream(data: bytes) -> tuple[ExtentMap, bytes]:
    reader = Reader(io.BytesIO(data))
    extents = volumestream.read_header(reader)
    found = reader.read_exact(extents.data)
    volumestream.read_end(reader, extents)
    return extents, found


def from_archive(data: bytes) -> tuple[str, ExtentMap, bytes]:
    reader = Reader(io.BytesIO(data))
    tar = TarReader(reader)
    member = tar.find(None)
    extents = tar.read_map()
    assert member.size == extents.size
    found = reader.read_exact(extents.data)
    tar.finish()
    return member.untrusted_name, extents, found


def assert_valid(extents: ExtentMap) -> None:
    """What the contract of a map says."""
    end = 0
    for offset, length in extents:
        assert offset >= end
        assert length > 0
        assert offset % ALIGN == 0
        end = offset + length
        assert end <= extents.size
        assert end % ALIGN == 0 or end == extents.size


@given(st.integers(0, 1 << 21), gaps, st.sampled_from([0, 512, 1 << 16]))
def test_what_is_added_is_covered(size: int, parts: list[tuple[int, int]], gap: int) -> None:
    made = ExtentMap(size, gap)
    covered = bytearray(size // ALIGN + 1)
    offset = 0
    for hole, length in parts:
        offset += hole
        made.add(offset, length)
        stop = min(offset + length, size)
        if length and offset < size:
            for block in range(offset // ALIGN, -(-stop // ALIGN)):
                covered[block] = 1
        offset += length
    assert_valid(made)
    found = bytearray(len(covered))
    last = None
    for start, length in made:
        assert last is None or start - last >= max(gap, 1)
        last = start + length
        for block in range(start // ALIGN, -(-last // ALIGN)):
            found[block] = 1
    assert all(there >= wanted for there, wanted in zip(found, covered, strict=True))
    if gap == 0:
        assert found == covered


@given(st.lists(st.tuples(st.integers(0, MAX), st.integers(-1, MAX)), max_size=6), st.integers(0, MAX))
def test_append_takes_valid_maps_only(entries: list[tuple[int, int]], size: int) -> None:
    made = ExtentMap(size)
    for offset, length in entries:
        with contextlib.suppress(ValueError):
            made.append(offset, length)
    assert_valid(made)


@given(maps())
def test_round_trip(extents: ExtentMap) -> None:
    stream_map, data = from_stream(stream_of(extents))
    assert (stream_map.size, list(stream_map), data) == (extents.size, list(extents), data_of(extents))
    name, archive_map, data = from_archive(archive_of(extents))
    assert (name, archive_map.size, data) == (NAME, extents.size, data_of(extents))
    whole = extents.data == extents.size
    assert list(archive_map) == ([(0, extents.size)] if whole and extents.size else list(extents))


@given(maps(), st.data())
def test_every_cut_is_noticed(extents: ExtentMap, data: st.DataObject) -> None:
    """Where the padding of odd data is all that lacks, nothing does: Qubes leaves it out."""
    spare = -extents.data % ALIGN
    for written, read, whole in ((stream_of(extents), from_stream, 0), (archive_of(extents), from_archive, spare)):
        cut = written[: data.draw(st.integers(0, len(written) - whole - 1))]
        try:
            read(cut)  # type: ignore[operator]
        except Damaged:
            continue
        raise AssertionError(f"taken for whole: {len(cut)} of {len(written)} bytes")


@given(maps(), st.integers(0, 1 << 30), st.integers(1, 255), st.sampled_from(["change", "insert", "delete"]))
@settings(max_examples=300)
def test_mutations_fail_or_fit(extents: ExtentMap, at: int, by: int, how: str) -> None:
    """A mutation outside the data: only an error of ours, or what is read is valid."""
    for written, read in ((stream_of(extents), from_stream), (archive_of(extents), from_archive)):
        at %= len(written)
        changed = written[:at]
        if how == "change":
            changed += bytes([written[at] ^ by]) + written[at + 1 :]
        else:
            changed += bytes([by]) + written[at:] if how == "insert" else written[at + 1 :]
        try:
            *_, found, data = read(changed)  # type: ignore[operator]
        except QbError:
            continue
        assert_valid(found)
        assert len(data) == found.data


@given(maps(), st.integers(0, 511), st.integers(1, 255))
def test_a_changed_header_is_noticed(extents: ExtentMap, at: int, by: int) -> None:
    """Any byte of the tar headers themselves, which have a checksum: an error, or the same as before."""
    written = bytearray(archive_of(extents))
    headers = [0, 1024] if written[156:157] == b"x" else [0]
    for start in headers:
        changed = bytearray(written)
        changed[start + at] ^= by
        try:
            name, found, data = from_archive(bytes(changed))
        except QbError:
            continue
        assert (name, list(found), data) == (NAME, list(from_archive(bytes(written))[1]), data_of(extents))


@given(st.dictionaries(st.from_regex(r"[A-Za-z.]{1,20}", fullmatch=True), st.text(max_size=200), max_size=5))
def test_pax_records(records: dict[str, str]) -> None:
    keys = [key.encode() for key in records]
    assert pax.parse(pax.build(records), keys) == {key.encode(): value.encode() for key, value in records.items()}


@given(st.binary(max_size=200))
def test_pax_parses_or_fails(data: bytes) -> None:
    with contextlib.suppress(Damaged):
        pax.parse(data, [b"path"])


@given(st.binary(max_size=3000))
def test_bytes_of_any_kind(data: bytes) -> None:
    for read in (from_stream, from_archive):
        with contextlib.suppress(Damaged, Refused):  # an increment is refused
            read(data)  # type: ignore[operator]
            raise AssertionError("taken for whole")
