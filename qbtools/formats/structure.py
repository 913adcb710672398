"""What can be said of an archive without its passphrase: that nothing is missing, doubled or cut.

It authenticates nothing. It is for the host that receives a backup and is not to be trusted with its passphrase.
"""

from __future__ import annotations

from collections.abc import Callable

from qbtools.errors import Damaged
from qbtools.formats import chunks, header
from qbtools.formats.beginning import header_bound, read_beginning
from qbtools.formats.containerhead import HEADER_SIZE, OVERHEAD, parse_fixed
from qbtools.formats.outertar import MemberReader, Source


def check(reader: Source, max_chunk: int, warn: Callable[[str], None]) -> list[str]:
    """Reads an archive to its end. OtherVersion where it is not of version 4. Damaged if its members, their names,
    order or sizes, a container's plain checksum or the manifest's presence are wrong.

    Returns for each file without its last chunk what is to be said of it. Only the sealed manifest tells whether it
    failed when it was saved, or chunks are missing.

    max_chunk: bytes of the largest chunk where the header names no chunk size.
    """
    members = MemberReader(reader, header_bound)
    untrusted_plain, untrusted_sealed, _keys = read_beginning(members, max_chunk)
    untrusted = header.parse(untrusted_plain)
    if untrusted.version != 4:
        raise header.OtherVersion(f"an archive of version {untrusted.version}: only version 4 has a structure to check")
    parse_fixed(untrusted_sealed, chunks.HEADER_MAC)
    if len(untrusted_sealed) != len(untrusted_plain) + OVERHEAD:
        raise Damaged(f"{chunks.HEADER_MAC} does not have the size of what it seals")
    members.bound = lambda member: chunks.member_bound(member, untrusted.chunk_size, max_chunk)
    order = chunks.Order(untrusted.chunk_size, untrusted.manifest, warn)
    while not order.manifest_seen and (member := members.next()) is not None:
        name, number = chunks.parse_member(member.untrusted_name)
        order.chunk(name, number, member.size - OVERHEAD)
        parse_fixed(members.read(HEADER_SIZE), member.untrusted_name)
    order.finish()
    if order.manifest_seen:
        members.read_end()
    else:
        warn(chunks.NO_MANIFEST)
    return [f"{name} is incomplete: it failed when it was saved, or chunks are missing" for name in order.broken]
