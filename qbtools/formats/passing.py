"""Copies an archive, byte for byte, while it is read here."""

from __future__ import annotations

from collections.abc import Callable

from qbtools.errors import Refused, Truncated
from qbtools.formats.ustar import BLOCK
from qbtools.streams import Reader, Writer

READ_AHEAD = BLOCK
"""The block size of a Reader whose bodies are not copied in Python. A larger block would be read ahead and copied."""

_STEP = 32 << 20
_TAIL = 1 << 16


class Passing:
    """A Source (outertar.py) that also writes everything that is read from it or skipped, if it fits.

    Skipped bytes are copied from descriptor to descriptor. At the end of the input, even an early one, everything that
    was read has been written. Refused before more than `limit` bytes are written.
    """

    def __init__(
        self, reader: Reader, writer: Writer, limit: int | None = None, moved: Callable[[], None] = lambda: None
    ) -> None:
        """reader: nothing has been read from it; its block should be READ_AHEAD. moved: called between large copies."""
        self._reader = reader
        self._writer = writer
        self._limit = limit
        self._moved = moved

    @property
    def position(self) -> int:
        """Bytes that were read or skipped."""
        return self._reader.position

    def direct(self, writer: Writer) -> None:
        """From now on everything is written to writer."""
        self._writer = writer

    def _write(self, data: bytes | memoryview) -> None:
        self._check_room(len(data))
        self._writer.write(data)

    def _check_room(self, size: int) -> None:
        if self._limit is not None and self._writer.position + size > self._limit:
            raise Refused(f"the archive has more than {self._limit} bytes", "--max-size sets the limit")

    def peek(self, size: int) -> bytes:
        """As Reader.peek."""
        return self._reader.peek(size)

    def read_exact(self, size: int) -> bytes:
        """As Reader.read_exact."""
        data = self._reader.read_up_to(size)
        self._write(data)
        if len(data) < size:
            raise Truncated(f"{self._reader.name} ends too early")
        return data

    def read_into(self, view: memoryview) -> int:
        """As Reader.read_into."""
        count = self._reader.read_into(view)
        self._write(view[:count])
        return count

    def skip(self, size: int) -> None:
        """As Reader.skip, but it never seeks."""
        self._check_room(size)
        while size:
            step = min(size, _STEP)
            self._reader.copy_to(self._writer, step)
            self._moved()
            size -= step

    def at_eof(self) -> bool:
        """As Reader.at_eof."""
        return self._reader.at_eof()

    def read_zeros_to_eof(self) -> int:
        """As Reader.read_zeros_to_eof."""
        count = 0
        while data := self._reader.read_some(_TAIL):
            self._write(data)
            if data.count(0) != len(data):
                return -1
            count += len(data)
        return count
