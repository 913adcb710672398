"""qb-host: domains saved from a host and made on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.streams import Reader

if TYPE_CHECKING:
    from qbtools.hosts.restoring import Restore
    from qbtools.volumes.marks import Mark

DOC = f"""\
Usage:
  qb-host apply [-qv] [--keep-going] [--owner PID | --dry-run]
          (--host HOST) (--metadata XML) PLAN
  qb-host settle [-qv] [--keep-failed] [--owner PID]
          (--host HOST) (--metadata XML) PLAN [RESULTS]
  qb-host saving [-qv] [--include P]... [--exclude P]... [--state STATE]
          [--cow ROOM] [--table | --json | --into XML] (--host HOST) [DOMAIN]...
  qb-host saved [-qv] (--status N) FILES LOG
  qb-host restored [-qv] [--json] [--keep-going]
          (--status N) (--metadata XML) FILES LOG
  qb-host (-h | --help | --version)

What qb-backup does with a host before it saves or restores domains, and behind.

apply     makes the domains of a plan, empty, and prints what is to fill them.
settle    finishes those of which a line of RESULTS says ok, and removes the others.
saving    looks at the domains to be saved; prints a line for each of their files.
saved     tells how saving went, restored how restoring went, by the log of a run.

Options:
  --host HOST           NAME:ARGUMENT, asked through qb-host-NAME; or a directory.
  --metadata XML        The metadata of the archive, qubes.xml, in this file.
  --owner PID           The process for which they are made (default: the parent).
                        When it is no more, they are leftovers.
  --dry-run             Print what is to come, and make nothing.
  --keep-going          A domain that fails does not end the others.
  --keep-failed         Do not remove those that failed.
  --include P           Only domains whose names match the pattern P; repeatable.
  --exclude P           Not those whose names match P; repeatable.
  --into XML            Write the metadata of the archive to the file XML.
  --table               Print a table to be read.
  --status N            With which status the run ended.
{options.STATE}
{options.COW}
{options.JSON}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Does one of the verbs; see qb-host(1)."""
    if call.options["apply"]:
        _apply(call)
    elif call.options["settle"]:
        from qbtools.hosts import restoring

        path = call.options["RESULTS"]
        results = restoring.read_results(call.stdin() if path in (None, "-") else _open(path))
        _restore(call).settle(_owner(call), results, call.options["--keep-failed"])
    else:
        from qbtools.commands.machines import hostresults

        verbs = (hostresults.saving, hostresults.saved, hostresults.restored)
        next(verb for verb in verbs if call.options[verb.__name__])(call)


def _apply(call: Invocation) -> None:
    out = call.stdout(binary=False)
    restore = _restore(call)
    if call.options["--dry-run"]:
        out.write_lines(made.to_line() for made in restore.rehearse())
        return
    owner = _owner(call)
    made = restore.apply(owner, call.options["--keep-going"])
    try:
        out.write_lines(one.to_line() for one in made)
    except BaseException:  # nobody would fill them
        restore.undo(owner)
        raise


def _restore(call: Invocation) -> Restore:
    from qbtools.domains import plantext, qubesxml, safexml
    from qbtools.hosts.client import Host
    from qbtools.hosts.restoring import Restore

    archive = qubesxml.Metadata(safexml.load(_open(call.options["--metadata"])))
    written = plantext.read(_open(call.options["PLAN"]), archive)
    return Restore(Host(call.options["--host"], call.warn), archive, written, call.note, call.warn)


def _owner(call: Invocation) -> Mark:
    import os

    from qbtools.errors import UsageError
    from qbtools.volumes.marks import Mark

    if call.options["--owner"] is not None:
        return Mark.of(call.number("--owner", 1, (1 << 31) - 1))
    if not (parent := os.getppid()):
        raise UsageError("the parent is in another PID namespace", "say with --owner for whom this is")
    return Mark.of(parent)


def _open(path: str) -> Reader:
    import io

    return Reader(io.FileIO(path), path)
