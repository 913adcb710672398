"""A run that a test stops in the middle: with a valve in its pipe, and a mark that all of its processes have."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest
from support import environment

from qbtools import processtree

PATIENCE = 60.0
"""Seconds after which a test gives up waiting; how long it really takes does not matter."""

_MARK = "LC_QB_TEST_MARK"  # LC_…: so tar and compressors, whose environment is made, have it too
_VALVE_AT = "LC_QB_TEST_VALVE"

# Lets some bytes pass, says so, and waits for a line before it lets the others pass.
_VALVE = """#!/bin/bash
head -c "$1" || exit
: >"$LC_QB_TEST_VALVE/reached"
read -r _ <"$LC_QB_TEST_VALVE/go" || exit
exec /bin/cat
"""

# A compressor of the name that qb-compress and qb-decompress take first: its input stops in the middle of the file
# NAME. Its environment does not tell of which file it is, that of its parent does.
_COMPRESSOR = """#!/bin/bash
if ! grep -qzx "QB_NAME=NAME" /proc/$PPID/environ; then exec gzip "$@"; fi
exec gzip "$@" < <(valve BYTES)
"""

OF_FILE = """#!/bin/bash
QB_NAME=$(tr '\\0' '\\n' </proc/$PPID/environ | sed -n 's/^QB_NAME=//p')
"""
"""How a program of a test begins that stands for a compressor and does something else for each file."""


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Waits for what other processes do. The pauses grow, because looking takes time that these processes need."""
    began, pause = time.monotonic(), 0.01
    while not condition():
        waited = time.monotonic() - began
        if waited > patience:
            pytest.fail(f"waited in vain: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, max(0.1, waited / 10))


class Running:
    """Runs a pipe as a user types it, in a session of its own; `valve N` in it stops after N bytes.

    A context manager: whatever of the run is left at its end is killed. place: a directory for what it needs; folder:
    where the pipe runs.
    """

    def __init__(self, place: Path, folder: Path | None = None, **changes: str) -> None:
        self._place = place
        self._folder = folder or place
        self.mark = uuid.uuid4().hex
        programs = place / "programs"
        programs.mkdir(exist_ok=True)
        self.program("valve", _VALVE)
        os.mkfifo(place / "go")
        self._go = os.open(place / "go", os.O_RDWR)
        self.environment = environment(**changes)
        self.environment["PATH"] = f"{programs}:{self.environment['PATH']}"
        self.environment.update({_MARK: self.mark, _VALVE_AT: str(place), "QB_TEST_VALVE": str(place)})
        self._process: subprocess.Popen[bytes] | None = None

    def program(self, name: str, text: str) -> None:
        """Adds a program that is first in PATH."""
        path = self._place / "programs" / name
        path.write_text(text)
        path.chmod(0o755)

    def hold_in(self, name: str, count: int) -> None:
        """Lets qb-backup stop after count bytes of the file name, in front of the compressor."""
        self.program("igzip", _COMPRESSOR.replace("NAME=NAME", f"NAME={name}").replace("BYTES", str(count)))

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        until = time.monotonic() + PATIENCE
        while (left := self.processes()) and time.monotonic() < until:  # one of them may have just started another
            for pid in left:
                kill(pid, 9)
            time.sleep(0.02)
        os.close(self._go)
        if self._process is not None:
            self._process.communicate(timeout=PATIENCE)

    def start(self, text: str, pipefail: bool = True) -> subprocess.Popen[bytes]:
        """Starts the pipe."""
        self._process = subprocess.Popen(
            ["bash", *(["-o", "pipefail"] if pipefail else []), "-c", text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._folder,
            env=self.environment,
            start_new_session=True,
        )
        return self._process

    def hold(self) -> None:
        """Waits until the valve is reached."""
        wait_until((self._place / "reached").exists, "the valve")

    def forget(self) -> None:
        """Makes hold() wait for the next valve."""
        (self._place / "reached").unlink()

    def release(self) -> None:
        """Opens the valve."""
        os.write(self._go, b"\n")

    def end(self) -> tuple[int, str]:
        """Waits for the end of the pipe; returns its exit status and stderr."""
        assert self._process is not None
        _, stderr = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, stderr.decode()

    def processes(self, program: str | None = None) -> list[int]:
        """All processes of this run, or only those of one program."""
        return [pid for pid in marked(self.mark) if program is None or program in words(pid)]

    def some(self, program: str) -> list[int]:
        """The processes of a program that runs, or is about to; they are listed once, because they may end soon."""
        found: list[int] = []
        wait_until(lambda: bool(found.extend(self.processes(program)) or found), program)
        return found

    def one(self, program: str) -> int:
        """The process of a program that runs once, or is about to."""
        found: list[int] = []

        def one_only() -> bool:
            found[:] = self.processes(program)
            return len(found) == 1

        wait_until(one_only, f"one process of {program}")
        return found[0]

    def gone(self) -> None:
        """Waits until no process of this run is left."""
        wait_until(lambda: not self.processes(), "the end of all processes")


def spare_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on processtree finds only what is started later, and not the daemons of other tests."""
    below = processtree.below
    others = set(below(os.getpid()))
    monkeypatch.setattr(processtree, "below", lambda top: [pid for pid in below(top) if pid not in others])


def kill(pid: int, number: int) -> None:
    """Sends a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def marked(mark: str) -> list[int]:
    """The processes (not those that have ended) whose environment holds the mark."""
    wanted = f"{_MARK}={mark}".encode()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and wanted in read(f"/proc/{name}/environ")]


def words(pid: int) -> list[str]:
    """The program of a process, and the script where it is an interpreter, whatever options that has."""
    found = read(f"/proc/{pid}/cmdline").decode("utf-8", "replace").split("\0")
    return [os.path.basename(word) for word in found if not word.startswith("-")][:2]


def read(path: str) -> bytes:
    """A file of /proc; empty if the process has ended. Hundreds are read each time that a test looks."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, 1 << 18)
    except OSError:
        return b""
    finally:
        os.close(file)
