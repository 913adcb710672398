"""qb-seal: seals standard input, or the output of a command for each file of a list, into chunks."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError

DOC = f"""\
Usage:
  qb-seal [options] [-r R]... [-R FILE]... NAME
  qb-seal [options] [-r R]... [-R FILE]... [--keep-going | --await-end]
          (--from-command CMD LIST)

Seal standard input as the file NAME: cut in chunks, each in an scrypt container,
as members of the outer archive on standard output. Without --backup-id that is a
complete archive. LIST (- is standard input) has lines NAME, tab, SOURCE, and ends
with a line "end": CMD runs for each, with QB_NAME, QB_SOURCE, QB_BACKUP_ID and
QB_COMPRESSION in its environment, and prints the file.

Options:
  --from-command CMD    Seal what the bash command CMD prints, for each line of LIST.
  --keep-going          When CMD fails, name the file as failed in the manifest, go on
                        with the next one, and end with the status of the failure.
  --await-end           Wait until a line "complete" follows in LIST before the last
                        file is sealed: its writer says that all data was right.
  --backup-id ID        Write the chunks only, for the backup ID.
  --complete            With --backup-id: write a complete archive.
{options.BASE}
{options.RECEIPT}
  --record FILE         Append a line for each file, which qb-manifest reads.
  --report FILE         Write what is done with each file, as JSON, to FILE.
  --opaque              Seal any bytes: do not check that each file is complete and
                        fits --compression.
  --total S             For the progress: the number of bytes to read in all.
{options.COMPRESSION}
{options.CHUNK_SIZE}
{options.LOGN}
{options.WRAPPING}
{options.SIGNING}
{options.JOBS}
{options.PASSPHRASE}
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Seals files; see DOC."""
    import contextlib
    import os
    import time

    from qbtools import processes, progress
    from qbtools.commands.archive import fromcommand, keyoptions, receipts, sealoptions, signoptions
    from qbtools.commands.archive.events import Events
    from qbtools.formats import chunks, header
    from qbtools.formats.sealing import Settings

    opts = call.options
    given_id = sealoptions.backup_id(call)
    complete = sealoptions.is_complete(call)
    made = keyoptions.makes_passphrase(call)
    signed = signoptions.signs(call, complete)
    if made and not complete:
        raise UsageError("a passphrase is made for a complete archive only", "qb-header write makes one by hand")
    out = call.stdout()
    now = time.time()
    backup_id = given_id or header.new_backup_id(now, os.urandom(8))
    backup = sealoptions.backup_header(call, backup_id, key=made, signed=signed)
    parameters, compression = sealoptions.parameters(call, made), None if opts["--opaque"] else opts["--compression"]
    settings = Settings(backup_id, sealoptions.chunk_size(call), parameters, int(now), compression)
    total = call.size("--total") if opts["--total"] is not None else None
    jobs = sealoptions.sealing_jobs(call, settings)
    with contextlib.ExitStack() as cleanup:
        receipt = cleanup.enter_context(receipts.Receipting(call, complete))
        events = Events(opts["--report"])
        if opts["--from-command"] is not None:
            text = processes.check_cmd(opts["--from-command"], "--from-command")
            environment = {"QB_BACKUP_ID": backup_id, "QB_COMPRESSION": opts["--compression"]}
            warn = call.warn if opts["--keep-going"] else None
            files = fromcommand.CommandFiles(text, fromcommand.read_list(call), environment, events, warn)
            cleanup.callback(files.abort)
            sources, board = files.sources, files.board
        else:
            files = None
            sources, board = [fromcommand.standard_input(call)], progress.Board()
        secret = keyoptions.secret(call, made)
        wrap = sealoptions.wrap_in_time(call, secret, settings, jobs)
        sign = signoptions.signer(call, backup_id)  # before a file is read: ssh-keygen may ask for a passphrase
        if files is not None and not sign:
            files.start()
        from qbtools.formats.sealer import Sealer, first_members  # they take as long to load as a CMD

        begun = first_members(secret.passphrase, backup, settings, sign) if sign else None
        sealer = Sealer(
            out, secret.passphrase, settings, jobs, lambda at, n: (board.label or at, board.done or n), receipt.digest
        )
        call.note(f"backup ID {backup_id}, {jobs} jobs")
        records = sealer.write_archive(sources, backup, wrap, begun) if complete else sealer.write_files(sources)
        cleanup.enter_context(
            progress.shown(
                lambda: sealer.done,
                lambda: total,
                lambda: sealer.current or board.label,
                progress.wanted(opts["--progress"], call.quiet),
                ahead=lambda: board.done or sealer.read,
            )
        )
        sealoptions.keep(records, backup_id, opts["--record"], events)
        if complete:
            events.tell("complete", chunks.MANIFEST)
            receipt.finish(backup_id)
        if files is not None and files.failed is not None:
            raise files.failed
