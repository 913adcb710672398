"""Restores volumes to files and pools: finds their targets, and checks that no wanted volume is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence

from qbtools.domains import inventory, names
from qbtools.domains.arrivals import Arrivals
from qbtools.domains.inventory import Entry
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Refused, UsageError
from qbtools.formats.chunks import METADATA
from qbtools.lean import NamedTuple
from qbtools.runs import targets
from qbtools.runs.opening import Routes, size_of
from qbtools.runs.places import archived
from qbtools.runs.targets import Wanted
from qbtools.volumes import locate, spots
from qbtools.volumes.kind import TargetOptions
from qbtools.volumes.spots import Apart


class Where(NamedTuple):
    """The targets that the user gives.

    to: a directory, with a / in front or `./`. pool: the text in front of DOMAIN-VOLUME. mapped: TARGET by
    `DOMAIN:VOLUME`. only: DOMAIN or DOMAIN:VOLUME, none: all. overwrite, shrink: as the options of qb-volwrite.
    skip: a volume that exists and is complete is left alone. kept: path by what it is, of files that must stay.
    archive: path of the archive, None if it is no regular file.
    """

    to: str | None
    pool: str | None
    mapped: Mapping[str, str]
    only: Sequence[str]
    kept: Mapping[str, str] = {}
    archive: str | None = None
    overwrite: bool = False
    shrink: bool = False
    skip: bool = False

    def target(self, domain: str, volume: str) -> str | None:
        """The target of a volume; None if there is none."""
        found = self.mapped.get(f"{domain}:{volume}")
        if found is None and self.pool is not None:
            found = f"{self.pool}/{domain}-{volume}"
        if found is None and self.to is not None:
            found = f"file:{self.to}/{domain}/{volume}.img"
        return found

    def wants(self, domain: str, volume: str) -> bool:
        """Whether a volume is restored."""
        return not self.only or domain in self.only or f"{domain}:{volume}" in self.only

    def words(self, files: bool) -> list[str]:
        """The options for the stages that fill. files: all targets are files."""
        given = [
            ("--overwrite", self.overwrite),
            ("--shrink", self.shrink),
            ("--parents", self.to is not None and files),
        ]
        return ["--create", *(option for option, is_given in given if is_given)]


def read_map(words: Sequence[str]) -> dict[str, str]:
    """TARGET by `DOMAIN:VOLUME`, from the values of --map. UsageError if one is malformed or a volume occurs twice."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, target = word.partition("=")
        domain, colon, volume = key.partition(":")
        problem = names.domain_problem(domain) or names.volume_problem(volume)
        if not (equals and colon and target) or "\n" in target or "\t" in target or problem:
            raise UsageError(f"--map: not DOMAIN:VOLUME=TARGET: {word}")
        if key in found:
            raise UsageError(f"--map: {key} is given twice")
        found[key] = target
    return found


def read_only(words: Sequence[str]) -> Sequence[str]:
    """The values of --only. UsageError for one that is neither DOMAIN nor DOMAIN:VOLUME."""
    for word in words:
        domain, colon, volume = word.partition(":")
        if problem := names.domain_problem(domain) or (names.volume_problem(volume) if colon else None):
            raise UsageError(f"--only: {word}: {problem}")
    return words


