"""Gives files a name in an open directory without replacing other files, and flushes the directory.

Errors are the OSErrors of the kernel.
"""

from __future__ import annotations

import errno
import os
import stat

from qbtools.lean import suppress

_RENAME_NOREPLACE = 1  # linux/fs.h

_TRIED = ".qb-try-"  # the beginning of a name that is only tried
_OLD = 3600.0  # seconds: a try takes milliseconds, so the process of an older one was killed

# The errors of calls that this kernel or file system does not have.
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM)


def rename_new(directory: int, old: str, new: str) -> None:
    """Renames a file in a directory without replacing an existing file. FileExistsError if new exists.

    If the file system cannot do this in a single step, an empty file that only this process can have created reserves
    the new name first. If the rename then fails, or the program ends at that moment, the empty file may remain.
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
        _rename_reserved(directory, old, new)
    else:
        os.unlink(old, dir_fd=directory)


def _rename_reserved(directory: int, old: str, new: str) -> None:
    """The same for a file system with neither call: new is created, and then replaced."""
    is_directory = stat.S_ISDIR(os.stat(old, dir_fd=directory, follow_symlinks=False).st_mode)
    if is_directory:
        os.mkdir(new, 0o700, dir_fd=directory)
    else:
        os.close(_create(directory, new))
    ours = os.stat(new, dir_fd=directory, follow_symlinks=False)
    try:
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            if is_directory:
                os.rmdir(new, dir_fd=directory)
            elif os.path.samestat(ours, os.stat(new, dir_fd=directory, follow_symlinks=False)):
                os.unlink(new, dir_fd=directory)
        raise


def _create(directory: int, name: str) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)


def check_rename(directory: int) -> None:
    """Tries rename_new() and a rename over a file, with its own empty files. OSError if one of them does not work."""
    _remove_old(directory)
    names = [f"{_TRIED}{os.urandom(8).hex()}" for _ in range(3)]
    try:
        for name in names[:2]:
            os.close(_create(directory, name))
        rename_new(directory, names[0], names[2])
        os.rename(names[1], names[2], src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        for name in names:
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)


def try_name(place: str, below: tuple[str, ...], other: tuple[str, ...] = ()) -> bool:
    """Tries whether a file below[-1] in directories below[:-1] can exist in the directory place.

    Everything is created in a new directory, and removed again. Returns whether the file is then found as other, too.
    OSError if the file system cannot hold such a file.
    """
    _remove_old(place)
    top = os.path.join(place, f"{_TRIED}{os.urandom(8).hex()}")
    made: list[str] = []
    try:
        for path in (top, *(os.path.join(top, *below[:count]) for count in range(1, len(below)))):
            os.mkdir(path, 0o700)
            made.append(path)
        path = os.path.join(top, *below)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            return bool(other) and os.path.lexists(os.path.join(top, *other))
        finally:
            os.unlink(path)
    finally:
        remove(made)


def _remove_old(place: int | str) -> None:
    """Removes what tries of killed processes have left in a directory: empty files and directories, as far as possible.

    The age decides, because the process may have run on another machine.
    """
    import time

    until = time.time() - _OLD
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(_TRIED) and entry.stat(follow_symlinks=False).st_mtime < until:
                _remove_empty(entry, place if isinstance(place, int) else None)


def _remove_empty(entry: os.DirEntry[str], directory: int | None) -> None:
    found = entry.stat(follow_symlinks=False)
    with suppress(OSError):
        if stat.S_ISREG(found.st_mode) and not found.st_size:
            os.unlink(entry.path, dir_fd=directory)
        elif stat.S_ISDIR(found.st_mode) and directory is None:
            with os.scandir(entry.path) as below:
                for one in below:
                    _remove_empty(one, None)
            os.rmdir(entry.path)


def try_size(fd: int, size: int) -> None:
    """OSError if an open file cannot have so many bytes, because of its file system or RLIMIT_FSIZE. Moves its offset.

    vfat has no files of 4 GiB or more.
    """
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and size > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    try:
        os.lseek(fd, size, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG)) from error


def make(path: str) -> list[str]:
    """Creates a directory and the missing ones above it. Returns the created ones. After an OSError none remains."""
    missing: list[str] = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    if path and not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    made: list[str] = []
    try:
        for each in reversed(missing):
            try:
                os.mkdir(each)
            except FileExistsError:
                if not os.path.isdir(each):  # otherwise another program created it first
                    raise
            else:
                made.append(each)
    except OSError:
        remove(made)
        raise
    return made


def remove(made: list[str]) -> None:
    """Removes the directories that make() created, if they are empty."""
    for each in reversed(made):
        with suppress(OSError):
            os.rmdir(each)


def flush(directory: int) -> None:
    """Writes the names in a directory to stable storage, if its file system supports that."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
