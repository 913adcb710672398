"""Reads an export of an NBD server, with several requests in flight."""

from __future__ import annotations

from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import changes
from qbtools.volumes.kind import Source
from qbtools.volumes.nbd import connection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from qbtools.descriptors import Place
    from qbtools.volumes.nbd.connection import Connection

    _Waiting = tuple[tuple[int, Any], memoryview, int, int, int]


class NbdSource(Source):
    """An export. Its server decides whether it may change meanwhile."""

    def __init__(self, name: str, link: Connection, bitmap: str | None = None) -> None:
        """link: closed with this. bitmap: that of the link, for changed()."""
        super().__init__(name, -1, link.size)
        self._link = link
        self._bitmap = bitmap
        self._buffers: list[memoryview] = []

    def extents(self) -> ExtentMap:
        found = ExtentMap(self.size)
        for begin, end in self._link.data(0, self.size):
            found.add(begin, end - begin)
        return found

    def blocks(self, extents: Iterable[tuple[int, int]]) -> Iterator[memoryview | Place]:
        return self.served(extents)

    def served(self, extents: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        """The data of these extents (offset, length), in order, as the server sends it."""
        link, unit = self._link, self._link.unit
        waiting: list[_Waiting] = []
        buffers = self._buffers
        while len(buffers) < connection.DEPTH:
            buffers.append(memoryview(bytearray(link.request)))
        turn = 0
        for offset, length in extents:
            end = offset + length
            while offset < end:
                if len(waiting) >= connection.DEPTH:
                    yield self._first(waiting)
                low = offset // unit * unit
                stop = min(end, low + link.request)
                view = buffers[turn % len(buffers)][: -(-stop // unit) * unit - low]
                waiting.append((link.begin_read(view, low), view, low, offset - low, stop - low))
                offset, turn = stop, turn + 1
        while waiting:
            yield self._first(waiting)

    def _first(self, waiting: list[_Waiting]) -> memoryview:
        words, view, low, begin, end = waiting.pop(0)
        self._link.finish_read(*words, view, low)
        return view[begin:end]

    def changed(self, since: str, size: int, block: int) -> ExtentMap:
        """As Source.changed(). since: a bitmap of qemu that has existed since the older state."""
        if since != self._bitmap:
            return super().changed(since, size, block)
        if not self._link.bitmapped:
            raise Failed(f"the NBD server has no bitmap {since}")
        if size != self.size:
            raise Failed("its size has changed")
        found = ExtentMap(self.size, 0)
        for begin, end in _merged(self._link.marked(), self._holes()):
            changes.add(found, begin, end, block)
        return found

    def _holes(self) -> Iterator[tuple[int, int]]:
        """What reads as zeros, however short. It need not be read, so we need not trust the bitmap for it: it does not
        tell what was cut off from a disk that has its old size again."""
        at = 0
        for begin, end in self._link.data(0, self.size):
            if at < begin:
                yield at, begin
            at = end
        if at < self.size:
            yield at, self.size

    def check(self) -> None:
        """Nothing to check: the server answered every request."""

    def close(self) -> None:
        self._link.close()
        super().close()


def _merged(*parts: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    import heapq

    return heapq.merge(*parts)
