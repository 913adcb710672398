"""Confirms the index of a volume, so that it can be a base: it gets the digest of the line in the manifest."""

from __future__ import annotations

import io
import os

from qbtools.errors import Damaged, Failed, naming
from qbtools.formats import blockindex, manifest
from qbtools.formats.deltastream import Base
from qbtools.formats.manifest import FileRecord
from qbtools.streams import Reader


def read_records(path: str, backup_id: str) -> dict[str, FileRecord]:
    """The records that qb-seal wrote for a backup, by name. Damaged for anything else in the file."""
    found: dict[str, FileRecord] = {}
    with naming(f"read {path}"), io.FileIO(path) as file:
        reader = Reader(file, path)
        while line := reader.read_line(manifest.MAX_LINE):
            parsed = manifest.from_line(line)
            if parsed is None or parsed[0] != backup_id or parsed[1].name in found:
                raise Damaged(f"{path} has a line that is not a record of the backup {backup_id}")
            found[parsed[1].name] = parsed[1]
    return found


def seal(path: str, name: str, backup_id: str, digest: str) -> None:
    """Writes the digest of the line of a volume in its new index. Failed if there is no such index."""
    with naming(f"write to {path}"), io.FileIO(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW), "r+") as file:
        head = blockindex.parse(Reader(file, path).read_up_to(blockindex.HEAD), path)
        if (head.name, head.base.backup_id) != (name, backup_id):
            raise Failed(f"{path} is not the index of {name}")
        os.pwrite(file.fileno(), blockindex.serialise(head._replace(base=Base(backup_id, digest))), 0)
        os.fsync(file.fileno())
