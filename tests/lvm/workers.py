"""Runs the tests in the guest, as many files side by side as it has processors: ARGUMENT OF PYTEST...

Nothing is as dear there as to start an interpreter and to load modules: this is done once, and each file is run by a
fork. What takes longest comes first.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path

import pytest

INSIDE = Path(__file__).resolve().parent / "inside"
NO_TESTS = int(pytest.ExitCode.NO_TESTS_COLLECTED)
LONGEST = ("test_host.py",)
LOADED = "hashlib json lvm.filling qbtools.commands.snapshot qbtools.commands.volread qbtools.commands.volwrite"


class Worker:
    """One of those that run side by side, with a volume group of its own; runs one file after the other."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0

    def start(self, path: Path, arguments: list[str]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self.pid = os.fork()
        if not self.pid:
            try:
                os.environ["QB_WORKER"] = str(self.number)
                for fd in 1, 2:
                    os.dup2(self._output.fileno(), fd)
                status = int(pytest.main([str(path), *arguments]))
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
    for name in LOADED.split():
        importlib.import_module(name)
    files = sorted(INSIDE.glob("test_*.py"), key=lambda path: (path.name in LONGEST, path.stat().st_size))
    workers = [Worker(number) for number in range(os.cpu_count() or 1)]
    good = True
    while True:
        for worker in workers:
            if not worker.pid and files:
                worker.start(files.pop(), sys.argv[1:])
        running = {worker.pid: worker for worker in workers if worker.pid}
        if not running:
            return 0 if good else 1
        pid, code = os.wait()
        if pid in running:
            good &= running[pid].ended(os.waitstatus_to_exitcode(code))


if __name__ == "__main__":
    sys.exit(main())
