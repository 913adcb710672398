"""Volumes that are plain block devices. A target is written in place."""

from __future__ import annotations

import errno
import os
import stat

from qbtools.descriptors import drop_cache
from qbtools.errors import Failed, Refused, UsageError
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import inuse, kernel, spots
from qbtools.volumes.kind import Source, SourceOptions, Target, TargetOptions, naming
from qbtools.volumes.snapshotless import SnapshotlessKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qbtools.volumes.marks import Owner
    from qbtools.volumes.spots import Spot

_ZEROS = bytes(1 << 16)
_SECTOR = 1 << 12  # discarded ranges begin and end at pages: a multiple of every logical block size
_STEP = 1 << 30  # bytes per call, so that a signal is handled between two calls
_PLAINLY = "--state=current reads it anyway, but the copy may be inconsistent"


class BlockSource(Source):
    """A block device. It is one extent, because its content is not known without reading.

    Unless its current state is wanted, it is opened exclusively while it is read, so that it cannot be mounted, and
    nobody may have it open for writing.
    """

    def __init__(self, name: str, options: SourceOptions) -> None:
        """Refused if it is mounted, claimed or open for writing, unless options ask for the current state."""
        self._guarded = options.state != "current"
        with naming(f"open {name}"):
            fd = self._open(name)
            try:
                super().__init__(name, fd, kernel.device_size(fd))
                self._device = os.fstat(fd).st_rdev
                if self._guarded:
                    self._refuse_writers()
                    os.fsync(fd)  # data that an earlier writer left in the cache must not count as a later write
            except BaseException:
                os.close(fd)
                raise
        # Pages from an earlier read may be older than the data that a machine has written since.
        drop_cache(fd)
        self._written = inuse.written(self._device)

    def _open(self, name: str) -> int:
        if not self._guarded:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.open(name, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise Refused(f"{name} is in use: {inuse.claim(os.stat(name).st_rdev)}", _PLAINLY) from None

    def _refuse_writers(self) -> None:
        user = inuse.user(self._device, self.fd, writing=True)
        if user:
            raise Refused(f"{self.name} is in use: {user}", _PLAINLY)

    def extents(self) -> ExtentMap:
        whole = ExtentMap(self.size)
        whole.add(0, self.size)
        return whole

    def check(self) -> None:
        """A device cannot shrink without a read error, and the kernel counts writes."""
        if not self._guarded:
            return
        user = inuse.user(self._device, self.fd, writing=True)
        if user is None and inuse.written(self._device) != self._written:
            user = "a program wrote to it"
        if user:
            raise Failed(f"{self.name} changed while it was read: {user}")


class BlockTarget(Target):
    """A block device that nobody else uses. Its old content is lost from the first byte on.

    Zeros are discarded if the device supports it. Otherwise the kernel writes them, or else this program does.
    """

    grain = len(_ZEROS)  # for shorter runs of zeros the calls cost more than they save

    def __init__(self, name: str, options: TargetOptions) -> None:
        """Refused if it is in use, or without overwrite, because a device always exists."""
        if not options.overwrite:
            raise Refused(f"{name} already exists", "--overwrite writes over the content of the device")
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

    def check(self, size: int | None) -> None:
        self.check_capacity(size)

    def start(self, size: int | None) -> None:
        self.check(size)

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
        """Zeros whole pages in the best way that the device supports."""
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
        """Nothing to do: the device already has its name."""


class BlockKind(SnapshotlessKind):
    """Any block device, by its path. It has no snapshots."""

    scheme = "block"
    noun = "a block device"

    def exists(self, word: str) -> bool:
        try:
            return stat.S_ISBLK(os.stat(word).st_mode)
        except (OSError, ValueError):
            return False

    def could_be_made(self, word: str) -> bool:
        return False

    def sizes(self, name: str, options: SourceOptions) -> tuple[int, int]:
        self._check(name)
        with naming(f"open {name}"):
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = kernel.device_size(fd)
            finally:
                os.close(fd)
        return size, size

    def open_source(self, name: str, options: SourceOptions) -> Source:
        self._check(name)
        self.check_state(name, options)
        return BlockSource(name, options)

    def spot(self, name: str) -> Spot:
        with naming(f"open {name}"):
            return spots.of_device(os.stat(name).st_rdev)

    def open_target(self, name: str, options: TargetOptions) -> Target:
        self._check(name)
        return BlockTarget(name, options)

    def prepare(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> Callable[[], list[str]]:
        self._check(names[0])
        return super().prepare(names, mark, options)

    @staticmethod
    def _check(name: str) -> None:
        with naming(f"open {name}"):
            mode = os.stat(name).st_mode
        if not stat.S_ISBLK(mode):
            raise UsageError(f"{name} is not a block device")

    def no_snapshots(self, name: str) -> Refused:
        return Refused(f"{name} is a plain block device: no snapshot can be taken of it")


KIND = BlockKind()
