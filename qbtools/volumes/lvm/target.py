"""Chooses the logical volume to fill, and how.

A new volume, and one that replaces a thin volume, is filled under a temporary name (newvolume.py). A thin volume is
never written in place: only a new one has no blocks for its holes. Any other existing volume is written over, because
there may be no room for a second one.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from qbtools.errors import Failed, QbError, Refused, UsageError
from qbtools.volumes import inuse, kernel, marks, spots
from qbtools.volumes.kind import Room, Target, TargetOptions, naming
from qbtools.volumes.kinds.block import BlockTarget
from qbtools.volumes.lvm import dm, exchange, facts, lvnames, snapshot, source, tools
from qbtools.volumes.lvm.facts import Volume
from qbtools.volumes.lvm.newvolume import NewVolume, ThickTarget, ThinTarget, room_in_group, whole_extents
from qbtools.volumes.spots import Spot


def could_be_made(word: str) -> bool:
    """Whether word is `GROUP/VOLUME` or `GROUP/POOL/VOLUME` with an existing group."""
    parts = lvnames.split(word)
    if parts is None:
        return False
    try:
        return bool(tools.report("vgs", "vg_name", parts[0]))
    except Failed:
        return False


def open_target(name: str, options: TargetOptions) -> Target:
    """The volume to fill; as Kind.open_target()."""
    group, pool, volume = _parts(name)
    volumes = facts.group(group)
    snapshot.remove_dead(volumes.values(), options.note, options.warn)
    if exchange.repair(volumes.values(), options.note, options.warn):
        volumes = facts.group(group)
    old = volumes.get(volume)
    if old is None:
        return _new(name, group, pool, volume, volumes, options)
    if not options.overwrite:
        raise Refused(f"{name} already exists", "--overwrite replaces it")
    source.refuse_parts(old)
    if pool and old.pool != pool:
        raise Refused(f"{old.full} already exists, but not in the pool {pool}")
    if not old.thin:
        return PresentTarget(name, old, options)
    _refuse_used(old, volumes.get(f"{old.name}-snap"))
    return ThinTarget(name, group, volume, old.pool, old, options)


def present(name: str) -> Volume | None:
    """The existing volume that a target's name means. UsageError if the name cannot be a volume."""
    group, _pool, volume = _parts(name)
    return facts.group(group).get(volume)


def spot(name: str) -> Spot:
    """Its spot, existing or not. UsageError if the name cannot be a volume."""
    group, _pool, volume = _parts(name)
    return spots.of_mapped(lvnames.mapper_name(group, volume))


def _parts(name: str) -> tuple[str, str | None, str]:
    """Group, pool (None if not given) and volume."""
    parts = lvnames.split(name)
    if parts is None:
        found = facts.find(name)
        if found is None:
            raise UsageError(f"{name} is not a logical volume", "write lvm:VG/LV, or lvm:VG/POOL/LV for a new thin one")
        parts = found
    return parts[0], parts[1] if len(parts) == 3 else None, parts[-1]


def _new(
    name: str, group: str, pool: str | None, volume: str, volumes: dict[str, Volume], options: TargetOptions
) -> NewVolume:
    if not options.create:
        raise Failed(f"there is no logical volume {volume} in {group}", "--create creates it")
    problem = lvnames.volume_problem(group, volume)
    if marks.is_temporary_name(volume):
        problem = "such names are reserved for volumes that are not complete yet"
    if problem:
        raise UsageError(f"no logical volume can be called {volume}: {problem}")
    if pool is None:
        return ThickTarget(name, group, volume, options)
    if pool not in volumes or not volumes[pool].layout >= {"thin", "pool"}:
        raise Failed(f"there is no thin pool {pool} in {group}")
    return ThinTarget(name, group, volume, pool, None, options)


def _refuse_used(volume: Volume, running: Volume | None) -> None:
    """Refused if anybody has it open, or has a snapshot that will replace it (see source.py)."""
    if running is not None and running.thin and running.active and running.origin == volume.name:
        raise Refused(f"{volume.full} is in use: its machine writes to {running.full}")
    if not volume.active:
        return
    path = _device(volume)
    with naming(f"open {path}"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise Refused(f"{volume.full} is in use: {inuse.claim(os.stat(path).st_rdev)}") from None
        try:
            number = os.fstat(fd).st_rdev
            user = inuse.user(number, fd)
            if user is None and dm.opened(number) > 1:
                user = "the kernel, or a process that this program cannot see, has it open"
        finally:
            os.close(fd)
    if user:
        raise Refused(f"{volume.full} is in use: {user}")


def _device(volume: Volume) -> str:
    return f"/dev/mapper/{lvnames.mapper_name(volume.group, volume.name)}"


class PresentTarget(BlockTarget):
    """An existing volume that is not thin: it is written in place, from the first byte on."""

    def __init__(self, name: str, volume: Volume, options: TargetOptions) -> None:
        """Refused if it is in use, or without overwrite."""
        self._volume = volume
        self._options = options
        self._activated = False
        self._wanted: int | None = None
        try:
            if not volume.active:
                tools.lvm("lvchange", "-qq", "-ay", "-K", volume.full)
                self._activated = True
            super().__init__(_device(volume), options)
        except BaseException:
            self._deactivate()
            raise
        self.name = name

    def check(self, size: int | None) -> None:
        """Nothing to do: start() extends it, if there is room()."""
        self._wanted = size

    def room(self) -> Room:
        old = self._volume.size
        return room_in_group(self._volume.group, old if self._wanted is None else min(old, self._wanted))

    def start(self, size: int | None) -> None:
        """Extends it if it is too small; makes it smaller if that is allowed."""
        if size is not None:
            self._resize(size)
            with naming(f"open {self.name}"):
                self.capacity = kernel.device_size(self.fd)
        super().start(size)

    def _resize(self, wanted: int) -> None:
        size, full = self._volume.size, self._volume.full
        if wanted > size:
            self._options.note(f"{self.name}: extending it from {size} to {wanted} bytes, rounded up to a whole extent")
            tools.lvm("lvextend", "-qq", "-L", f"{-(-wanted // 512) * 512}b", full)
        elif wanted < size and self._options.shrink:
            wanted = whole_extents(self._volume.group, wanted)
            if wanted < size:
                self._options.warn(f"{self.name}: shrinking it from {size} to {wanted} bytes")
                tools.lvm("lvreduce", "-qq", "-f", "-y", "-L", f"{wanted}b", full)

    def close(self) -> None:
        super().close()
        self._deactivate()

    def _deactivate(self) -> None:
        activated, self._activated = self._activated, False
        if activated:
            with suppress(QbError):
                tools.lvm("lvchange", "-qq", "-an", self._volume.full)
