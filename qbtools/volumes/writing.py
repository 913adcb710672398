"""Writes a stream to a Target. Data is written, and zeros become holes."""

from __future__ import annotations

from qbtools.descriptors import drop_cache
from qbtools.errors import Refused, Truncated
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import BLOCK, Reader
from qbtools.volumes.kind import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ZEROS = bytes(1 << 16)
_WRITEBACK = 32 << 20  # bytes after which writing to disk begins; otherwise fsync would wait for everything at the end


def nonzero_runs(buffer: bytearray, count: int, head: int, grain: int) -> Iterator[tuple[int, int]]:
    """The parts of buffer[:count] that must be written: (begin, end), ascending, separated by whole blocks of zeros.

    Blocks have grain bytes (at most 65536). The first block ends at head (0: it is complete), the last at count.
    """
    edges = [0, *range(head or grain, count, grain), count]
    firsts = buffer[head or grain : count : grain]  # a quick look: no block of zeros begins with anything else
    if 0 not in firsts or buffer.find(_ZEROS[:grain], 0, count) < 0:  # only those at both ends may be zeros: shorter
        edges = sorted({*edges[:2], *edges[-2:]})
    begin = -1
    for at, end in zip(edges, edges[1:], strict=False):
        if buffer.startswith(_ZEROS[: end - at], at):  # compares in place, and stops at the first byte that differs
            if begin >= 0:
                yield begin, at
                begin = -1
        elif begin < 0:
            begin = at
    if begin >= 0:
        yield begin, count


class Filling:
    """Fills a target once. done: bytes of data read from the reader, for a progress display."""

    def __init__(self, reader: Reader, target: Target, witness: Callable[[memoryview], None] | None = None) -> None:
        """witness: called with all data in order (for example a hash's update)."""
        self.done = 0
        self._reader = reader
        self._target = target
        self._witness = witness
        self._buffer = bytearray(BLOCK)
        self._written = 0  # up to here the target is finished
        self._begun = 0  # writing to disk has begun up to here
        self._waiting = 0  # bytes written since

    def data(self, extents: ExtentMap) -> None:
        """Writes the bytes of the extents. Truncated if the input ends earlier, Failed if writing fails."""
        for offset, length in extents:
            end = offset + length
            while offset < end:
                count = self._take(offset, end - offset)
                if count == 0:
                    raise Truncated(f"{self._reader.name} ends too early")
                offset += count

    def raw(self) -> int:
        """Writes all bytes up to EOF and returns their number. Refused if the target has no room for them."""
        size = 0
        while count := self._take(size, BLOCK):
            size += count
        return size

    def finish(self, size: int) -> None:
        """The volume has size bytes: the rest of the target, up to its capacity, becomes zeros. Then flushes."""
        end = size if self._target.capacity is None else self._target.capacity
        if end > self._written:
            self._target.zero(self._written, end - self._written)
        self._target.flush(size)

    def _take(self, offset: int, most: int) -> int:
        """Moves at most `most` bytes to offset, and at most up to the end of a block of BLOCK bytes; 0 at EOF."""
        view = memoryview(self._buffer)
        wanted = min(most, BLOCK - offset % BLOCK)
        count = self._reader.read_into(view[:wanted])
        if self._target.capacity is not None and offset + count > self._target.capacity:
            raise Refused(f"{self._target.name} is too small: it has {self._target.capacity} bytes, the volume more")
        data = view[:count]
        if self._witness is not None:
            self._witness(data)
        self.done += count
        grain = self._target.grain
        for begin, end in nonzero_runs(self._buffer, count, -offset % grain, grain):
            if offset + begin > self._written:
                self._target.zero(self._written, offset + begin - self._written)
            self._target.write(data[begin:end], offset + begin)
            self._written = offset + end
            self._waiting += end - begin
        if self._waiting >= _WRITEBACK:
            drop_cache(self._target.fd, self._begun, self._written - self._begun)
            self._begun, self._waiting = self._written, 0
        return count
