"""Finds the processes that read from the socket of a backup job, by their command lines, and ends them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from qbtools.errors import Failed
from qbtools.volumes import kernel

_PATIENCE, _PAUSE = 10.0, 0.02


def end_all(ending: str) -> None:
    """Kills all processes with an argument that ends with this text, and waits until they are gone. Failed."""
    deadline = time.monotonic() + _PATIENCE
    while found := _found(ending):
        if time.monotonic() > deadline:
            raise Failed(f"process {found[0]} does not end, even after SIGKILL")
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)


def _found(ending: str) -> list[int]:
    mark = f"{ending}\0"
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if mark in _words(pid)]


def _words(pid: int) -> str:
    """The words of its command line, each with a NUL behind it; empty if it has ended."""
    return kernel.text(f"/proc/{pid}/cmdline")
