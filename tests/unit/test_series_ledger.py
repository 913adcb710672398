"""The texts of a series: written and read, and refused when anything in them differs."""

from __future__ import annotations

import pytest
from seriesdir import completed, digest, entry

from qbtools.errors import Damaged, Refused
from qbtools.series import ledger as ledgers
from qbtools.series import runtext, textlines
from qbtools.series.ledger import GONE, REMOVABLE, Entry, Ledger
from qbtools.series.runtext import Run

ENTRIES = [entry(1), entry(2, 1), entry(4, 2, state=REMOVABLE), Entry(5, "a5", None, 7, 8, digest("5"), "/x y", GONE)]


def ledger() -> Ledger:
    archives = {one.backup_id: one for one in ENTRIES}
    return Ledger("12 ab", 7, 5, "a2", "a1", {"work": 1, "mail": 3}, archives)


def test_a_ledger_is_read_as_it_was_written() -> None:
    data = ledgers.serialise(ledger())
    assert ledgers.parse(data, "x") == ledger()
    assert data.splitlines()[:5] == [b"qb-series 1", b"place 12 ab", b"next 7", b"floor 5", b"base a2"]
    assert ledgers.parse(ledgers.serialise(Ledger()), "x") == Ledger()


RUNS = [Run(3, "a3", None, 5), Run(3, "a3", "a2", 5, "/a b"), completed(Run(3, "a3", "a2", 5))]


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_read_as_it_was_written(run: Run) -> None:
    assert runtext.parse(runtext.serialise(run), "x") == run


def test_every_cut_and_every_flipped_bit_is_noticed() -> None:
    data = ledgers.serialise(ledger())
    for at in range(len(data)):
        with pytest.raises(Damaged):
            ledgers.parse(data[:at], "x")
        with pytest.raises(Damaged):
            ledgers.parse(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], "x")
    for more in (b"\n", b"x\n", data):
        with pytest.raises(Damaged):
            ledgers.parse(data + more, "x")


def changed(old: str, new: str) -> bytes:
    """A ledger with other lines, whose last line fits them."""
    text = ledgers.serialise(ledger()).decode()
    assert old in text
    magic, *lines, _end, _ = text.replace(old, new, 1).split("\n")
    return textlines.join(magic, lines)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("place", "plaice"),
        ("next 7", "next 07"),
        ("next 7", "next 5"),
        ("floor 5", "floor 7"),
        ("floor 5\n", ""),
        ("base a2", "base a4"),
        ("base a2", "base a9"),
        ("full a1", "full a2"),
        ("domain 3 mail", "domain 1 mail"),
        ("domain 3 mail", "domain 3 work"),
        ("domain 3 mail", "domain 3 "),
        ("archive 2 a2 a1", "archive 2 a2 a4"),
        ("archive 2 a2 a1", "archive 2 a1 a1"),
        ("archive 2 ", "archive 1 "),
        ("archive 5 ", "archive 7 "),
        ("confirmed", "perhaps"),
        ("confirmed -", "confirmed "),
        ("confirmed -", "confirmed"),
        ("domain 1 work", "something else"),
    ],
)
def test_a_malformed_line_is_refused(old: str, new: str) -> None:
    with pytest.raises(Damaged, match=r"^DIR/ledger is malformed in line \d+$"):
        ledgers.parse(changed(old, new), "DIR/ledger")


@pytest.mark.parametrize(
    "line",
    ["volume {0} vm1/root.img", "volume {0} ../x", "volume {0} ", "volume {0}", "volume {1} vm2/root.img", "x y"],
)
def test_a_malformed_line_of_a_run_is_refused(line: str) -> None:
    """One more line behind a volume that is good: doubled, with another name, digest or word."""
    run = runtext.Run(1, "a1", None, 0, None, 10, digest("1"), {"vm1/root.img": digest("2")})
    magic, *lines, _end, _ = runtext.serialise(run).decode().split("\n")
    with pytest.raises(Damaged, match=r"^DIR/run is malformed in line \d+$"):
        runtext.parse(textlines.join(magic, [*lines, line.format(digest("3"), digest("3")[1:])]), "DIR/run")


def test_a_domain_keeps_its_number_and_none_is_given_again() -> None:
    one = Ledger()
    assert [one.number_of(name) for name in ("work", "mail", "work", "web")] == [1, 2, 1, 3]
    assert ledger().number_of("new") == 4


def test_an_older_archive_never_moves_the_base_back() -> None:
    one = Ledger(next=6)
    one.confirm(entry(1))
    one.confirm(entry(3, 1))
    one.confirm(entry(2, 1))
    one.confirm(entry(5))
    one.confirm(entry(4))
    assert (one.base, one.full, one.floor) == ("a5", "a5", 5)
    assert list(one.archives) == ["a1", "a2", "a3", "a4", "a5"]
    assert ledgers.parse(ledgers.serialise(one), "x") == one


def test_an_archive_whose_base_is_not_kept_is_refused() -> None:
    for state in (REMOVABLE, GONE):
        one = Ledger(next=3, archives={"a1": entry(1, state=state)})
        with pytest.raises(Refused, match="^a2 is based on a1, which is not kept$"):
            one.confirm(entry(2, 1))
        assert list(one.archives) == ["a1"]
    with pytest.raises(Refused):
        Ledger(next=3).confirm(entry(2, 1))


def test_a_distrusted_ledger_has_no_base_and_gets_none_of_a_run_that_has_begun() -> None:
    one = Ledger(next=4)
    one.confirm(entry(1))
    one.distrust()
    one.confirm(entry(3, 1))
    assert (one.base, one.full) == (None, None)
    one.next += 1
    one.confirm(entry(4))
    assert (one.base, one.full) == ("a4", "a4")


def test_a_chain_ends_with_its_full_archive() -> None:
    assert [one.backup_id for one in ledger().chain("a4")] == ["a4", "a2", "a1"]
