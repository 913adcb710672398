"""The interface of a kind of volume: a Kind finds volumes by name, a Source is read, a Target is filled.

Source and Target have a descriptor that can be read or written at any offset, or else the methods that replace it (then
fd is -1). They are context managers. The `with` releases everything that opening them has taken: a descriptor, a claim
on a device, a snapshot, an incomplete file.

A module of qbtools/volumes/kinds is named after its scheme and has its Kind as KIND. No other module names it.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod

from qbtools.errors import Failed, QbError, Refused
from qbtools.errors import naming as naming  # for modules that only import kinds
from qbtools.lean import TYPE_CHECKING, NamedTuple
from qbtools.volumes import kernel, spots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import TypeVar

    from qbtools.descriptors import Place
    from qbtools.formats.volumestream import ExtentMap
    from qbtools.streams import Buffer
    from qbtools.volumes.marks import Owner
    from qbtools.volumes.spots import Spot

    _Self = TypeVar("_Self", bound="_Opened")


class _Opened:
    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        """The name as the user wrote it, for messages."""
        self.fd = fd

    def close(self) -> None:
        """Releases everything. For a Target that was not committed: undoes what can be undone."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Source(_Opened, ABC):
    """A volume that is open for reading. size: its bytes, from the interface of its kind."""

    def __init__(self, name: str, fd: int, size: int) -> None:
        super().__init__(name, fd)
        self.size = size

    @abstractmethod
    def extents(self) -> ExtentMap:
        """The map of its data. Everything outside the map reads as zeros. Failed on an I/O error."""

    def blocks(self, extents: Iterable[tuple[int, int]]) -> Iterator[Buffer | Place] | None:
        """For a source without a descriptor: the data of these extents (offset, length), in order, in blocks.

        No block crosses the end of an extent. A block is valid until the next one is asked for. For a Place, the caller
        reads the bytes.
        """
        return None

    @abstractmethod
    def check(self) -> None:
        """Called after everything was read. Failed if it is known that the volume changed meanwhile."""

    def changed(self, since: str, size: int, block: int) -> ExtentMap:
        """Everything that may differ from an older snapshot of ours, in whole blocks (the last one may be shorter).

        since: the name of the snapshot, which must have size bytes. Failed, with the reason, if that cannot be known.
        """
        raise Failed("nothing tells what has changed in a volume of this kind")


class Room(NamedTuple):
    """The room that a target uses. where: equal for targets that share the room. free: bytes.

    freed: bytes that become free when the volume has replaced an existing one.
    whole: the volume needs room for all its bytes, not only for data. packed: the place may compress its content.
    unit: the bytes of a volume are rounded up to a multiple of this.
    """

    where: tuple[object, ...]
    free: int
    freed: int = 0
    whole: bool = False
    packed: bool = False
    unit: int = 1


class Target(_Opened, ABC):
    """A volume that is filled. The calls in order: expect (if there is a map), start, any number of write and zero,
    flush, commit, close.

    capacity: its size in bytes, all of which must be written or zeroed; None if it grows.
    grain: zero() is only useful for whole blocks of this many bytes; a power of two.
    """

    capacity: int | None = None
    grain: int = 1 << 12

    def expect(self, extents: ExtentMap) -> None:
        """The map of the data to come, for kinds whose start() checks the room."""

    def check(self, size: int | None) -> None:
        """Raises the errors of start(), as far as they are known without changing anything."""

    def check_capacity(self, size: int | None) -> None:
        """Refused if a volume of size bytes does not fit in a target that cannot grow."""
        if size is not None and self.capacity is not None and size > self.capacity:
            raise Refused(f"{self.name} is too small: it has {self.capacity} bytes, the volume {size}")

    def room(self) -> Room | None:
        """The room that the volume uses; None if it has its own, or it is not known."""
        return None

    @abstractmethod
    def start(self, size: int | None) -> None:
        """Called before the first byte: the volume will have size bytes (None: not known yet). Refused if it cannot."""

    def write(self, data: Buffer, offset: int) -> None:
        """Writes all of data at offset. Failed on an I/O error, or if there is no room."""
        view = memoryview(data)
        while len(view):
            try:
                count = os.pwrite(self.fd, view, offset)
            except OSError as error:
                at = f" at byte {offset}" if error.errno == errno.EIO else ""
                raise Failed(f"cannot write to {self.name}{at}: {os.strerror(error.errno or 0)}") from error
            view = view[count:]
            offset += count

    @abstractmethod
    def zero(self, offset: int, length: int) -> None:
        """Makes a range read as zeros, without using room if that is possible. Failed on an I/O error."""

    def next_data(self, at: int, end: int) -> int:
        """The first offset >= at that may have anything but zeros; end if there is none before it."""
        return kernel.next_data(self.fd, at, end)

    def read(self, view: memoryview, at: int) -> int:
        """Reads back at least one byte at an offset. Returns their number, 0 at the end. Failed on an I/O error."""
        with naming(f"read {self.name} back"):
            return os.preadv(self.fd, [view], at)

    @abstractmethod
    def flush(self, size: int) -> None:
        """Called when everything was written: the volume then has size bytes on stable storage. Failed if it cannot."""

    @abstractmethod
    def commit(self) -> None:
        """Called when the volume is complete: it gets its name. Refused if the name is taken meanwhile."""


def _silent(_text: str) -> None:
    """Prints nothing."""


