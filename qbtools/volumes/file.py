"""Volumes that are regular files.

A target is written without a name (O_TMPFILE) in the directory where it will stand, so that nothing is left of it
by whatever end of the program, SIGKILL included, and gets its name when it is whole and on stable storage. Where
the file system has no O_TMPFILE it has a name of its own meanwhile, `.qb-volwrite-….partial`, which only SIGKILL
and a crash leave behind.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from qbtools.errors import Failed, Refused
from qbtools.formats.volumestream import ExtentMap
from qbtools.volumes import kernel
from qbtools.volumes.kind import Source, Target, naming

NEW_MODE = 0o600
"""The mode of a file that was not there before: what is in it was the private disk of a machine."""

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS)


class FileSource(Source):
    """A regular file; its map is what the file system says (SEEK_DATA, SEEK_HOLE)."""

    def __init__(self, name: str) -> None:
        """OSError where name cannot be opened."""
        with naming(f"open {name}"):
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        super().__init__(name, fd, os.fstat(fd).st_size)

    def extents(self) -> ExtentMap:
        found = ExtentMap(self.size)
        at = 0
        with naming(f"read the map of {self.name}"):
            while (at := kernel.next_data(self.fd, at, self.size)) < self.size:
                end = kernel.next_hole(self.fd, at, self.size)
                found.add(at, end - at)
                at = end
        return found

    def check(self) -> None:
        with naming(f"read {self.name}"):
            size = os.fstat(self.fd).st_size
        if size < self.size:
            raise Failed(f"{self.name} shrank while it was read, from {self.size} to {size} bytes")


class FileTarget(Target):
    """A regular file that appears, or takes the place of one, when it is whole.

    Symbolic links are followed: the file that they lead to is made or replaced. One that is replaced hands on its
    owner and mode.
    """

    def __init__(self, name: str, overwrite: bool) -> None:
        """Refused where name exists, unless overwrite; Failed where no file can be made beside it."""
        super().__init__(name, -1)
        self._overwrite = overwrite
        self._directory: int | None = None
        self._partial: str | None = None  # a name beside its own, which must not stay
        parent, self._base = os.path.split(os.path.realpath(name))
        try:
            with naming(f"make {name}"):
                self._directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._old = self._look()
                if self._old is not None and not overwrite:
                    raise Refused(f"{name} exists", "--overwrite replaces it")
                self.fd = self._open()
        except BaseException:
            self.close()
            raise

    def _look(self) -> os.stat_result | None:
        """What has the name now."""
        try:
            return os.stat(self._base, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _open(self) -> int:
        """The file without a name; where that is not to be had, one with a name that nobody else uses."""
        if os.path.exists("/proc/self/fd"):  # what is open gets its name through it
            try:
                return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, NEW_MODE, dir_fd=self._directory)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
        self._partial = self._new_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self._partial, flags, NEW_MODE, dir_fd=self._directory)

    @staticmethod
    def _new_name() -> str:
        return f".qb-volwrite-{os.urandom(8).hex()}.partial"

    def start(self, size: int | None) -> None:
        if size is not None:
            self._set_size(size)

    def _set_size(self, size: int) -> None:
        with naming(f"make {self.name} {size} bytes long"):
            os.ftruncate(self.fd, size)

    def zero(self, offset: int, length: int) -> None:
        """Nothing is to be done: the file is new, and what is not written in it is a hole."""

    def flush(self, size: int) -> None:
        self._set_size(size)
        with naming(f"write to {self.name}"):
            os.fsync(self.fd)

    def commit(self) -> None:
        with naming(f"give {self.name} its name"):
            if self._old is not None:
                self._take_over(self._old)
            if self._overwrite:
                self._replace()
            else:
                self._appear()
        with naming(f"flush the directory of {self.name}"):
            self._flush_directory()

    def _take_over(self, old: os.stat_result) -> None:
        """Owner and mode of the file that is replaced; what its group and others may do only with its owner."""
        mode = stat.S_IMODE(old.st_mode) & 0o777
        try:
            os.fchown(self.fd, old.st_uid, old.st_gid)
        except PermissionError:
            mode &= 0o700
        os.fchmod(self.fd, mode)

    def _replace(self) -> None:
        if self._partial is None:
            self._partial = self._new_name()
            self._link(self._partial)
        os.rename(self._partial, self._base, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._partial = None

    def _appear(self) -> None:
        """Gives the file its name; Refused where something has it by now."""
        try:
            if self._partial is None:
                self._link(self._base)
            else:
                kernel.rename_new(self._directory or 0, self._partial, self._base)
                self._partial = None
        except FileExistsError:
            raise Refused(f"{self.name} has appeared meanwhile", "nothing was written to it") from None

    def _link(self, name: str) -> None:
        # dst_dir_fd makes Python call linkat(AT_SYMLINK_FOLLOW); plain link() would link the symbolic link itself.
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self._directory, follow_symlinks=True)

    def _flush_directory(self) -> None:
        try:
            os.fsync(self._directory or 0)
        except OSError as error:
            if error.errno not in kernel.UNSUPPORTED:
                raise

    def close(self) -> None:
        super().close()
        if self._partial is not None:
            with suppress(OSError):
                os.unlink(self._partial, dir_fd=self._directory)
        if self._directory is not None:
            os.close(self._directory)
        self._directory = self._partial = None
