"""Watches running processes from outside: what they show to other users."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path


class Watch:
    """Calls look repeatedly until its end, and once more on request."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.problem: BaseException | None = None
        self.looks = 0

    def _run(self) -> None:
        try:
            while not self._over.wait(0.01):
                self._look()
                self.looks += 1
        except BaseException as error:
            self.problem = error

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self.problem:
            raise self.problem
        assert self.looks > 0


def limits(pid: int) -> list[str]:
    """The soft and the hard limit of its core dumps."""
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max core"))
    return line.split()[4:6]


def regular(file: Path) -> bytes:
    """What a regular file begins with. OSError for any other: by now a descriptor may be a pipe's, and in use."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as content:
        if not stat.S_ISREG(os.fstat(content.fileno()).st_mode):
            raise OSError
        return content.read(1 << 20)


def opened(pid: int) -> list[Path]:
    """The regular files that a process has open, also those without a name, as links below /proc."""
    found = []
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if stat.S_ISREG(link.stat().st_mode):
                found.append(link)
    except OSError:
        return found
    return found
