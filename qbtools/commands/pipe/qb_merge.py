"""qb-merge: merges a volume stream and the increments that follow it."""

from __future__ import annotations

import io

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.descriptors import widen_pipe
from qbtools.errors import naming
from qbtools.streams import Reader

DOC = f"""\
Usage: qb-merge [options] BASE [INCREMENT...]

Write one volume stream: the volume as it is after the last INCREMENT. BASE and each
INCREMENT are volume streams, given as files or FIFOs in the order in which they were
made. If BASE is an increment itself, one increment is written: from its base to the
last INCREMENT.

Options:
  --drop-older          Accept a whole volume after other streams, and ignore
                        those. Without this option it is an error.
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Merges; the end line is written only when each stream was read to its own."""
    from qbtools import progress
    from qbtools.formats import deltamerge

    writer = call.stdout()
    readers = [_open(path) for path in (call.options["BASE"], *call.options["INCREMENT"])]
    display = call.options["--progress"] and not call.quiet
    with progress.shown(lambda: writer.position, lambda: None, lambda: call.options["BASE"], display):
        work = deltamerge.Merge(readers, bool(call.options["--drop-older"]))
        call.note(f"{work.extents.size} bytes, {work.extents.data} of data in {len(work.extents)} extents")
        work.run(writer)


def _open(path: str) -> Reader:
    with naming(f"open {path}"):
        file = io.FileIO(path)
    widen_pipe(file.fileno())
    return Reader(file, path)
