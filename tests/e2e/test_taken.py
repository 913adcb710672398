"""Standard input is data: an option that reads a file must not take it, whatever its name is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import bash

SECRET = {"QB_PASSPHRASE_COMMAND": "echo taken"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive, a.qb, and its metadata."""
    place = tmp_path_factory.mktemp("taken")
    (place / "root.img").write_bytes(bytes(5000))
    create = "qb-backup create -q --logn=10 -o a.qb vm:root=root.img"
    made = bash(
        f"cd {place} && {create} && qb-unseal qubes.xml <a.qb | gzip -dc | qb-tarextract --raw >qubes.xml", **SECRET
    )
    assert made.returncode == 0, made.stderr
    os.mkfifo(place / "pipe")
    return place


CALLS = [
    ("--recipients-file", "qb-seal --opaque -R {} x"),
    ("--passphrase-file", "qb-seal --opaque --passphrase-file {} x"),
    ("--passphrase-fd", "qb-seal --opaque --passphrase-fd 0 x"),
    ("--sign", "qb-seal --opaque --sign {} x"),
    ("--passphrase-file", "qb-unseal --passphrase-file {} vm1/root.img"),
    ("--passphrase-fd", "qb-unseal --passphrase-fd 0 vm1/root.img"),
    ("--identity", "qb-unseal --any-writer -i {} vm1/root.img"),
    ("--signers", "qb-unseal --signers {} vm1/root.img"),
    ("--expect", "qb-unseal --expect {} vm1/root.img"),
    ("--expect", "qb-unseal --structure --expect {}"),
    ("--routes", "qb-unseal --to-command cat --routes {}"),
    ("--signers", "qb-key check --signers {}"),
    ("--identity", "qb-key show --any-writer -i {}"),
    ("--new-passphrase-file", "qb-key rewrap -i none --wrap-passphrase --new-passphrase-file {}"),
    ("--metadata", "qb-meta check --metadata {}"),
    ("--check", "qb-plan --check {} --metadata - --host ."),
    ("--base", "qb-delta --base {}"),
    ("--passphrase-file", "qb-backup verify --passphrase-file {}"),
    ("--expect", "qb-backup list --expect {}"),
    ("--plan", "qb-backup restore --yes --host . --plan {}"),
]


@pytest.mark.parametrize(("option", "call"), CALLS)
@pytest.mark.parametrize("path", ["/dev/stdin", "/proc/self/fd/0", "pipe"])
def test_an_option_that_names_it(option: str, call: str, path: str, folder: Path) -> None:
    feed, data = ("{ cat a.qb >pipe 2>/dev/null & } &&", "pipe") if path == "pipe" else ("", "a.qb")
    done = bash(f"cd {folder} && {feed} {call.format(path)} <{data}", **({} if "passphrase" in option else SECRET))
    said = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, said[:1]) == (
        2,
        b"",
        [f"{call.split()[0]}: error: {option}: standard input is taken"],
    )


@pytest.mark.parametrize("call", ["qb-unseal vm1/root.img", "qb-backup verify"])
@pytest.mark.parametrize("variable", ["QB_PASSPHRASE_FILE", "QB_SIGNERS"])
def test_a_variable_that_names_it(call: str, variable: str, folder: Path) -> None:
    more = {} if variable == "QB_PASSPHRASE_FILE" else SECRET
    done = bash(f"cd {folder} && cat a.qb | {call}", **more, **{variable: "/dev/stdin"})
    expected = f"{call.split()[0]}: error: {variable}: standard input is taken"
    assert (done.returncode, done.stdout, done.stderr.decode().splitlines()[:1]) == (2, b"", [expected])


def test_where_standard_input_is_no_data(folder: Path) -> None:
    done = bash(f"cd {folder} && echo taken | qb-backup verify -q --passphrase-file /dev/stdin a.qb")
    assert (done.returncode, done.stderr) == (0, b"")
