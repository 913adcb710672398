"""qb-tarextract --list: the members of an inner archive."""

from __future__ import annotations

from qbtools.errors import Damaged, Refused, escape
from qbtools.formats import deltatar
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.formats.tarreader import TarReader
    from qbtools.streams import Reader

LIST_LIMIT = 32 << 20
"""The most bytes of a list, which is kept in memory until the archive was read."""


def lines(archive: TarReader, reader: Reader, name: str | None) -> bytes | bytearray:
    """A line for each member, or for name and everything below it, after the whole archive was read.

    If name was archived as an increment, it is the only line.

    Refused beyond LIST_LIMIT. Damaged if name occurs twice or is not a regular file (a directory is called name/).
    """
    text = bytearray()
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
        text += f"{member.size}\t{escape(found)}{kind}\n".encode()
        if len(text) > LIST_LIMIT:
            raise Refused(f"the list of the members has more than {LIST_LIMIT} bytes")
    if not text:
        raise Damaged("the archive has no member" if name is None else f"the archive has no member {name}")
    return text
