"""qb-tarextract: turns an inner archive into a volume stream."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, Refused, escape
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.formats.tarreader import TarReader
    from qbtools.streams import Reader

DOC = f"""\
Usage:
  qb-tarextract [options] [--raw] [NAME]
  qb-tarextract [options] (--size | --list) [NAME]
  qb-tarextract [options] --volumes [--create] [--overwrite] [--shrink]
                [--pool-reserve P] [--parents] [--print-size] DIRECTORY ROUTE...

Turn the tar archive on standard input into the volume stream of its member NAME.
Without NAME the archive must have exactly one member. The rest of the archive is
read and checked before the end of the stream is written. If NAME was archived as an
increment, the stream is one that qb-merge reads.
With --volumes fill several volumes: each ROUTE is VOLUME=TARGET. TARGET is a word
for qb-volwrite, and gets the content of DIRECTORY/VOLUME.img. It gets its name when
the whole archive was read.

Options:
  --raw                 Write the plain volume, holes as zeros, not a volume stream.
  --size                Print the size of the volume, as the header has it, and stop.
  --list                Read the whole archive, then print a line of size, tab and
                        name for each member, or for NAME and everything below it;
                        for a link, device or fifo a tab and its kind follow. If NAME
                        was archived as an increment: its size, NAME, and "increment"
                        with the base that it names.
  --volumes             Fill the TARGETs, and write no volume stream.
{options.FILLING}
  --parents             Create the directories above the files.
  --print-size          When all volumes are in place, print a line of size,
                        tab and VOLUME for each.
{options.PROGRESS}
{options.COMMON}
"""

LIST_LIMIT = 32 << 20
"""The most bytes of a list, which is kept in memory until the archive was read."""


def main(call: Invocation) -> None:
    """Reads the archive; see DOC."""
    if call.options["--volumes"]:
        from qbtools.commands.pipe import archivevolumes

        archivevolumes.extract(call)
        return

    from qbtools import progress
    from qbtools.formats import deltatar, tarreader, volumestream

    name, raw = call.options["NAME"], call.options["--raw"]
    text_only = call.options["--size"] or call.options["--list"]
    writer, reader = call.stdout(binary=not text_only), call.stdin()
    archive = tarreader.TarReader(reader)
    total: int | None = None
    display = call.options["--progress"] and not call.quiet
    label = name or "archive"
    with progress.shown(lambda: reader.position, lambda: total, lambda: label, display, end=call.options["--list"]):
        if call.options["--list"]:
            writer.write(_listing(archive, reader, name))
            return
        member = archive.find(name, deltatar.SIZE)
        if deltatar.is_increment(reader, member) and member.untrusted_name != name:
            from qbtools.commands.pipe import increments

            increments.extract(call, writer, deltatar.IncrementTar(archive, reader, member))
            return
        if name is not None and member.untrusted_name != name:
            raise Damaged(f"{member.untrusted_name} is not the header of an increment")
        if call.options["--size"]:
            writer.write(b"%d\n" % member.size)
            return
        extents = archive.read_map()
        data = extents.data
        total = reader.position + data
        call.note(f"{member.untrusted_name}: {member.size} bytes, {data} of data in {len(extents)} extents")
        if raw:
            volumestream.write_plain(writer, reader, extents)
            archive.finish()
        else:
            volumestream.write_header(writer, extents)
            reader.copy_to(writer, data)
            archive.finish()
            volumestream.write_end(writer, extents)


def _listing(archive: TarReader, reader: Reader, name: str | None) -> bytes | bytearray:
    """A line for each member, or for name and everything below it, after the whole archive was read.

    If name was archived as an increment, it is the only line.

    Refused beyond LIST_LIMIT. Damaged if name occurs twice or is not a regular file (a directory is called name/).
    """
    from qbtools.formats import deltatar

    lines = bytearray()
    seen = False
    while (member := archive.next()) is not None:
        found = member.untrusted_name
        if not seen and found == f"{name}{deltatar.SIZE}" and deltatar.is_increment(reader, member):
            from qbtools.commands.pipe import increments

            return increments.listed(deltatar.IncrementTar(archive, reader, member))
        if found == name:
            if seen or member.kind:
                raise Damaged(f"{found} occurs twice" if seen else f"{found} is {member.kind}, not a regular file")
            seen = True
        elif name is not None and not found.startswith(f"{name}/"):
            continue
        kind = f"\t{member.kind}" if member.kind and not found.endswith("/") else ""
        lines += f"{member.size}\t{escape(found)}{kind}\n".encode()
        if len(lines) > LIST_LIMIT:
            raise Refused(f"the list of the members has more than {LIST_LIMIT} bytes")
    if not lines:
        raise Damaged("the archive has no member" if name is None else f"the archive has no member {name}")
    return lines
