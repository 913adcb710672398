"""Reading inner archives: cases that no vector can hold. Formats and faults are in tests/vectors/inner."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from vectors.tarbytes import END, head, number, old, pax, regular, sparse

from qbtools.errors import Damaged, Refused, Truncated
from qbtools.formats import pax as pax_records
from qbtools.formats import tarreader, ustar, volumestream
from qbtools.formats.tarreader import TarReader
from qbtools.streams import SPOILT, Reader


class Parts(io.RawIOBase):
    """An input whose blocks are made when they are read."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._left = b""

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        self._left = self._left or next(self._parts, b"")
        part = self._left[: len(buffer)]
        self._left = self._left[len(part) :]
        buffer[: len(part)] = part
        return len(part)


def archive(data: bytes, step: int = 1 << 20) -> tuple[TarReader, Reader]:
    reader = Reader(Parts(data[at : at + step] for at in range(0, len(data), step)))
    return TarReader(reader), reader


def test_extended_headers_in_front_of_one_member_are_few() -> None:
    header = pax(("comment", "x"))
    tar, _ = archive(header * 16 + regular(b"a", b"a") + header * 16 + regular(b"b", b"b") + END)
    found = [tar.next(), tar.next(), tar.next()]
    assert [member and member.untrusted_name for member in found] == ["a", "b", None]
    tar, _ = archive(header * 17 + regular(b"a", b"a") + END)
    with pytest.raises(Damaged, match="^more than 16 extended headers stand in front of one member$"):
        tar.next()


THREE = regular(b"abc", b"a") + sparse(4096, [(512, 512), (4096, 0)], b"B" * 512) + regular(b"C" * 1000, b"c")


@pytest.mark.parametrize("step", [1, 100, 512, 1 << 20])
@pytest.mark.parametrize("taken", [0, 100, 512])
def test_members_one_after_the_other(step: int, taken: int) -> None:
    """After any part of the data was read, with or without reading the map."""
    tar, reader = archive(THREE + END, step)
    first = tar.next()
    assert first is not None
    assert (first.untrusted_name, first.size, first.kind) == ("a", 3, "")
    second = tar.next()
    assert second is not None
    assert (second.untrusted_name, second.size) == ("vm1/private.img", 4096)
    if taken:
        assert list(tar.read_map()) == [(512, 512)]
        assert reader.read_exact(taken) == b"B" * taken
    third = tar.next()
    assert third is not None
    assert (third.untrusted_name, third.size) == ("c", 1000)
    assert tar.read_map().data == 1000
    assert reader.read_exact(1000) == b"C" * 1000
    assert tar.next() is None


def test_a_reader_that_was_used_before() -> None:
    reader = Reader(io.BytesIO(b"x" * 1000 + THREE + END))
    reader.skip(1000)
    tar = TarReader(reader)
    assert tar.find("c").size == 1000
    tar.finish()


def test_find_skips_and_finish_looks_on() -> None:
    tar, reader = archive(THREE + END)
    assert tar.find("vm1/private.img").size == 4096
    tar.read_map()
    reader.skip(512)
    tar.finish()
    assert reader.at_eof()


def test_finish_wants_the_data() -> None:
    tar, _ = archive(THREE[:-600])
    tar.find("a")
    with pytest.raises(Truncated):
        tar.finish()


def test_global_records_hold_for_all_that_follow() -> None:
    shared = pax(("path", "shared"), kind=b"g")
    tar, _ = archive(shared + regular(b"1") + pax(("path", "own")) + regular(b"2") + regular(b"3") + END)
    names = []
    while member := tar.next():
        names.append(member.untrusted_name)
    assert names == ["shared", "own", "shared"]


def endless(entries: int, value: int) -> Iterator[bytes]:
    """An old sparse member whose map goes on for about so many entries of a length."""
    yield old(1 << 62, [(at * value, value) for at in range(4)], b"", endless=True)
    at = 4
    while at < entries:
        block = b"".join(number((at + more) * value) + number(value) for more in range(21))
        yield block + b"\1".ljust(8, b"\0")
        at += 21


