"""Names of files in a directory that is open: given without taking another's away, and flushed.

Errors are OSErrors, as the kernel gives them.
"""

from __future__ import annotations

import errno
import os

from qbtools.lean import suppress

_RENAME_NOREPLACE = 1  # linux/fs.h

# What calls answer that this kernel or file system does not have.
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM)


def rename_new(directory: int, old: str, new: str) -> None:
    """Renames within a directory, never over what exists: FileExistsError then.

    Where the file system can do neither this nor hard links, what appears while we look may be lost.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "renameat2", None)
    if call is not None:
        if not call(directory, os.fsencode(old), directory, os.fsencode(new), ctypes.c_uint(_RENAME_NOREPLACE)):
            return
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number))
    try:
        os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _rename_looking(directory, old, new)
    else:
        os.unlink(old, dir_fd=directory)


def _rename_looking(directory: int, old: str, new: str) -> None:
    with suppress(FileNotFoundError):
        os.stat(new, dir_fd=directory, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)


def make(path: str) -> list[str]:
    """Makes a directory and the missing ones above it; returns those that it made. After an OSError none stays."""
    missing: list[str] = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    made: list[str] = []
    try:
        for each in reversed(missing):
            try:
                os.mkdir(each)
            except FileExistsError:
                if not os.path.isdir(each):  # else another program was faster
                    raise
            else:
                made.append(each)
    except OSError:
        remove(made)
        raise
    return made


def remove(made: list[str]) -> None:
    """Removes the directories that make() has made, as far as they are empty."""
    for each in reversed(made):
        with suppress(OSError):
            os.rmdir(each)


def flush(directory: int) -> None:
    """Brings the names in a directory to stable storage, where its file system has a call for that."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
