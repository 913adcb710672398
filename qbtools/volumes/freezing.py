"""Freezes a machine while snapshots of its volumes are taken.

One command freezes the machine (its file systems write all their data and stop), another thaws it. A frozen machine
hangs, so a separate process makes sure that it is thawed: when we say so, when the time is over, and when we end, even
of SIGKILL.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

from qbtools import processes
from qbtools.descriptors import close_all_but
from qbtools.errors import Failed

_TICK = 0.05  # seconds between two checks
_LATE = "thawed after"


class Frozen:
    """A context manager: the machine is frozen while its body runs.

    Failed if it cannot be frozen or thawed, or was thawed before the end because the time was over. Afterwards the
    machine is thawed in any case, unless the command for that failed.
    """

    def __init__(self, freeze: str, thaw: str, limit: float, warn: Callable[[str], None]) -> None:
        """freeze, thaw: bash text, each run in a new session. limit: seconds from the start of freeze."""
        self._freeze = freeze
        self._thaw = thaw
        self._limit = limit
        self._warn = warn
        self._watchdog = self._life = self._report = -1
        self._answered = False  # whether the watchdog has reported the result of freezing

    def __enter__(self) -> None:
        life, self._life = os.pipe()
        self._report, report = os.pipe()
        self._watchdog = os.fork()
        if not self._watchdog:
            _watch(self._freeze, self._thaw, self._limit, life, report)
        os.close(life)
        os.close(report)
        try:
            answer = self._hear()
            self._answered = True
            if answer != "frozen":
                raise Failed(f"no snapshot was taken: {answer or 'the process that freezes the machine was killed'}")
        except BaseException as error:
            self._end(error)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Thaws the machine. A problem with that is an error, unless there is another error."""
        problem = self._melt()
        if not problem:
            return
        if error is None:
            raise Failed(problem, "--thaw-limit gives it more time" if problem.startswith(_LATE) else None)
        if not problem.startswith(_LATE):
            self._warn(problem)

    def _melt(self) -> str:
        """Thaws the machine if it is still frozen. Returns the problem, or an empty text."""
        os.close(self._life)
        if not self._answered:
            self._hear()
        answer = self._hear()
        os.close(self._report)
        with suppress(ChildProcessError):
            os.waitpid(self._watchdog, 0)
        if not answer:  # it was killed
            answer = _run(self._thaw, "--thaw")
        return "" if answer == "thawed" else answer

    def _hear(self) -> str:
        """The next report of the watchdog; empty if it has ended."""
        text = b""
        while not text.endswith(b"\n"):
            more = os.read(self._report, 1)
            if not more:
                return ""
            text += more
        return text.decode("utf-8", "replace").strip()


def _watch(freeze: str, thaw: str, limit: float, life: int, report: int) -> NoReturn:
    """The watchdog. life: a pipe; its end means that the parent has ended. report: the pipe for reports."""
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)  # the parent ends then, the commands do not
        close_all_but(life, report)
        until = time.monotonic() + limit
        problem = _frozen(freeze, life, until)
        _say(report, problem or "frozen")
        late = not problem and not _closed(life, until - time.monotonic())
        problem = _run(thaw, "--thaw")
        _say(report, problem or (f"{_LATE} {limit:g} seconds, before all was taken" if late else "thawed"))
    finally:
        os._exit(0)


def _frozen(text: str, life: int, until: float) -> str:
    """Runs the command that freezes. Returns "" or the problem."""
    try:
        command = processes.start_plain(text)
    except Failed as error:
        return error.message
    while not command.ended(_TICK):
        over = time.monotonic() >= until
        if over or _closed(life, 0):
            command.abort()
            return "--freeze took too long" if over else "interrupted"
    ending = command.finish()
    return f"--freeze {ending.describe()}" if ending.failed else ""


def _run(text: str, name: str) -> str:
    """Runs a command to its end. Returns "" or the problem."""
    try:
        ending = processes.start_plain(text).finish()
    except Failed as error:
        return error.message
    return f"{name} {ending.describe()}" if ending.failed else ""


def _closed(life: int, seconds: float) -> bool:
    """Waits at most so long for the end of a pipe."""
    poller = select.poll()
    poller.register(life, select.POLLIN)
    return bool(poller.poll(max(seconds, 0) * 1000))


def _say(report: int, text: str) -> None:
    with suppress(OSError):
        os.write(report, text.encode("utf-8", "backslashreplace").replace(b"\n", b" ") + b"\n")
