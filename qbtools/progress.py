"""Progress on stderr: a line that is renewed on a terminal, and one line on SIGUSR1.

tqdm renders the line if it is installed (it is optional), otherwise this module does. A stage in a CMD reports its
progress to the program that runs the CMD, which shows one line for the whole backup. QB_LABEL, set in a CMD, is the
name that its stages give to their data.
"""

from __future__ import annotations

import os
import time

from qbtools import reports
from qbtools.lean import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from qbtools.progressline import Renewed

INTERVAL = 0.5
"""Seconds between two reports to the program that started us."""


class shown:
    """A context manager: shows progress while its body runs."""

    def __init__(
        self,
        position: Callable[[], int],
        total: Callable[[], int | None],
        label: Callable[[], str],
        display: bool,
        end: bool = False,
        ahead: Callable[[], int] = lambda: 0,
    ) -> None:
        """position and total are bytes (total None: unknown), label names the data. They are called for each line,
        possibly from another thread. display: renew a line on stderr; SIGUSR1 prints one in any case. end: this
        program is the end of the pipe that knows the progress of the volume, and reports it to the program that
        started it. ahead: the bytes that were read, if position counts the bytes that were written.
        """
        self._position = position
        self._total = total
        self._label = label
        self._ahead = ahead
        self._began = time.monotonic()
        self._report = reports.inherited(os.environ) if end and not display else -1
        self._renewed: Renewed | None = None
        if display:
            from qbtools import progressline

            self._renewed = progressline.Renewed(self._line)

    def _line(self) -> str:
        from qbtools.progressline import render

        seconds = time.monotonic() - self._began
        return render(self._position(), self._total(), seconds, self._label(), self._ahead())

    def _print(self, _number: int, _frame: object) -> None:
        from qbtools.progressline import write

        write(self._line() + "\n")

    def _tell(self, _number: int = 0, _frame: object = None) -> None:
        reports.tell_progress(self._report, self._position(), os.environ.get("QB_LABEL") or self._label())

    def __enter__(self) -> None:
        signal.signal(signal.SIGUSR1, self._print)
        if self._renewed is not None:
            self._renewed.__enter__()
        elif self._report >= 0:  # a timer, because a thread would be the largest cost of a short run
            signal.signal(signal.SIGALRM, self._tell)
            signal.siginterrupt(signal.SIGALRM, False)
            signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._renewed is not None:
            self._renewed.__exit__(kind, error, None)
        elif self._report >= 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._tell()


class Board:
    """The sum of the progress of CMDs that run one after the other."""

    def __init__(self) -> None:
        self._before = 0
        self._look: Callable[[], tuple[int, str]] | None = None

    def follow(self, look: Callable[[], tuple[int, str]] | None) -> None:
        """A new CMD begins: look returns the bytes that it has done, and its label. None: the last CMD has ended."""
        self._before = self.done
        self._look = look

    @property
    def done(self) -> int:
        """Bytes of all CMDs so far."""
        return self._before + (self._look()[0] if self._look else 0)

    @property
    def label(self) -> str:
        """The data that the CMD works on; empty if none of its stages reports it."""
        return self._look()[1] if self._look else ""


def wanted(options_progress: bool, quiet: bool) -> bool:
    """Whether to show the line: it is forced, or stderr is a terminal and we are in its foreground.

    It is never shown when quiet. A CMD runs in a new session, so its stages show nothing, and the program that runs
    the CMD shows the line. If the line is forced and tqdm is missing, a hint says so once.
    """
    if options_progress and not quiet:
        from qbtools.progressline import hint

        hint()
    return not quiet and (options_progress or _foreground())


def _foreground() -> bool:
    try:
        return os.isatty(2) and os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return False
