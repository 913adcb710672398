"""Whether another program writes to a file: found with a lease, or by a search if there are no leases."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import wait_until

from qbtools.errors import Failed, Refused
from qbtools.volumes import inuse
from qbtools.volumes.files import guards
from qbtools.volumes.files.target import FileTarget
from qbtools.volumes.kind import TargetOptions


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process ends while these tests search."""
    monkeypatch.setattr(inuse, "_LOOKS", 1)


@pytest.fixture()
def path(tmp_path: Path) -> Path:
    (tmp_path / "v").write_bytes(b"x" * 4096)
    return tmp_path / "v"


@contextmanager
def guarded(path: Path, warnings: list[str] | None = None) -> Iterator[guards.Guard]:
    fd = os.open(path, os.O_RDONLY)
    said = [] if warnings is None else warnings
    try:
        guard = guards.guard(fd, "it", lambda why: Failed(f"changed: {why}"), "a hint", said.append)
        try:
            yield guard
        finally:
            guard.release()
    finally:
        os.close(fd)
    assert warnings is not None or said == []


@pytest.fixture()
def no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has none."""
    real = fcntl.fcntl

    def call(fd: int, what: int, *more: Any) -> Any:
        if what == fcntl.F_SETLEASE:
            raise OSError(errno.EINVAL, "no leases")
        return real(fd, what, *more)

    monkeypatch.setattr(fcntl, "fcntl", call)


def opened(path: Path, flags: str = "os.O_RDWR") -> list[str]:
    """A process that opens the file, and ends."""
    return [sys.executable, "-c", f"import os; os.open({str(path)!r}, {flags})"]


def test_nobody_writes(path: Path) -> None:
    with guarded(path) as guard:
        assert isinstance(guard, guards.Lease)
        path.read_bytes()
        subprocess.run(opened(path, "os.O_RDONLY"), check=True)
        guard.check()


def test_a_writer_can_open_it_and_is_noticed_at_once(path: Path) -> None:
    with guarded(path) as guard:
        with pytest.raises(Failed, match="^changed: it was opened for writing$"):
            subprocess.run(opened(path), check=True)
        with pytest.raises(Failed, match="^changed: it was opened for writing$"):
            guard.check()
    with guarded(path) as guard:
        guard.check()


@pytest.mark.parametrize("way", ["truncate", "O_TRUNC"])
def test_truncating_counts_as_writing(path: Path, way: str) -> None:
    text = f"import os; os.truncate({str(path)!r}, 1)" if way == "truncate" else f"open({str(path)!r}, 'w')"
    with guarded(path), pytest.raises(Failed, match="opened for writing"):
        subprocess.run([sys.executable, "-c", text], check=True)


def test_a_signal_that_has_not_arrived_yet_changes_nothing(path: Path) -> None:
    with guarded(path) as guard:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fd = guard._fd  # type: ignore[attr-defined]
        with subprocess.Popen(opened(path)):
            wait_until(lambda: fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK, "the opener")
            with pytest.raises(Failed, match="it was opened for writing"):
                guard.check()


def test_after_its_release_nothing_is_reported(path: Path) -> None:
    with guarded(path) as guard:
        guard.release()
        subprocess.run(opened(path), check=True)
        os.kill(os.getpid(), signal.SIGIO)


def test_a_process_that_has_it_open_for_writing_is_named(path: Path) -> None:
    with path.open("r+b"):
        with pytest.raises(
            Refused, match=rf"^it is in use: process {os.getpid()} \(.*\) has it open for writing$"
        ) as e:
            with guarded(path):
                pass
    assert e.value.hint == "a hint"


def test_an_invisible_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inuse, "writer", lambda _status, _own: None)
    with path.open("r+b"):
        with pytest.raises(Refused, match="^it is in use: it is open for writing$"):
            with guarded(path):
                pass


@pytest.mark.parametrize("kind", ["nfs4", "cifs"])
def test_a_server_that_grants_no_lease(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This does not mean that somebody writes, so writers are searched for. A writer that is found still counts."""
    monkeypatch.setattr(inuse, "file_system", lambda _fd: kind)
    warnings: list[str] = []
    with path.open("r+b"):  # so that there is none to be had
        with pytest.raises(Refused, match="^it is in use: process "):
            with guarded(path, warnings):
                pass
        monkeypatch.setattr(inuse, "writer", lambda _status, _own: None)
        with guarded(path, warnings) as guard:
            assert isinstance(guard, guards.Watch)
    assert warnings == [
        "it cannot be locked (Resource temporarily unavailable): a program that writes to it may not be detected"
    ]


def test_a_writer_that_goes_away_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("r+b") as file:

        def gone(_status: object, _own: object) -> None:
            file.close()

        monkeypatch.setattr(inuse, "writer", gone)
        with guarded(path) as guard:
            assert isinstance(guard, guards.Lease)


@pytest.mark.usefixtures("no_leases")
def test_without_leases_it_is_looked_for(path: Path) -> None:
    warnings: list[str] = []
    with guarded(path, warnings) as guard:
        guard.check()
        with path.open("rb"):
            guard.check()
        with path.open("r+b"):
            with pytest.raises(Failed, match=rf"^changed: process {os.getpid()} "):
                guard.check()
        guard.check()
        os.utime(path, ns=(0, 1))
        with pytest.raises(Failed, match="^changed: a program wrote to it$"):
            guard.check()
    assert warnings == ["it cannot be locked (Invalid argument): a program that writes to it may not be detected"]
    with path.open("r+b"), pytest.raises(Refused, match="has it open for writing"):
        with guarded(path):
            pass


@pytest.mark.usefixtures("no_leases")
def test_a_file_that_changed_is_not_replaced_without_leases_either(path: Path) -> None:
    warnings: list[str] = []
    with FileTarget(str(path), TargetOptions(overwrite=True, warn=warnings.append)) as target:
        target.start(8192)
        target.flush(8192)
        path.write_bytes(b"y" * 4096)
        with pytest.raises(Refused, match="came into use meanwhile: a program wrote to it"):
            target.commit()
    assert path.read_bytes() == b"y" * 4096
    assert len(warnings) == 1 and os.listdir(path.parent) == ["v"]


def test_no_descriptor_is_left(path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with guarded(path):
        pass
    assert os.listdir("/proc/self/fd") == before
