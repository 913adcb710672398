"""The index of a volume: a digest of each of its blocks, with which the next run finds the changes.

It is a file of the machine that saves, and never in an archive. Its beginning has 512 bytes; numbers are big-endian:

    offset  length
         0      16  "qb-block-index" NUL, version 1
        16      32  key: random, the same along a chain
        48       8  bytes of the volume
        56       8  bytes of a block
        64      32  SHA-256 of the line of the volume in the manifest; zeros as long as the archive is not sealed
        96     128  backup ID, then NUL
       224     160  name of the volume in that archive, then NUL
       384      96  NUL
       480      32  SHA-256 of bytes 0 to 479

Then 16 bytes for each block: the first half of SHA-256(key, block), the last block padded with zeros; or sixteen zeros
for a block of zeros. Behind each MiB of them, and behind the last, stands SHA-256 of bytes 0 to 63 and 96 to 383, the
number of that MiB (8 bytes, from 0) and the MiB: so none can stand in another place or another index.
"""

from __future__ import annotations

import hashlib

from qbtools.errors import Damaged
from qbtools.formats.chunks import name_problem
from qbtools.formats.deltastream import Base, base_problem
from qbtools.formats.volumestream import MAX_SIZE
from qbtools.lean import NamedTuple
from qbtools.streams import Reader, Writer

KEY = 32
"""Bytes of the key."""

DIGEST = 16
"""Bytes of the digest of a block."""

MAX_NAME = 150
"""Bytes of the longest name that a volume with increments may have."""

HEAD = 512
"""Bytes in front of the digests."""

LINE_AT = 64
"""Where the digest of the manifest line stands."""

MIN_BLOCK, MAX_BLOCK = 1 << 12, 1 << 20
"""A block has a power of two of bytes between these."""

WINDOW = 1 << 20
"""Bytes of digests that are checked together."""

PER_WINDOW = WINDOW // DIGEST
"""Blocks whose digests are checked together."""

_MAGIC = b"qb-block-index\0\1"
_UNKNOWN = bytes(32)
_ZEROS = bytes(WINDOW)


