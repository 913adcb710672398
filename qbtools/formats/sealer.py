"""Seals files into the chunks of an outer archive, several at a time, and derives keys in advance.

One thread reads the files, `jobs` threads derive keys and encrypt, and the caller's thread writes, in order. The key
of a file's first chunk is derived while the files before it are read. The key of a further chunk is only derived when
the chunk before it is mostly full, so that a small file needs only one derivation.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from mmap import mmap

from qbtools.errors import Failed, Refused
from qbtools.formats import chunks, header, keymembers, manifest, outertar
from qbtools.formats.container import Key, new_key, seal_bytes
from qbtools.formats.containerhead import OVERHEAD
from qbtools.formats.ends import Ends
from qbtools.formats.manifest import FileRecord
from qbtools.formats.sealing import Lost as Lost
from qbtools.formats.sealing import Settings as Settings
from qbtools.formats.sealing import Source as Source
from qbtools.formats.ustar import END_OF_ARCHIVE
from qbtools.formats.workers import Buffers, Future, Lane, Pool, done
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import BLOCK, Reader, Writer

if TYPE_CHECKING:
    from qbtools.formats.receipt import ContentDigest

Members = Sequence[tuple[str, bytes]]
"""Small members of an archive, in order: name and content."""


class _Chunk:
    """A piece of a file on its way through the workers."""

    def __init__(self, name: str, number: int, buffer: mmap, size: int, last: bool, lost: bool = False) -> None:
        """lost: True instead of the last chunk of a file whose source has failed."""
        self.name = name
        self.number = number
        self.buffer = buffer
        self.size = size
        self.last = last
        self.lost = lost
        self.reached = 0
        """The progress of the run, in bytes, when this chunk is written."""
        self.label = ""
        self.header = b""
        self.mac = b""


class Sealer:
    """Writes files as chunks. `done` is the progress, `current` what is being written, `read` the bytes read."""

    def __init__(
        self,
        out: Writer,
        passphrase: bytes,
        settings: Settings,
        jobs: int,
        measure: Callable[[str, int], tuple[str, int]] = lambda name, read: (name, read),
        digest: ContentDigest | None = None,
    ) -> None:
        """measure: returns `current` and `done` for the end of a chunk; they are set when it is written. It is called
        when the chunk has been read, with the name of the file and the bytes read from all files. digest: gets every
        member that is written."""
        self._out = out
        self._passphrase = passphrase
        self._settings = settings
        self._jobs = jobs
        self._pool = Pool(jobs)
        self._buffers = Buffers(jobs + 1)
        self._keys: dict[tuple[str, int], Future[Key]] = {}
        self._measure = measure
        self._digest = digest
        self.current = ""
        self.done = 0
        self.read = 0

    def write_archive(
        self,
        sources: Sequence[Source],
        backup: header.BackupHeader,
        keys: Callable[[], Members] = lambda: (),
        begun: Members | None = None,
    ) -> Iterator[FileRecord]:
        """Starts to read, and returns an iterator that writes a complete archive: header, keys, all files, manifest,
        end. It yields and raises as that of write_files().

        keys: makes the key members. It is called here, while the first chunks are read and sealed. Its errors are
        passed on: nothing has been written then. begun: the result of first_members(), if it already exists. Failed,
        without a manifest, if all files except the metadata have failed.
        """
        secret, settings = self._passphrase, self._settings
        made = done(begun) if begun else self._pool.submit(first_members, secret, backup, settings)
        lane = Lane(self._read(sources, [*(source.name for source in sources), chunks.MANIFEST]))
        return self._write_archive(lane, made, keys())

    def write_files(self, sources: Sequence[Source]) -> Iterator[FileRecord]:
        """Starts to read, and returns an iterator that seals all sources in order. It yields the record of each file
        when its last chunk has been written, or its source has failed.

        It raises the errors of the sources (except Lost), Failed on an I/O error, BrokenPipeError if the reader has
        closed the output, Refused for metadata of more than a chunk, Damaged for a file that does not fit
        Settings.compression or is incomplete: its last chunk is then never written.
        """
        return self._write_files(Lane(self._read(sources, [source.name for source in sources])))

    def _write_archive(self, lane: Lane[_Chunk], made: Future[Members], keys: Members) -> Iterator[FileRecord]:
        self._write_members(with_keys(made.result(), keys))
        records = []
        for record in self._write_files(lane):
            records.append(record)
            yield record
        if any(record.failed for record in records) and not any(
            record.name != chunks.METADATA and not record.failed for record in records
        ):
            raise Failed("all files have failed: the archive is not completed")
        self._write_manifest(records)

    def _write_files(self, lane: Lane[_Chunk]) -> Iterator[FileRecord]:
        digest = hashlib.sha256()
        size = 0
        for chunk in lane:
            if chunk.lost:
                yield manifest.failed_file(chunk.name)
                digest, size = hashlib.sha256(), 0
                continue
            self._write(chunk)
            digest.update(chunk.mac)
            size += chunk.size
            self._buffers.give(chunk.buffer)
            if chunk.last:
                yield FileRecord(chunk.name, chunk.number + 1, size, digest.hexdigest())
                digest, size = hashlib.sha256(), 0

    def _write_manifest(self, records: Sequence[FileRecord]) -> None:
        """Writes the sealed manifest and the end of the archive. Only called if nothing has failed before."""
        data = manifest.serialise(self._settings.backup_id, records)
        self._ahead(chunks.MANIFEST, 0)
        key = self._keys.pop((chunks.MANIFEST, 0)).result()
        buffer = self._buffers.take(len(data))
        buffer[: len(data)] = data
        self._write(self._seal(key, _Chunk(chunks.MANIFEST, 0, buffer, len(data), True)))
        self._out.write(END_OF_ARCHIVE)

    def _read(self, sources: Sequence[Source], names: Sequence[str]) -> Iterator[Future[_Chunk]]:
        """Runs in the lane's thread. names: all files whose first key is derived in advance, in order."""
        for at, source in enumerate(sources):
            for name in names[at : at + 1 + 2 * self._jobs]:
                self._ahead(name, 0)
            try:
                reader = source.open()
            except Lost:
                yield self._lost(source.name, 0)
                continue
            compression = self._settings.compression
            ends = Ends(reader.name, compression) if compression else None
            for number in itertools.count():
                chunk = self._fill(source.name, number, reader)
                if chunk.last:
                    try:
                        source.end()
                    except Lost:
                        self._buffers.give(chunk.buffer)
                        yield self._lost(source.name, number)
                        break
                chunk.label, chunk.reached = self._measure(source.name, self.read)
                if ends:
                    ends.see(memoryview(chunk.buffer)[: chunk.size], chunk.last)
                self._ahead(source.name, number)
                key = self._keys.pop((source.name, number))
                yield self._pool.submit(lambda key, chunk: self._seal(key.result(), chunk), key, chunk)
                if chunk.last:
                    self._keys.pop((source.name, number + 1), None)  # this key is not needed
                    break

    def _lost(self, name: str, number: int) -> Future[_Chunk]:
        """A placeholder for a chunk that will not be written. Its keys are not needed any more."""
        for at in (number, number + 1):
            self._keys.pop((name, at), None)
        return done(_Chunk(name, number, mmap(-1, 1), 0, False, lost=True))

    def _fill(self, name: str, number: int, reader: Reader) -> _Chunk:
        """Reads a chunk, and starts to derive the key of the next one when this one is mostly full."""
        # The metadata is always one chunk, of any size: Qubes reads no more of it.
        whole = self._settings.chunk_size if name != chunks.METADATA else chunks.MAX_METADATA + 1
        buffer = self._buffers.take(whole)
        view = memoryview(buffer)
        mostly = whole // 2 + 1
        size = reader.read_into(view[:mostly])
        if size == mostly:
            self._ahead(name, number + 1)
            size += reader.read_into(view[mostly:whole])
        self.read += size
        if name == chunks.METADATA and size == whole:
            raise Refused(f"{name} has more than {chunks.MAX_METADATA} bytes")
        return _Chunk(name, number, buffer, size, size < whole)

    def _ahead(self, name: str, number: int) -> None:
        """Makes sure that the key of a chunk is being derived. The pool is first in, first out, so a sealing job never
        waits for a key that is queued after it."""
        if (name, number) not in self._keys:
            secret = chunks.chunk_passphrase(self._passphrase, self._settings.backup_id, name, number)
            self._keys[name, number] = self._pool.submit(new_key, secret, self._settings.parameters)

    @staticmethod
    def _seal(key: Key, chunk: _Chunk) -> _Chunk:
        """Runs in a worker."""
        chunk.header = key.header
        chunk.mac = key.seal(memoryview(chunk.buffer), chunk.size)
        return chunk

    def _write(self, chunk: _Chunk) -> None:
        total = chunk.size + OVERHEAD
        member = chunks.member_name(chunk.name, chunk.number)
        self._out.write(outertar.header(member, total, self._settings.mtime) + chunk.header)
        self.current = chunk.label or self.current
        begun, more = self.done, max(chunk.reached - self.done, 0)
        digest = self._digest
        if digest:
            digest.begin(member, total)
            digest.update(chunk.header)
        view = memoryview(chunk.buffer)[: chunk.size]
        for at in range(0, chunk.size, BLOCK):
            self._out.write(view[at : at + BLOCK])
            if digest:
                digest.update(view[at : at + BLOCK])
            self.done = begun + more * min(at + BLOCK, chunk.size) // chunk.size
        if digest:
            digest.update(chunk.mac)
        self._out.write(chunk.mac + outertar.padding(total))

    def _write_members(self, members: Members) -> None:
        self._out.write(written(members, self._settings.mtime))
        if self._digest:
            for name, content in members:
                self._digest.begin(name, len(content))
                self._digest.update(content)


