"""Volume stream 2: what changed in a volume since a base.

    qb-volume 2\\n
    size 4294967296\\n                    bytes of the volume now
    base ID SHA256\\n                     the backup, and SHA-256 (hex) of the line of this volume in its manifest
    extents 2\\n                          the map of the volume now
    0 4194304\\n
    8388608 1048576\\n
    \\n
    data 4194304 65536\\n<65536 bytes>    inside the map
    zero 8388608 524288\\n                reads as zeros now and did not in the base
    end 65536\\n                          the sum of the lengths of the data; then EOF

Records are in ascending order. Everything outside of records is as in the base. Of the base, and of all streams below
it, only the part below the smallest size of all streams above counts: the rest reads as zeros. Offsets and lengths
follow the rules of extents, except for zeros that begin at a former end of a volume. Records are not kept in memory.
"""

from __future__ import annotations

from qbtools.formats import volumestream
from qbtools.formats.volumestream import ALIGN, INCREMENT, MAX_SIZE, ExtentMap, malformed
from qbtools.lean import TYPE_CHECKING, NamedTuple, number
from qbtools.streams import Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DATA = 16 << 20
"""Bytes of the longest data record."""

MAX_ID = 128
"""Bytes of the longest backup ID that a base may have."""

DIGEST = 64
"""Hexadecimal digits of a digest."""

_BASE_LINE = 256
_ID = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_HEX = frozenset(b"0123456789abcdef")


class Base(NamedTuple):
    """The backup that an increment belongs to."""

    backup_id: str
    digest: str
    """SHA-256 of the line (with its newline) that the volume has in the manifest of that backup; 64 digits."""


class Head(NamedTuple):
    """The header of a stream."""

    extents: ExtentMap
    base: Base


class Record(NamedTuple):
    """One change: length bytes of data at offset, or zeros where zero is set."""

    zero: bool
    offset: int
    length: int

    @property
    def line(self) -> str:
        """The line that begins the record, without its newline."""
        return f"{'zero' if self.zero else 'data'} {self.offset} {self.length}"


class Order:
    """Checks each record of a stream, in turn. data: the sum of the lengths of the data records so far."""

    def __init__(self, size: int, extents: ExtentMap | None) -> None:
        """extents: data must lie inside this map; None: that is not checked."""
        self.data = 0
        self._size = size
        self._extents = None if extents is None else iter(extents)
        self._start = self._stop = 0  # of what is covered around the current place
        self._end = 0

    def check(self, record: Record) -> None:
        """ValueError, with the rule as text, if the record breaks one."""
        end = record.offset + record.length
        if record.length <= 0:
            raise ValueError("a record is empty")
        if end > self._size:
            raise ValueError("a record passes the end of the volume")
        if record.offset < self._end:
            raise ValueError("records overlap, or are not sorted")
        if (record.offset % ALIGN and not record.zero) or (end % ALIGN and end != self._size):
            raise ValueError(f"a record is not aligned at {ALIGN} bytes")
        if not record.zero:
            if record.length > MAX_DATA:
                raise ValueError(f"a data record has more than {MAX_DATA} bytes")
            if self._extents is not None and not self._covered(self._extents, record.offset, end):
                raise ValueError("a data record is not inside the map")
            self.data += record.length
        self._end = end

    def _covered(self, extents: Iterator[tuple[int, int]], offset: int, end: int) -> bool:
        while self._stop < end:
            start, length = next(extents, (MAX_SIZE, 1))
            if start != self._stop or not self._stop:
                if self._stop > offset:
                    return False
                self._start = start
            self._stop = start + length
        return self._start <= offset


