"""qb-header: makes a backup ID, writes the header of an archive, reads and authenticates one."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.formats.header import BackupHeader

DOC = f"""\
Usage:
  qb-header id [-q] [-v]
  qb-header write --backup-id ID [--compression C] [--chunk-size S] [--logn N]
            [--no-manifest] [--passphrase-file FILE] [--passphrase-fd N]
            [--passphrase-command CMD] [-q] [-v]
  qb-header read [--json] [--expect-id ID] [--require-version V]
            [--max-memory S] [--max-work N]
            [--passphrase-file FILE] [--passphrase-fd N]
            [--passphrase-command CMD] [-q] [-v] FILE
  qb-header (-h | --help | --version)

id     prints a new backup ID.
write  writes the two members that begin an archive.
read   reads them from the archive FILE (- is standard input), authenticates them,
       and prints them as lines key=value.

Options:
{options.BACKUP_ID}
{options.COMPRESSION}
{options.CHUNK_SIZE}
{options.LOGN}
  --no-manifest         Do not promise a manifest at the end of the archive.
{options.JSON}
{options.OPENING}
{options.PASSPHRASE}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Makes, writes or reads, as DOC says."""
    if call.options["write"]:
        _write(call)
    elif call.options["read"]:
        _read(call)
    else:
        import os
        import time

        from qbtools.formats import header

        made = header.new_backup_id(time.time(), os.urandom(8))
        call.stdout(binary=False).write(made.encode("ascii") + b"\n")


def _write(call: Invocation) -> None:
    import os
    import time

    from qbtools import passphrase
    from qbtools.commands.archive import sealoptions
    from qbtools.formats.sealer import Settings, header_members

    backup_id = sealoptions.backup_id(call) or ""
    backup = sealoptions.backup_header(call, backup_id, manifest=not call.options["--no-manifest"])
    settings = Settings(backup_id, sealoptions.chunk_size(call), sealoptions.parameters(call), int(time.time()))
    out = call.stdout()
    secret = passphrase.obtain(call.options, os.environ, sealing=True, warn=call.warn)
    call.note(f"backup ID {backup_id}, chunks of {settings.chunk_size} bytes")
    out.write(header_members(secret, backup, settings))


def _read(call: Invocation) -> None:
    import io
    import os

    from qbtools import passphrase
    from qbtools.commands.archive import openoptions
    from qbtools.formats import header, opener
    from qbtools.streams import Reader

    bounds = openoptions.limits(call)
    path = call.options["FILE"]
    reader = call.stdin() if path == "-" else Reader(io.FileIO(path))
    reader.name = "the archive"
    out = call.stdout(binary=False)
    opening = opener.Opening(reader, bounds)
    secret = passphrase.obtain(call.options, os.environ, sealing=False, warn=call.warn)
    found = opening.header(secret)
    openoptions.check_expectations(call, found)
    out.write(_as_json(found) if call.options["--json"] else header.serialise(found))


def _as_json(found: BackupHeader) -> bytes:
    import json

    document = {
        "version": found.version,
        "backup_id": found.backup_id or None,
        "compression": found.method,
        "chunk_size": found.chunk_size,
        "manifest": found.manifest,
    }
    return json.dumps(document, indent=2).encode("ascii") + b"\n"