def first_members(
    passphrase: bytes,
    backup: header.BackupHeader,
    settings: Settings,
    sign: Callable[[bytes, bytes], bytes] | None = None,
) -> Members:
    """The members `backup-header` and `backup-header.hmac`, then a signature.

    sign: makes the signature from the contents of the first two members. backup must promise it.
    """
    data = header.serialise(backup)
    sealed = seal_bytes(chunks.header_passphrase(passphrase), settings.parameters, data, second_opinion=True)
    signature = [] if sign is None else [(keymembers.SIGNATURE, sign(data, sealed))]
    return [(chunks.HEADER, data), (chunks.HEADER_MAC, sealed), *signature]


def with_keys(first: Members, keys: Members) -> Members:
    """The members of first_members() with the key members between them. keys: in order; the header promises them."""
    return [*first[:2], *keys, *first[2:]]


def beginning(
    passphrase: bytes,
    backup: header.BackupHeader,
    settings: Settings,
    keys: Members = (),
    sign: Callable[[bytes, bytes], bytes] | None = None,
) -> bytes:
    """The bytes of first_members() and the key members, with their tar headers."""
    return written(with_keys(first_members(passphrase, backup, settings, sign), keys), settings.mtime)


def written(members: Members, mtime: int) -> bytes:
    """The bytes of small members in an archive."""
    return b"".join(outertar.small_member(name, content, mtime) for name, content in members)
