"""Writes the stream of qb-delta, and the new index."""

from __future__ import annotations

from qbtools.commands.cli import Invocation
from qbtools.errors import Refused
from qbtools.formats import delta, deltastream, volumestream
from qbtools.formats.blockindex import Head, IndexReader, IndexWriter
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import TYPE_CHECKING, NamedTuple
from qbtools.streams import Reader, Writer

if TYPE_CHECKING:
    from qbtools.storing import PartialFile


def candidates(reader: Reader, base: IndexReader | None) -> deltastream.Head | None:
    """The header of a stream that only has what may have changed since the base; None if a whole volume comes next.

    Refused if it has another base than the index: what is not in the stream cannot be had from anywhere.
    """
    if base is None or not deltastream.is_increment(reader):
        return None
    head = deltastream.read_header(reader)
    if head.base != base.head.base:
        raise Refused(
            f"{reader.name} only has what changed since another backup or volume than that of --base",
            "qb-volread without --since reads the whole volume",
        )
    return head


class Stage(NamedTuple):
    """What is read and written. extents: the map of the volume. reduced: reader only has what may have changed."""

    call: Invocation
    reader: Reader
    writer: Writer
    extents: ExtentMap
    base: IndexReader | None
    reduced: bool

    def write(self, new: tuple[PartialFile, Head] | None) -> None:
        """Writes the stream. The index gets its name before the end line: who finds that can count on the index."""
        reader, writer, extents, base = self.reader, self.writer, self.extents, self.base
        file, head = new or (None, base.head if base else None)
        index = IndexWriter(file.writer, head) if file and head else None
        if head is None:
            volumestream.write_header(writer, extents)
            reader.copy_to(writer, extents.data)
            volumestream.read_end(reader, extents)
            volumestream.write_end(writer, extents)
            return
        work = delta.Delta(reader, extents, head.block, head.key, base, index)
        records = deltastream.RecordWriter(writer)
        if base is None:
            volumestream.write_header(writer, extents)
            work.copy(writer.write)
        else:
            deltastream.write_header(writer, deltastream.Head(extents, base.head.base))
            self._changes(work, records)
            records.flush()  # a reader that has gone is noticed before the index has its name
        if not self.reduced:
            volumestream.read_end(reader, extents)
        if file and index:
            index.end()
            file.commit()
        if base is None:
            volumestream.write_end(writer, extents)
        else:
            records.end()
            name = base.head.base.backup_id
            self.call.note(f"{records.data} of {extents.data} bytes have changed since {name}")

    def _changes(self, work: delta.Delta, records: deltastream.RecordWriter) -> None:
        if self.reduced:
            work.reduce(deltastream.RecordReader(self.reader, self.extents.size, self.extents), records)
        else:
            work.changes(records)
