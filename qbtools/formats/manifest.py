"""The sealed inventory at the end of an archive, and its records.

    qb-manifest 1
    backup-id ID
    file CHUNKS BYTES SHA256 NAME
    failed NAME
    end COUNT

It has one line for each file, in the order of the archive. BYTES: plaintext bytes of all its chunks. SHA256: over the
last MACs (32 bytes each) of its containers, in order, in hexadecimal. `failed`: the source of the file failed, so the
archive has at most its beginning. A manifest with such a line begins with `qb-manifest 2`. qb-seal writes records and
qb-manifest reads them; a record is one line `ID CHUNKS BYTES SHA256 NAME`, or `ID failed NAME`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from qbtools.errors import Damaged, Refused
from qbtools.formats.chunks import MAX_FILES, MAX_MANIFEST, MAX_NUMBER, METADATA, FileOrder, name_problem
from qbtools.formats.header import MAX_SIZE, backup_id_problem
from qbtools.lean import NamedTuple

MAX_LINE = MAX_SIZE + 512
"""Bytes of the longest record: the longest backup ID, and the longest values of the other fields."""

_MAGIC = ("qb-manifest 1", "qb-manifest 2")  # without and with files that failed
_FAILED = "failed"
_NUMBER = r"(0|[1-9][0-9]{0,18})"
_RECORD = re.compile(rf"{_NUMBER} {_NUMBER} ([0-9a-f]{{64}}) ([!-~]+)", re.ASCII)
_MAX_BYTES = (1 << 63) - 1


class FileRecord(NamedTuple):
    """The record of one file in a manifest."""

    name: str
    chunks: int
    """Their number. 0 if the source of the file failed: then size is 0 and digest is empty."""

    size: int
    """Bytes of data in all chunks (compressed, not sealed)."""

    digest: str
    """SHA-256 over the last MACs of the containers, in order: 64 lower-case hexadecimal digits."""

    @property
    def failed(self) -> bool:
        """True if the source of the file failed: its last chunk is not in the archive."""
        return self.chunks == 0


def failed_file(name: str) -> FileRecord:
    """The record of a file whose source failed."""
    return FileRecord(name, 0, 0, "")


def serialise(backup_id: str, records: Sequence[FileRecord]) -> bytes:
    """The text of the manifest. Damaged if a name occurs twice or the order of the records is not valid."""
    _check_order(records)
    lines = [_MAGIC[any(record.failed for record in records)], f"backup-id {backup_id}"]
    lines += (file_line(record) for record in records)
    lines.append(f"end {len(records)}")
    data = "".join(line + "\n" for line in lines).encode("ascii")
    if len(data) > MAX_MANIFEST:
        raise Refused(f"the manifest would have more than {MAX_MANIFEST} bytes")
    return data


def file_line(record: FileRecord) -> str:
    """The line of a file in the manifest, without its newline."""
    return _fields(record) if record.failed else f"file {_fields(record)}"


def from_file_line(line: str) -> FileRecord | None:
    """The record of such a line; None if it is not exactly in the format."""
    failed = line.startswith(f"{_FAILED} ")
    record = _record(line if failed else line.removeprefix("file "))
    return record if record is not None and file_line(record) == line else None


def line_digest(record: FileRecord) -> str:
    """What an increment says of its base: SHA-256, in hexadecimal, of the line of a file with its newline."""
    return hashlib.sha256(f"{file_line(record)}\n".encode("ascii")).hexdigest()


def parse(data: bytes) -> tuple[str, list[FileRecord]]:
    """The backup ID and the files of a manifest. Damaged for everything that is not exactly in the format."""
    if len(data) > MAX_MANIFEST:
        raise Damaged(f"the manifest has more than {MAX_MANIFEST} bytes")
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Damaged("the manifest is not ASCII") from None
    if lines[0] not in _MAGIC:
        raise Damaged("the manifest does not begin as one of version 1 or 2")
    if len(lines) < 4 or lines[-1] or lines[-2] != f"end {len(lines) - 4}":
        raise Damaged("the manifest does not end with the number of its files")
    word, _, backup_id = lines[1].partition(" ")
    if word != "backup-id" or backup_id_problem(backup_id):
        raise Damaged("the manifest has no backup ID on its second line")
    if len(lines) - 4 > MAX_FILES:
        raise Damaged(f"the manifest lists more than {MAX_FILES} files")
    records = []
    for number, line in enumerate(lines[2:-2], 3):
        record = from_file_line(line)
        if record is None:
            raise Damaged(f"line {number} of the manifest is malformed")
        records.append(record)
    if lines[0] != _MAGIC[any(record.failed for record in records)]:
        raise Damaged("the version of the manifest does not fit its lines")
    _check_order(records)
    return backup_id, records


def to_line(backup_id: str, record: FileRecord) -> str:
    """The line, with newline, that qb-seal writes for a sealed file."""
    return f"{backup_id} {_fields(record)}\n"


def from_line(line: bytes) -> tuple[str, FileRecord] | None:
    """Backup ID and record from such a line; None if it is not exactly in the format."""
    text = line.decode("ascii", "replace")
    backup_id, _, fields = text.removesuffix("\n").partition(" ")
    record = _record(fields)
    if record is None or backup_id_problem(backup_id) or not text.endswith("\n"):
        return None
    return backup_id, record


def compare(listed: Iterable[FileRecord], seen: Iterable[FileRecord], broken: Mapping[str, Damaged]) -> list[str]:
    """Compares the files of the manifest with the files that were read. Returns the names of the files that failed.

    broken: the error of each file without its last chunk, by its name. It is raised unless the manifest says that the
    file failed. Damaged if files differ; it names the first one.
    """
    listed = list(listed)
    failed = {record.name: None for record in listed if record.failed}
    for name, error in broken.items():
        if name not in failed:
            raise error
    came = list(seen)
    for got in came:
        if got.name in failed:
            raise Damaged(f"{got.name} came, but the manifest says that it failed")
    _compare_whole([record for record in listed if not record.failed], came)
    return list(failed)


def _compare_whole(wanted: Sequence[FileRecord], came: Sequence[FileRecord]) -> None:
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
    if record.failed:
        return f"{_FAILED} {record.name}"
    return f"{record.chunks} {record.size} {record.digest} {record.name}"


def _record(fields: str) -> FileRecord | None:
    if fields.startswith(f"{_FAILED} "):
        name = fields.removeprefix(f"{_FAILED} ")
        return None if name == METADATA or name_problem(name) else failed_file(name)
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
