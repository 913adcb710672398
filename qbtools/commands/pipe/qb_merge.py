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
    from qbtools.formats.deltastream import Base

DOC = f"""\
Usage: qb-merge [options] BASE [INCREMENT...]

Write one volume stream: the volume as it is after the last INCREMENT. BASE and each
INCREMENT are volume streams, given as files or FIFOs in the order in which they were
made. If BASE is an increment itself, one increment is written: from its base to the
last INCREMENT.

Options:
  --archived NAME       The streams are inner archives instead, with the member NAME.
  --bases LIST          What each stream must name as its base if it is an increment:
                        ID:SHA256, or "none" if it must be whole, separated by commas.
  --bases-from FILE     The same, checked before the end of the result, a whole volume,
                        is written: FILE has for each stream a line with ID and SHA256,
                        or "none", and then a line "end". FILE is read after the
                        streams, so it may be a FIFO.
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
    bases = _bases(call, len(paths))
    files = [_open(path) for path in paths]
    readers = [Reader(file, path, _BLOCK) for file, path in zip(files, paths, strict=True)]
    display = call.options["--progress"] and not call.quiet
    with progress.shown(lambda: writer.position, lambda: None, lambda: call.options["BASE"], display):
        work = deltamerge.Merge(_streams(call, readers), bool(call.options["--drop-older"]))
        if bases is not None:
            work.check_bases(bases)
        call.note(f"{work.extents.size} bytes, {work.extents.data} of data in {len(work.extents)} extents")
        for file in files[: work.dropped]:
            file.close()  # SIGPIPE ends its writer
        if late is None:
            work.run(writer)
        else:
            work.check_whole()
            work.run(writer, lambda: work.check_bases(deltamerge.read_bases(file_reader(late), len(readers))))


def _bases(call: Invocation, count: int) -> list[Base | None] | None:
    """What --bases says of each stream; None if it is not given."""
    from qbtools.formats import deltamerge

    words = call.options["--bases"]
    if words is None:
        return None
    if call.options["--bases-from"] is not None:
        raise UsageError("--bases and --bases-from exclude each other")
    try:
        found = [deltamerge.base_named(word, ":") for word in words.split(",")]
    except ValueError as error:
        raise UsageError(f"--bases: {error}") from None
    if len(found) != count:
        raise UsageError(f"--bases has {len(found)} words for {count} streams")
    return found


def _streams(call: Invocation, readers: Sequence[Reader]) -> Iterator[Opened]:
    """Each stream, opened when it is asked for."""
    from qbtools.formats import deltamerge

    name = call.options["--archived"]
    return (deltamerge.stream(one) if name is None else deltamerge.member(one, name) for one in readers)


def _open(path: str) -> io.FileIO:
    with naming(f"open {path}"):
        file = io.FileIO(path)
    widen_pipe(file.fileno())
    return file
