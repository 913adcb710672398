"""Ends a program on a signal: Terminated unwinds the stack, so that every cleanup runs.

Python handles a signal between two steps of the program. If it arrives after such a check and before the system call
that follows, the call still begins, and a write to a full pipe may then last for ever. So a thread interrupts the main
thread again, with a signal that has no meaning of its own.

Python also drops what a handler raises inside of a callback that has no caller, such as those of weak references,
which its import system uses. It is raised again when the same thread interrupts the main thread.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import sys
import time

from qbtools import latesignals
from qbtools.lean import TYPE_CHECKING, signal, suppress

if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NUDGE = signal.SIGURG  # ignored by default, so that it does no harm in a program that replaces this one
_PAUSES = (0.005, 0.05, 0.1, 0.2, 0.4, 0.8)
_HIGH = 200  # a descriptor that no user names, even by mistake

_waker = -1  # wakes the thread; negative: there is none
_dropped = 0  # the signal whose Terminated was dropped


class Terminated(BaseException):
    """A signal asked the program to end: unwinds the stack, so that every cleanup runs."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def heed() -> None:
    """The first signal that asks us to end raises Terminated. To be called again to handle a second one.

    To be called in the main thread. If there are not enough descriptors or processes for the thread, a signal may have
    to be sent twice.
    """
    if sys.unraisablehook is not _keep:
        _start()
        sys.unraisablehook = _keep
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _terminate)


def die(number: int) -> NoReturn:
    """Ends by a signal, so that the shell reports 128 + number and knows that the user interrupted."""
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def disregard(_number: int, _frame: FrameType | None) -> None:
    """Raises a Terminated that was dropped. Otherwise it does nothing, except that it interrupts a system call."""
    global _dropped
    if _dropped and not latesignals.waits(_dropped):
        number, _dropped = _dropped, 0
        raise Terminated(number)


def _terminate(number: int, _frame: FrameType | None) -> None:
    if latesignals.waits(number):
        return
    # A second signal must not interrupt the cleanup of the first one. If one has already arrived, its handler is still
    # called; Python prints a message if that is SIG_IGN.
    for other in _SIGNALS:
        signal.signal(other, disregard)
    raise Terminated(number)


def _keep(dropped: sys.UnraisableHookArgs) -> None:
    """Called by Python for each exception that it drops. What is raised here is dropped too."""
    global _dropped
    lost = dropped.exc_value
    if not isinstance(lost, Terminated):
        try:
            sys.__unraisablehook__(dropped)
            return
        except Terminated as late:
            lost = late
    if _waker >= 0:
        with suppress(OSError):  # full: the thread is about to look
            os.write(_waker, bytes([lost.number]))
    _dropped = lost.number  # at last: no handler runs before we have returned


def _start() -> None:
    global _waker
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
    signal.signal(_NUDGE, disregard)
    try:
        _thread.start_new_thread(_watch, (high[0], _thread.get_ident()))
    except RuntimeError:
        return
    _waker = high[1]
    signal.set_wakeup_fd(_waker, warn_on_full_buffer=False)


def _watch(fd: int, main: int) -> None:
    while arrived := os.read(fd, 64):
        if not any(number in _SIGNALS for number in arrived):
            continue
        for pause in _PAUSES:
            time.sleep(pause)
            signal.pthread_kill(main, _NUDGE)
