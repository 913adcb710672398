"""Reads logical volumes, through a snapshot of ours if lvm can create one.

A pool may keep the state of a volume from before the start of its machine, as Qubes OS does. While the machine runs,
it writes to NAME-snap, a snapshot of NAME, which replaces NAME when the machine stops.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from qbtools.descriptors import drop_cache
from qbtools.errors import Failed, QbError, Refused, UsageError
from qbtools.formats.volumestream import ExtentMap
from qbtools.volumes import kernel
from qbtools.volumes.kind import Source, SourceOptions, naming
from qbtools.volumes.kinds.block import BlockSource
from qbtools.volumes.lvm import dm, exchange, snapshot
from qbtools.volumes.lvm.facts import Groups, Volume
from qbtools.volumes.marks import Mark

_RUNNING = "-snap"


class LogicalSource(Source):
    """A logical volume that nobody writes to: a temporary snapshot of ours, which is removed, or a lasting one."""

    def __init__(
        self, name: str, volume: Volume, full: str, options: SourceOptions, ours: bool, groups: Groups
    ) -> None:
        """full: the snapshot of volume to read, GROUP/NAME. ours: it is removed at the end, or now on failure."""
        self._groups = groups
        self._warn = options.warn
        self._thin = volume.thin
        self._remove = full if ours else None
        super().__init__(name, -1, 0)
        try:
            with naming(f"open {full}"):
                self.fd = os.open(f"/dev/{full}", os.O_RDONLY | os.O_CLOEXEC)
                self.size = kernel.device_size(self.fd)
            drop_cache(self.fd)
        except BaseException:
            self.close()
            raise

    def extents(self) -> ExtentMap:
        if self._thin:
            from qbtools.volumes.lvm import thinmap

            try:
                return thinmap.read(os.fstat(self.fd).st_rdev, self.size)
            except Failed as error:
                self._warn(f"{self.name} has no map, so it is read completely: {error.message}")
        whole = ExtentMap(self.size)
        whole.add(0, self.size)
        return whole

    def changed(self, since: str, size: int, block: int) -> ExtentMap:
        from qbtools.volumes.lvm import thindelta

        if not self._thin:
            raise Failed("it is not in a thin pool")
        old = thindelta.kept(self._groups.volume(since)[0])
        if old.size != size:
            raise Failed(f"{old.full} has {old.size} bytes, not {size}")
        if old.size > self.size:
            raise Failed("it has shrunk")
        return thindelta.read(old, os.fstat(self.fd).st_rdev, self.size, block)

    def check(self) -> None:
        refuse_overflow(self.name, self.fd)

    def close(self) -> None:
        super().close()
        full, self._remove = self._remove, None
        if full is not None:
            try:
                snapshot.remove(full)
            except Failed as error:
                self._warn(f"the snapshot {full} cannot be removed: {error.message}")


class GivenSnapshot(BlockSource):
    """A classic snapshot of the user, of which lvm cannot take another: it is guarded like any block device."""

    def check(self) -> None:
        refuse_overflow(self.name, self.fd)
        super().check()


def refuse_overflow(name: str, fd: int) -> None:
    """Failed if fd is a classic snapshot that became invalid because its room was full. Does nothing for others."""
    with naming(f"read {name}"):
        target = dm.status(os.fstat(fd).st_rdev)
    # `used/room metadata` in sectors; only a word if it is no longer a snapshot.
    if target.type == "snapshot" and not re.fullmatch("[0-9]+/[0-9]+", (target.parameters or [""])[0]):
        raise Failed(f"{name}: snapshot overflowed", "--cow gives it more room")


def open_source(name: str, options: SourceOptions) -> Source:
    """The volume to read; as Kind.open_source()."""
    groups = Groups()
    volume, group = _tidied(name, options, groups)
    if volume.mark is not None and volume.read_only:
        return LogicalSource(name, volume, volume.full, options, False, groups)
    wanted, kept = choose(volume, group, options)
    if options.state == "current":
        return BlockSource(_active(wanted).path, options)
    if "thicksnapshot" in wanted.role:
        return GivenSnapshot(_active(wanted).path, options)
    full = snapshot.take(ready(wanted), Mark.own(), options.cow)
    source = LogicalSource(name, wanted, full, options, True, groups)
    options.note(f"{name}: reading {wanted.full} through the snapshot {full}")
    if options.state == "before-start" and not kept:
        try:
            refuse_started(wanted, options)
        except BaseException:
            source.close()
            raise
    return source


def sizes(name: str, options: SourceOptions) -> tuple[int, int]:
    """The bytes of the volume, and of its data; as Kind.sizes()."""
    volume, group = _find(name, Groups())
    refuse_parts(volume)
    wanted, _kept = choose(volume, group, options)
    return wanted.size, used(wanted)


def used(volume: Volume) -> int:
    """An estimate of the bytes of a volume that are data; its size if the kernel does not say."""
    if not volume.thin or not volume.active:
        return volume.size
    with naming(f"read {volume.path}"):
        mapped = dm.status(os.stat(volume.path).st_rdev).parameters[0]  # sectors
    return min(int(mapped) * 512 if mapped.isdigit() else volume.size, volume.size)


def to_be_taken(name: str, options: SourceOptions, groups: Groups) -> Volume:
    """The volume whose snapshot has the state that options ask for; errors as open_source()."""
    volume, group = _tidied(name, options, groups)
    wanted, kept = choose(volume, group, options)
    if "thicksnapshot" in wanted.role:
        raise Refused(f"{wanted.full} is itself a snapshot, and lvm cannot take another of it")
    if options.state == "before-start" and not kept:
        refuse_started(wanted, options)
    return ready(wanted)


def _find(name: str, groups: Groups) -> tuple[Volume, dict[str, Volume]]:
    """As Groups.volume(), also for a volume that an exchange has renamed."""
    try:
        return groups.volume(name)
    except QbError:
        if not exchange.brought_back(name):
            raise
        groups.forget()
        return groups.volume(name)


def _tidied(name: str, options: SourceOptions, groups: Groups) -> tuple[Volume, dict[str, Volume]]:
    """As _find(). Leftovers of ended runs in the group are removed or completed first."""
    volume, group = _find(name, groups)
    refuse_parts(volume)
    if snapshot.remove_dead(group.values(), options.note, options.warn):
        groups.forget()
    if exchange.repair(group.values(), options.note, options.warn):
        groups.forget()
        return groups.volume(name)
    return volume, group


def choose(volume: Volume, group: Mapping[str, Volume], options: SourceOptions) -> tuple[Volume, bool]:
    """The volume of its group with the wanted state, and whether this is the state from before the start."""
    running = group.get(f"{volume.name}{_RUNNING}")
    if running is None or not (volume.thin and running.thin and running.origin == volume.name):
        return volume, False
    if options.state in (None, "before-start"):
        options.note(f"{volume.full} is the state before its machine started; that writes to {running.full}")
        return volume, True
    return running, False


def refuse_parts(volume: Volume) -> None:
    """UsageError for volumes of lvm itself, such as pools."""
    if "pool" in volume.layout:
        raise UsageError(f"{volume.full} is a pool, not a volume")


def ready(volume: Volume) -> Volume:
    """Returns the volume if a snapshot of it is possible now. A thin volume need not be active."""
    return volume if volume.thin else _active(volume)


def _active(volume: Volume) -> Volume:
    if not volume.active:
        raise Failed(f"{volume.full} is not active", f"lvchange -ay {volume.full} activates it")
    return volume


def refuse_started(volume: Volume, options: SourceOptions) -> None:
    """Refused if somebody uses the volume, because its earlier state is not kept."""
    if not volume.active:
        return
    try:
        BlockSource(volume.path, options).close()
    except Refused as error:
        text = f"the state of {volume.full} before its machine started is not kept: {error.message}"
        raise Refused(text, "--state=snapshot reads it as it is now") from None
