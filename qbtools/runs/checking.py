"""Runs that only look: the list of an archive, and its verification."""

from __future__ import annotations

from collections.abc import Callable

from qbtools.domains import inventory
from qbtools.domains.arrivals import Arrivals
from qbtools.domains.names import HOME
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged
from qbtools.formats.chunks import METADATA
from qbtools.runs.opening import Routes, size_of

CHECK = "check:"
LIST = "list:"


class Listing:
    """Shows the metadata; the archive is read to its end all the same."""

    def __init__(self, show: Callable[[Metadata], None]) -> None:
        self._show = show

    def metadata(self, metadata: Metadata) -> Routes:
        self._show(metadata)
        return ()

    def no_metadata(self, first: str) -> Routes:
        raise Damaged(f"the archive has no {METADATA}: it begins with {first}", "qb-unseal --list shows its files")

    def begun(self, name: str) -> None:
        """Not one is opened."""

    def done(self, name: str, printed: str) -> None:
        """Not one is opened."""

    def passed(self, name: str) -> None:
        """What else there is does not matter."""


class Verifying:
    """Opens, decompresses and reads every file, and holds them against the metadata."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._arrivals = Arrivals((), warn)
        self._arrivals.anything = True
        self._directories: dict[str, list[str]] = {}
        self.files = 0
        """Files that were read, besides the metadata."""
        self.size = 0
        """Bytes of the volumes in them."""

    def metadata(self, metadata: Metadata) -> Routes:
        entries = inventory.entries(metadata)
        self._arrivals = Arrivals(entries, self._warn)
        self._arrivals.add(METADATA, None)
        for entry in entries:
            if entry.archive_name.endswith("/.") and entry.volume is not None:
                self._directories.setdefault(entry.archive_name, []).append(entry.volume)
        return [(f"{HOME}*", LIST), ("*", CHECK)]

    def no_metadata(self, first: str) -> Routes:
        return [("*", CHECK)]

    def begun(self, name: str) -> None:
        """It counts when it is done."""

    def done(self, name: str, printed: str) -> None:
        if name in self._directories:
            check_directory(name, self._directories[name], printed)
        size = size_of(name, printed) if printed else None
        self._arrivals.add(name, size)
        self.files += 1
        self.size += size or 0

    def passed(self, name: str) -> None:
        raise Damaged(f"{name} was not read")

    def finish(self) -> None:
        """All has come. Damaged where something is missing."""
        self._arrivals.finish()


def check_directory(name: str, volumes: list[str], printed: str) -> None:
    """Holds the list of a directory's members against the volumes that must be in it. Damaged where one is missing."""
    members = {line.partition("\t")[2] for line in printed.splitlines()}
    for volume in volumes:
        if f"{name}/{volume}.img" not in members:
            raise Damaged(f"there is no {name}/{volume}.img")
