"""The volume stream: the format between qb-volread and qb-tarwrite, and between qb-tarextract and qb-volwrite.

    qb-volume 1\\n
    size 4294967296\\n            bytes of the whole volume
    extents 2\\n
    0 4194304\\n                  offset and length, one line per extent
    8388608 1048576\\n
    \\n
    <the bytes of the extents, one after the other>
    end 5242880\\n                their sum; then EOF

What no extent covers reads as zeros. Numbers are decimal, without sign or leading zeros. What changed since a base is
another stream: deltastream.py.
"""

from __future__ import annotations

from qbtools.errors import Damaged, Refused, Truncated
from qbtools.formats import magic
from qbtools.lean import TYPE_CHECKING, number
from qbtools.streams import Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableSequence

MAX_EXTENTS = 1 << 20
"""Maximum extents of a map: a reader keeps 16 bytes for each."""

JOIN_GAP = 1 << 16
"""A writer turns holes smaller than this into data, so that maps stay small."""

ALIGN = 512
"""Extents begin and end at multiples of this. Only the end of the volume may be different."""

MAX_SIZE = (1 << 63) - 1
"""Bytes of the largest volume: the largest file offset of the kernel."""

INCREMENT = b"qb-volume 2\n"
"""The first line of the other stream."""

PLAIN = "--raw takes a plain image"
"""The hint of a program that has this option."""

NO_PLAIN = "qb-volread makes a volume stream of an image"
"""The hint of a program that does not have it."""

_FIRST_LINE = b"qb-volume 1\n"
_LINE = 64  # bytes of the longest header line
_SHORT = 1 << 10  # extents of a map that is kept in lists
_LINES = 1 << 12  # lines parsed in one step


