"""Lets programs that open archives side by side take turns at deriving keys, because each derivation needs much memory.

They share a directory of files. A program derives a key while it has locked one of them. The kernel unlocks the file
when the program ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from qbtools.descriptors import try_lock
from qbtools.errors import UsageError, naming


def of(directory: str) -> Callable[[], AbstractContextManager[None]]:
    """For Limits.turn: as many keys at the same time as the directory has files. UsageError if it has none."""
    with naming(f"read {directory}"):
        paths = [os.path.join(directory, name) for name in os.listdir(directory)]
    if not paths:
        raise UsageError(f"--turns: there is no file in {directory}")

    @contextmanager
    def turn() -> Iterator[None]:
        with ExitStack() as opened:
            fds = []
            for path in paths:  # each time: what shares a descriptor shares its lock, and threads take turns too
                with naming(f"open {path}"):
                    fds.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
                opened.callback(os.close, fds[-1])
            if not any(try_lock(fd) for fd in fds):
                fcntl.flock(fds[threading.get_native_id() % len(fds)], fcntl.LOCK_EX)  # not all for the same one
            yield

    return turn
