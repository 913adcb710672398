"""A chain of archives that are read once, in its order: of a pipe nothing is known before it comes.

While the archives are read side by side, each reports which files it has, and their lines in its manifest. The stages
that merge a volume of the last archive learn from us, through a FIFO, first which archives have the volume, and when
all of these were read to its end, what each increment must name as its base. So a target gets its name when all that it
is made of has been proven.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from qbtools.descriptors import widen_pipe
from qbtools.errors import Damaged, Failed, Refused, naming
from qbtools.formats import chain, deltamerge, manifest
from qbtools.formats.chain import Link
from qbtools.formats.chunks import METADATA
from qbtools.runs.chaining import Fifos
from qbtools.runs.hearing import Happened
from qbtools.runs.opening import Routes

_MERGED = ("volume", "check")


class Reading:
    """An archive while it is read. link: what is known of it so far."""

    def __init__(self, link: Link) -> None:
        """link: what its header says, without a manifest and records."""
        self.link = link._replace(manifest="", records={})
        self.begun: set[str] = set()
        """The files with a route that have come."""
        self.current = ""
        """The last one of them."""
        self._records: dict[str, manifest.FileRecord] = {}

    @property
    def ended(self) -> bool:
        """Whether it was read to its end, and is complete."""
        return bool(self.link.manifest)

    def heard(self, event: Happened) -> None:
        """For each event of its qb-unseal."""
        if event.event == "begin":
            self.begun.add(event.name)
            self.current = event.name
        elif event.event == "record":
            record = manifest.from_file_line(event.line)
            if record is None or record.failed or record.name != event.name:
                raise Failed("a stage sent a malformed report")
            self._records[record.name] = record
            self.link = self.link._replace(records=self._records)
        elif event.event == "ended":
            self.link = self.link._replace(manifest=event.digest)

    def whole(self) -> Link:
        """The link, at the end of the run. Failed if the archive was not read to its end."""
        if not self.ended:
            raise Failed(f"{self.link.label} was not read to its end, although all stages succeeded")
        return self.link


class _Volume:
    """A volume of the last archive that is merged. fifos: of the archives before it."""

    def __init__(self, path: str, fifos: Sequence[str]) -> None:
        """path: of the FIFO on which the stages that merge it are told what follows."""
        self._path = path
        self.fifos = fifos
        self._fd = -1
        self.places: list[int] | None = None
        """The archives before the last one that have it; None if this is not known yet."""
        self.proven = False
        """Whether the bases were told."""

    def tell(self, text: str) -> None:
        """Writes to the FIFO. It stays open for both ends, so we wait for no reader, and what we write is not lost."""
        with naming(f"write to {self._path}"):
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                widen_pipe(self._fd)
            if os.write(self._fd, text.encode("ascii")) < len(text):
                raise Failed(f"cannot write to {self._path}: there are too many archives")

    def close(self) -> None:
        """Called when the volume is complete, or the run ends."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class InOrder:
    """Decides which archives have a volume, and which bases their increments must name."""

    def __init__(self, links: Sequence[Link], fifos: Fifos) -> None:
        """links: from their headers, in their order. fifos: with a pipe for each archive but the last."""
        self._readings = [Reading(link) for link in links]
        self._before, self._last = self._readings[:-1], self._readings[-1]
        self._fifos = fifos
        self._volumes: dict[str, _Volume] = {}
        self._sent = False

    def merged(self, routes: Routes, note: Callable[[str], None]) -> Routes:
        """The routes of the last archive, changed so that each volume is merged, as chaining.Streams.merged().

        Refused if the archive has no metadata: then nothing tells which files it has.
        """
        found = dict(routes)
        for name, word in list(found.items()):
            kind, _, rest = word.partition(":")
            if kind == "below":
                raise Refused(f"{self._last.link.label} has no metadata", "restore all archives from regular files")
            if name == METADATA or name.startswith(("?", "*")) or name.endswith(("/*", "/.")) or kind not in _MERGED:
                continue
            # Whether an archive has the volume is only known when it comes, so these routes are optional.
            fifos = [self._fifos.add(place, f"?{name}", "part:{}") for place in range(len(self._before))]
            told = f"told.{len(self._volumes)}"
            self._volumes[name] = _Volume(self._fifos.make(told), fifos)
            found[name] = f"rejoin:{told}" if kind == "check" else f"join:{told}:{rest}"
        note(f"{len(self._volumes)} volumes are merged while {len(self._readings)} archives are read")
        self._fifos.send()
        self._sent = True
        return found.items()

    def heard(self, place: int, event: Happened) -> None:
        """For each event of the archive at a place in the chain. Damaged if it does not fit the others."""
        reading = self._readings[place]
        reading.heard(event)
        if event.event == "failed" and event.reason:
            raise Damaged(
                f"{reading.link.label}: {event.name}: {event.reason}",
                "if it failed when it was saved, restore from regular files, or leave it out with --only",
            )
        if event.event == "begin" and reading is not self._last:
            self._check_place(place, event.name)
        if event.event == "ended" and reading is not self._last:
            chain.check_follows(self._readings[place + 1].link, reading.link)
        if event.event == "done" and reading is self._last and event.name in self._volumes:
            self._volumes[event.name].close()
        self._answer()

    def _check_place(self, place: int, name: str) -> None:
        """Damaged if a volume comes after it was already taken for missing."""
        volume = self._volumes.get(name)
        if volume is not None and volume.places is not None and place not in volume.places:
            here, last = self._readings[place].link.label, self._last.link.label
            raise Damaged(f"{here} has {name} in another place than {last}: their order differs")

    def _answer(self) -> None:
        """Tells the stages that merge the current volume what is known by now."""
        name = self._last.current
        volume = self._volumes.get(name)
        if volume is None or volume.proven:
            return
        if volume.places is None:
            have = [self._has(reading, name) for reading in self._before]
            if None in have:
                return
            volume.places = [place for place, has in enumerate(have) if has]
            volume.tell(" ".join(volume.fifos[place] for place in volume.places) + "\n")
        if all(name in self._before[place].link.records for place in volume.places):
            volume.tell("".join(f"{base}\n" for base in [*self._bases(name, volume.places), "end"]))
            volume.proven = True

    def _has(self, reading: Reading, name: str) -> bool | None:
        """Whether an archive has a volume; None if this is not known yet.

        What all have is in the same order. So it lacks the volume if it already has one that the last archive has
        later.
        """
        if name in reading.begun:
            return True
        later = bool(reading.current) and reading.current not in self._last.begun
        return False if reading.ended or later else None

    def _bases(self, name: str, places: Sequence[int]) -> list[str]:
        """What each archive that has a volume must name as its base: the one before, or nothing if that lacks it."""
        found = []
        for place in [*places, len(self._before)]:
            if place - 1 in places:
                link = self._before[place - 1].link
                found.append(f"{link.backup_id} {manifest.line_digest(link.records[name])}")
            else:
                found.append(deltamerge.WHOLE)
        return found

    def finish(self) -> None:
        """Called at the end of a run whose stages succeeded: compares all archives with each other, as chain.order().

        Nothing is compared if the run had enough before.
        """
        if self._sent:
            chain.order([reading.whole() for reading in self._readings])

    def close(self) -> None:
        """Closes what is open."""
        for volume in self._volumes.values():
            volume.close()
