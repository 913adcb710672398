"""qb-series with real programs: what it prints, marks and refuses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import seriesdir
from support import bash, run

from qbtools.series.choosing import Wish
from qbtools.series.directory import Series

DAY = 86400


def ident(number: int) -> str:
    return f"2026010{number}T000000-0123456789abcdef"


@pytest.fixture
def series(tmp_path: Path) -> Series:
    """Archives 1 to 6, each a day after the last one: a full one after two increments; 7 is pending."""
    made = seriesdir.new(tmp_path / "series")
    for number in range(1, 8):
        with made.locked() as ledger:
            links = len(ledger.chain(ledger.base)) if ledger.base else 9
            run_ = seriesdir.begun(ledger, ident(number), ledger.base if links < 3 else None, number * DAY)
            made.put_run(run_)
            made.write(ledger)
        seriesdir.complete(made, run_)
        if number < 7:
            seriesdir.confirm(made, ident(number))
    return made


def qb_series(*words: str, **changes: str) -> tuple[int, str, str]:
    done = run("qb-series", *words, **changes)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def states(series: Series) -> list[str]:
    status, out, err = qb_series("list", series.path)
    assert (status, err) == (0, "")
    return [line.split("\t")[1] for line in out.splitlines()]


def test_list(series: Series) -> None:
    status, out, err = qb_series("list", series.path)
    assert (status, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[1] == [ident(2), "confirmed", ident(1), "1970-01-03 00:00:00", "1000", "-"]
    assert [row[1] for row in rows] == ["confirmed"] * 6 + ["pending"]
    document = json.loads(qb_series("list", "--json", series.path)[1])
    assert (document["base"], document["full"]) == (ident(6), ident(4))
    assert [one["backup_id"] for one in document["archives"]] == [ident(number) for number in range(1, 8)]


def test_confirm(series: Series) -> None:
    for _ in range(2):
        assert qb_series("confirm", series.path, ident(7)) == (0, "", "")
    assert states(series) == ["confirmed"] * 7
    assert json.loads(qb_series("list", "--json", series.path)[1])["base"] == ident(7)
    done = qb_series("confirm", series.path, ident(8))
    assert done[:2] == (2, "") and f"has no archive {ident(8)}\n" in done[2]


def names(out: str) -> list[str]:
    assert all(line.endswith("\t-") for line in out.splitlines())
    return [line.split("\t")[0] for line in out.splitlines()]


def test_forget_until_it_is_done(series: Series) -> None:
    words = ("forget", "--keep-last=2", series.path)
    status, out, err = qb_series(*words, "--dry-run")
    assert (status, names(out)) == (0, [ident(3), ident(2), ident(1)])
    assert f"qb-series: keeps {ident(4)}: the last full archive, needed by {ident(5)}\n" in err
    assert states(series) == ["confirmed"] * 6 + ["pending"], "a dry run marks nothing"
    for _ in range(2):
        status, out, err = qb_series(*words)
        assert (status, err, names(out)) == (0, "", [ident(3), ident(2), ident(1)])
    assert states(series) == ["removable"] * 3 + ["confirmed"] * 3 + ["pending"]
    for _ in range(2):
        assert qb_series("forget", series.path, "--done", ident(3)) == (0, "", "")
    assert names(qb_series(*words)[1]) == [ident(2), ident(1)]
    assert names(qb_series("forget", "--keep-last=9", series.path)[1]) == [ident(2), ident(1)]
    assert states(series) == ["removable"] * 2 + ["gone"] + ["confirmed"] * 3 + ["pending"]


def test_zeros_alone_mark_nothing(series: Series) -> None:
    """As restic, which takes them for no rule. A script may have given an empty variable."""
    done = qb_series("forget", "--keep-last=0", "--keep-daily=0", series.path)
    assert done[:2] == (2, "") and "error: forget needs an option that says what to keep\n" in done[2]
    assert states(series) == ["confirmed"] * 6 + ["pending"]


def test_the_base_of_a_run_that_is_not_confirmed_is_kept(series: Series) -> None:
    with series.locked() as ledger:
        seriesdir.complete(series, seriesdir.begun(ledger, ident(8), ident(2)))
        series.write(ledger)
    assert names(qb_series("forget", "--keep-last=1", series.path)[1]) == [ident(3)]
    assert qb_series("confirm", series.path, ident(8)) == (0, "", "")


def test_a_day_is_one_of_the_local_time(series: Series) -> None:
    with series.locked() as ledger:
        for number, at in ((8, 20 * DAY + 82000), (9, 21 * DAY + 3000)):
            seriesdir.complete(series, seriesdir.begun(ledger, ident(number), None, at))
        series.write(ledger)
    for number in (8, 9):
        seriesdir.confirm(series, ident(number))
    words = ("forget", "--dry-run", "--keep-daily=1", series.path)
    assert ident(8) in names(qb_series(*words, TZ="UTC-2")[1])
    assert ident(8) in names(qb_series("forget", "-n", "--keep-daily=2", series.path, TZ="UTC-2")[1])
    assert ident(8) not in names(qb_series("forget", "-n", "--keep-daily=2", series.path, TZ="UTC")[1])


def test_a_copied_series_forgets_nothing_until_a_full_archive_is_confirmed(series: Series, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", series.path, tmp_path / "copy"], check=True)
    copy = Series(str(tmp_path / "copy"))
    for _ in range(2):
        status, out, err = qb_series("forget", "--keep-last=1", copy.path)
        assert (status, out) == (5, "") and "was copied or restored from a backup\n" in err
        status, out, err = qb_series("confirm", copy.path, ident(7))
        assert (status, out) == (0, "")
    assert seriesdir.save(copy, ident(8), Wish()).base is None
    seriesdir.confirm(copy, ident(8))
    assert len(names(qb_series("forget", "--keep-last=1", copy.path)[1])) == 7


def test_what_cannot_be_written_changes_nothing(series: Series) -> None:
    """And what was marked but not printed is printed the next time."""
    done = bash(f"qb-series forget --keep-last 1 {series.path} >/dev/full")
    assert (done.returncode, b"No space left on device" in done.stderr) == (1, True)
    assert len(names(qb_series("forget", "--keep-last=1", series.path)[1])) == 3
    assert sorted(os.listdir(series.path)) == ["indexes", "ledger", "lock", "pending"]


def test_names_that_are_not_ascii(series: Series) -> None:
    with series.locked() as ledger:
        run_ = seriesdir.completed(seriesdir.begun(ledger, ident(8)))
        series.put_run(type(run_)(**{**vars(run_), "file": "/srv/é \udcff"}))
        series.write(ledger)
    seriesdir.confirm(series, ident(8))
    done = run("qb-series", "list", series.path)
    assert done.returncode == 0 and done.stdout.splitlines()[6].endswith("\t/srv/é ".encode() + b"\xff")
