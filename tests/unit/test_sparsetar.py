"""The inner archive as it is written: its bytes, and how Python's tarfile reads it."""

from __future__ import annotations

import io
import tarfile

import pytest

from qbtools.formats import sparsetar, ustar
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import Writer

LONGEST = "d" * 138 + "/" + "b" * 88


def volume(size: int, *extents: tuple[int, int]) -> ExtentMap:
    made = ExtentMap(size)
    for extent in extents:
        made.append(*extent)
    return made


def head(name: str, extents: ExtentMap) -> bytes:
    file = io.BytesIO()
    sparsetar.write_member_header(Writer(file), name, extents)
    return file.getvalue()


def archive(name: str, extents: ExtentMap, data: bytes) -> bytes:
    file = io.BytesIO()
    writer = Writer(file)
    sparsetar.write_member_header(writer, name, extents)
    writer.write(data)
    sparsetar.write_member_end(writer, extents)
    return file.getvalue()


def read_back(data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        (member,) = opened.getmembers()
        body = opened.extractfile(member)
        assert body is not None
        return member, body.read()


def test_bytes_of_a_sparse_archive() -> None:
    records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    records += b"35 GNU.sparse.name=vm1/private.img\n28 GNU.sparse.realsize=4096\n"
    data = archive("vm1/private.img", volume(4096, (512, 512), (2048, 512)), b"A" * 512 + b"B" * 512)
    assert data[:26] == b"vm1/PaxHeaders/private.img"
    assert data[156:157] == b"x"
    assert data[124:136] == b"%011o\0" % len(records)
    assert data[512:1024] == records.ljust(512, b"\0")
    header = data[1024:1536]
    assert header[:100] == b"vm1/GNUSparseFile.0/private.img".ljust(100, b"\0")
    assert header[100:124] == b"0000600\0" + b"0000000\0" * 2
    assert header[124:148] == b"00000003000\x0000000000000\x00"
    assert header[156:265] == b"0" + bytes(100) + b"ustar\x0000"
    assert header[265:329] == bytes(64)
    assert header[345:] == bytes(167)
    assert data[1536:2048] == b"3\n512\n512\n2048\n512\n4096\n0\n".ljust(512, b"\0")
    assert data[2048:] == b"A" * 512 + b"B" * 512 + bytes(1024)


def test_bytes_of_a_regular_archive() -> None:
    data = archive("vm1/private.img", volume(3, (0, 3)), b"abc")
    assert data[:100] == b"vm1/private.img".ljust(100, b"\0")
    assert data[124:136] == b"00000000003\0"
    assert data[512:] == b"abc" + bytes(509) + bytes(1024)


@pytest.mark.parametrize(
    "name", ["private.img", "vm1/private.img", "a/b/c", "d" * 99 + "/b", "d" * 138 + "/b", LONGEST]
)
@pytest.mark.parametrize(
    ("size", "extents"),
    [
        (0, []),
        (1, [(0, 1)]),
        (512, [(0, 512)]),
        (512, []),
        (1000, [(512, 488)]),
        (1000, [(0, 512)]),
        (1 << 20, [(0, 512), (1024, 512), (2048, 512), (4096, 512), (8192, 512), ((1 << 20) - 512, 512)]),
        (1024, [(0, 512), (512, 512)]),
    ],
)
def test_tarfile_reads_it(name: str, size: int, extents: list[tuple[int, int]]) -> None:
    data = bytearray(size)
    for offset, length in extents:
        data[offset : offset + length] = bytes((offset + at) % 255 + 1 for at in range(length))
    stored = b"".join(data[offset : offset + length] for offset, length in extents)
    written = archive(name, volume(size, *extents), stored)
    member, body = read_back(written)
    assert (member.name, member.isreg(), member.mode, member.mtime) == (name, True, 0o600, 0)
    assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
    assert body == data
    assert len(written) % 512 == 0
    assert archive(name, volume(size, *extents), stored) == written


@pytest.mark.parametrize(
    ("extents", "in_header", "in_pax"),
    [
        (volume(8**11 - 512, (0, 8**11 - 512)), 8**11 - 512, None),
        (volume(8**11, (0, 8**11)), 0, 8**11),
        (volume(1 << 50, (0, 8**11 - 1024)), 8**11 - 512, None),
        (volume(1 << 50, (0, 8**11 - 512)), 0, 8**11),
        (volume(1 << 50, (1 << 40, 1 << 45)), 0, (1 << 45) + 512),
    ],
)
def test_sizes_around_8_gib(extents: ExtentMap, in_header: int, in_pax: int | None) -> None:
    data = head("vm1/private.img", extents)
    regular = extents.data == extents.size
    header = ustar.parse(data[-512:] if regular else data[1024:1536])
    assert header.untrusted_size == in_header
    assert (b"size=%d\n" % (in_pax or 0) in data.replace(b"realsize", b"")) == (in_pax is not None)
    assert data.replace(b"realsize=", b"").count(b"size=") == (in_pax is not None)


@pytest.mark.parametrize("name", ["", "b" * 101, "d" * 160 + "/b"])
def test_names_that_do_not_fit(name: str) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        head(name, volume(0))


def test_headers() -> None:
    for mtime in (0, 1795500000):
        block = ustar.build("vm1/x", 5, mtime=mtime)
        assert tarfile.TarInfo.frombuf(block, "ascii", "strict").mtime == mtime
    assert ustar.padding(0) == ustar.padding(512) == 0
    assert (ustar.padding(1), ustar.padding(511)) == (511, 1)