class Head(NamedTuple):
    """What an index says of its volume."""

    key: bytes
    size: int
    block: int
    base: Base
    """The archive that holds the volume; its digest is empty as long as that archive is not sealed."""

    name: str

    @property
    def blocks(self) -> int:
        """How many blocks the volume has."""
        return -(-self.size // self.block)


def block_problem(block: int) -> str | None:
    """What is wrong with a size of blocks, or None."""
    if not MIN_BLOCK <= block <= MAX_BLOCK or block & (block - 1):
        return f"not a power of two between {MIN_BLOCK} and {MAX_BLOCK}"
    return None


def volume_name_problem(name: str) -> str | None:
    """What is wrong with the name of a volume that is to have increments, or None."""
    return f"longer than {MAX_NAME} bytes" if len(name) > MAX_NAME else name_problem(name)


def serialise(head: Head) -> bytes:
    """The first HEAD bytes of an index."""
    line = bytes.fromhex(head.base.digest) or _UNKNOWN
    data = _MAGIC + head.key + head.size.to_bytes(8, "big") + head.block.to_bytes(8, "big") + line
    data += head.base.backup_id.encode("ascii").ljust(128, b"\0") + head.name.encode("ascii").ljust(160, b"\0")
    data = data.ljust(HEAD - 32, b"\0")
    return data + hashlib.sha256(data).digest()


def parse(data: bytes, path: str) -> Head:
    """The same, read from the file path. Damaged if it is not exactly that."""
    if len(data) != HEAD or data[:16] != _MAGIC:
        raise Damaged(f"{path} is not an index of blocks")
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise Damaged(f"the index {path} is damaged at its beginning")
    size, block = int.from_bytes(data[48:56], "big"), int.from_bytes(data[56:64], "big")
    line = data[LINE_AT : LINE_AT + 32]
    backup_id, name = (field.rstrip(b"\0").decode("latin-1") for field in (data[96:224], data[224:384]))
    head = Head(data[16:48], size, block, Base(backup_id, "" if line == _UNKNOWN else line.hex()), name)
    bad = size > MAX_SIZE or block_problem(block) or base_problem(backup_id) or volume_name_problem(name)
    if bad or serialise(head) != data:
        raise Damaged(f"the index {path} is malformed at its beginning")
    return head


def file_size(head: Head) -> int:
    """Bytes of the complete file."""
    return HEAD + head.blocks * DIGEST + -(-head.blocks // PER_WINDOW) * 32


def digest_of(key: bytes) -> hashlib._Hash:
    """The hash of blocks: a copy of it takes one block, and the first DIGEST bytes count."""
    return hashlib.sha256(key)


class _Windows:
    """The hashes of the windows of one index, in turn."""

    def __init__(self, head: Head) -> None:
        data = serialise(head)
        self._hash = hashlib.sha256(data[:LINE_AT] + data[96:384])
        self._number = 0

    def next(self, window: bytes | bytearray | memoryview) -> bytes:
        found = self._hash.copy()
        found.update(self._number.to_bytes(8, "big"))
        found.update(window)
        self._number += 1
        return found.digest()


class IndexWriter:
    """Writes an index: as many digests as the volume has blocks, in order."""

    def __init__(self, writer: Writer, head: Head) -> None:
        self._writer = writer
        self._windows = _Windows(head)
        self._left = head.blocks
        self._held = bytearray()
        writer.write(serialise(head))

    def add(self, digests: bytes | bytearray | memoryview) -> None:
        """Adds digests of the next blocks, DIGEST bytes each; at most WINDOW bytes."""
        self._left -= len(digests) // DIGEST
        self._held += digests
        if len(self._held) >= WINDOW:
            rest = self._held[WINDOW:]
            del self._held[WINDOW:]
            self._put()
            self._held = rest

    def add_zeros(self, count: int) -> None:
        """Adds digests of so many blocks of zeros."""
        while count:
            part = min(count, PER_WINDOW)
            self.add(memoryview(_ZEROS)[: part * DIGEST])
            count -= part

    def end(self) -> None:
        """Writes the rest. ValueError if the volume has another number of blocks."""
        if self._left:
            raise ValueError(f"{self._left} digests are missing")
        if self._held:
            self._put()

    def _put(self) -> None:
        if self._held == _ZEROS:
            self._writer.write_zeros(WINDOW)  # takes no room
        else:
            self._writer.write(self._held)
        self._writer.write(self._windows.next(self._held))


class IndexReader:
    """Reads an index in windows. Damaged for whatever is not as it was written."""

    def __init__(self, reader: Reader) -> None:
        self.head = parse(reader.read_up_to(HEAD), reader.name)
        self._reader = reader
        self._windows = _Windows(self.head)
        self._left = self.head.blocks  # blocks whose digests were not read yet
        self._buffer = memoryview(bytearray(min(WINDOW, self._left * DIGEST)))
        self._held = self._buffer[:0]  # digests that were read and not handed out yet

    def take(self, count: int) -> bytes | memoryview:
        """The digests of the next count blocks, at most PER_WINDOW; zeros for those that the volume did not have.

        They are good until the next call.
        """
        size = count * DIGEST
        if not self._held:
            self._fill()
        if len(self._held) < size:
            parts = bytearray(self._held)
            self._fill()
            rest = self._held[: size - len(parts)]
            self._held = self._held[len(rest) :]
            parts += rest
            return bytes(parts.ljust(size, b"\0"))
        found, self._held = self._held[:size], self._held[size:]
        return found

    @property
    def at_end(self) -> bool:
        """Whether all digests of the volume were handed out."""
        return not self._left and not self._held

    def check(self) -> None:
        """Reads all that is left."""
        while self._left:
            self._fill()
        if not self._reader.at_eof():
            raise Damaged(f"something follows the end of the index {self._reader.name}")

    def _fill(self) -> None:
        count = min(self._left, PER_WINDOW)
        self._left -= count
        self._held = self._buffer[: count * DIGEST]
        if not count:
            return
        complete = self._reader.read_into(self._held) == len(self._held)
        found = self._reader.read_up_to(32)
        if not complete or len(found) < 32:
            raise Damaged(f"the index {self._reader.name} is cut off")
        if found != self._windows.next(self._held):
            raise Damaged(f"the index {self._reader.name} is damaged")
