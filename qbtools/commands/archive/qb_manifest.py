"""qb-manifest: writes the manifest and the end of an archive from the records of sealed files."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, Refused
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.formats.manifest import FileRecord

DOC = f"""\
Usage:
  qb-manifest [options] --backup-id ID RECORDS

Write the end of an archive: the sealed manifest of the files in RECORDS, which
qb-seal --record wrote (- is standard input), and the end-of-archive blocks. Run it
only if every file was sealed to its end: an archive with a manifest is complete.

Options:
{options.BACKUP_ID}
{options.LOGN}
{options.PASSPHRASE}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Seals the manifest; see DOC."""
    import os
    import time

    from qbtools import passphrase
    from qbtools.commands.archive import sealoptions
    from qbtools.formats import chunks, container, manifest, outertar

    backup_id = sealoptions.backup_id(call) or ""
    parameters = sealoptions.parameters(call)
    out = call.stdout()
    records = _records(call, backup_id)
    data = manifest.serialise(backup_id, records)
    secret = passphrase.obtain(call.options, os.environ, sealing=True, warn=call.warn)
    call.note(f"backup ID {backup_id}, {len(records)} files, {sum(record.size for record in records)} bytes")
    sealed = container.seal_bytes(chunks.chunk_passphrase(secret, backup_id, chunks.MANIFEST, 0), parameters, data)
    members = outertar.MemberWriter(out, int(time.time()))
    members.add(chunks.member_name(chunks.MANIFEST, 0), sealed)
    members.end_of_archive()


def _records(call: Invocation, backup_id: str) -> list[FileRecord]:
    """The records in RECORDS. Damaged if a line is malformed or of another backup, or there is none."""
    from qbtools.formats import chunks, manifest

    reader = call.input(call.options["RECORDS"])
    records: list[FileRecord] = []
    while line := reader.read_line(manifest.MAX_LINE):
        where = f"line {len(records) + 1} of {reader.name}"
        found = manifest.from_line(line)
        if found is None:
            raise Damaged(f"{where} is not a record of a sealed file")
        found_id, record = found
        if found_id != backup_id:
            raise Damaged(f"{where} belongs to the backup {found_id}, not to {backup_id}")
        records.append(record)
        if len(records) > chunks.MAX_FILES:
            raise Refused(f"more than {chunks.MAX_FILES} files in one archive")
    if not records:
        raise Damaged(f"{reader.name} has no record: nothing was sealed")
    return records
