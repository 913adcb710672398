"""qb-delta: reduces a volume stream to the changes since a base."""

from __future__ import annotations

import os

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import indexfiles
from qbtools.formats import delta, deltastream, volumestream
from qbtools.formats.blockindex import Head, IndexReader, IndexWriter
from qbtools.formats.deltastream import Base
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import Reader, Writer

if TYPE_CHECKING:
    from qbtools.formats.volumestream import ExtentMap
    from qbtools.storing import PartialFile

DOC = f"""\
Usage:
  qb-delta [options]
  qb-delta [options] --confirm INDEX RECORDS

Write what of the volume stream on standard input has changed since a base: an
increment. Without --base, or if its index cannot be used, the stream is passed on as
it is.
With --confirm put into INDEX how its volume was sealed, from the RECORDS that
qb-seal --record wrote (- is standard input). Only then it can be a base.

Options:
  --base INDEX          The index of the base, from its --index.
  --index NEW           Write the index of the volume as it is now to NEW.
  --id ID               The backup that the volume goes to; needed with --index.
  --name NAME           The name of the volume there; needed with --index. A base of
                        another name is not used.
  --block S             Compare blocks of S bytes: a power of two, 4K to 1M (default:
                        that of the base, else 64K).
  --overwrite           Replace NEW if it exists.
  --confirm INDEX       Make INDEX one that can be a base.
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Writes the stream, or confirms an index, as DOC says."""
    from qbtools import progress

    if call.options["--confirm"] is not None:
        indexfiles.confirm(call)
        return
    block = indexfiles.check_options(call)
    writer, reader = call.stdout(), call.stdin()
    total: int | None = None
    display = call.options["--progress"] and not call.quiet
    label = call.options["--name"] or "volume"
    with progress.shown(lambda: reader.position, lambda: total, lambda: label, display):
        base = indexfiles.base(call, block)
        extents = volumestream.read_header(reader)
        total = reader.position + extents.data
        if call.options["--index"] is None:
            _write(call, reader, writer, extents, base, None)
            return
        head = Head(
            base.head.key if base else os.urandom(32),
            extents.size,
            base.head.block if base else block or indexfiles.BLOCK,
            Base(call.options["--id"], ""),
            call.options["--name"],
        )
        with indexfiles.new(call) as file:
            _write(call, reader, writer, extents, base, (file, head))


def _write(
    call: Invocation,
    reader: Reader,
    writer: Writer,
    extents: ExtentMap,
    base: IndexReader | None,
    new: tuple[PartialFile, Head] | None,
) -> None:
    """The stream, and its index before the end line: who finds that can count on the index."""
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
        work.changes(records)
        records.flush()  # a reader that has gone is noticed before the index has its name
    volumestream.read_end(reader, extents)
    if file and index:
        index.end()
        file.commit()
    if base is None:
        volumestream.write_end(writer, extents)
    else:
        records.end()
        call.note(f"{records.data} of {extents.data} bytes have changed since {base.head.base.backup_id}")
