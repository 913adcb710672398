"""The two members that begin an archive, as they stand there: backup-header and its sealed copy."""

from __future__ import annotations

from qbtools.errors import Damaged, Truncated
from qbtools.formats import chunks, header, magic
from qbtools.formats.outertar import MemberReader

_OLD_FIRST = f"{chunks.METADATA}.000"


def header_bound(untrusted_member: str) -> int:
    """Bytes that a member may have as long as the header is not known."""
    # Archives of version 2 begin with the metadata: what is said of them is not that it is too long.
    return chunks.DEFAULT_CHUNK_SIZE if untrusted_member == _OLD_FIRST else header.MAX_MEMBER


def read_header_members(members: MemberReader) -> tuple[bytes, bytes]:
    """The contents of the two members that begin an archive, unchecked. Damaged where they are not there."""
    head = members.reader.peek(magic.HEAD)
    if not head or magic.kind(head) not in (None, magic.TAR, magic.ARCHIVE):
        raise magic.wrong("the archive", head, magic.ARCHIVE)
    contents = []
    for due in (chunks.HEADER, chunks.HEADER_MAC):
        member = members.next()
        if member is not None and member.untrusted_name == _OLD_FIRST:
            raise header.OtherVersion("no backup-header: an archive of version 2 or older, which is not read")
        if member is None:
            raise Truncated(f"not a backup: {due} is not where it must be")
        if member.untrusted_name != due:
            raise Damaged(f"not a backup: {due} is not where it must be")
        contents.append(members.read_all())
    return contents[0], contents[1]
