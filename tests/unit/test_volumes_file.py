"""Files as volumes: their map, and that a target appears completely or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qbtools import directories
from qbtools.errors import Failed, Refused
from qbtools.volumes import inuse, locate
from qbtools.volumes.files.source import open_plain
from qbtools.volumes.files.target import FileTarget
from qbtools.volumes.kind import TargetOptions

MIB = 1 << 20


def sparse(path: Path, size: int, *at: int) -> Path:
    """A file of size bytes with one block of data at each offset."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset in at:
            file.seek(offset)
            file.write(b"x" * 4096)
    return path


@pytest.fixture(params=["without a name", "with a name of its own"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to hide a file while it is written."""
    if request.param == "without a name":
        return
    real = os.open

    def without_tmpfile(path: str, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not here")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", without_tmpfile)


# --- reading ---


def test_holes_are_left_out_of_the_map(tmp_path: Path) -> None:
    with open_plain(str(sparse(tmp_path / "v", 10 * MIB + 1000, MIB, 5 * MIB))) as source:
        assert source.size == 10 * MIB + 1000
        assert list(source.extents()) == [(MIB, 4096), (5 * MIB, 4096)]


def test_data_up_to_the_end_and_a_dense_file(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"x" * 1001)
    with open_plain(str(tmp_path / "v")) as source:
        assert list(source.extents()) == [(0, 1001)]


@pytest.mark.parametrize("size", [0, 1, MIB])
def test_a_file_without_data_has_no_extents(tmp_path: Path, size: int) -> None:
    with open_plain(str(sparse(tmp_path / "v", size))) as source:
        assert (source.size, list(source.extents())) == (size, [])


def test_a_file_system_that_knows_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_seek(_fd: int, _at: int, _how: int) -> int:
        raise OSError(errno.EINVAL, "no")

    with open_plain(str(sparse(tmp_path / "v", MIB))) as source:
        monkeypatch.setattr(os, "lseek", no_seek)
        assert list(source.extents()) == [(0, MIB)]


def test_a_file_that_shrank_is_noticed_and_one_that_grew_is_not_an_error(tmp_path: Path) -> None:
    path = sparse(tmp_path / "v", MIB)
    with open_plain(str(path)) as source:
        sparse(path, MIB + 1)
        source.check()
        sparse(path, MIB - 1)
        with pytest.raises(Failed, match="shrank while it was read, from 1048576 to 1048575 bytes"):
            source.check()


# --- writing ---


def fill(target: FileTarget, data: bytes = b"new") -> None:
    target.start(len(data))
    target.write(data, 0)
    target.flush(len(data))


@pytest.mark.usefixtures("way")
def test_a_file_appears_at_commit_and_not_before(tmp_path: Path) -> None:
    place = tmp_path / "v"
    with FileTarget(str(place), TargetOptions(overwrite=False)) as target:
        fill(target)
        assert not place.exists()
        target.commit()
        assert place.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["v"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert place.stat().st_nlink == 1


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_left_without_commit(tmp_path: Path, overwrite: bool) -> None:
    with FileTarget(str(tmp_path / "v"), TargetOptions(overwrite=overwrite)) as target:
        fill(target)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("way")
@pytest.mark.usefixtures("way")
def test_a_file_system_that_cannot_rename_or_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example with FUSE: this is found before anything is written. O_TMPFILE without links is useless."""

    def fails(*_arguments: Any, **_more: Any) -> None:
        raise OSError(errno.EPERM, "")

    monkeypatch.setattr(inuse, "file_system", lambda _fd: "fuse.some")
    FileTarget(str(tmp_path / "v"), TargetOptions()).close()
    monkeypatch.setattr(os, "link", fails)
    with FileTarget(str(tmp_path / "v"), TargetOptions()) as target:
        assert len(os.listdir(tmp_path)) == 1, "with a name of its own, then"
        fill(target)
        target.commit()
    assert (tmp_path / "v").read_bytes() == b"new"
    monkeypatch.setattr(directories, "check_rename", fails)
    with pytest.raises(Failed, match="cannot rename files beside .*/w: Operation not permitted"):
        FileTarget(str(tmp_path / "w"), TargetOptions())
    assert os.listdir(tmp_path) == ["v"]


def test_what_exists_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"old")
    with pytest.raises(Refused, match="exists"):
        FileTarget(str(tmp_path / "v"), TargetOptions(overwrite=False))
    assert os.listdir(tmp_path) == ["v"]


@pytest.mark.usefixtures("way")
def test_what_appeared_meanwhile_is_never_replaced(tmp_path: Path) -> None:
    place = tmp_path / "v"
    with FileTarget(str(place), TargetOptions(overwrite=False)) as target:
        fill(target)
        place.write_bytes(b"somebody else's")
        with pytest.raises(Refused, match="created meanwhile"):
            target.commit()
    assert place.read_bytes() == b"somebody else's"
    assert os.listdir(tmp_path) == ["v"]


@pytest.mark.usefixtures("way")
def test_overwriting_swaps_in_one_step_and_keeps_the_mode(tmp_path: Path) -> None:
    place = tmp_path / "v"
    place.write_bytes(b"old")
    place.chmod(0o640)
    with place.open("rb") as old, FileTarget(str(place), TargetOptions(overwrite=True)) as target:
        fill(target)
        assert place.read_bytes() == b"old"
        target.commit()
        assert old.read() == b"old"
    assert place.read_bytes() == b"new"
    assert stat.S_IMODE(place.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["v"]


def test_owner_and_group_are_kept(tmp_path: Path) -> None:
    from support import need_root

    need_root()
    place = tmp_path / "v"
    place.write_bytes(b"old")
    os.chown(place, 1234, 2345)
    with FileTarget(str(place), TargetOptions(overwrite=True)) as target:
        fill(target)
        target.commit()
    assert (place.stat().st_uid, place.stat().st_gid) == (1234, 2345)


def test_a_mode_does_not_go_to_strangers_with_a_file_whose_owner_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_arguments: int) -> None:
        raise PermissionError(errno.EPERM, "no")

    place = tmp_path / "v"
    place.write_bytes(b"old")
    place.chmod(0o664)
    with FileTarget(str(place), TargetOptions(overwrite=True)) as target:
        fill(target)
        monkeypatch.setattr(os, "fchown", forbidden)
        target.commit()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_overwrite_of_nothing_makes_the_file(tmp_path: Path) -> None:
    with FileTarget(str(tmp_path / "v"), TargetOptions(overwrite=True)) as target:
        fill(target)
        target.commit()
    assert (tmp_path / "v").read_bytes() == b"new"


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    place = tmp_path / "far" / "v"
    (tmp_path / "link").symlink_to(place)
    for overwrite, data in (False, b"first"), (True, b"second"):
        with FileTarget(str(tmp_path / "link"), TargetOptions(overwrite=overwrite)) as target:
            fill(target, data)
            target.commit()
        assert (tmp_path / "link").is_symlink()
        assert place.read_bytes() == data
    with pytest.raises(Refused):
        FileTarget(str(tmp_path / "link"), TargetOptions(overwrite=False))


def test_what_is_on_stable_storage_before_the_name_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def watch(name: str, real: Callable[..., Any]) -> None:
        def called(*arguments: Any, **more: Any) -> Any:
            is_directory = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            seen.append("fsync directory" if is_directory else name)
            return real(*arguments, **more)

        monkeypatch.setattr(os, name, called)

    for name in "fsync", "link", "rename":
        watch(name, getattr(os, name))
    for overwrite, steps in (False, ["link"]), (True, ["link", "rename"]):
        seen.clear()
        with FileTarget(str(tmp_path / "v"), TargetOptions(overwrite=overwrite)) as target:
            fill(target)
            target.commit()
        assert seen == ["fsync", *steps, "fsync directory"]


def test_a_size_that_no_file_can_have(tmp_path: Path) -> None:
    with FileTarget(str(tmp_path / "v"), TargetOptions(overwrite=False)) as target:
        with pytest.raises(Failed, match="bytes: File too large"):
            target.start((1 << 63) - 1)


def test_a_name_that_the_file_system_does_not_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found when the target is opened, although the file gets its name at the end."""

    def refuse(_place: str, below: tuple[str, ...], _other: object = ()) -> bool:
        raise OSError(errno.EINVAL, below[-1])

    monkeypatch.setattr(directories, "try_name", refuse)
    with pytest.raises(Failed, match="cannot create .*/a:b: Invalid argument"):
        FileTarget(str(tmp_path / "a:b"), TargetOptions(overwrite=False))
    with pytest.raises(Failed, match="cannot create .*/none/aux.img: Invalid argument"):
        locate.look(f"file:{tmp_path}/none/aux.img", None, TargetOptions(), parents=True)
    locate.look(f"file:{tmp_path}/none/web-1.2_x.img", None, TargetOptions(), parents=True)  # this one is not tried
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_sparse_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileTarget(str(tmp_path / "v"), TargetOptions(overwrite=False)) as target:
        assert not target.room().whole
        monkeypatch.setattr(inuse, "file_system", lambda _fd: "vfat")
        assert target.room().whole


@pytest.mark.usefixtures("way")
def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="cannot create .*: No such file or directory"):
        FileTarget(str(tmp_path / "no" / "v"), TargetOptions(overwrite=False))


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (tmp_path / "v").write_bytes(b"old")
    with open_plain(str(tmp_path / "v")):
        pass
    for overwrite in False, True:
        try:
            with FileTarget(str(tmp_path / "v"), TargetOptions(overwrite=overwrite)) as target:
                fill(target)
                target.commit()
        except Refused:
            pass
    assert os.listdir("/proc/self/fd") == before
