"""Exact reads, complete writes, and copies, which the kernel does if it can.

Everything that moves bytes in qbtools goes through a Reader and a Writer. Both wrap an unbuffered binary file
object; only those that have a descriptor can splice, the others (BytesIO in a test) copy.
"""

from __future__ import annotations

import io
import os
import select
import stat

from qbtools.descriptors import descriptor, splice, wait, widen_pipe
from qbtools.errors import Damaged, Failed, Truncated, naming
from qbtools.lean import TYPE_CHECKING
from qbtools.writers import BLOCK as BLOCK
from qbtools.writers import Buffer as Buffer
from qbtools.writers import Writer as Writer

if TYPE_CHECKING:
    from typing import Protocol

    class RawInput(Protocol):
        """An unbuffered binary input: io.FileIO, io.BytesIO."""

        def readinto(self, buffer: bytearray | memoryview, /) -> int | None: ...


SPOILT = b"the program that wrote this has failed\n"
"""A stage that failed writes this after its output, so that no reader takes the output for complete: it is neither
zeros nor a tar header. A reader that finds it reports an early end, because the failed stage has printed the reason."""

_WORTH_A_SPLICE = 1 << 14  # bytes: fewer are read as quickly

SPOILT_WITHIN = 8 << 20
"""The bytes after wrong data in which SPOILT is searched for."""


