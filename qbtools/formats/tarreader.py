"""Reads inner archives: those that sparsetar, Qubes and GNU tar write.

It reads regular members, both sparse formats of GNU tar with a map in the archive (its own old one, typeflag S, and
pax sparse 1.0), long names (typeflag L) and pax headers. Everything has a bound, and everything that is not clearly
right is Damaged: the archive comes from verified chunks, but it is not known who sealed them.
"""

from __future__ import annotations

from qbtools.errors import Damaged, Refused, Truncated
from qbtools.formats import magic, pax, ustar
from qbtools.formats.volumestream import MAX_EXTENTS, ExtentMap
from qbtools.lean import TYPE_CHECKING, NamedTuple
from qbtools.streams import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PATH, _LINK, _SIZE = b"path", b"linkpath", b"size"
_MAJOR, _MINOR, _NAME, _REAL_SIZE = (b"GNU.sparse." + word for word in (b"major", b"minor", b"name", b"realsize"))
# The records with the map in sparse formats 0.0 and 0.1, which no version of Qubes wrote.
_OLDER = tuple(b"GNU.sparse." + word for word in (b"size", b"numblocks", b"offset", b"numbytes", b"map"))
_KEYS = (_PATH, _LINK, _SIZE, _MAJOR, _MINOR, _NAME, _REAL_SIZE, *_OLDER)

_EXTENDED = {b"x": "pax", b"g": "global pax", b"L": "long name", b"K": "long link"}
_REGULAR = (b"0", b"\0", b"S")
_LINKS = (b"1", b"2")

# The sparse map of GNU tar's own format: entries of two numbers, in the header and then in blocks of their own.
_ENTRY = 24
_HEADER_ENTRIES = slice(386, 482)
_HEADER_EXTENDED = 482
_HEADER_REAL_SIZE = slice(483, 495)
_BLOCK_ENTRIES = slice(0, 504)
_BLOCK_EXTENDED = 504

_MOST_HEADERS = 16  # before one member: GNU tar writes two, and keeps all headers that it reads in memory

_MAP_LINE = 32  # bytes of the longest line of a map
_MAP_LINES = 1 << 12  # lines parsed in one step


class Member(NamedTuple):
    """A member whose header was read."""

    untrusted_name: str
    """The name in the archive. Bytes that are not UTF-8 are surrogates."""

    size: int
    """Bytes of the file, including holes; 0 … 2^63 - 1. It has not been compared with anything yet."""

    kind: str
    """Empty for a regular file, otherwise its type: `a directory`."""

    untrusted_target: str = ""
    """The target of a link, in the form of untrusted_name."""


