"""Signed backups with and without a host; nothing is restored from the backup of a stranger."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hostdirs import Machine, images, inventory, make_host, noise
from signing import fingerprint, make_key, public
from support import bash, need, run
from terminal import Terminal

QUICK = ("--logn", "10", "-q")
SECRET = {"QB_PASSPHRASE_COMMAND": "echo signed"}
DATA = noise("root", 5000)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that is listed, and one that is not; an archive by each of a volume, and of a host."""
    need("ssh-keygen")
    where = tmp_path_factory.mktemp("signatures")
    for name in ("mine", "stranger"):
        make_key(where / name)
    (where / "list").write_text(f"alice {public(where / 'mine')}\n")
    (where / "root.img").write_bytes(DATA)
    make_host(where / "host", [Machine("alone", data={"root": DATA})])
    for name in ("mine", "stranger"):
        for kind, words in (("volume", [f"vm1:root={where}/root.img"]), ("host", ["--host", f"dir:{where}/host"])):
            archive = where / f"{name}-{kind}.qb"
            done = backup("create", *QUICK, "--sign", where / name, "-o", archive, *words)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return where


def backup(*words: str | Path, **changes: str) -> subprocess.CompletedProcess[bytes]:
    return run("qb-backup", *words, **SECRET, **changes)


def runs(place: Path, target: Path, archive: str) -> list[list[str | Path]]:
    """Every way to open an archive of a volume, or of a host."""
    whole = place / f"{archive}-volume.qb", place / f"{archive}-host.qb"
    return [
        *(["list", path] for path in whole),
        *(["verify", path] for path in whole),
        ["restore", "--to", target, whole[0]],
        *(["restore", "--host", f"dir:{target}", *more, whole[1]] for more in (["--yes"], ["-n"], ["--verify-only"])),
    ]


def test_any_writer(place: Path, tmp_path: Path) -> None:
    done = backup("--any-writer", *runs(place, tmp_path, "stranger")[0], "-q")
    assert (done.returncode, done.stderr) == (0, b"")


# Every command once with the option, and once with the variable.
@pytest.mark.parametrize("at", range(8))
def test_every_command_opens_what_a_signer_wrote(place: Path, tmp_path: Path, at: int) -> None:
    (tmp_path / "to").mkdir()
    words, variables = (["--signers", place / "list", "--signer", "alice"], {}) if at % 2 else ([], in_variable(place))
    done = backup(*words, *runs(place, tmp_path / "to", "mine")[at], "-v", **variables)
    assert done.returncode == 0
    assert f"qb-unseal: signed by the key {fingerprint(place / 'mine')} of alice\n" in done.stderr.decode()


@pytest.mark.parametrize("at", range(8))
def test_nothing_is_opened_that_somebody_else_wrote(place: Path, tmp_path: Path, at: int) -> None:
    (tmp_path / "to").mkdir()
    words, variables = ([], in_variable(place)) if at % 2 else (["--signers", place / "list"], {})
    done = backup(*words, *runs(place, tmp_path / "to", "stranger")[at], "-q", **variables)
    assert (done.returncode, done.stdout) == (4, b"")
    who = f"the archive is signed by the key {fingerprint(place / 'stranger')}, which is not listed in {place}/list"
    assert done.stderr.decode() == f"qb-unseal: error: {who}\n"
    assert not list((tmp_path / "to").iterdir())


def in_variable(place: Path) -> dict[str, str]:
    return {"QB_SIGNERS": str(place / "list")}


def test_saved_machines_are_restored(place: Path, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    listed = ("--signers", place / "list")
    assert backup("restore", *listed, "--to", tmp_path, place / "mine-volume.qb").returncode == 0
    assert (tmp_path / "vm1/root.img").read_bytes() == DATA
    restoring = ["restore", *listed, "--host", f"dir:{tmp_path}/host", "--yes", place / "mine-host.qb"]
    assert backup(*restoring).returncode == 0
    assert list(inventory(tmp_path / "host")) == ["alone"]
    assert images(tmp_path / "host") == images(place / "host")


def test_each_archive_has_its_signature(place: Path, tmp_path: Path) -> None:
    command = f"ssh-keygen -q -Y sign -n qbtools -f {place}/mine"
    saving = ["create", *QUICK, "--host", f"dir:{place}/host", "--each", "-o", tmp_path, "--sign-command", command]
    assert backup(*saving).returncode == 0
    assert backup("verify", "--signers", place / "list", tmp_path / "alone.qbk").returncode == 0


def test_a_list_out_of_another_program(place: Path) -> None:
    text = f"qb-backup verify --signers <(cat {place}/NAME) {place}/mine-volume.qb"
    assert bash(text.replace("NAME", "list"), **SECRET).returncode == 0
    assert bash(text.replace("NAME", "stranger.pub"), **SECRET).returncode == 4


def test_a_signature_that_fails_leaves_no_archive(place: Path, tmp_path: Path) -> None:
    for words, status in (
        (["--sign", place / "list"], 1),
        (["--sign-command", "cat"], 1),
        (["--sign-command", " "], 2),
    ):
        done = backup("create", *QUICK, *words, "-o", tmp_path / "a.qb", f"vm1:root={place}/root.img")
        assert (done.returncode, done.stderr.count(b"error: ")) == (status, 1)
        assert not list(tmp_path.iterdir())


def test_a_key_is_unlocked_at_the_terminal(place: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key", passphrase="open sesame")
    (tmp_path / "list").write_text(f"alice {public(key)}\n")
    saving = ["create", *QUICK, "--sign", str(key), "-o", str(tmp_path / "a.qb"), f"vm1:root={place}/root.img"]
    with Terminal("qb-backup", *saving, **SECRET) as terminal:
        terminal.expect(b"passphrase")
        terminal.type(b"open sesame\n")
        done = terminal.finish()
    assert (done.returncode, done.stderr) == (0, b"")
    assert backup("verify", "--signers", tmp_path / "list", tmp_path / "a.qb").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["create", "--signers", "list", "root.img"], "--signers does not go with create"),
        (["create", "--any-writer", "root.img"], "--any-writer does not go with create"),
        (["create", "--sign", "", "root.img"], "--sign: the name is empty"),
        (["create", "--sign", "a", "--sign-command", "b", "root.img"], "--sign and --sign-command exclude each other"),
        (["verify", "--sign", "mine"], "--sign does not go with verify"),
        (["verify", "--signer", "alice"], "--signer needs --signers"),
        (["verify", "--signers", "list", "--signers-time", "now"], "--signers-time: not a time"),
        (["verify", "--signers", "list", "--any-writer"], "--any-writer and --signers exclude each other"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], message: str) -> None:
    done = backup(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[0].startswith(f"qb-backup: error: {message}")


def test_the_list_is_no_target(place: Path, tmp_path: Path) -> None:
    """A restore must not write over what it needs."""
    (tmp_path / "list").write_text((place / "list").read_text())
    mapped = f"vm1:root={tmp_path}/list"
    done = backup("restore", "--signers", tmp_path / "list", "--overwrite", "--map", mapped, place / "mine-volume.qb")
    assert done.returncode == 5
    assert (tmp_path / "list").read_text() == (place / "list").read_text()
