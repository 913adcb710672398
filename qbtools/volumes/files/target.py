"""Writes a regular file.

The file is written without a name (O_TMPFILE) in its directory, so nothing is left of it however the program ends,
even by SIGKILL. It gets its name when it is complete and on stable storage. If the file system has no O_TMPFILE, the
file has a temporary name with a mark. Only SIGKILL and a crash leave such a file behind, and the next run removes it.
"""

from __future__ import annotations

import errno
import os
import stat

from qbtools import directories
from qbtools.errors import Refused
from qbtools.lean import suppress
from qbtools.volumes import inuse, kernel, spots
from qbtools.volumes.files import guards, leftovers
from qbtools.volumes.kind import Room, Target, TargetOptions, naming

NEW_MODE = 0o600
"""The mode of a new file: its content was the private disk of a machine."""

# File systems that may compress data, or share equal blocks.
_PACKED = frozenset(("btrfs", "zfs", "bcachefs", "f2fs", "ubifs", "jffs2"))

# File systems that have no sparse files.
_DENSE = frozenset(("vfat", "msdos", "exfat", "hfs", "hfsplus"))

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS)


class FileTarget(Target):
    """A regular file that gets its name, or replaces an existing file, when it is complete.

    Symbolic links are followed: the file that they point to is created or replaced. The new file gets the owner, mode
    and attribute +C of the old one, which nobody may have open for writing.
    """

    def __init__(self, name: str, options: TargetOptions) -> None:
        """Refused if name exists (unless overwrite is set) or is in use; Failed if no file can be created beside it."""
        super().__init__(name, -1)
        self._options = options
        self._directory: int | None = None
        self._partial: str | None = None  # a temporary name in the same directory, which must not remain
        self._replaced = -1  # the old file, open while the guard checks it
        self._guard: guards.Guard | None = None
        self._shrinks: int | None = None
        parent, self._base = os.path.split(os.path.realpath(name))
        try:
            with naming(f"create {name}"):
                self._directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._old = self._look()
                if self._old is not None:
                    self._hold_old()
                leftovers.remove_dead(self._directory)
                self.fd = self._open()
                if self._old is None:
                    spots.check_name(parent, (self._base,), name)
                if self._old is not None:
                    with suppress(OSError):
                        kernel.take_over_nocow(self.fd, self._replaced)
        except BaseException:
            self.close()
            raise

    def _look(self) -> os.stat_result | None:
        """The file that has the name now."""
        try:
            return os.stat(self._base, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _hold_old(self) -> None:
        """Guards the file that will be replaced: new data in it would be lost."""
        if not self._options.overwrite:
            raise Refused(f"{self.name} already exists", "--overwrite replaces it")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._replaced = os.open(self._base, flags, dir_fd=self._directory)
        self._guard = guards.guard(
            self._replaced,
            self.name,
            lambda why: Refused(f"{self.name} came into use meanwhile: {why}", "nothing was written to it"),
            None,
            self._options.warn,
        )

    def _open(self) -> int:
        """The file without a name. If that is not possible, a file with a name that nobody else uses."""
        if os.path.exists("/proc/self/fd"):  # open files get their name through it
            try:
                fd = self._nameless()
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
            else:
                if not inuse.file_system(fd).startswith("fuse") or self._can_link():
                    return fd
                os.close(fd)
        with naming(f"rename files beside {self.name}"):
            directories.check_rename(self._directory or 0)
        self._partial = self._new_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self._partial, flags, NEW_MODE, dir_fd=self._directory)

    def _nameless(self) -> int:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, NEW_MODE, dir_fd=self._directory)

    def _can_link(self) -> bool:
        """Whether a file without a name can get one here. A FUSE file system may support only half of this."""
        fd, name = self._nameless(), self._new_name()
        try:
            self._link(fd, name)
            os.unlink(name, dir_fd=self._directory)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    @staticmethod
    def _new_name() -> str:
        from qbtools.volumes.marks import Mark

        return leftovers.new_name(Mark.own())

    def _old_size(self) -> int:
        """The bytes of the volume that is replaced; 0 if there is none."""
        return 0 if self._old is None else self._old.st_size

    def check(self, size: int | None) -> None:
        old = self._old_size()
        if size is not None and size < old and not self._options.shrink:
            raise Refused(f"{self.name} has {old} bytes, the volume only {size}", "--shrink lets it become smaller")
        if size is not None:
            self._check_limit(size)

    def _check_limit(self, size: int) -> None:
        """Failed if no file of that size can exist here: one of vfat has less than 4 GiB."""
        with naming(f"extend {self.name} to {size} bytes"):
            directories.try_size(self.fd, size)

    def room(self) -> Room:
        found = os.fstatvfs(self.fd)
        freed = 0 if self._old is None else self._old.st_blocks * 512
        kind, free = inuse.file_system(self.fd), found.f_bavail * found.f_frsize
        return Room(("file system", os.fstat(self.fd).st_dev), free, freed, kind in _DENSE, kind in _PACKED)

    def start(self, size: int | None) -> None:
        if size is not None:
            self._set_size(size)

    def _announce(self, size: int) -> None:
        """Checks the size, with a warning if the volume becomes smaller."""
        self.check(size)
        old = self._old_size()
        if size < old and self._shrinks != size:
            self._options.warn(f"{self.name} shrinks from {old} to {size} bytes")
            self._shrinks = size

    def _set_size(self, size: int) -> None:
        self._announce(size)
        with naming(f"extend {self.name} to {size} bytes"):
            os.ftruncate(self.fd, size)

    def zero(self, offset: int, length: int) -> None:
        """Nothing to do: the file is new, so everything that is not written is a hole."""

    def flush(self, size: int) -> None:
        self._set_size(size)
        with naming(f"write to {self.name}"):
            os.fsync(self.fd)

    def commit(self) -> None:
        with naming(f"give {self.name} its name"):
            if self._old is not None:
                self._take_over(self._old)
            if self._options.overwrite:
                self._replace()
            else:
                self._appear()
        with naming(f"flush the directory of {self.name}"):
            directories.flush(self._directory or 0)

    def _take_over(self, old: os.stat_result) -> None:
        """Sets owner and mode as in the replaced file. Without the owner, group and others get no permissions."""
        mode = stat.S_IMODE(old.st_mode) & 0o777
        try:
            os.fchown(self.fd, old.st_uid, old.st_gid)
        except PermissionError:
            mode &= 0o700
        os.fchmod(self.fd, mode)

    def _replace(self) -> None:
        if self._partial is None:
            self._partial = self._new_name()
            self._link(self.fd, self._partial)
        if self._guard is not None:
            self._guard.check()
            self._guard.release()  # from here on this cannot be undone
        os.rename(self._partial, self._base, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._partial = None

    def _appear(self) -> None:
        """Gives the file its name. Refused if the name is taken by now."""
        try:
            if self._partial is None:
                self._link(self.fd, self._base)
            else:
                directories.rename_new(self._directory or 0, self._partial, self._base)
                self._partial = None
        except FileExistsError:
            raise Refused(f"{self.name} was created meanwhile", "nothing was written to it") from None

    def _link(self, fd: int, name: str) -> None:
        # dst_dir_fd makes Python call linkat(AT_SYMLINK_FOLLOW); plain link() would link the symbolic link itself.
        os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=self._directory, follow_symlinks=True)

    def close(self) -> None:
        super().close()
        if self._guard is not None:
            self._guard.release()
        if self._replaced >= 0:
            os.close(self._replaced)
        self._guard, self._replaced = None, -1
        if self._partial is not None:
            with suppress(OSError):
                os.unlink(self._partial, dir_fd=self._directory)
        if self._directory is not None:
            os.close(self._directory)
        self._directory = self._partial = None
