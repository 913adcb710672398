"""qb-unseal without a CMD: one file from a pipe and from a file, --list, --stop and --structure."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support import bash

SIZES = {"vm1/a": 6_000_000, "vm1/b": 300_000, "vm2/c": 0, "vm2/d": 14_000_000}
OPEN = "qb-unseal --passphrase-file passphrase"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files in SIZES by their last letters, a passphrase, and an archive a.qb of them."""
    place = tmp_path_factory.mktemp("unseal")
    (place / "passphrase").write_text("unseal\n")
    (place / "passphrase").chmod(0o600)
    for name, size in SIZES.items():
        (place / name[-1]).write_bytes(os.urandom(size))
    (place / "list").write_text("".join(f"{name}\t{name[-1]}\n" for name in SIZES) + "end\n")
    made = bash(
        f"cd {place} && qb-seal --opaque --logn 10 --chunk-size 1M --passphrase-file passphrase"
        " --from-command 'cat \"$QB_SOURCE\"' list >a.qb"
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return place


def shell(folder: Path, text: str) -> tuple[int, str, str]:
    done = bash(f"cd {folder} && {text}")
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("stop", ["", "--stop "])
@pytest.mark.parametrize("way", ["{} <a.qb", "cat a.qb | {}"])
def test_one_file(name: str, stop: str, way: str, folder: Path) -> None:
    text = way.format(f"{OPEN} {stop}{name}") + f" | cmp - {name[-1]}"
    if stop and way.startswith("cat"):
        text = f"{text}; [[ ${{PIPESTATUS[*]}} = @(0|141)' 0 0' ]]"
    assert shell(folder, text) == (0, "", "")


def test_a_pipe_is_read_to_its_end(folder: Path) -> None:
    """So its writer ends with 0, and the end is checked; with --stop neither is the case."""
    assert shell(folder, f"cat a.qb | {OPEN} vm1/b >/dev/null; echo ${{PIPESTATUS[*]}}") == (0, "0 0\n", "")
    status, _, stderr = shell(folder, f"head -c -1200 a.qb | {OPEN} vm1/b | cmp - b")
    assert (status, stderr) == (4, "qb-unseal: error: the archive ends in the middle of qb-manifest.000.enc\n")
    assert shell(folder, f"head -c -1200 a.qb | {OPEN} --stop vm1/b | cmp - b")[1:] == ("", "")


def test_a_file_that_is_not_there(folder: Path) -> None:
    status, stdout, stderr = shell(folder, f"{OPEN} vm1/none <a.qb")
    assert (status, stdout) == (4, "")
    assert stderr == "qb-unseal: error: vm1/none is not in the archive\nhint: qb-unseal --list says what is\n"


def test_the_list(folder: Path) -> None:
    listed = "".join(f"{name}\t{size // (1 << 20) + 1}\t{size}\n" for name, size in SIZES.items())
    assert shell(folder, f"{OPEN} --list <a.qb") == (0, listed, "")
    assert shell(folder, f"cat a.qb | {OPEN} --list") == (0, listed, "")
    document = json.loads(shell(folder, f"{OPEN} --list --json <a.qb")[1])
    assert [(file["name"], file["bytes"]) for file in document["files"]] == list(SIZES.items())


def test_verify_prints_nothing(folder: Path) -> None:
    assert shell(folder, f"{OPEN} --verify <a.qb") == (0, "", "")
    assert shell(folder, f"cat a.qb | {OPEN} --verify -j 1") == (0, "", "")


def test_structure_needs_no_passphrase(folder: Path) -> None:
    assert shell(folder, "qb-unseal --structure <a.qb") == (0, "", "")
    assert shell(folder, "cat a.qb | qb-unseal --structure") == (0, "", "")
    for cut in (0, 5000, 10_000_000):
        status, stdout, stderr = shell(folder, f"head -c {cut} a.qb | qb-unseal --structure")
        assert (status, stdout) == (4, "")
        assert stderr.startswith("qb-unseal: error: ")


@pytest.mark.parametrize(("words", "all_of_it"), [("--list", False), ("vm1/b", False), ("--verify", True)])
def test_an_unneeded_file_is_not_read(words: str, all_of_it: bool, folder: Path) -> None:
    """This counts everything that the shell and its children read (proc(5), rchar), with our modules."""
    count = "qb-unseal --help >/dev/null; read -r _ before </proc/$$/io"
    text = f"{count}; {OPEN} {words} <a.qb >/dev/null && read -r _ after </proc/$$/io && echo $((after - before))"
    status, stdout, stderr = shell(folder, text)
    assert (status, stderr) == (0, "")
    assert (int(stdout) > 15_000_000) == all_of_it
    assert (folder / "a.qb").stat().st_size > 20_000_000
