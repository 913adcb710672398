"""qb-tarwrite: turns a volume stream into an inner archive."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, UsageError
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import suppress
from qbtools.streams import Reader, Writer

DOC = f"""\
Usage:
  qb-tarwrite [options] NAME

Turn the volume stream on standard input into a tar archive that holds one sparse
file, NAME; or several files below NAME.d, if the stream is an increment. The same
input always gives the same bytes.

Options:
  --raw                 Standard input is the plain volume, not a volume stream.
  --size N              The volume has N bytes; another size is an error. Needed
                        with --raw if standard input is not a file or a device.
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Writes the archive; see DOC. Its end is written only after the end of the input was read.

    After a failure the output ends with a text that says so, and does not have the size of a tar archive. After a
    compressor only the size can show that the archive is incomplete.
    """
    writer = call.stdout()
    try:
        _write(call, writer)
    except (BrokenPipeError, UsageError):
        raise
    except BaseException:
        from qbtools import programs

        with suppress(OSError):
            programs.spoil(writer.fd, writer.position)
        raise


def _write(call: Invocation, writer: Writer) -> None:
    from qbtools import progress
    from qbtools.formats import chunks, deltastream, sparsetar, volumestream

    name, raw = call.options["NAME"], call.options["--raw"]
    problem = chunks.name_problem(name)
    if problem:
        raise UsageError(f"{name}: {problem}")
    told = call.size("--size") if call.options["--size"] is not None else None
    size = (_plain_size() if told is None else told) if raw else 0
    reader = call.stdin()
    total: int | None = None
    display = call.options["--progress"] and not call.quiet
    with progress.shown(lambda: reader.position, lambda: total, lambda: name, display):
        if not raw and deltastream.is_increment(reader):
            from qbtools.commands.pipe import increments

            increments.write(call, writer, reader, told)
            return
        extents = ExtentMap(size) if raw else volumestream.read_header(reader)
        if size:
            extents.append(0, size)
        if told is not None and extents.size != told:
            raise Damaged(f"the volume has {extents.size} bytes, not {told}")
        total = reader.position + extents.data
        call.note(f"{name}: {extents.size} bytes, {extents.data} of data in {len(extents)} extents")
        sparsetar.write_member_header(writer, name, extents)
        reader.copy_to(writer, extents.data)
        if raw:
            _expect_end(reader, size)
        else:
            volumestream.read_end(reader, extents)
        sparsetar.write_member_end(writer, extents)


def _plain_size() -> int:
    """The size of the plain volume: the rest of the file or device on standard input."""
    import os
    import stat

    mode = os.fstat(0).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise UsageError("--raw needs --size: standard input is neither a file nor a block device")
    at = os.lseek(0, 0, os.SEEK_CUR)
    end = os.lseek(0, 0, os.SEEK_END)
    os.lseek(0, at, os.SEEK_SET)
    return max(end - at, 0)


def _expect_end(reader: Reader, size: int) -> None:
    if not reader.at_eof():
        raise Damaged(f"{reader.name} has more than {size} bytes")
