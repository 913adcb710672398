"""qb-seal: standard input, or what a command prints for each file of a list, to sealed chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qbtools.formats.manifest import FileRecord
    from qbtools.formats.sealer import Source

DOC = f"""\
Usage:
  qb-seal [options] NAME
  qb-seal [options] --from-command CMD LIST

Seal standard input as the file NAME: cut in chunks, each in an scrypt container,
as members of the outer archive on standard output. Without --backup-id that is a
complete archive. LIST has lines NAME, tab, SOURCE (- is standard input): CMD runs
for each, with QB_NAME and QB_SOURCE in its environment, and prints the file.

Options:
  --from-command CMD    Seal what the bash command CMD prints, for each line of LIST.
  --backup-id ID        Write the chunks only, for the backup ID.
  --complete            With --backup-id: write a complete archive all the same.
  --record FILE         Append the line that qb-manifest needs of each file.
  --total S             For the progress: the bytes that are to be read in all.
{options.COMPRESSION}
{options.CHUNK_SIZE}
{options.LOGN}
{options.JOBS}
{options.PASSPHRASE}
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Seals, as DOC says."""
    import contextlib
    import os
    import time

    from qbtools import passphrase, progress
    from qbtools.commands.archive import fromcommand, sealing
    from qbtools.formats import header
    from qbtools.formats.sealer import Sealer, Settings

    opts = call.options
    given_id = sealing.backup_id(call)
    if opts["--complete"] and not given_id:
        raise UsageError("--complete goes with --backup-id", "without it the archive is complete anyway")
    out = call.stdout()
    now = time.time()
    backup_id = given_id or header.new_backup_id(now, os.urandom(8))
    settings = Settings(backup_id, sealing.chunk_size(call), sealing.parameters(call), int(now))
    beginning = sealing.backup_header(call, backup_id)
    total = call.size("--total") if opts["--total"] is not None else None
    jobs = sealing.jobs(call, settings.chunk_size + settings.parameters.memory, sealing.machine_memory())
    with contextlib.ExitStack() as cleanup:
        if opts["--from-command"] is not None:
            files = fromcommand.CommandFiles(opts["--from-command"], fromcommand.read_list(call))
            cleanup.callback(files.abort)
            sources = files.sources
            board = files.board
        else:
            sources = [_stdin(call)]
            board = progress.Board()
        secret = passphrase.obtain(opts, os.environ, sealing=True, warn=call.warn)
        sealer = Sealer(out, secret, settings, jobs)
        complete = opts["--complete"] or not given_id
        call.note(f"backup ID {backup_id}, {jobs} jobs")
        records = sealer.write_archive(sources, beginning) if complete else sealer.write_files(sources)
        display = progress.wanted(opts["--progress"], call.quiet)
        cleanup.enter_context(
            progress.shown(
                lambda: board.done or sealer.done, lambda: total, lambda: board.label or sealer.current, display
            )
        )
        _keep(records, backup_id, opts["--record"])


def _stdin(call: Invocation) -> Source:
    """Standard input as the file NAME. Its EOF is all that tells its end: what is before us must watch the rest."""
    from qbtools.formats import chunks
    from qbtools.formats.sealer import Source

    name = call.options["NAME"]
    problem = chunks.name_problem(name)
    if problem:
        raise UsageError(f"{name}: {problem}")
    stdin = call.stdin()
    return Source(name, lambda: stdin, lambda: None)


def _keep(records: Iterator[FileRecord], backup_id: str, path: str | None) -> None:
    """Runs the sealing to its end; appends a line to path as each file is done."""
    import io

    from qbtools.formats import manifest
    from qbtools.streams import Writer

    file = Writer(io.FileIO(path, "a"), path) if path is not None else None
    for record in records:
        if file:
            file.write(manifest.to_line(backup_id, record).encode("ascii"))
