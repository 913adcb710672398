"""A small file beside an archive, with its ID or its receipt. It gets its name when the archive is complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType

from qbtools import directories
from qbtools.descriptors import write_fd
from qbtools.errors import Failed, Refused
from qbtools.volumes import spots
from qbtools.volumes.files import leftovers
from qbtools.volumes.marks import Mark
from qbtools.volumes.spots import Apart


class Unwritten(Failed):
    """The archive is complete, but the file beside it cannot be written."""


class SideFile:
    """The file is opened before the first byte is read, so that it is known to be writable. The end of the `with`
    removes a file without its final name; what a killed run leaves has a mark, and the next run removes it.

    path None: nothing is written. replace: an existing file is replaced at the end, in one step.
    """

    def __init__(self, path: str | None, replace: bool = False) -> None:
        """Failed if path is not writable, or no file can be created beside it. Refused if it exists and is not
        replaced; a pipe or a device is written to."""
        self._path = path
        self._replace = replace
        self._fd = -1
        self._directory = -1
        self._partial = ""
        if path is None:
            return
        try:
            if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
                self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # a pipe or a device
                return
            self._path = os.path.realpath(path)
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if os.path.lexists(self._path) and not replace:
                raise Refused(f"{path} already exists")
            self._create()
        except OSError as error:
            raise Failed(f"cannot write {path}: {error.strerror}") from error

    def _create(self) -> None:
        parent, self._base = os.path.split(self._path or "")
        self._directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            leftovers.remove_dead(self._directory)
            self._partial = leftovers.new_name(Mark.own())  # before it is created: a signal may end us then
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._partial, flags, 0o600, dir_fd=self._directory)
        except BaseException:
            self.close()
            raise

    @property
    def wanted(self) -> bool:
        """Whether there is a file to be written."""
        return self._path is not None

    def finish(self, data: bytes) -> None:
        """Writes data and gives the file its name. Unwritten on an I/O error, and if the name is taken by now."""
        if self._path is None:
            return
        try:
            write_fd(self._fd, data)
            if self._partial:
                os.fsync(self._fd)
                self._name()
                self._partial = ""
                directories.flush(self._directory)
        except OSError as error:
            raise Unwritten(f"the archive is complete, but {self._path} cannot be written: {error.strerror}") from error
        self.close()

    def _name(self) -> None:
        if self._replace:
            os.rename(self._partial, self._base, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        else:
            directories.rename_new(self._directory, self._partial, self._base)

    def close(self) -> None:
        """Removes what has no name. Has no effect after finish()."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._partial:
            with suppress(OSError):
                os.unlink(self._partial, dir_fd=self._directory)
            self._partial = ""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def __enter__(self) -> SideFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def refuse_same(option: str, path: str, others: Mapping[str, str | None]) -> None:
    """Refused if the file of an option is one of others: their paths (None: no file) by description."""
    apart = Apart()
    for words, other in others.items():
        if other is not None:
            apart.add(spots.of_file(other), words)
    if (same := apart.add(spots.of_file(path), "")) is not None:
        raise Refused(f"{option} {path} is the same file as {same}")
