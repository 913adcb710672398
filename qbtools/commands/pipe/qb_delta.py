"""qb-delta: reduces a volume stream to the changes since a base."""

from __future__ import annotations

import os

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import indexfiles, reducing
from qbtools.formats import volumestream
from qbtools.formats.blockindex import Head
from qbtools.formats.deltastream import Base

DOC = f"""\
Usage:
  qb-delta [options]
  qb-delta [options] --confirm INDEX RECORDS

Reduce the volume stream on standard input to an increment: what has changed since a
base. Without --base, or if its index cannot be used, the stream is passed on as it
is. The stream may be one of qb-volread --since, with the same base.
With --confirm store in INDEX how its volume was sealed, from the RECORDS that
qb-seal --record wrote (- is standard input). After that the index can be a base.

Options:
  --base INDEX          The index of the base, from its --index.
  --index NEW           Write the index of the volume as it is now to NEW.
  --id ID               The backup that the volume goes to; needed with --index.
  --name NAME           The name of the volume there; needed with --index. A base of
                        another name is not used.
  --block S             Compare blocks of S bytes: a power of two, 4K to 1M (default:
                        that of the base, else 64K). With "auto": that of the base,
                        else 8K, for volumes above 128 GiB 16K, above 256 GiB 32K,
                        above 512 GiB 64K.
  --overwrite           Replace NEW if it exists.
  --confirm INDEX       Confirm INDEX, so that it can be a base.
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
        candidates = reducing.candidates(reader, base)
        extents = candidates.extents if candidates else volumestream.read_header(reader, volumestream.NO_PLAIN)
        total = None if candidates else reader.position + extents.data
        stage = reducing.Stage(call, reader, writer, extents, base, candidates is not None)
        if call.options["--index"] is None:
            stage.write(None)
            return
        if block is None:
            auto = call.options["--block"] == indexfiles.AUTO
            block = indexfiles.by_size(extents.size) if auto else indexfiles.BLOCK
        head = Head(
            base.head.key if base else os.urandom(32),
            extents.size,
            base.head.block if base else block,
            Base(call.options["--id"], ""),
            call.options["--name"],
        )
        with indexfiles.new(call) as file:
            stage.write((file, head))
