"""Clones a file at one point in time: the clone shares its blocks (FICLONE; btrfs, xfs and others).

The clone has no name (O_TMPFILE), so nothing is left of it however the program ends.
"""

from __future__ import annotations

import os
import stat

from qbtools.errors import Refused
from qbtools.lean import TYPE_CHECKING, suppress
from qbtools.volumes import kernel
from qbtools.volumes.files import leftovers

if TYPE_CHECKING:
    from qbtools.volumes.marks import Owner


def prepare(source: int, name: str) -> int:
    """The descriptor of a new file in the directory of name, for kernel.clone(). source: the open file called name.

    OSError if that is not possible: the file system does not support it, or the directory is not writable.
    """
    parent = os.path.dirname(os.path.realpath(name))
    fd = os.open(parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with suppress(OSError):
            kernel.take_over_nocow(fd, source)
        _try(fd, source)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _try(fd: int, source: int) -> None:
    """Clones a block, or a whole smaller file, to test whether it works."""
    block = os.fstatvfs(source).f_bsize
    if os.fstat(source).st_size >= block:
        kernel.clone_beginning(fd, source, block)
    else:
        kernel.clone(fd, source)
    os.ftruncate(fd, 0)


def open_kept(path: str) -> int:
    """A clone that give_name() has given a name, to be read. Refused if it is not one, or others could change it."""
    if leftovers.mark_of(os.path.basename(path)) is None:
        raise Refused(f"{path} has no mark of qbtools")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_nlink != 1 or found.st_uid != os.geteuid():
        os.close(fd)
        raise Refused(f"{path} can be changed by others")
    return fd


def give_name(fd: int, name: str, mark: Owner) -> str:
    """Gives a clone of the file name a name with the mark in the same directory. Returns its path. OSError."""
    parent = os.path.dirname(os.path.realpath(name))
    path = os.path.join(parent, leftovers.new_name(mark))
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        leftovers.remove_dead(directory)
        # dst_dir_fd makes Python call linkat(AT_SYMLINK_FOLLOW); plain link() would link the symbolic link itself.
        os.link(f"/proc/self/fd/{fd}", os.path.basename(path), dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)
    return path
