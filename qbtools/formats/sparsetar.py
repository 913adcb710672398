"""Writes the inner archive: a tar archive with one member, which is a volume.

A volume without holes is a regular member. Any other is in GNU tar's sparse format 1.0: pax records have its name and
real size, and its body begins with the map. The map is decimal, one number per line: the number of extents, then the
offset and length of each. It is padded with NUL to 512. The data of the extents follows.
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
    """Writes everything before the data: pax header, ustar header, map. The same arguments give the same bytes.

    name: of the member, ASCII. ValueError if its directory has more than 138 bytes, or its last component more than
    88. The caller then writes the bytes of the extents, and calls write_member_end().
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
        # GNU tar writes its process id instead of 0.
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
    """Writes padding and end of archive. Only called if everything before is complete."""
    writer.write(bytes(ustar.padding(extents.data)) + ustar.END_OF_ARCHIVE)


def _map_lines(extents: ExtentMap) -> Iterator[str]:
    """The map. Its last entry reaches the end of the volume: without it GNU tar would restore a shorter one."""
    tail = [f"{extents.size}\n0\n"] if extents.end != extents.size else []
    lines = (f"{offset}\n{length}\n" for offset, length in extents)
    return chain([f"{len(extents) + len(tail)}\n"], lines, tail)
