"""Both ends of a sealed file: its first bytes, and whether its last bytes can be the end of an archive."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile

import pytest

from qbtools.errors import Damaged, Truncated
from qbtools.formats import ends, header
from qbtools.formats.ends import Ends
from qbtools.streams import SPOILT

ZSTD = b"\x28\xb5\x2f\xfd" + bytes(100)  # more than its first bytes is not looked at


def archive(size: int = 5000) -> bytes:
    """A tar archive of a file with so many bytes that do not compress, in 512 * N bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.size = size
        tar.addfile(info, io.BytesIO(random.Random(size).randbytes(size)))
    return out.getvalue()


WHOLE = archive()
MANY = b"".join(gzip.compress(WHOLE[at : at + 3001]) for at in range(0, len(WHOLE), 3001))
GOOD = {
    "gzip": [gzip.compress(WHOLE), gzip.compress(WHOLE) + gzip.compress(b""), MANY],
    "bzip2": [bz2.compress(WHOLE)],
    "xz": [
        lzma.compress(WHOLE),
        lzma.compress(WHOLE[:777]) + lzma.compress(WHOLE[777:]),
        lzma.compress(WHOLE) + bytes(8),
    ],
    "zstd": [ZSTD],
    "none": [WHOLE],
}
BAD = {
    "gzip": [gzip.compress(data) for data in (b"", b"\n", SPOILT, WHOLE[:-1], WHOLE + SPOILT, WHOLE[:512])]
    + [gzip.compress(WHOLE)[:-1], gzip.compress(WHOLE)[:3000], gzip.compress(WHOLE) + SPOILT],
    "bzip2": [bz2.compress(data) for data in (b"", b"\n")] + [bz2.compress(WHOLE) + SPOILT],
    "xz": [lzma.compress(data) for data in (b"", b"\n", SPOILT, WHOLE[:-1], WHOLE + SPOILT, WHOLE[:512])]
    + [lzma.compress(WHOLE)[:-1], lzma.compress(WHOLE)[:-8], lzma.compress(WHOLE) + b"\0", lzma.compress(WHOLE)[:3000]],
    "zstd": [ZSTD[:13], ZSTD + SPOILT],
    "none": [WHOLE[:512], WHOLE[:-1], WHOLE + SPOILT, WHOLE + b"\0", WHOLE[:5632]],
}


def see(compression: str, data: bytes, piece: int) -> None:
    """Sees data in pieces of so many bytes. As in an archive, the last piece is shorter and may be empty."""
    looking = Ends("it", compression)
    for at in range(0, len(data) + 1, piece):
        part = memoryview(data)[at : at + piece]
        looking.see(part, len(part) < piece)


@pytest.mark.parametrize("piece", [1, 7, 512, 1 << 20])
@pytest.mark.parametrize("compression", GOOD)
def test_complete_files(compression: str, piece: int) -> None:
    assert tuple(header.COMPRESSIONS) == tuple(GOOD)
    for data in GOOD[compression]:
        see(compression, data, max(piece, 512))


@pytest.mark.parametrize("piece", [512, 1000, 1 << 20])
@pytest.mark.parametrize("compression", BAD)
def test_incomplete_files(compression: str, piece: int) -> None:
    for data in BAD[compression]:
        with pytest.raises(Truncated, match="^it (is not|has|does not end)"):
            see(compression, data, piece)


@pytest.mark.parametrize("compression", GOOD)
@pytest.mark.parametrize("other", GOOD)
def test_what_begins_as_something_else(compression: str, other: str) -> None:
    if other != compression:
        wanted = "a tar" if compression == "none" else compression
        with pytest.raises(Damaged, match=f"^it is .*, not {wanted}") as found:
            Ends("it", compression).see(memoryview(GOOD[other][0])[:600], False)
        assert f"--compression {other}" in (found.value.hint or "")


@pytest.mark.parametrize("compression", GOOD)
def test_nothing_and_anything(compression: str) -> None:
    with pytest.raises(Truncated, match=r"^it is empty: did the program before fail\?$"):
        see(compression, b"", 512)
    for data in (bytes(5120), b"anything" * 1000, b"qb-volume 1\n"):
        with pytest.raises(Damaged, match="^it is "):
            see(compression, data, 512)


def test_a_gzip_file_that_may_hold_more_than_4_gib() -> None:
    """Its trailer contains the size modulo 2^32."""
    looking = Ends("it", "gzip")
    zeros = bytes(1 << 20)
    looking.see(memoryview(gzip.compress(b"") + zeros), False)
    for _ in range(3):
        looking.see(memoryview(zeros), False)
    looking.see(memoryview(bytes(8)), True)


def test_a_member_across_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    first = gzip.compress(WHOLE[:3001])
    data = first + gzip.compress(WHOLE[3001:])
    for cut in range(len(first) - 1, len(first) + 12):
        looking = Ends("it", "gzip")
        looking.see(memoryview(data)[:cut], False)
        looking.see(memoryview(data)[cut:], True)
    monkeypatch.setattr(ends, "SEARCHED", 100)
    see("gzip", MANY, 1 << 20)
