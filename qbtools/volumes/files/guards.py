"""Whether somebody writes to a file while we need it as it is.

A lease (fcntl(2), F_SETLEASE) keeps others from opening the file for writing until we have been told, and given it
back: so it is known for sure. It is to be had by the file's owner and with CAP_LEASE, on most local file systems, and
only while nobody has the file open for writing. Elsewhere we can but look: who has it open, and when it was changed.

Some network file systems have leases only while their server has delegated the file to this host (nfs4_add_lease of
fs/nfs/nfs4proc.c, cifs_setlease of fs/smb/client/cifsfs.c of Linux). Without that they answer EAGAIN, as if somebody
were writing.
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

"""Makes the error that is raised when the file is no longer ours alone, from a text that says why."""


class Guard(ABC):
    """Watches over one open file from its making to release()."""

    @abstractmethod
    def check(self) -> None:
        """Raises the error where somebody wrote to the file, or could have."""

    @abstractmethod
    def release(self) -> None:
        """Ends the watch; others may do what they like. May be called again."""


class Lease(Guard):
    """A read lease. Who opens the file for writing waits for a moment; we give the lease back and fail at once.

    The error is raised in the main thread, wherever that is.
    """

    def __init__(self, fd: int, changed: Changed) -> None:
        """OSError: EAGAIN where somebody has it open for writing; anything else where there are no leases for us."""
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
        # While it is being broken the lease is, for fcntl, already what it will become.
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
                signal.signal(signal.SIGIO, signal.SIG_IGN)  # a late one must not kill us


_leases: list[Lease] = []  # those that are held


def _broken(_number: int, _frame: FrameType | None) -> None:
    """Somebody opens one of the files for writing: SIGIO does not tell which."""
    for lease in tuple(_leases):
        lease.check()


class Watch(Guard):
    """Looks for others who have the file open for writing, and at its time of change."""

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
            user = "something was written to it"
        if user:
            raise self._changed(user)

    def release(self) -> None:
        """Nothing is held."""


_OPENED = "it was opened for writing"
_DELEGATED = ("nfs4", "cifs", "smb3")  # file systems of which EAGAIN does not tell that somebody writes


def guard(fd: int, name: str, changed: Changed, hint: str | None, warn: Callable[[str], None]) -> Guard:
    """The best guard for the file that is to be had. Refused, with the hint, where somebody has it open for writing."""
    user = None
    for _ in range(2):  # who is about to close it is waited for by inuse
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
