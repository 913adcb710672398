"""Checks both ends of a file that is sealed: whether its beginning fits its compression, and whether it is complete.

If a program in the middle of a pipe dies, the inner archive is incomplete, but the compressor behind it ends without
an error. Nothing is decompressed here: this only looks at the stored bytes.

    none     blocks of 512 bytes, the last two of zeros
    gzip     its trailer has the size of the archive modulo 2^32
    xz       its index has the size of the archive
    all      it is an error if there are too few bytes for any archive, or SPOILT at the end

The end of zstd and bzip2 data shows nothing else.
"""

from __future__ import annotations

import re
import zlib

from qbtools.errors import Damaged, Truncated
from qbtools.formats import magic, ustar
from qbtools.streams import SPOILT

LEAST = 40
"""A compressed file with fewer bytes is not an archive: the compressors turn empty input into 9 to 32 bytes."""

SEARCHED = 64 << 20
"""Bytes at the beginning of a gzip file that are searched for further members, as is its last piece. To search all of
a large file would slow down its sealing."""

_TAIL = 1 << 16  # bytes of the end that are kept: enough for an xz index of some thousand blocks
_RATIO = 1032  # deflate turns one byte into at most this many
_HINTS: dict[str | None, str] = {
    None: "qb-tarwrite --raw makes an archive of a plain image; --opaque seals any bytes",
    magic.STREAM: "qb-tarwrite and a compressor come before qb-seal",
    magic.TAR: "compress it, or give --compression none",
    magic.ARCHIVE: "it is sealed already",
    **{name: f"give --compression {name}" for name in magic.COMPRESSIONS},
    **{name: f"qb-volread {name}:FILE reads the disk in it; --opaque seals any bytes" for name in magic.DISKS},
    "vhd": "qb-tarwrite --raw makes an archive of it; --opaque seals any bytes",
}
_HINT = "did a program before fail? --opaque seals any bytes"

# The ten bytes that begin a member of gzip: magic, flags, time, extra flags, operating system.
_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f].{4}[\x00\x02\x04][\x00-\x0d\xff]", re.DOTALL)
_MEMBER_SIZE = 10

_XZ_HEAD, _XZ_FOOT = 12, 12


class Ends:
    """Checks a file that it sees in pieces."""

    def __init__(self, name: str, compression: str) -> None:
        """name: for messages. compression: one of header.COMPRESSIONS."""
        self._name = name
        self._compression = compression
        self._size = 0
        self._tail = b""
        self._several = False

    def see(self, piece: memoryview, last: bool) -> None:
        """Looks at the next piece. last: it is the last one, of any size. Other pieces have at least magic.HEAD bytes.

        Damaged if the beginning of the file does not fit its compression, Truncated if it is incomplete.
        """
        if not self._size:
            self._check_head(bytes(piece[: magic.HEAD]))
        if self._compression == "gzip" and not last:
            self._search(piece[: max(SEARCHED - self._size, 0)], self._tail)
        before, self._tail = self._tail, (self._tail + bytes(piece[-_TAIL:]))[-_TAIL:]
        self._size += len(piece)
        if last:
            self._check_end(piece, before)

    def _check_head(self, head: bytes) -> None:
        wanted = self._compression
        if wanted == "none":
            if magic.kind(head) == magic.ARCHIVE or not ustar.is_header(head):
                raise self._wrong(head, magic.TAR)
        elif magic.kind(head) != wanted:
            raise self._wrong(head, wanted)

    def _wrong(self, head: bytes, wanted: str) -> Damaged:
        return magic.wrong(self._name, head, wanted, _HINTS)

    def _search(self, piece: memoryview, before: bytes) -> None:
        """Looks for a further member of gzip, in a piece and across the edge to the piece before."""
        if not self._several:
            edge = before[1 - _MEMBER_SIZE :] + bytes(piece[: _MEMBER_SIZE - 1])
            self._several = bool(_MEMBER.search(piece, 0 if before else 1) or (before and _MEMBER.search(edge)))

    def _check_end(self, piece: memoryview, before: bytes) -> None:
        if self._tail.endswith(SPOILT):
            raise Truncated(f"{self._name} is not whole: a program before has failed")
        if self._compression == "none":
            if self._size % ustar.BLOCK or not self._tail.endswith(ustar.END_OF_ARCHIVE):
                raise Truncated(f"{self._name} does not end as a tar archive does", _HINT)
            return
        if self._size < LEAST:
            raise Truncated(f"{self._name} has {self._size} bytes, which cannot hold an archive", _HINT)
        if self._compression == "gzip":
            self._check_gzip(piece, before)
        elif self._compression == "xz":
            self._check_xz()

    def _check_gzip(self, piece: memoryview, before: bytes) -> None:
        """Checks that the size in the trailer can be that of an archive. It is the size of the last member only."""
        size = int.from_bytes(self._tail[-4:], "little")
        beyond = self._size * _RATIO >= 1 << 32  # the data may be so large that its size has wrapped around
        if size % ustar.BLOCK == 0 and (beyond or len(ustar.END_OF_ARCHIVE) <= size <= self._size * _RATIO):
            return
        self._search(piece, before)
        if not self._several:
            raise self._cut(size)

    def _cut(self, size: int) -> Truncated:
        trailer = f"{self._compression} trailer"
        return Truncated(f"{self._name} is not a whole tar archive: its {trailer} says {size} bytes", _HINT)

    def _check_xz(self) -> None:
        """Checks the footer and, if it was kept, the index. The sizes in it must be possible for an archive."""
        end = self._tail.rstrip(b"\0")
        padding = len(self._tail) - len(end)
        foot = end[-_XZ_FOOT:]
        if foot[-2:] != b"YZ" or padding % 4 or zlib.crc32(foot[4:10]) != _little(foot[:4]):
            raise Truncated(f"{self._name} does not end as xz data does", _HINT)
        length = (_little(foot[4:8]) + 1) * 4
        index = end[-_XZ_FOOT - length : -_XZ_FOOT]
        if len(index) < length:
            return
        if zlib.crc32(index[:-4]) != _little(index[-4:]):
            raise Truncated(f"{self._name} does not end as xz data does", _HINT)
        stored, size = _records(index[1:-4])
        alone = _XZ_HEAD + stored + length + _XZ_FOOT + padding == self._size
        if alone and (size % ustar.BLOCK or size < len(ustar.END_OF_ARCHIVE)):
            raise self._cut(size)


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _records(index: bytes) -> tuple[int, int]:
    """The stored bytes and the uncompressed bytes of the blocks of an xz stream, by its index."""
    numbers: list[int] = []
    value = shift = 0
    for byte in index:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            numbers.append(value)
            value = shift = 0
    count = numbers[0] if numbers else 0
    pairs = numbers[1 : 1 + 2 * count]
    return sum(-(-stored // 4) * 4 for stored in pairs[::2]), sum(pairs[1::2])
