"""Two names of one volume are recognised, in any spelling; names of two volumes are not confused."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from pathlib import Path

import pytest
from devices import loop

from qbtools import directories
from qbtools.errors import Failed
from qbtools.volumes import spots
from qbtools.volumes.kinds import nbd
from qbtools.volumes.spots import Apart, Spot


def clash(*found: Spot) -> str | None:
    apart = Apart()
    for number, spot in enumerate(found):
        if (other := apart.add(spot, str(number))) is not None:
            return other
    return None


def exports(*uris: str) -> str | None:
    return clash(*(nbd.KIND.spot(uri) for uri in uris))


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


def folding(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    """Makes directories compare names as vfat does, and composed letters as ext4 does where it ignores case."""

    def plain(names: tuple[str, ...]) -> list[str]:
        return [unicodedata.normalize("NFC", name.rstrip(".").casefold()) for name in names]

    def are_one(directory: str, name: tuple[str, ...], other: tuple[str, ...]) -> bool:
        return Path(directory) in directories and plain(name) == plain(other)

    monkeypatch.setattr(spots, "are_one", are_one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "A"),
        ("none/a", "NONE/a"),
        ("stra\u00dfe", "STRASSE"),
        ("a", "a."),
        ("e\u0301", "\u00e9"),
        ("none/E\u0301", "none/\u00e9"),
        ("none./a", "none/a"),
        ("none", "None/a"),
        ("none/a", "None"),
    ],
)
def test_names_that_the_file_system_does_not_tell_apart(
    one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files(tmp_path / one, tmp_path / other) is None, "this one tells them apart"
    folding(monkeypatch, tmp_path)
    assert files(tmp_path / one, tmp_path / other) == "0"
    assert files(tmp_path / "b", tmp_path / "other/b", tmp_path / one, tmp_path / other) == "2"


def test_names_that_only_look_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system decides, and nothing else."""
    folding(monkeypatch, tmp_path)
    assert files(tmp_path / "a", tmp_path / "a ") is None
    assert files(tmp_path / "z", tmp_path / "none/z", tmp_path / "None/y") is None, "one directory, two files"


def test_whether_names_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not spots.folds_case(str(tmp_path))
    assert not spots.are_one(str(tmp_path), ("a", "b"), ("a", "B"))
    assert spots.are_one(str(tmp_path), ("a", "b"), ("a", "b"))
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: lexists(os.fspath(path)) or str(path).endswith("/X"))
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


def test_a_name_that_the_file_system_does_not_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spots.check_name(str(tmp_path), ("none", "a:b"), "none/a:b")

    def refuse(*_names: object) -> None:
        raise OSError(errno.EINVAL, "")

    monkeypatch.setattr(directories, "try_name", refuse)
    with pytest.raises(Failed, match="^cannot create none/a:b: Invalid argument$") as caught:
        spots.check_name(str(tmp_path), ("none", "a:b"), "none/a:b")
    assert caught.value.hint == "its file system does not accept such a name"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("nbd://host/x", "nbd://HOST:10809/x"),
        ("nbd://host", "nbd://host/"),
        ("nbd://host/a%2Fb%20", "nbd://host/a/b%20"),
        ("nbd://host/x", "nbds://me@host/x?tls-certificates=/etc"),
        ("nbd://[::1]/x", "nbd://[::1]:10809/x"),
        ("nbd+unix:///x?socket=way/s", "nbd+unix:///x?tls-verify-peer=0&socket=dir%2Fs"),
        ("nbd+vsock://2/x", "nbds+vsock://2:10809/x"),
    ],
)
def test_one_export(one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dir").mkdir()
    Path("way").symlink_to("dir")
    assert exports(one, other) == "0"


def test_different_exports() -> None:
    assert (
        exports(
            "nbd://host/x",
            "nbd://host/X",
            "nbd://host//x",
            "nbd://host:1/x",
            "nbd://other/x",
            "nbd+unix:///x?socket=/s",
            "nbd+unix:///?socket=/s",
            "nbd+unix:///x?socket=/t",
            "nbd+vsock://host/x",
            "nbd://host:none/x",
        )
        is None
    )
