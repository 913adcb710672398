"""Virtual environments of a test, filled by pip with the configuration of this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import ROOT, copy_of, environment, missing

_PASSED_ON = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def pip_environment() -> dict[str, str]:
    """A small environment, with what tells pip where packages come from."""
    settings = {
        name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.upper() in _PASSED_ON
    }
    return environment(**settings)


class Venv:
    """A virtual environment at path, which create() makes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "bin"

    def create(self) -> Venv:
        # A pip of its own would take seconds to unpack. By a link, it does not find the packages beside it.
        self._run(sys.executable, "-m", "venv", "--without-pip", str(self.path))
        pip = find_spec("pip")
        assert pip is not None and pip.origin is not None
        (self.path / "pip").symlink_to(os.path.dirname(pip.origin))
        return self

    def pip(self, *arguments: str | Path) -> None:
        """pip of the Python that runs the tests, for this environment; it must end well."""
        self._run(str(self.bin / "python3"), str(self.path / "pip"), "-q", *map(str, arguments))

    def _run(self, *argv: str) -> None:
        done = subprocess.run(argv, capture_output=True, text=True, env=pip_environment(), check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(argv)}: {done.stdout}{done.stderr}")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A directory that make has filled, once for all workers of this run of the tests."""
    if (run_id := os.environ.get("PYTEST_XDIST_TESTRUNUID")) is None:
        place = factory.mktemp(name)
        make(place)
        return place
    place = factory.getbasetemp().parent / f"{name}-{run_id}"
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "made").exists():
            shutil.rmtree(place, ignore_errors=True)  # another worker may have failed here
            place.mkdir()
            make(place)
            (place / "made").touch()
    return place


def need_packages(place: Path) -> None:
    """The test gets packages by pip."""
    options = ["-q", "--no-deps", "--only-binary=:all:", "-d", str(place / "probe")]  # building one would take seconds
    argv = [sys.executable, "-m", "pip", "download", *options, "tqdm"]
    if subprocess.run(argv, capture_output=True, env=pip_environment(), check=False).returncode:
        missing("pip gets no packages here")


def source_copy(place: Path) -> Path:
    """A copy of the checkout's files that packaging needs."""
    target = place / "source"
    target.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    return copy_of(target, "qbtools", "bin", "man")
