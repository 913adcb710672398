"""Writes the inner archive: a tar archive of one member, which is a volume.

A volume that its extents cover wholly is a regular member. Any other is in GNU tar's sparse format 1.0: pax records
tell its name and real size, and its body begins with the map, in decimal, one number a line: how many extents, then
offset and length of each; padded with NUL to 512. Then the data of the extents.
"""

from __future__ import annotations

from itertools import chain

from qbtools.formats import pax, ustar
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_member_header(writer: Writer, name: str, extents: ExtentMap) -> None:
    """Writes all that stands before the data: pax header, ustar header, map. Same arguments, same bytes.

    name: the member's, ASCII; its directory at most 138 bytes, its last component at most 88 (ValueError else).
    The bytes of the extents follow, written by the caller, then write_member_end().
    """
    directory, _, base = name.rpartition("/")
    directory = directory or "."
    data = extents.data
    size, records, header_name = data, {}, name
    sparse = data != extents.size
    map_size = 0
    if sparse:
        map_size = sum(map(len, _map_lines(extents)))
        size = map_size + ustar.padding(map_size) + data
        # GNU tar puts its process id where the 0 stands.
        header_name = f"{directory}/GNUSparseFile.0/{base}"
        records = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(extents.size),
        }
    if size > ustar.MAX_OCTAL_SIZE:
        records["size"] = str(size)
    if records:
        body = pax.build(records)
        writer.write(ustar.build(f"{directory}/PaxHeaders/{base}", len(body), b"x"))
        writer.write(body + bytes(ustar.padding(len(body))))
    writer.write(ustar.build(header_name, size))
    if sparse:
        writer.write_lines(_map_lines(extents))
        writer.write(bytes(ustar.padding(map_size)))


def write_member_end(writer: Writer, extents: ExtentMap) -> None:
    """Writes padding and end of archive. Only for who knows that all that came before is whole."""
    writer.write(bytes(ustar.padding(extents.data)) + ustar.END_OF_ARCHIVE)


def _map_lines(extents: ExtentMap) -> Iterator[str]:
    """The map. Its last entry reaches the end of the volume: GNU tar would restore a shorter one without it."""
    tail = [f"{extents.size}\n0\n"] if extents.end != extents.size else []
    lines = (f"{offset}\n{length}\n" for offset, length in extents)
    return chain([f"{len(extents) + len(tail)}\n"], lines, tail)
