"""qb-merge: merges a volume stream and the increments that follow it."""

from __future__ import annotations

import io

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.descriptors import widen_pipe
from qbtools.errors import UsageError, naming
from qbtools.streams import Reader, file_reader

DOC = f"""\
Usage: qb-merge [options] BASE [INCREMENT...]

Write one volume stream: the volume as it is after the last INCREMENT. BASE and each
INCREMENT are volume streams, given as files or FIFOs in the order in which they were
made. If BASE is an increment itself, one increment is written: from its base to the
last INCREMENT.

Options:
  --drop-older          Accept a whole volume after other streams, and ignore
                        those. Without this option it is an error.
  --bases FILE          Check that the streams belong together, before the end of the
                        result, a whole volume, is written: FILE has for each a line
                        with the ID and the SHA256 that it must name as its base, or
                        "none" if it must be whole, and then a line "end". FILE is
                        read after the streams, so it may be a FIFO.
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Merges; the end line is written only when each stream was read to its own."""
    from qbtools import progress
    from qbtools.formats import deltamerge

    bases = call.options["--bases"]
    if bases == "":
        raise UsageError("--bases: the name is empty")
    writer = call.stdout()
    paths = [call.options["BASE"], *call.options["INCREMENT"]]
    files = [_open(path) for path in paths]
    readers = [Reader(file, path) for file, path in zip(files, paths, strict=True)]
    display = call.options["--progress"] and not call.quiet
    with progress.shown(lambda: writer.position, lambda: None, lambda: call.options["BASE"], display):
        work = deltamerge.Merge(readers, bool(call.options["--drop-older"]))
        call.note(f"{work.extents.size} bytes, {work.extents.data} of data in {len(work.extents)} extents")
        for file in files[: work.dropped]:
            file.close()  # SIGPIPE ends its writer
        if bases is None:
            work.run(writer)
        else:
            work.check_whole()
            work.run(writer, lambda: work.check_bases(deltamerge.read_bases(file_reader(bases), len(readers))))


def _open(path: str) -> io.FileIO:
    with naming(f"open {path}"):
        file = io.FileIO(path)
    widen_pipe(file.fileno())
    return file