class TarReader:
    """Reads the members of an archive one after the other, from the position of reader to EOF.

    All methods raise Damaged if the format is broken, Truncated if the input ends too early, Refused for a map of
    more than MAX_EXTENTS extents.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._global: dict[bytes, bytes] = {}
        self._begun = False
        self._known = False  # whether any header was read
        self._wanted: str | None = None
        self._name = ""
        self._stored = 0  # bytes of the body
        self._size = 0
        self._map = ""  # the kind of a map that has not been read yet: "whole" (no map), "pax", "old"; otherwise ""
        self._header = b""
        self._end = reader.position  # where the body of the current member ends; known when its map has been read

    def find(self, name: str | None, suffix: str = "") -> Member:
        """The member called name, the others being skipped; None: the first. Damaged if it is not a regular file.

        suffix: it may also be called name and this.
        """
        self._wanted = name
        while (member := self.next()) is not None:
            if name is None or member.untrusted_name in (name, f"{name}{suffix}"):
                if member.kind:
                    raise Damaged(f"{member.untrusted_name} is {member.kind}, not a regular file")
                return member
        raise Damaged("the archive has no member" if name is None else f"the archive has no member {name}")

    def finish(self) -> None:
        """Reads to EOF after find(). Damaged if the name occurs again, or, without a name, if any other follows."""
        while (member := self.next()) is not None:
            if self._wanted is None:
                raise Damaged("the archive holds more than one member", "name the one that is wanted")
            if member.untrusted_name == self._wanted:
                raise Damaged(f"{member.untrusted_name} occurs twice")

    def next(self) -> Member | None:
        """The next member, or None at a valid end of the archive. Skips the rest of the current member."""
        self._check_kind()
        if self._map:
            self.read_map()
        self._reader.skip(self._end - self._reader.position)
        self._read_padding(self._stored, "the data")
        local: dict[bytes, bytes] = {}
        long_name: bytes | None = None
        long_link: bytes | None = None
        extended = 0
        while True:
            block = self._reader.read_exact(ustar.BLOCK)
            if not any(block):
                if local or long_name is not None or long_link is not None:
                    raise Damaged("the archive ends after a header that needs a member")
                self._read_tail()
                return None
            header = self._parse(block)
            if header.typeflag not in _EXTENDED:
                return self._begin(header, long_name, long_link, {**self._global, **local})
            extended += header.typeflag != b"g"
            if extended > _MOST_HEADERS:
                raise Damaged(f"more than {_MOST_HEADERS} extended headers stand in front of one member")
            body = self._read_extended(header)
            if header.typeflag == b"x":
                local.update(pax.parse(body, _KEYS))
            elif header.typeflag == b"g":
                self._global.update(pax.parse(body, _KEYS))
            elif header.typeflag == b"L":
                long_name = body.removesuffix(b"\0")
            else:
                long_link = body.removesuffix(b"\0")

    def _check_kind(self) -> None:
        """Damaged if the first bytes of the input show that it is not a tar archive."""
        if not self._begun:
            self._begun = True
            magic.check(self._reader.name, self._reader.peek(magic.HEAD), magic.TAR)

    def _parse(self, block: bytes) -> ustar.Header:
        try:
            found = ustar.parse(block)
        except Damaged:
            self._reader.check_spoilt(block)
            if not self._known and magic.kind(block) is None:
                raise magic.wrong(self._reader.name, block, magic.TAR) from None
            raise
        self._known = True
        return found

    def read_map(self) -> ExtentMap:
        """The map of the current member; called once. The reader is then at the first byte of the data.

        The caller may read all or some of the data from the reader.
        """
        kind, self._map = self._map, ""
        began = self._reader.position
        if kind == "old":
            extents = self._collect(self._old_entries())
            map_size = 0
        elif kind == "pax":
            extents = self._collect(self._pax_entries())
            map_size = self._reader.position - began
            self._read_padding(map_size, "the sparse map")
            map_size += ustar.padding(map_size)
        else:
            extents = ExtentMap(self._size)
            extents.add(0, self._size)
            map_size = 0
        data = extents.data
        if map_size + data != self._stored:
            raise Damaged(f"the sparse map of {self._name} does not fit the size of its data")
        self._end = self._reader.position + data
        return extents

    def _begin(
        self, header: ustar.Header, long_name: bytes | None, long_link: bytes | None, records: dict[bytes, bytes]
    ) -> Member:
        """Begins a member with its own header, after any extended headers."""
        name = records.get(_NAME) or records.get(_PATH) or long_name or header.untrusted_name
        if not name or b"\0" in name:
            raise Damaged("a member has no name, or one with a NUL byte")
        self._name = name.decode("utf-8", "surrogateescape")
        self._stored = self._number(records, _SIZE) if records.get(_SIZE) else header.untrusted_size
        self._size, self._map, self._header = self._stored, "whole", header.block
        kind = ustar.KINDS.get(header.typeflag, "")
        if header.typeflag in _REGULAR and name.endswith(b"/"):
            kind = "a directory"
        if kind and self._stored:
            raise Damaged(f"{self._name} is {kind}, but has data")
        if not kind and header.typeflag not in _REGULAR:
            raise Damaged(f"{self._name} is of a type that is not read: {header.typeflag.decode('latin-1')}")
        self._begin_sparse(header, records)
        target = b""
        if header.typeflag in _LINKS:
            target = records.get(_LINK) or long_link or header.untrusted_target
        return Member(self._name, self._size, kind, target.decode("utf-8", "surrogateescape"))

    def _begin_sparse(self, header: ustar.Header, records: dict[bytes, bytes]) -> None:
        if not records and header.typeflag != b"S":
            return
        if any(records.get(key) for key in _OLDER):
            raise Damaged(f"{self._name} is in a sparse format that is not read: GNU tar's 0.0 or 0.1")
        sparse = any(records.get(key) for key in (_MAJOR, _MINOR, _NAME, _REAL_SIZE))
        if header.typeflag == b"S":
            if sparse:
                raise Damaged(f"{self._name} has two sparse maps")
            self._map = "old"
            self._size = ustar.number(header.block[_HEADER_REAL_SIZE])
        elif sparse:
            if (records.get(_MAJOR), records.get(_MINOR)) != (b"1", b"0"):
                raise Damaged(f"{self._name} is in a sparse format that is not read")
            self._map = "pax"
            self._size = self._number(records, _REAL_SIZE)

    def _number(self, records: dict[bytes, bytes], key: bytes) -> int:
        digits = records.get(key, b"")
        if not digits.isdigit() or len(digits) > 19 or int(digits) > ustar.MAX_NUMBER:
            raise Damaged(f"the pax record {key.decode('ascii')} of {self._name} is malformed or missing")
        return int(digits)

    def _read_extended(self, header: ustar.Header) -> bytes:
        """The body of an extended header, which only describes the next member."""
        size = header.untrusted_size
        if size > pax.MAX_SIZE:
            raise Damaged(f"a {_EXTENDED[header.typeflag]} header of {size} bytes is too long")
        body = self._reader.read_exact(size)
        self._read_padding(size, f"a {_EXTENDED[header.typeflag]} header")
        return body

    def _read_padding(self, size: int, what: str) -> None:
        """Reads the padding after size bytes."""
        if any(self._reader.read_exact(ustar.padding(size))):
            raise Damaged(f"{what} is padded with something other than zeros")

    def _read_tail(self) -> None:
        """Reads from the end of the first zero block to EOF.

        All zeros after the last body count, including its padding: Qubes' own writer leaves the padding out.
        """
        if self._reader.read_zeros_to_eof() < 0:
            if not self._known:  # zeros and then data, as disks have it
                raise magic.wrong(self._reader.name, bytes(1), magic.TAR)
            raise Damaged("something follows the end of the archive")
        if self._reader.position - self._end < len(ustar.END_OF_ARCHIVE):
            raise Truncated(f"{self._reader.name} ends too early")

    def _collect(self, entries: Iterable[tuple[int, int]]) -> ExtentMap:
        """The checked entries of a map. Empty entries only show where the file ends, and are left out."""
        extents = ExtentMap(self._size)
        append = extents.append
        for count, (offset, length) in enumerate(entries, 1):
            if count > MAX_EXTENTS + 1:
                raise self._too_many()
            try:
                if length:
                    append(offset, length)
                elif not extents.end <= offset <= self._size:
                    raise ValueError("an empty extent is out of place")
            except ValueError as error:
                if len(extents) >= MAX_EXTENTS:
                    raise self._too_many() from None
                raise Damaged(f"the sparse map of {self._name} is malformed: {error}") from None
        return extents

    def _too_many(self) -> Refused:
        return Refused(f"the sparse map of {self._name} has more than {MAX_EXTENTS} extents")

    def _old_entries(self) -> Iterator[tuple[int, int]]:
        number = ustar.number
        entries, extended = self._header[_HEADER_ENTRIES], self._header[_HEADER_EXTENDED]
        while True:
            for at in range(0, len(entries), _ENTRY):
                if not entries[at + 12]:
                    if extended:
                        raise Damaged(f"the sparse map of {self._name} is malformed: it continues after its end")
                    return
                yield number(entries[at : at + 12]), number(entries[at + 12 : at + _ENTRY])
            if not extended:
                return
            block = self._reader.read_exact(ustar.BLOCK)
            entries, extended = block[_BLOCK_ENTRIES], block[_BLOCK_EXTENDED]

    def _pax_entries(self) -> Iterator[tuple[int, int]]:
        (count,) = self._map_numbers(1)
        if count > MAX_EXTENTS + 1:
            raise self._too_many()
        numbers = self._map_numbers(2 * count)
        return zip(numbers, numbers, strict=True)

    def _map_numbers(self, count: int) -> Iterator[int]:
        while count:
            lines = self._reader.read_lines(min(count, _MAP_LINES), _MAP_LINE)
            if not all(lines) or not b"".join(lines).isdigit():
                raise Damaged(f"the sparse map of {self._name} is malformed: a line is not a number")
            count -= len(lines)
            yield from map(int, lines)
