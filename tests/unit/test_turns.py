"""Turns at deriving keys, which programs share: qbtools.commands.archive.turns."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from running import wait_until

from qbtools.commands.archive import turns
from qbtools.errors import Failed, UsageError


def test_as_many_at_a_time_as_there_are_files(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).touch()
    turn, other = turns.of(str(tmp_path)), turns.of(str(tmp_path))
    over = threading.Event()

    def third() -> None:
        with other():
            over.set()

    def waits() -> bool:
        return any("-> FLOCK" in line and f" {os.getpid()} " in line for line in Path("/proc/locks").open())

    thread = threading.Thread(target=third)
    with turn():
        with other():
            thread.start()
            wait_until(waits, "the third one waits")
            assert not over.is_set()
    thread.join(60)
    assert over.is_set()


def test_a_directory_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^--turns: there is no file in {tmp_path}$"):
        turns.of(str(tmp_path))
    with pytest.raises(Failed, match=f"^cannot read {tmp_path}/gone: No such file or directory$"):
        turns.of(f"{tmp_path}/gone")
