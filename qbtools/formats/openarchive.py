"""Reads the chunks of an outer archive, several at a time, and checks at the end that it is complete.

One thread reads members, `jobs` threads derive keys, authenticate and decrypt, and the caller's thread gets the chunks
in order. No data of a chunk is returned before its MAC has been verified. Unwanted chunks are not opened. Their sizes
and trailing MACs are recorded nevertheless, so that the manifest can be compared with every file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from qbtools.errors import Damaged
from qbtools.formats import chunks, header, manifest
from qbtools.formats.container import Key, NotAuthentic
from qbtools.formats.containerhead import HEADER_SIZE, MAC_SIZE, OVERHEAD, parse_fixed
from qbtools.formats.firstchunk import FirstChunk
from qbtools.formats.limits import Limits
from qbtools.formats.manifest import FileRecord
from qbtools.formats.outertar import MemberReader
from qbtools.formats.workers import Budget, Buffers, Future, Lane, Pool, done, then
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.formats.receipt import Receipt

END, BREAK, START = -1, -2, -3


class Event:
    """A chunk of a file, its end (number END or BREAK), or, where it will be opened, its start (START). If the header
    names no chunk size, the end of a file is only known when the next file begins."""

    def __init__(
        self,
        name: str,
        number: int,
        size: int = 0,
        mac: bytes = b"",
        data: memoryview | None = None,
        release: Callable[[], None] = lambda: None,
        position: int = 0,
    ) -> None:
        """data: the plaintext, if it was wanted. Only valid until the next event is requested. position: bytes of the
        archive up to the end of the chunk."""
        self.name = name
        self.number = number
        self.size = size
        self.mac = mac
        self.data = data
        self.release = release
        self.position = position

    @property
    def starts(self) -> bool:
        """True as soon as the first chunk of a wanted file is found. The name is not authenticated yet."""
        return self.number == START

    @property
    def ends(self) -> bool:
        """True for the end of a file that is complete, as far as the format shows."""
        return self.number == END

    @property
    def breaks(self) -> bool:
        """True for the end of a file whose last chunk is missing. Either the manifest says that the file failed when it
        was saved, or the archive is damaged."""
        return self.number == BREAK


class Archive:
    """An archive whose header has been authenticated. This reads chunks of version 4; legacy.py reads version 3."""

    no_manifest = chunks.NO_MANIFEST
    """The warning for an archive that does not promise a manifest."""

    def __init__(
        self,
        members: MemberReader,
        found: header.BackupHeader,
        memory: int,
        passphrase: bytes,
        limits: Limits,
        jobs: Callable[[int], int],
        warn: Callable[[str], None],
        first: FirstChunk | None = None,
    ) -> None:
        """found: the authenticated header, which was read from members. memory: bytes for a key derivation.

        first: the first chunk, if it was begun. The rest as for Opening.archive.
        """
        self._passphrase = passphrase
        self._limits = limits
        self._warn = warn
        self._members = members
        self._budget = Budget(limits.memory)
        self.header = found
        members.bound = self._bound
        self._order = chunks.Order(found.chunk_size, found.manifest, warn)
        self._first = first
        self.jobs = jobs(memory + (found.chunk_size or limits.chunk))
        self._buffers = Buffers(self.jobs + 1)
        self._pool = Pool(self.jobs)
        self.records: list[FileRecord] = []
        """The files that have been read completely."""
        self.failed: list[str] = []
        """At the end: the files that failed when they were saved, according to the manifest."""
        self.manifest_digest = ""
        """At the end: SHA-256, in hexadecimal, over the sealed manifest. Empty if there is none."""
        self.expected: Receipt | None = None
        """The receipt that the manifest is compared with at the end."""
        self.current = ""
        """The file whose chunks are being returned, for a progress display."""
        self.position = 0
        """Bytes of the archive that are processed. Bytes that were only read ahead do not count."""

    @property
    def read(self) -> int:
        """Bytes of the archive that have been read."""
        return self._members.reader.position

    def events(self, wanted: Callable[[str], bool]) -> Iterator[Event]:
        """All chunks in order, and the end of each file after its last chunk. Chunks of wanted files are opened, and
        the start of such a file comes before them.

        wanted is called for every chunk, in another thread. When the last event has been returned, the archive is
        complete: its manifest agrees. Damaged, Refused, Failed at the place of the error.
        """
        digest = hashlib.sha256()
        size = count = 0
        listed: tuple[str, list[FileRecord]] | None = None
        for event in Lane(self._read(wanted)):
            if event.name == chunks.MANIFEST:
                listed = listed or manifest.parse(bytes(event.data or b""))
                continue
            if event.starts:
                yield event
                continue
            if event.ends or event.breaks:
                if event.ends:
                    self.records.append(FileRecord(event.name, count, size, digest.hexdigest()))
                digest, size, count = hashlib.sha256(), 0, 0
            else:
                digest.update(event.mac)
                size += event.size
                count += 1
            self.current = event.name
            yield from self._decrypted(event)
            event.release()
            self.position = max(self.position, event.position)
        self.position = self.read
        self._compare(listed)

    def _compare(self, listed: tuple[str, list[FileRecord]] | None) -> None:
        """Compares what was read with the manifest, and both with the receipt."""
        if listed:
            backup_id, files = listed
            if backup_id != self.header.backup_id:
                raise Damaged("the manifest belongs to another backup")
            self.failed = manifest.compare(files, self.records, self._order.broken)
            if self.failed and self.header.chunk_size is None:
                raise Damaged("the manifest names files that failed, but the header names no chunk size")
        else:
            self._warn(self.no_manifest)
        if self.expected is not None:
            self.expected.check_manifest(self.manifest_digest)

    def _read(self, wanted: Callable[[str], bool]) -> Iterator[Future[Event]]:
        """Runs in the lane's thread."""
        open_file = ""
        while not self._order.manifest_seen and (member := self._members.next()) is not None:
            name, number, size = self._parse(member.untrusted_name, member.size)
            self._order.chunk(name, number, size)  # first: the open file may be incomplete
            if open_file and name != open_file:
                yield done(Event(open_file, BREAK if open_file in self._order.broken else END))
            opened = name == chunks.MANIFEST or wanted(name)
            if opened and name not in (open_file, chunks.MANIFEST):
                yield done(Event(name, START))
            open_file = name
            yield self._open(name, number, size) if opened else self._pass(name, number, size)
            if self._order.ended:
                yield done(Event(name, END))
                open_file = ""
        self._order.finish()
        if open_file:
            yield done(Event(open_file, END))
        if self._order.manifest_seen:
            self._members.read_end()

    def _bound(self, untrusted_member: str) -> int:
        """The maximum bytes of a member."""
        return chunks.member_bound(untrusted_member, self.header.chunk_size, self._limits.chunk)

    def _parse(self, untrusted_member: str, size: int) -> tuple[str, int, int]:
        """File, chunk number and bytes of data of a member of size bytes."""
        return *chunks.parse_member(untrusted_member), size - OVERHEAD

    def _decrypted(self, event: Event) -> Iterator[Event]:
        """The events that the caller gets for an event."""
        yield event  # a worker has decrypted it

    def _open(self, name: str, number: int, size: int) -> Future[Event]:
        """Reads a chunk and gives it to a worker. Its body is read while its key is derived."""
        first, self._first = self._first, None
        untrusted_header = (first and first.untrusted_header) or self._members.read(HEADER_SIZE)
        parameters, salt = parse_fixed(untrusted_header, chunks.member_name(name, number))
        self._limits.check(parameters)
        self._budget.take(parameters.memory + size)
        secret = chunks.chunk_passphrase(self._passphrase, self.header.backup_id, name, number)

        def derive() -> Key:
            try:
                if first and first.key:
                    return first.key.result()
                with self._limits.turn():
                    return Key(secret, parameters, salt)
            finally:
                self._budget.give(parameters.memory)

        key = self._pool.submit(derive)
        chunk = self._body(name, number, size)
        if name == chunks.MANIFEST and chunk.data is not None:
            sealed = b"".join((untrusted_header, chunk.data[:size], chunk.mac))
            self.manifest_digest = hashlib.sha256(sealed).hexdigest()
        return then(self._pool, key, lambda found: self._unseal(found, untrusted_header, chunk))

    def _body(self, name: str, number: int, size: int) -> Event:
        """Reads the rest of a chunk after its header."""
        buffer = self._buffers.take(size)
        view = memoryview(buffer)
        self._members.read_into(view[:size])
        mac = self._members.read(MAC_SIZE)

        def release() -> None:
            self._buffers.give(buffer)
            self._budget.give(size)

        return Event(name, number, size, mac, view, release, self.read)

    @staticmethod
    def _unseal(key: Key, untrusted_header: bytes, chunk: Event) -> Event:
        """Runs in a worker. Authenticates the complete chunk, and only then decrypts it."""
        view = chunk.data or memoryview(b"")
        try:
            key.authenticate(untrusted_header, view[: chunk.size], chunk.mac)
        except NotAuthentic:
            member = chunks.member_name(chunk.name, chunk.number)
            raise Damaged(f"{member} does not authenticate: the archive is damaged here") from None
        key.decrypt(view, chunk.size)
        chunk.data = view[: chunk.size]
        return chunk

    def _pass(self, name: str, number: int, size: int) -> Future[Event]:
        """Records the size and MAC of an unwanted chunk, which the manifest needs."""
        self._first = None
        self._members.skip(self._members.remaining - MAC_SIZE)
        mac = self._members.read(MAC_SIZE)
        return done(Event(name, number, size, mac, position=self.read))
