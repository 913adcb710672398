"""Replaces the key members at the beginning of an archive. Nothing else is changed."""

from __future__ import annotations

import io
from collections.abc import Iterable

from qbtools.errors import Damaged, Refused
from qbtools.formats import chunks, keymembers, outertar, ustar
from qbtools.formats.outertar import MemberReader
from qbtools.lean import suppress
from qbtools.streams import Reader

MAX_BEGINNING = 1 << 20
"""Maximum bytes before the first chunk: enough for all members, each with the padding that Qubes writes."""

_PAIR = (chunks.HEADER, chunks.HEADER_MAC)
_STAY = (*_PAIR, keymembers.SIGNATURE)


class Kept:
    """Keeps the bytes that are written to it. Refused for more than MAX_BEGINNING bytes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Keeps all of data."""
        self._data += data
        self._check()
        return len(data)

    def data(self) -> bytes:
        """All bytes that were written."""
        self._check()  # MemberReader.look() does not raise the error of write()
        return bytes(self._data)

    def _check(self) -> None:
        if len(self._data) > MAX_BEGINNING:
            raise Refused(f"the archive has more than {MAX_BEGINNING} bytes before its first chunk")


def with_keys(beginning: bytes, keys: Iterable[tuple[str, bytes]]) -> bytes:
    """The bytes of an archive before its first chunk, with these key members instead of those that it has.

    beginning: the bytes that were read, up to the tar header of the first chunk or of any other next member. keys:
    names and contents, in order. Errors as MemberReader.
    """
    members = MemberReader(Reader(io.BytesIO(beginning)), lambda _name: ustar.MAX_NUMBER)
    parts: list[bytes] = []
    start = mtime = 0
    while (member := members.next()) is not None and member.untrusted_name in (*_PAIR, *keymembers.BOUNDS):
        name, body = member.untrusted_name, members.reader.position
        members.skip_body()
        end = members.reader.position
        if name == chunks.HEADER:
            mtime = _mtime(beginning[body - ustar.BLOCK : body])
        if name in _STAY:
            parts.append(beginning[start:end])
        if name == chunks.HEADER_MAC:
            parts += [outertar.small_member(new, data, mtime) for new, data in keys]
        start = end
    return b"".join(parts) + beginning[start:]


def _mtime(block: bytes) -> int:
    """The time at which the backup began, from the tar header of its first member."""
    with suppress(Damaged):
        return ustar.number(block[136:148])
    return 0
