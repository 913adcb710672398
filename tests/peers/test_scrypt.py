"""Containers against the scrypt program, both ways, with the parameters that it picks by itself too."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from support import missing, need, run
from vectors import archivebytes as made

from qbtools.formats.container import Parameters, open_bytes, parse_fixed, seal_bytes
from qbtools.formats.limits import Limits

SECRETS = [b"correct horse", "20261124T060000-01!vm1/root.img.000!grün 'und' $blau".encode(), b"x" * 200]
DATA = random.Random(1).randbytes(300_001)


@pytest.fixture(autouse=True)
def peer() -> None:
    need("scrypt")


def scrypt(where: Path, action: str, secret: bytes, data: bytes, *options: str) -> tuple[int, bytes, str]:
    """Runs `scrypt enc` or `scrypt dec`."""
    path = where / "secret"
    path.write_bytes(secret + b"\n")
    # -f: what a busy machine can do in how much time is not the point.
    more = ["-f"] if action == "dec" or "--logN" in options else []
    ended = run("scrypt", action, "--passphrase", f"file:{path}", *more, *options, "-", data=data, timeout=300)
    return ended.returncode, ended.stdout, ended.stderr.decode()


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("size", [0, 1, 16, 300_001])
def test_it_opens_ours(tmp_path: Path, size: int, secret: bytes) -> None:
    sealed = seal_bytes(secret, Parameters(10), DATA[:size])
    assert scrypt(tmp_path, "dec", secret, sealed) == (0, DATA[:size], "")


@pytest.mark.parametrize("parameters", [Parameters(), Parameters(14, 1, 1), Parameters(11, 5, 7)])
def test_it_opens_ours_of_other_parameters(tmp_path: Path, parameters: Parameters) -> None:
    sealed = seal_bytes(SECRETS[0], parameters, DATA)
    assert scrypt(tmp_path, "dec", SECRETS[0], sealed) == (0, DATA, "")


def test_it_says_of_ours_what_we_say(tmp_path: Path) -> None:
    sealed = seal_bytes(SECRETS[0], Parameters(10), b"data")
    status, _, stderr = scrypt(tmp_path, "dec", b"other", sealed)
    assert status
    assert "Passphrase is incorrect" in stderr
    for at in (0, 20, 50, 97, 100, -1):
        changed = bytearray(sealed)
        changed[at] ^= 1
        assert scrypt(tmp_path, "dec", SECRETS[0], bytes(changed))[0]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("size", [0, 1, 16, 300_001])
def test_we_open_its(tmp_path: Path, size: int, secret: bytes) -> None:
    options = ["--logN", "10", "-r", "3", "-p", "2"]
    status, sealed, stderr = scrypt(tmp_path, "enc", secret, DATA[:size], *options)
    assert (status, stderr) == (0, "")
    assert parse_fixed(sealed)[0] == Parameters(10, 3, 2)
    assert open_bytes(secret, sealed) == DATA[:size]


def test_what_it_picks_on_a_large_machine_is_read(tmp_path: Path) -> None:
    """An archive whose containers it made: with parameters that it chose, and such as it would on a large machine.

    Half a gigabyte in one container, p above 1 in another: all within what qb-unseal takes without being told to. -t:
    a part of a second instead of 5. The limit of the work is that of two gigabytes, which would take a quarter of a
    minute.
    """
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < 2 << 30:
        missing("two gigabytes of memory are needed")
    Limits(4 << 30).check(Parameters(21))

    def sealed(secret: str, data: bytes, *options: str) -> bytes:
        status, out, stderr = scrypt(tmp_path, "enc", secret.encode() + made.PASSPHRASE, data, *options)
        assert (status, stderr) == (0, "")
        return out

    text = made.header()
    first = sealed(f"{made.ID}!vm1/a.000!", DATA[:256], "--logN", "19", "-r", "8", "-p", "1")
    second = sealed(f"{made.ID}!vm1/a.001!", DATA[256:300], "--logN", "15", "-r", "8", "-p", "5")
    files = [("vm1/a.000.enc", first), ("vm1/a.001.enc", second)]
    pieces = [("backup-header", text), ("backup-header.hmac", sealed("backup-header!", text, "-t", "0.3")), *files]
    (tmp_path / "passphrase").write_bytes(made.PASSPHRASE)
    (tmp_path / "passphrase").chmod(0o600)
    data = made.archive([*pieces, made.manifest(files)])
    ended = run("qb-unseal", "--passphrase-file", tmp_path / "passphrase", "-j", "2", "vm1/a", data=data, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == DATA[:300]
