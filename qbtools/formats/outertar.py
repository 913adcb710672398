"""The outer archive: plain tar members, written and read strictly.

    offset length   of a 512-byte ustar header (IEEE Std 1003.1, pax, "ustar Interchange Format")
    0      100      name              156    1     typeflag
    100    8        mode              157    100   link name
    108    8, 8     uid, gid          257    6, 2  "ustar" NUL, "00"
    124    12       size              265    32,32 user, group
    136    12       mtime             329    8, 8  device
    148    8        checksum          345    155   prefix

After it the body, NUL-padded to 512. What is written is always typeflag 0 and fits ustar. Read are also the
magic of GNU tar and pax local headers (typeflag x), of which only path and size count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from qbtools.errors import Damaged, Refused, Truncated
from qbtools.formats.chunks import path_problem
from qbtools.streams import Reader, Writer

BLOCK = 512
MAX_BODY = (1 << 33) - 1
"""Bytes of the largest body that ustar can say."""

MAX_PAX = 1 << 16
"""Bytes of a pax local header."""

MAX_NAME = 256
"""Bytes of a member's name: what ustar can hold."""

_NAME = 100
_PREFIX = 155
_ZERO_BLOCK = bytes(BLOCK)
_MAGICS = (b"ustar\x0000", b"ustar  \x00")
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a fifo",
    b"g": "a pax global header",
}


def header(name: str, size: int, mtime: int) -> bytes:
    """The ustar header of a member: BLOCK bytes.

    name: ASCII; one of more than 100 bytes goes with its directory (at most 155) into prefix. size: bytes of the
    body; Refused past MAX_BODY. mtime: seconds since the epoch.
    """
    prefix, base = ("", name) if len(name) <= _NAME else name.rpartition("/")[::2]
    if len(base) > _NAME or len(prefix) > _PREFIX or not base:
        raise Refused(f"{name}: the name is too long for the archive")
    if size > MAX_BODY:
        raise Refused(f"{name}: more than {MAX_BODY} bytes in one member", "use a smaller --chunk-size")
    number = f"{size:011o}\0{max(mtime, 0):011o}\0".encode("ascii")
    owner = b"0000600\x00" + b"0000000\x00" * 2
    head = base.encode("ascii").ljust(_NAME, b"\0") + owner + number
    tail = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x00" * 2
    tail += prefix.encode("ascii").ljust(_PREFIX, b"\0") + bytes(12)
    checksum = sum(head) + 8 * 0x20 + sum(tail)
    return head + f"{checksum:06o}\0 ".encode("ascii") + tail


def padding(size: int) -> bytes:
    """The NULs that follow a body of size bytes."""
    return bytes(-size % BLOCK)


class MemberWriter:
    """Writes members with one mtime (seconds since the epoch: when the backup began)."""

    def __init__(self, writer: Writer, mtime: int) -> None:
        self._writer = writer
        self._mtime = mtime
        self._size = 0

    def start(self, name: str, size: int) -> None:
        """Writes a member's header; size bytes of body must follow, then finish(). Refused as header()."""
        self._writer.write(header(name, size, self._mtime))
        self._size = size

    def finish(self) -> None:
        """Pads the body."""
        self._writer.write(padding(self._size))

    def add(self, name: str, data: bytes) -> None:
        """Writes a whole member."""
        self.start(name, len(data))
        self._writer.write(data)
        self.finish()

    def end_of_archive(self) -> None:
        """Writes the two zero blocks that end an archive."""
        self._writer.write(_ZERO_BLOCK * 2)


@dataclass(frozen=True)
class Member:
    """A member whose header was read: a regular file of size bytes, within the bound that the caller set."""

    untrusted_name: str
    """A relative path of harmless components; whether it may stand here is not known yet."""

    size: int


