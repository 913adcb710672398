"""Reads a Source in order and sends it to a Writer.

The kernel reads ahead, passes its pages to the pipe without a copy, and drops them from its cache when they were sent:
a backup must not push out the pages that the machine works with. Pages that are still in a pipe cannot be dropped, so
they are dropped LAG bytes later. The last LAG bytes are copied, so that none of their pages is in a pipe.
"""

from __future__ import annotations

import os

from qbtools.descriptors import Place, drop_cache
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
_PAGE = 4096
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
    """A descriptor of the source as an input without a descriptor: its data is copied, never spliced."""

    def __init__(self, source: Source, file: _File) -> None:
        self._source = source
        self._file = file

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        try:
            return os.readv(self._file.fd, [buffer])
        except OSError as error:
            self._source.check()  # may know the reason
            at = os.lseek(self._file.fd, 0, os.SEEK_CUR) + self._file.shift
            text = os.strerror(error.errno or 0)
            raise Failed(f"cannot read {self._source.name} at byte {at}: {text}") from error


class _Spliced(_Copied):
    """A descriptor of the source as an input that splice may read."""

    def fileno(self) -> int:
        return self._file.fd


class _File:
    """A descriptor that has bytes of the source, and two ways to read it."""

    def __init__(self, source: Source, fd: int) -> None:
        self.fd = fd
        self.shift = 0
        """From an offset of the descriptor to that of the volume, for messages."""
        self.splicing = Reader(_Spliced(source, self), source.name)
        self.copying = Reader(_Copied(source, self), source.name)
        with suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)


class Sending:
    """Reads a source once. done: bytes sent so far (of data, or of everything with raw), for a progress display."""

    def __init__(self, source: Source, extents: ExtentMap, writer: Writer) -> None:
        """extents: the map of the source."""
        self.done = 0
        self._source = source
        self._extents = extents
        self._writer = writer
        self._files: dict[int, _File] = {}
        self._blocks = source.blocks(extents)
        self._left = extents.data
        self._cached: list[tuple[int, int, int]] = []  # descriptor, begin and end of what was sent last
        self._cached_size = 0

    def data(self) -> None:
        """Sends the bytes of the extents. Failed on a read error, or if the source has become shorter."""
        for offset, length in self._extents:
            self._extent(offset, length)
        self._forget_all()

    def raw(self) -> None:
        """Sends all bytes of the volume, with zeros outside the extents. Failed as data()."""
        at = 0
        for offset, length in self._extents:
            self._zeros(offset - at)
            self._extent(offset, length)
            at = offset + length
        self._zeros(self._source.size - at)
        self._forget_all()

    def changes(self, changed: ExtentMap) -> None:
        """Sends records of volume stream 2 for everything that may have changed, and the end. Failed as data()."""
        parts = ((one.offset, one.length) for one in records(self._extents, changed) if not one.zero)
        self._blocks = self._source.blocks(parts)
        self._left = data = sum(one.length for one in records(self._extents, changed) if not one.zero)
        for record in records(self._extents, changed):
            self._writer.write(f"{record.line}\n".encode("ascii"))
            if not record.zero:
                self._extent(record.offset, record.length)
        self._source.check()
        self._writer.write(b"end %d\n" % data)
        self._forget_all()

    def _extent(self, offset: int, length: int) -> None:
        if self._blocks is None:
            self._place(Place(self._source.fd, offset, length), offset)
            return
        end = offset + length
        while offset < end:
            block = next(self._blocks)
            if isinstance(block, Place):
                self._place(block, offset)
                offset += block.length
            else:
                self._writer.write(block)
                offset += len(block)
                self.done += len(block)
                self._left -= len(block)

    def _place(self, place: Place, at: int) -> None:
        """Sends the bytes of a place, which are at this offset of the volume."""
        file = self._files.get(place.fd)
        if file is None:
            file = self._files[place.fd] = _File(self._source, place.fd)
        file.shift = at - place.offset
        with naming(f"read {self._source.name}"):
            os.lseek(file.fd, place.offset, os.SEEK_SET)
        offset, end = place.offset, place.offset + place.length
        while offset < end:
            count = self._send(file, min(end - offset, BLOCK))
            offset += count
            self.done += count
            self._left -= count
            self._forget(file.fd, count, offset)

    def _send(self, file: _File, count: int) -> int:
        """Sends up to count bytes from the current offset of a file. Returns the number, at least one."""
        reader = file.splicing if self._left > LAG else file.copying
        read, written = reader.position, self._writer.position
        try:
            try:
                reader.copy_to(self._writer, count)
            except Failed:
                done = reader.position - read
                if reader is file.copying or self._writer.position - written != done:
                    raise
                # A splice has failed. A plain read gets the next byte, or tells the offset of the error.
                file.copying.copy_to(self._writer, 1)
                return done + 1
        except Truncated:
            raise Failed(f"{self._source.name} became shorter while it was read") from None
        return count

    def _forget(self, fd: int, count: int, end: int) -> None:
        """Drops the pages that were sent LAG bytes of data ago. count bytes up to end, an offset, were just sent."""
        begin = end - count
        if self._cached:
            last, start, stop = self._cached[-1]
            if (last, stop) == (fd, begin) and end - start <= _STEP:
                begin = start
                self._cached.pop()
        self._cached.append((fd, begin, end))
        self._cached_size += count
        while self._cached_size - (self._cached[0][2] - self._cached[0][1]) >= LAG:
            first, begin, end = self._cached.pop(0)
            self._cached_size -= end - begin
            drop_cache(first, begin - begin % _PAGE, end - begin + begin % _PAGE)

    def _forget_all(self) -> None:
        for fd in self._files:
            drop_cache(fd)

    def _zeros(self, length: int) -> None:
        view = memoryview(_ZEROS)
        while length:
            part = view[:length]
            self._writer.write(part)
            length -= len(part)
            self.done += len(part)
