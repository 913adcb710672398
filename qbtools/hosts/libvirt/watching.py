"""Watches something in a process of its own, which goes on when the verb of the host has ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from qbtools.descriptors import close_all_but
from qbtools.errors import QbError

_PAUSE, _LONGEST = 0.2, 10.0  # seconds between two looks; after errors it grows


def start(look: Callable[[], bool]) -> None:
    """Calls look in a new process, again and again, until it returns False. After an error it is called again.

    The process holds no descriptor of ours, and a signal ends it at once.
    """
    if os.fork():
        return
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        close_all_but()
        os.dup2(0, 2)  # the reader of our messages must not wait for the end of this process
        _repeat(look)
    finally:
        os._exit(0)


def _repeat(look: Callable[[], bool]) -> None:
    pause = _PAUSE
    while True:
        try:
            if not look():
                return
            pause = _PAUSE
        except (QbError, OSError):
            pause = min(2 * pause, _LONGEST)
        time.sleep(pause)
