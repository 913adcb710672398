"""The part of the interface of a kind that is the same for all kinds without snapshots."""

from __future__ import annotations

from abc import abstractmethod

from qbtools.errors import Refused, UsageError
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes.kind import Kind, SourceOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qbtools.volumes.marks import Owner


class SnapshotlessKind(Kind):
    """A kind of volume of which no snapshot can be taken. noun: what a volume is, for messages."""

    noun: str

    @abstractmethod
    def no_snapshots(self, name: str) -> Refused:
        """The error for a snapshot of the volume with that name."""

    def check_state(self, name: str, options: SourceOptions) -> None:
        """UsageError for a state that no volume of the kind has, Refused for a snapshot."""
        if options.state == "before-start":
            raise UsageError(f"{name} is {self.noun}: it has no state from before the start of a machine")
        if options.state == "snapshot":
            raise self.no_snapshots(name)

    def take(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> list[str]:
        raise self.no_snapshots(names[0])

    def prepare(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> Callable[[], list[str]]:
        raise self.no_snapshots(names[0])

    def marked(self, places: Sequence[str]) -> Iterator[tuple[str, Owner]]:
        yield from ()

    def release(self, spec: str) -> None:
        raise Refused(f"{spec} has no mark of qbtools")
