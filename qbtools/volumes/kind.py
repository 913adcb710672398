"""The interface of a kind of volume: a Source that is read, a Target that is filled.

Both hold a descriptor that can be read (written) at any offset, and are context managers: whatever opening them
has taken (a descriptor, a claim on a device, a half-written file) is given back when the `with` ends, however it
ends.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import Buffer

_Self = TypeVar("_Self", bound="_Opened")


@contextmanager
def naming(action: str) -> Iterator[None]:
    """An OSError inside becomes Failed: `cannot ACTION: reason`."""
    try:
        yield
    except OSError as error:
        raise Failed(f"cannot {action}: {os.strerror(error.errno or 0)}") from error


class _Opened:
    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        """As the user wrote it; for messages."""
        self.fd = fd

    def close(self) -> None:
        """Gives back what is held. For a Target that was not committed: undoes what can be undone."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Source(_Opened, ABC):
    """A volume open for reading. size: bytes of it, from the kind's own interface."""

    def __init__(self, name: str, fd: int, size: int) -> None:
        super().__init__(name, fd)
        self.size = size

    @abstractmethod
    def extents(self) -> ExtentMap:
        """Where its data lies; what the map leaves out reads as zeros. Failed on an I/O error."""

    @abstractmethod
    def check(self) -> None:
        """Called when all was read: Failed where it is known that what was read is not one state of the volume."""


class Target(_Opened, ABC):
    """A volume that is filled. Calls come in this order: start, any number of write and zero, flush, commit, close.

    capacity: bytes it can take, all of which are to be written or zeroed; None where it grows.
    grain: only runs of zeros that cover whole blocks of this many bytes are worth a zero(); a power of two.
    """

    capacity: int | None = None
    grain: int = 1 << 12

    @abstractmethod
    def start(self, size: int | None) -> None:
        """Before the first byte: the volume will have size bytes (None: not known yet). Refused where it cannot."""

    def write(self, data: Buffer, offset: int) -> None:
        """Writes all of data at offset. Failed on an I/O error and where there is no room."""
        view = memoryview(data)
        with naming(f"write to {self.name}"):
            while len(view):
                count = os.pwrite(self.fd, view, offset)
                view = view[count:]
                offset += count

    @abstractmethod
    def zero(self, offset: int, length: int) -> None:
        """Makes a range read as zeros, in a way that takes no room where there is one. Failed on an I/O error."""

    @abstractmethod
    def flush(self, size: int) -> None:
        """All was written: the volume has size bytes, and they are on stable storage. Failed where they are not."""

    @abstractmethod
    def commit(self) -> None:
        """The volume is whole: it gets its place. Refused where something else has taken that meanwhile."""
