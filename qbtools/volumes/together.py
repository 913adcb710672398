"""Fills several volumes from one archive in one pass. None gets its name before the archive was read to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qbtools.errors import Damaged
from qbtools.formats.tarreader import Member, TarReader
from qbtools.streams import Reader
from qbtools.volumes.kind import Target
from qbtools.volumes.writing import Filling


class Together:
    """One pass over an archive. done and label are for a progress display."""

    def __init__(self, reader: Reader, targets: Mapping[str, Target], note: Callable[[str], None]) -> None:
        """targets: by the name of the member. They are open, all different volumes, and closed by the caller."""
        self._reader = reader
        self._targets = targets
        self._note = note
        self._sizes: dict[str, int] = {}
        self._before = 0
        self._filling: Filling | None = None
        self.label = "archive"

    @property
    def done(self) -> int:
        """Bytes of data for all targets so far."""
        return self._before + (self._filling.done if self._filling else 0)

    def fill(self) -> dict[str, int]:
        """Fills all targets, reads the archive to its end, and flushes. Returns the sizes of the volumes by member.

        Damaged if a member is missing, occurs twice, or is not a regular file.
        """
        archive = TarReader(self._reader)
        while (member := archive.next()) is not None:
            if member.untrusted_name in self._targets:
                self._take(archive, member)
        for name in self._targets:
            if name not in self._sizes:
                raise Damaged(f"the archive has no member {name}")
        return self._sizes

    def _take(self, archive: TarReader, member: Member) -> None:
        name, target = member.untrusted_name, self._targets[member.untrusted_name]
        if name in self._sizes:
            raise Damaged(f"{name} occurs twice")
        if member.kind:
            raise Damaged(f"{name} is {member.kind}, not a regular file")
        extents = archive.read_map()
        self.label = target.name
        target.expect(extents)
        target.start(extents.size)
        self._before = self.done
        self._filling = filling = Filling(self._reader, target)
        filling.data(extents)
        self._note(f"{target.name}: {extents.size} bytes, {filling.done} of them data; flushing")
        filling.finish(extents.size)
        self._sizes[name] = extents.size

    def commit(self, warn: Callable[[str], None]) -> None:
        """Gives each target its name. If one fails, the earlier ones keep their names, and a warning lists them."""
        placed: list[str] = []
        try:
            for target in self._targets.values():
                target.commit()
                placed.append(target.name)
        except BaseException:
            for name in placed:
                warn(f"{name} is complete and has its name")
            raise
