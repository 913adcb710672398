"""What stderr shows while data flows: a line that renews itself on a terminal, one line on SIGUSR1.

The line is made by tqdm where it is installed (it is no requirement), else by the few words here. A stage in a CMD
tells the program that runs the CMD, which shows one line for all of a backup. QB_LABEL, set in a CMD, is what its
stages call their data.
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
"""Seconds between two words to the program that started us."""


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
        """position and total are bytes (total None: unknown), label says what is worked on; they are asked each time,
        perhaps from another thread. display: renew a line on stderr; SIGUSR1 prints one in any case. end: we are the
        end of a pipe that knows how far the volume is, and tell the program that started us, where it listens. ahead:
        bytes that were read, where position says what was written.
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
        elif self._report >= 0:  # a timer, for a thread would cost a short run more than all else
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
    """What the CMDs that run one after the other say of their progress, added up."""

    def __init__(self) -> None:
        self._before = 0
        self._look: Callable[[], tuple[int, str]] | None = None

    def follow(self, look: Callable[[], tuple[int, str]] | None) -> None:
        """A new CMD begins: look tells how many bytes it has done, and of what. None: the last one has ended."""
        self._before = self.done
        self._look = look

    @property
    def done(self) -> int:
        """Bytes of all CMDs so far."""
        return self._before + (self._look()[0] if self._look else 0)

    @property
    def label(self) -> str:
        """What the CMD works on; empty where none of its stages says."""
        return self._look()[1] if self._look else ""


def wanted(options_progress: bool, quiet: bool) -> bool:
    """Whether the line is to be shown: forced, or stderr is a terminal that we are in the foreground of.

    Never when quiet. A CMD has a session of its own, so its stages stay silent: who runs it shows the line. Where it
    is forced, a hint says once that tqdm is missing.
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
