"""Directories as tar archives of many members. GNU tar creates and extracts them.

An archive that is extracted also passes our own reader, because tar stops at the first zero blocks and accepts an
archive without them as complete. The extracted files get their name only when the whole archive was read and checked.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO

from qbtools import directories, programs, treewalk
from qbtools.descriptors import wait, widen_pipe, write_fd
from qbtools.errors import Damaged, Failed, Refused, UsageError, naming
from qbtools.formats.tarreader import TarReader
from qbtools.formats.treemembers import TreeMembers
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import Reader, Writer
from qbtools.volumes import kernel
from qbtools.volumes.marks import Mark

if TYPE_CHECKING:
    from qbtools.streams import RawInput

Warn = Callable[[str], None]

_CHANGED = 1  # the status of tar if a file changed while it was read

_LINE = 1 << 12  # bytes of the longest line of tar that is not cut

_LITTLE = 1 << 16  # bytes: a file system with less room counts as full

_WORKPLACE = ".qb-tree-"  # how the directory is called into which tar extracts; a mark follows

_SET_ID = stat.S_ISUID | stat.S_ISGID

# Extracted files belong to us, have no attributes, and replace nothing.
_EXTRACT = (
    *("--no-same-owner", "--no-same-permissions", "--keep-old-files"),
    *("--no-acls", "--no-selinux", "--no-xattrs", "--warning=no-timestamp"),
)


def save(path: str, name: str, writer: Writer, warn: Warn) -> None:
    """Writes the directory path as an archive in which it is called name; chunks.name_problem() must accept that name.

    There is a warning for everything that treewalk.walk() leaves out, and for each message of tar, for example about
    a file that changed meanwhile. Failed if path cannot be read completely; the archive then ends with SPOILT.
    BrokenPipeError if nobody reads the output.
    """
    left_out = treewalk.walk(path).left_out
    for one in left_out:
        warn(f"{path}/{one.path} is left out: {one.reason}")
    excluded, words = _excluded([f"./{one.path}" for one in left_out])
    argv = [
        *(_tar(), "--create", "--file=-", "--sparse", "--anchored", "--no-wildcards", "--exclude-from=-", *words),
        *(f"--directory={path}", rf"--transform=flags=rhS;s|^\.|{name}|", "."),
    ]
    with excluded, programs.running(argv, stdin=excluded.fileno(), stdout=writer.fd) as tar:
        held: list[str] = []  # if tar fails, its last line only says so, and the line before it says why
        for line in _lines(tar):
            held.append(line)
            if len(held) > 2:
                warn(held.pop(0))
        code = tar.wait()
        if code in (0, _CHANGED):
            for line in held:
                warn(line)
            return
        with naming(f"write to {writer.name}"):
            programs.spoil(writer.fd)
        raise Failed(f"{path} was not saved completely: {held[0] if code > 0 and held else tar.ending()}")


def _excluded(names: Sequence[str]) -> tuple[FileIO, list[str]]:
    """A file with the names that tar leaves out, and options for the names that the file cannot have.

    tar removes blanks at the end of a line.
    """
    odd = {name for name in names if "\n" in name or name[-1].isspace()}
    file = FileIO(os.memfd_create("left out"), "r+")
    Writer(file, "a list for tar").write(os.fsencode("".join(f"{name}\n" for name in names if name not in odd)))
    file.seek(0)
    return file, [f"--exclude={name}" for name in odd]


def _lines(tar: programs.Child) -> Iterator[str]:
    with open(tar.words, "rb", buffering=0, closefd=False) as file:
        reader = Reader(file, "the messages of tar")
        while line := reader.read_line(_LINE):
            yield tar.plain(line.decode("utf-8", "surrogateescape"))


def extract(path: str, name: str, reader: Reader, warn: Warn) -> None:
    """Extracts the file or directory called name from the archive in reader to path.

    Refused if path exists. Damaged if the archive is incomplete, does not have name, or has something in it that is
    not allowed (a device, a file with the rights of another user), or if name is a symbolic link. After an error
    nothing is left.
    """
    parent, base = os.path.split(path.rstrip("/"))
    if base in ("", ".", ".."):
        raise UsageError(f"{path or 'an empty PATH'} cannot be the name of a file")
    path = os.path.join(parent, base)
    if os.path.lexists(path):
        raise _exists(path)
    parent = parent or "."
    with _parents(parent), _workplace(parent, warn) as place:
        _fill(place, name, reader, warn)
        found = f"{place}/{name}"
        _check(found, name)
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with naming(f"write to {path}"):
                kernel.sync_file_system(directory)
            _appear(directory, f"{os.path.basename(place)}/{name}", base, path)
        finally:
            os.close(directory)


@contextmanager
def _parents(parent: str) -> Iterator[None]:
    """Creates the missing directories above; removes them if the body fails."""
    with naming(f"create {parent}"):
        made = directories.make(parent)
    try:
        yield
    except BaseException:
        directories.remove(made)
        raise


@contextmanager
def _workplace(parent: str, warn: Warn) -> Iterator[str]:
    """A new directory, ours alone, in parent. Those of dead runs are removed."""
    place = os.path.join(parent, _WORKPLACE + _mark())
    _remove_dead(parent)
    try:
        with naming(f"create a directory in {parent}"):
            os.mkdir(place, 0o700)
        with naming(f"rename files in {parent}"):
            _try_renaming(parent)
        yield place
    finally:
        _remove(place)
        if os.path.lexists(place):
            warn(f"{place}, which is incomplete, cannot be removed")


def _mark() -> str:
    try:
        return str(Mark.own())
    except Failed:  # without /proc nobody can tell whose it is
        return os.urandom(8).hex()


def _remove_dead(parent: str) -> None:
    """Removes what runs of this user that were killed have left, as far as that is possible."""
    with suppress(OSError):
        for name in os.listdir(parent):
            mark = Mark.parse(name.removeprefix(_WORKPLACE)) if name.startswith(_WORKPLACE) else None
            place = os.path.join(parent, name)
            if mark is not None and mark.dead() and os.lstat(place).st_uid == os.geteuid():
                _remove(place)


def _try_renaming(parent: str) -> None:
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directories.check_rename(directory)
    finally:
        os.close(directory)


def _remove(place: str) -> None:
    """Removes a tree as far as possible, including directories without write permission."""
    import shutil

    for folder, names, _files in os.walk(place):
        for each in (f"{folder}/{name}" for name in names):
            if not os.path.islink(each):
                with suppress(OSError):
                    os.chmod(each, 0o700)
    shutil.rmtree(place, ignore_errors=True)


class _Tee:
    """Reads a file and also writes the data to a pipe, until nobody reads the pipe."""

    def __init__(self, reader: Reader, sink: int) -> None:
        self._file: RawInput = reader.file
        self._fd = reader.fd
        self._sink = sink
        self._wanted = True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        while (count := self._file.readinto(buffer)) is None:
            wait(self._fd, select.POLLIN)
        if self._wanted:
            try:
                write_fd(self._sink, memoryview(buffer)[:count])
            except BrokenPipeError:  # tar has seen the end or has failed; its status says which
                self._wanted = False
        return count


def _fill(place: str, name: str, reader: Reader, warn: Warn) -> None:
    """Lets tar extract name in the directory place, while the archive is read to its end and checked."""
    source, sink = os.pipe()
    try:
        widen_pipe(sink)
        argv = [_tar(), "--extract", "--file=-", f"--directory={place}", *_EXTRACT, "--", name]
        with programs.running(argv, stdin=source) as tar:
            os.close(source)
            source = -1
            _read(TarReader(Reader(_Tee(reader, sink), reader.name)), name)
            os.close(sink)
            sink = -1
            if tar.wait():
                raise Failed(f"cannot extract {name}: {tar.ending()}", _hint(place))
            for line in tar.said():
                warn(line)
    finally:
        for fd in (source, sink):
            if fd >= 0:
                os.close(fd)


def _hint(place: str) -> str | None:
    """Why tar may have failed. The messages of tar depend on the language, and do not always say it."""
    found = os.statvfs(place)
    if found.f_bavail * found.f_frsize >= _LITTLE and (found.f_favail or not found.f_files):
        return None
    return f"there is no space left in {os.path.dirname(place)}"


def check(name: str, reader: Reader) -> None:
    """Reads the archive to its end and writes nothing. Damaged if extract() would report damage."""
    _read(TarReader(reader), name)


def _read(archive: TarReader, name: str) -> None:
    """Reads an archive to its end. Damaged if it does not hold name, or holds in it what must not be,
    or what cannot be extracted."""
    members = TreeMembers(name)
    while (member := archive.next()) is not None:
        members.add(member)
    if not members.found:
        raise Damaged(f"the archive has no member {name}")


def _check(found: str, name: str) -> None:
    """Damaged if the kind or the mode of an extracted file is not allowed."""
    with naming(f"check {name}"):
        top = os.lstat(found)
        if not (stat.S_ISDIR(top.st_mode) or stat.S_ISREG(top.st_mode)):
            kind = "a symbolic link" if stat.S_ISLNK(top.st_mode) else "something else"
            raise Damaged(f"{name} is {kind}, neither a file nor a directory")
        waiting = [found] if stat.S_ISDIR(top.st_mode) else []
        _check_mode(top.st_mode, name)
        while waiting:
            folder = waiting.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    mode = entry.stat(follow_symlinks=False).st_mode
                    _check_mode(mode, name + entry.path.removeprefix(found))
                    if stat.S_ISDIR(mode):
                        waiting.append(entry.path)


def _check_mode(mode: int, untrusted_name: str) -> None:
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        raise Damaged(f"{untrusted_name} is a device")
    if stat.S_ISREG(mode) and mode & _SET_ID:
        raise Damaged(f"{untrusted_name} is a set-user-ID or set-group-ID file")


def _appear(directory: int, old: str, new: str, path: str) -> None:
    """Gives the extracted files their name. Refused if the name is taken by now."""
    with naming(f"give {path} its name"):
        try:
            directories.rename_new(directory, old, new)
        except FileExistsError:
            raise _exists(path) from None
        directories.flush(directory)


def _exists(path: str) -> Refused:
    return Refused(f"{path} already exists")


def _tar() -> str:
    path = programs.find("tar")
    if path is None:
        raise Failed("no tar in PATH", "install the package tar")
    return path
