"""New logical volumes: filled under a temporary name with a mark, and renamed when they are complete."""

from __future__ import annotations

import os
from abc import abstractmethod

from qbtools.errors import Failed, UsageError
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import Buffer
from qbtools.volumes import kernel, marks
from qbtools.volumes.kind import Room, Target, TargetOptions, naming
from qbtools.volumes.kinds.block import BlockTarget
from qbtools.volumes.lvm import exchange, snapshot, tools
from qbtools.volumes.lvm.facts import Volume
from qbtools.volumes.lvm.lvnames import mapper_name
from qbtools.volumes.lvm.pool import Pool, Watch
from qbtools.volumes.marks import Mark

_ZEROS = bytes(1 << 16)
_PARTS = 1 << 20  # the most parts of a volume for which it is recorded whether anything was written


class NewVolume(Target):
    """A volume that gets its name, or replaces another one, when it is complete. Until then it has a mark."""

    def __init__(self, name: str, group: str, volume: str, old: Volume | None, options: TargetOptions) -> None:
        """old: the existing volume of that name, which nobody uses; None if there is none."""
        super().__init__(name, -1)
        self._group = group
        self._volume = volume
        self._old = old
        self._options = options
        self._mark = Mark.own()
        self._temporary: str | None = None  # the name of the incomplete volume, which must not remain

    def start(self, size: int | None) -> None:
        """UsageError if size is not known, because the volume cannot be created then. Failed if there is no room."""
        wanted = self._wanted(size)
        self._temporary = marks.temporary_name()
        tools.lvm(
            "lvcreate", "-qq", "-y", "-Wn", "--addtag", str(self._mark), "-n", self._temporary, *self._how(wanted)
        )
        self._open(f"/dev/mapper/{mapper_name(self._group, self._temporary)}")
        with naming(f"open {self.name}"):
            self.capacity = kernel.device_size(self.fd)

    def _wanted(self, size: int | None) -> int:
        """Bytes to ask lvm for, which rounds them up to extents."""
        old = self._old
        if size is None and old is None:
            raise UsageError(
                f"{self.name} cannot be created before the size of the volume is known",
                "use a file or a volume stream as standard input",
            )
        if old is None or (size is not None and size > old.size):
            return max(-(-(size or 0) // 512), 1) * 512
        if size is None or not self._options.shrink:
            return old.size
        wanted = whole_extents(self._group, size)
        if wanted < old.size:
            self._options.warn(f"{self.name}: shrinking it from {old.size} to {wanted} bytes")
        return wanted

    @abstractmethod
    def _how(self, size: int) -> list[str]:
        """The arguments of lvcreate apart from name and mark."""

    @abstractmethod
    def _open(self, path: str) -> None:
        """Opens the new volume, and sets fd."""

    def commit(self) -> None:
        temporary = self._temporary or ""
        self._shut()
        if self._old is None:
            exchange.place(self._group, temporary, self._volume, self._mark)
        else:
            exchange.exchange(self._old, temporary, self._mark, self._options.warn)
        self._temporary = None

    def _shut(self) -> None:
        super().close()

    def close(self) -> None:
        self._shut()
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            try:
                snapshot.remove(f"{self._group}/{temporary}")
            except Failed as error:
                self._options.warn(f"incomplete {self._group}/{temporary} cannot be removed: {error.message}")


class ThinTarget(NewVolume):
    """A new thin volume: everything that is not written has no blocks and reads as zeros."""

    grain = len(_ZEROS)  # no pool has smaller chunks, so shorter runs of zeros save nothing

    def __init__(
        self, name: str, group: str, volume: str, pool: str, old: Volume | None, options: TargetOptions
    ) -> None:
        super().__init__(name, group, volume, old, options)
        self._in = pool
        self._extents: ExtentMap | None = None
        self._part = 1
        self._written = bytearray()  # a byte for each part: 1 where anything was written

    def expect(self, extents: ExtentMap) -> None:
        self._extents = extents

    def room(self) -> Room | None:
        try:
            pool = Pool.active(self._group, self._in)
            free = pool.state().left(self._options.pool_reserve) * pool.chunk
        except Failed:  # not active: start() will check it
            return None
        return Room(("pool", self._group, self._in), max(free, 0), self._old.size if self._old else 0)

    def start(self, size: int | None) -> None:
        super().start(size)
        self._begin(Pool.active(self._group, self._in))  # it is active now, because a volume in it is

    def _begin(self, pool: Pool) -> None:
        """Called when the volume exists in this pool and has its capacity."""
        self._pool = pool
        self._watch = Watch(pool, self._options.pool_reserve, self._flush)
        self._watch.check(self._extents)
        chunks = -(-(self.capacity or 0) // pool.chunk)
        self._part = max(-(-chunks // _PARTS), 1) * pool.chunk  # whole chunks: a used chunk is read back completely
        self._written = bytearray(-(-chunks * pool.chunk // self._part))

    def _how(self, size: int) -> list[str]:
        return ["-kn", "-V", f"{size}b", "--thinpool", self._in, self._group]

    def _open(self, path: str) -> None:
        with naming(f"open {self.name}"):
            self.fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)

    def write(self, data: Buffer, offset: int) -> None:
        self._watch.take(offset, len(data))
        first, last = offset // self._part, (offset + len(data) - 1) // self._part
        self._written[first : last + 1] = b"\1" * (last + 1 - first)
        super().write(data, offset)

    def next_data(self, at: int, end: int) -> int:
        """Parts without blocks need not be read back."""
        part = self._written.find(1, at // self._part)
        return min(max(part * self._part, at), end) if part >= 0 else end

    def zero(self, offset: int, length: int) -> None:
        """Zeros only the rest of chunks with data, and only if the pool does not zero chunks itself.

        Otherwise the old data of a deleted volume could be read around the new data.
        """
        if self._pool.zeroing:
            return
        end = offset + length
        chunk = self._pool.chunk
        first = min(-(-offset // chunk) * chunk, end)
        last = max(end // chunk * chunk, first) if end != self.capacity else end
        self._write_zeros(offset, first)
        self._write_zeros(last, end)

    def _write_zeros(self, offset: int, end: int) -> None:
        view = memoryview(_ZEROS)
        while offset < end:
            part = view[: end - offset]
            self.write(part, offset)
            offset += len(part)

    def flush(self, size: int) -> None:
        self._flush()

    def _flush(self) -> None:
        try:
            with naming(f"write to {self.name}"):
                os.fsync(self.fd)
        except Failed:
            self._pool.state()  # may give a better reason
            raise


class ThickTarget(NewVolume):
    """A new volume from free extents of the group: their old content is written over, also in holes."""

    grain = BlockTarget.grain

    def __init__(self, name: str, group: str, volume: str, options: TargetOptions) -> None:
        super().__init__(name, group, volume, None, options)
        self._device: BlockTarget | None = None

    def room(self) -> Room | None:
        return room_in_group(self._group, 0)

    def _how(self, size: int) -> list[str]:
        return ["-Zn", "-L", f"{size}b", self._group]

    def _open(self, path: str) -> None:
        self._device = BlockTarget(path, TargetOptions(overwrite=True))
        self._device.name = self.name
        self.fd = self._device.fd

    def zero(self, offset: int, length: int) -> None:
        if self._device is not None:
            self._device.zero(offset, length)

    def flush(self, size: int) -> None:
        if self._device is not None:
            self._device.flush(size)

    def _shut(self) -> None:
        if self._device is not None:
            self._device.close()
        self._device, self.fd = None, -1


def whole_extents(group: str, size: int) -> int:
    """size rounded up to whole extents of the group, at least one. Failed if the group does not exist."""
    extent = room_in_group(group, 0).unit
    return max(-(-size // extent), 1) * extent


def room_in_group(group: str, freed: int) -> Room:
    """The room for a volume that is not thin. Failed if the group does not exist."""
    rows = tools.report("vgs", "vg_free,vg_extent_size", group)
    try:
        free, extent = int(rows[0]["vg_free"]), int(rows[0]["vg_extent_size"])
    except (LookupError, ValueError) as error:
        raise Failed("vgs printed a report that cannot be parsed") from error
    return Room(("group", group), free, freed, whole=True, unit=extent)
