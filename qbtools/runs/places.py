"""The places of a restore to a host that are no volumes: the home of dom0, and the further files of domains.

All that can be known of them is checked before the first domain is created.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress

from qbtools import directories
from qbtools.domains import names
from qbtools.domains.planlines import PlanLine
from qbtools.errors import Damaged, QbError, Refused, and_more, naming
from qbtools.formats.chunks import MANIFEST, parse_member
from qbtools.formats.outertar import MemberReader
from qbtools.formats.ustar import MAX_NUMBER
from qbtools.hosts import further
from qbtools.hosts.restoring import Made
from qbtools.lean import NamedTuple
from qbtools.streams import file_reader
from qbtools.volumes import locate, spots
from qbtools.volumes.spots import Apart


class Places(NamedTuple):
    """What is extracted below files_to. home: the place of dom0's home, None if it is not restored.

    lines: the domains that are created, each with the directory files_to/NAME. archive: the path of the archive, None
    if it is no regular file. write: something will be written.
    """

    files_to: str
    home: str | None
    lines: Sequence[PlanLine]
    archive: str | None
    write: bool

    def check(self, paths: Mapping[str, str], volumes: Set[str]) -> None:
        """Refused or Failed if something cannot get its place.

        paths: the domains in the archive, by their directory there. volumes: the archive names of volumes.
        Which further files there are is known early only if the archive is a file. So the directory of a domain must be
        empty in every case.
        """
        if self.home is not None:
            if os.path.lexists(self.home):
                raise Refused(f"{self.home} already exists")
            _check_name(self.home)
            self._check_directory(os.path.dirname(self.home))
        apart = Apart()
        for line in self.lines:
            place = f"{self.files_to}/{line.name}"
            if (other := apart.add(spots.of_file(place), line.name)) is not None:
                raise Refused(f"the further files of {line.name} and {other} go to the same place: {place}")
            _check_name(place)
            if os.path.lexists(place) and not line.leftover:  # the host removes what is left over
                with naming(f"look into {place}"):
                    there = os.listdir(place)
                if there and not any(further.is_mark(name) for name in there):
                    raise Refused(f"{place} is not empty", "the further files of the domain go there")
                self._check_directory(place)
        self._check_names(paths, volumes)

    def _check_directory(self, place: str) -> None:
        if os.path.lexists(place):
            check_directory(place, self.write)

    def _check_names(self, paths: Mapping[str, str], volumes: Set[str]) -> None:
        """Checks the further files of the archive, as far as their names are known."""
        created = {line.domain: line.name for line in self.lines}
        apart = Apart()
        for name in archived(self.archive):
            path = names.directory_of(name)
            base = name.removeprefix(path)
            domain = created.get(paths.get(path, ""))
            if domain is None or name in volumes or "/" in base or base in ("", ".", further.EMPTY):
                continue
            place = f"{self.files_to}/{domain}/{base}"
            if (other := apart.add(spots.of_file(place), name)) is not None:
                raise Refused(f"the files {other} and {name} go to the same place: {place}")
            _check_name(place)


def _check_name(place: str) -> None:
    spot = spots.of_file(place)
    spots.check_name(spot.above, spot.below, place)


def check_apart(made: Iterable[Made]) -> None:
    """Refused if the host gives one target for two volumes."""
    apart = Apart()
    for one in made:
        if one.target is None:
            continue
        words = f"{one.domain}:{one.volume}"
        if (other := apart.add(locate.spot(one.target), words)) is not None:
            raise Refused(f"{other} and {words} have the same target: {one.target}")


def archived(archive: str | None) -> Iterator[str]:
    """The names of the files in an archive, as far as it is a file and not damaged. Those of a stream are not known."""
    if archive is None:
        return
    with suppress(QbError):
        members = MemberReader(file_reader(archive), lambda _name: MAX_NUMBER)
        while (member := members.next()) is not None:
            with suppress(Damaged):  # for what belongs to the header
                name, _number = parse_member(member.untrusted_name)
                if name != MANIFEST:
                    yield name


def check_directory(path: str, write: bool) -> None:
    """Failed if path is not a directory. write: also if files cannot be created and renamed in it."""
    with naming(f"write to {path}"):
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if write:
                directories.check_rename(directory)
        finally:
            os.close(directory)


class WithoutPlace:
    """The home of dom0 and the further files that are not restored, because --files-to is not given.

    names: their names in the archive.
    """

    def __init__(self) -> None:
        self.names: list[str] = []

    def add(self, name: str) -> None:
        """Adds a further file. A domain without volumes has a file `empty`, which says nothing."""
        if not name.endswith("/empty"):
            self.names.append(name)

    def tell(self, warn: Callable[[str], None]) -> None:
        """Names one of them, and tells how many more there are."""
        if self.names:
            warn(f"not restored without --files-to: {self.names[0]}{and_more(self.names)}")
