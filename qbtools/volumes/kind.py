"""The interface of a kind of volume: a Kind knows its volumes by name, a Source is read, a Target is filled.

Source and Target hold a descriptor that can be read (written) at any offset, and are context managers: whatever
opening them has taken (a descriptor, a claim on a device, a snapshot, a half-written file) is given back when the
`with` ends, however it ends.

A module of qbtools/volumes/kinds has its Kind as KIND and the name of its scheme; nothing else has to know of it.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod

from qbtools.errors import Failed, Refused
from qbtools.errors import naming as naming  # also for those who know kinds only
from qbtools.lean import TYPE_CHECKING, NamedTuple
from qbtools.volumes import kernel, spots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import TypeVar

    from qbtools.formats.volumestream import ExtentMap
    from qbtools.streams import Buffer
    from qbtools.volumes.marks import Mark
    from qbtools.volumes.spots import Spot

    _Self = TypeVar("_Self", bound="_Opened")


class _Opened:
    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        """As the user wrote it; for messages."""
        self.fd = fd

    def close(self) -> None:
        """Gives back what is held. For a Target that was not committed: undoes what can be undone."""
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
    """A volume open for reading. size: bytes of it, from the kind's own interface."""

    def __init__(self, name: str, fd: int, size: int) -> None:
        super().__init__(name, fd)
        self.size = size

    @abstractmethod
    def extents(self) -> ExtentMap:
        """Where its data lies; what the map leaves out reads as zeros. Failed on an I/O error."""

    @abstractmethod
    def check(self) -> None:
        """Called when all was read: Failed if it is known that what was read is not one state of the volume."""


class Room(NamedTuple):
    """Where a target takes its room. where: equal for targets that share it. free: bytes.

    freed: bytes that are free once the volume has replaced what exists.
    whole: the volume takes all its bytes, not only those of its data. packed: the place may compress what it holds.
    """

    where: tuple[object, ...]
    free: int
    freed: int = 0
    whole: bool = False
    packed: bool = False


class Target(_Opened, ABC):
    """A volume that is filled. Calls come in this order: expect (where there is a map), start, any number of write and
    zero, flush, commit, close.

    capacity: bytes it can take, all of which are to be written or zeroed; None if it grows.
    grain: only runs of zeros that cover whole blocks of this many bytes are worth a zero(); a power of two.
    """

    capacity: int | None = None
    grain: int = 1 << 12

    def expect(self, extents: ExtentMap) -> None:
        """Where the data will be, for kinds that look for room before start() says that there is enough."""

    def check(self, size: int | None) -> None:
        """What start() would refuse, as far as that can be told without changing anything."""

    def room(self) -> Room | None:
        """Where the volume takes its room; None if that is its own, or not known."""
        return None

    @abstractmethod
    def start(self, size: int | None) -> None:
        """Before the first byte: the volume will have size bytes (None: not known yet). Refused if it cannot."""

    def write(self, data: Buffer, offset: int) -> None:
        """Writes all of data at offset. Failed on an I/O error and where there is no room."""
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
        """Makes a range read as zeros, in a way that takes no room where there is one. Failed on an I/O error."""

    def next_data(self, at: int, end: int) -> int:
        """The first offset >= at that may hold anything but zeros; end where none does before it."""
        return kernel.next_data(self.fd, at, end)

    @abstractmethod
    def flush(self, size: int) -> None:
        """All was written: the volume has size bytes, and they are on stable storage. Failed if they are not."""

    @abstractmethod
    def commit(self) -> None:
        """The volume is whole: it gets its place. Refused if something else has taken that meanwhile."""


def _silent(_text: str) -> None:
    """Says nothing."""


class SourceOptions(NamedTuple):
    """How a volume is read (immutable; `_replace` makes a changed one)."""

    state: str | None = None
    """Which state of the volume: `snapshot`: as it is now; `current`: the plain volume, unguarded; `before-start`: as
    it was before its machine started. None: the safest that the kind has for it: before-start where that is kept,
    else a snapshot, else the plain volume under a guard that refuses it (or fails) where others write to it."""
    cow: str = "10%"
    """Room for a snapshot that needs room of its own: `NN%` of the volume (1 to 100), or a number of bytes."""
    note: Callable[[str], None] = _silent
    warn: Callable[[str], None] = _silent
    opaque: bool = False
    """An image that needs another file (a qcow2 file with a backing file) is read all the same."""


