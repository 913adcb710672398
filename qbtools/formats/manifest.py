"""The sealed inventory that ends an archive, and the records that it is made of.

    qb-manifest 1
    backup-id ID
    file CHUNKS BYTES SHA256 NAME
    end COUNT

One file line for each file, in the order of the archive. BYTES: plaintext bytes of all its chunks. SHA256: over the
last MACs (32 bytes each) of its containers, in order, in hexadecimal. A record, which qb-seal writes and qb-manifest
reads, is one line `ID CHUNKS BYTES SHA256 NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qbtools.errors import Damaged, Refused
from qbtools.formats.chunks import MAX_FILES, MAX_MANIFEST, MAX_NUMBER, FileOrder, name_problem
from qbtools.formats.header import MAX_SIZE, backup_id_problem

MAX_LINE = MAX_SIZE + 512
"""Bytes of the longest record: the longest backup ID, and the longest of everything else."""

_MAGIC = "qb-manifest 1"
_NUMBER = r"(0|[1-9][0-9]{0,18})"
_RECORD = re.compile(rf"{_NUMBER} {_NUMBER} ([0-9a-f]{{64}}) ([!-~]+)", re.ASCII)
_MAX_BYTES = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a manifest says of one file."""

    name: str
    chunks: int
    """How many, at least 1."""

    size: int
    """Bytes of data in all of them (compressed, not sealed)."""

    digest: str
    """SHA-256 over the last MACs of the containers, in order: 64 lower-case hexadecimal digits."""


def serialise(backup_id: str, records: Sequence[FileRecord]) -> bytes:
    """The manifest's text. Damaged where a record's name occurs twice or stands in no valid order."""
    _check_order(records)
    lines = [_MAGIC, f"backup-id {backup_id}"]
    lines += (f"file {_fields(record)}" for record in records)
    lines.append(f"end {len(records)}")
    data = "".join(line + "\n" for line in lines).encode("ascii")
    if len(data) > MAX_MANIFEST:
        raise Refused(f"the manifest would have more than {MAX_MANIFEST} bytes")
    return data


def parse(data: bytes) -> tuple[str, list[FileRecord]]:
    """The backup ID and the files that a manifest lists. Damaged for whatever is not exactly in the format."""
    if len(data) > MAX_MANIFEST:
        raise Damaged(f"the manifest has more than {MAX_MANIFEST} bytes")
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Damaged("the manifest is not ASCII") from None
    if lines[0] != _MAGIC:
        raise Damaged("the manifest does not begin as one of version 1")
    if len(lines) < 4 or lines[-1] or lines[-2] != f"end {len(lines) - 4}":
        raise Damaged("the manifest does not end with the number of its files")
    word, _, backup_id = lines[1].partition(" ")
    if word != "backup-id" or backup_id_problem(backup_id):
        raise Damaged("the manifest has no backup ID on its second line")
    if len(lines) - 4 > MAX_FILES:
        raise Damaged(f"the manifest lists more than {MAX_FILES} files")
    records = []
    for number, line in enumerate(lines[2:-2], 3):
        word, _, fields = line.partition(" ")
        record = _record(fields)
        if word != "file" or record is None:
            raise Damaged(f"line {number} of the manifest is malformed")
        records.append(record)
    _check_order(records)
    return backup_id, records


def to_line(backup_id: str, record: FileRecord) -> str:
    """The line, with its newline, that qb-seal writes for a file that it sealed."""
    return f"{backup_id} {_fields(record)}\n"


def from_line(line: bytes) -> tuple[str, FileRecord] | None:
    """Backup ID and record out of such a line; None for whatever is not exactly in the format."""
    text = line.decode("ascii", "replace")
    backup_id, _, fields = text.removesuffix("\n").partition(" ")
    record = _record(fields)
    if record is None or backup_id_problem(backup_id) or not text.endswith("\n"):
        return None
    return backup_id, record


def compare(listed: Iterable[FileRecord], seen: Iterable[FileRecord]) -> None:
    """Holds what the manifest lists against what came. Damaged, naming the first file that differs."""
    wanted = list(listed)
    came = list(seen)
    for want, got in zip(wanted, came, strict=False):
        if want.name != got.name:
            if want.name not in {record.name for record in came}:
                raise Damaged(f"{want.name} is missing: the archive is incomplete")
            if got.name not in {record.name for record in wanted}:
                raise Damaged(f"{got.name} is not listed in the manifest")
            raise Damaged(f"{got.name} comes where {want.name} is due")
        if want != got:
            raise Damaged(f"{want.name} is not the file that the manifest lists")
    for want in wanted[len(came) :]:
        raise Damaged(f"{want.name} is missing: the archive is incomplete")
    for got in came[len(wanted) :]:
        raise Damaged(f"{got.name} is not listed in the manifest")


def _fields(record: FileRecord) -> str:
    return f"{record.chunks} {record.size} {record.digest} {record.name}"


def _record(fields: str) -> FileRecord | None:
    match = _RECORD.fullmatch(fields)
    if not match or name_problem(match[4]):
        return None
    chunks, size = int(match[1]), int(match[2])
    if not 1 <= chunks <= MAX_NUMBER + 1 or size > _MAX_BYTES:
        return None
    return FileRecord(match[4], chunks, size, match[3])


def _check_order(records: Iterable[FileRecord]) -> None:
    order = FileOrder()
    for record in records:
        problem = order.problem(record.name)
        if problem:
            raise Damaged(f"the manifest lists {record.name}, which {problem}")
