"""What all runs that open an archive share: the metadata comes first, then routes go back, then the files come."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from typing import Protocol

from qbtools.domains import inventory, safexml
from qbtools.domains.inventory import Entry
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged
from qbtools.formats.chunks import METADATA
from qbtools.runs import verdict
from qbtools.runs.hearing import Happened
from qbtools.runs.wiring import Wiring
from qbtools.streams import Reader

Routes = Iterable[tuple[str, str]]
"""NAME, as `qb-unseal --routes` takes it, and the target as bin/qb-backup takes it: `KIND:REST`."""


class Enough(Exception):
    """The run has all that it wants: the stages need not go on."""


class Opening(Protocol):
    """What is done with the files of an archive. Whatever it raises ends the run."""

    def metadata(self, metadata: Metadata) -> Routes:
        """The metadata has come. Returns where the files go: what has no route is not opened."""

    def no_metadata(self, first: str) -> Routes:
        """The archive begins with another file."""

    def begun(self, name: str) -> None:
        """A file that has a route begins."""

    def done(self, name: str, printed: str) -> None:
        """All is well with one. printed: what its CMD had to say."""

    def passed(self, name: str) -> None:
        """A file came that has no route."""

    def lost(self, name: str) -> None:
        """At the end of the archive: a file that failed when it was saved. It is not complete, with a route or not."""


def open_all(
    wiring: Wiring,
    opening: Opening,
    warn: Callable[[str], None] = lambda _: None,
    opened: Callable[[Happened], None] = lambda _: None,
) -> None:
    """Runs the stages to the archive's end; raises as verdict.judge, and what opening raises. warn: as Metadata().

    opened: told of the archive once its header is authenticated, before anything else. Damaged if neither the
    metadata nor another file came, though all stages ended well.
    """
    talk = _Talk(wiring, opening, warn, opened)
    try:
        with wiring:
            statuses, failures = wiring.run(talk.happened)
    except Enough:
        return
    verdict.judge(statuses, failures)
    if not talk.answered:
        raise Damaged("the archive holds no file")


class _Talk:
    """Answers what the stages say."""

    def __init__(
        self,
        wiring: Wiring,
        opening: Opening,
        warn: Callable[[str], None],
        opened: Callable[[Happened], None],
    ) -> None:
        self._wiring = wiring
        self._opening = opening
        self._warn = warn
        self._opened = opened
        self.answered = False
        """Whether the routes were told."""

    def happened(self, event: Happened) -> None:
        """One event."""
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
            routes = labelled(self._opening.metadata(metadata), inventory.entries(metadata))
        elif event.event == "first":
            routes = self._opening.no_metadata(event.name)
        else:
            return
        self.answered = True
        lines = "".join(f"{name}\t{target}\n" for name, target in routes)
        self._wiring.tell_all(os.fsencode(f"{lines}end\n"))


def labelled(routes: Routes, entries: Iterable[Entry]) -> Routes:
    """The same routes, each file of entries with what progress calls it: `as:LABEL=KIND:REST`.

    A file that only a pattern has a route for gets one of its own, and may be missing as before.
    """
    found = dict(routes)
    for name, entry in {entry.archive_name: entry for entry in entries}.items():  # a directory has several volumes
        own = next((word for word in (name, f"?{name}") if word in found), None)
        patterns = (f"{name.rpartition('/')[0]}/*", "*")
        target = next((found[word] for word in (own, *patterns) if word in found and word is not None), None)
        if target is not None:
            found[own or f"?{name}"] = f"as:{entry.label}={target}"
    return found.items()


def size_of(name: str, printed: str) -> int | None:
    """The bytes of the volume in the file name, out of what `qb-tarextract --list NAME` printed; None for a directory.

    Damaged for what it does not print.
    """
    lines = printed.splitlines()
    if len(lines) != 1:
        return None
    size, tab, found = lines[0].partition("\t")
    if not tab or not size.isdecimal():
        raise Damaged(f"{name}: its size was not reported")
    return int(size) if found == name else None
