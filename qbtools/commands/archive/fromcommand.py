"""The files that `qb-seal --from-command` seals: a list of names, and a CMD that prints each of them."""

from __future__ import annotations

import functools
import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from qbtools.commands.archive.events import Events
from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, Failed, QbError, Refused, Told, Truncated, UsageError
from qbtools.formats import chunks
from qbtools.formats.sealing import Lost, Source
from qbtools.processes import Command, fed, start_source
from qbtools.progress import Board
from qbtools.streams import BLOCK, Reader

MAX_LIST = 1 << 26
"""Maximum bytes of a list, and of all contents that follow it."""

END = b"end\n"
COMPLETE = b"complete\n"
"""The line that follows a list with --await-end."""

LATE = "?"
"""The SOURCE for a file whose real SOURCE follows in a later line, `NAME<TAB>SOURCE`, before the file is read."""

NONE = "!"
"""The SOURCE in such a line if the file is not available."""

_MAX_LINE = 1 << 16
_INLINE = re.compile(r"inline:(0|[1-9][0-9]{0,8})")


class Entry(NamedTuple):
    """A file to be sealed. content: standard input of its CMD, None: nothing."""

    name: str
    source: str
    content: bytes | None = None


class FileList:
    """A list of files. It is read up to its line `end`; later lines are read when they are needed."""

    def __init__(self, reader: Reader, awaiting: bool = False) -> None:
        """awaiting: the line COMPLETE follows later.

        Damaged for a malformed line, Truncated if the end is missing, Refused for more than MAX_LIST bytes and for
        names in a wrong order (a name occurs twice, the metadata is not first, an earlier directory occurs again)."""
        self.awaiting = awaiting
        self._reader = reader
        self.entries = list(self._contents(list(self._lines())))
        if awaiting:
            return
        if all(entry.source != LATE and entry.content is None for entry in self.entries) and not reader.at_eof():
            raise Damaged("something follows the end of the list")

    def _lines(self) -> Iterator[Entry]:
        order = chunks.FileOrder()
        number = 0
        while (line := self._reader.read_line(_MAX_LINE)) != END:
            number += 1
            if not line:
                raise Truncated("the list ends without its line end", "its last line must be: end")
            if self._reader.position > MAX_LIST:
                raise Refused(f"the list has more than {MAX_LIST >> 20} MiB")
            entry = _entry(f"line {number} of the list", line)
            problem = order.problem(entry.name)
            if problem:
                raise Refused(f"line {number} of the list: {entry.name} {problem}")
            yield entry
        if not number:
            raise Damaged("the list is empty")

    def _contents(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        total = 0
        for entry in entries:
            match = _INLINE.fullmatch(entry.source)
            if match is None:
                yield entry
                continue
            total += int(match[1])
            if total > MAX_LIST:
                raise Refused(f"the contents in the list have more than {MAX_LIST >> 20} MiB")
            content = self._reader.read_up_to(int(match[1]))
            if len(content) < int(match[1]):
                raise Truncated(f"the list ends before the content of {entry.name}")
            yield entry._replace(content=content)

    def await_complete(self) -> None:
        """Waits for the line COMPLETE. Truncated if the list ends before it, Damaged for another line."""
        line = self._reader.read_line(_MAX_LINE)
        if not line:
            raise Truncated("the list ends without the line that confirms it", "its last line must be: complete")
        if line != COMPLETE:
            raise Damaged("the list goes on with something else than the line that confirms it")

    def late(self, name: str) -> str:
        """Reads the real SOURCE of a file. Truncated if the line is missing, Damaged if it is for another file."""
        line = self._reader.read_line(_MAX_LINE)
        if not line:
            raise Truncated(f"the list ends where the source of {name} is due")
        entry = _entry(f"the source of {name}", line)
        if entry.name != name or entry.source == LATE:
            raise Damaged(f"the list has a source for {entry.name} where that of {name} is due")
        return entry.source


def _entry(where: str, line: bytes) -> Entry:
    if not line.endswith(b"\n"):
        if len(line) == _MAX_LINE:
            raise Damaged(f"{where} has more than {_MAX_LINE} bytes")
        raise Truncated(f"{where} has no newline")
    name, tab, source = os.fsdecode(line[:-1]).partition("\t")
    problem = chunks.name_problem(name) if tab and source and "\0" not in source else "not a name, a tab, a source"
    if problem:
        raise Damaged(f"{where}: {problem}")
    return Entry(name, source)


def read_list(call: Invocation) -> FileList:
    """The list in the file LIST (`-` is standard input). Errors as FileList."""
    return FileList(call.input(call.options["LIST"]), call.options["--await-end"])


class CommandFiles:
    """Runs CMD once for each entry, one after the other, with QB_NAME and QB_SOURCE in its environment."""

    def __init__(
        self,
        text: str,
        listed: FileList,
        environment: dict[str, str],
        events: Events,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """environment: more variables for CMD. events: reports each file that is begun, has been read or has failed.

        warn: prints the error of a file that fails, if nothing else prints it, and the other files are still read.
        None: a file that fails ends the run.
        """
        self._text = text
        self._warn = warn
        self._list = listed
        self._environment = environment
        self._events = events
        self._lock = threading.Lock()
        self._running: Command | None = None
        self._stopped = False
        self._begun: Reader | None = None
        self.failed: Told | None = None
        """The error of the first file that failed, if the run continued without it."""
        self.board = Board()
        """The progress of the CMDs with their volumes."""
        self.sources = [
            Source(entry.name, functools.partial(self._open, entry), functools.partial(self._end, entry.name))
            for entry in listed.entries
        ]

    def start(self) -> None:
        """Starts CMD for the first file, so that it runs while the caller gets ready to read it."""
        first = self._list.entries[0]
        if first.source != LATE:
            self._begun = self._open(first)

    def _open(self, entry: Entry) -> Reader:
        if self._begun is not None:
            begun, self._begun = self._begun, None
            return begun
        source = entry.source
        if source == LATE:
            self._events.tell("source", entry.name)
            source = self._list.late(entry.name)
            if source == NONE:
                raise self._failed(entry.name, Told(Failed.status))
        self._events.tell("begin", entry.name)
        with self._lock:
            if self._stopped:
                raise Failed("stopped")
            environment = {**self._environment, "QB_NAME": entry.name, "QB_SOURCE": source}
            stdin = None if entry.content is None else fed(entry.content)
            try:
                self._running = start_source(self._text, environment, stdin)
            finally:
                if stdin is not None:
                    os.close(stdin)
            self.board.follow(self._running.progress)
        return Reader(io.FileIO(self._running.pipe, closefd=False), f"what CMD printed for {entry.name}", BLOCK)

    def _end(self, name: str) -> None:
        with self._lock:
            command, self._running = self._running, None
        if command is None:
            raise Failed("stopped")
        ending = command.finish()
        if ending.failed:
            raise self._failed(name, ending.error(name))
        self._events.tell("read", name)
        if self._list.awaiting and name == self._list.entries[-1].name:
            self._list.await_complete()

    def _failed(self, name: str, error: QbError) -> QbError:
        """The error to raise for a file that failed."""
        if self._warn is None or name == chunks.METADATA:
            return error
        self._events.tell("failed", name, reason=error.message)
        if not isinstance(error, Told) and not self._events.wanted:
            self._warn(f"{error.message}: going on without it")
        self.failed = self.failed or Told.of(error)
        return Lost(error.message)

    def abort(self) -> None:
        """Kills the running CMD and prevents the start of others. May also be called after the end."""
        with self._lock:
            self._stopped = True
            command, self._running = self._running, None
        if command:
            command.abort()


def standard_input(call: Invocation) -> Source:
    """Standard input as the file NAME. Only EOF marks its end, so the caller must check the status of its producer."""
    name = call.options["NAME"]
    problem = chunks.name_problem(name)
    if problem:
        raise UsageError(f"{name}: {problem}")
    stdin = call.stdin()
    return Source(name, lambda: stdin, lambda: None)
