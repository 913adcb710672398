"""Feeds the files of an archive to a CMD, one after the other: `qb-unseal --to-command`."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qbtools.commands.archive.events import Events
from qbtools.commands.archive.routes import Wanted, check_came
from qbtools.descriptors import write_fd
from qbtools.errors import Damaged, Failed, QbError, Refused, Told
from qbtools.formats import chunks, manifest
from qbtools.processes import GRACE, Command, start_sink
from qbtools.progress import Board

if TYPE_CHECKING:
    from qbtools.formats.openarchive import Archive

MAX_OUTPUT = 1 << 26
"""Maximum output bytes of the CMD of one file if its output goes into a report."""

_BROKEN = "its last chunk is missing"
_SHOWN = 10  # maximum names in a message


class Cmds(NamedTuple):
    """The commands to run. text: CMD. first: the CMD for the metadata; None: text. verifying: a CMD that does not read
    all of its file has failed. keep_going: if one fails, the others still run. warn: prints a failure then."""

    text: str
    first: str | None
    verifying: bool
    keep_going: bool
    warn: Callable[[str], None]


def feed_all(archive: Archive, cmds: Cmds, wanted: Wanted, board: Board, events: Events) -> None:
    """Runs a CMD for every wanted file, in order.

    board: gets the progress of CMD. The error of a CMD that failed is Ending.error, or Failed if it did not read all of
    its file and verifying is set. With keep_going it is raised after the last file. Damaged if a wanted name is missing
    or failed when it was saved. Errors of wanted are raised. After any error the running CMD is killed before its stdin
    is closed.
    """
    feeder = _Feeder(archive, cmds, wanted, board, events)
    came: set[str] = set()
    try:
        for event in archive.events(lambda name: name not in feeder.unwanted and wanted.wanted(name)):
            if event.starts:
                feeder.start(event.name)
                continue
            came.add(event.name)
            if event.data is not None:
                feeder.feed(event.name, event.number, event.data)
            elif event.ends:
                events.tell("record", event.name, line=manifest.file_line(archive.records[-1]))
                feeder.end(event.name)
            elif event.breaks:
                feeder.broken(event.name)
    except BaseException:
        feeder.abort()
        wanted.give_up()
        raise
    for name in archive.failed:
        events.tell("lost", name)
    if lost := [name for name in archive.failed if wanted.wanted(name)]:
        raise incomplete(lost)
    check_came(wanted, came)
    if feeder.failed is not None:
        raise feeder.failed


def incomplete(failed: Sequence[str]) -> Damaged:
    """The error for wanted files that failed when they were saved."""
    return Damaged(missing(failed))


def missing(failed: Sequence[str]) -> str:
    """The message about files that failed when they were saved."""
    listed = ", ".join(failed[:_SHOWN]) + (f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else "")
    many = f"{len(failed)} files" if len(failed) > 1 else "1 file"
    return f"the archive is complete but for {many} that failed when saved: {listed}"


class _Feeder:
    """Runs the CMD of one file after the other."""

    def __init__(self, archive: Archive, cmds: Cmds, wanted: Wanted, board: Board, events: Events) -> None:
        found = archive.header
        self._cmds = cmds
        self._wanted = wanted
        self._board = board
        self._events = events
        self._environment = {
            "QB_BACKUP_ID": found.backup_id,
            "QB_COMPRESSION": found.method,
            "QB_VERSION": str(found.version),
        }
        self._running: Command | None = None
        self._output: _Output | None = None
        self._name = ""
        self.unwanted: set[str] = set()
        """The file whose CMD has ended before it got all of the file."""
        self.failed: QbError | None = None
        """The first error of a run that continues after errors."""

    def start(self, name: str) -> None:
        """Starts the CMD of a file that is named by the user. So it loads while the first chunk is read and opened.

        Any other name is untrusted until that chunk is authenticated.
        """
        if self._wanted.named(name):
            self._begin(name)

    def feed(self, name: str, number: int, data: memoryview) -> None:
        if name in self.unwanted:
            return  # these chunks had already been read
        if number == 0 and name != self._name:
            self._begin(name)
        if self._running:
            try:
                write_fd(self._running.pipe, data)
            except BrokenPipeError:
                self._left_early()

    def _begin(self, name: str) -> None:
        self._name = name
        self._events.tell("begin", name)
        environment = {**self._environment, "QB_NAME": name}
        target = self._wanted.target(name)
        if target is not None:
            environment["QB_TARGET"] = target
        first = self._cmds.first if name == chunks.METADATA else None
        self._output = _Output(name) if self._events.wanted else None
        try:
            stdout = self._output.writer if self._output else None
            self._running = start_sink(self._cmds.text if first is None else first, environment, stdout)
        finally:
            if self._output:
                self._output.started()
        self._board.follow(self._running.progress)

    def _left_early(self) -> None:
        if self._cmds.verifying:
            self._check_end()
            if self._name not in self.unwanted:
                self._fail(Failed(f"{self._name}: the command did not read all of it"))
            return
        self._check_end()
        self.unwanted = {self._name}

    def end(self, name: str) -> None:
        """The file is complete, so CMD may see EOF."""
        if name != self._name:
            self._events.tell("passed", name)
        if self._running:
            if self._cmds.verifying and not self._running.drained():
                self._left_early()
            self._check_end()

    def _check_end(self) -> None:
        if self._running is None:
            return
        try:
            ending = self._running.finish()  # CMD is killed if a signal arrives during this call
            self._running = None
            output = self._output.whole() if self._output else None
            if ending.failed:
                raise ending.error(self._name)
        except QbError as error:
            self._fail(error)
            return
        self._events.tell("done", self._name, output)
        self._wanted.ended(self._name)

    def _fail(self, error: QbError) -> None:
        """Records that the file has failed. Raises error, unless the run continues."""
        self._events.tell("failed", self._name)
        if not self._cmds.keep_going or (self._cmds.first is not None and self._name == chunks.METADATA):
            raise error
        if not isinstance(error, Told):
            self._cmds.warn(f"{error.message}: going on without it")
        self.failed = self.failed or Told.of(error)
        self.unwanted = {self._name}

    def broken(self, name: str) -> None:
        """The last chunk of the file is missing, so its CMD is killed."""
        if name == self._name and self._running:
            self._events.tell("failed", name, reason=_BROKEN)  # before stages fail that get something from this CMD
            self.abort()
            self._running = None

    def abort(self) -> None:
        if self._running:
            self._running.abort()


class _Output:
    """Reads the output of a CMD in a separate thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._reader, self.writer = os.pipe()
        self._data = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def started(self) -> None:
        """Called when CMD has the write end, or could not be started."""
        os.close(self.writer)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._data) <= MAX_OUTPUT and (more := os.read(self._reader, 1 << 16)):
                self._data += more
        os.close(self._reader)

    def whole(self) -> bytearray:
        """The complete output, after the end of CMD. If it has more than MAX_OUTPUT bytes: Damaged if the file is the
        metadata, otherwise Refused."""
        self._thread.join(GRACE)
        if self._thread.is_alive():
            raise Failed(f"{self._name}: the command has ended, but something that it started holds its output open")
        if len(self._data) > MAX_OUTPUT and self._name == chunks.METADATA:
            raise Damaged(f"the metadata has more than {MAX_OUTPUT} bytes")
        if len(self._data) > MAX_OUTPUT:
            raise Refused(f"the command of {self._name} prints more than {MAX_OUTPUT >> 20} MiB")
        return self._data
