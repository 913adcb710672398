"""Reads the disk in an image, through qemu-nbd."""

from __future__ import annotations

import os

from qbtools.descriptors import drop_cache
from qbtools.errors import Failed, Refused
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes.files import guards
from qbtools.volumes.nbd.connection import Connection
from qbtools.volumes.nbd.source import NbdSource
from qbtools.volumes.qemu import server
from qbtools.volumes.qemu.chain import Chain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qbtools.volumes.kind import SourceOptions

_LOCKED = "shut its machine down first; --state=current reads it anyway, but the copy may be inconsistent"
_DROP = 64 << 20  # bytes after which the pages of the files are dropped from the cache


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
            if current:
                node = node[:-1] + ',"force-share":true}'
            self._server = server.Server(name, node, self._chain.fds, ("--read-only",), _LOCKED)
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

    def blocks(self, extents: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
        since = 0
        for block in super().blocks(extents):
            yield block
            since += len(block)
            if since >= _DROP:
                since = 0
                self._drop()

    def _drop(self) -> None:
        """A backup must not push the pages of others out of memory."""
        for fd in self._chain.fds:
            drop_cache(fd)

    def check(self) -> None:
        for guard in self._guards:
            guard.check()

    def close(self) -> None:
        super().close()
        self._drop()
        self._release()

    def _release(self) -> None:
        if self._server is not None:
            self._server.close()
        self._chain.close()
