"""Whatever is confirmed, forgotten and removed in a series: what is kept has all that it needs."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from seriesdir import entry

from qbtools.series import ledger as ledgers
from qbtools.series import retention
from qbtools.series.ledger import CONFIRMED, GONE, REMOVABLE, Ledger
from qbtools.series.retention import Rules

DAY = 86400
COUNTS = st.integers(0, 3)
RULES = st.builds(Rules, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, int | None]]:
    """Steps: an archive of a time, based on one that is kept then; or forgetting, or removing."""
    steps = st.tuples(st.sampled_from("aaafd"), st.integers(0, 800 * DAY), st.none() | st.integers(0, 99))
    return draw(st.lists(steps, max_size=25))


@given(histories(), RULES)
def test_what_is_kept_has_all_that_it_needs(history: list[tuple[str, int, int | None]], rules: Rules) -> None:
    ledger = Ledger()
    for what, at, which in history:
        kept = [one for one in ledger.archives.values() if one.state == CONFIRMED]
        if what == "a":
            base = kept[which % len(kept)].number if kept and which is not None else None
            ledger.next += 1
            ledger.confirm(entry(ledger.next - 1, base, at))
        elif what == "f":
            ledger.mark(retention.removable(ledger, retention.kept(ledger, rules)), REMOVABLE)
        else:
            waiting = [one for one in ledger.archives.values() if one.state == REMOVABLE]
            if waiting:
                ledger.mark([waiting[(which or 0) % len(waiting)].backup_id], GONE)
        for one in ledger.archives.values():
            if one.state == CONFIRMED:
                assert {link.state for link in ledger.chain(one.backup_id)} == {CONFIRMED}
        for backup_id in (ledger.base, ledger.full):
            assert backup_id is None or ledger.archives[backup_id].state == CONFIRMED
        assert ledgers.parse(ledgers.serialise(ledger), "x") == ledger


@given(st.lists(st.integers(0, 800 * DAY), max_size=25), RULES)
def test_as_many_periods_are_kept_as_the_rules_say(times: list[int], rules: Rules) -> None:
    ledger = Ledger(next=len(times) + 1)
    for number, at in enumerate(times, 1):
        ledger.confirm(entry(number, None, at))
    keep = retention.kept(ledger, rules, local=time.gmtime)
    for name, form in retention._PERIODS.items():
        periods = {time.strftime(form, time.gmtime(at)) for at in times}
        assert sum(name in why for why in keep.values()) == min(len(periods), getattr(rules, name))
    assert sum("last" in why for why in keep.values()) == min(len(times), rules.last)
