"""Opens an archive: reads and authenticates its header, and chooses the reader of its version."""

from __future__ import annotations

from collections.abc import Callable

from qbtools.errors import Damaged, WrongPassphrase
from qbtools.formats import chunks, container, header
from qbtools.formats.beginning import header_bound, read_header_members
from qbtools.formats.container import WrongKey
from qbtools.formats.containerhead import parse_fixed
from qbtools.formats.openarchive import Archive, Limits
from qbtools.formats.outertar import MemberReader
from qbtools.formats.workers import Budget
from qbtools.streams import Reader


def open_archive(
    reader: Reader, passphrase: bytes, limits: Limits, jobs: Callable[[int], int], warn: Callable[[str], None]
) -> Archive:
    """The archive that reader begins with; its header, of version 4 or 3, is read and authenticated.

    jobs: gives the number of workers, from the bytes of memory that one takes. WrongPassphrase, Damaged, Refused.
    """
    members = MemberReader(reader, header_bound)
    found, memory = _open_header(members, passphrase, limits)
    if found.version == 4:
        return Archive(members, found, memory, passphrase, limits, jobs, warn)
    from qbtools.formats.legacy import LegacyArchive

    return LegacyArchive(members, found, passphrase, limits, jobs, warn)


def read_header(reader: Reader, passphrase: bytes, limits: Limits) -> header.BackupHeader:
    """The authenticated header at the beginning of an archive; reads no further. Errors as open_archive()."""
    members = MemberReader(reader, header_bound)
    return _open_header(members, passphrase, limits)[0]


def _open_header(members: MemberReader, passphrase: bytes, limits: Limits) -> tuple[header.BackupHeader, int]:
    """The authenticated header of an archive, and the memory of the key derivation for it.

    What says which version it is, is not the header but whether it is sealed: with a passphrase that an attacker does
    not know, neither can be made into the other.
    """
    untrusted_plain, untrusted_sealed = read_header_members(members)
    if not untrusted_sealed.startswith(b"scrypt") and header.parse(untrusted_plain).version != 4:
        from qbtools.formats.legacy import open_header

        return open_header(untrusted_plain, untrusted_sealed, passphrase), 0
    parameters, _salt = parse_fixed(untrusted_sealed, chunks.HEADER_MAC)
    limits.check(parameters)
    Budget(limits.memory).take(parameters.memory)
    try:
        data = container.open_bytes(chunks.header_passphrase(passphrase), untrusted_sealed, second_opinion=True)
    except WrongKey:
        raise WrongPassphrase("the passphrase is wrong") from None
    except Damaged as error:
        raise Damaged(f"{chunks.HEADER_MAC}: {error.message}") from None
    if data != untrusted_plain:
        raise Damaged("backup-header differs from its sealed copy: the archive was changed")
    parsed = header.parse(data)
    if parsed.version != 4:
        raise Damaged(f"backup-header says version {parsed.version} in an archive of version 4")
    return parsed, parameters.memory
