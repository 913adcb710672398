"""All processes below this one, wherever they have put themselves: found, and ended within seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from qbtools.volumes import kernel

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""

_LAST = 1.5  # seconds that a killed process may take to be gone
_STEP = 0.02
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Makes this process the parent of every process below it whose parent ends; else those could not be found."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def below(top: int) -> list[int]:
    """The processes below top that have not ended; those that are about to be reaped do not count."""
    children = _children()
    found: list[int] = []
    pending = [top]
    while pending:
        for child, lives in children.get(pending.pop(), []):
            pending.append(child)
            if lives:
                found.append(child)
    return found


def children_of(top: int) -> list[int]:
    """The processes whose parent is top and that have not ended."""
    return [child for child, lives in _children().get(top, []) if lives]


def _children() -> dict[int, list[tuple[int, bool]]]:
    """By process its children, each with whether it has not ended."""
    found: dict[int, list[tuple[int, bool]]] = {}
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        state, parent = _state_and_parent(int(entry))
        found.setdefault(parent, []).append((int(entry), state not in "ZX"))
    return found


def _state_and_parent(pid: int) -> tuple[str, int]:
    """The letter of its state, and its parent: Z and 0 where it is gone."""
    # The name, in parentheses, may hold anything: what follows the last one is fixed (proc(5)).
    fields = kernel.text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (fields[0], int(fields[1])) if len(fields) > 1 else ("Z", 0)


def end_all(clock: Callable[[], float] = time.monotonic) -> list[int]:
    """Ends every process below this one: SIGTERM, after GRACE seconds SIGKILL. Returns those that even so live on.

    A process that is stopped is told to go on. One that is told just before it becomes another program loses the
    signal, so each is told again from time to time.
    """
    until = clock() + GRACE
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
    """The processes below this one; reaps what has ended."""
    _reap()
    return below(os.getpid())


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
