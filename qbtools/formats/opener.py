"""Opens an archive: reads its beginning, authenticates its header, and chooses the reader for its version."""

from __future__ import annotations

from collections.abc import Callable

from qbtools.errors import PASSPHRASE_HINT, Damaged, QbError, WrongPassphrase
from qbtools.formats import chunks, container, header
from qbtools.formats.beginning import header_bound, read_beginning
from qbtools.formats.container import WrongKey
from qbtools.formats.containerhead import Parameters, parse_fixed
from qbtools.formats.firstchunk import FirstChunk
from qbtools.formats.limits import Limits
from qbtools.formats.openarchive import Archive
from qbtools.formats.outertar import MemberReader, Source
from qbtools.formats.workers import Budget
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.formats.receipt import Receipt


class Opening:
    """An archive whose beginning has been read. It needs its passphrase next."""

    def __init__(self, reader: Source, limits: Limits, alone: bool = False) -> None:
        """Reads up to the first chunk. Damaged if the beginning is not valid, Refused if its key derivation would
        cost too much.

        alone: as for read_beginning; the chunks will not be read.
        """
        self._members = MemberReader(reader, header_bound)
        self._limits = limits
        self.beginning = read_beginning(self._members, limits.chunk, alone)
        self.parameters: Parameters | None = None
        """Of the header's container; None in version 3."""
        self._known: tuple[bytes, header.BackupHeader] | None = None
        if not self.beginning.sealed_by_scrypt and header.parse(self.beginning.untrusted_plain).version == 3:
            return
        self.parameters, _salt = parse_fixed(self.beginning.untrusted_sealed, chunks.HEADER_MAC)
        limits.check(self.parameters)

    def header(self, passphrase: bytes) -> header.BackupHeader:
        """The authenticated header. WrongPassphrase, Damaged, Refused.

        The seal of the header decides which version it is, not the text of the header. An attacker who does not know
        the passphrase cannot turn one version into the other.
        """
        if self._known is not None and self._known[0] == passphrase:
            return self._known[1]
        untrusted_plain, untrusted_sealed, _keys = self.beginning
        if self.parameters is None:
            from qbtools.formats.legacy import open_header

            return open_header(untrusted_plain, untrusted_sealed, passphrase)
        Budget(self._limits.memory).take(self.parameters.memory)
        try:
            with self._limits.turn():
                data = container.open_bytes(chunks.header_passphrase(passphrase), untrusted_sealed, second_opinion=True)
        except WrongKey:
            raise WrongPassphrase("the passphrase is wrong", PASSPHRASE_HINT) from None
        except Damaged as error:
            raise Damaged(f"{chunks.HEADER_MAC}: {error.message}") from None
        if data != untrusted_plain:
            raise Damaged("backup-header differs from its sealed copy: the archive was changed")
        parsed = header.parse(data)
        if parsed.version == 3:
            raise Damaged("backup-header says version 3 in an archive of version 4")
        self._known = passphrase, parsed
        return parsed

    def check_rest(self, warn: Callable[[str], None], expected: Receipt | None = None) -> list[str]:
        """Reads to the end of the archive, without its passphrase: as structure.check(). Called once."""
        from qbtools.formats import structure

        return structure.check_rest(self._members, self.beginning, self._limits.chunk, warn, expected)

    def archive(
        self, passphrase: bytes, jobs: Callable[[int], int], warn: Callable[[str], None], first_wanted: bool = False
    ) -> Archive:
        """The archive, of version 4 or 3, with its header authenticated. Called once. Errors as header().

        jobs: returns the number of workers for the bytes of memory that one worker needs. first_wanted: the first file
        will be opened, so its key is derived at the same time as the key of the header.
        """
        first = self._begin_first(passphrase, self.parameters) if first_wanted and self.parameters else None
        found = self.header(passphrase)
        if self.parameters is not None:
            memory = self.parameters.memory
            return Archive(self._members, found, memory, passphrase, self._limits, jobs, warn, first)
        from qbtools.formats.legacy import LegacyArchive

        return LegacyArchive(self._members, found, passphrase, self._limits, jobs, warn)

    def _begin_first(self, passphrase: bytes, parameters: Parameters) -> FirstChunk | None:
        """Begins the first chunk with the values of the plain header. None if it is malformed: others report that."""
        try:
            untrusted = header.parse(self.beginning.untrusted_plain)
        except QbError:
            return None
        return FirstChunk(self._members, passphrase, untrusted.backup_id, self._limits, parameters.memory)
