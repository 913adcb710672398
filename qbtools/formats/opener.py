"""Opens an archive: reads and authenticates its header, and chooses the reader of its version."""

from __future__ import annotations

from collections.abc import Callable

from qbtools.errors import PASSPHRASE_HINT, Damaged, QbError, WrongPassphrase
from qbtools.formats import chunks, container, header
from qbtools.formats.beginning import header_bound, read_header_members
from qbtools.formats.container import WrongKey
from qbtools.formats.containerhead import parse_fixed
from qbtools.formats.firstchunk import FirstChunk
from qbtools.formats.limits import Limits
from qbtools.formats.openarchive import Archive
from qbtools.formats.outertar import MemberReader
from qbtools.formats.workers import Budget
from qbtools.streams import Reader


def open_archive(
    reader: Reader,
    passphrase: bytes,
    limits: Limits,
    jobs: Callable[[int], int],
    warn: Callable[[str], None],
    first_wanted: bool = False,
) -> Archive:
    """The archive that reader begins with; its header, of version 4 or 3, is read and authenticated.

    jobs: gives the number of workers, from the bytes of memory that one takes. first_wanted: the first file will be
    opened, so its key is derived at the same time as that of the header. WrongPassphrase, Damaged, Refused.
    """
    members = MemberReader(reader, header_bound)
    opening = _Opening(members, passphrase, limits, first_wanted)
    found, memory = opening.header()
    if found.version == 4:
        return Archive(members, found, memory, passphrase, limits, jobs, warn, opening.first)
    from qbtools.formats.legacy import LegacyArchive

    return LegacyArchive(members, found, passphrase, limits, jobs, warn)


def read_header(reader: Reader, passphrase: bytes, limits: Limits) -> header.BackupHeader:
    """The authenticated header at the beginning of an archive; reads no further. Errors as open_archive()."""
    members = MemberReader(reader, header_bound)
    return _Opening(members, passphrase, limits, False).header()[0]


class _Opening:
    """The beginning of an archive."""

    def __init__(self, members: MemberReader, passphrase: bytes, limits: Limits, first_wanted: bool) -> None:
        self._members = members
        self._passphrase = passphrase
        self._limits = limits
        self._first_wanted = first_wanted
        self.first: FirstChunk | None = None
        """The first chunk, where it is wanted and the archive is of version 4."""

    def header(self) -> tuple[header.BackupHeader, int]:
        """The authenticated header of the archive, and the memory of the key derivation for it.

        What says which version it is, is not the header but whether it is sealed: with a passphrase that an attacker
        does not know, neither can be made into the other.
        """
        untrusted_plain, untrusted_sealed = read_header_members(self._members)
        if not untrusted_sealed.startswith(b"scrypt") and header.parse(untrusted_plain).version != 4:
            from qbtools.formats.legacy import open_header

            return open_header(untrusted_plain, untrusted_sealed, self._passphrase), 0
        parameters, _salt = parse_fixed(untrusted_sealed, chunks.HEADER_MAC)
        self._limits.check(parameters)
        Budget(self._limits.memory).take(parameters.memory)
        if self._first_wanted:
            self._begin_first(untrusted_plain, parameters.memory)
        try:
            data = container.open_bytes(
                chunks.header_passphrase(self._passphrase), untrusted_sealed, second_opinion=True
            )
        except WrongKey:
            raise WrongPassphrase("the passphrase is wrong", PASSPHRASE_HINT) from None
        except Damaged as error:
            raise Damaged(f"{chunks.HEADER_MAC}: {error.message}") from None
        if data != untrusted_plain:
            raise Damaged("backup-header differs from its sealed copy: the archive was changed")
        parsed = header.parse(data)
        if parsed.version != 4:
            raise Damaged(f"backup-header says version {parsed.version} in an archive of version 4")
        return parsed, parameters.memory

    def _begin_first(self, untrusted_plain: bytes, taken: int) -> None:
        """Begins the first chunk by what the plain header says; leaves a malformed one to those who check it."""
        try:
            untrusted = header.parse(untrusted_plain)
        except QbError:
            return
        self._members.bound = lambda member: chunks.member_bound(member, untrusted.chunk_size, self._limits.chunk)
        self.first = FirstChunk(self._members, self._passphrase, untrusted.backup_id, self._limits, taken)
