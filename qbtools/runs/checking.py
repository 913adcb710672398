"""Runs that only read: the list of an archive, and its verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qbtools.domains import inventory
from qbtools.domains.arrivals import Arrivals
from qbtools.domains.names import directory_of
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged
from qbtools.formats.chunks import METADATA
from qbtools.formats.deltastream import Base
from qbtools.runs.hearing import Happened
from qbtools.runs.opening import Routes, increment_of, size_of

CHECK = "check:"
"""The route of a volume: its inner archive is read to its end, and its size is printed."""

TREE = "tree:"
"""The route of other files: their inner archive is read to its end with the checks of qb-tree."""


class Listing:
    """Shows the metadata. The archive is still read to its end."""

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
        """Other files do not matter."""

    def lost(self, name: str) -> None:
        """qb-unseal warns of it."""


class Verifying:
    """Opens, decompresses and reads every file, and compares the files with the metadata."""

    def __init__(self, warn: Callable[[str], None], lines: Mapping[str, str] | None = None) -> None:
        """lines: by name the digest of the line of each file in the manifest of the base; None: it is not known."""
        self._warn = warn
        self._lines = lines
        self._base = ""
        self._arrivals = Arrivals((), warn)
        self._arrivals.anything = True
        self._directories: dict[str, list[str]] = {}
        self.files = 0
        """The number of files that were read, without the metadata."""
        self.size = 0
        """The bytes of the volumes in them."""
        self._known = False

    def opened(self, archive: Happened) -> None:
        """Called when the header is authenticated."""
        self._base = archive.base
        if archive.base and self._lines is None:
            self._warn(
                f"the archive holds increments of the backup {archive.base}: "
                "whether that one is complete and fits is not checked"
            )

    def metadata(self, metadata: Metadata) -> Routes:
        entries = inventory.entries(metadata)
        self._arrivals = Arrivals(entries, self._warn)
        self._arrivals.add(METADATA, None)
        volumes = {}
        for entry in entries:
            if entry.volume is not None:
                volumes[f"?{entry.archive_name}"] = CHECK
                if entry.archive_name.endswith("/."):
                    self._directories.setdefault(entry.archive_name, []).append(entry.volume)
        self._known = True
        return [*volumes.items(), ("*", TREE)]

    def no_metadata(self, first: str) -> Routes:
        return [("*", CHECK)]

    def begun(self, name: str) -> None:
        """Nothing to do yet: the file counts when it is done."""

    def done(self, name: str, printed: str) -> None:
        if self._known:
            check_depth(name)
        if name in self._directories:
            check_directory(name, self._directories[name], printed)
        if (base := increment_of(name, printed)) is not None:
            self._check_base(name, base)
        size = size_of(name, printed) if printed else None
        self._arrivals.add(name, size)
        self.files += 1
        self.size += size or 0

    def _check_base(self, name: str, base: Base) -> None:
        if not self._base:
            raise Damaged(f"{name} is an increment, but the archive has no base")
        if base.backup_id != self._base:
            raise Damaged(f"{name} is an increment of the backup {base.backup_id}, not of {self._base}")
        if self._lines is not None and self._lines.get(name) != base.digest:
            raise Damaged(f"{name} is no increment of that volume in the backup {self._base}")

    def passed(self, name: str) -> None:
        raise Damaged(f"{name} was not read")

    def lost(self, name: str) -> None:
        """Nothing to do: qb-unseal fails, because all files have a route."""

    def finish(self) -> None:
        """Called at the end. Damaged if something is missing."""
        self._arrivals.finish()


def check_directory(name: str, volumes: list[str], printed: str) -> None:
    """Compares the members of a directory with the volumes that must be in it.

    Damaged if one is missing, occurs twice or is not a regular file.
    """
    members = [line.partition("\t")[2] for line in printed.splitlines()]
    for volume in volumes:
        member = f"{name}/{volume}.img"
        kinds = [one.removeprefix(f"{member}\t") for one in members if one == member or one.startswith(f"{member}\t")]
        if not kinds:
            raise Damaged(f"{member} is missing")
        if len(kinds) > 1:
            raise Damaged(f"{member} occurs twice")
        if kinds != [member]:
            raise Damaged(f"{member} is {kinds[0]}, not a regular file")


def check_depth(name: str) -> None:
    """Damaged for a file below a directory of a domain, because it could be restored outside its place."""
    if name.count("/") > directory_of(name).count("/"):
        raise Damaged(f"{name} is not a file of a domain")
