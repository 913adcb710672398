"""Makes a signal interrupt a system call that begins just when the signal arrives.

Python handles a signal between two steps of the program. If it arrives after such a check and before the system call
that follows, the call still begins, and a write to a full pipe may then last for ever. So a thread interrupts the main
thread again, with a signal that has no meaning of its own.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import time

from qbtools.lean import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from types import FrameType

_NUDGE = signal.SIGURG  # ignored by default, so that it does no harm in a program that replaces this one
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
_HIGH = 200  # a descriptor that no user names, even by mistake

_started = False


def start(numbers: tuple[int, ...]) -> None:
    """From now on each of these signals interrupts the main thread. To be called there; does nothing the second time.

    Nothing is done if there are not enough descriptors or processes.
    """
    global _started
    if _started:
        return
    _started = True
    try:
        ours, theirs = os.pipe()
    except OSError:
        return
    try:
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH) for fd in (ours, theirs)]
    except OSError:
        return
    finally:
        os.close(ours)
        os.close(theirs)
    os.set_blocking(high[1], False)
    signal.signal(_NUDGE, _nothing)
    try:
        _thread.start_new_thread(_watch, (high[0], numbers, _thread.get_ident()))
    except RuntimeError:
        return
    signal.set_wakeup_fd(high[1], warn_on_full_buffer=False)


def _watch(fd: int, numbers: tuple[int, ...], main: int) -> None:
    while arrived := os.read(fd, 64):
        if not any(number in numbers for number in arrived):
            continue
        for pause in _PAUSES:
            time.sleep(pause)
            signal.pthread_kill(main, _NUDGE)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Does nothing: that the system call was interrupted is enough."""
