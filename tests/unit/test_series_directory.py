"""The directory of a series: killed between any two steps, copied, damaged, used by two runs at once."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from seriesdir import NAMES, begun, completed, confirm, digest, index, new, read, save
from steps import killed_at

from qbtools.errors import Damaged, QbError, Refused, UsageError
from qbtools.series import directory, runtext
from qbtools.series.choosing import Wish, choose
from qbtools.series.directory import Series, index_name

STEPS = ("mkdir", "open", "write", "pwrite", "fsync", "rename", "unlink", "rmdir", "close")


def base_of(series: Series) -> str | None:
    """The base that the next run takes; it must have all that an increment needs."""
    with series.locked() as ledger:
        choice = choose(series, ledger, Wish(), NAMES)
        assert not choice.surprising, choice.reason
        return choice.base and choice.base.backup_id


def test_killed_at_every_step_of_confirming(tmp_path: Path) -> None:
    """The ledger has the old base or the new one, and either can be used. The second try completes."""
    for step in range(1000):
        series = new(tmp_path / str(step))
        save(series, "a1")
        confirm(series, "a1")
        save(series, "a2")
        was_killed = killed_at(STEPS, step, lambda series=series: confirm(series, "a2"))  # type: ignore[misc]
        assert base_of(series) in ("a1", "a2")
        assert base_of(series) == "a2" or was_killed
        confirm(series, "a2")
        assert base_of(series) == "a2"
        assert sorted(os.listdir(series.path)) == ["indexes", "ledger", "lock", "pending", "saving"]
        assert os.listdir(f"{series.path}/pending") == []
        assert sorted(os.listdir(f"{series.path}/indexes")) == ["a1", "a2"]
        if not was_killed:
            break
    assert step > 12


def test_killed_at_every_step_of_a_run(tmp_path: Path) -> None:
    """The series is as it was: the next run builds on the same base, and nothing of the dead one is left."""
    for step in range(1000):
        series = new(tmp_path / str(step))
        save(series, "a1")
        confirm(series, "a1")
        was_killed = killed_at(STEPS, step, lambda series=series: save(series, "a2"))  # type: ignore[misc]
        assert base_of(series) == "a1"
        if series.pending().get("a2") is None:
            with pytest.raises(QbError):
                confirm(series, "a2")
        assert save(series, "a3").base == "a1"
        complete = [name for name, run in series.pending().items() if run and run.complete]
        assert sorted(os.listdir(f"{series.path}/pending")) == sorted(complete)
        confirm(series, "a3")
        assert base_of(series) == "a3"
        if not was_killed:
            break
    assert step > 40


def test_killed_while_the_first_run_makes_the_series(tmp_path: Path) -> None:
    for step in range(1000):
        path = tmp_path / str(step)
        was_killed = killed_at(STEPS, step, lambda path=path: save(new(path), "a1"))  # type: ignore[misc]
        save(new(path), "a2")
        assert confirm(new(path), "a2") and base_of(new(path)) == "a2"
        if not was_killed:
            break
    assert step > 20


def test_confirming_twice_and_in_another_order(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    for name in ("a1", "a2", "a3"):
        save(series, name)
    assert confirm(series, "a2") and confirm(series, "a2")
    assert not confirm(series, "a1") and confirm(series, "a2")
    assert base_of(series) == "a2" and list(read(series).archives) == ["a1", "a2"]
    assert confirm(series, "a3")
    with pytest.raises(UsageError, match="has no archive a4$"):
        confirm(series, "a4")
    with pytest.raises(UsageError):
        confirm(series, "../indexes/a3")


def test_a_failure_after_the_ledger_was_written_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails is removed, but not one whose archive is the base now."""
    series = new(tmp_path / "s")
    save(series, "a1")
    series.abandon("a1")
    assert os.listdir(f"{series.path}/pending") == []
    save(series, "a2")
    with monkeypatch.context() as patch:
        patch.setattr(Series, "tidy", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            confirm(series, "a2")
    series.abandon("a2")
    assert base_of(series) == "a2"


def test_killed_while_a_run_is_removed(tmp_path: Path) -> None:
    """It is there with all its files, or nothing takes the rest for a run."""
    for step in range(1000):
        series = new(tmp_path / str(step))
        save(series, "a1")
        folder = series.folder("a1")
        whole = sorted(os.listdir(folder))
        was_killed = killed_at(STEPS, step, lambda series=series: series.abandon("a1"))  # type: ignore[misc]
        assert series.pending().get("a1") is None or sorted(os.listdir(folder)) == whole
        if not was_killed:
            break
    assert step > 6 and not os.path.exists(folder)


def test_a_run_that_has_not_ended_is_not_confirmed(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    with series.locked() as ledger:
        series.put_run(begun(ledger, "a1"))
        series.write(ledger)
    with pytest.raises(Refused, match="^the archive a1 is not complete$"):
        confirm(series, "a1")


def test_indexes_stay_as_long_as_a_run_reads_them(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    save(series, "a1")
    save(series, "a2")
    confirm(series, "a1")
    save(series, "b1")
    confirm(series, "b1")
    with series.locked() as ledger:
        run = begun(ledger, "c1", "b1")
        series.put_run(run)
        series.write(ledger)
    save_full = completed(begun(ledger, "d1"))
    with series.locked() as ledger:
        ledger.next += 1
        series.put_run(save_full)
        series.write(ledger)
    confirm(series, "d1")
    assert sorted(os.listdir(f"{series.path}/indexes")) == ["b1", "d1"]
    series.put_run(completed(run))
    confirm(series, "c1")
    assert os.listdir(f"{series.path}/indexes") == ["d1"]


def test_runs_that_are_too_old_to_be_confirmed_are_removed(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    for number in range(directory.UNCONFIRMED + 1):
        save(series, f"a{number}")
    assert "a0" in series.pending()
    save(series, "b")
    assert "a0" not in series.pending() and "a1" in series.pending()


def copied(series: Series, place: Path) -> Series:
    """The directory as a backup program restores it, with all times."""
    shutil.copytree(series.path, place)
    return Series(str(place))


def test_a_copied_directory_means_a_full_archive(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    save(series, "a1")
    confirm(series, "a1")
    save(series, "a2")
    other = copied(series, tmp_path / "t")
    with other.locked() as ledger:
        choice = choose(other, ledger, Wish(), NAMES)
    assert (choice.base, choice.surprising) == (None, True)
    assert choice.reason == f"{other.path} was copied or restored from a backup"
    assert not confirm(other, "a2"), "begun before, so no base"
    with other.locked() as ledger:
        assert choose(other, ledger, Wish(), NAMES).base is None, "the ledger was written again"
    assert save(other, "a3").base is None
    assert confirm(other, "a3")
    assert save(other, "a4").base == "a3"


@pytest.mark.parametrize("in_place", [False, True])
def test_a_ledger_of_last_week_means_a_full_archive(in_place: bool, tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    save(series, "a1")
    confirm(series, "a1")
    old = Path(series.path, "ledger").read_bytes()
    save(series, "a2")
    confirm(series, "a2")
    if not in_place:
        Path(series.path, "ledger").unlink()
    Path(series.path, "ledger").write_bytes(old)
    assert save(series, "a3").base is None


@pytest.mark.parametrize("later", [False, True], ids=["at once", "after another run took its number"])
def test_a_run_that_an_older_ledger_does_not_know_is_not_confirmed(later: bool, tmp_path: Path) -> None:
    """The ledger says which runs there were. What has the number of another run cannot be written into it."""
    series = new(tmp_path / "s")
    save(series, "a1")
    confirm(series, "a1")
    old = Path(series.path, "ledger").read_bytes()
    save(series, "lost", Wish(full=True))
    Path(series.path, "ledger").write_bytes(old)
    if later:
        save(series, "a2")
        confirm(series, "a2")
    before = read(series)
    with pytest.raises(Refused, match="/s has an older ledger, which does not know the run of lost$"):
        confirm(series, "lost")
    assert read(series) == before
    save(series, "a3")
    assert confirm(series, "a3")


def test_a_ledger_that_is_damaged(tmp_path: Path) -> None:
    """Nothing replaces the list of archives. The user is told how to go on."""
    series = new(tmp_path / "s")
    save(series, "a1")
    spoil(Path(series.path, "ledger"), "flipped")
    with pytest.raises(Damaged, match="/ledger is damaged") as caught:
        save(series, "a2")
    assert caught.value.hint == "with another directory a new series begins, with a full archive"


def test_a_moved_directory_is_the_same(tmp_path: Path) -> None:
    save(new(tmp_path / "s"), "a1")
    confirm(new(tmp_path / "s"), "a1")
    os.rename(tmp_path / "s", tmp_path / "t")
    assert base_of(Series(str(tmp_path / "t"))) == "a1"


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[:-1])
    elif how == "flipped":
        path.write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    elif how == "longer":
        path.write_bytes(data + b"x")
    else:
        path.write_bytes(index(*how.split()))


INDEX = index_name(NAMES[0])


@pytest.mark.parametrize(
    ("file", "how"),
    [(file, how) for file in (INDEX, "run", "receipt") for how in ("missing", "cut", "flipped", "longer")]
    + [(INDEX, f"{NAMES[1]} a1"), (INDEX, f"{NAMES[0]} a0")],
)
def test_anything_odd_means_a_full_archive_and_says_why(file: str, how: str, tmp_path: Path) -> None:
    """Also the index of another volume of the same archive, and that of the same volume in another archive."""
    series = new(tmp_path / "s")
    save(series, "a1")
    confirm(series, "a1")
    if (file, how) == ("receipt", "flipped"):
        how = "cut"
    spoil(Path(series.path, "indexes", "a1", file), how)
    with series.locked() as ledger:
        choice = choose(series, ledger, Wish(), NAMES)
    assert (choice.base, choice.surprising) == (None, True) and file in choice.reason
    assert save(series, "a2").base is None
    assert confirm(series, "a2") and base_of(series) == "a2"


def test_the_text_of_another_run_means_a_full_archive(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    run = save(series, "a1")
    confirm(series, "a1")
    text = runtext.serialise(replace(completed(run), number=9))
    Path(series.folder("a1"), "run").write_bytes(text)
    with series.locked() as ledger:
        choice = choose(series, ledger, Wish(), NAMES)
    assert (choice.base, choice.surprising) == (None, True)
    assert choice.reason == f"{series.folder('a1')} does not belong to the archive a1"


def test_the_text_of_one_run_is_never_taken_for_that_of_another(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    save(series, "a1")
    save(series, "a2")
    shutil.copy(Path(series.folder("a1"), "run"), Path(series.folder("a2"), "run"))
    with pytest.raises(Damaged, match="/a2/run is that of another run$"):
        confirm(series, "a2")
    assert confirm(series, "a1") and list(read(series).archives) == ["a1"]


@pytest.mark.parametrize("what", ["the ID", "the manifest"])
def test_the_receipt_of_another_archive_means_a_full_archive(what: str, tmp_path: Path) -> None:
    """The header of an increment names its base by this receipt: a wrong one would make a chain that nothing opens."""
    series = new(tmp_path / "s")
    save(series, "a1")
    confirm(series, "a1")
    path = Path(series.folder("a1"), "receipt")
    data = path.read_bytes()
    old, by = (b"backup-id a1", b"backup-id a0") if what == "the ID" else (digest("a1").encode(), b"0" * 64)
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, by))
    with series.locked() as ledger:
        choice = choose(series, ledger, Wish(), NAMES)
    assert (choice.base, choice.reason) == (None, f"{path} is not that of the archive a1")


def test_the_chain_has_a_limit(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    bases = []
    for number in range(7):
        bases.append(save(series, f"a{number}", Wish(full_after=2)).base)
        confirm(series, f"a{number}")
    assert bases == [None, "a0", "a1", None, "a3", "a4", None]


def test_differential_archives_are_based_on_the_last_full_one(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    bases = []
    for number in range(4):
        bases.append(save(series, f"a{number}", Wish(differential=number > 1)).base)
        confirm(series, f"a{number}")
    assert bases == [None, "a0", "a0", "a0"]
    assert sorted(os.listdir(f"{series.path}/indexes")) == ["a0", "a3"]
    assert save(series, "b", Wish(full=True)).base is None


def test_volumes_that_the_base_does_not_have_need_no_index(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    save(series, "a1", names=NAMES[:1])
    confirm(series, "a1")
    with series.locked() as ledger:
        choice = choose(series, ledger, Wish(), NAMES)
    assert choice.base is not None and choice.indexed == {NAMES[0]}


def test_a_second_run_is_refused_and_confirming_is_not(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    save(series, "a1")
    with series.saving():
        with pytest.raises(Refused, match="^another run is using the series"), Series(series.path).saving():
            pass
        confirm(series, "a1")


def test_the_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = new(tmp_path / "s")
    save(series, "a1")
    with series.locked():
        other = threading.Thread(target=lambda: confirm(Series(series.path), "a1"))
        other.start()
        other.join(0.3)
        assert other.is_alive()
    other.join(10)
    assert base_of(series) == "a1"
    monkeypatch.setattr(directory, "PATIENCE", 0.1)
    with series.locked(), pytest.raises(Refused), Series(series.path).locked():
        pass


def test_no_lock_is_inherited(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    with series.saving(), series.locked():
        held = [fd for fd in os.listdir("/proc/self/fd") if _path(fd).startswith(series.path)]
        assert len(held) == 2 and not any(os.get_inheritable(int(fd)) for fd in held)


def _path(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_which_directories_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QbError, match="No such file"):
        Series(str(tmp_path / "missing"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o750)
    with pytest.raises(Refused, match="can be read or changed by others$"):
        new(tmp_path / "open")
    with pytest.raises(Refused, match="it has no ledger$"):
        Series(str(tmp_path / "open"))  # not a hint at chmod for a directory of something else
    (tmp_path / "other").mkdir(mode=0o700)
    with pytest.raises(Refused, match="it has no ledger$"):
        Series(str(tmp_path / "other"))
    new(tmp_path / "other")
    (tmp_path / "other/photo").touch()
    with pytest.raises(Refused, match="it has no ledger$"):
        new(tmp_path / "other")
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(Refused, match="/other belongs to another user$"):
        new(tmp_path / "other")
    monkeypatch.undo()
    (tmp_path / "file").touch(0o600)
    with pytest.raises(Refused, match="is not a directory$"):
        new(tmp_path / "file")


def test_a_damaged_ledger_is_an_error_and_stays(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    save(series, "a1")
    path = Path(series.path, "ledger")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match="ledger is incomplete"):
        confirm(series, "a1")
    assert "a1" in series.pending()
