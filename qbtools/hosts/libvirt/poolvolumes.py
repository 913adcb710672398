"""New volumes in storage pools that are no directories, such as volume groups: libvirt makes them and removes them.

A record (see images.py) has the line `pool UUID KEY PATH`, separated by tabs, twice for each volume: before it is made,
when KEY is `-`, and after that with what libvirt tells it by, or `!` if libvirt did not make it. So a volume of
somebody else is not taken for ours: under the lock of the records, there was none of that name before the first line.

A new volume may hold data of a deleted one. To write zeros over all of it would take as long as to fill it, so it first
gets a few words at its beginning. Whoever fills it writes over them. If they are still there when the machine is
finished, the volume is zeroed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

from qbtools.errors import Failed, Refused
from qbtools.hosts.libvirt import facts
from qbtools.hosts.libvirt.facts import Facts, Pool
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.volumes import inuse
from qbtools.volumes.kind import TargetOptions, naming
from qbtools.volumes.kinds.block import BlockTarget
from qbtools.volumes.lvm import lvnames

RECORD = b"pool\t"
"""The beginning of a line in a record."""

_NO_KEY, _NOT_OURS = "-", "!"
_LEAST = 1 << 20  # libvirt makes no volume of 0 bytes
_BLANK = b"qbtools: nothing was written to this volume\n".ljust(4096, b"\0")


class PoolVolumes:
    """The volumes, by their path. All methods: Failed if libvirt fails."""

    def __init__(self, virsh: Virsh, known: Facts) -> None:
        self._virsh = virsh
        self._facts = known
        self._names: dict[str, set[str]] = {}

    def check(self, path: str, ours: bool) -> None:
        """Refused if make() cannot make a volume. ours: one that exists is no obstacle."""
        pool, name = self._parts(path)
        problem = lvnames.volume_problem(os.path.basename(pool.path), name) if pool.kind == facts.LOGICAL else None
        if problem:
            raise Refused(f"no logical volume can be called {name}: {problem}")
        if not ours and (os.path.lexists(path) or self._exists(pool.uuid, name)):
            raise Refused(f"{path} already exists, but no domain that is being restored has it")

    def make(self, path: str, size: int, record: Callable[[bytes], None]) -> None:
        """Makes a volume, after check(). record: writes a line to stable storage."""
        pool, name = self._parts(path)
        record(_line(pool.uuid, _NO_KEY, path))
        try:
            self._virsh.create_volume(pool.uuid, name, max(size, _LEAST))
        except Failed:
            record(_line(pool.uuid, _NOT_OURS, path))  # somebody else may have been faster
            raise
        self._names.get(pool.uuid, set()).add(name)
        record(self.line(path))
        with naming(f"write to {path}"):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, _BLANK, 0)
                os.fsync(fd)
            finally:
                os.close(fd)

    def line(self, path: str) -> bytes:
        """The line of a volume that exists."""
        pool, name = self._parts(path)
        return _line(pool.uuid, self._virsh.volume_key(pool.uuid, name), path)

    def zero_blank(self, path: str) -> None:
        """Zeros a volume to which nothing was written."""
        with naming(f"read {path}"):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                blank = os.pread(fd, len(_BLANK), 0) == _BLANK
            finally:
                os.close(fd)
        if blank:
            target = BlockTarget(path, TargetOptions(overwrite=True))
            try:
                target.zero(0, target.capacity or 0)
                target.flush(0)
            finally:
                target.close()

    def refuse_used(self, path: str) -> None:
        """Refused if a volume is in use."""
        with naming(f"open {path}"):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise Refused(f"{path} is in use: {inuse.claim(os.stat(path).st_rdev)}") from None
            try:
                user = inuse.user(os.fstat(fd).st_rdev, fd)
            finally:
                os.close(fd)
        if user:
            raise Refused(f"{path} is in use: {user}")

    def owned(self, lines: Iterable[bytes]) -> list[str]:
        """The paths of the volumes in these lines of a record that exist, and are not others of the same name."""
        self._names.clear()  # what libvirt tells them by must be new, too
        found = []
        for line in lines:
            _word, pool, key, path = os.fsdecode(line).split("\t")
            name = os.path.basename(path)
            if self._exists(pool, name) and key in (_NO_KEY, self._virsh.volume_key(pool, name)):
                found.append(path)
        return found

    def remove(self, path: str) -> None:
        """Removes a volume."""
        pool, name = self._parts(path)
        self._virsh.delete_volume(pool.uuid, name)
        self._names.pop(pool.uuid, None)

    def _exists(self, pool: str, name: str) -> bool:
        """Whether a pool has a volume. Its volumes are listed once for several volumes of a domain."""
        if pool not in self._names:
            self._virsh.refresh(pool)
            self._names[pool] = set(self._virsh.volume_names(pool))
        return name in self._names[pool]

    def _parts(self, path: str) -> tuple[Pool, str]:
        """The pool and the name of a volume."""
        place, name = os.path.split(path)
        found = next((pool for pool in self._facts.pools.values() if pool.devices and pool.path == place), None)
        if found is None:
            raise Failed(f"libvirt has no active pool with the volume {path}")
        return found, name


def _line(pool: str, key: str, path: str) -> bytes:
    return RECORD + os.fsencode("\t".join((pool, key, path))) + b"\n"