class Reader:
    """Exact reads from an unbuffered binary file. `position` counts the bytes that were handed out."""

    def __init__(self, file: RawInput, name: str = "standard input", block: int = 1 << 16) -> None:
        self.file = file
        self.fd = descriptor(file)
        self.name = name
        self.position = 0
        self._block = block
        self._held = b""  # read ahead by read_line and read_exact, not yet returned
        self._at = 0
        self._splice = self._seeks = self.fd >= 0
        self._room = memoryview(b"")  # the buffer of _buffer()
        self._nowhere: Writer | None = None  # takes what skip() skips
        self.patience: float | None = None  # after so many seconds without data: Failed

    def _be_patient(self) -> None:
        if self.patience is not None and not wait(self.fd, select.POLLIN, self.patience):
            raise Failed(f"no data from {self.name} for {self.patience:g} seconds")

    def _readinto(self, buffer: bytearray | memoryview) -> int:
        """One read; 0 at EOF. Failed on an I/O error."""
        while True:
            self._be_patient()
            with naming(f"read {self.name}"):
                count = self.file.readinto(buffer)
            if count is not None:
                return count
            wait(self.fd, select.POLLIN, self.patience)

    def _fill(self) -> bool:
        """Reads one more block and appends it to the held bytes; False at EOF."""
        buffer = bytearray(self._block)
        count = self._readinto(buffer)
        self._held = self._held[self._at :] + buffer[:count]
        self._at = 0
        return count > 0

    def _take(self, limit: int) -> bytes:
        """Returns at most limit of the held bytes."""
        data = self._held[self._at : self._at + limit]
        self._at += len(data)
        self.position += len(data)
        if self._at == len(self._held):
            self._held, self._at = b"", 0
        return data

    def read_some(self, limit: int) -> bytes:
        """Between 1 and limit bytes, or b"" at EOF, with at most one read."""
        if not self._held and not self._fill():
            return b""
        return self._take(limit)

    def read_exact(self, size: int) -> bytes:
        """Exactly size bytes. Truncated if the input ends earlier. For small sizes only: the bytes are copied."""
        while len(self._held) - self._at < size:
            if not self._fill():
                raise Truncated(f"{self.name} ends too early")
        return self._take(size)

    def peek(self, size: int) -> bytes:
        """The next size bytes, fewer only at EOF, without reading past them. size: at most the block size."""
        while len(self._held) - self._at < size and self._fill():
            pass
        return self._held[self._at : self._at + size]

    def read_up_to(self, size: int) -> bytes:
        """size bytes, or all bytes up to EOF if there are fewer. Only for sizes that fit in memory."""
        parts: list[bytes] = []
        left = size
        while left and (part := self.read_some(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def read_into(self, view: memoryview) -> int:
        """Fills view. Returns the number of bytes, fewer than its length only at EOF."""
        held = self._take(len(view)) if self._held else b""
        view[: len(held)] = held
        count = len(held)
        while count < len(view):
            got = self._readinto(view[count:])
            if not got:
                break
            count += got
            self.position += got
        return count

    def read_line(self, limit: int) -> bytes:
        """One line with its newline, or its first limit bytes if it is longer; b"" at EOF.

        The caller decides what a line without a newline means. 1 <= limit <= the block size.
        """
        while True:
            end = self._held.find(b"\n", self._at, self._at + limit)
            if end >= 0:
                return self._take(end + 1 - self._at)
            if len(self._held) - self._at >= limit or not self._fill():
                return self._take(limit)

    def read_lines(self, most: int, limit: int) -> list[bytes]:
        """Between 1 and most lines, without their newlines: the lines of one read, so that many are read quickly.

        Truncated if the input ends without a newline, Damaged for a line of more than limit bytes with its newline.
        1 <= most, 1 <= limit <= the block size.
        """
        while True:
            held = self._held[self._at :]
            lines = held.split(b"\n", most)
            rest = lines.pop()
            if lines:
                if max(map(len, lines)) >= limit:
                    raise Damaged(f"{self.name} has a line of more than {limit} bytes, which is too long")
                self._take(len(held) - len(rest))
                return lines
            if len(rest) >= limit:
                raise Damaged(f"{self.name} has a line of more than {limit} bytes, which is too long")
            if not self._fill():
                raise Truncated(f"{self.name} ends too early")

    def at_eof(self) -> bool:
        """True if no byte follows (may wait for one)."""
        return not self._held and not self._fill()

    def copy_to(self, writer: Writer, size: int) -> None:
        """Moves exactly size bytes to writer, with splice if the kernel can.

        Truncated if the input ends earlier; the bytes before that have been written. Failed on an I/O error on either
        side; the caller handles BrokenPipeError.
        """
        if self._copy(writer, size) < size:
            raise Truncated(f"{self.name} ends too early")

    def copy_rest(self, writer: Writer) -> None:
        """Moves the rest of the input to writer; errors as copy_to."""
        self._copy(writer, 1 << 63)

    def _copy(self, writer: Writer, size: int) -> int:
        """Moves size bytes, or all bytes up to EOF. Returns the number of bytes."""
        held = self._take(size) if self._held else b""
        writer.write(held)
        done = len(held)
        while done < size and self._splice and writer.fd >= 0:
            count = self._splice_once(writer, min(size - done, BLOCK))
            if count == 0:
                return done
            self._splice = count > 0
            done += max(count, 0)
        while done < size:
            buffer = self._buffer(size - done)
            if not (count := self._readinto(buffer)):
                break
            self.position += count
            writer.write(buffer[:count])
            done += count
        return done

    def _buffer(self, size: int) -> memoryview:
        """A buffer for size bytes, at most BLOCK. It is the same memory each time."""
        size = min(size, BLOCK)
        if len(self._room) < size:
            self._room = memoryview(bytearray(size))
        return self._room[:size]

    def _splice_once(self, writer: Writer, size: int) -> int:
        """One splice. Returns the bytes that were moved, 0 at EOF, and -1 if they must be copied in another way."""
        self._be_patient()
        try:
            count = splice(self.fd, writer.fd, size)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failed(f"cannot copy {self.name} to {writer.name}: {os.strerror(error.errno or 0)}") from error
        self.position += max(count, 0)
        writer.position += max(count, 0)
        return count

    def skip(self, size: int) -> None:
        """Skips exactly size bytes: by seeking in a regular file, otherwise by reading.

        Truncated if the input ends earlier.
        """
        left = size - len(self._take(size)) if self._held else size
        if left >= self._block and self._seek(left):
            return
        if left >= _WORTH_A_SPLICE:  # the kernel drops what is in a pipe without copying it
            if self._nowhere is None:
                with naming(f"open {os.devnull}"):
                    self._nowhere = Writer(io.FileIO(os.devnull, "w"), os.devnull)
            self.copy_to(self._nowhere, left)
            return
        while left:
            if not (count := self._readinto(self._buffer(left))):
                raise Truncated(f"{self.name} ends too early")
            self.position += count
            left -= count

    def _seek(self, size: int) -> bool:
        """Moves the offset of a regular file over size existing bytes. False if it is not known that they exist."""
        if not self._seeks:
            return False
        with naming(f"seek in {self.name}"):
            status = os.fstat(self.fd)
            self._seeks = stat.S_ISREG(status.st_mode)
            # A seek past the end succeeds, so the end is left to be read.
            if not self._seeks or os.lseek(self.fd, 0, os.SEEK_CUR) + size > status.st_size:
                return False
            os.lseek(self.fd, size, os.SEEK_CUR)
        self.position += size
        return True

    def read_zeros_to_eof(self) -> int:
        """Reads to EOF. Returns the number of bytes, or -1 if one of them was not zero.

        Truncated if it ends with SPOILT.
        """
        count = 0
        while not self.at_eof():
            data = self._take(len(self._held))
            if data.count(0) != len(data):
                self.check_spoilt(data)
                return -1
            count += len(data)
        return count

    def check_spoilt(self, data: bytes) -> None:
        """To be called before data that was just read is reported as wrong. Truncated if the input ends with SPOILT.

        SPOILT is searched for in the next SPOILT_WITHIN bytes. It means that the stage that wrote the data has failed.
        """
        until = self.position + SPOILT_WITHIN
        while self.position < until and not self.at_eof():
            data = data[-len(SPOILT) :] + self._take(len(self._held))
        if data.endswith(SPOILT):
            raise Truncated(f"{self.name} ends too early")


def stdin_reader() -> Reader:
    """A Reader on descriptor 0. If it is a pipe, its capacity is increased."""
    widen_pipe(0)
    return Reader(io.FileIO(0, "r", closefd=False))


def file_reader(path: str, name: str | None = None) -> Reader:
    """A Reader on the file at path, called name in messages (path by default). Failed if it cannot be opened."""
    with naming(f"open {path}"):
        return Reader(io.FileIO(path), path if name is None else name)


def stdout_writer() -> Writer:
    """A Writer on descriptor 1. If it is a pipe, its capacity is increased."""
    widen_pipe(1)
    return Writer(io.FileIO(1, "w", closefd=False))
