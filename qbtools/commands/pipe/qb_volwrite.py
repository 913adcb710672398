"""qb-volwrite: writes a volume stream on standard input to a volume."""

from __future__ import annotations

from qbtools import progress
from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.descriptors import left_to_read
from qbtools.formats import volumestream
from qbtools.volumes import locate
from qbtools.volumes.readback import Comparison, witness
from qbtools.volumes.writing import Filling

DOC = f"""\
Usage: qb-volwrite [options] TARGET

Write the volume stream on standard input to TARGET: a file, a block device, a
logical volume (VG/LV, and with --create VG/POOL/LV); file:PATH, block:PATH and
lvm:… say which is meant. qcow2:PATH is a new image, nbd:URI is an export of an NBD
server. A new file, image or logical volume appears when it is complete and on the
disk, not before; zeros become holes.

Options:
  --raw                 Take plain bytes up to their EOF instead.
{options.FILLING}
  --create-option O     How to create a qcow2 image: KEY=VALUE,... for qemu-img.
  --verify              Read back what was written, and compare.
  --parents             Make the missing directories above a file.
  --print-size          Print the size of the volume when it is in place.
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Fills a volume. It only gets its name when the end line has been read and all data is on stable storage."""
    reader = call.stdin()
    work: Filling | Comparison | None = None
    total: int | None = None
    label = call.options["TARGET"]
    with (
        volumeoptions.Parents([call.options["TARGET"]] if call.options["--parents"] else []),
        locate.open_target(call.options["TARGET"], volumeoptions.filling(call)) as target,
        progress.shown(
            lambda: work.done if work else 0,
            lambda: total,
            lambda: label,
            progress.wanted(call.options["--progress"], call.quiet),
            end=True,
        ),
    ):
        seen = witness() if call.options["--verify"] else None
        work = filling = Filling(reader, target, seen.update if seen else None)
        if call.options["--raw"]:
            total = left_to_read(0)
            target.start(total)
            extents = volumestream.ExtentMap(filling.raw())
            extents.add(0, extents.size)
        else:
            extents = volumestream.read_header(reader)
            total = extents.data
            target.expect(extents)
            target.start(extents.size)
            filling.data(extents)
            volumestream.read_end(reader, extents)
        call.note(f"{target.name}: {extents.size} bytes, {filling.done} of them data; flushing")
        filling.finish(extents.size)
        if seen is not None:
            call.note(f"{target.name}: reading back")
            label = f"verifying {target.name}"
            work = comparison = Comparison(target, extents, seen.digest())
            comparison.run()
        target.commit()
    if call.options["--print-size"]:
        call.stdout(binary=False).write(b"%d\n" % extents.size)
