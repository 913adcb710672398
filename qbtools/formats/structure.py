"""Checks an archive without its passphrase: that nothing is missing, duplicated or truncated.

This check alone authenticates nothing. It is for a host that receives a backup but must not have its passphrase. With
a trusted receipt it proves that the archive is unchanged and complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qbtools.errors import Damaged, Refused
from qbtools.formats import chunks, header
from qbtools.formats.beginning import Beginning, header_bound, read_beginning
from qbtools.formats.containerhead import HEADER_SIZE, OVERHEAD, parse_fixed
from qbtools.formats.outertar import MemberReader, Source
from qbtools.formats.receipt import ContentDigest, Receipt
from qbtools.streams import BLOCK


def check(reader: Source, max_chunk: int, warn: Callable[[str], None], expected: Receipt | None = None) -> list[str]:
    """Reads an archive to its end. OtherVersion if it is of version 3. Damaged if its members, their names, order
    or sizes, or the plain checksum of a container are wrong, or a promised manifest is missing.

    Returns a warning for each file without its last chunk. Only the sealed manifest, or a receipt, shows whether it
    failed when it was saved, or chunks are missing.

    max_chunk: bytes of the largest chunk if the header names no chunk size. expected: all content is read and compared
    with it; errors as Receipt raises them.
    """
    members = MemberReader(reader, header_bound)
    return check_rest(members, read_beginning(members, max_chunk), max_chunk, warn, expected)


def check_rest(
    members: MemberReader,
    beginning: Beginning,
    max_chunk: int,
    warn: Callable[[str], None],
    expected: Receipt | None = None,
    digest: ContentDigest | None = None,
) -> list[str]:
    """As check(), for an archive whose beginning has just been read from members.

    digest: gets all content. Refused then if the archive has no manifest: a receipt without one would prove nothing.
    """
    untrusted_plain, untrusted_sealed, _keys = beginning
    untrusted = header.parse(untrusted_plain)
    if untrusted.version == 3:
        raise header.OtherVersion("an archive of version 3: only version 4 has a structure to check")
    parse_fixed(untrusted_sealed, chunks.HEADER_MAC)
    if len(untrusted_sealed) != len(untrusted_plain) + OVERHEAD:
        raise Damaged(f"{chunks.HEADER_MAC} does not have the size of what it seals")
    if expected is not None:
        expected.check_header(untrusted_plain, untrusted_sealed)
        digest = digest or ContentDigest()
    if digest is not None:
        _begin(digest, untrusted.manifest, ((chunks.HEADER, untrusted_plain), (chunks.HEADER_MAC, untrusted_sealed)))
    members.bound = lambda member: chunks.member_bound(member, untrusted.chunk_size, max_chunk)
    order = chunks.Order(untrusted.chunk_size, untrusted.manifest, warn)
    while not order.manifest_seen and (member := members.next()) is not None:
        name, number = chunks.parse_member(member.untrusted_name)
        order.chunk(name, number, member.size - OVERHEAD)
        start = members.read(HEADER_SIZE)
        parse_fixed(start, member.untrusted_name)
        if digest is not None:
            digest.begin(member.untrusted_name, member.size)
            digest.update(start)
            _read_body(members, digest)
    order.finish()
    if order.manifest_seen:
        members.read_end()
    else:
        warn(chunks.NO_MANIFEST)
    if expected is not None and digest is not None:
        expected.check(digest.receipt(expected.backup_id))
    why = "it failed when it was saved" + ", or chunks are missing" * (expected is None)
    return [f"{name} is incomplete: {why}" for name in order.broken]


def _begin(digest: ContentDigest, manifest: bool, members: Iterable[tuple[str, bytes]]) -> None:
    if not manifest:
        raise Refused("the archive has no manifest, so it cannot have a receipt")
    for name, content in members:
        digest.begin(name, len(content))
        digest.update(content)


def _read_body(members: MemberReader, digest: ContentDigest) -> None:
    view = memoryview(bytearray(min(members.remaining, BLOCK)))
    while members.remaining:
        part = view[: members.remaining]
        members.read_into(part)
        digest.update(part)
