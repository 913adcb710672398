"""Kills a process at one of its calls of os, for tests of what remains then."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence


def killed_at(calls: Sequence[str], step: int, act: Callable[[], object]) -> bool:
    """Runs act in a process that is killed at its call number step of these functions of os. Returns whether it was
    killed."""
    pid = os.fork()
    if not pid:
        count = 0

        def counted(real: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **more: object) -> object:
                nonlocal count
                count += 1
                if count > step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **more)

            return call

        try:
            for name in calls:
                setattr(os, name, counted(getattr(os, name)))
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