@pytest.fixture
def few_extents(monkeypatch: pytest.MonkeyPatch) -> int:
    """Sets a small limit of extents."""
    for module in (volumestream, tarreader):
        monkeypatch.setattr(module, "MAX_EXTENTS", 1000)
    return 1000


@pytest.mark.usefixtures("few_extents")
@pytest.mark.parametrize("length", [0, 512])
def test_an_old_map_without_end_is_refused(length: int) -> None:
    tar = TarReader(Reader(Parts(endless(1 << 40, length))))
    tar.find(None)
    with pytest.raises(Refused, match="has more than 1000 extents"):
        tar.read_map()


def test_a_pax_map_of_one_too_many(few_extents: int) -> None:
    """One line more than the limit is allowed, for the entry at the end."""
    for last, allowed in ((0, True), (512, False)):
        entries = [*((at * 1024, 512) for at in range(few_extents)), ((1 << 30) - last, last)]
        tar, _ = archive(sparse(1 << 30, entries, b""))
        tar.find(None)
        with pytest.raises(Damaged if allowed else Refused, match="does not fit" if allowed else "more than 1000"):
            tar.read_map()


def test_headers_without_end_take_no_memory() -> None:
    """Global headers are merged, not kept: at most one value for each of a few keys."""
    import tracemalloc

    def parts() -> Iterator[bytes]:
        for at in range(300):
            yield pax((f"key{at}", "x" * 100_000), ("path", "y" * 100_000), kind=b"g")
        yield END

    tracemalloc.start()
    try:
        tar = TarReader(Reader(Parts(parts())))
        assert tar.next() is None
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"00000000017\0", 15),
        (b"77777777777\0", 8**11 - 1),
        (b"777777777777", 8**12 - 1),
        (b"  17 \0\0\0\0\0\0\0", 15),
        (b"\x80" + (1 << 40).to_bytes(11, "big"), 1 << 40),
        (b"\x80" + ((1 << 63) - 1).to_bytes(11, "big"), (1 << 63) - 1),
    ],
)
def test_numbers(field: bytes, value: int) -> None:
    assert ustar.number(field) == value


@pytest.mark.parametrize(
    "field", [b"", b"\0", b"        ", b"8", b"1_0", b"+1", b"0o7", b"1\x002", b"\xc0\0\0\1", b"\x80" + b"\xff" * 8]
)
def test_no_numbers(field: bytes) -> None:
    with pytest.raises(Damaged):
        ustar.number(field.ljust(1, b"\0"))


def test_pax_lengths_around_a_power_of_ten() -> None:
    for size in [*range(1, 20), *range(85, 105), *range(980, 1010), *range(9_980, 10_010)]:
        built = pax_records.build({"k": "v" * size})
        assert int(built.split(b" ")[0]) == len(built)
        assert pax_records.parse(built, [b"k"]) == {b"k": b"v" * size}


def test_headers_are_not_read_as_data() -> None:
    """A body that looks like a header is data all the same."""
    inner = head(b"evil", 0)
    tar, reader = archive(regular(inner) + END)
    tar.find(None)
    tar.read_map()
    assert reader.read_exact(512) == inner
    tar.finish()


@pytest.mark.parametrize("rubbish", [b"", b"x" * 512, b"x" * 100_000])
@pytest.mark.parametrize("step", [100, 1 << 20])
def test_the_rest_of_a_failed_program(rubbish: bytes, step: int) -> None:
    """Rubbish in place of a header comes from that program, which reports its own error; the archive ends too early."""
    reader, _ = archive(THREE + rubbish + SPOILT, step)
    with pytest.raises(Truncated):
        while reader.next():
            pass
    reader, _ = archive(THREE + rubbish + b"x" * 1024, step)
    with pytest.raises(Damaged) as caught:
        while reader.next():
            pass
    assert not isinstance(caught.value, Truncated)
