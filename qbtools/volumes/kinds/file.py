"""Volumes that are regular files. qbtools/volumes/files reads and writes them."""

from __future__ import annotations

import os
import stat

from qbtools.errors import QbError, Refused, UsageError
from qbtools.lean import TYPE_CHECKING, suppress
from qbtools.volumes import kernel, spots
from qbtools.volumes.files import clone, images, leftovers, source
from qbtools.volumes.kind import Kind, Source, SourceOptions, Target, TargetOptions, naming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qbtools.volumes.marks import Owner
    from qbtools.volumes.spots import Spot


class FileKind(Kind):
    """Regular files. They have snapshots if the file system has reflinks."""

    scheme = "file"

    def exists(self, word: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(word).st_mode)
        except (OSError, ValueError):
            return False

    def could_be_made(self, word: str) -> bool:
        """True in every existing directory, but not among devices, where it would be a misspelt device."""
        try:
            place = os.stat(os.path.dirname(os.path.realpath(word)))
            devices = os.stat("/dev").st_dev
            return (
                stat.S_ISDIR(place.st_mode)
                and not os.path.lexists(os.path.realpath(word))
                and (place.st_dev != devices or os.stat("/").st_dev == devices)
            )
        except (OSError, ValueError):
            return False

    def sizes(self, name: str, options: SourceOptions) -> tuple[int, int]:
        self._check(name)
        with source.open_plain(name) as plain:
            images.look(plain.fd, name, options)
            return plain.size, plain.extents().data

    def open_source(self, name: str, options: SourceOptions) -> Source:
        self._check(name)
        return source.open_source(name, options)

    def path(self, name: str) -> str:
        return name

    def spot(self, name: str) -> Spot:
        return spots.of_file(name)

    def complete(self, name: str) -> bool:
        return self.exists(name)

    def open_target(self, name: str, options: TargetOptions) -> Target:
        from qbtools.volumes.files.target import FileTarget

        if name.endswith("/"):
            raise UsageError(f"{name} is a directory, not a volume")
        if os.path.exists(name):
            self._check(name)
        return FileTarget(name, options)

    def prepare(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> Callable[[], list[str]]:
        if options.state not in (None, "snapshot"):
            raise UsageError(f"a snapshot of a file has the state snapshot, not {options.state}")
        clones = [_Clone(name) for name in names]

        def take() -> list[str]:
            made: list[str] = []
            try:
                for each in clones:
                    each.take()
                for each in clones:
                    made.append(f"{self.scheme}:{each.give_name(mark)}")
            except BaseException:
                for spec in made:
                    with suppress(QbError):
                        self.release(spec)
                raise
            return made

        return take

    def take(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> list[str]:
        return self.prepare(names, mark, options)()

    def can_keep(self, name: str, options: SourceOptions) -> bool:
        from qbtools.volumes.files import sharing

        if options.state not in (None, "snapshot"):
            return False
        with suppress(OSError):
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return sharing.known(fd)
            finally:
                os.close(fd)
        return False

    def stamp(self, name: str) -> str:
        """Its inode, and its time of change, which every write and every change of its rights sets."""
        with naming(f"use {name}"):
            fd = clone.open_kept(name)
            try:
                found = os.fstat(fd)
            finally:
                os.close(fd)
        return f"{found.st_ino}-{found.st_ctime_ns}"

    def marked(self, places: Sequence[str]) -> Iterator[tuple[str, Owner]]:
        for place in places:
            with naming(f"read {place}"):
                found = list(leftovers.in_directory(place))
            for name, mark in found:
                yield f"{self.scheme}:{os.path.join(place, name)}", mark

    def release(self, spec: str) -> None:
        path = spec.removeprefix(f"{self.scheme}:")
        if leftovers.mark_of(os.path.basename(path)) is None:
            raise Refused(f"{spec} has no mark of qbtools")
        with naming(f"remove {spec}"):
            os.unlink(path)

    @staticmethod
    def _check(name: str) -> None:
        with naming(f"open {name}"):
            mode = os.stat(name).st_mode
        if not stat.S_ISREG(mode):
            raise UsageError(f"{name} is not a regular file")


class _Clone:
    """A file that is ready to be cloned; its data in memory is written to the disk.

    The object may be dropped instead, which closes its descriptors.
    """

    def __init__(self, name: str) -> None:
        """Refused if its place has no reflinks."""
        FileKind._check(name)
        self._name = name
        import weakref

        with naming(f"open {name}"):
            self._file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        self._close_file = weakref.finalize(self, os.close, self._file)
        with naming(f"read {name}"):
            os.fdatasync(self._file)
        try:
            self._copy = clone.prepare(self._file, name)
        except OSError as error:
            raise source.no_snapshot(name, os.strerror(error.errno or 0)) from None
        self._close_copy = weakref.finalize(self, os.close, self._copy)

    def take(self) -> None:
        with naming(f"take a snapshot of {self._name}"):
            kernel.clone(self._copy, self._file)

    def give_name(self, mark: Owner) -> str:
        """Its path, beside the file."""
        with naming(f"give a snapshot of {self._name} a name"):
            path = clone.give_name(self._copy, self._name, mark)
        self._close_copy()
        self._close_file()
        return path


KIND = FileKind()
