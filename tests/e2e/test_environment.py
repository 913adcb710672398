"""Variables that change how bash, tar or a compressor works do not change a backup."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support import run

DATA = random.Random(3).randbytes(100_000)


@pytest.fixture
def harmful(tmp_path: Path) -> dict[str, str]:
    """Each of these alone can spoil an archive or end a run."""
    (tmp_path / "start").write_text("echo Welcome to node 7\n")
    return {
        "BASH_ENV": f"{tmp_path}/start",
        "ENV": f"{tmp_path}/start",
        "SHELLOPTS": "noexec:nounset:xtrace",
        "BASHOPTS": "failglob",
        "BASH_FUNC_head%%": "() { echo head; }",
        "BASH_FUNC_printf%%": "() { echo printf; }",
        "CDPATH": "/",
        "EXECIGNORE": "*/qb-*:*/tar:*/gzip",
        "TMOUT": "1",
        "TAR_OPTIONS": "--exclude=*",
        "TAPE": "/dev/null",
        "GZIP": "-l",
        "PIGZ": "-l",
        "XZ_OPT": "--format=raw",
        "XZ_DEFAULTS": "--format=raw",
        "ZSTD_CLEVEL": "19",
        "POSIXLY_CORRECT": "1",
    }


# Together some of them hide what others do: a shell with noexec reads no file when it starts.
TOGETHER = {
    "gzip": ("BASH_ENV", "ENV", "GZIP", "PIGZ", "TAR_OPTIONS", "TAPE"),
    "xz": ("EXECIGNORE", "BASHOPTS", "CDPATH", "TMOUT", "XZ_OPT", "XZ_DEFAULTS"),
    "zstd": ("SHELLOPTS", "BASH_FUNC_head%%", "BASH_FUNC_printf%%", "ZSTD_CLEVEL", "POSIXLY_CORRECT"),
}


def test_each_is_tried(harmful: dict[str, str]) -> None:
    assert sorted(harmful) == sorted(name for names in TOGETHER.values() for name in names)


@pytest.mark.parametrize("method", TOGETHER)
def test_a_whole_backup(method: str, harmful: dict[str, str], tmp_path: Path) -> None:
    harmful = {name: harmful[name] for name in TOGETHER[method]}
    (tmp_path / "root.img").write_bytes(DATA)
    (tmp_path / "pw").write_text("secret\n")
    (tmp_path / "pw").chmod(0o600)
    harmful["QB_PASSPHRASE_COMMAND"] = f"sleep 2; cat {tmp_path}/pw"
    words = ("--logn=10", f"--compress={method}", f"--output={tmp_path}/a.qb", f"vm1:root={tmp_path}/root.img")
    for call in (
        ("create", *words),
        ("verify", tmp_path / "a.qb"),
        ("restore", "--to", tmp_path / "to", tmp_path / "a.qb"),
    ):
        done = run("qb-backup", call[0], "-q", *map(str, call[1:]), **harmful)
        assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "to/vm1/root.img").read_bytes() == DATA


def test_a_tree(harmful: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/file").write_bytes(DATA)
    saved = run("qb-tree", tmp_path / "home", "dom0-home/user", **harmful)
    assert (saved.returncode, saved.stderr) == (0, b"")
    back = run("qb-tree", "--extract", tmp_path / "back", "dom0-home/user", data=saved.stdout, **harmful)
    assert (back.returncode, back.stderr) == (0, b"")
    assert (tmp_path / "back/file").read_bytes() == DATA


def test_a_cmd_that_takes_its_time_is_not_ended_by_the_timeout_of_an_idle_shell(tmp_path: Path) -> None:
    secret = {"QB_PASSPHRASE_FILE": str(tmp_path / "pw")}
    (tmp_path / "pw").write_text("secret\n")
    (tmp_path / "pw").chmod(0o600)
    data = 50 * DATA  # more than a pipe holds
    sealed = run("qb-seal", "--logn=10", "--opaque", "a", data=data, **secret)
    words = ("--to-command", f"sleep 3; cat >{tmp_path}/out", "a")
    done = run("qb-unseal", *words, data=sealed.stdout, TMOUT="1", **secret)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == data
