"""Volumes that an NBD server exports, by their URI. A target is written in place."""

from __future__ import annotations

import os

from qbtools.errors import Refused
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes.kind import Source, SourceOptions, Target, TargetOptions
from qbtools.volumes.snapshotless import SnapshotlessKind
from qbtools.volumes.spots import Spot

if TYPE_CHECKING:
    from qbtools.volumes.nbd.connection import Connection

_PORT = 10809  # of a URI without one


class NbdKind(SnapshotlessKind):
    """Exports of NBD servers. There are no words without the scheme, and no snapshots."""

    scheme = "nbd"
    noun = "an NBD export"

    def exists(self, word: str) -> bool:
        return False

    def could_be_made(self, word: str) -> bool:
        return False

    def sizes(self, name: str, options: SourceOptions) -> tuple[int, int]:
        with self.open_source(name, options) as source:
            return source.size, source.extents().data

    def open_source(self, name: str, options: SourceOptions) -> Source:
        from qbtools.volumes.nbd.source import NbdSource

        self.check_state(name, options)
        scheme, _, bitmap = (options.since or "").partition(":")
        wanted = bitmap if scheme == self.scheme else None
        return NbdSource(f"nbd:{name}", self._connect(name, wanted), wanted)

    def open_target(self, name: str, options: TargetOptions) -> Target:
        from qbtools.volumes.nbd.target import NbdTarget

        link = self._connect(name)
        if not options.overwrite:
            link.close()
            raise Refused(f"nbd:{name} already exists", "--overwrite writes over the content of the export")
        return NbdTarget(f"nbd:{name}", link)

    def complete(self, name: str) -> bool:
        raise Refused(
            f"nbd:{name} is written in place, so it may be incomplete: it cannot be skipped",
            "--overwrite writes it again, --only leaves it out",
        )

    def spot(self, name: str) -> Spot:
        return Spot(frozenset((("nbd", *_export(name)),)))

    @staticmethod
    def _connect(name: str, bitmap: str | None = None) -> Connection:
        from qbtools.volumes.nbd import connection

        return connection.Connection(f"nbd:{name}", connection.to_uri(name), bitmap=bitmap)

    def no_snapshots(self, name: str) -> Refused:
        return Refused(f"nbd:{name} is an NBD export: no snapshot can be taken of it")


def _export(uri: str) -> tuple[str, str]:
    """The server and the export that a URI means, the same for each way to write them. Names of hosts are not
    resolved."""
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:  # it has no export either
        return uri, ""
    transport = parts.scheme.partition("+")[2]
    server = f"{parts.hostname or ''}:{port or _PORT}"
    if transport == "unix":
        fields = (field.partition("=") for field in parts.query.split("&"))
        server = os.path.realpath(next((unquote(value) for key, _, value in fields if key == "socket"), ""))
    return f"{transport}:{server}", unquote(parts.path.removeprefix("/"))


KIND = NbdKind()
