"""The files that `qb-seal --from-command` seals: a list of names, and a CMD that prints each of them."""

from __future__ import annotations

import functools
import io
import os
import threading
from collections.abc import Sequence

from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, Failed, Refused
from qbtools.formats import chunks
from qbtools.formats.sealer import Source
from qbtools.processes import Command, start_source
from qbtools.progress import Board
from qbtools.streams import BLOCK, Reader

MAX_LIST = 1 << 26
"""Bytes of the longest list."""


def parse_list(data: bytes) -> list[tuple[str, str]]:
    """(NAME, SOURCE) of each line `NAME<TAB>SOURCE`.

    Damaged for a line that is malformed or cut, Refused for names that cannot stand in this order: doubled, the
    metadata not first, back to an earlier directory.
    """
    if not data.endswith(b"\n"):
        raise Damaged("the list is empty" if not data else "the last line of the list has no newline")
    entries = []
    order = chunks.FileOrder()
    for number, line in enumerate(os.fsdecode(data[:-1]).split("\n"), 1):
        name, tab, source = line.partition("\t")
        problem = chunks.name_problem(name) if tab and source and "\0" not in source else "not a name, a tab, a source"
        if problem:
            raise Damaged(f"line {number} of the list: {problem}")
        problem = order.problem(name)
        if problem:
            raise Refused(f"line {number} of the list: {name} {problem}")
        entries.append((name, source))
    return entries


def read_list(call: Invocation) -> list[tuple[str, str]]:
    """The entries of the file LIST, `-` being standard input. Errors as parse_list; Refused past MAX_LIST bytes."""
    path = call.options["LIST"]
    reader = call.stdin() if path == "-" else Reader(io.FileIO(path), path)
    data = reader.read_up_to(MAX_LIST + 1)
    if len(data) > MAX_LIST:
        raise Refused(f"the list has more than {MAX_LIST >> 20} MiB")
    return parse_list(data)


class CommandFiles:
    """Runs CMD once for each entry, one after the other, with QB_NAME and QB_SOURCE in its environment."""

    def __init__(self, text: str, entries: Sequence[tuple[str, str]]) -> None:
        self._text = text
        self._lock = threading.Lock()
        self._running: Command | None = None
        self._stopped = False
        self.board = Board()
        """How far the CMDs are with their volumes."""
        self.sources = [
            Source(name, functools.partial(self._open, name, source), functools.partial(self._end, name))
            for name, source in entries
        ]

    def _open(self, name: str, source: str) -> Reader:
        with self._lock:
            if self._stopped:
                raise Failed("stopped")
            self.board.clear()
            environment = {"QB_NAME": name, "QB_SOURCE": source, **self.board.environment}
            self._running = start_source(self._text, environment, [self.board.fd])
        return Reader(io.FileIO(self._running.pipe, closefd=False), f"the command of {name}", BLOCK)

    def _end(self, name: str) -> None:
        with self._lock:
            command, self._running = self._running, None
        if command is None:
            raise Failed("stopped")
        ending = command.finish()
        if ending.failed:
            raise Failed(f"{name}: the command {ending.describe()}")

    def abort(self) -> None:
        """Kills the CMD that runs, and lets no further one start. May be called when all is over."""
        with self._lock:
            self._stopped = True
            command, self._running = self._running, None
        if command:
            command.abort()
