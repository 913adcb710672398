"""Watches something in a process of its own, which goes on when the verb of the host has ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from qbtools.descriptors import close_all_but
from qbtools.errors import QbError

PAUSE = 0.2
"""Seconds between two looks."""


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
        os.dup2(0, 2)  # whoever reads our messages must not wait for the end of this process
        while not _over(look):
            time.sleep(PAUSE)
    finally:
        os._exit(0)


def _over(look: Callable[[], bool]) -> bool:
    with suppress(QbError, OSError):
        return not look()
    return False