class SourceOptions(NamedTuple):
    """How a volume is read (immutable; `_replace` returns a changed copy)."""

    state: str | None = None
    """The state of the volume. `snapshot`: as it is now; `current`: the plain volume without a guard; `before-start`:
    as it was before its machine started. None: the safest state that is available: before-start if the pool keeps it,
    otherwise a snapshot, otherwise the plain volume with a guard that refuses or fails if others write to it."""
    cow: str = "10%"
    """The room for a snapshot that needs its own: `NN%` of the volume (1 to 100), or a number of bytes."""
    note: Callable[[str], None] = _silent
    warn: Callable[[str], None] = _silent
    opaque: bool = False
    """Read an image even if it needs another file (such as a qcow2 file with a backing file)."""
    since: str | None = None
    """The word of the older snapshot that Source.changed() will be asked for."""


class TargetOptions(NamedTuple):
    """How a volume is filled (immutable; `_replace` returns a changed copy)."""

    create: bool = False
    """Create the volume if it does not exist. (A file is created without this too.)"""
    overwrite: bool = False
    """Replace an existing volume or write over it. Without this an existing volume is Refused."""
    shrink: bool = False
    """A replaced volume may become smaller."""
    create_options: str = ""
    """`KEY=VALUE,…`: how an image is created, for kinds with takes_options."""
    pool_reserve: float = 5.0
    """Percent of a pool's data space and of its metadata space that must stay free."""
    note: Callable[[str], None] = _silent
    warn: Callable[[str], None] = _silent


class Kind(ABC):
    """One kind of volume.

    A name is the text after `SCHEME:` in a word of the command line, or a whole word without scheme for which exists()
    or could_be_made() is true. A spec is a whole word, `SCHEME:NAME`. Start-up must stay fast: a method that needs a
    module that is slow to import, or a program, loads or starts it itself.
    """

    scheme: str
    """The text before the colon, `[a-z]+`, which is also the name of the module."""
    narrows: str | None = None
    """The scheme of the kind of which this one is a special case (a logical volume is also a block device). A word that
    fits both belongs to this kind."""

    takes_options = False
    """Whether open_target() knows create_options."""

    def path(self, name: str) -> str | None:
        """The path of the file that the volume is, existing or not; None if it is not one file."""
        return None

    @abstractmethod
    def exists(self, word: str) -> bool:
        """Whether a word without scheme names an existing volume of this kind. Never raises for an odd word.

        If the word is an existing path, it means only that path, not another name that looks the same.
        """

    @abstractmethod
    def could_be_made(self, word: str) -> bool:
        """Whether a word without scheme names a volume that does not exist but could be created as this kind."""

    @abstractmethod
    def sizes(self, name: str, options: SourceOptions) -> tuple[int, int]:
        """The size of the volume in bytes, and an upper estimate of the bytes that are data. Takes no snapshot.

        Failed if it does not exist. It may be in use.
        """

    @abstractmethod
    def open_source(self, name: str, options: SourceOptions) -> Source:
        """The volume to read, in the state that options ask for.

        UsageError if name cannot be a volume, or the kind does not have the state. Failed if it does not exist.
        Refused if it is in use and the kind has no other way.
        """

    def spot(self, name: str) -> Spot:
        """The spot of the volume with that name, existing or not. UsageError if name cannot be a volume; Failed."""
        return spots.of_name(self.scheme, name)

    def complete(self, name: str) -> bool:
        """Whether a volume of that name exists and is complete, because it gets its name only when it is complete.

        Refused if it exists and is written in place, because it may be incomplete.
        """
        if self.exists(name):
            raise Refused(
                f"{name} is written in place, so it may be incomplete: it cannot be skipped",
                "--overwrite writes it again, --only leaves it out",
            )
        return False

    @abstractmethod
    def open_target(self, name: str, options: TargetOptions) -> Target:
        """The volume to fill. UsageError if name cannot be a volume; Refused if it exists or is in use."""

    def prepare(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> Callable[[], list[str]]:
        """Does everything of take() that is slow or can be refused. The returned call does the rest immediately.

        That call may never happen, so nothing may be left that must be undone.
        """
        return lambda: self.take(names, mark, options)

    @abstractmethod
    def take(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> list[str]:
        """Takes lasting snapshots of all these volumes, with a mark, as close together in time as possible.

        Returns a spec for each, in order, which open_source() can read. If one fails, the others are removed. Refused
        if the kind, or the place of the volume, does not support snapshots.
        """

    def keepable(self, names: Sequence[str], options: SourceOptions) -> list[str]:
        """Those of the volumes of which take() can take a snapshot that can be kept for days: it needs no room of its
        own, and its changed() is of use later. Never raises for an odd volume."""
        return []

    def stamps(self, names: Sequence[str]) -> dict[str, str | QbError]:
        """For each of the snapshots with these names, results of take(), a word that changes when somebody changes it;
        or why there is none: it does not exist, or this kind has none."""
        return {name: Failed(f"{name} is no snapshot that can be kept") for name in names}

    @abstractmethod
    def marked(self, places: Sequence[str]) -> Iterator[tuple[str, Owner]]:
        """Spec and mark of everything with a mark of qbtools: snapshots and incomplete volumes.

        places: directories to search, for kinds that cannot know all places of their volumes.
        """

    @abstractmethod
    def release(self, spec: str) -> None:
        """Removes a result of marked() or take(). Failed if it does not exist; Refused if it has no mark."""

    def release_all(self, specs: Sequence[str]) -> None:
        """Does release() for as many as possible. Raises the first error at the end."""
        from qbtools.volumes.problems import Problems

        problems = Problems()
        for spec in specs:
            with problems:
                self.release(spec)
        problems.end()
