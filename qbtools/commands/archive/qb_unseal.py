"""qb-unseal: an archive on standard input to the plaintext of one file, or of each file to a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, UsageError

if TYPE_CHECKING:
    from qbtools.formats.openarchive import Archive

DOC = f"""\
Usage:
  qb-unseal [options] [--stop] NAME
  qb-unseal [options] --list [--json]
  qb-unseal [options] --verify
  qb-unseal [options] [--verify] --to-command CMD [NAME...]
  qb-unseal [options] [--verify] --to-command CMD --select-command SEL
  qb-unseal [options] --structure

Open the archive on standard input. With NAME: write the plaintext of that file.
Nothing of a chunk is written before it has been authenticated. An archive is read
to its end, and is complete where the exit status is 0.

Options:
  --stop                Leave as soon as NAME is whole: the rest is not checked.
  --list                List the files: name, chunks, bytes, separated by tabs.
{options.JSON}
  --verify              Authenticate every chunk. With --to-command: a CMD that does
                        not read all of its file is an error.
  --to-command CMD      Run the bash command CMD for each file (or each NAME), with
                        the file on its standard input and QB_NAME, QB_BACKUP_ID,
                        QB_COMPRESSION, QB_VERSION in its environment.
  --select-command SEL  When the CMD of the first file has ended, run the bash command
                        SEL: CMD runs only for the NAMEs that it prints, a line each.
  --structure           Check names, order, sizes and plain checksums, for which no
                        passphrase is needed. It authenticates nothing.
{options.OPENING}
{options.MAX_CHUNK}
{options.JOBS}
{options.PASSPHRASE}
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Opens, as DOC says."""
    from qbtools import progress
    from qbtools.commands.archive import opening, tocommand
    from qbtools.descriptors import left_to_read

    opts = call.options
    if opts["--structure"]:
        _structure(call)
        return
    single = bool(opts["NAME"]) and opts["--to-command"] is None
    out = call.stdout() if single else call.stdout(binary=False)
    total = left_to_read(0)
    archive = opening.open_archive(call)
    call.note(f"version {archive.header.version}, backup ID {archive.header.backup_id or '-'}, {archive.jobs} jobs")
    display = progress.wanted(opts["--progress"], call.quiet)
    board = progress.Board()
    with progress.shown(lambda: archive.position, lambda: total, lambda: board.label or archive.current, display):
        if opts["--to-command"] is not None:
            cmds = opts["--to-command"], opts["--select-command"]
            tocommand.feed_all(archive, *cmds, opts["NAME"], opts["--verify"], board)
        elif single:
            name = opts["NAME"][0]
            found = False
            # Without a chunk size in the header nothing tells yet that the file is whole.
            stop = opts["--stop"] and archive.header.chunk_size is not None
            for event in archive.events(lambda candidate: candidate == name):
                found = found or event.name == name
                if event.data is not None:
                    out.write(event.data)
                elif stop and found and event.ends:
                    return
            if not found:
                raise Damaged(f"{name} is not in the archive", "qb-unseal --list says what is")
        else:
            for _event in archive.events(lambda _name: bool(opts["--verify"])):
                pass
    if opts["--list"]:
        out.write(_listing(archive, opts["--json"]).encode())


def _listing(archive: Archive, as_json: bool) -> str:
    if not as_json:
        return "".join(f"{file.name}\t{file.chunks}\t{file.size}\n" for file in archive.records)
    import json

    document = {
        "backup_id": archive.header.backup_id or None,
        "version": archive.header.version,
        "compression": archive.header.method,
        "manifest": archive.header.manifest,
        "files": [{"name": file.name, "chunks": file.chunks, "bytes": file.size} for file in archive.records],
    }
    return json.dumps(document, indent=2) + "\n"


def _structure(call: Invocation) -> None:
    from qbtools.formats import structure

    for option in ("--expect-id", "--require-version"):
        if call.options[option] is not None:
            raise UsageError(f"{option} means nothing with --structure, which authenticates nothing")
    reader = call.stdin()
    reader.name = "the archive"
    structure.check(reader, call.size("--max-chunk", 1, 1 << 34), call.warn)
