"""A file beside an archive: checked early, and written only when the archive is complete."""

from __future__ import annotations

import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from qbtools.errors import Failed, Refused
from qbtools.runs.sidefiles import SideFile, Unwritten, refuse_same


def test_none_is_wanted() -> None:
    with SideFile(None) as side:
        side.finish(b"text")


def test_an_existing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "receipt").write_text("earlier")
    with pytest.raises(Refused, match=f"^{tmp_path}/receipt already exists$"):
        SideFile(str(tmp_path / "receipt"))
    assert os.listdir(tmp_path) == ["receipt"]


def test_a_file_that_exists_at_the_end_stays(tmp_path: Path) -> None:
    with pytest.raises(Unwritten, match="cannot be written: File exists"), SideFile(str(tmp_path / "receipt")) as side:
        (tmp_path / "receipt").write_text("another run")
        side.finish(b"x")
    assert os.listdir(tmp_path) == ["receipt"]
    assert (tmp_path / "receipt").read_text() == "another run"


@pytest.mark.parametrize("before", [None, "earlier"])
def test_it_exists_at_the_end(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "id"
    if before is not None:
        path.write_text(before)
    with SideFile(str(path), replace=True) as side:
        assert path.exists() == (before is not None)
        side.finish(b"an ID\n")
    assert path.read_text() == "an ID\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["id"]


@pytest.mark.parametrize("replace", [False, True])
def test_it_is_on_the_disk_before_it_gets_its_name(
    replace: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    flush = os.fsync

    def noting(fd: int) -> None:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode):
            assert found.st_size == 1 and not (tmp_path / "id").exists()
            synced.append(found.st_ino)
        flush(fd)

    monkeypatch.setattr(os, "fsync", noting)
    with SideFile(str(tmp_path / "id"), replace) as side:
        side.finish(b"x")
    assert synced == [(tmp_path / "id").stat().st_ino]


def test_a_run_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("earlier")
    with pytest.raises(ValueError, match="x"), SideFile(str(tmp_path / "id"), replace=True):
        raise ValueError("x")
    assert os.listdir(tmp_path) == ["id"]
    assert (tmp_path / "id").read_text() == "earlier"


@pytest.mark.parametrize("name", ["missing/id", "directory", "file/id"])
def test_an_output_that_cannot_be_written_is_reported_early(name: str, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(Failed, match="cannot write"):
        SideFile(f"{tmp_path}/{name}")
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "id").symlink_to(tmp_path / "to/id")
    with SideFile(str(tmp_path / "id")) as side:
        side.finish(b"x")
    assert (tmp_path / "id").is_symlink()
    assert (tmp_path / "to/id").read_text() == "x"


def test_what_a_killed_run_has_left_is_removed(tmp_path: Path) -> None:
    """Files with other names, and those of runs that go on, stay."""
    pid = os.fork()
    if not pid:
        SideFile(str(tmp_path / "id"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (left,) = os.listdir(tmp_path)
    (tmp_path / f"{left}.mine").touch()
    with SideFile(str(tmp_path / "other")) as other:
        (unfinished,) = set(os.listdir(tmp_path)) - {f"{left}.mine"}
        with SideFile(str(tmp_path / "id")) as side:
            side.finish(b"x")
        assert sorted(os.listdir(tmp_path)) == sorted(["id", f"{left}.mine", unfinished])
        other.finish(b"y")
    assert sorted(os.listdir(tmp_path)) == sorted(["id", f"{left}.mine", "other"])


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "id")
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append((tmp_path / "id").read_bytes()))
    thread.start()
    with SideFile(str(tmp_path / "id")) as side:
        side.finish(b"x")
    thread.join()
    assert got == [b"x"]


def test_a_full_disk() -> None:
    with pytest.raises(Failed, match="the archive is complete, but /dev/full cannot be written: No space"):
        with SideFile("/dev/full") as side:
            side.finish(b"x")


def test_it_must_be_none_of_the_files_that_the_run_needs(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    os.link(tmp_path / "a", tmp_path / "b")
    refuse_same("--receipt", str(tmp_path / "c"), {"the archive": str(tmp_path / "a"), "the passphrase": None})
    with pytest.raises(Refused, match=f"--receipt {tmp_path}/b is the same file as the archive"):
        refuse_same("--receipt", str(tmp_path / "b"), {"the archive": str(tmp_path / "a")})
