"""Which volume of a group has the requested state, and which volumes are ours to remove."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qbtools.errors import Failed, UsageError
from qbtools.volumes import marks
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.kinds.lvm import KIND
from qbtools.volumes.lvm import facts, snapshot, source
from qbtools.volumes.lvm.facts import Volume
from qbtools.volumes.marks import Mark


def row(
    name: str, layout: str = "thin,sparse", origin: str = "", tags: str = "", size: str = "4194304"
) -> dict[str, str]:
    return dict.fromkeys(facts._FIELDS.split(","), "") | {
        "vg_name": "vg",
        "lv_name": name,
        "lv_size": size,
        "lv_layout": layout,
        "lv_role": "public",
        "pool_lv": "pool" if "thin" in layout else "",
        "origin": origin,
        "lv_tags": tags,
        "lv_permissions": "writeable",
        "lv_active": "active",
    }


@pytest.fixture
def lvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sets the output of a program `lvs`, which is first in PATH."""
    text = tmp_path / "text"
    program = tmp_path / "lvs"
    program.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\nexec cat {text}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts.find.cache_clear()
    return text


def report(lvs: Path, *rows: dict[str, str]) -> None:
    lvs.write_text(json.dumps({"report": [{"lv": list(rows)}]}))


def chosen(state: str | None, *rows: dict[str, str]) -> tuple[str, bool]:
    group = {each["lv_name"]: facts._volume(each) for each in rows}
    volume, kept = source.choose(group["w"], group, SourceOptions(state=state))
    return volume.name, kept


@pytest.mark.parametrize(
    ("state", "name", "kept"),
    [(None, "w", True), ("before-start", "w", True), ("snapshot", "w-snap", False), ("current", "w-snap", False)],
)
def test_a_machine_that_runs(state: str | None, name: str, kept: bool) -> None:
    assert chosen(state, row("w"), row("w-snap", origin="w")) == (name, kept)


@pytest.mark.parametrize("state", [None, "before-start", "snapshot", "current"])
@pytest.mark.parametrize(
    "other",
    [row("w-snap"), row("w-snap", origin="v"), row("w-snap", layout="linear", origin="w"), row("v-snap", origin="w")],
)
def test_a_volume_that_only_looks_like_it(state: str | None, other: dict[str, str]) -> None:
    assert chosen(state, row("w"), other) == ("w", False)


def test_a_thick_volume_has_no_such_state() -> None:
    assert chosen(None, row("w", layout="linear"), row("w-snap", layout="linear", origin="w")) == ("w", False)


def test_names(lvs: Path) -> None:
    report(lvs, row("w"), row("x", layout="linear"))
    volume, group = facts.volume("vg/w")
    assert (volume.full, volume.path, volume.size, volume.thin) == ("vg/w", "/dev/vg/w", 4 << 20, True)
    assert set(group) == {"w", "x"}
    with pytest.raises(Failed, match="there is no logical volume y in vg"):
        facts.volume("vg/y")
    with pytest.raises(UsageError, match="vg is not a logical volume"):
        facts.volume("vg")
    with pytest.raises(UsageError, match="vg/pool/w is not a logical volume"):
        facts.volume("vg/pool/w")


def test_a_pool_is_no_volume(lvs: Path) -> None:
    report(lvs, row("pool", layout="thin,pool"))
    with pytest.raises(UsageError, match="vg/pool is a pool, not a volume"):
        source.open_source("vg/pool", SourceOptions())


def test_impossible_output_of_lvs(lvs: Path) -> None:
    report(lvs, row("w", size="4.00m"))
    with pytest.raises(Failed, match="lvs printed a report that cannot be parsed"):
        facts.volume("vg/w")


