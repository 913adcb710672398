"""The text of a run of a series. It is written when the run begins, and written again when its archive is complete:

    qb-series-run 1
    number N
    id ID
    base ID
    begun N
    file FILE
    bytes N
    manifest SHA256
    volume SHA256 NAME
    end SHA256

The first lines have the values of the same fields in the ledger. bytes, manifest and volume are missing until the
archive is complete. volume: the SHA-256 of the line that the manifest has for NAME, with its newline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qbtools.formats import blockindex
from qbtools.series import textlines
from qbtools.series.ledger import Entry
from qbtools.series.textlines import NONE, Fields

MAX_SIZE = 1 << 26
"""Bytes of the longest text."""

_MAGIC = "qb-series-run 1"


@dataclass(frozen=True)
class Run:
    """A run. manifest: empty until its archive is complete, and then size and volumes are known too."""

    number: int
    backup_id: str
    base: str | None
    begun: int
    file: str | None = None
    size: int = 0
    manifest: str = ""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of the line of each volume, by its name in the archive."""

    @property
    def complete(self) -> bool:
        """Whether the archive was written to its end."""
        return bool(self.manifest)

    def entry(self) -> Entry:
        """Its archive, for the ledger."""
        return Entry(self.number, self.backup_id, self.base, self.begun, self.size, self.manifest, self.file)


def serialise(run: Run) -> bytes:
    """The text of a run."""
    lines = [
        f"number {run.number}",
        f"id {run.backup_id}",
        f"base {run.base or NONE}",
        f"begun {run.begun}",
        f"file {run.file or NONE}",
    ]
    if run.complete:
        lines += [f"bytes {run.size}", f"manifest {run.manifest}"]
        lines += [f"volume {digest} {name}" for name, digest in run.volumes.items()]
    return textlines.join(_MAGIC, lines)


def parse(data: bytes, name: str) -> Run:
    """The run with this text. Damaged if it is malformed. name: of its file, for the message."""
    fields = Fields(textlines.split(data, _MAGIC, name), name)
    number, backup_id = fields.number(fields.value("number"), 1), fields.backup_id(fields.value("id"))
    base, begun = fields.id_or_none(fields.value("base")), fields.number(fields.value("begun"))
    file = fields.value("file")
    size, manifest, volumes = 0, "", dict[str, str]()
    if (text := fields.maybe("bytes")) is not None:
        size, manifest = fields.number(text), fields.digest(fields.value("manifest"))
    while manifest and (line := fields.maybe("volume")) is not None:
        digest, _, volume = line.partition(" ")
        if blockindex.volume_name_problem(volume) or volume in volumes:
            fields.bad()
        volumes[volume] = fields.digest(digest)
    fields.end()
    return Run(number, backup_id, base, begun, None if file == NONE else file, size, manifest, volumes)
