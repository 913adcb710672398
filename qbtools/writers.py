"""Complete writes to an unbuffered binary file. streams.py has the reads."""

from __future__ import annotations

import fcntl
import os
import select
import stat

from qbtools.descriptors import descriptor, wait
from qbtools.errors import Failed, naming
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class RawOutput(Protocol):
        """An unbuffered binary output: io.FileIO, io.BytesIO."""

        def write(self, data: bytes | bytearray | memoryview, /) -> int | None: ...


BLOCK = 1 << 20
"""Bytes moved in one step."""

Buffer = bytes | bytearray | memoryview


class Writer:
    """Complete writes to an unbuffered binary file. `position` counts the bytes that were written."""

    def __init__(self, file: RawOutput, name: str = "standard output") -> None:
        self.file = file
        self.fd = descriptor(file)
        self.name = name
        self.position = 0

    def write(self, data: Buffer) -> None:
        """Writes all of data. Failed on an I/O error; the caller handles BrokenPipeError."""
        view = memoryview(data)
        while len(view):
            try:
                count = self.file.write(view)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise Failed(f"cannot write to {self.name}: {os.strerror(error.errno or 0)}") from error
            if count is None:
                wait(self.fd, select.POLLOUT)
                continue
            self.position += count
            view = view[count:]

    def write_lines(self, lines: Iterable[str]) -> None:
        """Writes ASCII lines, each given with its newline, in blocks of bounded size."""
        block: list[str] = []
        size = 0
        for line in lines:
            block.append(line)
            size += len(line)
            if size >= 1 << 16:
                self.write("".join(block).encode("ascii"))
                block.clear()
                size = 0
        self.write("".join(block).encode("ascii"))

    def write_zeros(self, size: int) -> None:
        """Writes size zero bytes; if the file is a regular one that ends here, they become a hole."""
        with naming(f"write to {self.name}"):
            if self._extend(size):
                return
        zeros = bytes(min(size, BLOCK))
        while size:
            count = min(size, BLOCK)
            self.write(memoryview(zeros)[:count])
            size -= count

    def _extend(self, size: int) -> bool:
        """Makes a hole of size bytes at the end of a regular file. False if this is not possible."""
        if self.fd < 0 or not size:
            return False
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode) or fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_APPEND:
            return False
        end = os.lseek(self.fd, 0, os.SEEK_CUR)
        if end < status.st_size:
            return False
        os.ftruncate(self.fd, end + size)
        os.lseek(self.fd, end + size, os.SEEK_SET)
        self.position += size
        return True
