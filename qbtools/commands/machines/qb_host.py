"""qb-host: creates the domains of a plan on a host."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import file_reader

if TYPE_CHECKING:
    from qbtools.hosts.restoring import Restore
    from qbtools.volumes.marks import Mark

DOC = f"""\
Usage:
  qb-host apply [-qv] [--keep-going] [--owner PID | --dry-run]
          (--host HOST) (--metadata XML) PLAN
  qb-host settle [-qv] [--keep-failed] [--owner PID]
          (--host HOST) (--metadata XML) PLAN [RESULTS]
  qb-host (-h | --help | --version)

Create the domains of a plan on a host, and finish or remove them.

apply     creates the domains of a plan with empty volumes, and prints the files
          that they need.
settle    finishes the domains for which RESULTS says ok, and removes the others.

Options:
  --host HOST           NAME:ARGUMENT (the program qb-host-NAME), or a directory.
  --metadata XML        The file with the metadata of the archive, qubes.xml.
  --owner PID           The process that owns new domains (default: the parent).
                        When it has ended, they are leftovers.
  -n --dry-run          Print the files that are needed, and create nothing.
  --keep-going          When a domain fails, continue with the others.
  --keep-failed         Do not remove domains that failed.
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Runs apply or settle; see qb-host(1)."""
    if call.options["apply"]:
        _apply(call)
    else:
        from qbtools.hosts import restoring

        path = call.options["RESULTS"]
        results = restoring.read_results(call.input(path))
        _restore(call).settle(_owner(call), results, call.options["--keep-failed"])


def _apply(call: Invocation) -> None:
    out = call.stdout(binary=False)
    restore = _restore(call)
    if call.options["--dry-run"]:
        out.write_lines(made.to_line() for made in restore.rehearse())
        return
    owner = _owner(call)
    try:
        made = restore.apply(owner, call.options["--keep-going"])
        out.write_lines(one.to_line() for one in made)
    except BaseException as error:  # otherwise nobody would fill them
        if not isinstance(error, Exception):
            restore.hurry()
        restore.undo(owner)
        raise


def _restore(call: Invocation) -> Restore:
    from qbtools.domains import plantext, qubesxml, safexml
    from qbtools.hosts.client import Host
    from qbtools.hosts.restoring import Restore

    archive = qubesxml.Metadata(safexml.load(file_reader(call.options["--metadata"])), call.warn)
    written = plantext.read(file_reader(call.options["PLAN"]), archive)
    return Restore(Host(call.options["--host"], call.warn), archive, written, call.note, call.warn)


def _owner(call: Invocation) -> Mark:
    import os

    from qbtools.errors import UsageError
    from qbtools.volumes.marks import Mark

    if call.options["--owner"] is not None:
        return Mark.of(call.number("--owner", 1, (1 << 31) - 1))
    if not (parent := os.getppid()):
        raise UsageError("the parent is in another PID namespace", "name a process with --owner")
    return Mark.of(parent)
