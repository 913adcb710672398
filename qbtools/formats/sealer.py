"""Seals files into the chunks of an outer archive, several at a time, with the keys derived ahead.

One thread reads the files, `jobs` threads derive keys and encrypt, the caller's thread writes, in order. The key of
a file's first chunk is derived while the files before it are read; a further chunk's only once the chunk before it
is mostly full, so that many small files cost one derivation each.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from mmap import mmap

from qbtools.errors import Failed, QbError, Refused
from qbtools.formats import chunks, header, keymembers, manifest, outertar
from qbtools.formats.container import Key, new_key, seal_bytes
from qbtools.formats.containerhead import OVERHEAD, Parameters
from qbtools.formats.ends import Ends
from qbtools.formats.manifest import FileRecord
from qbtools.formats.ustar import END_OF_ARCHIVE
from qbtools.formats.workers import Buffers, Lane, done
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import BLOCK, Reader, Writer

if TYPE_CHECKING:
    from qbtools.formats.receipt import ContentDigest

Members = Sequence[tuple[str, bytes]]
"""Small members of an archive, in order: name and content."""


@dataclass(frozen=True)
class Settings:
    """What all containers of an archive share."""

    backup_id: str
    chunk_size: int = chunks.DEFAULT_CHUNK_SIZE
    parameters: Parameters = Parameters()
    mtime: int = 0
    """Seconds since 1970 that every member carries: when the backup began."""
    compression: str | None = None
    """What every file must be compressed with, and be whole as far as that can be seen; None: nothing is checked."""


class Lost(QbError):
    """The source of a file has failed, and the archive is to be completed without that file."""


@dataclass(frozen=True)
class Source:
    """A file to seal. open starts reading; end is called at its EOF, before the last chunk is given away or looked at.

    end raises where what came is not the whole file: its last chunk is then never written. If open or end raises Lost,
    the sealer goes on with the next file.
    """

    name: str
    open: Callable[[], Reader]
    end: Callable[[], None]


@dataclass
class _Chunk:
    """A piece of a file on its way through the workers."""

    name: str
    number: int
    buffer: mmap
    size: int
    last: bool
    lost: bool = False
    """True instead of the last chunk of a file whose source has failed."""
    reached: int = 0
    """How far the run is with its data once this chunk is written."""
    label: str = ""
    header: bytes = b""
    mac: bytes = b""


class Sealer:
    """Writes files as chunks. `done` and `current` say how much is written, and of what; `read` counts bytes read."""

    def __init__(
        self,
        out: Writer,
        passphrase: bytes,
        settings: Settings,
        jobs: int,
        measure: Callable[[str, int], tuple[str, int]] = lambda name, read: (name, read),
        digest: ContentDigest | None = None,
    ) -> None:
        """measure: what `current` and `done` become when a chunk is written that ends here. It is asked when the chunk
        has been read, with the file's name and the bytes that were read of all files. digest: takes in every member
        that is written."""
        self._out = out
        self._passphrase = passphrase
        self._settings = settings
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(jobs)
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
        keys: Members = (),
        begun: Members | None = None,
    ) -> Iterator[FileRecord]:
        """A complete archive: header, keys, all files, manifest, end. Gives records and raises as write_files().

        keys: as for first_members(). begun: what that gave, if it has been made already. Failed, and there is no
        manifest, if nothing but the metadata is left of the files.
        """
        secret, settings = self._passphrase, self._settings
        made = done(begun) if begun else self._pool.submit(first_members, secret, backup, settings, keys)
        records = []
        for record in self.write_files(sources, made):
            records.append(record)
            yield record
        if any(record.failed for record in records) and not any(
            record.name != chunks.METADATA and not record.failed for record in records
        ):
            raise Failed("all files have failed: the archive is not completed")
        self._write_manifest(records)

    def write_files(self, sources: Sequence[Source], begun: Future[Members] | None = None) -> Iterator[FileRecord]:
        """Seals all sources in order; gives the record of each file once its last chunk has been written, or once its
        source has failed.

        begun: what a complete archive begins with. Raises what a source raises (but Lost), Failed on an I/O
        error, BrokenPipeError where the reader has left, Refused for metadata of more than a chunk, Damaged for a file
        that is not what Settings.compression says, or not whole: its last chunk is then never written.
        """
        names = [source.name for source in sources] + [chunks.MANIFEST] * (begun is not None)
        lane = Lane(self._read(sources, names))
        if begun:
            self._write_members(begun.result())
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
        """Writes the sealed manifest and the end of the archive: nothing may have failed before."""
        data = manifest.serialise(self._settings.backup_id, records)
        self._ahead(chunks.MANIFEST, 0)
        key = self._keys.pop((chunks.MANIFEST, 0)).result()
        buffer = self._buffers.take(len(data))
        buffer[: len(data)] = data
        self._write(self._seal(key, _Chunk(chunks.MANIFEST, 0, buffer, len(data), True)))
        self._out.write(END_OF_ARCHIVE)

    def _read(self, sources: Sequence[Source], names: Sequence[str]) -> Iterator[Future[_Chunk]]:
        """Runs in the lane's thread. names: of all files whose first key is to be derived ahead, in order."""
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
                    self._keys.pop((source.name, number + 1), None)  # derived in vain
                    break

    def _lost(self, name: str, number: int) -> Future[_Chunk]:
        """Stands for chunk number of a file, which will not come; the keys for it were derived in vain."""
        for at in (number, number + 1):
            self._keys.pop((name, at), None)
        return done(_Chunk(name, number, mmap(-1, 1), 0, False, lost=True))

    def _fill(self, name: str, number: int, reader: Reader) -> _Chunk:
        """Reads a chunk; asks for the next one's key as soon as this one is mostly full."""
        # The metadata is one chunk whatever the chunk size is: Qubes reads no more of it.
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
        """Makes sure that a chunk's key is being derived. First in, first out: a sealing job never waits for a key
        that stands behind it."""
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
    keys: Members = (),
    sign: Callable[[bytes, bytes], bytes] | None = None,
) -> Members:
    """The members `backup-header` and `backup-header.hmac`, keys behind them and a signature.

    keys: key members, in order. sign: makes the signature out of the contents of the first two members. backup says
    whether there are any.
    """
    data = header.serialise(backup)
    sealed = seal_bytes(chunks.header_passphrase(passphrase), settings.parameters, data, second_opinion=True)
    members = [(chunks.HEADER, data), (chunks.HEADER_MAC, sealed), *keys]
    if sign is not None:
        members.append((keymembers.SIGNATURE, sign(data, sealed)))
    return members


def beginning(
    passphrase: bytes,
    backup: header.BackupHeader,
    settings: Settings,
    keys: Members = (),
    sign: Callable[[bytes, bytes], bytes] | None = None,
) -> bytes:
    """The same, ready to be written."""
    return written(first_members(passphrase, backup, settings, keys, sign), settings.mtime)


def written(members: Members, mtime: int) -> bytes:
    """Small members as they stand in an archive."""
    return b"".join(
        outertar.header(name, len(content), mtime) + content + outertar.padding(len(content))
        for name, content in members
    )