class MemberReader:
    """Reads the members of an outer archive one after the other.

    Whatever is no regular member with a harmless name, or larger than `bound` allows, is Damaged before anything of
    its body is read. Reading takes no memory that grows with the archive.
    """

    def __init__(self, reader: Reader, bound: Callable[[str], int]) -> None:
        self.reader = reader
        self.bound = bound
        """Gives the bytes that a member of an (untrusted) name may have. The caller changes it as it learns more."""

        self.remaining = 0
        """Bytes of the current body that were not read yet."""

        self._name = ""
        self._padding = 0

    def next(self) -> Member | None:
        """The next member, or None at the end of the input. What is left of the current one is skipped.

        Zero blocks between members are passed over. Truncated where the input ends inside a member or its header,
        Damaged for everything that is no plain member.
        """
        self.finish()
        block = self._header_block()
        pax: dict[str, bytes] = {}
        if block is not None and block[156:157] == b"x":
            pax = self._pax(_size(block, _name(block)))
            if self.reader.at_eof():
                raise Truncated("the archive ends after a pax header")
            block = self._block()
            if block == _ZERO_BLOCK or block[156:157] == b"x":
                raise Damaged("a pax header without its member")
        return None if block is None else self._member(block, pax)

    def read_into(self, view: memoryview) -> None:
        """Fills view out of the body; its length is at most `remaining`. Truncated where the input ends before."""
        count = self.reader.read_into(view)
        self.remaining -= count
        if count < len(view):
            raise self._truncated()

    def read_all(self) -> bytes:
        """What is left of the body, padding included in the reading. For small members: the bytes are copied."""
        data = bytearray(self.remaining)
        self.read_into(memoryview(data))
        self.finish()
        return bytes(data)

    def skip_body(self) -> None:
        """Passes over what is left of the body (by seeking where the input can) and over its padding."""
        self.finish()

    def finish(self) -> None:
        """Ends the current member: skips what is left of it, reads its padding. Damaged where that is not zeros."""
        try:
            self.reader.skip(self.remaining)
            self.remaining = 0
            rest = self.reader.read_exact(self._padding)
        except Truncated:
            raise self._truncated() from None
        self._padding = 0
        if rest.count(0) != len(rest):
            raise Damaged(f"{self._name} is padded with something else than zeros")

    def read_end(self) -> None:
        """Reads to the end of the input, which must be zeros. Damaged otherwise."""
        self.finish()
        if self.reader.read_zeros_to_eof() < 0:
            raise Damaged("something follows the end of the archive")

    def _truncated(self) -> Truncated:
        return Truncated(f"the archive ends inside {self._name}")

    def _block(self) -> bytes:
        try:
            return self.reader.read_exact(BLOCK)
        except Truncated:
            raise Truncated("the archive ends inside the header of a member") from None

    def _header_block(self) -> bytes | None:
        """The next block that is not zero; None at the end of the input."""
        while not self.reader.at_eof():
            block = self._block()
            if block != _ZERO_BLOCK:
                return block
        return None

    def _pax(self, size: int) -> dict[str, bytes]:
        """The records path and size of a pax local header."""
        if size > MAX_PAX:
            raise Damaged(f"a pax header of {size} bytes is too long")
        self._name = "a pax header"
        self.remaining = size
        self._padding = -size % BLOCK
        return _pax_records(self.read_all())

    def _member(self, block: bytes, pax: dict[str, bytes]) -> Member:
        untrusted_name = _name(block)
        if "path" in pax:
            untrusted_name = _text(pax["path"])
        if len(untrusted_name) > MAX_NAME:
            raise Damaged(f"{untrusted_name[:64]}...: the name is too long")
        if block[156:157] not in (b"0", b"\0"):
            kind = _KINDS.get(block[156:157], f"of type {_text(block[156:157])}")
            raise Damaged(f"{untrusted_name} is {kind}, not a regular file")
        problem = path_problem(untrusted_name)
        if problem:
            raise Damaged(f"{untrusted_name}: {problem}")
        size = _size(block, untrusted_name)
        if "size" in pax:
            if not re.fullmatch(rb"[0-9]{1,19}", pax["size"]):
                raise Damaged(f"{untrusted_name}: malformed size in its pax header")
            size = int(pax["size"])
        if size > self.bound(untrusted_name):
            raise Damaged(f"{untrusted_name} is too long: {size} bytes")
        self._name, self.remaining, self._padding = untrusted_name, size, -size % BLOCK
        return Member(untrusted_name, size)


def _text(field: bytes) -> str:
    return field.decode("ascii", "backslashreplace")


def _name(block: bytes) -> str:
    """The name in a header block, whose checksum and magic are checked here."""
    magic = block[257:265]
    if magic not in _MAGICS or _octal(block[148:156]) != sum(block[:148]) + 8 * 0x20 + sum(block[156:]):
        raise Damaged("not a tar header where a member should begin")
    name = block[:_NAME].split(b"\0")[0]
    prefix = block[345 : 345 + _PREFIX].split(b"\0")[0] if magic == _MAGICS[0] else b""
    return _text(prefix + b"/" + name if prefix else name)


def _octal(field: bytes) -> int | None:
    """An octal number that NUL or space ends, spaces before it allowed; None for anything else."""
    match = re.fullmatch(rb" *([0-7]+)[\0 ]*", field)
    return int(match[1], 8) if match else None


def _size(block: bytes, untrusted_name: str) -> int:
    size = _octal(block[124:136])
    if size is None:
        raise Damaged(f"{untrusted_name}: malformed size")
    return size


def _pax_records(data: bytes) -> dict[str, bytes]:
    """The records path and size; data is `LENGTH KEY=VALUE newline` over and over. Damaged for anything else."""
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        match = re.compile(rb"([1-9][0-9]{0,5}) ").match(data, at)
        end = at + int(match[1]) if match else at
        record = data[match.end() : end] if match else b""
        key, equals, value = record.partition(b"=")
        if not match or end > len(data) or not equals or not value.endswith(b"\n"):
            raise Damaged("a malformed pax header")
        if key in (b"path", b"size"):
            records[key.decode("ascii")] = value[:-1]
        at = end
    return records
