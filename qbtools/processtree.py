"""Finds all processes below this one, in any session or group, and ends them within seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from qbtools.volumes import kernel

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""

_LAST = 1.5  # seconds until a killed process must have ended
_STEP = 0.02
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Makes this process the parent of orphans below it. Otherwise they could not be found."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with(parent: int) -> None:
    """Lets this process get SIGTERM, or SIGKILL if it ignores that, when its parent, the process parent, ends."""
    number = signal.SIGKILL if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN else signal.SIGTERM
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before
        os.kill(os.getpid(), number)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def below(top: int) -> list[int]:
    """The processes below top that have not ended. Zombies do not count."""
    children = _children()
    found: list[int] = []
    pending = [top]
    while pending:
        for child, lives in children.get(pending.pop(), []):
            pending.append(child)
            if lives:
                found.append(child)
    return found


def children_of(top: int, through: str = "") -> list[int]:
    """The processes whose parent is top and that have not ended.

    through: those with this name are not counted, but their children instead: copies of a bash that runs a script.
    """
    children = _children()
    found: list[int] = []
    pending = [top]
    while pending:
        for child, lives in children.get(pending.pop(), []):
            if through and kernel.text(f"/proc/{child}/comm").rstrip("\n") == through:
                pending.append(child)
            elif lives:
                found.append(child)
    return found


def _children() -> dict[int, list[tuple[int, bool]]]:
    """The children of each process, with whether they still run."""
    found: dict[int, list[tuple[int, bool]]] = {}
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        state, parent = _state_and_parent(int(entry))
        found.setdefault(parent, []).append((int(entry), state not in "ZX"))
    return found


def _state_and_parent(pid: int) -> tuple[str, int]:
    """The letter of its state, and its parent; Z and 0 if it is gone."""
    # The name, in parentheses, may contain anything; the fields after the last parenthesis are fixed (proc(5)).
    fields = kernel.text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (fields[0], int(fields[1])) if len(fields) > 1 else ("Z", 0)


def end_all(grace: float = GRACE, clock: Callable[[], float] = time.monotonic) -> list[int]:
    """Ends every process below this one with SIGTERM, after grace seconds with SIGKILL. Returns those that still run.

    A stopped process is continued. A process that executes another program at that moment loses the signal, so the
    signal is sent again from time to time.
    """
    until = clock() + grace
    told: dict[int, float] = {}
    while left := _left():
        now = clock()
        if now > until + _LAST:
            return left
        for pid in left:
            if now > until:
                _signal(pid, signal.SIGKILL)
            elif now - told.get(pid, 0.0) > 0.5:
                told[pid] = now
                _signal(pid, signal.SIGTERM)
                _signal(pid, signal.SIGCONT)
        time.sleep(_STEP)
    _reap()
    return []


def _left() -> list[int]:
    """The processes below this one; reaps those that have ended."""
    _reap()
    return below(os.getpid())


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
