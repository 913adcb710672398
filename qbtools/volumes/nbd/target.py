"""Writes an export of an NBD server in place."""

from __future__ import annotations

import errno

from qbtools.errors import Failed, Refused
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes.kind import Target
from qbtools.volumes.nbd import connection

if TYPE_CHECKING:
    from qbtools.streams import Buffer
    from qbtools.volumes.nbd.connection import Connection

_STEP = 1 << 30  # bytes of a request that zeros a range
_CANNOT = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EOVERFLOW, errno.EPERM)


class NbdTarget(Target):
    """An export. Its old content is lost from the first byte on.

    What the server says is zero already is left alone; the rest of what must be zero becomes a hole if the server can.
    """

    grain = 1 << 16  # for shorter runs of zeros the requests cost more than they save

    def __init__(self, name: str, link: Connection, read_only: bool = False) -> None:
        """link: closed with this. Refused if the export is read-only, unless it will only be read."""
        super().__init__(name, -1)
        self._link = link
        self._waiting: list[tuple[int, int]] = []
        self.capacity = link.size
        if link.can("read_only") and not read_only:
            self.close()
            raise Refused(f"{name} is read-only: its NBD server does not accept writes")
        self._zeroes = link.can("zero")

    def check(self, size: int | None) -> None:
        self.check_capacity(size)

    def start(self, size: int | None) -> None:
        self.check(size)

    def write(self, data: Buffer, offset: int) -> None:
        view = memoryview(data)
        unit = self._link.unit
        if offset % unit or len(view) % unit:
            return self._patch(view, offset)
        while len(view):
            part = bytearray(view[: self._link.request])  # a copy: the caller uses its buffer again
            if len(self._waiting) >= connection.DEPTH:
                self._finish_first()
            self._waiting.append((self._link.begin_write(part, offset), offset))
            view = view[len(part) :]
            offset += len(part)
        return None

    def _patch(self, view: memoryview, offset: int) -> None:
        """Writes what is not whole units: reads the units, changes them, and writes them."""
        self._finish_all()
        unit = self._link.unit
        while len(view):
            low = offset // unit * unit
            part = view[: self._link.request - (offset - low)]
            high = -(-(offset + len(part)) // unit) * unit
            units = bytearray(self._link.read(low, high - low))
            units[offset - low : offset - low + len(part)] = part
            self._link.finish(self._link.begin_write(units, low), "write to", offset)
            view = view[len(part) :]
            offset += len(part)

    def _finish_first(self) -> None:
        number, offset = self._waiting.pop(0)
        self._link.finish(number, "write to", offset)

    def _finish_all(self) -> None:
        while self._waiting:
            self._finish_first()

    def zero(self, offset: int, length: int) -> None:
        for begin, end in self._link.data(offset, offset + length):
            self._zero(begin, end)

    def _zero(self, offset: int, end: int) -> None:
        unit = self._link.unit
        first = min(-(-offset // unit) * unit, end)
        last = max(end // unit * unit, first)
        self._write_zeros(offset, first)
        while first < last:
            step = min(last - first, _STEP)
            self._clear(first, first + step)
            first += step
        self._write_zeros(last, end)

    def _clear(self, offset: int, end: int) -> None:
        """Zeros whole units."""
        if self._zeroes:
            try:
                return self._link.zero(offset, end - offset)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise Failed(f"cannot write to {self.name} at byte {offset}: {error.strerror}") from error
            self._zeroes = False
        return self._write_zeros(offset, end)

    def _write_zeros(self, offset: int, end: int) -> None:
        zeros = memoryview(bytes(min(end - offset, self._link.request)))
        while offset < end:
            part = zeros[: end - offset]
            self.write(part, offset)
            offset += len(part)

    def next_data(self, at: int, end: int) -> int:
        return next((begin for begin, _ in self._link.data(at, end)), end)

    def read(self, view: memoryview, at: int) -> int:
        unit = self._link.unit
        low = at // unit * unit
        high = min(-(-(at + len(view)) // unit) * unit, low + self._link.request)
        data = self._link.read(low, high - low)[at - low : at - low + len(view)]
        view[: len(data)] = data
        return len(data)

    def flush(self, size: int) -> None:
        self._finish_all()
        self._link.flush()

    def commit(self) -> None:
        """Nothing to do: the export already has its name."""

    def close(self) -> None:
        self._link.close()
        super().close()
