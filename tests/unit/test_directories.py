"""Files that get a name: an existing file is never replaced, and directories are flushed if possible."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from qbtools import directories


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "old").write_bytes(b"x")
    (tmp_path / "other").write_bytes(b"y")
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def failing(number: int):  # noqa: ANN201
    def fail(*_arguments: object, **_more: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def refusing(number: int):  # noqa: ANN201
    """A C library on a file system whose rename cannot refuse to replace a file."""

    def fail(*_arguments: object) -> int:
        ctypes.set_errno(number)
        return -1

    return lambda *_name, **_more: SimpleNamespace(renameat2=fail)


@pytest.mark.parametrize("way", ["renameat2", "an older library", "link", "looking"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_name_is_given_and_none_is_taken_away(
    way: str, number: int, directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On any file system: with renameat2, with only hard links, with neither."""
    if way == "an older library":
        monkeypatch.setattr(ctypes, "CDLL", lambda *_name, **_more: object())
    elif way != "renameat2":
        monkeypatch.setattr(ctypes, "CDLL", refusing(number))
    if way == "looking":
        monkeypatch.setattr(os, "link", failing(number))
    (tmp_path / "dangling").symlink_to("nowhere")
    for taken in ("other", "dangling"):
        with pytest.raises(FileExistsError):
            directories.rename_new(directory, "old", taken)
    directories.check_rename(directory)
    directories.rename_new(directory, "old", "new")
    assert sorted(os.listdir(tmp_path)) == ["dangling", "new", "other"]
    assert (tmp_path / "other").read_bytes() == b"y"
    assert (tmp_path / "new").read_bytes() == b"x"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with neither a rename that replaces nothing nor hard links, such as exFAT."""
    monkeypatch.setattr(ctypes, "CDLL", refusing(errno.EINVAL))
    monkeypatch.setattr(os, "link", failing(errno.EPERM))


@pytest.mark.usefixtures("plain")
def test_a_file_that_appears_just_then_stays(directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is reserved before the rename, so no other program can create a file with that name in between."""
    rename = os.rename

    def late(*names: str, **where: int) -> None:
        with pytest.raises(FileExistsError):
            os.close(os.open(tmp_path / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        rename(*names, **where)

    monkeypatch.setattr(os, "rename", late)
    directories.rename_new(directory, "old", "new")
    assert (tmp_path / "new").read_bytes() == b"x"


@pytest.mark.usefixtures("plain")
def test_a_rename_that_fails_leaves_nothing(directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(os, "rename", failing(errno.EIO))
    for old in ("old", "folder"):
        with pytest.raises(OSError, match="Input/output error"):
            directories.rename_new(directory, old, "new")
    with pytest.raises(OSError, match="Input/output error"):
        directories.check_rename(directory)
    assert sorted(os.listdir(tmp_path)) == ["folder", "old", "other"]


@pytest.mark.usefixtures("plain")
def test_a_directory_gets_a_name(directory: int, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x").touch()
    with pytest.raises(FileExistsError):
        directories.rename_new(directory, "folder", "other")
    directories.rename_new(directory, "folder", "new")
    assert os.listdir(tmp_path / "new") == ["x"]


def test_directories_are_made_and_removed(tmp_path: Path) -> None:
    made = directories.make(f"{tmp_path}/a/b/c")
    assert made == [f"{tmp_path}/a", f"{tmp_path}/a/b", f"{tmp_path}/a/b/c"]
    assert directories.make(f"{tmp_path}/a/b/c/") == [] and directories.make("") == []
    (tmp_path / "a/x").touch()
    directories.remove(made)
    assert os.listdir(tmp_path / "a") == ["x"]
    (tmp_path / "dangling").symlink_to("nowhere/x")
    for path in ("a/x", "a/x/y", "dangling", "dangling/y"):
        with pytest.raises(NotADirectoryError):
            directories.make(f"{tmp_path}/{path}")


def test_another_failure_of_a_rename_stays_one(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        directories.rename_new(directory, "none", "new")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_name, **_more: object())
    with pytest.raises(FileNotFoundError):
        directories.rename_new(directory, "none", "new")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_a_directory_that_cannot_be_flushed(number: int, directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    directories.flush(directory)
    monkeypatch.setattr(os, "fsync", failing(number))
    directories.flush(directory)


def test_a_flush_that_fails(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        directories.flush(directory)


def test_a_name_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    assert not directories.try_name(str(tmp_path), ("a", "b", "c"), ("a", "b", "C"))
    assert directories.try_name(str(tmp_path), ("a", "b", "c"), ("a", "b"))
    for name in ("x" * 256, "with/none"):
        with pytest.raises(OSError, match="File name too long|No such file"):
            directories.try_name(str(tmp_path), ("a", name))
    assert os.listdir(tmp_path) == []


def test_a_size_is_tried(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        directories.try_size(file.fileno(), 1 << 40)
        with pytest.raises(OSError, match="File too large"):
            directories.try_size(file.fileno(), (1 << 63) - 1)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            directories.try_size(file.fileno(), 1 << 20)
            with pytest.raises(OSError, match="File too large"):
                directories.try_size(file.fileno(), (1 << 20) + 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "x").stat().st_size == 0


def test_what_a_killed_try_has_left_is_removed_later(directory: int, tmp_path: Path) -> None:
    """Only empty things of such a name, and only if they are old: another process may be trying just now."""
    kept = {".qb-try-full": b"x", ".qb-try-new": b"", ".qb-other": b""}
    for name, content in {**kept, ".qb-try-old": b""}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".qb-try-folder/a").mkdir(parents=True)
    (tmp_path / ".qb-try-folder/a/b").touch()
    for name in (".qb-try-full", ".qb-other", ".qb-try-old", ".qb-try-folder"):
        os.utime(tmp_path / name, (0, 0))
    directories.check_rename(directory)
    assert set(os.listdir(tmp_path)) == {"old", "other", *kept, ".qb-try-folder"}
    directories.try_name(str(tmp_path), ("a:b",))
    assert set(os.listdir(tmp_path)) == {"old", "other", *kept}
