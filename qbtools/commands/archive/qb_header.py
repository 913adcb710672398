"""qb-header: makes a backup ID, writes the header of an archive, or reads and authenticates a header."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation

DOC = f"""\
Usage:
  qb-header id [-q] [-v]
  qb-header write --backup-id ID [--compression C] [--chunk-size S] [--logn N]
            [--base RECEIPT] [--no-manifest] [-r R]... [-R FILE]...
            [--key-command CMD] [--wrap-passphrase] [--secret-fd N] [--sign KEYFILE]
            [--sign-command CMD] [--passphrase-file FILE] [--passphrase-fd N]
            [--passphrase-command CMD] [-q] [-v]
  qb-header read [--json] [--expect-id ID] [--expect FILE] [--require-version V]
            [--max-memory S] [--max-work N] [-i FILE]... [--key-command CMD]
            [--signers FILE] [--signer NAME] [--signers-time T] [--any-writer]
            [--passphrase-file FILE] [--passphrase-fd N]
            [--passphrase-command CMD] [-q] [-v] FILE
  qb-header (-h | --help | --version)

id     prints a new backup ID.
write  writes the members that begin an archive.
read   reads them from the archive FILE (- is standard input), authenticates them,
       and prints them as lines key=value.

Options:
{options.BACKUP_ID}
{options.COMPRESSION}
{options.CHUNK_SIZE}
{options.LOGN}
{options.BASE}
  --no-manifest         Do not promise a manifest at the end of the archive.
{options.WRAPPING}
{options.SIGNING}
  --secret-fd N         Write the passphrase that was made to descriptor N, for the
                        qb-seal and qb-manifest that follow: they need --logn 10.
{options.IDENTITY}
{options.JSON}
{options.OPENING}
{options.WRITER}
{options.PASSPHRASE}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Makes an ID, or writes or reads a header; see DOC."""
    if call.options["id"]:
        import os
        import time

        from qbtools.formats import header

        made = header.new_backup_id(time.time(), os.urandom(8))
        call.stdout(binary=False).write(made.encode("ascii") + b"\n")
        return
    from qbtools.commands.archive import headers

    if call.options["write"]:
        headers.write(call)
    else:
        headers.read(call)
