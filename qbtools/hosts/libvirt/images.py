"""The volumes of machines that a restore creates for libvirt: images in the directory of a storage pool, or devices.

The images have names like POOL/DOMAIN-VOLUME.img, beside those of others. While they are unfinished, or are being
removed, the file PLACE/DOMAIN:MARK has a line `DEVICE INODE PATH` for each: a file is only ours if its line is there.
A device belongs to a pool that is no directory; poolvolumes.py makes it, and has its line.
PLACE/DOMAIN.files has the further files of an unfinished domain.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from qbtools.directories import rename_new
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Failed, Refused
from qbtools.hosts.directory import Directory
from qbtools.hosts.libvirt.poolvolumes import RECORD, PoolVolumes
from qbtools.streams import Writer
from qbtools.volumes import inuse, locate
from qbtools.volumes.files import leftovers
from qbtools.volumes.kind import naming
from qbtools.volumes.marks import Mark
from qbtools.volumes.qemu import server

QCOW2 = "qcow2"
RAW = "raw"
DEVICE = "device"
SUFFIXES = {RAW: ".img", QCOW2: ".qcow2", DEVICE: ""}
"""The suffix of an image by its format; a device has none."""

_MODE = 0o600
_FURTHER = ".files"
_BLANK = b" "
_SCHEMES = {RAW: "file", QCOW2: QCOW2, DEVICE: "block"}


class Images(Directory):
    """The volumes of the domains of a document and of the domains that are unfinished."""

    without: tuple[str, ...] = ()

    def __init__(self, place: str, paths: Mapping[tuple[str, str], str], devices: PoolVolumes) -> None:
        """place: a directory for what is unfinished. paths: of each volume, by domain and volume."""
        super().__init__(place)
        self._paths = paths
        self._devices = devices

    @staticmethod
    def form(path: str) -> str:
        """The format of a volume, by the suffix of its path."""
        return next(form for form, suffix in SUFFIXES.items() if path.endswith(suffix))

    def _image(self, domain: str, volume: str) -> str:
        return self._paths[domain, volume]

    def source(self, domain: str, volume: str) -> str:
        path = self._image(domain, volume)
        return f"{_SCHEMES[self.form(path)]}:{path}"

    def target(self, domain: str, volume: str) -> str:
        path = self._image(domain, volume)
        return locate.explicit(path) if self.form(path) == DEVICE else self.source(domain, volume)

    def folder(self, domain: str) -> str:
        return os.path.join(self._root, f"{domain}{_FURTHER}")

    def images(self, volumes: Iterable[str]) -> set[str]:
        return set()

    def unlisted(self, inventory: Metadata, kept: Collection[str]) -> Iterator[tuple[str, str]]:
        return iter(())

    def check(self, domain: str, volumes: Iterable[str]) -> None:
        with naming(f"read the records of {domain}"):
            ours = {path for record in self._records(domain) for path in self._owned(record)}
        for volume in volumes:
            path = self._image(domain, volume)
            directory = os.path.dirname(path)
            if not path.isascii() or not path.isprintable():
                raise Refused(f"{path} cannot be the path of a volume: only printable ASCII is allowed")
            if self.form(path) == DEVICE:
                self._devices.check(path, path in ours)
                continue
            if self.form(path) == QCOW2:
                server.check_installed()
            if not os.access(directory, os.W_OK | os.X_OK):
                raise Failed(f"cannot write to {directory}, where new volumes go")
            if os.path.lexists(path) and path not in ours:
                raise Refused(f"{path} already exists, but no domain that is being restored has it")

    def make(self, domain: str, volumes: Sequence[tuple[str, int]], mark: Mark) -> None:
        self.check(domain, [volume for volume, _size in volumes])
        with self._record(domain, mark) as record:
            for volume, size in volumes:
                path = self._image(domain, volume)
                with naming(f"create {path}"):
                    if self.form(path) == DEVICE:
                        self._devices.make(path, size, partial(_record, record))
                    else:
                        self._make(path, size, mark, record)

    def _make(self, path: str, size: int, mark: Mark, record: io.FileIO) -> None:
        """Creates an image. Its file is in the record before it has its name."""
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        temporary = leftovers.new_name(mark)
        try:
            leftovers.remove_dead(directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(temporary, flags, _MODE, dir_fd=directory)
            try:
                if self.form(path) == QCOW2:
                    server.image_tool(path, [fd], "create", "-q", "-f", QCOW2, "{0}", str(size))
                else:
                    os.ftruncate(fd, size)
                os.fsync(fd)
                _record(record, _line(os.fstat(fd), path))
            finally:
                os.close(fd)
            rename_new(directory, temporary, os.path.basename(path))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            with suppress(OSError):  # some file systems cannot do that
                os.fsync(directory)
            os.close(directory)

    def mark(self, domain: str, volumes: Iterable[str], mark: Mark) -> None:
        with self._record(domain, mark) as record, naming(f"mark the volumes of {domain}"):
            for path in self._there(domain, volumes):
                device = self.form(path) == DEVICE
                _record(record, self._devices.line(path) if device else _line(os.lstat(path), path))

    def unmark(self, domain: str, volumes: Iterable[str]) -> None:
        with naming(f"finish {domain}"):
            for record in self._records(domain):
                os.unlink(record)

    def complete(self, domain: str, volumes: Iterable[str]) -> None:
        """Called when the volumes were filled: one to which nothing was written reads as zeros from now on."""
        for path in self._there(domain, volumes):
            if self.form(path) == DEVICE:
                self._devices.zero_blank(path)

    def finish(self, domain: str) -> None:
        """Removes what only an unfinished domain needs: the marks and the further files."""
        self._drop_files(domain)
        self.unmark(domain, ())

    def refuse_used(self, domain: str, volumes: Iterable[str]) -> None:
        with naming(f"check the volumes of {domain}"):
            self._refuse_used(self._there(domain, volumes))

    def drop(self, domain: str) -> None:
        with naming(f"remove the volumes of {domain}"):
            self._drop_files(domain)
            for record in self._records(domain):
                paths = self._owned(record)
                self._refuse_used(paths)
                for path in paths:
                    if self.form(path) == DEVICE:
                        self._devices.remove(path)
                    else:
                        os.unlink(path)
                os.unlink(record)  # last: if we are killed before, it still names the rest

    def _drop_files(self, domain: str) -> None:
        with naming(f"remove {self.folder(domain)}"), suppress(FileNotFoundError):
            shutil.rmtree(self.folder(domain))

    def strays(self) -> list[tuple[str, Mark]]:
        found = []
        for entry in self._entries():
            domain, _colon, text = entry.partition(":")
            if (mark := Mark.parse(text)) is not None:
                found.append((domain, mark))
        return found

    def _refuse_used(self, paths: Iterable[str]) -> None:
        for path in paths:
            if self.form(path) == DEVICE:
                self._devices.refuse_used(path)
            elif user := inuse.writer(os.stat(path), -1):
                raise Refused(f"{path} is in use: {user}")

    def _there(self, domain: str, volumes: Iterable[str]) -> list[str]:
        return [path for volume in volumes if os.path.lexists(path := self._image(domain, volume))]

    def _entries(self) -> list[str]:
        with naming(f"read {self._root}"), suppress(FileNotFoundError):
            return sorted(os.listdir(self._root))
        return []

    def _records(self, domain: str) -> list[str]:
        found = [entry for entry in self._entries() if entry.startswith(f"{domain}:")]
        return [os.path.join(self._root, entry) for entry in found if Mark.parse(entry.partition(":")[2]) is not None]

    @contextmanager
    def _record(self, domain: str, mark: Mark) -> Iterator[io.FileIO]:
        path = os.path.join(self._root, f"{domain}:{mark}")
        with naming(f"write {path}"):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        with io.FileIO(fd, "a") as file:
            yield file

    def _owned(self, record: str) -> list[str]:
        """The volumes that a record names and that still are the same files or devices."""
        with io.FileIO(record) as file:
            lines = (file.readall() or b"").split(b"\n")[:-1]  # a line without its end was never valid
        last = {line.rpartition(b"\t")[2]: line for line in lines if line.startswith(RECORD) and line.count(b"\t") == 3}
        found = self._devices.owned(last.values())
        for line in lines:
            device, _blank, rest = line.partition(_BLANK)
            inode, _blank, path = rest.partition(_BLANK)
            with suppress(OSError):
                status = os.lstat(path)
                if (b"%d" % status.st_dev, b"%d" % status.st_ino) == (device, inode):
                    found.append(os.fsdecode(path))
        return found


def _line(status: os.stat_result, path: str) -> bytes:
    return b"%d %d %s\n" % (status.st_dev, status.st_ino, os.fsencode(path))


def _record(record: io.FileIO, line: bytes) -> None:
    Writer(record, "the record of volumes").write(line)
    os.fsync(record.fileno())
