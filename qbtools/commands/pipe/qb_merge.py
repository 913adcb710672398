"""qb-merge: merges a volume stream and the increments that follow it."""

from __future__ import annotations

import io

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.descriptors import widen_pipe
from qbtools.errors import UsageError, naming
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import Reader, file_reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qbtools.formats.deltamerge import Opened

DOC = f"""\
Usage: qb-merge [options] BASE [INCREMENT...]

Write one volume stream: the volume as it is after the last INCREMENT. BASE and each
INCREMENT are volume streams, given as files or FIFOs in the order in which they were
made. If BASE is an increment itself, one increment is written: from its base to the
last INCREMENT.

Options:
  --archived NAME       The streams are inner archives instead, with the member NAME.
  --bases LIST          What each of these must be based on if it is an increment:
                        "none", or ID:SHA256, separated by commas.
  --bases-from FILE     Check that the streams belong together, before the end of the
                        result, a whole volume, is written: FILE has for each a line
                        with the ID and the SHA256 that it must name as its base, or
                        "none" if it must be whole, and then a line "end". FILE is
                        read after the streams, so it may be a FIFO.
  --drop-older          Accept a whole volume after other streams, and ignore
                        those. Without this option it is an error.
{options.PROGRESS}
{options.COMMON}
"""

_BLOCK = 1 << 12  # what is read with a header is copied, the rest of a record is not


def main(call: Invocation) -> None:
    """Merges; the end line is written only when each stream was read to its own."""
    from qbtools import progress
    from qbtools.formats import deltamerge

    late = call.options["--bases-from"]
    if late == "":
        raise UsageError("--bases-from: the name is empty")
    writer = call.stdout()
    paths = [call.options["BASE"], *call.options["INCREMENT"]]
    files = [_open(path) for path in paths]
    readers = [Reader(file, path, _BLOCK) for file, path in zip(files, paths, strict=True)]
    display = call.options["--progress"] and not call.quiet
    with progress.shown(lambda: writer.position, lambda: None, lambda: call.options["BASE"], display):
        work = deltamerge.Merge(_streams(call, readers), bool(call.options["--drop-older"]))
        call.note(f"{work.extents.size} bytes, {work.extents.data} of data in {len(work.extents)} extents")
        for file in files[: work.dropped]:
            file.close()  # SIGPIPE ends its writer
        if late is None:
            work.run(writer)
        else:
            work.check_whole()
            work.run(writer, lambda: work.check_bases(deltamerge.read_bases(file_reader(late), len(readers))))


def _streams(call: Invocation, readers: Sequence[Reader]) -> Iterator[Opened]:
    """Each stream, opened when it is asked for. UsageError if --bases does not fit."""
    from qbtools.formats import deltamerge

    name, bases = call.options["--archived"], [None] * len(readers)
    if call.options["--bases"] is not None:
        bases = call.options["--bases"].split(",")
        if name is None or len(bases) != len(readers):
            raise UsageError("--bases needs --archived, and a base for each archive")
    if name is None:
        return map(deltamerge.stream, readers)
    return (deltamerge.member(reader, name, base) for reader, base in zip(readers, bases, strict=True))


def _open(path: str) -> io.FileIO:
    with naming(f"open {path}"):
        file = io.FileIO(path)
    widen_pipe(file.fileno())
    return file
