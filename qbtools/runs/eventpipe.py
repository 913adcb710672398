"""A pipe of its own for the events of one stage, where several stages report at the same time.

An event may be followed by more data than a pipe takes in one piece. Reports of other stages would get between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from qbtools.runs.hearing import Happened, Hearing, Said

_BLOCK = 1 << 16


class EventPipe:
    """The pipe. writer: for the stage; only it inherits this end. number: of that end in the stage. ended: no
    stage holds that end any more.

    handler: gets the events of this stage, instead of the one that the run has for all.
    """

    def __init__(self, handler: Callable[[Happened], None] | None = None) -> None:
        self.handler = handler
        self._reader, self.writer = os.pipe()
        self.number = self.writer
        os.set_blocking(self._reader, False)
        self._hearing = Hearing()
        self.ended = False

    def fileno(self) -> int:
        """The end that is read."""
        return self._reader

    def take(self) -> Iterator[Said]:
        """The reports so far. Errors as Hearing.take()."""
        while not self.ended:
            try:
                data = os.read(self._reader, _BLOCK)
            except BlockingIOError:
                return
            self.ended = not data
            yield from self._hearing.take(data)

    def close_writer(self) -> None:
        """Called when the stage has its end."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        """Closes both ends."""
        self.close_writer()
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
        self.ended = True
