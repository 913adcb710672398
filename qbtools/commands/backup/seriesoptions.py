"""The options of qb-backup create for a series."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError

TEXT = f"""\
{options.RECEIPT}
  --series DIR              Save only what has changed since the last archive of the
                            series that DIR describes; it is made if it is missing.
                            See qb-series(1).
  --full                    With --series: save everything.
  --differential            With --series: what has changed since the last full
                            archive.
  --full-after N            With --series: save everything after N increments
                            [default: 30].
  --no-keep                 With --series: keep no snapshots of the volumes, with which
                            the next run need not read everything.
  --checkpoints             With --series and --host libvirt: make a checkpoint of each
                            machine that runs, with which the next run only reads
                            what the machine has written meanwhile.
  --store CMD               With --series: the bash command CMD reads the archive, and
                            ends with 0 when it is stored.
{options.READING}"""
"""What is written beside an archive, and how volumes are read."""

_OTHERS = ("--full", "--differential", "--full-after", "--no-keep", "--checkpoints", "--store")
OPTIONS = ("--series", *_OTHERS)


def check(call: Invocation, hint: str) -> None:
    """UsageError for options that need another one, or exclude each other."""
    opts = call.options
    if opts["--series"] is None:
        for option in _OTHERS:
            if option in call.given:
                raise UsageError(f"{option} needs --series", hint)
        return
    if opts["--each"]:
        raise UsageError("--series does not go with --each", "give each domain a series of its own")
    if opts["--full"] and opts["--differential"]:
        raise UsageError("--full and --differential exclude each other", hint)
    if opts["--store"] is not None:
        if opts["--output"] is not None:
            raise UsageError("--output and --store exclude each other", hint)
        if not opts["--store"].strip():
            raise UsageError("--store: the command is empty", hint)
    if "\n" in (opts["--output"] or ""):
        raise UsageError("--output: the name has a newline in it", hint)
    call.number("--full-after", 0, 1 << 30)
