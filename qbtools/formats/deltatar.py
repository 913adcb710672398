"""The inner archive of an increment: volume stream 2 as regular members of a tar archive.

    NAME.d/size                         the header of the stream, up to its empty line
    NAME.d/00000000000004194304         the data of a record; the name is its offset, in 20 digits
    NAME.d/00000000000008388608.zero    a record of zeros: its length in decimal, and a newline
    NAME.d/end                          the end line

They are in the order of the stream, and nothing else is in the archive, so that tar and dd alone can apply it.
"""

from __future__ import annotations

import io

from qbtools.errors import Damaged
from qbtools.formats import deltastream, ustar
from qbtools.formats.deltastream import MAX_DATA, Base, Head, Order, Record, RecordReader
from qbtools.formats.tarreader import Member, TarReader
from qbtools.formats.volumestream import INCREMENT, MAX_EXTENTS, ExtentMap
from qbtools.lean import TYPE_CHECKING, number
from qbtools.streams import Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = ".d/size"
"""What follows NAME in the name of the first member."""

_DIGITS = 20
_LOOK = 1 << 16  # bytes, as many as a Reader can look ahead
_ZERO = ".zero"
_MAX_HEAD = MAX_EXTENTS * 40 + 512


def write(writer: Writer, reader: Reader, name: str, head: Head) -> None:
    """Writes the archive of the stream whose header was read from reader. Its end stands behind that of the stream.

    name: at most blockindex.MAX_NAME bytes.
    """
    _header(writer, f"{name}{SIZE}", sum(map(len, deltastream.header_lines(head))))
    before = writer.position
    writer.write_lines(deltastream.header_lines(head))
    _pad(writer, writer.position - before)
    records = RecordReader(reader, head.extents.size, head.extents)
    while (record := records.next()) is not None:
        member = _member(name, record)
        if record.zero:
            _small(writer, member, b"%d\n" % record.length)
        else:
            _header(writer, member, record.length)
            reader.copy_to(writer, record.length)
            _pad(writer, record.length)
    _small(writer, f"{name}.d/end", b"end %d\n" % records.order.data)
    writer.write(ustar.END_OF_ARCHIVE)


def _member(name: str, record: Record) -> str:
    return f"{name}.d/{record.offset:0{_DIGITS}d}{_ZERO if record.zero else ''}"


def _header(writer: Writer, member: str, size: int) -> None:
    writer.write(ustar.build(member, size))


def _pad(writer: Writer, size: int) -> None:
    writer.write(bytes(ustar.padding(size)))


def _small(writer: Writer, member: str, data: bytes) -> None:
    _header(writer, member, len(data))
    writer.write(data)
    _pad(writer, len(data))


class IncrementTar:
    """Reads such an archive. head: the header of the stream; name: the one that it was written under.

    All methods raise Damaged for what breaks the format, as TarReader does.
    """

    def __init__(self, archive: TarReader, reader: Reader, member: Member) -> None:
        """archive has just given member, for which is_increment() is true, and reader stands at its data."""
        self.untrusted_name = member.untrusted_name.removesuffix(SIZE)
        self._archive = archive
        self._reader = reader
        _check_plain(archive, member)
        end = reader.position + member.size
        if member.size > _MAX_HEAD:
            raise Damaged(f"{member.untrusted_name} is too long")
        self.head = deltastream.read_fields(reader)
        if reader.position != end:
            raise Damaged(f"{member.untrusted_name} is not the header of an increment")

    def check_base(self, wanted: str | None) -> None:
        """Damaged if it is no increment of the base `ID:SHA256`. None: any."""
        base = self.head.base
        if wanted is not None and wanted != f"{base.backup_id}:{base.digest}":
            raise foreign(self.untrusted_name, base)

    def take_head(self) -> Head:
        """The head, whose map is not kept any more."""
        head = self.head
        self.head = Head(ExtentMap(head.extents.size), head.base)
        return head

    def copy(self, writer: Writer) -> None:
        """Writes the stream; its end line is written when the archive was read to EOF."""
        deltastream.write_header(writer, self.head)
        order = Order(self.head.extents.size, self.head.extents)
        for record in self.records(order):
            writer.write(f"{record.line}\n".encode("ascii"))
            if not record.zero:
                self._reader.copy_to(writer, record.length)
        writer.write(b"end %d\n" % order.data)

    def check(self) -> None:
        """Reads the archive to EOF, and writes nothing."""
        for _record in self.records(Order(self.head.extents.size, self.head.extents)):
            pass

    def records(self, order: Order) -> Iterator[Record]:
        """Each record; its data comes next from the reader. At last the archive was read to EOF."""
        while True:
            member = self._archive.next()
            if member is None:
                raise Damaged(f"{self.untrusted_name}.d/end is missing: the increment is incomplete")
            if member.untrusted_name == f"{self.untrusted_name}.d/end":
                break
            record = self._record(member)
            try:
                order.check(record)
            except ValueError as error:
                raise Damaged(f"{member.untrusted_name} is out of place: {error}") from None
            yield record
        if self._content(member) != b"end %d\n" % order.data:
            raise Damaged(f"{member.untrusted_name} does not fit the records before it")
        if (after := self._archive.next()) is not None:
            raise Damaged(f"{after.untrusted_name} follows the end of the increment")

    def _record(self, member: Member) -> Record:
        directory, _, base = member.untrusted_name.rpartition("/")
        digits = base.removesuffix(_ZERO)
        offset = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) == _DIGITS else -1
        if directory != f"{self.untrusted_name}.d" or offset < 0:
            raise Damaged(f"{member.untrusted_name} is no member of the increment")
        if digits != base:
            content = self._content(member)
            length = number(content[:-1]) if content.endswith(b"\n") else None
            if length is None:
                raise Damaged(f"{member.untrusted_name} does not hold a number")
            return Record(True, offset, length)
        if member.size > MAX_DATA:
            raise Damaged(f"{member.untrusted_name} has more than {MAX_DATA} bytes")
        _check_plain(self._archive, member)
        return Record(False, offset, member.size)

    def _content(self, member: Member) -> bytes:
        if not 0 < member.size <= 32:
            raise Damaged(f"{member.untrusted_name} is malformed")
        _check_plain(self._archive, member)
        return self._reader.read_exact(member.size)


def _check_plain(archive: TarReader, member: Member) -> None:
    """Reads the map of member. Damaged if it is not a regular file without holes."""
    if member.kind:
        raise Damaged(f"{member.untrusted_name} is {member.kind}, not a regular file")
    if archive.read_map().data != member.size:
        raise Damaged(f"{member.untrusted_name} has holes")


def foreign(label: str, base: Base) -> Damaged:
    """Says that an increment has this base, although it must have another one."""
    return Damaged(f"{label} is an increment of another volume or backup: {base.backup_id}, {base.digest}")


def check_whole(reader: Reader, name: str) -> None:
    """Damaged if the archive that comes next from reader holds an increment of the file name. Nothing is read."""
    ahead = Reader(io.BytesIO(reader.peek(_LOOK)), reader.name)
    archive = TarReader(ahead)
    try:
        member = archive.next()
    except Damaged:
        return  # its first header is longer than that of any increment, or malformed: its reader will see
    if member is not None and member.untrusted_name == f"{name}{SIZE}" and is_increment(ahead, member):
        raise Damaged(f"{name} is an increment, not a whole file")


def is_increment(reader: Reader, member: Member) -> bool:
    """Whether member begins an increment, by its name and its first line. reader: at the data of member."""
    return member.untrusted_name.endswith(SIZE) and reader.peek(len(INCREMENT)) == INCREMENT
