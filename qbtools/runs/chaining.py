"""Runs that read a chain: each archive is opened once, and all of them are read side by side.

What an archive has of a volume goes through a FIFO to the stage that merges the volume. All archives have their files
in the same order (formats/chain.py checks it), so no archive waits for one that waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from qbtools.errors import Refused, naming
from qbtools.formats import chain
from qbtools.formats.chain import Link
from qbtools.formats.chunks import METADATA
from qbtools.lean import NamedTuple
from qbtools.runs.listpipe import ListPipe
from qbtools.runs.opening import Routes, route_of

ENVIRONMENT = "QB_STREAMS"
"""The variable with the directory of the FIFOs, for the stages."""

_MODE = 0o600


TURNS = 4
"""The most key derivations at the same time: more need more memory, and few machines do them faster."""


class Need(NamedTuple):
    """Bytes of memory that it takes to open an archive: for a key derivation, and for its largest chunk."""

    derivation: int
    chunk: int


class Share(NamedTuple):
    """What an archive may use while others are open: its limit of memory, and how many archives may derive a key at the
    same time. turns: 0 if all of them may.
    """

    limit: int
    turns: int = 0


def shares(total: int, needs: Sequence[Need]) -> list[Share]:
    """The shares of archives that are open at the same time. Refused if total is not enough for all chunks and one
    derivation."""
    largest = max(need.derivation for need in needs)
    rest = total - sum(need.chunk for need in needs)
    if largest > rest:
        needed = total - rest + largest
        raise Refused(
            f"{len(needs)} archives need {(needed >> 20) + 1} MiB of memory together, the limit is {total >> 20} MiB",
            "raise --max-memory if this machine has more",
        )
    turns = min(TURNS, len(needs), rest // largest)
    spare = (rest - turns * largest) // len(needs)
    turns = turns if turns < len(needs) else 0
    return [Share(need.derivation + need.chunk + spare, turns) for need in needs]


class Fifos:
    """The FIFOs of a run, and the routes of the archives that write to them."""

    def __init__(self, folder: str, pipes: Sequence[ListPipe]) -> None:
        """folder: for the FIFOs. pipes: on which the first archives of the chain get their routes."""
        self._folder = folder
        self._pipes = pipes
        self._lines: list[list[str]] = [[] for _ in pipes]

    @property
    def archives(self) -> int:
        """The number of archives that have a pipe."""
        return len(self._pipes)

    def make(self, name: str) -> str:
        """The path of a new FIFO."""
        path = os.path.join(self._folder, name)
        with naming(f"create {path}"):
            os.mkfifo(path, _MODE)
        return path

    def add(self, place: int, name: str, target: str) -> str:
        """Makes a FIFO for a file of the archive at a place in the chain. Returns its name.

        target: of the route, with {} for the name of the FIFO.
        """
        fifo = f"{place}.{len(self._lines[place])}"
        self.make(fifo)
        self._lines[place].append(f"{name}\t{target.format(fifo)}\n")
        return fifo

    def send(self) -> None:
        """Sends the routes. Nothing can be added after it."""
        for lines, pipe in zip(self._lines, self._pipes, strict=True):
            pipe.tell_all("".join([*lines, "end\n"]))


class Streams:
    """What archives send of each volume, where the manifests of all of them are known."""

    def __init__(self, links: Sequence[Link], fifos: Fifos) -> None:
        self._links = links
        self._fifos = fifos

    def add(self, name: str) -> str:
        """Makes the FIFOs for the parts of a volume from the archives that have a pipe.

        Returns `FIFOS:BASES`: the names of the FIFOs, the oldest first, and what the increment in each archive must
        name as its base, with `=` for `:`.
        """
        found = chain.parts(self._links, name)
        sent = [part.place for part in found if part.place < self._fifos.archives]
        fifos = [self._fifos.add(place, name, "part:{}") for place in sent]
        return f"{' '.join(fifos)}:{','.join(part.base.replace(':', '=') for part in found)}"

    def add_whole(self, name: str) -> str:
        """The same for a file that only the last archive gives, as it is."""
        return self._fifos.add(len(self._links) - 1, name, "whole:{}")

    def send(self) -> None:
        """Sends the routes. Nothing can be added after it."""
        self._fifos.send()

    def merged(self, routes: Routes, note: Callable[[str], None]) -> Routes:
        """The routes of the last archive, each changed so that the volume is merged on its way to its target.

        A volume that must be there and is only checked is merged too. An archive of a directory has no increments, so
        its route stays. The routes of the archives before are sent.
        """
        found = dict(routes)
        for name in self._links[-1].records:
            word = route_of(found, name)
            kind, _, rest = ("" if word is None else found[word]).partition(":")
            checked = kind == "check" and word == name
            if name == METADATA or not (checked or kind in ("volume", "below")):
                continue
            parts = self.add(name)
            note(f"{name}: from {parts.count(',') + 1} archives")
            options, _, target = rest.partition(":")
            target = target if kind == "volume" else f"{target}/{name}"
            found.pop(f"?{name}", None)
            found[name] = f"recheck:{parts}" if checked else f"merge:{parts}:{options}:{target}"
        self.send()
        return found.items()
