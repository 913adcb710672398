"""Feeds the files of an archive to a CMD, one after the other: `qb-unseal --to-command`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from qbtools import progress
from qbtools.commands.archive import wanted
from qbtools.descriptors import write_fd
from qbtools.errors import Failed
from qbtools.processes import Command, start_sink
from qbtools.progress import Board

if TYPE_CHECKING:
    from qbtools.formats.openarchive import Archive


def feed_all(
    archive: Archive, text: str, select: str | None, names: Collection[str], verifying: bool, board: Board
) -> None:
    """Runs CMD for every file (or those in names, or the first and those that the CMD select prints), in order.

    board: for what CMD says of its progress. Failed, naming the file, where a CMD fails or, when verifying, leaves
    some of its file unread; Damaged where a name is missing; what wanted.by_command() raises. Whatever goes wrong,
    the CMD that runs is killed before its stdin closes.
    """
    found = archive.header
    environment = {
        "QB_BACKUP_ID": found.backup_id,
        "QB_COMPRESSION": found.method,
        "QB_VERSION": str(found.version),
    }
    feeder = _Feeder(text, verifying, {**environment, **board.environment}, board)

    def choose(text: str) -> Collection[str]:
        with progress.held():
            return wanted.by_command(text, environment)

    chosen = wanted.Selection(names, (lambda: choose(select)) if select is not None else None)
    try:
        for event in archive.events(lambda name: chosen.wanted(name) and name != feeder.unwanted):
            chosen.came(event.name)
            if event.data is not None:
                feeder.feed(event.name, event.number, event.data)
            elif event.ends:
                feeder.end()
                chosen.ended()
    except BaseException:
        feeder.abort()
        chosen.give_up()
        raise
    chosen.check()


class _Feeder:
    """The CMD that runs now, if any."""

    def __init__(self, text: str, verifying: bool, environment: dict[str, str], board: Board) -> None:
        self._board = board
        self._text = text
        self._verifying = verifying
        self._environment = environment
        self._running: Command | None = None
        self._name = ""
        self.unwanted = ""
        """The file whose CMD has ended well without reading all of it."""

    def feed(self, name: str, number: int, data: memoryview) -> None:
        if name == self.unwanted:
            return  # its chunks were under way already
        if number == 0:
            self._name = name
            self._board.clear()
            self._running = start_sink(self._text, {**self._environment, "QB_NAME": name}, [self._board.fd])
        if self._running:
            try:
                write_fd(self._running.pipe, data)
            except BrokenPipeError:
                self._left_early()

    def _left_early(self) -> None:
        if self._verifying:
            self._check_end()
            raise Failed(f"{self._name}: the command did not read all of it")
        self._check_end()
        self.unwanted = self._name

    def end(self) -> None:
        """The file is whole: CMD may see EOF."""
        if self._running:
            if self._verifying and not self._running.drained():
                self._left_early()
            self._check_end()

    def _check_end(self) -> None:
        if self._running:
            ending = self._running.finish()  # a signal may come meanwhile: then it is killed
            self._running = None
            if ending.failed:
                raise Failed(f"{self._name}: the command {ending.describe()}")

    def abort(self) -> None:
        if self._running:
            self._running.abort()
