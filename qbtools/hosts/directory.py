"""A host that is a directory: qubes.xml, and DOMAIN/VOLUME.img for each volume.

The directory of a domain that is not complete yet, or is being removed, has an empty file whose name is a mark.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from qbtools.domains import names
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Failed, Refused
from qbtools.hosts import further
from qbtools.hosts.further import IMAGE, MARK
from qbtools.hosts.local import Found, Places
from qbtools.volumes import inuse, locate
from qbtools.volumes.kind import SourceOptions, naming
from qbtools.volumes.marks import Mark


class Directory(Places):
    """The images in a directory."""

    without: tuple[str, ...] = ("qubes.xml",)  # the metadata is in the same directory

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._opened: frozenset[tuple[int, int]] | None = None

    def folder(self, domain: str) -> str:
        return os.path.join(self._root, domain)

    def images(self, volumes: Iterable[str]) -> set[str]:
        return {volume + IMAGE for volume in volumes}

    def unlisted(self, inventory: Metadata, kept: Collection[str]) -> Iterator[tuple[str, str]]:
        for entry in further.others(self._root, (names.ADMIN, *inventory.by_name)):
            path = os.path.join(self._root, entry)
            if path in kept:
                continue
            try:
                if os.path.isdir(path) and not _marks(path) and not any(further.others(path)):
                    continue  # an empty directory belongs to nobody
                marked = os.path.isdir(path) and bool(_marks(path))
            except (Failed, OSError):
                marked = False
            yield path, "an unfinished restore" if marked else "no domain in qubes.xml has it"

    def _image(self, domain: str, volume: str) -> str:
        return os.path.join(self._root, domain, volume + IMAGE)

    def source(self, domain: str, volume: str) -> str:
        return f"file:{self._image(domain, volume)}"

    def target(self, domain: str, volume: str) -> str:
        return self.source(domain, volume)

    def found(self, domain: str, volumes: Iterable[str]) -> dict[str, Found]:
        there = {}
        for volume in volumes:
            path = self._image(domain, volume)
            with naming(f"check {path}"):
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    continue
                running = self._is_opened(status) and inuse.writer(status, -1) is not None
            size, used = locate.sizes(self.source(domain, volume), SourceOptions(opaque=True))
            there[volume] = Found(size, used, running)
        return there

    def _is_opened(self, status: os.stat_result) -> bool:
        """Whether the file may have a writer, by one look at all processes: a verb may ask for thousands of files."""
        if self._opened is None:
            self._opened = inuse.opened()
        return (status.st_dev, status.st_ino) in self._opened

    def check(self, domain: str, volumes: Iterable[str]) -> None:
        place = self.folder(domain)
        with naming(f"look into {place}"):
            if os.path.islink(place) or (os.path.lexists(place) and os.listdir(place) and not _marks(place)):
                raise _no_domains(place)

    def make(self, domain: str, volumes: Sequence[tuple[str, int]], mark: Mark) -> None:
        place = self.folder(domain)
        with naming(f"create {place}"):
            with suppress(FileExistsError):
                os.mkdir(place, 0o700)
            if os.path.islink(place) or os.listdir(place):
                raise _no_domains(place)
        self.mark(domain, (), mark)
        for volume, size in volumes:
            path = self._image(domain, volume)
            with naming(f"create {path}"):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    os.ftruncate(fd, size)
                    os.fsync(fd)
                finally:
                    os.close(fd)
        _flush(place)
        _flush(self._root)

    def mark(self, domain: str, volumes: Iterable[str], mark: Mark) -> None:
        place = self.folder(domain)
        with naming(f"mark {place}"), suppress(FileNotFoundError):  # the directory may not exist
            os.close(
                os.open(
                    os.path.join(place, f"{MARK}{mark}"), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
            )
        _flush(place)

    def unmark(self, domain: str, volumes: Iterable[str]) -> None:
        place = self.folder(domain)
        with naming(f"finish {place}"), suppress(FileNotFoundError):
            for entry in _marks(place):
                os.unlink(os.path.join(place, entry))

    def refuse_used(self, domain: str, volumes: Iterable[str]) -> None:
        with naming(f"check {self.folder(domain)}"):
            _refuse_used(self._image(domain, volume) for volume in volumes)

    def drop(self, domain: str) -> None:
        place = self.folder(domain)
        with naming(f"remove {place}"):
            if not os.path.isdir(place) or os.path.islink(place):
                return
            marks = _marks(place)
            if marks:
                _refuse_used(_images(place))
                _empty(place, marks)
            for entry in marks:  # last: if we are killed before, the mark still names the owner of the rest
                os.unlink(os.path.join(place, entry))
            with suppress(OSError):  # if it is not empty, somebody has put something in it
                os.rmdir(place)
        _flush(self._root)

    def strays(self) -> list[tuple[str, Mark]]:
        found = []
        with naming(f"read {self._root}"):
            for entry in sorted(os.listdir(self._root)):
                place = os.path.join(self._root, entry)
                if names.domain_problem(entry) is None and os.path.isdir(place) and not os.path.islink(place):
                    marks = [Mark.parse(name.removeprefix(MARK)) for name in _marks(place)]
                    found += [(entry, mark) for mark in marks if mark is not None]
        return found


def _no_domains(place: str) -> Refused:
    return Refused(f"{place} already exists, but no domain has that name")


def _marks(place: str) -> list[str]:
    """The names of files in a directory that are marks."""
    return [name for name in sorted(os.listdir(place)) if further.is_mark(name)]


def _refuse_used(images: Iterable[str]) -> None:
    for image in filter(os.path.isfile, images):
        if user := inuse.writer(os.stat(image), -1):
            raise Refused(f"{image} is in use: {user}")


def _images(place: str) -> list[str]:
    return [os.path.join(place, entry) for entry in sorted(os.listdir(place)) if entry.endswith(IMAGE)]


def _empty(place: str, kept: Collection[str] = ()) -> None:
    """Removes everything in a directory except the files to keep, and follows no symbolic link."""
    for entry in sorted(os.listdir(place)):
        path = os.path.join(place, entry)
        if entry in kept:
            continue
        if stat.S_ISDIR(os.lstat(path).st_mode):
            _empty(path)
            os.rmdir(path)
        else:
            os.unlink(path)


def _flush(place: str) -> None:
    """Writes the names in a directory to stable storage, if the file system supports it."""
    with suppress(OSError):
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