class RecordReader:
    """Reads the records of a stream. order: what was read so far."""

    def __init__(self, reader: Reader, size: int, extents: ExtentMap | None) -> None:
        """reader stands behind the header. extents: as for Order."""
        self.order = Order(size, extents)
        self._reader = reader

    def next(self) -> Record | None:
        """The next record, whose data the caller then reads from the reader; None after the end line and EOF."""
        reader = self._reader
        line = volumestream.read_last(reader)
        word, _, rest = line.rstrip(b"\n").partition(b" ")
        if word not in (b"data", b"zero"):
            volumestream.check_end(reader, line, self.order.data)
            return None
        first, _, second = rest.partition(b" ")
        offset, length = number(first), number(second)
        if offset is None or length is None or not line.endswith(b"\n"):
            raise malformed(reader, "a record does not begin with two numbers")
        record = Record(word == b"zero", offset, length)
        try:
            self.order.check(record)
        except ValueError as error:
            raise malformed(reader, str(error)) from None
        return record


class RecordWriter:
    """Writes records; touching ones of one kind become one. Keeps at most MAX_DATA bytes. data: bytes of data."""

    def __init__(self, writer: Writer) -> None:
        self.data = 0
        self._writer = writer
        self._zero = False
        self._offset = self._end = 0
        self._held = bytearray()

    def add_data(self, offset: int, data: memoryview) -> None:
        """Adds data, behind all that was added before."""
        while len(data):
            if self._zero or offset != self._end or len(self._held) == MAX_DATA:
                self._put()
                self._zero, self._offset = False, offset
            part = data[: MAX_DATA - len(self._held)]
            self._held += part
            self._end = offset = offset + len(part)
            data = data[len(part) :]

    def add_zeros(self, offset: int, length: int) -> None:
        """Adds zeros, behind all that was added before."""
        if not self._zero or offset != self._end:
            self._put()
            self._zero, self._offset = True, offset
        self._end = offset + length

    def end(self) -> None:
        """Writes the end line. Only called if everything before is complete."""
        self.flush()
        self._writer.write(b"end %d\n" % self.data)

    def flush(self) -> None:
        """Writes the kept data. Nothing can be added after it."""
        self._put()
        self._offset = self._end

    def _put(self) -> None:
        if self._end > self._offset:
            record = Record(self._zero, self._offset, self._end - self._offset)
            self._writer.write(f"{record.line}\n".encode("ascii"))
            self._writer.write(self._held)
            self.data += len(self._held)
            self._held.clear()


def is_increment(reader: Reader) -> bool:
    """Whether a stream 2 comes next; nothing is read."""
    return reader.peek(len(INCREMENT)) == INCREMENT


def header_lines(head: Head) -> Iterator[str]:
    """The header up to the empty line, which is not in it."""
    yield f"qb-volume 2\nsize {head.extents.size}\nbase {head.base.backup_id} {head.base.digest}\n"
    yield f"extents {len(head.extents)}\n"
    for offset, length in head.extents:
        yield f"{offset} {length}\n"


def write_header(writer: Writer, head: Head) -> None:
    """Writes the header; a RecordWriter writes the rest."""
    writer.write_lines(header_lines(head))
    writer.write(b"\n")


def read_header(reader: Reader) -> Head:
    """The header of a stream for which is_increment() is true. Damaged or Truncated for all that is not one."""
    head = read_fields(reader)
    volumestream.read_empty_line(reader)
    return head


def read_fields(reader: Reader) -> Head:
    """The same up to the empty line, which is still to be read."""
    reader.read_exact(len(INCREMENT))
    size = volumestream.read_number(reader, "size", MAX_SIZE)
    base = _base(reader)
    return Head(volumestream.read_map(reader, size), base)


def base_problem(backup_id: str) -> str | None:
    """What is wrong with the backup ID of a base, or None."""
    if not 0 < len(backup_id) <= MAX_ID or backup_id[0] == "-" or not set(backup_id.encode()) <= _ID:
        return f"not 1 to {MAX_ID} letters, digits and hyphens, the first no hyphen"
    return None


def _base(reader: Reader) -> Base:
    (line,) = reader.read_lines(1, _BASE_LINE)
    try:
        word, backup_id, digest = line.decode("ascii").split(" ")
    except (ValueError, UnicodeDecodeError):
        word = backup_id = digest = ""
    if word != "base" or base_problem(backup_id) or len(digest) != DIGEST or not set(digest.encode()) <= _HEX:
        raise malformed(reader, "no line `base ID SHA256` where it should be")
    return Base(backup_id, digest)
