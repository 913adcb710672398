"""qb-volread: a volume as a volume stream on standard output."""

from __future__ import annotations

from qbtools import progress
from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.formats import volumestream
from qbtools.volumes.locate import open_source
from qbtools.volumes.reading import Sending

DOC = f"""\
Usage: qb-volread [options] [--raw | --size] VOLUME

Writes VOLUME, a file or a block device, to standard output as a volume stream:
a map of where its data lies, the data, and an end line once all was read.

Options:
  --raw                 Write plain bytes instead, holes as zeros, no end line.
  --size                Print the size of the volume and how many bytes of it are
                        data, separated by a tab, and stop.
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Reads a volume; the end line is written only when all of it was read as it was at the beginning."""
    out = call.stdout(binary=not call.options["--size"])
    raw = bool(call.options["--raw"])
    sending: Sending | None = None
    total: int | None = None
    with (
        open_source(call.options["VOLUME"]) as source,
        progress.shown(
            lambda: sending.done if sending else 0,
            lambda: total,
            lambda: source.name,
            progress.wanted(call.options["--progress"], call.quiet),
            end=True,
        ),
    ):
        extents = source.extents()
        if call.options["--size"]:
            out.write(b"%d\t%d\n" % (source.size, extents.data))
            return
        total = source.size if raw else extents.data
        call.note(f"{source.name}: {source.size} bytes, {extents.data} of them data in {len(extents)} extents")
        sending = Sending(source, extents, out)
        if raw:
            sending.raw()
            source.check()
            return
        volumestream.write_header(out, extents)
        sending.data()
        source.check()
        volumestream.write_end(out, extents)
