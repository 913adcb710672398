"""Reads the disk in an image: through qemu-nbd, or in the file if its bytes lie there as they are."""

from __future__ import annotations

import os
from itertools import groupby

from qbtools.descriptors import Place, drop_cache
from qbtools.errors import Failed, Refused
from qbtools.formats.volumestream import MAX_SIZE
from qbtools.lean import TYPE_CHECKING, suppress
from qbtools.streams import BLOCK
from qbtools.volumes.files import guards
from qbtools.volumes.nbd.connection import Connection
from qbtools.volumes.nbd.source import NbdSource
from qbtools.volumes.qemu import places, server
from qbtools.volumes.qemu.chain import Chain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qbtools.volumes.kind import SourceOptions

_LOCKED = "shut its machine down first; --state=current reads it anyway, but the copy may be inconsistent"
_DROP = 64 << 20  # bytes after which the pages of the files are dropped from the cache
_EARLY = 4 << 20  # bytes that the kernel is asked for before they are read


class ImageSource(NbdSource):
    """The disk that a machine would see. QEMU locks the image meanwhile: no machine can start with it."""

    def __init__(self, path: str, kind: str, options: SourceOptions) -> None:
        """Errors of Chain and Server. Refused if it is locked, unless options ask for the current state."""
        name = f"{kind}:{path}"
        current = options.state == "current"
        self._path = path
        self._chain = Chain(path, kind, server.FIRST)
        self._server: server.Server | None = None
        try:
            self._guards = [
                guards.Watch(fd, lambda why: Failed(f"{name} changed while it was read: {why}"))
                for fd in (() if current else self._chain.fds)
            ]
            node = self._chain.node
            if not current:
                places.check_tables(name, self._chain)
            else:
                node = node[:-1] + ',"force-share":true}'
            self._server = server.Server(name, node, self._chain.fds, ("--read-only",), _LOCKED)
            self._known = iter(()) if current else places.known(name, self._chain)
            self._since = 0
            super().__init__(name, Connection(name, self._server.connect, self._server.why))
        except BaseException:
            self._release()
            raise

    def check_alone(self) -> None:
        """Refused if a copy of the image beside it would not be the same disk."""
        real = os.path.realpath(self._path)
        moved = len(self._chain.fds) > 1 and os.path.dirname(real) != os.path.realpath(os.path.dirname(self._path))
        if moved or self._chain.has_data_file:
            why = "it is a symbolic link to another directory" if moved else "its data is in another file"
            raise Refused(f"{self.name}: no snapshot can be taken of it: {why}")

    def blocks(self, extents: Iterable[tuple[int, int]]) -> Iterator[memoryview | Place]:
        for direct, parts in groupby(self._places(extents), lambda part: part.fd >= 0):
            if direct:
                yield from _early(parts)
            else:
                yield from self._from_server((part.offset, part.length) for part in parts)

    def _places(self, extents: Iterable[tuple[int, int]]) -> Iterator[Place]:
        """The extents in parts. Descriptor -1: qemu-nbd reads this part, at an offset of the disk.

        It also reads a small part that follows one of its own: to wait until it has answered everything takes longer.
        """
        begin = end = offset = 0
        fd = -1
        served = False
        for at, length in extents:
            stop = at + length
            while at < stop:
                while end <= at:
                    begin, end, fd, offset = next(self._known, (MAX_SIZE, MAX_SIZE + 1, -1, 0))
                missing = at < begin
                count = min(begin if missing else end, stop) - at
                served = missing or (served and count < BLOCK)
                if not served:
                    count = min(count, BLOCK)
                yield Place(-1, at, count) if served else Place(fd, offset + at - begin, count)
                at += count

    def _from_server(self, extents: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        for block in self.served(extents):
            yield block
            self._since += len(block)
            if self._since >= _DROP:
                self._since = 0
                self._drop()

    def _drop(self) -> None:
        """A backup must not push the pages of others out of memory."""
        for fd in self._chain.fds:
            drop_cache(fd)

    def check(self) -> None:
        for _ in self._known:  # the rest of the map: has a file lost its end?
            pass
        for guard in self._guards:
            guard.check()
        if self._server is not None:
            self._server.check()

    def close(self) -> None:
        super().close()
        self._drop()
        self._release()

    def _release(self) -> None:
        if self._server is not None:
            self._server.close()
        self._chain.close()


def _early(parts: Iterable[Place]) -> Iterator[Place]:
    """The same parts. The kernel reads several of them at a time, wherever they are."""
    waiting: list[Place] = []
    size = 0
    for part in parts:
        with suppress(OSError):
            os.posix_fadvise(part.fd, part.offset, part.length, os.POSIX_FADV_WILLNEED)
        waiting.append(part)
        size += part.length
        while size > _EARLY:
            size -= waiting[0].length
            yield waiting.pop(0)
    yield from waiting
