"""A host that is a thin pool: a volume is called vm-DOMAIN-VOLUME, as in Qubes OS, and the metadata is in a file.

While a machine runs it writes to vm-DOMAIN-VOLUME-snap. The volumes of a domain that is not complete yet, or is being
removed, have the tag qbtools-unfinished:DOMAIN:MARK.

All volumes of the group are listed once. Our own changes are known without listing them again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from qbtools.domains.names import UNFINISHED
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Failed, Refused, UsageError
from qbtools.hosts.local import Found, Places
from qbtools.volumes.kind import naming
from qbtools.volumes.lvm import dm, exchange, facts, lvnames, snapshot, source, tools
from qbtools.volumes.lvm.facts import Volume
from qbtools.volumes.marks import Mark

STATE = "/var/lib/qbtools/hosts"
"""The directory with the metadata of all hosts in GROUP/POOL/qubes.xml; a variable can name another one."""

_PREFIX = "vm-"
_RUNNING = "-snap"
_LOOKS, _PAUSE = 3, 0.1
_TAG = re.compile(f"{UNFINISHED}:([A-Za-z0-9_.-]+):([^:]+)")


class ThinPool(Places):
    """The volumes in a pool."""

    without = lvnames.RESERVED_PARTS

    def __init__(self, word: str, state: str, note: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """word: GROUP/POOL. state: a directory, see STATE. UsageError for another word; Failed without that pool."""
        parts = lvnames.split(word)
        if parts is None or len(parts) != 2:
            raise UsageError(f"{word} is not a pool", "write GROUP/POOL")
        self._group, self._pool = parts
        self._note = note
        self._warn = warn
        self._volumes = facts.group(self._group)
        self._tidy = False
        if self._pool not in self._volumes or not self._volumes[self._pool].layout >= {"thin", "pool"}:
            raise Failed(f"there is no thin pool {self._pool} in {self._group}")
        self.place = os.path.join(state, self._group, self._pool)
        with naming(f"create {self.place}"):
            os.makedirs(self.place, 0o700, exist_ok=True)

    def _name(self, domain: str, volume: str) -> str:
        return f"{_PREFIX}{domain}-{volume}"

    def folder(self, domain: str) -> str:
        return os.path.join(self.place, domain)

    def images(self, volumes: Iterable[str]) -> set[str]:
        return set()

    def unlisted(self, inventory: Metadata, kept: Collection[str]) -> Iterator[tuple[str, str]]:
        owned = {self._name(domain.name, volume.name) for domain in inventory.domains for volume in domain.volumes()}
        for volume in self._in_pool(self._volumes):
            if volume.name.startswith(_PREFIX) and not _unfinished(volume) and not owned & set(_stems(volume.name)):
                yield volume.full, "no domain in qubes.xml has it"

    def source(self, domain: str, volume: str) -> str:
        return f"lvm:{self._group}/{self._name(domain, volume)}"

    def target(self, domain: str, volume: str) -> str:
        return f"lvm:{self._group}/{self._pool}/{self._name(domain, volume)}"

    def found(self, domain: str, volumes: Iterable[str]) -> dict[str, Found]:
        there = {}
        for volume in volumes:
            known = self._volumes.get(self._name(domain, volume))
            if known is not None and known.pool == self._pool:
                there[volume] = Found(known.size, source.used(known), self._runs(known))
        return there

    def _runs(self, volume: Volume) -> bool:
        """Whether a machine writes to the volume, or to the one that will replace it."""
        if self._replaced(volume):
            return True
        for _ in range(_LOOKS):  # udev reads a device for a moment after a writer has closed it
            if not volume.active:
                return False
            with naming(f"check {volume.path}"):
                if not dm.opened(os.stat(volume.path).st_rdev):
                    return False
            time.sleep(_PAUSE)
        return True

    def _replaced(self, volume: Volume) -> bool:
        """Whether the volume exists that a running machine writes to."""
        running = self._volumes.get(f"{volume.name}{_RUNNING}")
        return running is not None and running.origin == volume.name

    def check(self, domain: str, volumes: Iterable[str]) -> None:
        for volume in volumes:
            name = self._name(domain, volume)
            owner = _unfinished(self._volumes[name]) if name in self._volumes else None
            if name in self._volumes and (owner is None or owner[0] != domain):
                raise Refused(f"{self._group}/{name} already exists, but no domain has it")
            if problem := lvnames.volume_problem(self._group, name):
                raise Refused(f"no logical volume can be called {name}: {problem}")

    def make(self, domain: str, volumes: Sequence[tuple[str, int]], mark: Mark) -> None:
        self._tidy_up()
        self.check(domain, [volume for volume, _size in volumes])
        for volume, size in volumes:
            how = ["-kn", "-Wn", "-V", f"{max(-(-size // 512), 1) * 512}b", "--thinpool", self._pool]
            name = self._name(domain, volume)
            tag = f"{UNFINISHED}:{domain}:{mark}"
            # Recorded before it is created, because a signal may arrive in between.
            self._volumes[name] = self._new(name, size, tag)
            tools.lvm("lvcreate", "-qq", "-y", *how, "--addtag", tag, "-n", name, self._group)

    def _new(self, name: str, size: int, tag: str) -> Volume:
        thin, public = frozenset({"thin"}), frozenset({"public"})
        return Volume(self._group, name, "", size, thin, public, self._pool, "", (tag,), False, False, False)

    def mark(self, domain: str, volumes: Iterable[str], mark: Mark) -> None:
        self._tidy_up()
        for name in self._known(domain, volumes):
            self._change_tags(name, f"{UNFINISHED}:{domain}:{mark}")

    def unmark(self, domain: str, volumes: Iterable[str]) -> None:
        for name in self._known(domain, volumes):
            self._change_tags(name)

    def _known(self, domain: str, volumes: Iterable[str]) -> list[str]:
        wanted = [self._name(domain, volume) for volume in volumes]
        return [name for name in wanted if name in self._volumes and self._volumes[name].pool == self._pool]

    def _change_tags(self, name: str, *new: str) -> None:
        """Replaces our tags of a volume in one step."""
        volume = self._volumes[name]
        old = [tag for tag in volume.tags if _TAG.fullmatch(tag)]
        words = [word for tag in old for word in ("--deltag", tag)] + [
            word for tag in new for word in ("--addtag", tag)
        ]
        if words:
            tools.lvm("lvchange", "-qq", *words, volume.full)
            kept = tuple(tag for tag in volume.tags if tag not in old)
            self._volumes[name] = volume._replace(tags=(*kept, *new))

    def refuse_used(self, domain: str, volumes: Iterable[str]) -> None:
        for volume in map(self._volumes.__getitem__, self._known(domain, volumes)):
            if self._replaced(volume):
                raise Refused(f"{volume.full} is in use: its machine writes to {volume.full}{_RUNNING}")
            if self._runs(volume):
                raise Refused(f"{volume.full} is in use")

    def drop(self, domain: str) -> None:
        wanted = [volume for volume in self._volumes.values() if (found := _unfinished(volume)) and found[0] == domain]
        for volume in wanted:
            snapshot.remove(volume.full)
            del self._volumes[volume.name]

    def strays(self) -> list[tuple[str, Mark]]:
        self._tidy_up()
        return list(dict.fromkeys(filter(None, map(_unfinished, self._in_pool(self._volumes)))))

    def _in_pool(self, volumes: Mapping[str, Volume]) -> list[Volume]:
        return [volume for volume in volumes.values() if volume.pool == self._pool]

    def _tidy_up(self) -> None:
        """Called before any change: completes the changes of ended runs to volumes here."""
        if self._tidy:
            return
        self._tidy = True
        snapshot.remove_dead(self._volumes.values(), self._note, self._warn)
        if exchange.repair(self._volumes.values(), self._note, self._warn):
            self._volumes = facts.group(self._group)


def _stems(name: str) -> Iterator[str]:
    """The name, and the name without its last parts: a volume and its snapshots have the same beginning."""
    while name:
        yield name
        name = name.rpartition("-")[0]


def _unfinished(volume: Volume) -> tuple[str, Mark] | None:
    """Domain and mark from a tag of a volume."""
    for tag in volume.tags:
        match = _TAG.fullmatch(tag)
        mark = Mark.parse(match[2]) if match else None
        if match and mark:
            return match[1], mark
    return None
