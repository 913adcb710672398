"""qb-tarextract: turns an inner archive into a volume stream."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, UsageError

DOC = f"""\
Usage:
  qb-tarextract [options] [--raw] [NAME]
  qb-tarextract [options] (--size | --list) [NAME]
  qb-tarextract [options] --whole NAME
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
  --base ID:SHA256      If NAME was archived as an increment, it must be one of this
                        base; if --base is "none", NAME must be a whole volume.
  --whole               Write the archive as it is. It is an error if NAME was archived
                        as an increment.
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


def main(call: Invocation) -> None:
    """Reads the archive; see DOC."""
    if call.options["--volumes"]:
        from qbtools.commands.pipe import archivevolumes

        archivevolumes.extract(call)
        return

    from qbtools import progress
    from qbtools.formats import deltatar, tarreader, volumestream

    if call.options["--base"] is not None and call.options["--list"]:
        raise UsageError("--base does not go with --list, which shows the base")
    name, raw = call.options["NAME"], call.options["--raw"]
    text_only = call.options["--size"] or call.options["--list"]
    writer, reader = call.stdout(binary=not text_only), call.stdin()
    if call.options["--whole"]:
        deltatar.check_whole(reader, str(name))
        reader.copy_rest(writer)
        return
    archive = tarreader.TarReader(reader)
    total: int | None = None
    display = call.options["--progress"] and not call.quiet
    label = name or "archive"
    with progress.shown(lambda: reader.position, lambda: total, lambda: label, display, end=call.options["--list"]):
        if call.options["--list"]:
            from qbtools.commands.pipe import memberlist

            writer.write(memberlist.lines(archive, reader, name))
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
