"""What stderr shows while data flows: a line that renews itself on a terminal, one line on SIGUSR1.

The line is made by tqdm where it is installed (it is no requirement), else by the few words here. Who runs CMDs
gives them a Board, on which the stage that knows how far the volume is writes it: one line for all of a backup.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

INTERVAL = 0.5
"""Seconds between two renewals of the line."""

_CLEAR = "\r\033[K"

_line = threading.Lock()
_line_is_there = threading.Event()


@contextmanager
def shown(
    position: Callable[[], int],
    total: Callable[[], int | None],
    label: Callable[[], str],
    display: bool,
    end: bool = False,
) -> Iterator[None]:
    """Shows progress while its body runs.

    position and total are bytes (total None: unknown), label says what is worked on; all three are asked each time,
    from another thread. display: renew a line on stderr; SIGUSR1 prints one in any case. end: we are the end of a
    pipe that knows how far the volume is, and tell a Board where there is one.
    """
    began = time.monotonic()

    def line() -> str:
        return render(position(), total(), time.monotonic() - began, label())

    signal.signal(signal.SIGUSR1, lambda _number, _frame: _write(line() + "\n"))
    board = os.environ.get(_BOARD, "")
    if display:
        with _renewing(lambda: _renew(line)):
            yield
        _write("\n")
    elif end and board.isdecimal():
        with _renewing(lambda: _tell(int(board), position(), label())):
            yield
    else:
        yield


@contextmanager
def held() -> Iterator[None]:
    """While its body runs no line is renewed, and none stands on the terminal: something else is shown there."""
    with _line:
        if _line_is_there.is_set():
            _write(_CLEAR)
        yield


def _renew(line: Callable[[], str]) -> None:
    with _line:
        _line_is_there.set()
        _write(_CLEAR + line())


@contextmanager
def _renewing(show: Callable[[], None]) -> Iterator[None]:
    """Calls show from time to time while its body runs, and once more at its end."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(INTERVAL):
            show()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        show()


class Board:
    """A piece of memory that the stages of a CMD share with us: what they work on, and how many bytes are done."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("qb-progress")
        self.environment = {_BOARD: str(self.fd)}
        """For a CMD that inherits fd."""
        self._before = 0

    def clear(self) -> None:
        """A new CMD begins: what the one before did is added up."""
        self._before = self.done
        os.ftruncate(self.fd, 0)

    @property
    def done(self) -> int:
        """Bytes of all CMDs so far."""
        return self._before + int.from_bytes(os.pread(self.fd, _COUNT, 0), "big")

    @property
    def label(self) -> str:
        """What the CMD works on; empty where none of its stages says."""
        return os.pread(self.fd, _LABEL, _COUNT).rstrip(b"\0").decode("utf-8", "replace")


_BOARD = "QB_PROGRESS_FD"
_COUNT = 8
_LABEL = 256


def _tell(board: int, position: int, label: str) -> None:
    with suppress(OSError):  # the descriptor may be somebody else's by now, and nothing depends on it
        text = label.encode("utf-8", "replace")[:_LABEL].ljust(_LABEL, b"\0")
        os.pwrite(board, position.to_bytes(_COUNT, "big") + text, 0)


def wanted(options_progress: bool, quiet: bool) -> bool:
    """Whether the line is to be shown: forced, or stderr is a terminal that we are in the foreground of.

    Never when quiet. A CMD has a session of its own, so its stages stay silent: who runs it shows the line.
    """
    return not quiet and (options_progress or _foreground())


def _foreground() -> bool:
    try:
        return os.isatty(2) and os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return False


def render(done: int, total: int | None, seconds: float, label: str) -> str:
    """One line: what, how far, how fast, how long still."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _plain(done, total, seconds, label)
    meter: str = tqdm.format_meter(
        done, total, seconds, unit="B", unit_scale=True, unit_divisor=1024, prefix=label, ncols=78
    )
    return meter


def _plain(done: int, total: int | None, seconds: float, label: str) -> str:
    rate = done / seconds if seconds > 0 else 0.0
    of = f" of {_amount(total)}" if total is not None else ""
    left = f", {int((total - done) / rate)} s left" if total is not None and rate > 0 and total >= done else ""
    return f"{label}: {_amount(done)}{of}, {_amount(int(rate))}/s{left}"


def _amount(count: int) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min((max(count, 1).bit_length() - 1) // 10, len(units) - 1)
    return f"{count} B" if power == 0 else f"{count / (1 << 10 * power):.1f} {units[power]}"


def _write(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode("utf-8", "backslashreplace"))
