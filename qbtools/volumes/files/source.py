"""Reads a regular file: a clone of it if the file system supports that, otherwise the file itself with a guard."""

from __future__ import annotations

import os

from qbtools.errors import Failed, Refused, UsageError
from qbtools.formats.volumestream import ExtentMap
from qbtools.volumes import kernel
from qbtools.volumes.files import clone, guards, images
from qbtools.volumes.kind import Source, SourceOptions, naming


class FileSource(Source):
    """A regular file. The file system gives its map (SEEK_DATA, SEEK_HOLE)."""

    def __init__(self, name: str, fd: int, guard: guards.Guard | None = None, cloned: bool = False) -> None:
        """fd: the file or a clone of it; it is closed with this. guard: detects changes; None: nothing does."""
        self._guard = guard
        self._cloned = cloned
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
            if self._guard is not None:
                self._guard.check()
        if size < self.size:
            raise Failed(f"{self.name} shrank while it was read, from {self.size} to {size} bytes")

    def changed(self, since: str, size: int, block: int) -> ExtentMap:
        from qbtools.volumes.files import sharing

        if not self._cloned:
            raise Failed("it is not read through a snapshot")
        with naming(f"use {since}"):
            kept = clone.open_kept(since)
            try:
                now = os.fstat(kept).st_size
                if now != size:
                    raise Failed(f"{since} has {now} bytes, not {size}")
                if now > self.size:
                    raise Failed("it has shrunk")
                return sharing.changed(kept, self.fd, block)
            finally:
                os.close(kept)

    def close(self) -> None:
        if self._guard is not None:
            self._guard.release()
        super().close()


def open_plain(name: str) -> FileSource:
    """The file itself, without a snapshot."""
    return FileSource(name, _open(name))


def open_source(name: str, options: SourceOptions) -> FileSource:
    """The file in the state that options ask for; as Kind.open_source()."""
    if options.state == "before-start":
        raise UsageError(f"{name} is a file: it has no state from before the start of a machine")
    fd = _open(name)
    try:
        warning = images.look(fd, name, options)
        if warning:
            options.warn(warning)
        if options.state == "current":
            return FileSource(name, fd)
        try:
            copy = clone.prepare(fd, name)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
        else:
            return _snapshot(name, fd, copy, options)
        if options.state == "snapshot":
            raise no_snapshot(name, reason)
        options.note(f"{name}: no snapshot ({reason}), reading the file itself")
        guard = guards.guard(
            fd,
            name,
            lambda why: Failed(f"{name} changed while it was read: {why}"),
            "--state=current reads it anyway, but the copy may be inconsistent",
            options.warn,
        )
        return FileSource(name, fd, guard)
    except BaseException:
        os.close(fd)
        raise


def _snapshot(name: str, fd: int, copy: int, options: SourceOptions) -> FileSource:
    try:
        with naming(f"take a snapshot of {name}"):
            kernel.clone(copy, fd)
        source = FileSource(name, copy, cloned=True)
    except BaseException:
        os.close(copy)
        raise
    os.close(fd)
    options.note(f"{name}: reading a snapshot")
    return source


def no_snapshot(name: str, reason: str) -> Refused:
    """The error if the file system or the directory of a file allows no snapshot."""
    return Refused(f"{name}: no snapshot can be taken here: {reason}", "btrfs and xfs can, in the file's directory")


def _open(name: str) -> int:
    with naming(f"open {name}"):
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC)
