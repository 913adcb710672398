"""Shared helpers of the tests: the paths of the programs, running them, and requirements of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "bin"
REQUIRE_ALL = os.environ.get("QB_REQUIRE_ALL") == "1"


def missing(what: str) -> NoReturn:
    """Skips the test because this machine lacks something; fails it where everything is required."""
    if REQUIRE_ALL:
        pytest.fail(f"QB_REQUIRE_ALL=1, but: {what}")
    pytest.skip(what)


def need(*programs: str) -> None:
    """The test uses these programs."""
    for program in programs:
        if shutil.which(program) is None:
            missing(f"the program {program} is not there")


def need_root() -> None:
    """The test mounts, or makes loop devices."""
    if os.geteuid() != 0:
        missing("root is needed")


def copy_of(place: Path, *parts: str) -> Path:
    """Copies these directories of the checkout to place, which is returned."""
    for part in parts:
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("*.pyc.*"))  # which others write now
    return place


def with_cheap_keys(place: Path) -> Path:
    """Makes a copy of the checkout take a hundredth of the time for its keys: for sessions that name no --logn."""
    for name, usual in ("commands/archive/sealoptions.py", 17), ("keys/wrapping.py", 18):
        module = place / "qbtools" / name
        text = module.read_text()
        assert text.count(f"\nLOG_N = {usual}\n") == 1
        module.write_text(text.replace(f"\nLOG_N = {usual}\n", "\nLOG_N = 10\n"))
    return place


@contextmanager
def cheap_programs(place: Path) -> Iterator[None]:
    """Meanwhile, environment() has the programs of such a copy: for tests that wrap passphrases many times."""
    with pytest.MonkeyPatch.context() as patch:
        shutil.copytree(ROOT / "qbtools", place / "qbtools")  # with what Python has compiled
        patch.setattr("support.BIN", with_cheap_keys(copy_of(place, "bin")) / "bin")
        yield


def environment(**changes: str) -> dict[str, str]:
    """A small environment with the programs of this checkout first in PATH; no QB_… of the caller's.

    Chunks may be small in it: many of them need little data.
    """
    path = f"{BIN}:{os.path.dirname(shutil.which('python3') or '')}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    home = os.environ.get("HOME", "/")
    return {"PATH": path, "HOME": home, "LC_ALL": "C.UTF-8", "QB_TEST_SMALL_CHUNKS": "1", **changes}


def run(
    *argv: str | Path, data: bytes = b"", timeout: float = 120, **changes: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program (ours are found by name) with data as stdin, in a session without terminal."""
    return subprocess.run(
        [str(word) for word in argv],
        input=data,
        capture_output=True,
        env=environment(**changes),
        timeout=timeout,
        start_new_session=True,
        check=False,
    )


def bash(text: str, data: bytes = b"", timeout: float = 120, **changes: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a pipe as a user types it, under `set -o pipefail`."""
    return run("bash", "-o", "pipefail", "-c", text, data=data, timeout=timeout, **changes)
