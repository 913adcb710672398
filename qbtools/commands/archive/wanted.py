"""Which files of an archive are wanted: those that are named, or those that a command names once it has seen the first.

`qb-unseal --to-command … --select-command SEL`: the first file, the metadata, goes to its CMD; then SEL runs and
prints what else is wanted. What is not costs no key derivation, so the reading of the archive waits meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection

from qbtools.errors import Damaged, Failed, Refused
from qbtools.formats import chunks
from qbtools.processes import Ending, capture

MAX_SELECTION = 1 << 24
"""Bytes that SEL may print."""

_ALL_BELOW = "/*"


class Selection:
    """wanted() is asked from the thread that reads the archive, everything else from the main thread."""

    def __init__(self, names: Collection[str], choose: Callable[[], Collection[str]] | None = None) -> None:
        """names: the files that are wanted; all where there is none. choose: gives them once the first file is done.

        One that ends in `/*` means all files below that, be it none.
        """
        self._choose = choose
        self._first: str | None = None
        self._chosen = threading.Event()
        self._take(names)
        self._came: set[str] = set()

    def _take(self, names: Collection[str]) -> None:
        self._names = names
        self._below = {name[: -len(_ALL_BELOW)] for name in names if name.endswith(_ALL_BELOW)}

    def wanted(self, name: str) -> bool:
        """Whether a file is wanted. Waits until that is known."""
        if self._choose is None:
            return not self._names or name in self._names
        if self._first is None:
            self._first = name
        if name == self._first:
            return True
        self._chosen.wait()
        return name in self._names or any(name[:at] in self._below for at, c in enumerate(name) if c == "/")

    def came(self, name: str) -> None:
        """A chunk of this file came by, or its end."""
        self._came.add(name)

    def ended(self) -> None:
        """The CMD of a file has ended well: after the first one the others are chosen. Whatever choose() raises."""
        if self._choose is not None and not self._chosen.is_set():
            self._take(self._choose())
            self._chosen.set()

    def give_up(self) -> None:
        """Nothing more is wanted: whoever waits for an answer gets one."""
        if not self._chosen.is_set():
            self._take(())
            self._chosen.set()

    def check(self) -> None:
        """All has come by. Damaged where a file that is wanted was not among it."""
        for name in self._names:
            if name not in self._came and not name.endswith(_ALL_BELOW):
                raise Damaged(f"{name} is not in the archive", "qb-unseal --list says what is")


def by_command(text: str, environment: dict[str, str]) -> dict[str, None]:
    """The names that the CMD text prints, a line each, in their order.

    Failed where it fails or prints something else than names; Refused beyond MAX_SELECTION bytes.
    """
    ending: list[Ending] = []
    data = capture(text, MAX_SELECTION + 1, ending.append, environment)
    if len(data) > MAX_SELECTION:
        raise Refused(f"the command that selects prints more than {MAX_SELECTION >> 20} MiB")
    if ending[0].failed:
        raise Failed(f"the command that selects {ending[0].describe()}")
    lines = os.fsdecode(data).split("\n")
    if lines.pop():
        raise Failed("the command that selects prints a last line without newline")
    for line in lines:
        if problem := chunks.name_problem(line.removesuffix(_ALL_BELOW), final_dot=True):
            raise Failed(f"the command that selects prints {line or 'an empty line'}: {problem}")
    return dict.fromkeys(lines)
