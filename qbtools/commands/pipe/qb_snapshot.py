"""qb-snapshot: takes, lists and releases lasting snapshots of volumes."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.volumes.freezing import Frozen

DOC = f"""\
Usage:
  qb-snapshot take [--freeze CMD] [--thaw CMD] [--thaw-limit SECONDS]
            [--owner PID] [--state STATE] [--cow ROOM] [-q] [-v] VOLUME...
  qb-snapshot release [-q] [-v] SPEC...
  qb-snapshot list [--json] [-q] [-v] [DIR...]
  qb-snapshot clean [-q] [-v] [DIR...]
  qb-snapshot (-h | --help | --version)

take     takes snapshots of all VOLUMEs at one point in time, or of none, and prints
         a SPEC for each, which qb-volread reads.
release  removes snapshots.
list     lists everything that has a mark of qbtools: logical volumes everywhere,
         files in the DIRs.
clean    removes everything whose owner has ended, but not what a series keeps.

Options:
  --freeze CMD          Run CMD first: it makes the machine flush its data and stop.
  --thaw CMD            Run CMD after that, even if anything fails.
  --thaw-limit SECONDS  Thaw after so many seconds, and fail [default: 30].
  --owner PID           The process that owns the snapshots (default: the parent).
                        When it has ended, they may be removed.
{options.STATE}
{options.COW}
{options.JSON}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Runs take, release, list or clean; see DOC."""
    from qbtools.volumes import snapshots

    if call.options["take"]:
        _take(call)
    elif call.options["release"]:
        snapshots.release(call.options["SPEC"])
    elif call.options["list"]:
        from qbtools.commands.pipe import snapshotlist

        snapshotlist.show(call)
    else:
        snapshots.clean(call.options["DIR"], call.note)


def _take(call: Invocation) -> None:
    import os

    from qbtools.commands.pipe import volumeoptions
    from qbtools.errors import UsageError
    from qbtools.volumes import snapshots
    from qbtools.volumes.marks import Mark

    how = volumeoptions.reading(call)
    if how.state == "current":
        raise UsageError("--state=current takes no snapshot")
    still = _still(call)
    if call.options["--owner"] is not None:
        owner = call.number("--owner", 1, (1 << 31) - 1)
    elif not (owner := os.getppid()):
        raise UsageError("the parent is in another PID namespace", "name a process with --owner")
    out = call.stdout(binary=False)
    specs = snapshots.take(call.options["VOLUME"], Mark.of(owner), how, still)
    try:
        out.write("".join(f"{spec}\n" for spec in specs).encode("utf-8", "surrogateescape"))
    except BaseException:  # otherwise nobody would know them
        snapshots.release(specs)
        raise


def _still(call: Invocation) -> Frozen | None:
    freeze, thaw = call.options["--freeze"], call.options["--thaw"]
    limit = call.number("--thaw-limit", 1, 3600)
    if freeze is None and thaw is None:
        return None

    from qbtools.errors import UsageError
    from qbtools.volumes.freezing import Frozen

    if freeze is None or thaw is None:
        raise UsageError("--freeze and --thaw go together")
    return Frozen(freeze, thaw, limit, call.warn)
