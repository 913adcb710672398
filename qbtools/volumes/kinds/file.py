"""Volumes that are regular files. qbtools/volumes/files reads and writes them."""

from __future__ import annotations

import os
import stat

from qbtools.errors import QbError, UsageError
from qbtools.lean import TYPE_CHECKING, suppress
from qbtools.volumes import spots
from qbtools.volumes.files import clone, images, lasting, leftovers, source
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
        lasting.check(name)
        with source.open_plain(name) as plain:
            images.look(plain.fd, name, options)
            return plain.size, plain.extents().data

    def open_source(self, name: str, options: SourceOptions) -> Source:
        lasting.check(name)
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
            lasting.check(name)
        return FileTarget(name, options)

    def prepare(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> Callable[[], list[str]]:
        if options.state not in (None, "snapshot"):
            raise UsageError(f"a snapshot of a file has the state snapshot, not {options.state}")
        clones = [lasting.Clone(name) for name in names]
        return lambda: [f"{self.scheme}:{path}" for path in lasting.taken(clones, mark)]

    def take(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> list[str]:
        return self.prepare(names, mark, options)()

    def keepable(self, names: Sequence[str], options: SourceOptions) -> list[str]:
        return [name for name in names if options.state in (None, "snapshot") and self._shares(name)]

    @staticmethod
    def _shares(name: str) -> bool:
        from qbtools.volumes.files import sharing

        with suppress(OSError):
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return sharing.known(fd)
            finally:
                os.close(fd)
        return False

    def stamps(self, names: Sequence[str]) -> dict[str, str | QbError]:
        found: dict[str, str | QbError] = {}
        for name in names:
            try:
                found[name] = self._stamp(name)
            except QbError as error:
                found[name] = error
        return found

    @staticmethod
    def _stamp(name: str) -> str:
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
        lasting.release(spec, spec.removeprefix(f"{self.scheme}:"))


KIND = FileKind()