class ExtentMap:
    """The places with data in a volume: extents (offset, length in bytes), sorted, not empty, not overlapping.

    It has at most MAX_EXTENTS, and needs 16 bytes of memory for each.
    """

    def __init__(self, size: int, gap: int = JOIN_GAP) -> None:
        """size: bytes of the volume, 0 … MAX_SIZE. gap: holes smaller than this become data in add()."""
        if not 0 <= size <= MAX_SIZE:
            raise ValueError(f"a volume cannot have {size} bytes")
        self.size = size
        self.gap = gap
        self._offsets: MutableSequence[int] = []
        self._lengths: MutableSequence[int] = []

    @property
    def data(self) -> int:
        """Bytes of data in all extents."""
        return sum(self._lengths)

    @property
    def end(self) -> int:
        """The end of the last extent; 0 if there is none."""
        return self._offsets[-1] + self._lengths[-1] if self._offsets else 0

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._offsets, self._lengths, strict=True)

    def add(self, offset: int, length: int) -> None:
        """Adds a place with data when a map is made. Calls must be in ascending order of offset.

        The extent is rounded out to ALIGN, clipped to the volume, and joined with the extent before it if they touch
        or the hole between them is smaller than the gap. If the map is full, the gap is doubled until the extent fits.
        Length 0, and an offset beyond the volume, add nothing.
        """
        if length <= 0 or offset >= self.size:
            return
        end = min(-(-(offset + length) // ALIGN) * ALIGN, self.size)
        offset -= offset % ALIGN
        if self._offsets and offset < self._offsets[-1]:
            raise ValueError("extents must be added in ascending order")
        while True:
            last = self.end
            if self._offsets and (offset <= last or offset - last < self.gap):
                self._lengths[-1] = max(end, last) - self._offsets[-1]
                return
            if len(self._offsets) < MAX_EXTENTS:
                break
            self.gap = max(self.gap * 2, ALIGN * 2)
            self._join()
        self._put(offset, end - offset)

    def _join(self) -> None:
        """Joins, in place, all extents with a hole smaller than the gap between them."""
        offsets, lengths, gap = self._offsets, self._lengths, self.gap
        at = 0
        last = offsets[0] + lengths[0]
        for index in range(1, len(offsets)):
            offset = offsets[index]
            end = offset + lengths[index]
            if offset - last < gap:
                lengths[at] = end - offsets[at]
            else:
                at += 1
                offsets[at], lengths[at] = offset, end - offset
            last = end
        del offsets[at + 1 :], lengths[at + 1 :]

    def append(self, offset: int, length: int) -> None:
        """Adds an unchanged extent when a map is read. ValueError if it breaks a rule; its text names the rule."""
        end = offset + length
        if length <= 0:
            raise ValueError("an extent is empty")
        if end > self.size:
            raise ValueError("an extent passes the end of the volume")
        if offset < self.end:
            raise ValueError("extents overlap, or are not sorted")
        if offset % ALIGN or (end % ALIGN and end != self.size):
            raise ValueError(f"an extent is not aligned at {ALIGN} bytes")
        if len(self._offsets) >= MAX_EXTENTS:
            raise ValueError(f"there are more than {MAX_EXTENTS} extents")
        self._put(offset, length)

    def _put(self, offset: int, length: int) -> None:
        if len(self._offsets) == _SHORT:  # an array needs less memory; short maps need not import it
            from array import array

            self._offsets, self._lengths = array("Q", self._offsets), array("Q", self._lengths)
        self._offsets.append(offset)
        self._lengths.append(length)


def write_header(writer: Writer, extents: ExtentMap) -> None:
    """Writes the header. The caller then writes the bytes of the extents, and calls write_end()."""
    writer.write_lines((f"qb-volume 1\nsize {extents.size}\n", f"extents {len(extents)}\n"))
    writer.write_lines(f"{offset} {length}\n" for offset, length in extents)
    writer.write(b"\n")


def write_end(writer: Writer, extents: ExtentMap) -> None:
    """Writes the end line. Only called if everything before is complete."""
    writer.write(b"end %d\n" % extents.data)


def write_plain(writer: Writer, reader: Reader, extents: ExtentMap) -> None:
    """Writes the plain volume. reader: gives the data of the extents, one after the other."""
    end = 0
    for offset, length in extents:
        writer.write_zeros(offset - end)
        reader.copy_to(writer, length)
        end = offset + length
    writer.write_zeros(extents.size - end)


def read_header(reader: Reader, hint: str = PLAIN) -> ExtentMap:
    """The map. The reader is then at the first byte of data. hint: for an input of no known kind.

    Damaged or Truncated if the header is not valid. Refused for an increment, which is not a complete volume.
    """
    head = reader.peek(len(_FIRST_LINE))
    if head == INCREMENT:
        raise Refused(f"{reader.name} is an increment, not a whole volume", "qb-merge makes one of it and its base")
    if not _FIRST_LINE.startswith(head) or not head:
        raise magic.wrong(reader.name, reader.peek(magic.HEAD), magic.STREAM, {None: hint})
    reader.read_lines(1, _LINE)
    extents = read_map(reader, read_number(reader, "size", MAX_SIZE))
    read_empty_line(reader)
    return extents


def read_map(reader: Reader, size: int) -> ExtentMap:
    """Reads the line `extents` and those of the map."""
    count = read_number(reader, "extents", MAX_EXTENTS)
    extents = ExtentMap(size)
    append = extents.append
    while len(extents) < count:
        for line in reader.read_lines(min(count - len(extents), _LINES), _LINE):
            first, _, second = line.partition(b" ")
            offset, length = number(first), number(second)
            if offset is None or not length:
                raise malformed(reader, "a line of the map is not two numbers")
            try:
                append(offset, length)
            except ValueError as error:
                raise malformed(reader, str(error)) from None
    return extents


def read_empty_line(reader: Reader) -> None:
    """Reads the line that ends a header."""
    if reader.read_lines(1, _LINE) != [b""]:
        raise malformed(reader, "no empty line behind the map")


def read_end(reader: Reader, extents: ExtentMap) -> None:
    """Reads the end line and EOF, behind the data. Damaged or Truncated if anything else comes."""
    check_end(reader, read_last(reader), extents.data)


def read_last(reader: Reader) -> bytes:
    """Reads a line that may be the last one. Truncated if the input ends within it."""
    line = reader.read_line(_LINE)
    if not line.endswith(b"\n") and len(line) < _LINE:
        raise Truncated(f"the volume stream on {reader.name} ends without its end line")
    return line


def check_end(reader: Reader, line: bytes, data: int) -> None:
    """Damaged if line, which was just read, is not the end line of so many bytes, or anything follows it."""
    if line != b"end %d\n" % data:
        raise malformed(reader, "no end line where the data ends")
    if not reader.at_eof():
        raise malformed(reader, "bytes follow the end line")


def read_number(reader: Reader, word: str, most: int) -> int:
    """The number of the header line `word NUMBER`. Damaged if the line is another, or the number above most."""
    (line,) = reader.read_lines(1, _LINE)
    found, _, digits = line.partition(b" ")
    value = number(digits) if found == word.encode("ascii") else None
    if value is None:
        raise malformed(reader, f"no line `{word} NUMBER` where it should be")
    if value > most:
        raise malformed(reader, f"{word} is above {most}")
    return value


def malformed(reader: Reader, what: str) -> Damaged:
    """What is said of a stream that breaks a rule of its format."""
    return Damaged(f"the volume stream on {reader.name} is malformed: {what}")
