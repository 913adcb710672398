"""Volumes that change, and their streams, made by the formats alone."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

from qbtools.formats import blockindex, delta, deltamerge, deltastream, deltatar, sparsetar, tarreader, volumestream
from qbtools.formats.blockindex import IndexReader, IndexWriter
from qbtools.formats.deltastream import Base
from qbtools.formats.volumestream import ALIGN, ExtentMap
from qbtools.streams import Reader, Writer
from qbtools.volumes import reading

KEY = bytes(range(32))
NAME = "vm1/private.img"


def map_of(data: bytes, gap: int = 0) -> ExtentMap:
    """A map of where data is not zero."""
    made = ExtentMap(len(data), gap)
    for at in range(0, len(data), ALIGN):
        if any(data[at : at + ALIGN]):
            made.add(at, ALIGN)
    return made


def stream(data: bytes, extents: ExtentMap | None = None) -> bytes:
    """Volume stream 1 of data."""
    extents = map_of(data) if extents is None else extents
    file = io.BytesIO()
    volumestream.write_header(Writer(file), extents)
    for offset, length in extents:
        file.write(data[offset : offset + length])
    volumestream.write_end(Writer(file), extents)
    return file.getvalue()


def volume(data: bytes) -> bytes:
    """The volume of a volume stream 1."""
    file, reader = io.BytesIO(), Reader(io.BytesIO(data))
    extents = volumestream.read_header(reader)
    volumestream.write_plain(Writer(file), reader, extents)
    volumestream.read_end(reader, extents)
    return file.getvalue()


def digest(backup_id: str) -> str:
    """What stands for SHA-256 of the manifest line of a backup."""
    return hashlib.sha256(backup_id.encode()).hexdigest()


def candidates(data: bytes, extents: ExtentMap, backup_id: str, changed: ExtentMap) -> bytes:
    """Volume stream 2 with all of changed, as a reader makes it that knows what may have changed since a backup."""
    file = io.BytesIO()
    deltastream.write_header(Writer(file), deltastream.Head(extents, Base(backup_id, digest(backup_id))))
    total = 0
    for record in reading.records(extents, changed):
        file.write(f"{record.line}\n".encode())
        if not record.zero:
            file.write(data[record.offset : record.offset + record.length])
            total += record.length
    file.write(b"end %d\n" % total)
    return file.getvalue()


def reduced(increment: bytes, backup_id: str, base: bytes, block: int = 4096, name: str = NAME) -> tuple[bytes, bytes]:
    """What qb-delta makes of the stream of candidates(), and the index."""
    reader, out, new = Reader(io.BytesIO(increment)), io.BytesIO(), io.BytesIO()
    extents, line = deltastream.read_header(reader)
    before = IndexReader(Reader(io.BytesIO(base)))
    head = blockindex.Head(before.head.key, extents.size, block, Base(backup_id, digest(backup_id)), name)
    index, records = IndexWriter(Writer(new), head), deltastream.RecordWriter(Writer(out))
    work = delta.Delta(reader, extents, block, before.head.key, before, index)
    deltastream.write_header(Writer(out), deltastream.Head(extents, line))
    work.reduce(deltastream.RecordReader(reader, extents.size, extents), records)
    records.end()
    index.end()
    return out.getvalue(), new.getvalue()


def saved(whole: bytes, backup_id: str, base: bytes | None, block: int = 4096, name: str = NAME) -> tuple[bytes, bytes]:
    """The stream of a volume stream 1 against the index base (None: a whole volume), and its index."""
    reader, out, new = Reader(io.BytesIO(whole)), io.BytesIO(), io.BytesIO()
    writer = Writer(out)
    extents = volumestream.read_header(reader)
    before = None if base is None else IndexReader(Reader(io.BytesIO(base)))
    key = before.head.key if before else KEY
    head = blockindex.Head(key, extents.size, block, Base(backup_id, digest(backup_id)), name)
    index = IndexWriter(Writer(new), head)
    work = delta.Delta(reader, extents, block, key, before, index)
    if before is None:
        volumestream.write_header(writer, extents)
        work.copy(writer.write)
        volumestream.write_end(writer, extents)
    else:
        records = deltastream.RecordWriter(writer)
        deltastream.write_header(writer, deltastream.Head(extents, before.head.base))
        work.changes(records)
        records.end()
    volumestream.read_end(reader, extents)
    index.end()
    return out.getvalue(), new.getvalue()


def merged(streams: Sequence[bytes]) -> bytes:
    """What qb-merge makes of streams."""
    out = io.BytesIO()
    readers = [Reader(io.BytesIO(data), f"stream {number}") for number, data in enumerate(streams)]
    deltamerge.Merge(map(deltamerge.stream, readers)).run(Writer(out))
    return out.getvalue()


def merged_out_of(archives: Sequence[bytes], bases: Sequence[Base | None], name: str = NAME) -> bytes:
    """What qb-merge --archived makes of inner archives."""
    out = io.BytesIO()
    readers = [Reader(io.BytesIO(data), f"archive {number}") for number, data in enumerate(archives)]
    work = deltamerge.Merge(deltamerge.member(reader, name) for reader in readers)
    work.check_bases(bases)
    work.run(Writer(out))
    return out.getvalue()


def archive(stream: bytes, name: str = NAME) -> bytes:
    """The inner archive of a stream."""
    out, reader = io.BytesIO(), Reader(io.BytesIO(stream))
    if not deltastream.is_increment(reader):
        extents = volumestream.read_header(reader)
        sparsetar.write_member_header(Writer(out), name, extents)
        reader.copy_to(Writer(out), extents.data)
        sparsetar.write_member_end(Writer(out), extents)
        return out.getvalue()
    deltatar.write(Writer(out), reader, name, deltastream.read_header(reader))
    return out.getvalue()


def extracted(data: bytes) -> bytes:
    """The increment of an inner archive."""
    out, reader = io.BytesIO(), Reader(io.BytesIO(data), "the archive")
    tar = tarreader.TarReader(reader)
    deltatar.IncrementTar(tar, reader, tar.find(None)).copy(Writer(out))
    return out.getvalue()
