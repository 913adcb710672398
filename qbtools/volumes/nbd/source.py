"""Reads an export of an NBD server, with several requests in flight."""

from __future__ import annotations

from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes.kind import Source
from qbtools.volumes.nbd import connection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from qbtools.volumes.nbd.connection import Connection

    _Waiting = tuple[tuple[int, Any], memoryview, int, int, int]


class NbdSource(Source):
    """An export. Its server decides whether it may change meanwhile."""

    def __init__(self, name: str, link: Connection) -> None:
        """link: closed with this."""
        super().__init__(name, -1, link.size)
        self._link = link

    def extents(self) -> ExtentMap:
        found = ExtentMap(self.size)
        for begin, end in self._link.data(0, self.size):
            found.add(begin, end - begin)
        return found

    def blocks(self, extents: ExtentMap) -> Iterator[memoryview]:
        link, unit = self._link, self._link.unit
        waiting: list[_Waiting] = []
        buffers = [memoryview(bytearray(link.request)) for _ in range(connection.DEPTH)]
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

    def check(self) -> None:
        """Nothing to check: the server answered every request."""

    def close(self) -> None:
        self._link.close()
        super().close()
