"""Which archives of a series are kept."""

from __future__ import annotations

import calendar
import time

import pytest
from seriesdir import entry

from qbtools.series import retention
from qbtools.series.ledger import REMOVABLE, Ledger
from qbtools.series.retention import Rules


def at(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M"))


def full(*times: str) -> Ledger:
    """A series of full archives."""
    ledger = Ledger(next=len(times) + 1)
    for number, text in enumerate(times, 1):
        ledger.confirm(entry(number, None, at(text)))
    return ledger


def kept(ledger: Ledger, rules: Rules) -> list[str]:
    return sorted(retention.kept(ledger, rules, local=time.gmtime))


TIMES = (
    "2024-12-29 01:00",  # Sunday, the last day of week 52
    "2024-12-30 01:00",  # Monday, week 1 of 2025
    "2024-12-31 01:00",
    "2025-01-01 01:00",
    "2025-01-01 23:00",
    "2025-02-03 01:00",
)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(), ["a6"]),
        (Rules(last=2), ["a5", "a6"]),
        (Rules(last=9), ["a1", "a2", "a3", "a4", "a5", "a6"]),
        (Rules(daily=3), ["a3", "a5", "a6"]),
        (Rules(weekly=3), ["a1", "a5", "a6"]),
        (Rules(monthly=2), ["a5", "a6"]),
        (Rules(monthly=3), ["a3", "a5", "a6"]),
        (Rules(yearly=5), ["a3", "a6"]),
    ],
)
def test_the_newest_of_each_period_is_kept(rules: Rules, expected: list[str]) -> None:
    assert kept(full(*TIMES), rules) == expected


def test_a_period_begins_in_local_time() -> None:
    ledger = full("2025-01-01 22:00", "2025-01-01 23:30")
    east = retention.kept(ledger, Rules(daily=2), local=lambda when: time.gmtime(when + 3600))
    assert sorted(east) == ["a1", "a2"] and kept(ledger, Rules(daily=2)) == ["a2"]


def test_a_clock_that_was_set_back_changes_nothing() -> None:
    ledger = full("2031-01-01 00:00", "2025-01-01 00:00", "2025-01-02 00:00")
    assert kept(ledger, Rules(last=2)) == ["a2", "a3"]


def chain() -> Ledger:
    ledger = Ledger(next=7)
    for number, base in ((1, None), (2, 1), (3, 2), (4, None), (5, 4), (6, 4)):
        ledger.confirm(entry(number, base, at(f"2025-01-0{number} 00:00")))
    return ledger


def test_a_kept_archive_keeps_its_chain_and_says_so() -> None:
    ledger = chain()
    assert retention.kept(ledger, Rules(), ["a3", "zzz"], local=time.gmtime) == {
        "a6": ["the base of the next increment"],
        "a4": ["the last full archive", "needed by a6"],
        "a3": ["the base of a run that is not confirmed"],
        "a2": ["needed by a3"],
        "a1": ["needed by a2"],
    }
    assert retention.removable(ledger, kept(ledger, Rules())) == ["a5", "a3", "a2", "a1"]


def test_what_may_be_removed_already_is_not_kept_again() -> None:
    ledger = chain()
    ledger.mark(["a5"], REMOVABLE)
    assert "a5" not in retention.kept(ledger, Rules(last=9, daily=9), local=time.gmtime)
    assert retention.removable(ledger, retention.kept(ledger, Rules(last=9))) == ["a5"]
