"""qb-series: lists the archives of a series, confirms them, and tells which may be removed."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import Refused, UsageError
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.series.directory import Series

DOC = f"""\
Usage:
  qb-series list [options] DIR
  qb-series confirm [options] DIR ID
  qb-series forget [options] DIR
  qb-series (-h | --help | --version)

list     lists the archives of the series in DIR, which qb-backup create --series
         keeps: ID, state, base, time in UTC, bytes, file.
confirm  records that the archive ID is stored, so that it can be a base.
forget   prints ID and file of each archive that may be removed from the store, and
         marks it so. It is printed again until --done says that it is gone. An
         archive is kept if an option says so or a kept one needs it.

Options:
{options.JSON}
  --keep-last N         forget: keep the last N archives.
  --keep-daily N        forget: keep the newest archive of each of the last N days on
                        which there is one. Periods are those of the local time.
  --keep-weekly N       The same for weeks, which begin on Monday,
  --keep-monthly N      for months,
  --keep-yearly N       and for years.
  -n --dry-run          forget: mark nothing; say what is kept, and why.
  --done ID             forget: the archive ID, which was printed, is gone.
{options.COMMON}
"""

_KEEP = ("--keep-last", "--keep-daily", "--keep-weekly", "--keep-monthly", "--keep-yearly")


def main(call: Invocation) -> None:
    """Runs one of the commands; see DOC."""
    from qbtools.series.directory import Series

    opts = call.options
    foreign = {"list": (*_KEEP, "--dry-run", "--done"), "confirm": (*_KEEP, "--dry-run", "--done", "--json")}
    command = next(name for name in ("list", "confirm", "forget") if opts[name])
    for option in foreign.get(command, ("--json",)):
        if option in call.given:
            raise UsageError(f"{option} does not go with {command}", f"see {call.program} --help")
    if opts["DIR"] == "":
        raise UsageError("the name of the directory is empty")
    numbers = [call.number(option, 0, 1 << 30) if option in call.given else 0 for option in _KEEP]
    if command == "forget" and opts["--done"] is None and not any(numbers):  # also an empty variable of a script
        raise UsageError("forget needs an option that says what to keep", "--keep-last 30 keeps 30 archives, 0 none")
    series = Series(opts["DIR"])
    if command == "list":
        from qbtools.commands.backup import serieslist

        serieslist.show(call, series)
        return
    if command == "confirm":
        with series.locked() as ledger:
            if series.copied:
                call.warn(f"{series.path} was copied or restored from a backup: the next archive will be a full one")
            is_base = series.confirm(ledger, opts["ID"])
        call.note(f"{opts['ID']} is confirmed{', and is the base of the next archive' if is_base else ''}")
    elif opts["--done"] is not None:
        _done(call, series)
    else:
        _forget(call, series, numbers)
    from qbtools.commands.backup import seriessnapshots

    seriessnapshots.settle(call, series)


def _forget(call: Invocation, series: Series, numbers: list[int]) -> None:
    """Prints what may be removed. It is marked before it is printed, so that no run can build on it any more."""
    import os

    from qbtools.series import retention
    from qbtools.series.ledger import REMOVABLE

    with series.locked() as ledger:
        if ledger.archives and ledger.base is None:  # archives that it does not know may need those that it knows
            raise Refused(f"{series.path} was copied or restored from a backup", "first confirm a full archive")
        bases = [run.base for run in series.pending().values() if run and run.base]
        keep = retention.kept(ledger, retention.Rules(*numbers), bases)
        found = retention.removable(ledger, keep)
        if not call.options["--dry-run"]:
            ledger.mark(found, REMOVABLE)
            series.write(ledger)
    for backup_id, why in keep.items():
        text = f"keeps {backup_id}: {', '.join(why)}"
        call.say(text) if call.options["--dry-run"] else call.note(text)
    lines = [f"{backup_id}\t{ledger.archives[backup_id].file or '-'}\n" for backup_id in found]
    call.stdout(binary=False).write(os.fsencode("".join(lines)))


def _done(call: Invocation, series: Series) -> None:
    from qbtools.series.ledger import CONFIRMED, GONE

    if wrong := [option for option in (*_KEEP, "--dry-run") if option in call.given]:
        raise UsageError(f"{wrong[0]} does not go with --done")
    backup_id = call.options["--done"]
    with series.locked() as ledger:
        if backup_id not in ledger.archives:
            raise UsageError(f"{series.path} has no archive {backup_id}", "qb-series list shows all")
        if ledger.archives[backup_id].state == CONFIRMED:
            raise Refused(f"{backup_id} is kept: forget has not printed it")
        ledger.mark([backup_id], GONE)
        series.write(ledger)
