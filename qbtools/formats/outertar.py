"""The outer archive: writes plain tar members, and reads them strictly.

A member is a header (ustar.py), its body, and NULs up to 512. A written member is always a regular file (typeflag 0)
that fits in ustar. A member that is read may also have a pax local header (typeflag x): its path and size are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from qbtools.errors import Damaged, QbError, Refused, Truncated
from qbtools.formats import pax, ustar
from qbtools.formats.chunks import path_problem
from qbtools.formats.ustar import BLOCK, END_OF_ARCHIVE
from qbtools.lean import NamedTuple
from qbtools.streams import Writer

MAX_BODY = ustar.MAX_OCTAL_SIZE
"""Bytes of the largest body that fits in ustar."""

MAX_PAX = 1 << 16
"""Maximum bytes of a pax local header."""

MAX_NAME = 256
"""Maximum bytes of a member's name: the limit of ustar."""

_ZERO_BLOCK = bytes(BLOCK)
_PATH, _SIZE = b"path", b"size"


def header(name: str, size: int, mtime: int) -> bytes:
    """The header of a member: 512 bytes.

    name: ASCII. If it has more than 100 bytes, its directory is written as ustar's prefix. size: bytes of the body.
    mtime: seconds since 1970, see ustar.build(). Refused if the name or the size does not fit in ustar.
    """
    if size > MAX_BODY:
        raise Refused(f"{name}: more than {MAX_BODY} bytes in one member", "use a smaller --chunk-size")
    try:
        return ustar.build(name, size, mtime=mtime)
    except ValueError as error:
        raise Refused(str(error)) from None


def padding(size: int) -> bytes:
    """The NULs after a body of size bytes."""
    return bytes(ustar.padding(size))


def small_member(name: str, data: bytes, mtime: int) -> bytes:
    """A member that has data as its body: header, data, padding. Refused as header()."""
    return header(name, len(data), mtime) + data + padding(len(data))


class MemberWriter:
    """Writes members that all have the same mtime (seconds since 1970: when the backup began)."""

    def __init__(self, writer: Writer, mtime: int) -> None:
        self._writer = writer
        self._mtime = mtime

    def add(self, name: str, data: bytes) -> None:
        """Writes a complete member."""
        self._writer.write(small_member(name, data, self._mtime))

    def end_of_archive(self) -> None:
        """Writes the two zero blocks at the end of an archive."""
        self._writer.write(END_OF_ARCHIVE)


class Member(NamedTuple):
    """A member whose header was read. It is a regular file, and its size is within the bound of the caller."""

    untrusted_name: str
    """A relative path of harmless components. It has not been checked whether the archive may have it here."""

    size: int


class Source(Protocol):
    """The input of members: a Reader, or an object with these methods of it."""

    @property
    def position(self) -> int:
        """Bytes that were read or skipped."""

    def peek(self, size: int) -> bytes: ...
    def read_exact(self, size: int) -> bytes: ...
    def read_into(self, view: memoryview) -> int: ...
    def skip(self, size: int) -> None: ...
    def at_eof(self) -> bool: ...
    def read_zeros_to_eof(self) -> int: ...


