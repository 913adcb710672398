"""qb-volread: writes a volume as a volume stream to standard output."""

from __future__ import annotations

from qbtools import progress
from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.formats import deltastream, volumestream
from qbtools.volumes import locate
from qbtools.volumes.reading import Sending

DOC = f"""\
Usage: qb-volread [options] [--raw | --size | --since SPEC --base INDEX] VOLUME

Write VOLUME to standard output as a volume stream: a map of the places with data,
the data, and an end line. A volume is a file, a block device or a logical volume
(VG/LV); file:PATH, block:PATH and lvm:VG/LV say which is meant. It is read through
a snapshot if one can be taken. qcow2:PATH, vmdk:PATH, vdi:PATH and vhdx:PATH are the
disk in an image, nbd:URI is an export of an NBD server.

Options:
  --raw                 Write plain bytes instead, holes as zeros, no end line.
  --since SPEC          Write only what may have changed since the snapshot SPEC, as a
                        stream for qb-delta. If that cannot be known, write all.
  --base INDEX          With --since: the index that qb-delta made of SPEC.
  --size                Print the size of the volume and about how many bytes of
                        it are data, separated by a tab, and stop. No snapshot.
{options.READING}
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Reads a volume. The end line is only written if everything was read and the volume has not changed."""
    out = call.stdout(binary=not call.options["--size"])
    how = volumeoptions.reading(call)._replace(since=call.options["--since"])
    if call.options["--size"]:
        out.write(b"%d\t%d\n" % locate.sizes(call.options["VOLUME"], how))
        return
    raw = bool(call.options["--raw"])
    sending: Sending | None = None
    total: int | None = None
    with (
        locate.open_source(call.options["VOLUME"], how) as source,
        progress.shown(
            lambda: sending.done if sending else 0,
            lambda: total,
            lambda: source.name,
            progress.wanted(call.options["--progress"], call.quiet),
            end=True,
        ),
    ):
        extents = source.extents()
        since = volumeoptions.changed(call, source, extents)
        total = None if since else source.size if raw else extents.data
        call.note(f"{source.name}: {source.size} bytes, {extents.data} of them data in {len(extents)} extents")
        sending = Sending(source, extents, out)
        if raw:
            sending.raw()
            source.check()
            return
        if since is not None:
            deltastream.write_header(out, deltastream.Head(extents, since.base))
            sending.changes(since.changed)
            return
        volumestream.write_header(out, extents)
        sending.data()
        source.check()
        volumestream.write_end(out, extents)
