"""Reads the beginning of an archive: backup-header, its sealed copy, and the members that keymembers.py names."""

from __future__ import annotations

import hashlib

from qbtools.errors import Damaged, QbError, Truncated
from qbtools.formats import chunks, header, keymembers, magic, ustar
from qbtools.formats.outertar import Member, MemberReader
from qbtools.lean import NamedTuple

_OLD_FIRST = f"{chunks.METADATA}.000"


class Beginning(NamedTuple):
    """The contents of these members. Only their order and sizes were checked, and that none is missing."""

    untrusted_plain: bytes
    untrusted_sealed: bytes
    untrusted_keys: dict[str, bytes]
    """By name; empty in version 3, and if the header is malformed."""

    @property
    def sealed_by_scrypt(self) -> bool:
        """True for version 4. Nobody can change one version into the other without the passphrase."""
        return self.untrusted_sealed.startswith(b"scrypt")


def header_digest(plain: bytes, sealed: bytes) -> str:
    """SHA-256, in hexadecimal, over the contents of `backup-header` and `backup-header.hmac`."""
    return hashlib.sha256(plain + sealed).hexdigest()


def header_bound(untrusted_member: str) -> int:
    """The maximum bytes of a member while the header is not known."""
    # Archives of version 2 begin with the metadata: the message about them must not be that it is too long.
    return chunks.DEFAULT_CHUNK_SIZE if untrusted_member == _OLD_FIRST else header.MAX_MEMBER


def read_beginning(members: MemberReader, max_chunk: int, alone: bool = False) -> Beginning:
    """Reads these members, and only looks at the next one. members was made with header_bound.

    max_chunk: bytes of the largest chunk if the header names no chunk size. alone: do not wait for members that the
    header does not promise. Damaged if a member is missing, too large or out of place, or differs from what the header
    promises.
    """
    contents: list[bytes] = []
    for due in (chunks.HEADER, chunks.HEADER_MAC):
        member = members.next() if contents else _first(members)
        if member is not None and member.untrusted_name == _OLD_FIRST:
            raise header.OtherVersion("no backup-header: an archive of version 2 or older, which is not read")
        if member is None:
            raise Truncated(f"not a backup: {due} is not where it must be")
        if member.untrusted_name != due:
            raise Damaged(f"not a backup: {due} is not where it must be")
        contents.append(members.read_all())
    found = Beginning(contents[0], contents[1], {})
    if found.sealed_by_scrypt:
        try:
            untrusted = header.parse(found.untrusted_plain)
        except QbError:
            return found  # the error is raised when the sealed copy is opened
        if untrusted.key or untrusted.signed or not alone:
            _read_keys(members, untrusted, max_chunk, found.untrusted_keys)
    return found


def _first(members: MemberReader) -> Member | None:
    """The first member. Damaged, with the kind of the input, if it is something else than a tar archive."""
    head = members.reader.peek(magic.HEAD)
    kind = magic.kind(head)
    other = magic.wrong("the archive", head, magic.ARCHIVE)
    if not head or kind not in (None, magic.TAR, magic.ARCHIVE):
        raise other
    if kind is None and any(head) and not _may_begin(head):
        raise other
    if kind == magic.TAR and not _may_be_member(head):
        raise other
    try:
        return members.next()
    except Damaged:
        if any(head):
            raise
        raise other from None  # zeros and then data, as a disk may have it


def _may_begin(head: bytes) -> bool:
    """Whether an archive may begin with head. If it is cut, only the name of the first member can tell."""
    if len(head) >= ustar.BLOCK:
        return ustar.is_header(head)
    return any(name.encode().startswith(head[: len(name)]) for name in (chunks.HEADER, _OLD_FIRST))


def _may_be_member(head: bytes) -> bool:
    """Whether an archive may have a member with this header, in any place. False for other tar archives."""
    if len(head) < ustar.BLOCK or not ustar.is_header(head):
        return True  # it is cut or damaged
    found = ustar.parse(head)
    name = found.untrusted_name
    if found.typeflag not in (b"0", b"\0", b"2", b"5"):
        return True  # such as a header of pax, before a member
    own = (_OLD_FIRST, *keymembers.BOUNDS)
    return chunks.HEADER.encode() in name or name.endswith(b".enc") or name in map(str.encode, own)


def _read_keys(members: MemberReader, untrusted: header.BackupHeader, max_chunk: int, found: dict[str, bytes]) -> None:
    def bound(untrusted_member: str) -> int:
        own = keymembers.BOUNDS.get(untrusted_member)
        return chunks.member_bound(untrusted_member, untrusted.chunk_size, max_chunk) if own is None else own

    members.bound = bound
    while (member := members.look()) is not None and member.untrusted_name in keymembers.BOUNDS:
        keymembers.check_place(member.untrusted_name, found)
        members.next()
        found[member.untrusted_name] = members.read_all()
    try:
        keymembers.check_promise(found, untrusted.key, untrusted.signed)
    except Damaged:
        if member is None:
            members.next()  # raises what is wrong with it
        raise
