"""Decides which files of an archive are wanted, and which target the CMD of each gets.

They are given as names, or with `qb-unseal --routes FILE`: lines `NAME<TAB>TARGET`, and `end`. A NAME may be
`DIRECTORY/*`, for all files directly in a directory, or `*`, for all others. `?NAME` is a file that may be missing.
With `--first CMD` the metadata goes to its own CMD, and the routes are only read after that, so that their writer can
use the metadata. Unwanted files need no key derivation, so the archive waits for the routes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from qbtools.errors import Damaged, Refused, Truncated
from qbtools.formats import chunks
from qbtools.streams import Reader

MAX_ROUTES = 1 << 26
"""Maximum bytes of a list of routes."""

_END = b"end\n"
_ALL = "*"
_ALL_BELOW = "/*"
_OPTIONAL = "?"
_MAX_LINE = 1 << 16


def read_routes(reader: Reader) -> dict[str, str]:
    """The TARGET of each NAME, up to the line `end`. Nothing after that is read.

    Truncated if the end is missing. Damaged for a malformed line, and for a NAME that occurs twice. Refused for more
    than MAX_ROUTES bytes.
    """
    found: dict[str, str] = {}
    number = 0
    while (line := reader.read_line(_MAX_LINE)) != _END:
        number += 1
        if not line.endswith(b"\n"):
            raise Truncated("the list of routes ends without its line end", "its last line must be: end")
        if reader.position > MAX_ROUTES:
            raise Refused(f"the list of routes has more than {MAX_ROUTES >> 20} MiB")
        word, tab, target = os.fsdecode(line[:-1]).partition("\t")
        name = word.removeprefix(_OPTIONAL)
        problem = None if tab and target and "\0" not in target else "not a name, a tab, a target"
        if problem is None and name != _ALL:
            problem = chunks.name_problem(name.removesuffix(_ALL_BELOW), final_dot=True)
        if problem is None and (name in found or _OPTIONAL + name in found):
            problem = f"{name} occurs twice"
        if problem:
            raise Damaged(f"line {number} of the routes: {problem}")
        found[word] = target
    return found


class Wanted(Protocol):
    """Decides which files are wanted. wanted() is called in the thread that reads the archive, all others in the main
    thread."""

    def wanted(self, name: str) -> bool:
        """Whether a file is wanted. May wait until this is known."""

    def named(self, name: str) -> bool:
        """Whether the user has given exactly this name of a file, and not a pattern."""

    def target(self, name: str) -> str | None:
        """The target of a wanted file for its CMD, None if there is none."""

    def ended(self, name: str) -> None:
        """Called when the CMD of a file has succeeded."""

    def give_up(self) -> None:
        """Nothing more is wanted. A waiting call of wanted() returns."""

    def names(self) -> Collection[str]:
        """The files that must be in the archive."""


class Named:
    """Wants the files with these names, or all files if there are none."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def wanted(self, name: str) -> bool:
        return not self._names or name in self._names

    def named(self, name: str) -> bool:
        return name in self._names

    def target(self, name: str) -> str | None:
        del name
        return None

    def ended(self, name: str) -> None:
        """Does nothing."""

    def give_up(self) -> None:
        """Does nothing: wanted() never waits."""

    def names(self) -> Collection[str]:
        return self._names


class Routed:
    """Wants the files that have a route. read: reads the routes. Called once, in the thread that needs them first.

    first: whether the metadata, if it is the first file, is wanted before the routes are read. without_metadata is
    called if another file is the first.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, str]],
        first: bool,
        without_metadata: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._read = read
        self._first = first
        self._without_metadata = without_metadata
        self._begun = False
        self._routes: Mapping[str, str] = {}
        self._known = threading.Event()

    def wanted(self, name: str) -> bool:
        if not self._begun:
            self._begun = True
            if self._first and name == chunks.METADATA:
                return True
            if self._first:
                self._without_metadata(name)
            self._learn()
        elif name == chunks.METADATA and self._first:
            return True  # a further chunk of it
        self._known.wait()
        return self.target(name) is not None

    def _learn(self) -> None:
        self._routes = self._read()
        self._known.set()

    def named(self, name: str) -> bool:
        if name == chunks.METADATA and self._first:
            return True
        return self._known.is_set() and (name in self._routes or _OPTIONAL + name in self._routes)

    def target(self, name: str) -> str | None:
        if not self._known.is_set():
            return None
        places = (name, _OPTIONAL + name, name.rpartition("/")[0] + _ALL_BELOW, _ALL)
        return next((self._routes[place] for place in places if place in self._routes), None)

    def ended(self, name: str) -> None:
        if name == chunks.METADATA and self._first and not self._known.is_set():
            self._learn()

    def give_up(self) -> None:
        self._known.set()

    def names(self) -> Collection[str]:
        return [
            name for name in self._routes if not name.startswith((_ALL, _OPTIONAL)) and not name.endswith(_ALL_BELOW)
        ]


def check_came(wanted: Wanted, came: Collection[str]) -> None:
    """Called at the end of the archive. Damaged if a file that must be in it is missing."""
    for name in wanted.names():
        if name not in came:
            raise missing(name)


def missing(name: str) -> Damaged:
    """The error for a file that must be in the archive and is missing."""
    return Damaged(f"{name} is not in the archive", "qb-unseal --list says what is")
