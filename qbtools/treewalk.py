"""Finds what of a directory is saved, and what is left out and why: for a list before a run, and for tar."""

from __future__ import annotations

import os
import stat
from errno import EACCES, EHOSTDOWN, ENOENT, ENOKEY, ENOTCONN, ENOTDIR, EPERM, ESTALE
from io import FileIO

from qbtools.errors import Failed, naming
from qbtools.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNTS = "/proc/self/mountinfo"
_HEADER = 1024  # about the bytes that a member needs in an archive in addition to its data

# The user may not read the file, or it is on a file system that is gone. Any other error is a failure.
_UNREADABLE = (EACCES, EPERM, ENOKEY, ENOTCONN, ESTALE, EHOSTDOWN)
_VANISHED = (ENOENT, ENOTDIR)

_KINDS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
OTHER_FILE_SYSTEM = "another file system is mounted there"


class LeftOut(NamedTuple):
    """Something below a directory that is not saved. path: relative to the directory."""

    path: str
    reason: str


class Found(NamedTuple):
    """size: about the size of the directory's archive in bytes. left_out: in the order in which it was found."""

    size: int
    left_out: list[LeftOut]


def walk(path: str) -> Found:
    """Examines everything below the directory path.

    Sockets, devices, files that cannot be read, and other file systems that are mounted below it are left out. The
    other file systems are not accessed, because a mount may hang or be dead. Subvolumes of the same file system are
    included. Failed if path itself cannot be read, and on an I/O error.
    """
    left_out: list[LeftOut] = []
    return Found(sum(_sizes(path, left_out)), left_out)


def _sizes(path: str, left_out: list[LeftOut]) -> Iterator[int]:
    """The bytes of each file and directory; adds to left_out."""
    foreign = _foreign_mounts(path)
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = _entries(f"{path}/{folder}")
        except OSError as error:
            if not folder:
                raise Failed(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
            _judge(error, f"{path}/{folder}", LeftOut(folder, ""), left_out)
            continue
        yield _HEADER
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if name in foreign:
                left_out.append(LeftOut(name, OTHER_FILE_SYSTEM))
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                    continue
                status = entry.stat(follow_symlinks=False)
                if kind := _KINDS.get(stat.S_IFMT(status.st_mode)):
                    left_out.append(LeftOut(name, kind))
                    continue
                if stat.S_ISREG(status.st_mode):
                    os.close(os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
            except OSError as error:
                _judge(error, entry.path, LeftOut(name, ""), left_out)
                continue
            yield _HEADER + status.st_size


def _entries(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _judge(error: OSError, path: str, what: LeftOut, left_out: list[LeftOut]) -> None:
    """Leaves out what cannot be read, and ignores what no longer exists. Failed for any other error."""
    if error.errno in _UNREADABLE:
        left_out.append(LeftOut(what.path, f"cannot be read: {os.strerror(error.errno)}"))
    elif error.errno not in _VANISHED:
        raise Failed(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error


def _foreign_mounts(path: str) -> frozenset[str]:
    """The paths below path, relative to it, at which another file system is mounted."""
    own = _mount_of(path)
    top = os.path.realpath(path).rstrip("/") + "/"
    systems: dict[str, bytes] = {}  # by mount point; the last mount at a point hides those before it
    system = b""
    for line in _text(_MOUNTS).splitlines():
        fields = line.split(b" ")
        point = os.fsdecode(plain(fields[4]))
        if fields[0] == own:
            system = fields[2]
        if point.startswith(top):
            systems[point.removeprefix(top)] = fields[2]
    return frozenset(point for point, other in systems.items() if other != system)


def _mount_of(path: str) -> bytes:
    """The number of the mount that path is in."""
    with naming(f"read {path}"):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            lines = _text(f"/proc/self/fdinfo/{fd}").splitlines()
            return next(line.split()[1] for line in lines if line.startswith(b"mnt_id:"))
        finally:
            os.close(fd)


def _text(path: str) -> bytes:
    with naming(f"read {path}"), FileIO(path) as file:
        return file.readall()


def plain(text: bytes) -> bytes:
    r"""text with `\040`, as the kernel writes a blank in a list of mounts, and its like turned into what they mean."""
    first, *others = text.split(b"\\")
    return first + b"".join(bytes((int(part[:3], 8) & 0xFF,)) + part[3:] for part in others)
