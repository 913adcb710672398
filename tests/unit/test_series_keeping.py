"""Which snapshots a series keeps, and the text that tells of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from seriesdir import begun, completed, confirm, new, save

from qbtools.errors import Damaged
from qbtools.series import keeping
from qbtools.series.directory import Series
from qbtools.series.keeping import Checkpoint, Keeping, Snapshot
from qbtools.volumes import marks
from qbtools.volumes.files import leftovers
from qbtools.volumes.marks import Kept, Mark

SNAPSHOTS = {"vm1/root.img": Snapshot("1-2", "file:/a b/.x"), "vm1/private.img": Snapshot("u", "lvm:vg/x")}
KEEPING = Keeping("20261124T055255-0123456789abcdef", ["file:/a b/v.img", "lvm:vg/v"], SNAPSHOTS)


def test_the_text() -> None:
    data = keeping.serialise(KEEPING)
    assert keeping.parse(data, "x") == KEEPING
    odd = Keeping("a1", ["file:/\udcff"], {"vm1/root.img": Snapshot("s", "file:/ \udcff")})
    assert keeping.parse(keeping.serialise(odd), "x") == odd
    assert keeping.parse(keeping.serialise(Keeping("a1", [])), "x") == Keeping("a1", [])
    points = Checkpoint("a-b", "libvirt:qemu:///system?x= y"), Checkpoint("c", "./dir")
    assert keeping.parse(keeping.serialise(Keeping("a1", [], {}, points)), "x") == Keeping("a1", [], {}, points)
    for wrong in Checkpoint("a", ""), Checkpoint("", "b"):
        with pytest.raises(Damaged):
            keeping.parse(keeping.serialise(Keeping("a1", [], {}, [wrong])), "x")
    for at in range(len(data)):
        with pytest.raises(Damaged):
            keeping.parse(data[:at], "x")
        with pytest.raises(Damaged):
            keeping.parse(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "x")


@pytest.mark.parametrize("snapshot", [Snapshot("", "file:/x"), Snapshot("s", "")])
def test_malformed(snapshot: Snapshot) -> None:
    with pytest.raises(Damaged, match="malformed in line 3"):
        keeping.parse(keeping.serialise(Keeping("a1", [], {"vm1/root.img": snapshot})), "x")


def test_the_files(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    assert keeping.found(series) == {}
    keeping.put(series, KEEPING)
    keeping.put(series, Keeping("a1", ["x"]))
    keeping.put(series, Keeping("a1", []))
    (tmp_path / "s/kept/a2").write_bytes((tmp_path / "s/kept/a1").read_bytes())
    (tmp_path / "s/kept/a3").symlink_to("a1")
    (tmp_path / "s/kept/a1.new").touch()
    assert keeping.found(series) == {KEEPING.backup_id: KEEPING, "a1": Keeping("a1", []), "a2": None, "a3": None}
    keeping.drop(series, "a1")
    keeping.drop(series, "a1")
    assert "a1" not in keeping.found(series)


def needed(series: Series) -> set[str]:
    with series.locked() as ledger:
        return keeping.needed(series, ledger)


def test_what_is_needed(tmp_path: Path) -> None:
    series = new(tmp_path / "s")
    assert needed(series) == set()
    for name in ("a1", "a2", "a3"):
        save(series, name)
    assert needed(series) == {"a2", "a3"}
    confirm(series, "a2")
    assert needed(series) == {"a2", "a3"}
    confirm(series, "a1")
    assert needed(series) == {"a2", "a3"}
    confirm(series, "a3")
    assert needed(series) == {"a3"}
    with series.locked() as ledger:  # a run that is saving, and reads what a3 keeps
        run = begun(ledger, "b1", "a3")
        series.put_run(run)
        series.write(ledger)
    assert needed(series) == {"a3", "b1"}
    with series.locked() as ledger:
        other = completed(begun(ledger, "c1"))
        series.put_run(other)
        series.write(ledger)
    confirm(series, "c1")
    assert needed(series) == {"a3", "b1", "c1"}
    series.put_run(completed(run))
    assert needed(series) == {"c1"}, "a run that began earlier does not become the base any more"


def test_the_marks() -> None:
    mark = Kept(KEEPING.backup_id)
    assert marks.parse(str(mark)) == mark and not mark.dead()
    assert marks.parse(str(Mark.own())) == Mark.own()
    assert leftovers.mark_of(f".{mark}.01234567") == mark
    assert leftovers.mark_of(leftovers.new_name(mark)) == mark
    for odd in ("qbtools-kept-", "qbtools-kept-a/b", "qbtools-kept-a.b", f"qbtools-kept-{'a' * 101}", "kept-a"):
        assert marks.parse(odd) is None
        assert leftovers.mark_of(f".{odd}.01234567") is None
