"""Decides which archives of a series are kept. The options have the names and the meaning of those of restic and borg.

Newer versions of these keep the oldest archive too if there are fewer periods than a rule names; this one does not.

The newest archive of each of the last N days, weeks, months and years is kept; only periods with an archive count.
They are those of the local time. Which of two archives is newer is decided by the numbers of their runs, so a clock
that was set back changes nothing about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from qbtools.lean import NamedTuple
from qbtools.series.ledger import CONFIRMED, GONE, Entry, Ledger


class Rules(NamedTuple):
    """How many archives of each kind are kept."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0


_PERIODS = {"daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m", "yearly": "%Y"}


def kept(
    ledger: Ledger,
    rules: Rules,
    bases: Iterable[str] = (),
    local: Callable[[float], time.struct_time] = time.localtime,
) -> dict[str, list[str]]:
    """The archives to keep, newest first, each with the reasons. Archives that may be removed do not count.

    The base of the next increment, the last full archive, bases (those of runs that are not confirmed) and everything
    that an archive to keep needs are kept too.
    """
    newest = [entry for entry in reversed(ledger.archives.values()) if entry.state == CONFIRMED]
    reasons: dict[str, list[str]] = {entry.backup_id: [] for entry in newest}
    for entry in newest[: rules.last]:
        reasons[entry.backup_id].append("last")
    for name, form in _PERIODS.items():
        for backup_id in _newest_of_each(newest, form, getattr(rules, name), local):
            reasons[backup_id].append(name)
    fixed = [(ledger.base, "the base of the next increment"), (ledger.full, "the last full archive")]
    fixed += [(backup_id, "the base of a run that is not confirmed") for backup_id in bases]
    for one, why in fixed:
        if one in reasons:
            reasons[one].append(why)
    for backup_id in list(reasons):  # newest first: each passes it on to its own base
        base = ledger.archives[backup_id].base
        if reasons[backup_id] and base in reasons:
            reasons[base].append(f"needed by {backup_id}")
    return {backup_id: why for backup_id, why in reasons.items() if why}


def _newest_of_each(
    newest: list[Entry], form: str, count: int, local: Callable[[float], time.struct_time]
) -> Iterator[str]:
    """The newest archive of each of the last count periods. form: the name of a period, for strftime."""
    seen: set[str] = set()
    for entry in newest:
        period = time.strftime(form, local(entry.begun))
        if period not in seen and len(seen) < count:
            seen.add(period)
            yield entry.backup_id


def removable(ledger: Ledger, keep: Iterable[str]) -> list[str]:
    """The archives that may be removed, and are not known to be gone: each before those that it needs."""
    wanted = set(keep)
    entries = reversed(ledger.archives.values())
    return [entry.backup_id for entry in entries if entry.state != GONE and entry.backup_id not in wanted]