class Filling:
    """Gives each volume its target."""

    def __init__(self, where: Where, note: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._where = where
        self._note = note
        self._warn = warn
        self._arrivals = Arrivals((), warn)
        self._arrivals.anything = True
        self._owners: dict[str, str] = {}
        self._volumes: set[str] = set()  # archive names of volumes that are not wanted or already complete
        self._restored = self._skipped = 0

    def metadata(self, metadata: Metadata) -> Routes:
        entries = inventory.entries(metadata)
        check_names(entries, self._where.only, self._where.mapped)
        self._arrivals = Arrivals(entries, self._warn)
        self._arrivals.add(METADATA, None)
        self._owners = {entry.path: entry.domain for entry in entries}
        self._volumes = {entry.archive_name for entry in entries if entry.volume is not None}
        wanted = [
            self._wanted(entry, entry.volume) for entry in entries if entry.volume is not None and self._wants(entry)
        ]
        if not wanted:
            home = any(names.is_home(entry.archive_name) for entry in entries)
            hint = "--host and --files-to restore the home of dom0" if home else "qb-backup list shows what it has"
            raise Refused("no volume to restore", hint)
        left = self._checked(metadata, wanted)
        self._skipped = len(wanted) - len(left)
        places: dict[str, list[tuple[str, str]]] = {}
        for one in left:
            places.setdefault(one.entry.archive_name, []).append((one.entry.volume or "", one.target))
        return list(routes(places, self._words))

    def _wants(self, entry: Entry) -> bool:
        return entry.volume is not None and self._where.wants(entry.domain, entry.volume)

    def _wanted(self, entry: Entry, volume: str) -> Wanted:
        target = self._where.target(entry.domain, volume)
        if target is None:
            raise UsageError(f"no target given for {entry.domain}:{volume}", "use --to, --pool or --map")
        return Wanted(entry, target)

    def _checked(self, metadata: Metadata, wanted: Sequence[Wanted]) -> list[Wanted]:
        """The volumes that must still be filled."""
        where = self._where
        options = TargetOptions(create=True, overwrite=where.overwrite, shrink=where.shrink)
        how = targets.How(options, where.to is not None, where.skip, where.kept)
        left, rooms = targets.check(wanted, how, self._warn)
        size = None if where.archive is None else os.path.getsize(where.archive)
        targets.check_room(metadata, left, rooms, size, self._warn)
        remaining = {one.key for one in left}
        for one in wanted:
            if one.key not in remaining:
                self._note(f"{one.target} already exists: skipped")
        return left

    def _words(self, words: Sequence[str]) -> list[str]:
        return self._where.words(len(words) > 1 or locate.file_path(words[0]) is not None)

    def no_metadata(self, first: str) -> Routes:
        where = self._where
        if where.to is None or where.mapped or where.only or where.skip:
            raise UsageError("the archive has no metadata", "only --to can be used: the files keep their names")
        apart = Apart()
        for name in dict.fromkeys((first, *archived(where.archive))):
            target = f"file:{where.to}/{name}"
            if (other := apart.add(locate.spot(target), name)) is not None:
                raise Refused(f"{other} and {name} have the same target: {target}")
            locate.look(target, None, TargetOptions(overwrite=where.overwrite), True)
        if where.archive is None and where.overwrite and spots.folds_case(spots.of_file(f"{where.to}/x").above):
            raise Refused(
                f"{where.to} ignores letter case: files of the archive could replace each other",
                "restore from a file instead of a pipe, or without --overwrite",
            )
        return [("*", f"below:{' '.join(where.words(True))}:file:{where.to}")]

    def begun(self, name: str) -> None:
        """Nothing to do yet: the file counts when it is done."""

    def done(self, name: str, printed: str) -> None:
        self._restored += 1
        self._arrivals.add(name, None if name.endswith("/.") else size_of(name, f"{printed.strip()}\t{name}"))

    def passed(self, name: str) -> None:
        self._arrivals.add(name, None)
        domain = self._owners.get(names.directory_of(name), "")
        wanted = not self._where.only or domain in self._where.only
        if wanted and name not in self._volumes and not name.endswith("/empty"):
            self._warn(f"{name} is not a volume: it is not restored")

    def lost(self, name: str) -> None:
        if not self._arrivals.has(name):
            self._arrivals.add(name, None)  # no message: qb-unseal fails if it is wanted

    def finish(self) -> None:
        """Called at the end. Damaged if something is missing."""
        self._arrivals.finish()
        if not self._restored and not self._skipped:
            raise Refused("nothing was restored")


def check_names(entries: Sequence[Entry], only: Sequence[str], mapped: Collection[str] = ()) -> None:
    """UsageError if the archive does not have a domain of only, or a volume of only or mapped."""
    domains = {entry.domain for entry in entries}
    volumes = {f"{entry.domain}:{entry.volume}" for entry in entries if entry.volume is not None}
    hint = "qb-backup list shows what it has"
    for key in [*only, *mapped]:
        if ":" in key and key not in volumes:
            raise UsageError(f"the archive has no volume {key}", hint)
        if ":" not in key and key not in domains:
            raise UsageError(f"the archive has no domain {key}", hint)


def routes(
    places: Mapping[str, Sequence[tuple[str, str]]], options: Callable[[Sequence[str]], Sequence[str]]
) -> Routes:
    """A route for each file. places: the volumes and their targets, by archive name.

    options: returns the options for the stage that fills these targets.
    """
    for name, pairs in places.items():
        words = " ".join(options([target for _volume, target in pairs]))
        if name.endswith("/."):
            yield name, f"many:{words}:" + "\t".join(f"{volume}={target}" for volume, target in pairs)
        else:
            yield name, f"volume:{words}:{pairs[0][1]}"
