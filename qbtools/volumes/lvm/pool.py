"""Checks the room of a thin pool while a volume in it is filled.

A full pool does not give ENOSPC: writes to the page cache continue, a flush fails after a minute, and every volume of
the pool hangs meanwhile. So a program that fills a volume counts the chunks that it writes, asks for them first, and
checks the pool again (after a flush) before more than STEP bytes are in the cache.

The numbers are those of Documentation/admin-guide/device-mapper/thin-provisioning.rst of Linux.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import NamedTuple
from qbtools.volumes.kind import naming
from qbtools.volumes.lvm import dm
from qbtools.volumes.lvm.lvnames import mapper_name

STEP = 64 << 20
"""Bytes that may be in the cache between two checks of the pool."""

_METADATA_BLOCK = 4096
_METADATA_OF_CHUNK = 32  # bytes: 16 in a leaf of the mapping, which is at least half full; measured: 20


class State(NamedTuple):
    """The usage of a pool: chunks of data, blocks of metadata."""

    data_used: int
    data: int
    metadata_used: int
    metadata: int

    @classmethod
    def parse(cls, parameters: list[str]) -> State:
        """From the status line of a `thin-pool` target. Failed if the pool accepts no writes."""
        if len(parameters) < 5:
            raise Failed(f"the pool is in a bad state: {' '.join(parameters) or 'unknown'}")
        words = set(parameters[4:])
        if "out_of_data_space" in words:
            raise Failed("the pool is full")
        if "ro" in words or "needs_check" in words:
            raise Failed("the pool accepts no writes: its metadata must be repaired or extended")
        try:
            metadata_used, metadata = map(int, parameters[1].split("/"))
            data_used, data = map(int, parameters[2].split("/"))
        except ValueError as error:
            raise Failed("the state of the pool cannot be parsed") from error
        return cls(data_used, data, metadata_used, metadata)

    def left(self, reserve: float) -> int:
        """Chunks that can be used while reserve percent of data and of metadata stay free; negative if fewer are."""
        data = self.data - self.data_used - _share(self.data, reserve)
        metadata = self.metadata - self.metadata_used - _share(self.metadata, reserve)
        return min(data, metadata * _METADATA_BLOCK // _METADATA_OF_CHUNK)

    def describe(self) -> str:
        """A text for messages."""
        data = 100 * self.data_used / max(self.data, 1)
        metadata = 100 * self.metadata_used / max(self.metadata, 1)
        return f"{data:.1f} % of its data and {metadata:.1f} % of its metadata are used"


class Pool:
    """A thin pool. chunk: the size of its chunks in bytes. zeroing: whether it zeros a chunk before its first use."""

    def __init__(self, group: str, name: str, chunk: int, zeroing: bool) -> None:
        self.group = group
        self.name = name
        self.chunk = chunk
        self.zeroing = zeroing

    @classmethod
    def active(cls, group: str, name: str) -> Pool:
        """The pool with that name, from the kernel. Failed unless it is active, which it is while a volume in it is."""
        with naming(f"check the pool {group}/{name}"):
            target = dm.table(_device(group, name))
        # metadata device, data device, sectors of a chunk, low water mark, number of features, features
        if target.type != "thin-pool" or len(target.parameters) < 3 or not target.parameters[2].isdigit():
            raise Failed(f"{group}/{name} is not a thin pool")
        return cls(group, name, int(target.parameters[2]) * 512, "skip_block_zeroing" not in target.parameters)

    def state(self) -> State:
        """Its usage. Failed if it accepts no writes or is not active."""
        with naming(f"check the pool {self.group}/{self.name}"):
            target = dm.status(_device(self.group, self.name))
        try:
            return State.parse(target.parameters)
        except Failed as error:
            raise Failed(f"{self.group}/{self.name}: {error.message}") from error


class Watch:
    """The room of a pool that one volume needs. take() is called before each write, with ascending offsets."""

    def __init__(self, pool: Pool, reserve: float, flush: Callable[[], None]) -> None:
        """reserve: percent of data, and of metadata, that stays free.

        flush: writes the cached data to the pool, so that its usage is correct.
        """
        self._pool = pool
        self._reserve = reserve
        self._flush = flush
        self._next = 0  # all needed chunks before this one were taken
        self._budget = 0  # chunks that may be taken before the next check

    def check(self, extents: ExtentMap | None) -> None:
        """Failed if the pool is filled to its reserve, or has no room for the chunks of extents above it.

        A single extent over the whole volume does not count, because much of it may be zeros.
        """
        known = extents is not None and extents.data < extents.size
        needed = chunks(extents, self._pool.chunk) if extents is not None and known else 0
        state = self._pool.state()
        left = state.left(self._reserve)
        if left < needed:
            raise self._full(state, f"there is no room for {needed * self._pool.chunk} bytes" if needed else "")
        self._budget = 0

    def take(self, offset: int, length: int) -> None:
        """Called before length (> 0) bytes are written at offset. Failed if less than the reserve would stay free."""
        first = max(offset // self._pool.chunk, self._next)
        self._next = max((offset + length - 1) // self._pool.chunk + 1, self._next)
        needed = self._next - first
        if needed <= 0:
            return
        if needed > self._budget:
            self._look(needed)
        self._budget -= needed

    def _look(self, needed: int) -> None:
        self._flush()
        state = self._pool.state()
        left = state.left(self._reserve)
        if left < needed:
            raise self._full(state)
        self._budget = max(min(left, STEP // self._pool.chunk), needed)

    def _full(self, state: State, why: str = "") -> Failed:
        text = f"the pool {self._pool.group}/{self._pool.name} is filled to its reserve of {self._reserve:g} %"
        if why:
            text = f"{why} in the pool {self._pool.group}/{self._pool.name} above its reserve of {self._reserve:g} %"
        return Failed(f"{text}: {state.describe()}", "extend the pool, or lower --pool-reserve")


def chunks(extents: ExtentMap, size: int) -> int:
    """The number of chunks of size bytes in which the extents are."""
    count, after = 0, 0
    for offset, length in extents:
        first = max(offset // size, after)
        after = (offset + length - 1) // size + 1
        count += after - first
    return count


def _device(group: str, name: str) -> int:
    """The number of the device on which the volumes of a pool are built. OSError if it is not active."""
    return os.stat(f"/dev/mapper/{mapper_name(group, name, 'tpool')}").st_rdev


def _share(total: int, percent: float) -> int:
    """percent of total, rounded up."""
    return math.ceil(total * percent / 100)
