"""The line of progress on stderr, which a thread renews."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from qbtools.amounts import amount, clock
from qbtools.errors import escape

INTERVAL = 0.5
"""Seconds between two renewals of the line."""

_CLEAR = "\r\033[K"

_line = threading.Lock()
_line_is_there = threading.Event()


@contextmanager
def held() -> Iterator[None]:
    """While its body runs, the line is removed and not renewed, so that something else can be shown."""
    with _line:
        if _line_is_there.is_set():
            write(_CLEAR)
        yield


class Renewed:
    """A context manager: renews the line while its body runs, and once more at the end."""

    def __init__(self, line: Callable[[], str]) -> None:
        self._line = line
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def _renew(self) -> None:
        while not self._done.wait(INTERVAL):
            self._show()

    def _show(self) -> None:
        with _line:
            _line_is_there.set()
            write(_CLEAR + self._line())

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._show()
        write("\n")


def hint() -> None:
    """Prints a hint if tqdm is not installed."""
    from importlib.util import find_spec

    try:
        found = find_spec("tqdm") is not None
    except ValueError:
        found = False
    if not found:
        write("hint: install the Python package tqdm for a progress bar\n")


def render(done: int, total: int | None, seconds: float, label: str, ahead: int = 0) -> str:
    """One line: label, progress, speed and remaining time. ahead: the bytes that were read, if they are more than done.

    label: the name of a file, or the label that a CMD reports.
    """
    label = escape(label)
    read = f"{amount(ahead)} read" if ahead > done else ""
    try:
        from tqdm import tqdm
    except ImportError:
        return _plain(done, total, seconds, label) + (f", {read}" if read else "")
    meter: str = tqdm.format_meter(
        done, total, seconds, unit="B", unit_scale=True, unit_divisor=1024, prefix=label, ncols=78, postfix=read
    )
    return meter


def _plain(done: int, total: int | None, seconds: float, label: str) -> str:
    rate = done / seconds if seconds > 0 else 0.0
    percent = of = left = ""
    if total is not None:
        percent = f"{min(100 * done // total, 100) if total else 100}%, "
        of = f" of {amount(total)}"
        if rate > 0 and total >= done:
            left = f", {clock((total - done) / rate)} left"
    return f"{label}: {percent}{amount(done)}{of}, {amount(int(rate))}/s, {clock(seconds)}{left}"


def write(text: str) -> None:
    """Writes to stderr. It is not an error if stderr is closed."""
    with suppress(OSError):
        os.write(2, text.encode("utf-8", "backslashreplace"))
