"""The common part of runs that open an archive: first the metadata arrives, then routes are sent, then files arrive."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Container, Iterable

from qbtools.domains import inventory, safexml
from qbtools.domains.inventory import Entry
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged, Refused
from qbtools.formats.chunks import METADATA
from qbtools.formats.deltastream import Base
from qbtools.lean import Protocol
from qbtools.runs import verdict
from qbtools.runs.hearing import Happened
from qbtools.runs.wiring import Wiring
from qbtools.streams import Reader

Routes = Iterable[tuple[str, str]]
"""NAME for `qb-unseal --routes`, and the target for bin/qb-backup: `KIND:REST`."""


class Enough(Exception):
    """The run has everything that it needs, so the stages can stop."""


class Opening(Protocol):
    """Handles the files of an archive. Its errors end the run."""

    def metadata(self, metadata: Metadata) -> Routes:
        """Called with the metadata. Returns the routes of the files. A file without a route is not opened."""

    def no_metadata(self, first: str) -> Routes:
        """Called if the archive begins with another file."""

    def begun(self, name: str) -> None:
        """Called when a file with a route begins."""

    def done(self, name: str, printed: str) -> None:
        """Called when a file was handled without an error. printed: the output of its CMD."""

    def passed(self, name: str) -> None:
        """Called for a file without a route."""

    def lost(self, name: str) -> None:
        """Called at the end of the archive for a file that failed when it was saved, with a route or without."""


def open_all(
    wiring: Wiring,
    opening: Opening,
    warn: Callable[[str], None] = lambda _: None,
    opened: Callable[[Happened], None] = lambda _: None,
    routed: Callable[[Routes], Routes] = lambda routes: routes,
    heard: Callable[[Happened], None] = lambda _: None,
) -> None:
    """Runs the stages to the end of the archive. Errors as verdict.judge(), and those of opening. warn: as Metadata().

    opened: called when the header of the archive is authenticated, before anything else. routed: returns the routes
    that are sent instead of those of opening. heard: called with each event, before opening gets it. Damaged if there
    was neither the metadata nor another file although all stages succeeded.
    """
    talk = _Talk(wiring, opening, warn, opened, routed)

    def happened(event: Happened) -> None:
        heard(event)
        talk.happened(event)

    try:
        with wiring:
            statuses, failures = wiring.run(happened)
    except Enough:
        return
    verdict.judge(statuses, failures)
    if not talk.answered:
        raise Damaged("the archive has no files")


class _Talk:
    """Handles the reports of the stages."""

    def __init__(
        self,
        wiring: Wiring,
        opening: Opening,
        warn: Callable[[str], None],
        opened: Callable[[Happened], None],
        routed: Callable[[Routes], Routes],
    ) -> None:
        self._wiring = wiring
        self._opening = opening
        self._warn = warn
        self._opened = opened
        self._routed = routed
        self.answered = False
        """Whether the routes were sent."""

    def happened(self, event: Happened) -> None:
        """Handles one event."""
        if event.event == "opened":
            self._opened(event)
        elif not self.answered:
            self._begins(event)
        elif event.event == "begin":
            self._opening.begun(event.name)
        elif event.event == "done":
            self._opening.done(event.name, event.data.decode("utf-8", "surrogateescape"))
        elif event.event == "passed":
            self._opening.passed(event.name)
        elif event.event == "lost":
            self._opening.lost(event.name)

    def _begins(self, event: Happened) -> None:
        if event.event == "done" and event.name == METADATA:
            root = safexml.load(Reader(io.BytesIO(event.data), METADATA))
            metadata = Metadata(root, self._warn)
            routes = labelled(self._routed(self._opening.metadata(metadata)), inventory.entries(metadata))
        elif event.event == "first":
            routes = self._routed(self._opening.no_metadata(event.name))
        else:
            return
        self.answered = True
        lines = "".join(f"{name}\t{target}\n" for name, target in routes)
        self._wiring.tell_all(os.fsencode(f"{lines}end\n"))


def labelled(routes: Routes, entries: Iterable[Entry]) -> Routes:
    """The same routes, with the label for progress for each file of entries: `as:LABEL=KIND:REST`.

    A file whose route is only a pattern gets its own route, and may still be missing.
    """
    found = dict(routes)
    for name, entry in {entry.archive_name: entry for entry in entries}.items():  # a directory has several volumes
        word = route_of(found, name)
        if word is not None:
            found[word if word in (name, f"?{name}") else f"?{name}"] = f"as:{entry.label}={found[word]}"
    return found.items()


def route_of(routes: Container[str], name: str) -> str | None:
    """The NAME of the route that a file has, which may be a pattern; None if it has none."""
    return next((word for word in (name, f"?{name}", f"{name.rpartition('/')[0]}/*", "*") if word in routes), None)


def size_of(name: str, printed: str) -> int | None:
    """The size of the volume in the file name, from the output of `qb-tarextract --list NAME`; None for a directory.

    Damaged for any other output.
    """
    lines = printed.splitlines()
    if len(lines) != 1:
        return None
    size, tab, found = lines[0].partition("\t")
    if not tab or not size.isdecimal():
        raise Damaged(f"{name}: its size was not reported")
    return int(size) if found.partition("\t")[0] == name else None


def increment_of(name: str, printed: str) -> Base | None:
    """The base of the increment in the file name, from the same output; None if the volume is whole."""
    words = printed.removesuffix("\n").partition(f"\t{name}\tincrement ")[2].split(" ")
    return Base(words[0], words[1]) if len(words) == 2 else None


def refuse_increments(archive: Happened) -> None:
    """Refused if the archive that was opened holds increments, and their base is missing."""
    if archive.base:
        raise Refused(
            f"the archive holds increments of the backup {archive.base}: restore it together with that one",
            "qb-backup restore takes several archives",
        )
