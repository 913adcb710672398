"""A lock, so that one run at a time uses a thin pool, and a record of the changes that must be undone.

The file persists: after a crash of the machine the record still says what is ours.
"""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType

from qbtools.descriptors import lock_within
from qbtools.errors import Failed
from qbtools.volumes.kind import naming

_DIRECTORIES = ("/var/lib/qbtools", "/run/qbtools")  # the second if the first is not writable
_LONGEST = 1024


class Lock:
    """An open lock file, locked while the `with` lasts. The kernel unlocks it however we end."""

    def __init__(self, name: str, seconds: float) -> None:
        """Failed if the lock is not free within so many seconds."""
        self._fd = _open(f"{name}.lock")
        try:
            if not lock_within(self._fd, seconds):
                raise Failed(f"another run has held {name}.lock for {seconds:.0f} seconds")
        except BaseException:
            os.close(self._fd)
            raise

    def read(self) -> str:
        """The record; empty if there is none."""
        return os.pread(self._fd, _LONGEST, 0).decode("ascii", "replace").strip()

    def write(self, record: str) -> None:
        """Replaces the record on stable storage; an empty one clears it."""
        with naming("write the record of a lock"):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{record}\n".encode("ascii") if record else b"", 0)
            os.fdatasync(self._fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _open(file: str) -> int:
    """The lock file, created if it does not exist."""
    for directory in _DIRECTORIES:
        with suppress(OSError):
            os.makedirs(directory, 0o700, exist_ok=True)
            return os.open(f"{directory}/{file}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    raise Failed(f"cannot create a lock in {' or '.join(_DIRECTORIES)}")
