"""Volumes that are block devices. One that is a target is written in place."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from qbtools.errors import Failed, Refused
from qbtools.formats.volumestream import ExtentMap
from qbtools.volumes import inuse, kernel
from qbtools.volumes.kind import Source, Target, naming

_ZEROS = bytes(1 << 16)
_SECTOR = 1 << 12  # punched ranges begin and end at pages: a multiple of every logical block size
_STEP = 1 << 30  # bytes of one call, so that a signal is heard between two


class BlockSource(Source):
    """A block device: one extent, since what it holds is not known without reading."""

    def __init__(self, name: str) -> None:
        with naming(f"open {name}"):
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                super().__init__(name, fd, kernel.device_size(fd))
            except BaseException:
                os.close(fd)
                raise
        # Pages that somebody's earlier read left behind may be older than what a machine has written since.
        kernel.drop_cache(fd)

    def extents(self) -> ExtentMap:
        whole = ExtentMap(self.size)
        whole.add(0, self.size)
        return whole

    def check(self) -> None:
        """A device does not shrink below its readers without a read error."""


class BlockTarget(Target):
    """A block device that nobody else uses. What it held is lost from the first byte on.

    Zeros are punched, so that a device that can forgets the blocks; else the kernel writes them, else we do.
    """

    grain = len(_ZEROS)  # shorter runs of zeros cost more calls than they save

    def __init__(self, name: str, overwrite: bool) -> None:
        """Refused where it is in use by anybody, and without overwrite: a device always exists."""
        if not overwrite:
            raise Refused(f"{name} exists", "--overwrite writes over what the device holds")
        with naming(f"open {name}"):
            try:
                fd = os.open(name, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise Refused(f"{name} is in use: {inuse.claim(os.stat(name).st_rdev)}") from None
        super().__init__(name, fd)
        self._ways: list[Callable[[int, int, int], None]] = [kernel.punch, kernel.zero_out]
        try:
            with naming(f"open {name}"):
                self.capacity = kernel.device_size(fd)
                read_only = kernel.device_is_read_only(fd)
            if read_only:
                raise Failed(f"cannot write to {name}: the device is read-only")
            user = inuse.user(os.fstat(fd).st_rdev, fd)
            if user:
                raise Refused(f"{name} is in use: {user}")
        except BaseException:
            self.close()
            raise

    def start(self, size: int | None) -> None:
        if size is not None and self.capacity is not None and size > self.capacity:
            raise Refused(f"{self.name} is too small: it has {self.capacity} bytes, the volume {size}")

    def zero(self, offset: int, length: int) -> None:
        end = offset + length
        first = min(-(-offset // _SECTOR) * _SECTOR, end)
        last = max(end // _SECTOR * _SECTOR, first)
        self._write_zeros(offset, first)
        while first < last:
            step = min(last - first, _STEP)
            self._clear(first, step)
            first += step
        self._write_zeros(last, end)

    def _clear(self, offset: int, length: int) -> None:
        """Zeros whole pages in the best way that the device has."""
        while self._ways:
            with naming(f"write to {self.name}"):
                try:
                    return self._ways[0](self.fd, offset, length)
                except OSError as error:
                    if error.errno not in kernel.UNSUPPORTED:
                        raise
            del self._ways[0]
        return self._write_zeros(offset, offset + length)

    def _write_zeros(self, offset: int, end: int) -> None:
        view = memoryview(_ZEROS)
        while offset < end:
            part = view[: end - offset]
            self.write(part, offset)
            offset += len(part)

    def flush(self, size: int) -> None:
        with naming(f"write to {self.name}"):
            os.fsync(self.fd)

    def commit(self) -> None:
        """The device is where it was."""