class MemberReader:
    """Reads the members of an outer archive one after the other.

    Damaged, before any of the body is read, for everything except a regular member with a harmless name and a size
    that `bound` allows. A body can be read with the methods here or directly from the Source: its position is used.
    The memory does not grow with the archive.
    """

    def __init__(self, reader: Source, bound: Callable[[str], int]) -> None:
        self.reader = reader
        self.bound = bound
        """Returns the maximum bytes of a member with an (untrusted) name. The caller replaces it when it knows more."""

        self._name = ""
        self._end = reader.position
        self._padding = 0
        self._ahead: tuple[Member | None, QbError | None] | None = None

    @property
    def remaining(self) -> int:
        """Bytes of the current body that have not been read yet."""
        return self._end - self.reader.position if self._name else 0

    def look(self) -> Member | None:
        """The next result of next(), or None if it will raise. The body may be read before next() is called."""
        try:
            self._ahead = self.next(), None
        except QbError as error:
            self._ahead = None, error
        return self._ahead[0]

    def next(self) -> Member | None:
        """The next member, or None at the end of the input. The rest of the current member is skipped.

        Zero blocks between members are skipped. Truncated if the input ends inside a member or its header, Damaged
        for everything that is not a plain member.
        """
        if self._ahead is not None:
            (member, error), self._ahead = self._ahead, None
            if error is not None:
                raise error
            return member
        self.skip_body()
        block = self._header_block()
        if block is None:
            return None
        records: dict[bytes, bytes] = {}
        found = ustar.parse(block)
        if found.typeflag == b"x":
            records = self._pax_records(found.untrusted_size)
            found = ustar.parse(self._block())
        return self._member(found, records)

    def read_into(self, view: memoryview) -> None:
        """Fills view from the body; its length is at most `remaining`. Truncated if the input ends before."""
        if self.reader.read_into(view) < len(view):
            raise self._truncated()

    def read(self, size: int) -> bytes:
        """The next size bytes of the body, at most `remaining`. For small sizes. Truncated as read_into()."""
        data = bytearray(size)
        self.read_into(memoryview(data))
        return bytes(data)

    def read_all(self) -> bytes:
        """Reads the rest of the body and its padding; returns the body. For small members: the bytes are copied."""
        data = self.read(self.remaining)
        self.skip_body()
        return data

    def skip(self, size: int) -> None:
        """Skips the next size bytes of the body, at most `remaining`. Seeks if the input can."""
        try:
            self.reader.skip(size)
        except Truncated:
            raise self._truncated() from None

    def skip_body(self) -> None:
        """Skips the rest of the body (seeks if the input can), and reads its padding.

        Truncated if the input ends before, Damaged if the padding is not zeros.
        """
        if not self._name:
            return
        try:
            self.reader.skip(self.remaining)
            rest = self.reader.read_exact(self._padding)
        except Truncated:
            raise self._truncated() from None
        if rest.count(0) != len(rest):
            raise Damaged(f"{self._name} is padded with something other than zeros")
        self._name = ""

    def read_end(self) -> None:
        """Reads to the end of the input. Damaged if anything but zeros follows the current member."""
        self.skip_body()
        if self.reader.read_zeros_to_eof() < 0:
            raise Damaged("something follows the end of the archive")

    def _begin(self, name: str, size: int) -> None:
        """Records that a body of size bytes begins here."""
        self._name = name
        self._end = self.reader.position + size
        self._padding = ustar.padding(size)

    def _truncated(self) -> Truncated:
        return Truncated(f"the archive ends in the middle of {self._name}")

    def _block(self) -> bytes:
        try:
            return self.reader.read_exact(BLOCK)
        except Truncated:
            raise Truncated("the archive ends in the middle of a tar header") from None

    def _header_block(self) -> bytes | None:
        """The next block that is not all zeros; None at the end of the input."""
        while not self.reader.at_eof():
            block = self._block()
            if block != _ZERO_BLOCK:
                return block
        return None

    def _pax_records(self, size: int) -> dict[bytes, bytes]:
        """The records path and size of a pax local header."""
        if size > MAX_PAX:
            raise Damaged(f"a pax header of {size} bytes is too long")
        self._begin("a pax header", size)
        return pax.parse(self.read_all(), (_PATH, _SIZE))

    def _member(self, found: ustar.Header, records: dict[bytes, bytes]) -> Member:
        untrusted_path = records.get(_PATH, found.untrusted_name)
        untrusted_name = untrusted_path[:MAX_NAME].decode("ascii", "backslashreplace")
        if len(untrusted_path) > MAX_NAME:
            raise Damaged(f"{untrusted_name}: the name is too long")
        if found.typeflag not in (b"0", b"\0"):
            kind = ustar.KINDS.get(found.typeflag, "of an unknown type")
            raise Damaged(f"{untrusted_name} is {kind}, not a regular file")
        problem = path_problem(untrusted_name)
        if problem:
            raise Damaged(f"{untrusted_name}: {problem}")
        size = found.untrusted_size
        if _SIZE in records:
            if not re.fullmatch(rb"[0-9]{1,19}", records[_SIZE]):
                raise Damaged(f"{untrusted_name}: malformed size in its pax header")
            size = int(records[_SIZE])
        if size > self.bound(untrusted_name):
            raise Damaged(f"{untrusted_name} is too long: {size} bytes")
        self._begin(untrusted_name, size)
        return Member(untrusted_name, size)
