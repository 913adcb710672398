"""Runs the tests in the guest, as many files side by side as it has processors: ARGUMENT OF PYTEST...

Starting an interpreter and loading modules takes longest there: this is done once, for pytest and the tests too, and a
fork runs each file, with memory of its own. The files that take longest come first. A line is printed when a test ends,
with the seconds since the beginning and those of the test: the host takes silence for a fault. What a test hands over
with record_property comes in lines, too.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

INSIDE = Path(__file__).resolve().parent / "inside"
NO_TESTS = int(pytest.ExitCode.NO_TESTS_COLLECTED)
LONGEST = "test_kept.py", "test_host.py", "test_write_thin.py", "test_write_killed.py", "test_write_thick.py"
LOADED = "qb-host-lvm", "qb-snapshot", "qb-unseal", "qb-volread", "qb-volwrite"
BEGAN = time.monotonic()
PIECE = 2000  # characters: a console takes so short a line as a whole


class Lines:
    """A plugin of pytest: a line about each test that has ended, on a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._seconds = 0.0
        self._outcome = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for the setup, the call and the teardown of a test, in this order."""
        if report.when == "setup":
            self._seconds, self._outcome = 0.0, "passed"
        self._seconds += report.duration
        if not report.passed:
            self._outcome = report.outcome
        if report.when == "call":
            for name, text in report.user_properties:
                for at in range(0, len(str(text)), PIECE):
                    os.write(self._fd, f"guest: {name}: {str(text)[at : at + PIECE]}\n".encode())
        if report.when == "teardown":
            name = report.nodeid.rpartition("/")[2]
            line = f"guest: {time.monotonic() - BEGAN:6.1f} s  {self._seconds:5.1f} s  {self._outcome}  {name}\n"
            os.write(self._fd, line.encode())


class Worker:
    """One of those that run side by side, with a volume group of its own; runs one file after the other."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0

    def start(self, path: Path, arguments: list[str], own: Callable[[], None]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self.pid = os.fork()
        if not self.pid:
            try:
                own()
                os.environ["QB_WORKER"] = str(self.number)
                lines = Lines(os.dup(1))
                for fd in 1, 2:
                    os.dup2(self._output.fileno(), fd)
                status = int(pytest.main([str(path), *arguments], plugins=[lines]))
                sys.stdout.flush()
                os._exit(status)
            finally:
                os._exit(99)

    def ended(self, status: int) -> bool:
        """Prints what its tests have said, whether they passed."""
        self.pid = 0
        self._output.seek(0)
        print(self._output.read().decode("utf-8", "replace"), flush=True)
        self._output.close()
        return status in (0, NO_TESTS)


def main() -> int:
    sys.path[:0] = [str(INSIDE.parents[2]), str(INSIDE.parents[1])]
    from lvm.guest import loaded
    from lvm.memory import own

    for name in LOADED:
        loaded(name)
    with redirect_stdout(StringIO()):
        pytest.main(["--collect-only", *sys.argv[1:], str(INSIDE)])  # loads pytest's plugins and all tests
    gc.freeze()  # so that no fork copies memory by looking for garbage
    shortest = {name: -at for at, name in enumerate(LONGEST)}
    files = sorted(INSIDE.glob("test_*.py"), key=lambda path: shortest.get(path.name, -len(LONGEST)))
    workers = [Worker(number) for number in range(os.cpu_count() or 1)]
    good = True
    while True:
        for worker in workers:
            if not worker.pid and files:
                worker.start(files.pop(), sys.argv[1:], own)
        running = {worker.pid: worker for worker in workers if worker.pid}
        if not running:
            return 0 if good else 1
        pid, code = os.wait()
        if pid in running:
            good &= running[pid].ended(os.waitstatus_to_exitcode(code))


if __name__ == "__main__":
    sys.exit(main())
