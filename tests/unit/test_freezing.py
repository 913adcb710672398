"""A frozen machine is thawed, whatever happens."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from running import wait_until

from qbtools.errors import Failed
from qbtools.volumes.freezing import Frozen


def test_it_is_thawed_at_the_end_and_not_before(tmp_path: Path) -> None:
    thawed = tmp_path / "thawed"
    before = os.listdir("/proc/self/fd")
    with Frozen(f"touch {tmp_path}/frozen", f"echo x >> {thawed}", 60, pytest.fail):
        assert (tmp_path / "frozen").exists() and not thawed.exists()
    assert thawed.read_text() == "x\n"
    assert os.listdir("/proc/self/fd") == before


def test_the_time_limit(tmp_path: Path) -> None:
    thawed = tmp_path / "thawed"
    with pytest.raises(Failed, match="^thawed after 0.2 seconds, before all was taken$") as raised:
        with Frozen("true", f"echo x >> {thawed}", 0.2, pytest.fail):
            wait_until(thawed.exists, "the watchdog")
    assert raised.value.hint == "--thaw-limit gives it more time"
    assert thawed.read_text() == "x\n"


def test_an_error_inside_is_the_one_that_is_reported(tmp_path: Path) -> None:
    warnings: list[str] = []
    with pytest.raises(RuntimeError, match="mine"):
        with Frozen("true", f"echo x >> {tmp_path}/thawed; exit 7", 60, warnings.append):
            raise RuntimeError("mine")
    assert warnings == ["--thaw ended with status 7"]
    assert (tmp_path / "thawed").read_text() == "x\n"


def test_a_watchdog_that_is_killed_is_stood_in_for(tmp_path: Path) -> None:
    still = Frozen("true", f"echo x >> {tmp_path}/thawed", 60, pytest.fail)
    with still:
        os.kill(still._watchdog, signal.SIGKILL)
    assert (tmp_path / "thawed").read_text() == "x\n"


def test_the_watchdog_holds_nothing_of_ours(tmp_path: Path) -> None:
    """A lock of ours and standard output are closed when we end."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    still = Frozen("true", "true", 60, pytest.fail)
    with still:
        place = f"/proc/{still._watchdog}/fd"
        wait_until(lambda: os.readlink(f"{place}/1") == os.devnull, "the watchdog")
        held = {os.readlink(f"{place}/{fd}") for fd in os.listdir(place)}
        assert str(tmp_path / "lock") not in held
    os.close(lock)


def test_what_the_commands_print_goes_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Frozen("echo froze", "echo melted", 60, pytest.fail):
        pass
    assert capfd.readouterr() == ("", "froze\nmelted\n")
