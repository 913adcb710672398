"""The demo does what it shows, and does not change the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshhost import privilege_separation
from support import copy_of, environment, missing, need, run, with_cheap_keys
from venvs import need_packages, pip_environment, source_copy

NOBODY = 65534
SYSTEM = "/usr/local/bin:/usr/bin:/bin"
CHANGERS = ["apt", "apt-get", "aptitude", "dnf", "dpkg", "rpm", "yum"]
CHANGERS += ["invoke-rc.d", "pip", "pip3", "service", "su", "sudo", "systemctl"]
"""Programs that change a machine."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as found:
        Path(found).chmod(0o755)
        (Path(found) / "tmp").mkdir()
        yield Path(found)


@pytest.fixture
def changers(place: Path) -> Iterator[Path]:
    """A directory for PATH in which these programs are replaced by failing ones. None of them may be run."""
    programs, called = place / "changers", place / "called"
    programs.mkdir()
    called.touch()
    called.chmod(0o666)
    for name in CHANGERS:
        (programs / name).write_text(f'#!/bin/bash\necho "${{0##*/}} $*" >>{called}\nexit 1\n')
        (programs / name).chmod(0o755)
    yield programs
    assert called.read_text() == ""


def demo(place: Path, path: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the demo with the packages of this Python."""
    checkout = with_cheap_keys(copy_of(place / "checkout", "bin", "qbtools", "tests"))
    return run(
        checkout / "tests/demo", QB_READY="1", QB_VENV=sys.prefix, TMPDIR=str(place / "tmp"), PATH=path, timeout=300
    )


def shown(done: subprocess.CompletedProcess[bytes]) -> str:
    """The output of the demo, which must have succeeded."""
    text = done.stdout.decode()
    assert done.returncode == 0, text + done.stderr.decode()
    assert text.endswith("\nEverything worked as expected.\n")
    assert text.count("\n$ ") > 15 and "(status 4)" in text and "(status 3)" in text
    return text


def test_over_ssh(changers: Path, place: Path) -> None:
    need("sshd", "ssh", "ssh-keygen", "gzip")
    with privilege_separation():
        done = demo(place, f"{changers}:{environment()['PATH']}")
    assert "# An sshd on a port of the loopback plays another host" in shown(done)
    assert done.stderr == b""
    assert list((place / "tmp").iterdir()) == []


def links(place: Path, without: set[str]) -> Path:
    """A directory for PATH with links to all programs of the system, without some."""
    place.mkdir()
    for directory in SYSTEM.split(":"):
        for program in Path(directory).iterdir() if Path(directory).is_dir() else ():
            link = place / program.name
            if program.name not in without and not link.is_symlink():
                link.symlink_to(program)
    return place


def test_what_is_missing_is_said_in_one_line(changers: Path, place: Path) -> None:
    done = demo(place, f"{changers}:{links(place / 'programs', without={'gzip', 'cmp'})}")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"demo: this machine lacks: gzip, cmp\n")


def tree(place: Path) -> set[str]:
    """All files below a directory, except the virtual environment."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if ".venv" not in path.parts}


def test_a_user_without_privileges_in_a_fresh_checkout(changers: Path, place: Path, tmp_path: Path) -> None:
    """With a virtual environment of its own, and hardly any variables. What is left is that environment alone.

    There is no ssh: a directory plays the other host, and the demo says so.
    """
    need("setpriv", "gzip")
    need_packages(tmp_path)
    python = shutil.which("python3", path=SYSTEM)
    text = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))"
    if python is None or subprocess.run([python, "-c", text], check=False).returncode:
        missing(f"there is no Python with venv in {SYSTEM}")
    checkout = with_cheap_keys(copy_of(source_copy(place), "tests"))
    programs = links(place / "programs", without={"sshd", "ssh", "ssh-keygen"})
    words: list[str] = []
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", place], check=True)
        words = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--clear-groups"]
        words += [f"--reuid={NOBODY}", f"--regid={NOBODY}"]
    variables = {name: value for name, value in pip_environment().items() if name.startswith("PIP_")}
    variables |= {"PATH": f"{changers}:{programs}", "HOME": str(place), "TMPDIR": str(place / "tmp")}
    before = tree(place)
    done = subprocess.run(
        [*words, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), checkout / "tests/demo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert "# A directory plays another host" in shown(done)
    assert done.stderr.decode().startswith(f"setup: making {checkout}/.venv with cryptography")
    assert done.stderr.count(b"\n") == 1
    assert tree(place) == before
    installed = {path.name.split("-")[0] for path in (checkout / ".venv").glob("lib/*/site-packages/*-info")}
    assert {"cryptography", "docopt", "scrypt", "tqdm"} <= installed
    assert not installed & {"pytest", "mypy", "ruff", "hypothesis", "qbtools"}
