"""The inner archive of an increment, for qb-tarwrite and qb-tarextract."""

from __future__ import annotations

from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, Refused, UsageError, escape
from qbtools.formats import blockindex, deltastream, deltatar
from qbtools.streams import Reader, Writer


def write(call: Invocation, writer: Writer, reader: Reader, size: int | None) -> None:
    """Writes the increment that comes next from reader. size: what the volume must have."""
    name = call.options["NAME"]
    problem = blockindex.volume_name_problem(name)
    if problem:
        raise UsageError(f"{name}: {problem}, and standard input is an increment")
    head = deltastream.read_header(reader)
    if size is not None and head.extents.size != size:
        raise Damaged(f"the volume has {head.extents.size} bytes, not {size}")
    call.note(f"{name}: {head.extents.size} bytes, an increment of the backup {head.base.backup_id}")
    deltatar.write(writer, reader, name, head)


def listed(increment: deltatar.IncrementTar) -> bytes:
    """The line of an increment in a list, after its archive was read to EOF."""
    increment.check()
    head = increment.head
    words = f"increment {head.base.backup_id} {head.base.digest}"
    return f"{head.extents.size}\t{escape(increment.untrusted_name)}\t{words}\n".encode()


def extract(call: Invocation, writer: Writer, increment: deltatar.IncrementTar) -> None:
    """Writes the stream of an increment, or the size of the volume. Damaged if it has another base than --base."""
    name, base = increment.untrusted_name, increment.head.base
    increment.check_base(call.options["--base"])
    if call.options["--size"]:
        writer.write(b"%d\n" % increment.head.extents.size)
        return
    if call.options["--raw"]:
        raise Refused(f"{name} is an increment, not a whole volume", "qb-merge makes one of it and its base")
    call.note(f"{name}: an increment of the backup {base.backup_id}")
    increment.copy(writer)
