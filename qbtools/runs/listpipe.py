"""A pipe on which a stage reads a list or routes, while the run goes on."""

from __future__ import annotations

import os

_BLOCK = 1 << 16


class ListPipe:
    """A pipe with the text that still has to be written to it. reader: for the stage; only it inherits this end.

    number: of that end in the stage.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        self.number = self.reader
        os.set_blocking(self._writer, False)
        self._pending = bytearray()
        self._all_told = False

    def fileno(self) -> int:
        """The end that is written to."""
        return self._writer

    @property
    def waiting(self) -> bool:
        """Whether there is text that could not be written yet."""
        return bool(self._pending)

    def tell(self, text: str | bytes) -> None:
        """Queues a part of the text, and writes as much as the pipe accepts."""
        self._pending += os.fsencode(text) if isinstance(text, str) else text
        self.write()

    def tell_all(self, text: str | bytes = b"") -> None:
        """Queues the last part."""
        self._pending += os.fsencode(text) if isinstance(text, str) else text
        self._all_told = True
        self.write()

    def write(self) -> None:
        """Writes as much as the pipe accepts. Closes it after the last part, or if nobody reads it any more."""
        while self._pending and self._writer >= 0:
            try:
                del self._pending[: os.write(self._writer, self._pending[:_BLOCK])]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self._pending.clear()
                self._all_told = True
        if self._writer < 0:
            self._pending.clear()
        elif self._all_told:
            os.close(self._writer)
            self._writer = -1

    def close_reader(self) -> None:
        """Called when the stage has its end."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def close(self) -> None:
        """Closes both ends. What was not written yet is lost."""
        self.close_reader()
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
