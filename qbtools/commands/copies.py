"""Runs one program several times, but loads it once: each run is a copy of a process that has loaded all modules.

To load a program takes longer than to open a small archive, and a chain has many of them.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress

from qbtools import processtree, reports
from qbtools.commands import cli, ending
from qbtools.endings import as_shown
from qbtools.errors import Refused, Truncated, UsageError
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import file_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

OPTION = "--archive"
"""`--archive FD` begins the words of a run whose standard input is the descriptor FD."""

LISTED = "--archives"
"""`--archives FILE`: the words are in FILE, from the first --archive on. A NUL ends each of them. The last is `end`."""

MAX_WORDS = 1 << 24
"""Maximum bytes of FILE."""

_DIGITS = 9
_END = "end"


def own_words(program: str, words: Sequence[str], load: Callable[[], None]) -> list[str]:
    """The words of one run. Returns once in each copy, and never in the process that is copied.

    program: for messages. words: those of all runs, or those that name the file with them, which is read when load has
    loaded what a run needs. To be called before a thread is started, because a copy would not have it.
    """
    doc = f"Usage: {program}\n"
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until a copy can handle it
    try:
        if words[0].partition("=")[0] == LISTED:
            load()  # before the words are known
            original = Original(split(listed(words)))
        else:
            original = Original(split(words))
            load()
        own = original.copied()
    except Exception as error:  # also of a package that cannot be loaded
        problem = error

        def fail(_call: cli.Invocation) -> NoReturn:
            raise problem

        cli.run(program, doc, fail, [])
    if own is None:
        cli.run(program, doc, original.wait, [])
    sys.argv[1:] = own
    return own


def listed(words: Sequence[str]) -> list[str]:
    """The words in the file that `--archives FILE` names; `-` is standard input.

    UsageError for anything else on the command line. Truncated if the list has no end, Refused if it is too large.
    """
    name, equals, path = words[0].partition("=")
    rest = [path, *words[1:]] if equals else words[1:]
    if len(rest) != 1:
        raise UsageError(f"{name} needs a value" if not rest else f"nothing can follow {name} FILE")
    label = "the list of archives"
    reader = file_reader("/dev/stdin" if rest[0] == "-" else rest[0], label)
    found = reader.read_up_to(MAX_WORDS + 1)
    if len(found) > MAX_WORDS:
        raise Refused(f"{label} has more than {MAX_WORDS >> 20} MiB")
    given = os.fsdecode(found).split("\0")
    if given[-2:] != [_END, ""]:
        raise Truncated(f"{label} ends without its last word", f"its last word must be: {_END}")
    return given[:-2]


def split(words: Sequence[str]) -> list[tuple[int, list[str]]]:
    """The descriptor and the words of each run. UsageError if there is none, or a descriptor is not open,
    or given twice."""
    found: list[tuple[int, list[str]]] = []
    rest = iter(words)
    for word in rest:
        name, equals, number = word.partition("=")
        if name != OPTION:
            if not found:
                raise UsageError(f"{word} comes before the first {OPTION}")
            found[-1][1].append(word)
            continue
        value = number if equals else next(rest, None)
        if value is None:
            raise UsageError(f"{OPTION} needs a value")
        fd = _descriptor(value)
        if fd in [other for other, _words in found]:
            raise UsageError(f"{OPTION}: descriptor {fd} is given twice")
        found.append((fd, []))
    if not found:
        raise UsageError("no archive given")
    return found


def _descriptor(number: str) -> int:
    if not cli.are_digits(number, _DIGITS):
        raise UsageError(f"{OPTION}: not the number of a descriptor: {number}")
    with suppress(OSError):
        os.fstat(int(number))
        return int(number)
    raise UsageError(f"{OPTION}: descriptor {number} is not open")


class Original:
    """The process that is copied."""

    def __init__(self, runs: Sequence[tuple[int, list[str]]]) -> None:
        self._runs = runs
        self._left: set[int] = set()

    def copied(self) -> list[str] | None:
        """Makes the copies. Returns in each of them, with its words, and in the original, with None."""
        gc.freeze()  # or the first search for garbage would copy all pages
        original = os.getpid()
        for fd, words in self._runs:
            pid = os.fork()
            if not pid:
                processtree.end_with(original)
                self._leave_open(fd)
                return words
            self._left.add(pid)
        self._leave_open(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        return None

    def _leave_open(self, fd: int) -> None:
        """Makes fd standard input, and closes all archives. If one fails, who writes to its pipe then learns of it."""
        os.dup2(fd, 0)
        for one in {fd, *(archive for archive, _words in self._runs)}:
            if one > 2:
                os.close(one)

    def wait(self, _call: cli.Invocation) -> None:
        """Waits for all copies, and ends with the status of the first that failed, if one did.

        A failure is reported at once to the program that started us, because other copies may wait for that one. If
        nobody reads the report, they are ended. A signal that asks us to end is sent to all of them first.
        """
        signal.signal(signal.SIGUSR1, lambda *_: self._send(signal.SIGUSR1))
        report = reports.inherited(os.environ)
        failed = 0
        try:
            while self._left:
                code = self._next()
                failed = failed or code
                if code and report >= 0 and not reports.tell_failing(report, code):
                    self._send(signal.SIGTERM)
        except ending.Terminated as ended:
            self._send(ended.number)
            while self._left:
                self._next()
            raise
        if failed:
            os._exit(failed)

    def _next(self) -> int:
        """Waits for a child. Returns the status of a copy, and 0 for a child that the process had before."""
        try:
            pid, status = os.wait()
        except ChildProcessError:  # a signal arrived when the last one had ended, and it was not recorded
            self._left.clear()
            return 0
        if pid not in self._left:
            return 0
        self._left.discard(pid)
        return as_shown(os.waitstatus_to_exitcode(status))

    def _send(self, number: int) -> None:
        for pid in self._left:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
