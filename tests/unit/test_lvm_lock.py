"""The lock of a pool, and the record in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from qbtools.errors import Failed
from qbtools.volumes.lvm import lock
from qbtools.volumes.lvm.lock import Lock


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    found = str(tmp_path / "lib" / "qbtools"), str(tmp_path / "run" / "qbtools")
    monkeypatch.setattr(lock, "_DIRECTORIES", found)
    return found


def test_the_record_lasts(directories: tuple[str, str]) -> None:
    with Lock("pool-x", 1) as first:
        assert first.read() == ""
        first.write("a longer record")
        first.write("record")
    with Lock("pool-x", 1) as second:
        assert second.read() == "record"
        second.write("")
        assert second.read() == ""
    assert Path(directories[0], "pool-x.lock").stat().st_mode & 0o777 == 0o600
    assert Path(directories[0]).stat().st_mode & 0o777 == 0o700


def test_one_at_a_time_and_each_pool_by_itself() -> None:
    with Lock("pool-x", 1), Lock("pool-y", 1):
        with pytest.raises(Failed, match="another run has held pool-x.lock for 0 seconds"):
            Lock("pool-x", 0.2)
    with Lock("pool-x", 0):
        pass


def test_another_place_if_the_first_cannot_be_written(directories: tuple[str, str]) -> None:
    first, second = map(Path, directories)
    first.parent.write_text("no directory")
    with Lock("pool-x", 1):
        assert (second / "pool-x.lock").exists()
    second.parent.rename(second.parent.with_name("moved"))
    second.parent.write_text("none either")
    with pytest.raises(Failed, match="cannot create a lock in "):
        Lock("pool-x", 1)


def test_a_link_is_not_followed(directories: tuple[str, str], tmp_path: Path) -> None:
    for directory in directories:
        Path(directory).mkdir(parents=True)
        Path(directory, "pool-x.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failed, match="cannot create a lock in "):
        Lock("pool-x", 1)
    assert not (tmp_path / "elsewhere").exists()


def test_it_ends_with_the_process_that_holds_it(directories: tuple[str, str]) -> None:
    code = f"""if True:
        import os, sys
        sys.path.insert(0, {str(ROOT)!r})
        from qbtools.volumes.lvm import lock
        lock._DIRECTORIES = {directories!r}
        held = lock.Lock("pool-x", 1)
        held.write("mine")
        print(flush=True)
        os.read(0, 1)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline()
        with pytest.raises(Failed):
            Lock("pool-x", 0)
        os.kill(holder.pid, 9)
        with Lock("pool-x", 10) as lock_of_the_next:
            assert lock_of_the_next.read() == "mine"


def test_a_network_file_system_that_denies_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """EACCES means that another process has it, as EWOULDBLOCK does."""

    def deny(*_: object) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr("fcntl.flock", deny)
    with pytest.raises(Failed, match="another run has held pool-x.lock for 0 seconds"):
        Lock("pool-x", 0.1)
