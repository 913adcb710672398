"""Two names of one volume are recognised, in any spelling; names of two volumes are not confused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from devices import loop

from qbtools.volumes import spots
from qbtools.volumes.spots import Apart, Spot


def clash(*found: Spot) -> str | None:
    apart = Apart()
    for number, spot in enumerate(found):
        if (other := apart.add(spot, str(number))) is not None:
            return other
    return None


def files(*paths: str | Path) -> str | None:
    return clash(*(spots.of_file(str(path)) for path in paths))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("new", "./new"),
        ("new", "dir/../new"),
        ("new", "way/new"),
        ("file", "hard"),
        ("file", "soft"),
        ("none/a/b", "none/../none/a/b"),
        ("none/a", "none/a/b"),
        ("none/a/b", "none/a"),
        ("dangling", "dir/later"),
    ],
)
def test_one_place(one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dir").mkdir()
    Path("file").touch()
    os.link("file", "hard")
    Path("soft").symlink_to("file")
    Path("way").symlink_to(".")
    Path("dangling").symlink_to("dir/later")
    assert files(one, other) == "0"
    assert files(tmp_path / one, other) == "0"
    assert files("dir/x", one, "dir/y", other) == "1"


def test_two_places(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    names = ["a", "b", "dir/a", "none/a", "none/b", "none/c/a", "None/a", "A", "stra\u00dfe", "STRASSE", "none/ab"]
    assert files(*(tmp_path / name for name in names)) is None
    assert os.listdir(tmp_path) == ["dir"], "what was tried with letter case leaves nothing"


@pytest.mark.parametrize(
    ("one", "other"), [("a", "A"), ("none/a", "NONE/a"), ("\u00e9", "E\u0301"), ("stra\u00dfe", "STRASSE")]
)
def test_letter_case_if_the_file_system_folds_it(
    one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spots, "folds_case", lambda directory: directory == str(tmp_path))
    assert files(tmp_path / one, tmp_path / other) == "0"
    assert files(tmp_path / one, tmp_path / "z") is None


def test_whether_case_is_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not spots.folds_case(str(tmp_path))
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: lexists(os.fspath(path)) or "QB-CASE" in str(path))
    assert spots.folds_case(str(tmp_path))
    assert spots.folds_case(str(tmp_path / "none")), "better too careful"
    assert os.listdir(tmp_path) == []


def test_another_node_of_a_device(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    with loop(tmp_path / "disk") as device:
        number = device.stat().st_rdev
        os.mknod(tmp_path / "node", stat.S_IFBLK | 0o600, number)
        assert clash(*(spots.of_device(path.stat().st_rdev) for path in (device, tmp_path / "node"))) == "0"


def test_a_partition_is_in_its_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/sys/dev/block/8:1/partition": "1\n", "/sys/dev/block/8:1/../dev": "8:0\n"}
    monkeypatch.setattr(spots.kernel, "text", lambda path: files.get(path, ""))
    disk, part, other = (spots.of_device(os.makedev(8, minor)) for minor in (0, 1, 2))
    assert clash(disk, part) == clash(part, disk) == "0"
    assert clash(part, other) is None


def test_a_logical_volume_by_name_and_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spots.kernel, "text", lambda path: "vg-a--b\n" if path.endswith("253:7/dm/name") else "")
    assert clash(spots.of_mapped("vg-a--b"), spots.of_device(os.makedev(253, 7))) == "0"
    assert clash(spots.of_mapped("vg-a"), spots.of_device(os.makedev(253, 7))) is None
