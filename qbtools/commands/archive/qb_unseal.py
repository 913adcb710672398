"""qb-unseal: opens an archive on standard input: writes the plaintext of one file, or runs a command for each file."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation

DOC = f"""\
Usage:
  qb-unseal [options] [-i FILE]... [--stop] NAME
  qb-unseal [options] [-i FILE]... --list [--json]
  qb-unseal [options] [-i FILE]... --verify
  qb-unseal [options] [-i FILE]... [--verify] [--keep-going] [--report FILE]
            (--to-command CMD) [NAME...]
  qb-unseal [options] [-i FILE]... [--verify] [--keep-going] [--report FILE]
            (--to-command CMD) [--first CMD] --routes FILE
  qb-unseal [options] --structure [--receipt FILE]
  qb-unseal --archive FD [WORD...]
  qb-unseal --archives FILE

Open the archive on standard input. With NAME: write the plaintext of that file.
Nothing of a chunk is written before it has been authenticated. An archive is read
to its end, and is complete if the exit status is 0. If NAME is an archive file and
standard input a terminal or /dev/null, the files in that archive are listed.

Options:
  --stop                End as soon as NAME is complete: the rest is not checked.
  --list                List the files: name, chunks, bytes, separated by tabs.
{options.JSON}
  --verify              Authenticate every chunk. With --to-command: a CMD that does
                        not read all of its file is an error.
  --to-command CMD      Run the bash command CMD for each file (or each NAME), with
                        the file on its standard input and QB_NAME, QB_BACKUP_ID,
                        QB_COMPRESSION, QB_VERSION in its environment.
  --routes FILE         Run CMD only for the files that have a line NAME, tab, TARGET
                        in FILE, which ends with a line "end"; TARGET is QB_TARGET.
                        A NAME may be DIRECTORY/*, or *: all others.
  --first CMD           Run this CMD for the metadata, and then read the routes.
  --keep-going          When a CMD fails, go on with the next file.
  --report FILE         Write what is done with each file, and what its CMD prints,
                        as JSON, to FILE.
  --structure           Check names, order, sizes and plain checksums, without a
                        passphrase. Without --expect it authenticates nothing.
  --receipt FILE        With --structure: write the receipt of the archive to FILE.
{options.OPENING}
{options.IDENTITY}
{options.OPENING_COMMAND}
{options.WRITER}
{options.MAX_CHUNK}
  --turns DIR           Derive a key only while a file in DIR is locked: programs with
                        the same DIR take turns.
{options.JOBS}
  --archive FD          Open several archives at the same time. It must come first, and
                        again for each further one. The WORDs are those of a qb-unseal
                        whose standard input is descriptor FD.
  --archives FILE       The same. Read the words from FILE, when the program is loaded.
{options.PASSPHRASE}
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Opens an archive; see DOC."""
    import os

    from qbtools import progress
    from qbtools.commands import taken
    from qbtools.commands.archive import openoptions, tocommand, unsealing
    from qbtools.commands.archive.events import Events
    from qbtools.descriptors import left_to_read

    opts = call.options
    taken.refuse(opts, os.environ)  # a receipt is read before the archive
    if opts["--structure"]:
        unsealing.structure(call)
        return
    unsealing.check_options(opts)
    if len(opts["NAME"]) == 1 and opts["--to-command"] is None and not opts["--stop"]:
        openoptions.take_file(call)
    single = bool(opts["NAME"]) and opts["--to-command"] is None
    out = call.stdout() if single else call.stdout(binary=False)
    total = left_to_read(0)
    events = Events(opts["--report"])  # before we wait for anything: we end when its reader ends
    every = not opts["NAME"] and opts["--routes"] is None and (opts["--verify"] or opts["--to-command"] is not None)
    archive = openoptions.open_archive(call, first_wanted=every or opts["--first"] is not None)
    call.note(f"version {archive.header.version}, backup ID {archive.header.backup_id or '-'}, {archive.jobs} jobs")
    header = archive.header
    base = header.base and header.base.backup_id
    events.tell("opened", "", version=header.version, backup_id=header.backup_id, manifest=header.manifest, base=base)
    display = progress.wanted(opts["--progress"], call.quiet)
    board = progress.Board()
    with progress.shown(
        lambda: archive.position, lambda: total, lambda: board.label or archive.current or "archive", display
    ):
        if opts["--to-command"] is not None:
            unsealing.feed(call, archive, board, events)
        elif single:
            unsealing.write_file(archive, opts["NAME"][0], opts["--stop"], out)
        else:
            unsealing.read_all(archive, opts["--verify"])
    events.tell("ended", "", digest=archive.manifest_digest)
    if archive.failed:  # none of them is wanted
        call.warn(tocommand.missing(archive.failed))
    if opts["--list"]:
        out.write(unsealing.listing(archive, opts["--json"]).encode())


def load() -> None:
    """Loads what main() would load."""
    from qbtools.commands.archive import unsealing

    unsealing.load()
