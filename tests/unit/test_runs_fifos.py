"""The directory of the FIFOs of a run: it is private, it is removed, and so is what a killed run has left."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from qbtools.errors import Failed
from qbtools.runs import fifos
from qbtools.volumes.marks import Mark

_KILLED = """
import os, signal
from qbtools.runs import fifos
with fifos.directory() as path:
    os.mkfifo(os.path.join(path, "0.0"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_it_is_private_and_removed(place: Path) -> None:
    with fifos.directory() as path:
        assert Path(path).parent == place
        assert os.stat(path).st_mode & 0o777 == 0o700
        os.mkfifo(f"{path}/0.0")
    assert not list(place.iterdir())


def test_what_a_killed_run_has_left_is_removed(place: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", _KILLED], env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    assert ended.returncode == -9
    (left,) = place.iterdir()
    (place / "qb-streams.mine").mkdir()
    with fifos.directory() as path, fifos.directory() as other:
        assert sorted(place.iterdir()) == sorted([place / "qb-streams.mine", Path(path), Path(other)])
    assert left.name.startswith("qb-streams.qbtools-")
    assert list(place.iterdir()) == [place / "qb-streams.mine"]


def test_no_link_of_that_name_is_followed(place: Path) -> None:
    mine = place / "mine"
    mine.mkdir()
    (mine / "file").touch()
    (place / f"qb-streams.{Mark.own()._replace(start=1)}.00000000").symlink_to(mine)
    with fifos.directory():
        pass
    assert (mine / "file").exists()


def test_it_is_removed_without_free_descriptors(place: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with fifos.directory():
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not list(place.iterdir())


def test_it_cannot_be_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(place / "gone"))
    with pytest.raises(Failed, match=f"^cannot create a directory in {place}/gone: No such file or directory$"):
        with fifos.directory():
            pass
