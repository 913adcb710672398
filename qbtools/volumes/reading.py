"""Reads a Source in order and sends it to a Writer.

The kernel reads ahead, passes its pages to the pipe without a copy, and drops them from its cache when they were sent:
a backup must not push out the pages that the machine works with. Pages that are still in a pipe cannot be dropped, so
they are dropped LAG bytes later. The last LAG bytes are copied, so that none of their pages is in a pipe.
"""

from __future__ import annotations

import os

from qbtools.descriptors import drop_cache
from qbtools.errors import Failed, Truncated
from qbtools.formats.deltastream import MAX_DATA, Record
from qbtools.formats.volumestream import MAX_SIZE, ExtentMap
from qbtools.lean import TYPE_CHECKING, suppress
from qbtools.streams import BLOCK, Reader, Writer
from qbtools.volumes.kind import Source, naming

if TYPE_CHECKING:
    from collections.abc import Iterator

LAG = 8 << 20
"""Pages stay in the cache until so many bytes of data were sent after them."""

_STEP = LAG // 2
_ZEROS = bytes(BLOCK)


def records(extents: ExtentMap, changed: ExtentMap) -> Iterator[Record]:
    """Records for all of changed: data inside the map of the volume, zeros elsewhere."""
    maps = iter(extents)
    start = stop = 0  # of an extent
    for at, length in changed:
        end = at + length
        while at < end:
            while stop <= at:
                start, stop = next(((first, first + count) for first, count in maps), (MAX_SIZE, MAX_SIZE))
            if at < start:
                count = min(start, end) - at
                yield Record(True, at, count)
            else:
                count = min(stop, end, at + MAX_DATA) - at
                yield Record(False, at, count)
            at += count


class _Copied:
    """The source as an input without a descriptor: its data is copied, never spliced."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        try:
            return os.readv(self._source.fd, [buffer])
        except OSError as error:
            self._source.check()  # may know the reason
            at = os.lseek(self._source.fd, 0, os.SEEK_CUR)
            text = os.strerror(error.errno or 0)
            raise Failed(f"cannot read {self._source.name} at byte {at}: {text}") from error


class _Spliced(_Copied):
    """The source as an input that splice may read."""

    def fileno(self) -> int:
        return self._source.fd


class Sending:
    """Reads a source once. done: bytes sent so far (of data, or of everything with raw), for a progress display."""

    def __init__(self, source: Source, extents: ExtentMap, writer: Writer) -> None:
        """extents: the map of the source."""
        self.done = 0
        self._source = source
        self._extents = extents
        self._writer = writer
        self._splicing = Reader(_Spliced(source), source.name)
        self._copying = Reader(_Copied(source), source.name)
        self._blocks = source.blocks(extents)
        self._left = extents.data
        self._marks = [0]  # offsets of the volume, _STEP bytes of data apart
        self._since = 0

    def data(self) -> None:
        """Sends the bytes of the extents. Failed on a read error, or if the source has become shorter."""
        with suppress(OSError):
            os.posix_fadvise(self._source.fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        for offset, length in self._extents:
            self._extent(offset, length)
        drop_cache(self._source.fd)

    def raw(self) -> None:
        """Sends all bytes of the volume, with zeros outside the extents. Failed as data()."""
        with suppress(OSError):
            os.posix_fadvise(self._source.fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        at = 0
        for offset, length in self._extents:
            self._zeros(offset - at)
            self._extent(offset, length)
            at = offset + length
        self._zeros(self._source.size - at)
        drop_cache(self._source.fd)

    def changes(self, changed: ExtentMap) -> None:
        """Sends records of volume stream 2 for everything that may have changed, and the end. Failed as data()."""
        with suppress(OSError):
            os.posix_fadvise(self._source.fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        parts = ((one.offset, one.length) for one in records(self._extents, changed) if not one.zero)
        self._blocks = self._source.blocks(parts)
        self._left = data = sum(one.length for one in records(self._extents, changed) if not one.zero)
        for record in records(self._extents, changed):
            self._writer.write(f"{record.line}\n".encode("ascii"))
            if not record.zero:
                self._extent(record.offset, record.length)
        self._source.check()
        self._writer.write(b"end %d\n" % data)
        drop_cache(self._source.fd)

    def _extent(self, offset: int, length: int) -> None:
        if self._blocks is not None:
            while length:
                block = next(self._blocks)
                self._writer.write(block)
                length -= len(block)
                self.done += len(block)
            return
        with naming(f"read {self._source.name}"):
            os.lseek(self._source.fd, offset, os.SEEK_SET)
        end = offset + length
        while offset < end:
            count = self._send(min(end - offset, BLOCK))
            offset += count
            self.done += count
            self._left -= count
            self._forget(count, offset)

    def _send(self, count: int) -> int:
        """Sends up to count bytes from the current offset of the source. Returns the number, at least one."""
        reader = self._splicing if self._left > LAG else self._copying
        read, written = reader.position, self._writer.position
        try:
            try:
                reader.copy_to(self._writer, count)
            except Failed:
                done = reader.position - read
                if reader is self._copying or self._writer.position - written != done:
                    raise
                # A splice has failed. A plain read gets the next byte, or tells the offset of the error.
                self._copying.copy_to(self._writer, 1)
                return done + 1
        except Truncated:
            raise Failed(f"{self._source.name} became shorter while it was read") from None
        return count

    def _forget(self, count: int, offset: int) -> None:
        """Drops the pages that were sent LAG bytes of data ago. count bytes up to offset were just sent."""
        self._since += count
        if self._since < _STEP:
            return
        self._since = 0
        self._marks.append(offset - offset % 4096)
        if len(self._marks) > LAG // _STEP + 1:
            first = self._marks.pop(0)
            drop_cache(self._source.fd, first, self._marks[0] - first)

    def _zeros(self, length: int) -> None:
        view = memoryview(_ZEROS)
        while length:
            part = view[:length]
            self._writer.write(part)
            length -= len(part)
            self.done += len(part)