def test_lvm_is_not_run_for_names_that_it_cannot_have(lvs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for word in str(tmp_path / "file"), "file", "", "a/b/c/d", "/nowhere/at/all", "vg/bad name", "\0":
        assert facts.find(word) is None
    assert not (tmp_path / "calls").exists()
    lvs.write_text("no report")
    assert facts.find("vg/w") is None, "lvm that is out of order knows none"


def test_several_snapshots_are_taken_or_none(lvs: Path, tmp_path: Path) -> None:
    """Each is active, read-only and marked from its first moment on; a thick one has room of its own."""
    report(lvs, row("w"), row("x", layout="linear"))
    log, fails = tmp_path / "log", tmp_path / "fails"
    for name in "lvcreate", "lvremove":
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{log}\ncase "$*" in *vg/x) [ ! -e {fails} ] ;; esac\n')
        program.chmod(0o755)
    mark = Mark.own()
    take = KIND.prepare(["vg/w", "vg/x"], mark, SourceOptions())
    assert (tmp_path / "calls").read_text().count("\n") == 1, "lvm is asked once about the group"
    assert not log.exists(), "all that could be refused was, and nothing is made yet"
    specs = take()
    names = [spec.removeprefix("lvm:vg/") for spec in specs]
    assert all(map(marks.is_temporary_name, names))
    assert log.read_text().splitlines() == [
        f"lvcreate -qq -y -s -pr -kn --addtag {mark} -n {names[0]} vg/w",
        f"lvcreate -qq -y -s -pr -l 10%ORIGIN --addtag {mark} -n {names[1]} vg/x",
    ]
    log.unlink()
    fails.touch()
    with pytest.raises(Failed, match="lvcreate"):
        take()
    made, failed, *removed = log.read_text().splitlines()
    expected = {f"lvremove -qq -f -y vg/{line.split()[-2]}" for line in (made, failed)}
    assert set(removed) == expected


def test_what_can_be_kept(lvs: Path, tmp_path: Path) -> None:
    report(lvs, row("w"), row("x", layout="linear"), row("pool", layout="thin,pool"), row("y"))
    names = [f"vg/{name}" for name in ("w", "x", "pool", "y")]
    assert KIND.keepable(names, SourceOptions()) == ["vg/w", "vg/y"]
    assert (tmp_path / "calls").read_text().count("\n") == 1
    assert KIND.keepable(names, SourceOptions(state="current")) == []


@pytest.mark.parametrize("together", [True, False])
def test_several_snapshots_are_removed(lvs: Path, tmp_path: Path, together: bool) -> None:
    """In one step, or else each of them. One that is not ours, or not there, keeps no other from being removed."""
    names = [marks.temporary_name() for _ in range(3)]
    report(lvs, row("w"), *(row(name, tags=str(Mark.own())) for name in names))
    log, program = tmp_path / "log", tmp_path / "lvremove"
    program.write_text(f'#!/bin/sh\necho "$*" >>{log}\n[ {int(together)} = 1 ] || [ $# = 4 ]\n')
    program.chmod(0o755)
    with pytest.raises(Failed, match="there is no logical volume gone in vg"):
        KIND.release_all(["lvm:vg/gone", "lvm:vg/w", *(f"lvm:vg/{name}" for name in names)])
    first, *rest = log.read_text().splitlines()
    assert first == f"-qq -f -y {' '.join(f'vg/{name}' for name in names)}"
    assert rest == ([] if together else [f"-qq -f -y vg/{name}" for name in names])


def test_whose_a_volume_is() -> None:
    mark = Mark.own()
    name = marks.temporary_name()

    def volume(name: str, tags: str) -> Volume:
        return facts._volume(row(name, tags=tags))

    assert volume(name, f"backup,{mark},x").mark == mark
    assert volume(name, "backup").mark is None
    assert volume(name, "").mark is None
    assert volume("w", str(mark)).mark is None, "the user gave it its name"


def test_only_what_dead_runs_left_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Mark.own()
    dead = Mark(own.host, own.boot, own.pidns, own.pid, own.start - 1)
    names = [marks.temporary_name() for _ in range(3)]
    volumes = [
        facts._volume(row(names[0], tags=str(own))),
        facts._volume(row(names[1], tags=str(dead))),
        facts._volume(row(names[2], tags="x")),
        facts._volume(row("w", tags=str(dead))),
    ]
    removed: list[str] = []
    monkeypatch.setattr(snapshot, "remove", lambda full, attempts: removed.append(full))
    said: list[str] = []
    snapshot.remove_dead(volumes, said.append, said.append)
    assert removed == [f"vg/{names[1]}"]
    assert said == [f"removing vg/{names[1]}, left by a run that has ended"]

    def busy(full: str, attempts: int) -> None:
        raise Failed("it is in use")

    monkeypatch.setattr(snapshot, "remove", busy)
    snapshot.remove_dead(volumes, said.append, said.append)
    assert said[-1] == f"vg/{names[1]}, left by a run that has ended, cannot be removed: it is in use"
