"""The stages that run once for each file load no module that they do not need: starting is most of their cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from requirements import settings
from support import BIN, bash, environment

from qbtools.commands.cli import PACKAGES

SLOW = {"collections", "contextlib", "dataclasses", "docopt", "enum", "functools", "inspect", "json", "re", "site"}
SLOW |= {"signal", "subprocess", "threading", "typing"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A volume, its volume stream, its inner archive, and that compressed."""
    (tmp_path / "v.img").write_bytes(bytes(8192) + b"data" * 5000)
    text = "qb-volread v.img >stream && qb-tarwrite vm1/root.img <stream >tar && gzip -c <tar >tar.gz"
    assert bash(f"cd {tmp_path} && {text}").returncode == 0
    return tmp_path


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (["qb-volread", "file:v.img"], None),
        (["qb-volread", "v.img"], None),
        (["qb-delta", "--name=vm1/root.img"], "stream"),
        (["qb-merge", "stream"], None),
        (["qb-merge", "--drop-older", "--archived=vm1/root.img", "--bases=none", "--", "tar"], None),
        (["qb-tarwrite", "--size=28192", "vm1/root.img"], "stream"),
        (["qb-compress", "gzip"], "tar"),
        (["qb-decompress", "gzip"], "tar.gz"),
        (["qb-tarextract", "vm1/root.img"], "tar"),
        (["qb-volwrite", "--create", "--parents", "--print-size", "--", "file:new/w.img"], "stream"),
        (["qb-volwrite", "--create", "w.img"], "stream"),
    ],
)
def test_what_a_stage_loads(words: list[str], stdin: str | None, place: Path) -> None:
    assert loaded(words, stdin, place) & SLOW == set()


def test_an_id_is_made_without_what_opens_and_seals(place: Path) -> None:
    found = loaded(["qb-header", "id"], None, place)
    assert "qbtools.formats.header" in found
    assert not [name for name in found if "container" in name or "cryptography" in name]


def test_what_qb_seal_loads(place: Path) -> None:
    """cryptography alone loads `re` and others. These are only slow."""
    (place / "secret").write_text("start\n")
    found = loaded(["qb-seal", "--logn=10", "--passphrase-file=secret", "vm1/root.img"], "tar.gz", place)
    assert "cryptography.hazmat.primitives.ciphers" in found
    assert found & {"dataclasses", "inspect", "docopt", "logging"} == set()


def test_what_qb_seal_needs_before_it_starts_a_command_loads_no_cryptography() -> None:
    """That takes as long as the start of the command, which runs beside it."""
    needed = ("qb_seal", "events", "fromcommand", "keyoptions", "receipts", "sealoptions", "signoptions")
    text = f"""
import sys
sys.path.insert(0, {str(BIN.parent)!r})
from qbtools.commands.archive import {", ".join(needed)}
from qbtools.keys import wrapping
print("cryptography" in sys.modules)
"""
    assert subprocess.check_output([sys.executable, "-c", text], env=environment()) == b"False\n"


def test_site_packages_are_added_for_our_packages_only(place: Path) -> None:
    """Not for those that Python's library tries to import: `copy`, which is loaded here, tries `org`."""
    given = settings()
    required = [*given["install_requires"], *given["extras_require"]["progress"]]
    assert set(PACKAGES) == {name.partition(">")[0] for name in required}
    (place / "host").mkdir()
    found = loaded(["qb-host-dir", "host", "inventory"], None, place)
    assert "copy" in found and "site" not in found


def loaded(words: list[str], stdin: str | None, place: Path) -> set[str]:
    """The modules that a program loads."""
    with (place / (stdin or "v.img")).open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-IS", BIN / words[0], *words[1:]],
            stdin=file,
            capture_output=True,
            cwd=place,
            env=environment(),
            check=False,
        )
    told = done.stderr.decode().splitlines()
    assert done.returncode == 0, told
    found = {line.rpartition("|")[2].strip() for line in told if line.startswith("import time:")}
    assert "qbtools.commands.cli" in found
    return found
