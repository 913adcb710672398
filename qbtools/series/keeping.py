"""Which snapshots and checkpoints a series keeps for an archive, in its file `kept/ID`.

The file is written before they are made, and snapshots are added to it afterwards; it is removed after they were
released. So none exists that it does not tell of. Its text:

    qb-series-kept 1
    id ID
    volume WORD
    checkpoint DOMAIN HOST
    kept NAME STAMP SPEC
    end SHA256

volume: each volume of which a snapshot may exist. checkpoint: each domain of a host that may have a checkpoint.
kept: the snapshot of the volume NAME of the archive, and what tells whether somebody changed it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from qbtools.errors import QbError, naming
from qbtools.formats import blockindex, header
from qbtools.series import textlines
from qbtools.series.directory import Series
from qbtools.series.ledger import Ledger
from qbtools.series.textlines import Fields
from qbtools.streams import Reader

KEEP_PENDING = 2
"""So many runs that are not confirmed keep their snapshots, the latest ones."""

_MAX_SIZE = 1 << 26
_FOLDER = "kept"
_MAGIC = "qb-series-kept 1"


class Snapshot(NamedTuple):
    """A snapshot, as qb-snapshot names it, and its stamp."""

    stamp: str
    spec: str


class Checkpoint(NamedTuple):
    """A domain that may have a checkpoint with the mark of the archive, and its host as for --host."""

    domain: str
    host: str


@dataclass(frozen=True)
class Keeping:
    """The snapshots of an archive, by the names of their volumes in it, and its checkpoints."""

    backup_id: str
    words: Sequence[str]
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    checkpoints: Sequence[Checkpoint] = ()


def serialise(keeping: Keeping) -> bytes:
    """The text with these snapshots."""
    lines = [f"id {keeping.backup_id}", *(f"volume {word}" for word in keeping.words)]
    lines += [f"checkpoint {one.domain} {one.host}" for one in keeping.checkpoints]
    lines += [f"kept {name} {one.stamp} {one.spec}" for name, one in keeping.snapshots.items()]
    return textlines.join(_MAGIC, lines)


def parse(data: bytes, name: str) -> Keeping:
    """The snapshots with this text. Damaged if it is malformed. name: of its file, for the message."""
    fields = Fields(textlines.split(data, _MAGIC, name), name)
    backup_id, words, snapshots = fields.backup_id(fields.value("id")), [], dict[str, Snapshot]()
    while (word := fields.maybe("volume")) is not None:
        words.append(word or fields.bad())
    checkpoints = []
    while (line := fields.maybe("checkpoint")) is not None:
        domain, _, host = line.partition(" ")
        checkpoints.append(Checkpoint(domain, host) if domain and host else fields.bad())
    while (line := fields.maybe("kept")) is not None:
        volume, _, rest = line.partition(" ")
        stamp, _, spec = rest.partition(" ")
        if blockindex.volume_name_problem(volume) or volume in snapshots or not stamp or not spec:
            fields.bad()
        snapshots[volume] = Snapshot(stamp, spec)
    fields.end()
    return Keeping(backup_id, words, snapshots, tuple(checkpoints))


def put(series: Series, keeping: Keeping) -> None:
    """Writes which snapshots an archive keeps. It is on stable storage afterwards."""
    folder = os.path.join(series.path, _FOLDER)
    with naming(f"write to {folder}"), suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    series.write_file(folder, keeping.backup_id, serialise(keeping))


def found(series: Series) -> dict[str, Keeping | None]:
    """The snapshots that are kept, by the IDs of their archives; None if the text cannot be used."""
    folder = os.path.join(series.path, _FOLDER)
    names: list[str] = []
    with suppress(OSError):
        names = sorted(name for name in os.listdir(folder) if header.backup_id_problem(name) is None)
    return {name: _read(os.path.join(folder, name), name) for name in names}


def _read(path: str, backup_id: str) -> Keeping | None:
    with suppress(QbError, OSError):
        with io.FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
            keeping = parse(Reader(file, path).read_up_to(_MAX_SIZE + 1), path)
        return keeping if keeping.backup_id == backup_id else None
    return None


def drop(series: Series, backup_id: str) -> None:
    """Forgets the snapshots of an archive, which were released."""
    path = os.path.join(series.path, _FOLDER, backup_id)
    with naming(f"remove {path}"), suppress(FileNotFoundError):
        os.unlink(path)


def needed(series: Series, ledger: Ledger) -> set[str]:
    """The archives whose snapshots are needed: the base, and those that may become the base.

    Only to be called in Series.locked().
    """
    runs = [run for run in series.pending().values() if run is not None and run.backup_id not in ledger.archives]
    later = sorted((run for run in runs if run.complete and run.number > ledger.floor), key=lambda run: run.number)
    unfinished = [one for run in runs if not run.complete for one in (run.backup_id, run.base)]
    return {one for one in (ledger.base, *unfinished) if one} | {run.backup_id for run in later[-KEEP_PENDING:]}
