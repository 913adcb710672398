"""Which parts of a directory are saved: errors of single files, and the list of mounts of the kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qbtools import treewalk
from qbtools.errors import Failed
from qbtools.treewalk import LeftOut


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / "sub" / name).mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(5000))
    return tmp_path


def failing(monkeypatch: pytest.MonkeyPatch, call: str, end: str, number: int) -> None:
    """Makes a function of os fail for paths with this ending."""
    real = getattr(os, call)

    def fake(path: str, *more: int) -> object:
        if path.endswith(end):
            raise OSError(number, os.strerror(number))
        return real(path, *more)

    monkeypatch.setattr(os, call, fake)


def test_the_size_is_about_that_of_the_archive(home: Path) -> None:
    assert treewalk.walk(str(home)) == (8 * 1024 + 15000, [])


@pytest.mark.parametrize(("call", "end", "path"), [("open", "/b", "b"), ("scandir", "sub/b", "sub/b")])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ENOKEY, errno.ENOTCONN, errno.ESTALE])
def test_what_cannot_be_read_is_left_out(
    call: str, end: str, path: str, number: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, call, end, number)
    assert treewalk.walk(str(home)).left_out == [LeftOut(path, f"cannot be read: {os.strerror(number)}")]


@pytest.mark.parametrize(("call", "end"), [("open", "/b"), ("scandir", "sub/b")])
def test_what_has_vanished_is_nothing(call: str, end: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, call, end, errno.ENOENT)
    assert treewalk.walk(str(home)).left_out == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
@pytest.mark.parametrize(("call", "end"), [("open", "/b"), ("scandir", "sub/b")])
def test_a_machine_that_fails(call: str, end: str, number: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, call, end, number)
    with pytest.raises(Failed, match=f"cannot read {home}/?{end}: {os.strerror(number)}"):
        treewalk.walk(str(home))


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTCONN])
def test_the_directory_itself_must_be_readable(number: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "scandir", f"{home}/", number)
    with pytest.raises(Failed, match=f"cannot read {home}: "):
        treewalk.walk(str(home))


def test_the_last_mount_at_a_place_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = treewalk._mount_of(str(home))
    rows = [
        b"%s 1 7:1 / / rw - ext4 /dev/x rw" % own,
        b"900 1 0:5 / %s rw - tmpfs none rw" % os.fsencode(home / "a"),
        b"901 1 7:1 /y %s rw - ext4 /dev/x rw" % os.fsencode(home / "a"),
        b"902 1 0:6 / %s/sub/with\\040blank rw - fuse none rw" % os.fsencode(home),
        b"903 1 0:7 / %s2 rw - tmpfs none rw" % os.fsencode(home),
    ]
    real = treewalk._text
    monkeypatch.setattr(treewalk, "_text", lambda path: b"\n".join(rows) if "mountinfo" in path else real(path))
    assert treewalk._foreign_mounts(str(home)) == {"sub/with blank"}


def test_octal_digits() -> None:
    assert treewalk.plain(rb"a\040b\134\011c\303\266") == b"a b\\\tc\xc3\xb6"
    assert treewalk.plain(b"") == b""
