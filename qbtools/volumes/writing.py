"""A stream, written to a Target: in place what is data, as holes what is zeros."""

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
_WRITEBACK = 32 << 20  # bytes after which the disk is told to begin: else fsync would wait for all at the end


def nonzero_runs(buffer: bytearray, count: int, head: int, grain: int) -> Iterator[tuple[int, int]]:
    """Where buffer[:count] must be written: (begin, end), ascending, apart by whole blocks of zeros.

    Blocks have grain bytes (at most 65536); the first ends at head (0: it is whole), the last at count.
    """
    edges = [0, *range(head or grain, count, grain), count]
    begin = -1
    for at, end in zip(edges, edges[1:], strict=False):
        if buffer.startswith(_ZEROS[: end - at], at):  # compares in place, and ends at the first byte that differs
            if begin >= 0:
                yield begin, at
                begin = -1
        elif begin < 0:
            begin = at
    if begin >= 0:
        yield begin, count


class Filling:
    """One filling of a target. done: bytes of data taken from the reader, for a progress display."""

    def __init__(self, reader: Reader, target: Target, witness: Callable[[memoryview], None] | None = None) -> None:
        """witness: called with all data in order, as it comes (a hash's update)."""
        self.done = 0
        self._reader = reader
        self._target = target
        self._witness = witness
        self._buffer = bytearray(BLOCK)
        self._written = 0  # up to here the target is as it shall be
        self._begun = 0  # up to here the disk was told to write
        self._waiting = 0  # bytes written since

    def data(self, extents: ExtentMap) -> None:
        """Takes the bytes of the extents. Truncated if the input ends before, Failed if writing fails."""
        for offset, length in extents:
            end = offset + length
            while offset < end:
                count = self._take(offset, end - offset)
                if count == 0:
                    raise Truncated(f"{self._reader.name} ends too early")
                offset += count

    def raw(self) -> int:
        """Takes all bytes up to EOF; returns how many. Refused if the target has no room for them."""
        size = 0
        while count := self._take(size, BLOCK):
            size += count
        return size

    def finish(self, size: int) -> None:
        """The volume has size bytes: what was not written, up to the target's capacity, becomes zeros. Flushes."""
        end = size if self._target.capacity is None else self._target.capacity
        if end > self._written:
            self._target.zero(self._written, end - self._written)
        self._target.flush(size)

    def _take(self, offset: int, most: int) -> int:
        """Moves at most `most` bytes to offset, at most up to where a block of BLOCK bytes ends; 0 at EOF."""
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
