"""Reads a Target back, from the device if possible, and compares it with the data that was written."""

from __future__ import annotations

from qbtools.descriptors import drop_cache
from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import BLOCK
from qbtools.volumes.kind import Target

if TYPE_CHECKING:
    import hashlib


def witness() -> hashlib._Hash:
    """The hash over the data of all extents, for both sides."""
    import hashlib

    return hashlib.sha256()


class Comparison:
    """Reads a target back. done: bytes of data read so far, for a progress display."""

    def __init__(self, target: Target, extents: ExtentMap, digest: bytes) -> None:
        """The target must be flushed. extents: the map of the written data; digest: witness() over the data."""
        self.done = 0
        self._target = target
        self._extents = extents
        self._digest = digest
        self._buffer = bytearray(BLOCK)

    def run(self) -> None:
        """Failed if the data of the extents differs, or if anything else up to the capacity is not zero."""
        drop_cache(self._target.fd)
        found = witness()
        at = 0
        for offset, length in self._extents:
            self._zeros(at, offset)
            at = offset + length
            while offset < at:
                data = self._read(offset, at)
                found.update(data)
                offset += len(data)
                self.done += len(data)
        size = self._extents.size
        self._zeros(at, size if self._target.capacity is None else self._target.capacity)
        if found.digest() != self._digest:
            raise Failed(f"{self._target.name} differs from the data that was written to it")

    def _zeros(self, at: int, end: int) -> None:
        """The range between two extents must read as zeros; a hole of a file always does."""
        while at < end and (at := self._target.next_data(at, end)) < end:
            data = self._read(at, end)
            if not self._buffer.startswith(bytes(len(data))):
                raise Failed(f"{self._target.name} is not zero where it should be, after byte {at}")
            at += len(data)

    def _read(self, at: int, end: int) -> memoryview:
        """At least one byte at an offset."""
        view = memoryview(self._buffer)[: end - at]
        count = self._target.read(view, at)
        if count == 0:
            raise Failed(f"{self._target.name} is shorter than the data that was written to it")
        drop_cache(self._target.fd, at, count)
        return view[:count]
