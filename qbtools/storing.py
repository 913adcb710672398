"""A file that gets its name when it is complete.

Until then it is FILE.partial, which is locked as long as its run lives. A partial file without a lock was left by a
dead run, and the next run replaces it.
"""

from __future__ import annotations

import io
import os
import re
import stat
from contextlib import suppress
from types import TracebackType

from qbtools import directories
from qbtools.descriptors import drop_cache, try_lock
from qbtools.errors import Failed, Refused, naming
from qbtools.latesignals import signals_later
from qbtools.streams import Writer

SUFFIX = ".partial"
MAX_NAME = 240
"""The most bytes of a name that a client chooses: every file system can store it together with SUFFIX."""

_MODE = 0o600
_WRITEBACK = 32 << 20  # bytes after which writing to disk begins; otherwise fsync would wait for everything at the end
_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def name_problem(name: str) -> str | None:
    """What is wrong with a file name that a client chooses, or None."""
    if not re.fullmatch(r"[A-Za-z0-9_.@+-]+", name, re.ASCII):
        return "not made of letters, digits and _ . @ + -"
    if len(name) > MAX_NAME:
        return f"longer than {MAX_NAME} bytes"
    if name[0] in ".-":
        return f"begins with {name[0]}"
    return f"ends with {SUFFIX}" if name.endswith(SUFFIX) else None


class PartialFile:
    """FILE.partial, written in a `with`. commit() renames it to FILE; without commit() it is removed.

    No symbolic link is followed at FILE or FILE.partial. Only files that a dead run has left are removed.
    """

    def __init__(self, path: str, overwrite: bool, keep: bool) -> None:
        """overwrite: FILE may exist, and is replaced in one step. keep: FILE.partial stays without commit()."""
        self._path = path
        self._overwrite = overwrite
        self._keep = keep
        self._whole = False
        self._begun = 0  # writing to disk has begun up to here
        self._base = os.path.basename(path)
        self._partial = self._base + SUFFIX
        self.name = path + SUFFIX
        if self._base in ("", ".", ".."):
            raise Refused(f"{path}: not the name of a file")

    def __enter__(self) -> PartialFile:
        """Refused if FILE exists, or another run is writing FILE.partial. Failed if it cannot be created."""
        made: list[int] = []
        try:
            with signals_later(), naming(f"write to {self.name}"):
                self._directory = os.open(os.path.dirname(self._path) or ".", _DIRECTORY)
                made.append(self._directory)
                self._check_free()
                with naming(f"rename files beside {self._path}"):
                    directories.check_rename(self._directory)
                made.append(self._create())
                self.writer = Writer(io.FileIO(made[-1], "w", closefd=False), self.name)
        except BaseException:
            if len(made) == 2:
                self._remove(made[-1])
            for fd in made:
                os.close(fd)
            raise
        return self

    def _remove(self, fd: int) -> None:
        """Removes FILE.partial if it is the open file. What cannot be removed stays."""
        with suppress(OSError):
            if self._is_named(fd):
                os.unlink(self._partial, dir_fd=self._directory)

    def _check_free(self) -> None:
        """Refused if FILE exists and may not or cannot be replaced."""
        found = self._look(self._base)
        if found is None:
            return
        if not self._overwrite:
            raise Refused(f"{self._path} already exists", "--overwrite replaces it")
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
            raise Refused(f"{self._path} already exists, and is not a regular file")

    def _look(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _create(self) -> int:
        """A new FILE.partial, locked."""
        while True:
            try:
                fd = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, _MODE, dir_fd=self._directory)
            except FileExistsError:
                self._remove_dead()
                continue
            try:
                # Before the lock, another run may have taken it for the file of a dead run.
                if try_lock(fd) and self._is_named(fd):
                    return fd
                raise self._busy()
            except BaseException:
                os.close(fd)
                raise

    def _remove_dead(self) -> None:
        """Removes the FILE.partial of a dead run. Does nothing if it no longer exists."""
        found = self._look(self._partial)
        if found is None:
            return
        if not stat.S_ISREG(found.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
            raise Refused(f"{self.name} already exists, and is {kind}", "remove it")
        try:
            fd = os.open(self._partial, os.O_RDWR | os.O_NONBLOCK | _SAFE, dir_fd=self._directory)
        except FileNotFoundError:
            return
        try:
            if not try_lock(fd):
                raise self._busy()
            # The run that held the lock may have renamed it meanwhile: then it is a complete archive, and must stay.
            if self._is_named(fd):
                os.unlink(self._partial, dir_fd=self._directory)
        finally:
            os.close(fd)
        self._check_free()

    def _busy(self) -> Refused:
        return Refused(f"another run is writing {self.name}")

    def _is_named(self, fd: int) -> bool:
        """Whether FILE.partial is the open file."""
        found = self._look(self._partial)
        return found is not None and os.path.samestat(found, os.fstat(fd))

    def largest(self) -> int:
        """The most bytes that the file can have: less than 4 GiB on vfat. Only before data is written."""
        low, high = 0, (1 << 63) - 1
        while low < high:
            middle = high - (high - low) // 2
            try:
                directories.try_size(self.writer.fd, middle)
            except OSError:
                high = middle - 1
            else:
                low = middle
        os.lseek(self.writer.fd, 0, os.SEEK_SET)
        return low

    def begin_writing(self) -> None:
        """Starts writing to disk if much was written since the last call."""
        waiting = self.writer.position - self._begun
        if waiting >= _WRITEBACK:
            drop_cache(self.writer.fd, self._begun, waiting)
            self._begun += waiting

    def commit(self) -> None:
        """Ends a complete file: it gets its name when it is on stable storage. Refused if FILE exists now."""
        with naming(f"write to {self.name}"):
            os.fsync(self.writer.fd)
        with naming(f"give {self._path} its name"):
            if not self._is_named(self.writer.fd):
                raise Failed(f"{self.name} was removed or replaced by another program")
            try:
                if self._overwrite:
                    os.rename(self._partial, self._base, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                else:
                    directories.rename_new(self._directory, self._partial, self._base)
            except FileExistsError:
                raise Refused(f"{self._path} already exists: another program created it meanwhile") from None
        self._whole = True
        with naming(f"flush the directory of {self._path}"):
            directories.flush(self._directory)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fd = self.writer.fd
        if not self._whole and not self._keep:
            self._remove(fd)
        os.close(fd)
        os.close(self._directory)
