"""The outer archive: what is written, and what is refused when it is read."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from qbtools.errors import Damaged, QbError, Refused, Truncated
from qbtools.formats import chunks, outertar
from qbtools.formats.outertar import END_OF_ARCHIVE, Member, MemberReader, MemberWriter
from qbtools.streams import Reader, Writer

LONGEST = "d" * 138 + "/" + "b" * 88 + ".9999999.enc"


def written(*members: tuple[str, bytes], end: bool = True) -> bytes:
    file = io.BytesIO()
    writer = MemberWriter(Writer(file), 1764000000)
    for name, data in members:
        writer.add(name, data)
    if end:
        writer.end_of_archive()
    return file.getvalue()


def reader_of(data: bytes, bound: int = 1 << 20) -> MemberReader:
    return MemberReader(Reader(io.BytesIO(data)), lambda _name: bound)


def read_all(data: bytes, bound: int = 1 << 20) -> list[tuple[str, bytes]]:
    members = reader_of(data, bound)
    found = []
    while member := members.next():
        found.append((member.untrusted_name, members.read_all()))
    return found


def changed(data: bytes, at: int, new: bytes) -> bytes:
    """The data with new at an offset of its first header, and with a corrected checksum."""
    block = bytearray(data[:512])
    block[at : at + len(new)] = new
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + data[512:]


def pax(records: bytes, size: int | None = None) -> bytes:
    """A pax local header."""
    block = written(("PaxHeaders/x", records), end=False)
    block = changed(block, 156, b"x")
    return block if size is None else changed(block, 124, b"%011o" % size)


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


MEMBERS = [
    ("backup-header", b"a=b\n"),
    ("qubes.xml.000.enc", bytes(range(256)) * 2),
    ("vm1/private.img.000.enc", b""),
    (LONGEST, b"x" * 513),
]


# What is written.


def test_python_reads_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(written(*MEMBERS))) as archive:
        for (name, data), info in zip(MEMBERS, archive, strict=True):
            assert (info.name, info.size, info.mtime) == (name, len(data), 1764000000)
            assert (info.type, info.mode, info.uid, info.gid) == (b"0", 0o600, 0, 0)
            assert (info.uname, info.gname, info.pax_headers) == ("", "", {})
            file = archive.extractfile(info)
            assert file and file.read() == data


def test_the_pieces_are_what_the_writer_writes() -> None:
    by_hand = b"".join(
        outertar.header(name, len(data), 1764000000) + data + outertar.padding(len(data)) for name, data in MEMBERS
    )
    assert by_hand + END_OF_ARCHIVE == written(*MEMBERS)
    assert [len(outertar.padding(size)) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]


def test_what_ustar_cannot_hold() -> None:
    assert len(outertar.header(LONGEST, outertar.MAX_BODY, 0)) == 512
    assert chunks.MAX_CHUNK_SIZE + chunks.OVERHEAD == outertar.MAX_BODY
    with pytest.raises(Refused):
        outertar.header("a", outertar.MAX_BODY + 1, 0)
    with pytest.raises(Refused):
        outertar.header("b" * 101, 0, 0)
    with pytest.raises(Refused):
        outertar.header("d" * 156 + "/b", 0, 0)


# What is read.


def test_what_was_written_is_read() -> None:
    assert read_all(written(*MEMBERS)) == MEMBERS
    assert read_all(written(*MEMBERS, end=False)) == MEMBERS
    assert read_all(b"") == []


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_wrote_is_read(kind: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name, data in MEMBERS[:3]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1764000000.5 if kind == tarfile.PAX_FORMAT else 1764000000
            archive.addfile(info, io.BytesIO(data))
    assert read_all(file.getvalue()) == MEMBERS[:3]


def test_zero_blocks_between_members() -> None:
    pieces = [written(member) + bytes(10240 - 1024) for member in MEMBERS]
    assert read_all(bytes(512) + b"".join(pieces)) == MEMBERS


def test_every_member_may_be_read_in_parts_or_not_at_all() -> None:
    members = reader_of(written(*MEMBERS))
    assert members.remaining == 0
    assert members.next() == Member("backup-header", 4)
    assert members.next() == Member("qubes.xml.000.enc", 512)
    buffer = bytearray(100)
    members.read_into(memoryview(buffer))
    assert bytes(buffer) == bytes(range(100))
    assert members.remaining == 412
    assert members.reader.read_exact(2) == b"\x64\x65"
    assert members.remaining == 410
    members.skip(10)
    assert members.read(1) == bytes([112])
    members.skip_body()
    assert members.remaining == 0
    members.skip_body()
    assert members.next() == Member("vm1/private.img.000.enc", 0)
    assert members.next() == Member(LONGEST, 513)
    assert members.next() is None
    assert members.next() is None


def test_the_bound_may_change_on_the_way() -> None:
    asked = []

    def first(name: str) -> int:
        asked.append(name)
        return 4

    members = MemberReader(Reader(io.BytesIO(written(*MEMBERS))), first)
    members.next()
    members.bound = lambda name: 512
    members.next()
    members.next()
    with pytest.raises(Damaged, match="is too long: 513 bytes"):
        members.next()
    assert asked == ["backup-header"]


def test_exactly_the_bound() -> None:
    assert len(read_all(written(("a", b"12345")), bound=5)) == 1
    with pytest.raises(Damaged, match="a is too long: 5 bytes"):
        read_all(written(("a", b"12345")), bound=4)


def test_too_long_is_reported_before_the_body_is_read() -> None:
    with pytest.raises(Damaged, match="too long"):
        read_all(outertar.header("a", outertar.MAX_BODY, 0))


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (b"1", "a hard link"),
        (b"2", "a symbolic link"),
        (b"3", "a character device"),
        (b"4", "a block device"),
        (b"5", "a directory"),
        (b"6", "a fifo"),
        (b"7", "of an unknown type"),
        (b"g", "a pax global header"),
        (b"L", "of an unknown type"),
        (b"S", "of an unknown type"),
        (b"M", "of an unknown type"),
        (b"\x1b", "of an unknown type"),
    ],
)
def test_only_regular_members(kind: bytes, word: str) -> None:
    with pytest.raises(Damaged) as caught:
        read_all(changed(written(("vm1/a.000.enc", b"")), 156, kind))
    assert caught.value.message == f"vm1/a.000.enc is {word}, not a regular file"


def test_the_old_type_of_a_regular_member() -> None:
    assert read_all(changed(written(("a", b"1")), 156, b"\0")) == [("a", b"1")]


@pytest.mark.parametrize(
    "name",
    ["/a", "/", "../a", "a/../b", "a/..", "..", ".", "./a", "a/", "a//b", "-a", "a b", "a\x1b[31m", "é", "a\nb", ""],
)
def test_harmful_names(name: str) -> None:
    data = changed(written(("x", b"1")), 0, name.encode() + b"\0")
    with pytest.raises(Damaged):
        read_all(data)
    with pytest.raises(Damaged):
        read_all(pax(record("path", name)) + written(("x", b"1")))


def test_a_harmful_prefix() -> None:
    for prefix in (b"/etc", b"..", b"a/..", b"."):
        with pytest.raises(Damaged):
            read_all(changed(written(("x", b"1")), 345, prefix + b"\0"))


def test_gnu_headers_have_no_prefix() -> None:
    data = changed(written(("x", b"1")), 257, b"ustar  \0")
    assert read_all(changed(data, 345, b"00000000000\0")) == [("x", b"1")]


@pytest.mark.parametrize("field", [b"", b"8", b"-1", b"1 2", b"0x1", b"\xff" * 12, b"\x80" + b"\xff" * 11])
def test_malformed_sizes(field: bytes) -> None:
    with pytest.raises(Damaged):
        read_all(changed(written(("x", b"1")), 124, field.ljust(12, b"\0")))


def test_a_wrong_checksum() -> None:
    data = bytearray(written(("x", b"1")))
    data[0] ^= 1
    with pytest.raises(Damaged, match="checksum"):
        read_all(bytes(data))


def test_no_tar_at_all() -> None:
    with pytest.raises(Damaged):
        read_all(b"\x1f\x8b" + bytes(range(256)) * 8)


# Pax headers.


def test_pax_path_and_size_count() -> None:
    data = pax(record("path", "vm1/a") + record("mtime", "1.5") + record("size", "3"))
    assert read_all(data + written(("x", b""), end=False) + b"abc".ljust(512, b"\0")) == [("vm1/a", b"abc")]


def test_the_last_of_two_pax_records_counts() -> None:
    data = pax(record("path", "first") + record("path", "second"))
    assert read_all(data + written(("x", b"1"))) == [("second", b"1")]


def test_a_pax_header_counts_for_one_member() -> None:
    data = pax(record("path", "first")) + written(("x", b"1"), ("y", b"2"))
    assert read_all(data) == [("first", b"1"), ("y", b"2")]


@pytest.mark.parametrize(
    "records",
    [
        b"path=x\n",
        b"8 path=x\n",
        b"11 path=x\n",
        b"09 path=x\n",
        b"9 path-x\n",
        b"9 path=xx",
        b"-9 path=x\n",
        b"0 path=x\n",
        b"1 path=x\n",
        b"9999999 path=x\n",
        b"9  path=x\n",
        b"\n",
        b"9 path=x\n\0",
        record("size", "-1"),
        record("size", "1.5"),
        record("size", ""),
        record("size", "0x10"),
        record("size", "1" * 20),
        record("size", str(1 << 40)),
        record("path", ""),
        record("path", "a\0b"),
        record("path", "a/" * 200 + "b"),
    ],
)
def test_malformed_pax_headers(records: bytes) -> None:
    with pytest.raises(Damaged):
        read_all(pax(records) + written(("x", b"1")))


def test_pax_headers_are_bounded() -> None:
    with pytest.raises(Damaged, match="pax header of 65537 bytes is too long"):
        read_all(pax(b"", size=outertar.MAX_PAX + 1))
    records = record("comment", "x" * (outertar.MAX_PAX - 100)) + record("path", "p")
    assert read_all(pax(records) + written(("x", b"1"))) == [("p", b"1")]


def test_a_long_name_is_shortened() -> None:
    with pytest.raises(Damaged) as caught:
        read_all(pax(record("path", "a" * 60000)) + written(("x", b"1")))
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("follower", [pax(record("path", "y")), bytes(512), b""])
def test_a_pax_header_without_its_member(follower: bytes) -> None:
    with pytest.raises(Damaged):
        read_all(pax(record("path", "x")) + follower)


# Where the input ends too early, or goes on.


def test_cut_anywhere() -> None:
    whole = written(*MEMBERS, end=False)
    boundaries = {0}
    for _name, data in MEMBERS:
        boundaries.add(max(boundaries) + 512 + len(data) + len(outertar.padding(len(data))))
    for size in {*range(0, len(whole), 7), *boundaries}:
        if size in boundaries:
            read_all(whole[:size])
        else:
            with pytest.raises(Truncated):
                read_all(whole[:size])


def test_cut_inside_the_end_blocks() -> None:
    with pytest.raises(Truncated):
        read_all(written(*MEMBERS)[:-1])
    assert read_all(written(*MEMBERS)[:-512]) == MEMBERS


def test_truncated_names_the_member() -> None:
    for cut in (510, 300):
        with pytest.raises(Truncated, match="the archive ends in the middle of vm1/a.000.enc"):
            read_all(written(("vm1/a.000.enc", b"x" * 100), end=False)[: 512 + cut - 250])


def test_padding_is_zeros() -> None:
    data = bytearray(written(("a", b"1")))
    data[-1025] = 1
    with pytest.raises(Damaged, match="a is padded with something other than zeros"):
        read_all(bytes(data))


def after_first(data: bytes) -> None:
    members = reader_of(data)
    members.next()
    members.read_end()


def test_the_end() -> None:
    one = written(("a", b"1"), end=False)
    for tail in (b"", bytes(1), bytes(512), bytes(1024), bytes(100_000)):
        after_first(one + tail)
    for tail in (b"\1", bytes(1023) + b"\1", bytes(100_000) + b"x" + bytes(100_000), one):
        with pytest.raises(Damaged, match="something follows the end of the archive"):
            after_first(one + tail)
    with pytest.raises(Truncated):
        after_first(one[:-1])


# Seeking.


class Counting(io.FileIO):
    """A file that counts the bytes that are read of it."""

    total = 0

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        count = super().readinto(buffer)
        self.total += count
        return count


BIG = [("a", bytes(range(256)) * 40_000), ("b", b"2"), ("c", bytes(3 << 20))]


def names(members: MemberReader) -> list[str]:
    found = []
    while member := members.next():
        found.append(member.untrusted_name)
    return found


def test_bodies_of_a_file_are_seeked_over(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(written(*BIG))
    with Counting(path) as file:
        members = MemberReader(Reader(file), lambda _name: 1 << 30)
        assert names(members) == ["a", "b", "c"]
        assert members.reader.position == path.stat().st_size
    assert file.total < 1 << 20


@pytest.mark.parametrize("source", ["file", "pipe"])
def test_a_cut_body_is_noticed_when_it_is_skipped(tmp_path: Path, source: str) -> None:
    data = written(*BIG, end=False)
    path = tmp_path / "archive"

    def opened(size: int) -> MemberReader:
        path.write_bytes(data[:size])
        if source == "file":
            return MemberReader(Reader(io.FileIO(path)), lambda _name: 1 << 30)
        # Bytes that cannot be seeked over.
        return MemberReader(Reader(io.BytesIO(data[:size])), lambda _name: 1 << 30)

    for size in (len(data) - 1, len(data) - 1000, len(data) - (3 << 20), len(data) - (3 << 20) + 1, 600, 5_000_000):
        with pytest.raises(Truncated):
            names(opened(size))
    assert names(opened(len(data))) == ["a", "b", "c"]
    assert names(opened(len(data) - (3 << 20) - 512)) == ["a", "b"]


def test_a_sparse_hole_of_an_archive_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    size = outertar.MAX_BODY
    with path.open("wb") as file:
        file.write(outertar.header("a", size, 0))
        file.truncate(512 + size + len(outertar.padding(size)))
        file.seek(0, os.SEEK_END)
        file.write(written(("b", b"2")))
    members = MemberReader(Reader(io.FileIO(path)), lambda _name: outertar.MAX_BODY)
    assert names(members) == ["a", "b"]


# Names without end.


def test_no_error_is_anything_else() -> None:
    """A header with any single byte changed and a corrected checksum is read, or refused with a reason."""
    data = written(("vm1/a.000.enc", b"1"))
    checks: list[Callable[[int], bytes]] = [lambda at: b"\xff", lambda at: b"\0", lambda at: b"7", lambda at: b" "]
    for at in range(512):
        for new in checks:
            try:
                read_all(changed(data, at, new(at)))
            except QbError as error:
                assert error.status == 4


@pytest.mark.parametrize(
    ("clock", "told"), [(-1, 0), (-(1 << 31), 0), (0, 0), (1 << 32, 1 << 32), (8**11, 8**11 - 1), (1 << 40, 8**11 - 1)]
)
def test_a_wrong_clock(clock: int, told: int) -> None:
    """Python and our own reader accept the written time."""
    block = outertar.header("a", 0, clock)
    assert len(block) == 512
    assert tarfile.TarInfo.frombuf(block, "ascii", "strict").mtime == told
    assert read_all(block + END_OF_ARCHIVE) == [("a", b"")]


@pytest.mark.parametrize("field", [b"\xff" * 12, b"\x80" + bytes(6) + b"\x7f" * 5, b"-00000000005"])
def test_a_time_that_others_wrote_does_not_matter(field: bytes) -> None:
    assert read_all(changed(written(("a", b"data")), 136, field)) == [("a", b"data")]