class TargetOptions(NamedTuple):
    """How a volume is filled (immutable; `_replace` makes a changed one)."""

    create: bool = False
    """The volume is made where it is not there. (A file is made without this too.)"""
    overwrite: bool = False
    """The volume is replaced or written over where it is there; without this, a volume that is there is Refused."""
    shrink: bool = False
    """A volume that is replaced may become smaller."""
    pool_reserve: float = 5.0
    """Percent of a pool's room for data, and of that for metadata, that must stay free."""
    note: Callable[[str], None] = _silent
    warn: Callable[[str], None] = _silent


class Kind(ABC):
    """One kind of volume.

    A name is what stands behind `SCHEME:` in a word of the command line, or the whole of a word without scheme of
    which exists() or could_be_made() is true. A spec is a whole word, `SCHEME:NAME`. Start-up must stay quick:
    whatever is slow to import, or starts a program, waits until one of the methods needs it.
    """

    scheme: str
    """What stands before the colon, `[a-z]+`; the name of the module too."""
    narrows: str | None = None
    """Scheme of the kind that this one is a special case of (a logical volume is a block device too): a word that
    both have is this one's."""

    @abstractmethod
    def exists(self, word: str) -> bool:
        """Whether a word without scheme names a volume of this kind that is there. Never raises for a strange word.

        Where the word is a path that is there, only what lies at that path counts, not a name of the same look.
        """

    @abstractmethod
    def could_be_made(self, word: str) -> bool:
        """Whether a word without scheme names a volume that is not there but could be made as this kind."""

    @abstractmethod
    def sizes(self, name: str, options: SourceOptions) -> tuple[int, int]:
        """Bytes of the volume, and about how many of them are data (rather more than fewer). Takes no snapshot.

        Failed if it is not there. It may be in use.
        """

    @abstractmethod
    def open_source(self, name: str, options: SourceOptions) -> Source:
        """The volume to read, in the state that options ask for.

        UsageError if name can be none, or the kind does not know the state; Failed if it is not there; Refused
        where it is in use and the kind has no other way.
        """

    def spot(self, name: str) -> Spot:
        """Where the volume of that name is, or will be made. UsageError if name can be none, Failed."""
        return spots.of_name(self.scheme, name)

    def complete(self, name: str) -> bool:
        """Whether a volume of that name exists and is complete, because it got its name when it was.

        Refused if one exists that is written in place: it may be incomplete.
        """
        if self.exists(name):
            raise Refused(
                f"{name} is written in place, so it may be incomplete: it cannot be skipped",
                "--overwrite writes it again, --only leaves it out",
            )
        return False

    @abstractmethod
    def open_target(self, name: str, options: TargetOptions) -> Target:
        """The volume to fill. UsageError if name can be none; Refused if it exists or is in use."""

    def prepare(self, names: Sequence[str], mark: Mark, options: SourceOptions) -> Callable[[], list[str]]:
        """All that is slow about take(), or can be refused; the call that is returned does the rest at once.

        It may never be called, so nothing may be left that has to be undone.
        """
        return lambda: self.take(names, mark, options)

    @abstractmethod
    def take(self, names: Sequence[str], mark: Mark, options: SourceOptions) -> list[str]:
        """Snapshots that stay, marked, of all these volumes, as close together in time as it can.

        Returns a spec for each, in order, that open_source() reads. Where one fails, those taken before are removed.
        Refused if the kind, or the place where the volume lies, knows no snapshots.
        """

    @abstractmethod
    def marked(self, places: Sequence[str]) -> Iterator[tuple[str, Mark]]:
        """Spec and mark of whatever bears a mark of ours, snapshots and half-made volumes alike.

        places: directories to look in, for kinds that cannot know all places where their volumes may lie.
        """

    @abstractmethod
    def release(self, spec: str) -> None:
        """Removes what marked() or take() told of. Failed if it is not there; Refused if it bears no mark."""
