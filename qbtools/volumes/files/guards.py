"""Detects other writers of a file while we need it unchanged.

With a lease (fcntl(2), F_SETLEASE) nobody can open the file for writing before the kernel has told us and we have
released the lease, so every writer is detected. Only the file's owner and processes with CAP_LEASE can take a lease,
on most local file systems, and only while nobody has the file open for writing. Otherwise we can only check who has
it open, and when it was changed.

Some network file systems have leases only while their server has delegated the file to this host (nfs4_add_lease of
fs/nfs/nfs4proc.c, cifs_setlease of fs/smb/client/cifsfs.c of Linux). Otherwise they return EAGAIN, as if
somebody were writing.
"""

from __future__ import annotations

import errno
import fcntl
import os
from abc import ABC, abstractmethod

from qbtools.errors import QbError, Refused
from qbtools.lean import TYPE_CHECKING, signal, suppress
from qbtools.volumes import inuse

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Changed = Callable[[str], QbError]

"""Makes the error for a file that somebody else uses, from a text with the reason."""


class Guard(ABC):
    """Guards one open file until release()."""

    @abstractmethod
    def check(self) -> None:
        """Raises the error if somebody wrote to the file, or could have written."""

    @abstractmethod
    def release(self) -> None:
        """Ends the guard. May be called again."""


class Lease(Guard):
    """A read lease. A program that opens the file for writing waits for a moment: we release the lease and fail.

    The error is raised in the main thread, wherever that is at the time.
    """

    def __init__(self, fd: int, changed: Changed) -> None:
        """OSError: EAGAIN if somebody has it open for writing; anything else if no lease is available."""
        self._fd = fd
        self._changed = changed
        self._held = True
        _leases.append(self)
        signal.signal(signal.SIGIO, _broken)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        # While a lease is being broken, fcntl already returns its future type.
        if not self._held or fcntl.fcntl(self._fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            self._give_back()
            raise self._changed(_OPENED)

    def _give_back(self) -> None:
        if self._held:
            _leases.remove(self)
        self._held = False
        with suppress(OSError):
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def release(self) -> None:
        if self._held:
            self._give_back()
            if not _leases:
                signal.signal(signal.SIGIO, signal.SIG_IGN)  # a late signal must not kill us


_leases: list[Lease] = []  # the leases that are held


def _broken(_number: int, _frame: FrameType | None) -> None:
    """Somebody opens one of the files for writing; SIGIO does not say which."""
    for lease in tuple(_leases):
        lease.check()


class Watch(Guard):
    """Checks who has the file open for writing, and its time of change."""

    def __init__(self, fd: int, changed: Changed) -> None:
        self._fd = fd
        self._changed = changed
        self._before = self._state()

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._fd)
        return found.st_size, found.st_mtime_ns

    def check(self) -> None:
        user = inuse.writer(os.fstat(self._fd), self._fd)
        if user is None and self._state() != self._before:
            user = "a program wrote to it"
        if user:
            raise self._changed(user)

    def release(self) -> None:
        """Nothing to release."""


_OPENED = "it was opened for writing"
_DELEGATED = ("nfs4", "cifs", "smb3")  # file systems on which EAGAIN does not mean that somebody writes


def guard(fd: int, name: str, changed: Changed, hint: str | None, warn: Callable[[str], None]) -> Guard:
    """The best available guard for the file. Refused, with the hint, if somebody has it open for writing."""
    user = None
    for _ in range(2):  # inuse waits for a program that is about to close it
        try:
            return Lease(fd, changed)
        except OSError as error:
            number = error.errno or 0
        user = inuse.writer(os.fstat(fd), fd)
        if user or number != errno.EAGAIN:
            break
    if user or (number == errno.EAGAIN and inuse.file_system(fd) not in _DELEGATED):
        raise Refused(f"{name} is in use: {user or 'it is open for writing'}", hint)
    warn(f"{name} cannot be locked ({os.strerror(number)}): a program that writes to it may not be detected")
    return Watch(fd, changed)
