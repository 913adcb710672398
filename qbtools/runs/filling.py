"""Restoring volumes to files and pools: where each goes, and whether all that was wanted came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from qbtools.domains import inventory, names
from qbtools.domains.arrivals import Arrivals
from qbtools.domains.inventory import Entry
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Refused, UsageError
from qbtools.formats.chunks import METADATA
from qbtools.runs.opening import Routes, size_of


class Where(NamedTuple):
    """Where volumes go, as the user says it.

    to: a directory, with a / in front or `./`. pool: the text in front of DOMAIN-VOLUME. mapped: TARGET by
    `DOMAIN:VOLUME`. only: domains, none: all. options: for qb-volwrite, such as --overwrite.
    """

    to: str | None
    pool: str | None
    mapped: Mapping[str, str]
    only: Sequence[str]
    options: Sequence[str]

    def target(self, domain: str, volume: str) -> str | None:
        """Where a volume goes; None where nothing says it."""
        found = self.mapped.get(f"{domain}:{volume}")
        if found is None and self.pool is not None:
            found = f"{self.pool}/{domain}-{volume}"
        if found is None and self.to is not None:
            found = f"file:{self.to}/{domain}/{volume}.img"
        return found

    def wants(self, domain: str) -> bool:
        """Whether the volumes of a domain are restored."""
        return not self.only or domain in self.only


def read_map(words: Sequence[str]) -> dict[str, str]:
    """TARGET by `DOMAIN:VOLUME`, out of the values of --map. UsageError for a malformed one, and one that is twice."""
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


class Filling:
    """Gives each volume its target."""

    def __init__(self, where: Where, warn: Callable[[str], None]) -> None:
        self._where = where
        self._warn = warn
        self._arrivals = Arrivals((), warn)
        self._arrivals.anything = True
        self._owners: dict[str, str] = {}
        self._restored = 0

    def metadata(self, metadata: Metadata) -> Routes:
        entries = inventory.entries(metadata)
        self._check_names(entries)
        self._arrivals = Arrivals(entries, self._warn)
        self._arrivals.add(METADATA, None)
        self._owners = {entry.path: entry.domain for entry in entries}
        places: dict[str, list[tuple[str, str]]] = {}
        for entry in entries:
            if entry.volume is None or not self._where.wants(entry.domain):
                continue
            target = self._where.target(entry.domain, entry.volume)
            if target is None:
                raise UsageError(
                    f"nothing says where {entry.domain}:{entry.volume} goes", "give --to, --pool or --map for it"
                )
            places.setdefault(entry.archive_name, []).append((entry.volume, target))
        if not places:
            raise Refused("no volume to restore", "qb-backup list shows what the archive holds")
        return list(routes(places, self._options()))

    def _options(self) -> list[str]:
        parents = ["--parents"] if self._where.to is not None else []
        return ["--create", *self._where.options, *parents]

    def _check_names(self, entries: Sequence[Entry]) -> None:
        """UsageError for a domain or a volume that the archive has not."""
        domains = {entry.domain for entry in entries}
        volumes = {f"{entry.domain}:{entry.volume}" for entry in entries}
        hint = "qb-backup list shows what it has"
        for domain in self._where.only:
            if domain not in domains:
                raise UsageError(f"the archive has no domain {domain}", hint)
        for key in self._where.mapped:
            if key not in volumes:
                raise UsageError(f"the archive has no volume {key}", hint)

    def no_metadata(self, first: str) -> Routes:
        if self._where.to is None or self._where.mapped or self._where.only:
            raise UsageError("the archive has no metadata", "only --to can be used: the files keep their names")
        return [("*", f"below:{' '.join(self._options())}:file:{self._where.to}")]

    def begun(self, name: str) -> None:
        """It counts when it is done."""

    def done(self, name: str, printed: str) -> None:
        self._restored += 1
        self._arrivals.add(name, None if name.endswith("/.") else size_of(name, f"{printed.strip()}\t{name}"))

    def passed(self, name: str) -> None:
        self._arrivals.add(name, None)
        domain = self._owners.get(names.directory_of(name), "")
        if self._where.wants(domain) and not name.endswith("/empty"):
            self._warn(f"{name} is no volume: not restored")

    def finish(self) -> None:
        """All has come. Damaged where something is missing."""
        self._arrivals.finish()
        if not self._restored:
            raise Refused("nothing was restored")


def routes(places: Mapping[str, Sequence[tuple[str, str]]], options: Sequence[str]) -> Routes:
    """A route for each file. places: by archive name the volumes in it, and the target of each."""
    words = " ".join(options)
    for name, pairs in places.items():
        if name.endswith("/."):
            yield name, f"many:{words}:" + "\t".join(f"{volume}={target}" for volume, target in pairs)
        else:
            yield name, f"volume:{words}:{pairs[0][1]}"
