"""Cases that the real tar cannot show: a file system without safe renames, a name taken at the last moment."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import pytest

from qbtools import trees
from qbtools.errors import Damaged, Failed, Refused
from qbtools.streams import Reader
from qbtools.volumes import kernel

NAME = "dom0-home/user"


def archive(name: str = NAME) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for path, kind in ((name, tarfile.DIRTYPE), (f"{name}/sub", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(path)
            member.type, member.mode = kind, 0o755
            tar.addfile(member)
        member = tarfile.TarInfo(f"{name}/file")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    return made.getvalue()


def extract(path: Path, data: bytes | None = None) -> None:
    trees.extract(str(path), NAME, Reader(io.BytesIO(archive() if data is None else data)), warn)


def warn(text: str) -> None:
    raise AssertionError(text)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    extract(tmp_path / "a")
    with pytest.raises(Damaged):
        extract(tmp_path / "b", archive()[:2000])
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("there", ["a file", "a directory", "a link that leads nowhere"])
def test_a_name_that_was_taken_meanwhile(there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "t"

    def take(_fd: int) -> None:
        if there == "a file":
            target.write_text("theirs")
        elif there == "a directory":
            target.mkdir()
        else:
            target.symlink_to("nowhere")

    monkeypatch.setattr(kernel, "sync_file_system", take)
    with pytest.raises(Refused, match="already exists"):
        extract(target)
    assert os.listdir(tmp_path) == ["t"]
    assert not target.is_dir() or os.listdir(target) == []


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_fd: int) -> None:
        assert not (tmp_path / "deep").exists() or os.listdir(tmp_path / "deep/er") != ["t"]
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(kernel, "sync_file_system", broken)
    with pytest.raises(Failed, match=r"cannot write to .*/deep/er/t: Input/output error"):
        extract(tmp_path / "deep/er/t")
    assert os.listdir(tmp_path) == []


def test_the_real_sync_works(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    kernel.sync_file_system(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.sync_file_system(fd)
