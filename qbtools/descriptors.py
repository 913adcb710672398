"""Operations on plain descriptors. Errors are the OSErrors of the kernel."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import select
import stat

from qbtools.lean import TYPE_CHECKING, NamedTuple, suppress

if TYPE_CHECKING:
    from collections.abc import Callable

PIPE_SIZE = 1 << 20
"""The pipe capacity to ask for, in bytes."""

_PAUSE = 0.05  # seconds between two tries to lock a file

# The errors of splice and sendfile when they cannot work at all (fs/splice.c, fs/read_write.c): neither a pipe nor
# something with pages, O_APPEND, no support.
_NO_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ESPIPE, errno.EBADF)


def allow(count: int) -> bool:
    """Lets this process, and those that it starts, have so many open descriptors. Returns whether that is allowed."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most == count


def descriptor(file: object) -> int:
    """The descriptor of a file object, or -1 if it has none."""
    try:
        number = file.fileno()  # type: ignore[attr-defined]
    except (AttributeError, io.UnsupportedOperation):
        return -1
    return int(number)


def wait(fd: int, event: int, seconds: float | None = None) -> bool:
    """Waits until a descriptor is ready, or has failed. Returns False if it is not ready after so many seconds."""
    poller = select.poll()
    poller.register(fd, event)
    return bool(poller.poll(None if seconds is None else seconds * 1000))


def widen_pipe(fd: int, size: int = PIPE_SIZE) -> None:
    """Asks for a pipe capacity of size bytes. Does nothing if fd is not a pipe or the limit is lower."""
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)


def write_fd(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Writes all of data to a blocking descriptor."""
    view = memoryview(data)
    while len(view):
        view = view[os.write(fd, view) :]


def try_lock(fd: int) -> bool:
    """Locks an open file for this process alone. Returns False if another process has locked it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # some network file systems say EACCES
        return False
    return True


def lock_within(fd: int, seconds: float) -> bool:
    """The same, but waits so many seconds for the other process."""
    import time

    deadline = time.monotonic() + seconds
    while not try_lock(fd):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE)
    return True


def close_all_but(*kept: int) -> None:
    """For a process that goes on alone after a fork: closes what it has of its parent, such as locks.

    Its standard input and output become /dev/null. Standard error stays.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in kept:
            with suppress(OSError):
                os.close(fd)


def left_to_read(fd: int) -> int | None:
    """The bytes of a regular file from the current offset to its end; None for anything else."""
    found = os.fstat(fd)
    return max(found.st_size - os.lseek(fd, 0, os.SEEK_CUR), 0) if stat.S_ISREG(found.st_mode) else None


class Place(NamedTuple):
    """Where some bytes are: length of them at an offset of a descriptor, which can be read at any offset."""

    fd: int
    offset: int
    length: int


def drop_cache(fd: int, offset: int = 0, length: int = 0) -> None:
    """Drops clean pages of a range (length 0: up to the end) from the page cache, and starts to write dirty ones.

    This is only an advice: it does nothing if the file system does not support it (tmpfs).
    """
    with suppress(OSError):
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def splice(source: int, target: int, size: int) -> int:
    """Moves between 1 and size bytes. Returns 0 at EOF, and -1 if the kernel cannot do this for these two at all.

    If neither side is a pipe, sendfile is used.
    """
    for move in (lambda: os.splice(source, target, size), lambda: os.sendfile(target, source, None, size)):
        try:
            return _when_ready(source, target, move)
        except OSError as error:
            if error.errno not in _NO_SPLICE:
                raise
    return -1


def _when_ready(source: int, target: int, move: Callable[[], int]) -> int:
    while True:
        try:
            return move()
        except BlockingIOError:
            wait(source, select.POLLIN)
            wait(target, select.POLLOUT)


def open_to_append(path: str) -> int:
    """Opens a file or a pipe that a user names, and creates a missing file. OSError if that is not possible.

    It follows no link, because somebody else may have made it, except those to descriptors in /dev and /proc.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (0 if path.startswith(("/dev/", "/proc/")) else os.O_NOFOLLOW)
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(error.errno, "it is a symbolic link") from error
        raise
