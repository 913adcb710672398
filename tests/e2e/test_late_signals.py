"""A signal that arrives between Python's last check and a system call that would never end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from support import ROOT, bash, environment, need

SECRET = {"QB_PASSPHRASE_COMMAND": "echo late"}
SIZE = 8 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library late.so, an inner archive, and the same sealed."""
    need("gcc")
    place = tmp_path_factory.mktemp("late")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", place / "late.so", ROOT / "tests/late.c"], check=True)
    (place / "root.img").write_bytes(os.urandom(SIZE))
    seal = "qb-seal -q --logn 10 --opaque vm1/root.img"
    made = bash(f"cd {place} && qb-volread root.img >stream && qb-tarwrite x <stream | {seal} >a.qb", **SECRET)
    assert made.returncode == 0, made.stderr
    return place


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "command",
    [
        "qb-unseal vm1/root.img <a.qb",
        "qb-unseal --to-command 'sleep 1000' <a.qb",
        "qb-seal -q --logn 10 --opaque vm1/root.img <stream",
    ],
)
def test_it_ends_the_program(command: str, number: int, folder: Path, tmp_path: Path) -> None:
    words = [
        *("bash", "-c", f"cd {folder}; {{ {command}; echo $? >{tmp_path}/status; }} | sleep 1000"),
    ]
    late = {"LD_PRELOAD": f"{folder}/late.so", "QB_LATE": str(int(number)), "QB_LATE_SEEN": f"{tmp_path}/seen"}
    process = subprocess.Popen(words, env=environment(**SECRET, **late), start_new_session=True)
    try:
        for _ in range(300):
            if (tmp_path / "status").exists() and (tmp_path / "status").read_text():
                break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.1)
        assert (tmp_path / "seen").exists()
        assert (tmp_path / "status").read_text() == f"{128 + number}\n"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
