"""Writes a new qcow2 image: a file target whose content qemu-nbd writes.

qemu-img creates the image in the file, which has no name yet. qemu-nbd fills it. When it has ended, qemu-img checks the
image. Then the file gets its name like any other file target.
"""

from __future__ import annotations

import os

from qbtools.errors import QbError, UsageError, naming
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes.files.target import FileTarget
from qbtools.volumes.kind import Room, TargetOptions
from qbtools.volumes.nbd import binding
from qbtools.volumes.nbd.connection import Connection
from qbtools.volumes.nbd.target import NbdTarget
from qbtools.volumes.qemu import server
from qbtools.volumes.qemu.chain import Header

if TYPE_CHECKING:
    from qbtools.streams import Buffer
    from qbtools.volumes.qemu.creation import Creation

_SECTOR = 512  # the size of a disk is a multiple of it
_FILE = f'{{"driver":"file","filename":"/proc/self/fd/{server.FIRST}"}}'
_NODE = f'{{"driver":"qcow2","file":{_FILE},"backing":null}}'
_LARGEST = (1 << 63) - (1 << 22)


class Qcow2Target(FileTarget):
    """An image that gets its name, or replaces a file, when it is complete and was checked."""

    _server: server.Server | None = None
    _inner: NbdTarget | None = None
    _cluster: tuple[int, bytearray] | None = None

    def __init__(self, name: str, path: str, options: TargetOptions, creation: Creation) -> None:
        """name: for messages. Errors of FileTarget. Failed if the programs of QEMU or libnbd are not installed."""
        server.check_installed()
        binding.load()
        self._creation = creation
        super().__init__(path, options)
        self.name = name
        self.grain = min(creation.cluster, 1 << 16)

    def _old_size(self) -> int:
        """The bytes of the disk in the image that is replaced."""
        if self._old is None:
            return 0
        try:
            return Header(self.name, os.pread(self._replaced, 1 << 21, 0)).size
        except (QbError, OSError):
            return super()._old_size()

    def _check_limit(self, size: int) -> None:
        if self._creation.whole:
            super()._check_limit(size)

    def room(self) -> Room:
        found = super().room()
        return found._replace(whole=found.whole or self._creation.whole, packed=found.packed or self._creation.compress)

    def start(self, size: int | None) -> None:
        if size is None or size > _LARGEST:
            raise UsageError(
                f"{self.name}: the size of an image must be known at the start", "a pipe of plain bytes has none"
            )
        self._announce(size)
        self._size = -(-size // _SECTOR) * _SECTOR
        # Compressed clusters are only written whole. So the last one is whole until everything is written.
        cluster = self._creation.cluster
        self.capacity = -(-size // cluster) * cluster if self._creation.compress else self._size
        settings = ("-o", self._creation.settings) if self._creation.settings else ()
        server.image_tool(self.name, [self.fd], "create", "-q", "-f", "qcow2", *settings, "{0}", str(self.capacity))
        self._serve(f'{{"driver":"compress","file":{_NODE}}}' if self._creation.compress else _NODE)

    def _serve(self, node: str, *options: str) -> NbdTarget:
        self._server = server.Server(self.name, node, [self.fd], options, None)
        link = Connection(self.name, self._server.connect, self._server.why)
        self._inner = NbdTarget(self.name, link, read_only=bool(options))
        return self._inner

    def write(self, data: Buffer, offset: int) -> None:
        if self._inner is None:
            raise ValueError("the target was not started")
        if not self._creation.compress:
            return self._inner.write(data, offset)
        size = self._creation.cluster
        view = memoryview(data)
        while len(view):
            number, at = divmod(offset, size)
            if self._cluster is not None and self._cluster[0] != number:
                self._push()
            if self._cluster is None and at == 0 and len(view) >= size:
                part = view[: len(view) // size * size]
                self._inner.write(part, offset)
            else:
                if self._cluster is None:
                    self._cluster = number, bytearray(size)
                part = view[: size - at]
                self._cluster[1][at : at + len(part)] = part
            view = view[len(part) :]
            offset += len(part)
        return None

    def _push(self) -> None:
        """Writes the cluster that was collected: a compressed cluster can be written only once."""
        if self._cluster is not None and self._inner is not None:
            number, data = self._cluster
            self._cluster = None
            self._inner.write(data, number * len(data))

    def next_data(self, at: int, end: int) -> int:
        return self._reader().next_data(at, end)

    def read(self, view: memoryview, at: int) -> int:
        return self._reader().read(view, at)

    def _reader(self) -> NbdTarget:
        return self._inner or self._serve(_NODE, "--read-only")

    def flush(self, size: int) -> None:
        self._push()
        if self._inner is not None:
            self._inner.flush(size)
        self._end()
        if self.capacity != self._size:
            self.capacity = self._size
            words = "resize", "-q", "-f", "qcow2", "--shrink", "{0}", str(self._size)
            server.image_tool(self.name, [self.fd], *words)
        server.image_tool(self.name, [self.fd], "check", "-q", "-f", "qcow2", "{0}")
        with naming(f"write to {self.name}"):
            os.fsync(self.fd)

    def _end(self) -> None:
        """Waits until qemu-nbd has written everything and has ended."""
        if self._inner is not None:
            self._inner.close()
        if self._server is not None:
            self._server.finish()
        self._inner = self._server = None

    def commit(self) -> None:
        self._end()
        super().commit()

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()
        if self._server is not None:
            self._server.close()
        self._inner = self._server = None
        super().close()
