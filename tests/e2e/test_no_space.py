"""No space left: status 1, one line that says so, and no incomplete file stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import identities
import pytest
from devices import tmpfs
from support import run

SIZE = 4 << 20


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A volume, an archive of it, a passphrase; `small`, a file system with room for a quarter of either."""
    (tmp_path / "root.img").write_bytes(os.urandom(SIZE))
    (tmp_path / "passphrase").write_text("no space\n")
    (tmp_path / "passphrase").chmod(0o600)
    with tmpfs(tmp_path / "small", SIZE // 4):
        yield tmp_path


def backup(place: Path, *words: str | Path) -> tuple[int, str]:
    done = run("qb-backup", *words, "--passphrase-file", place / "passphrase")
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


def test_create(place: Path) -> None:
    status, stderr = backup(place, "create", "-q", "--logn", "10", "-o", place / "small/a.qb", place / "root.img")
    message = f"qb-store: error: cannot copy the archive to {place}/small/a.qb.partial: No space left on device\n"
    assert (status, stderr) == (1, message)
    assert not os.listdir(place / "small")


@pytest.mark.parametrize("options", [[], ["--wrap-passphrase"]])
def test_create_for_recipients(place: Path, options: list[str]) -> None:
    recipient = identities.age(place / "identity")
    words = ["create", "-q", "-r", recipient, *options, "--receipt", place / "receipt", "--id-file", place / "id"]
    variables = {"QB_PASSPHRASE_FILE": str(place / "passphrase")}
    done = run("qb-backup", *words, "-o", place / "small/a.qb", place / "root.img", **variables)
    message = f"qb-store: error: cannot copy the archive to {place}/small/a.qb.partial: No space left on device\n"
    assert (done.returncode, done.stderr.decode()) == (1, message)
    assert not os.listdir(place / "small")
    assert not (place / "receipt").exists() and not (place / "id").exists()


def test_recipients_need_no_temporary_files(place: Path) -> None:
    recipient = identities.age(place / "identity")
    (place / "small/full").write_bytes(bytes(SIZE // 4))
    for words in (
        ["create", "-q", "-r", recipient, "-o", place / "a.qb", place / "root.img"],
        ["verify", "-q", "-i", place / "identity", "--any-writer", place / "a.qb"],
    ):
        done = run("qb-backup", *words, TMPDIR=str(place / "small"))
        assert (done.returncode, done.stderr) == (0, b"")
    assert os.listdir(place / "small") == ["full"]


def test_restore(place: Path) -> None:
    archive = place / "a.qb"
    assert backup(place, "create", "-q", "--logn", "10", "-o", archive, place / "root.img") == (0, "")
    status, stderr = backup(place, "restore", "--to", place / "small/to", archive)
    message = f"not enough room for file:{place}/small/to/root/root.img: {SIZE // 4} bytes are free, the data has at"
    assert (status, stderr.count("\n")) == (5, 1)
    assert stderr.startswith(f"qb-backup: error: {message} least ")
    assert not os.listdir(place / "small")


def test_restore_that_looked_as_if_it_had_room(place: Path) -> None:
    """The size of a small archive does not show the size of its data."""
    (place / "root.img").write_bytes(os.urandom(512) * (SIZE // 512))
    archive = place / "a.qb"
    assert backup(place, "create", "-q", "--logn", "10", "-o", archive, place / "root.img") == (0, "")
    status, stderr = backup(place, "restore", "--to", place / "small/to", archive)
    warning, error = stderr.splitlines()
    assert warning.startswith(f"qb-backup: warning: there may not be enough room for file:{place}/small/to/root/")
    assert error == f"qb-volwrite: error: cannot write to {place}/small/to/root/root.img: No space left on device"
    assert status == 1
    assert not os.listdir(place / "small")


@pytest.mark.parametrize("options", [(), ("--verify",)])
def test_volwrite(place: Path, options: tuple[str, ...]) -> None:
    stream = run("qb-volread", place / "root.img").stdout
    done = run("qb-volwrite", *options, place / "small/target", data=stream)
    assert done.returncode == 1
    assert (
        done.stderr == f"qb-volwrite: error: cannot write to {place}/small/target: No space left on device\n".encode()
    )
    assert not os.listdir(place / "small")


def test_a_target_that_is_replaced_stays_as_it_was(place: Path) -> None:
    (place / "small/target").write_bytes(b"before")
    done = run("qb-volwrite", "--overwrite", place / "small/target", data=run("qb-volread", place / "root.img").stdout)
    assert done.returncode == 1
    assert os.listdir(place / "small") == ["target"]
    assert (place / "small/target").read_bytes() == b"before"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small volume and what each program reads."""
    place = tmp_path_factory.mktemp("full")
    (place / "root.img").write_bytes(os.urandom(100_000))
    (place / "passphrase").write_text("no space\n")
    (place / "passphrase").chmod(0o600)
    made = run(
        "bash",
        "-c",
        f"cd {place} && qb-backup create -q --logn 10 --passphrase-file passphrase root.img >backup.qb &&"
        " qb-seal --opaque --logn 10 --passphrase-file passphrase --backup-id x --record records a"
        " <root.img >/dev/null &&"
        " qb-seal --opaque --logn 10 --passphrase-file passphrase a <root.img >a.qb",
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return place


@pytest.mark.parametrize(
    "command",
    [
        "qb-volread root.img",
        "qb-volread --raw root.img",
        "qb-volread root.img | qb-tarwrite a",
        "qb-tarwrite --raw a <root.img",
        "qb-seal --opaque --logn 10 --passphrase-file passphrase a <root.img",
        "qb-header write --backup-id x --logn 10 --passphrase-file passphrase",
        "qb-header id",
        "qb-manifest --backup-id x --logn 10 --passphrase-file passphrase records",
        "qb-unseal --passphrase-file passphrase a <a.qb",
        "qb-unseal --list --passphrase-file passphrase <a.qb",
        "qb-volread root.img | qb-tarwrite a | qb-tarextract",
        "qb-backup create -q --logn 10 --passphrase-file passphrase root.img",
        "qb-backup list --passphrase-file passphrase backup.qb",
    ],
)
def test_standard_output_is_full(command: str, folder: Path) -> None:
    done = run("bash", "-o", "pipefail", "-c", f"cd {folder} && {command} >/dev/full")
    assert done.returncode == 1
    assert b"error: cannot " in done.stderr and b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
